//! Tokens of people. A *ticket* stands for a place in a queue, and only weir reads it; a *pass* stands for a stay, and the
//! protected service verifies it without a call.
//!
//! Both are JSON Web Tokens with `iss`, `aud` (`<kind>/<queue>`), `sub` (the actor), `iat`, `exp`, `n` (number of the arrival)
//! and `life` (of the queue). A pass has the type `weir-pass+jwt` and the algorithm of its key. A ticket has the type
//! `weir-ticket+jwt` and a MAC, with a secret that is derived from the key: every poll verifies it, so it must be cheap, and a
//! service that shares a secret for passes cannot make tickets. `kid` alone selects the key, whose type and algorithm the token
//! must have: a token never chooses how it is verified. The caller says which of the two it needs, and the other is refused: other
//! services see a pass, and must not be able to act for its holder.

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use weir_core::config::{ConfigError, RoomAlgorithm, RoomConfig, RoomKeyConfig};
use weir_core::error::RoomRefusal;
use weir_core::model::{Id, IdType};

/// Longest token, in bytes: a longer one is refused unread.
pub const TOKEN_BYTES_MAX: usize = 2_048;

/// The use of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A place in a queue.
    Ticket,
    /// A stay.
    Pass,
}

impl Use {
    fn media_type(self) -> &'static str {
        match self {
            Self::Ticket => "weir-ticket+jwt",
            Self::Pass => "weir-pass+jwt",
        }
    }
}

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Its use.
    pub of: Use,
    /// The person.
    pub actor: Id,
    /// The number of the arrival.
    pub number: u64,
    /// The queue's life.
    pub life: String,
    /// When it expires, in Unix seconds.
    pub expires_s: u64,
    /// The estimated time of the admission, in Unix milliseconds; tickets only.
    pub expected_ms: Option<u64>,
    /// A lottery decides the place; tickets only.
    pub by_lottery: bool,
}

#[derive(Serialize, Deserialize)]
struct Body {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    n: u64,
    life: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eta: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lot: bool,
}

struct Signer {
    algorithm: Algorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

struct Key {
    kid: String,
    ticket: Signer,
    pass: Signer,
    public: Option<Value>,
}

/// The keys of a kind.
pub struct Keyring {
    kind: String,
    issuer: String,
    actor_type: IdType,
    keys: Vec<Key>,
    validations: [(Algorithm, Validation); 4],
}

impl Keyring {
    /// Reads the keys.
    ///
    /// # Errors
    /// A key that cannot be read or does not fit its algorithm.
    pub fn new(config: &RoomConfig) -> Result<Self, ConfigError> {
        let keys = config.keys.iter().map(|key| Key::new(&config.kind, key)).collect::<Result<_, _>>()?;
        let validation = |algorithm: Algorithm| {
            let mut validation = Validation::new(algorithm);
            // Times, issuer and audience are checked below, each with its own answer.
            validation.validate_exp = false;
            validation.validate_aud = false;
            validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
            (algorithm, validation)
        };
        Ok(Self {
            kind: config.kind.clone(),
            issuer: config.issuer.clone(),
            actor_type: config.actor_type,
            keys,
            validations: [Algorithm::HS256, Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256].map(validation),
        })
    }

    /// The public keys of passes, as JSON Web Keys.
    pub fn public(&self) -> impl Iterator<Item = &Value> {
        self.keys.iter().filter_map(|key| key.public.as_ref())
    }

    fn audience(&self, queue: &Id) -> String {
        format!("{}/{queue}", self.kind)
    }

    /// Makes a token with the first key; `None` only where the key does not sign, which is found out at the start.
    pub fn sign(&self, queue: &Id, claims: &Claims, now_ms: u64) -> Option<String> {
        let key = self.keys.first()?;
        let signer = key.of(claims.of);
        let mut header = Header::new(signer.algorithm);
        header.kid = Some(key.kid.clone());
        header.typ = Some(claims.of.media_type().into());
        let body = Body {
            iss: self.issuer.clone(),
            aud: self.audience(queue),
            sub: claims.actor.to_string(),
            iat: now_ms / 1_000,
            exp: claims.expires_s,
            n: claims.number,
            life: claims.life.clone(),
            eta: claims.expected_ms,
            lot: claims.by_lottery,
        };
        jsonwebtoken::encode(&header, &body, &signer.encoding).ok()
    }

    /// Verifies a token of use `of` for `queue`, or, with none, for whatever queue of the kind it names: its text comes back.
    ///
    /// # Errors
    /// [`RoomRefusal::TokenInvalid`], [`RoomRefusal::NotATicket`] or [`RoomRefusal::NotAPass`],
    /// [`RoomRefusal::TokenOfAnotherQueue`], [`RoomRefusal::TokenExpired`], in this order.
    pub fn verify(
        &self,
        of: Use,
        queue: Option<&Id>,
        token: &str,
        now_ms: u64,
    ) -> Result<(Claims, String), RoomRefusal> {
        let (given, body) = self.decode(token).ok_or(RoomRefusal::TokenInvalid)?;
        if given != of {
            return Err(match of {
                Use::Ticket => RoomRefusal::NotATicket,
                Use::Pass => RoomRefusal::NotAPass,
            });
        }
        let named = body.aud.strip_prefix(&self.kind).and_then(|rest| rest.strip_prefix('/'));
        let named = named.ok_or(RoomRefusal::TokenOfAnotherQueue)?;
        if queue.is_some_and(|queue| queue.to_string() != named) {
            return Err(RoomRefusal::TokenOfAnotherQueue);
        }
        if body.exp <= now_ms / 1_000 {
            return Err(RoomRefusal::TokenExpired);
        }
        let actor = Id::parse(self.actor_type, &body.sub).map_err(|_| RoomRefusal::TokenInvalid)?;
        let Body { n, life, exp, eta, lot, .. } = body;
        let named = named.to_owned();
        Ok((Claims { of, actor, number: n, life, expires_s: exp, expected_ms: eta, by_lottery: lot }, named))
    }

    fn decode(&self, token: &str) -> Option<(Use, Body)> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        let kid = header.kid.as_deref()?;
        let key = self.keys.iter().find(|key| key.kid == kid)?;
        let typ = header.typ.as_deref();
        let of = [Use::Ticket, Use::Pass].into_iter().find(|of| typ == Some(of.media_type()))?;
        let signer = key.of(of);
        if header.alg != signer.algorithm || header.crit.is_some() {
            return None;
        }
        let (_, validation) = self.validations.iter().find(|(algorithm, _)| *algorithm == signer.algorithm)?;
        let body = jsonwebtoken::decode::<Body>(token, &signer.decoding, validation).ok()?.claims;
        (body.iss == self.issuer).then_some((of, body))
    }
}

impl Key {
    fn new(kind: &str, config: &RoomKeyConfig) -> Result<Self, ConfigError> {
        let make = match config.algorithm {
            RoomAlgorithm::EdDSA => "openssl genpkey -algorithm ed25519 -out room.pem",
            RoomAlgorithm::ES256 => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out room.pem",
            RoomAlgorithm::RS256 => "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out room.pem",
            RoomAlgorithm::HS256 => "openssl rand -base64 48 > room.secret",
        };
        let wrong = |reason: String| ConfigError::Value {
            field: format!("room {kind:?}, key {:?}", config.kid),
            reason: format!("{reason}; make one with: {make}"),
        };
        let bytes = config.read()?;
        let (pass, public) = match config.algorithm {
            RoomAlgorithm::HS256 => (Signer::secret(&bytes), None),
            RoomAlgorithm::EdDSA => {
                let encoding = EncodingKey::from_ed_pem(&bytes);
                Signer::key_pair(encoding, Algorithm::EdDSA, &config.kid)
                    .map_err(|error| wrong(format!("is no Ed25519 key in PEM: {error}")))?
            }
            RoomAlgorithm::ES256 => {
                let encoding = EncodingKey::from_ec_pem(&bytes);
                Signer::key_pair(encoding, Algorithm::ES256, &config.kid)
                    .map_err(|error| wrong(format!("is no P-256 key in PEM (PKCS #8): {error}")))?
            }
            RoomAlgorithm::RS256 => {
                let encoding = EncodingKey::from_rsa_pem(&bytes);
                Signer::key_pair(encoding, Algorithm::RS256, &config.kid)
                    .map_err(|error| wrong(format!("is no RSA key in PEM: {error}")))?
            }
        };
        let secret = Sha256::new().chain_update(b"weir ticket 1").chain_update(&bytes).finalize();
        let key = Self { kid: config.kid.clone(), ticket: Signer::secret(&secret), pass, public };
        let proof = jsonwebtoken::encode(&Header::new(key.pass.algorithm), &json!({}), &key.pass.encoding);
        let proof = proof.map_err(|error| wrong(format!("does not sign: {error}")))?;
        // A key of another curve, or a public part that is not that of the private one.
        key.pass.check(&proof).map_err(|error| wrong(format!("does not verify what it has signed: {error}")))?;
        Ok(key)
    }

    fn of(&self, of: Use) -> &Signer {
        match of {
            Use::Ticket => &self.ticket,
            Use::Pass => &self.pass,
        }
    }
}

impl Signer {
    /// A private key, and its public part as a JSON Web Key.
    fn key_pair(
        encoding: Result<EncodingKey, jsonwebtoken::errors::Error>,
        algorithm: Algorithm,
        kid: &str,
    ) -> Result<(Self, Option<Value>), jsonwebtoken::errors::Error> {
        let encoding = encoding?;
        let mut jwk = Jwk::from_encoding_key(&encoding, algorithm)?;
        let decoding = DecodingKey::from_jwk(&jwk)?;
        jwk.common.key_id = Some(kid.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let public = serde_json::to_value(&jwk).ok();
        Ok((Self { algorithm, encoding, decoding }, public))
    }

    fn check(&self, token: &str) -> Result<(), jsonwebtoken::errors::Error> {
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        jsonwebtoken::decode::<Value>(token, &self.decoding, &validation).map(drop)
    }

    fn secret(bytes: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
        }
    }
}
