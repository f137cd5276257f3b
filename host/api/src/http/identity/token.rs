//! What a token must say, whichever key has signed it.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;

use weir_core::config::{ConfigError, JwtConfig, OneOrMany};

/// Longest token, in bytes: what comes to more is not looked at.
pub(super) const TOKEN_BYTES_MAX: usize = 4096;

/// What is asked of tokens.
pub(super) struct Rules {
    validations: Vec<(Algorithm, Validation)>,
    /// Where the actor stands in the claims, name by name; empty: `sub`.
    path: Vec<String>,
    leeway_s: u64,
}

#[derive(Deserialize)]
struct Claims {
    sub: Subject,
    exp: f64,
    nbf: Option<f64>,
}

/// Who a token names.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Subject {
    Integer(i64),
    Text(String),
}

/// What the head of a token says: who has signed it, as it claims.
pub(in crate::http) struct Head {
    pub(in crate::http::identity) algorithm: Algorithm,
    pub(in crate::http::identity) kid: Option<String>,
}

/// Reads the head of a token; `None` if it is not a token, or is one for another purpose.
pub(super) fn head(token: &str) -> Option<Head> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    is_for_actors(&header).then_some(Head { algorithm: header.alg, kid: header.kid })
}

/// Extensions that must be understood: none is. And what says that it is for something else, as the passes of a waiting
/// room do, is no proof of who asks, also where one key signs both (RFC 8725, 3.11).
fn is_for_actors(header: &Header) -> bool {
    header.crit.is_none() && header.typ.as_deref().is_none_or(names_an_actor)
}

/// Whether tokens of this type identify an actor: `JWT`, `at+jwt`, and any type that is not a JWT for one specific use.
fn names_an_actor(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    typ == "at+jwt" || !typ.ends_with("+jwt")
}

impl Rules {
    /// # Errors
    /// An algorithm that is not known.
    pub(super) fn new(config: &JwtConfig) -> Result<Self, ConfigError> {
        let algorithm = |name: &String| {
            name.parse().map_err(|_| ConfigError::Value {
                field: "auth.jwt.algorithm".into(),
                reason: format!("{name:?} is not known"),
            })
        };
        let algorithms: Vec<Algorithm> = config.algorithm.as_slice().iter().map(algorithm).collect::<Result<_, _>>()?;
        let validations = algorithms.into_iter().map(|algorithm| (algorithm, validation(config, algorithm))).collect();
        let path = config.actor_path();
        let path = if path == ["sub"] { Vec::new() } else { path };
        Ok(Self { validations, path, leeway_s: config.leeway_s })
    }

    /// The algorithms that are accepted.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.validations.iter().map(|(algorithm, _)| *algorithm)
    }

    /// Who a token names, where `key` has signed it and it says what it must.
    pub(super) fn subject(&self, token: &str, algorithm: Algorithm, key: &DecodingKey, now_ms: u64) -> Option<Subject> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (_, validation) = self.validations.iter().find(|(known, _)| *known == algorithm)?;
        let (header, claims) = if self.path.is_empty() {
            let token = jsonwebtoken::decode::<Claims>(token, key, validation).ok()?;
            (token.header, token.claims)
        } else {
            let token = jsonwebtoken::decode::<HashMap<String, Value>>(token, key, validation).ok()?;
            (token.header, self.claims(&token.claims)?)
        };
        let (now_s, leeway_s) = (now_ms as f64 / 1000.0, self.leeway_s as f64);
        let in_time = claims.exp + leeway_s > now_s && claims.nbf.is_none_or(|nbf| nbf - leeway_s <= now_s);
        (in_time && is_for_actors(&header)).then_some(claims.sub)
    }

    fn claims(&self, claims: &HashMap<String, Value>) -> Option<Claims> {
        let (first, rest) = self.path.split_first()?;
        let actor = rest.iter().try_fold(claims.get(first)?, |value, name| value.get(name))?;
        let sub = match actor {
            Value::String(text) => Subject::Text(text.clone()),
            number => Subject::Integer(number.as_i64()?),
        };
        let nbf = match claims.get("nbf") {
            None | Some(Value::Null) => None,
            Some(nbf) => Some(nbf.as_f64()?),
        };
        Some(Claims { sub, exp: claims.get("exp")?.as_f64()?, nbf })
    }
}

fn validation(config: &JwtConfig, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp"];
    // Times are checked against the host's clock.
    validation.validate_exp = false;
    validation.validate_aud = config.audience.is_some();
    if let Some(audience) = config.audience.as_ref().map(OneOrMany::as_slice) {
        validation.set_audience(audience);
        required.push("aud");
    }
    if let Some(issuer) = config.issuer.as_ref().map(OneOrMany::as_slice) {
        validation.set_issuer(issuer);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}
