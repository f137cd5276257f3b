//! Who the actor of a request is: a JSON Web Token, or a header of a trusted proxy.
//!
//! The configuration pins the algorithms. It also gives the key, or the URL of a published key set; the token's own
//! header can at most select a key from that set. Every credential sent must be valid: an invalid token is refused even
//! where none is required, and two identities must match. Where tokens are configured, the header alone is not enough
//! unless the configuration says so.

mod keys;
mod source;
mod token;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::problem::{BAD_HEADER, KEYS_UNAVAILABLE, unauthenticated};
use keys::Candidates;
use source::{Learned, Source};
use token::{Head, Rules, Subject};
use weir_core::clock::Clock;
use weir_core::config::{AuthConfig, ConfigError, JwtConfig, TrustedHeaderFrom};
use weir_core::model::{Id, IdType};
use weir_core::telemetry::request;
use weir_listener::head::{bearer_token, one};
use weir_listener::problem::Problem;

/// Finds out who the actor is.
pub(super) struct Authenticator {
    jwt: Option<ArcSwap<Jwt>>,
    /// Where the keys are published.
    source: Option<Arc<Source>>,
    trusted: Option<(HeaderName, TrustedHeaderFrom)>,
    /// The header names an actor without a token, too.
    header_suffices: bool,
    challenge: HeaderValue,
    clock: Clock,
    /// Somebody wants to know who the actor was.
    notes_actor: bool,
}

struct Jwt {
    /// The one key, where none are published.
    pinned: Option<(Algorithm, DecodingKey)>,
    rules: Rules,
}

impl Authenticator {
    pub(super) fn new(config: &AuthConfig, clock: Clock) -> Result<Self, ConfigError> {
        let trusted = match &config.trusted_header {
            None => None,
            Some(name) => {
                let parsed = name.parse().map_err(|_| ConfigError::Value {
                    field: "auth.trusted_header".into(),
                    reason: format!("{name:?} is not a header name"),
                })?;
                Some((parsed, config.trusted_header_from.clone()))
            }
        };
        let jwt = config.jwt.as_ref().map(Jwt::new).transpose()?;
        let published = config.jwt.as_ref().and_then(|config| Some((config, config.jwks_url.as_deref()?)));
        let source = match (&jwt, published) {
            (Some(jwt), Some((config, url))) => {
                Some(Arc::new(Source::new(config, url, jwt.rules.algorithms().collect(), clock.clone())?))
            }
            _ => None,
        };
        Ok(Self {
            jwt: jwt.map(ArcSwap::from_pointee),
            source,
            trusted,
            header_suffices: config.jwt.is_none() || config.trusted_header_alone,
            challenge: HeaderValue::from_static("Bearer realm=\"weir\""),
            clock,
            notes_actor: false,
        })
    }

    /// From now on, records the actor of each request.
    pub(super) fn note_actors(&mut self) {
        self.notes_actor = true;
    }

    /// Takes the token key and the token requirements from `other`, if both have them. The URL of published keys stays
    /// as it is.
    pub(super) fn take_key(&self, other: &Self) {
        if let (Some(mine), Some(other)) = (&self.jwt, &other.jwt) {
            mine.store(other.load_full());
        }
    }

    /// Reads published keys now, and goes on to read them when they are due.
    pub(super) async fn begin(&self) {
        if let Some(source) = &self.source {
            source.refresh().await;
            tokio::spawn(Source::keep(Arc::downgrade(source)));
        }
    }

    /// Whether the published keys are known, with details; `None` if no published keys are configured.
    pub(super) fn check(&self) -> Option<(bool, String)> {
        self.source.as_ref().map(|source| source.check())
    }

    /// The head of the request's token, where its key is published and not known yet.
    pub(super) fn unknown_key(&self, headers: &HeaderMap) -> Option<Head> {
        let source = self.source.as_ref()?;
        let head = token::head(bearer_token(headers.get(header::AUTHORIZATION)?)?)?;
        (!source.knows(&head)).then_some(head)
    }

    /// Reads the published keys again for a token whose key is unknown.
    ///
    /// # Errors
    /// When it is unknown whether the token is valid.
    pub(super) async fn learn(&self, head: &Head) -> Result<(), Problem> {
        let Some(source) = &self.source else { return Ok(()) };
        match source.learn(head).await {
            Learned::Look => Ok(()),
            Learned::Undecided { retry_after_s } => {
                let detail =
                    "nothing was changed; the key of the token is not known, and the issuer's keys cannot be read now";
                Err(Problem::new(&KEYS_UNAVAILABLE, detail).retry_after_s(retry_after_s))
            }
        }
    }

    fn subject(&self, jwt: &Jwt, token: &str) -> Option<Subject> {
        let now_ms = self.clock.now_ms();
        let Some(source) = &self.source else {
            let (algorithm, key) = jwt.pinned.as_ref()?;
            return jwt.rules.subject(token, *algorithm, key, now_ms);
        };
        let head = token::head(token)?;
        let set = source.set()?;
        let Candidates::Some(keys) = set.of(&head) else { return None };
        keys.into_iter().find_map(|key| jwt.rules.subject(token, head.algorithm, key, now_ms))
    }

    /// The actor, or `None` when the request names none.
    pub(super) fn actor(&self, headers: &HeaderMap, peer: IpAddr, id_type: IdType) -> Result<Option<Id>, Problem> {
        let bearer = self.bearer(headers, id_type)?;
        let trusted = self.trusted(headers, peer, id_type)?;
        match (bearer, trusted) {
            (Some(bearer), Some(trusted)) if bearer != trusted => {
                Err(self.refuse("the token and the trusted header name different actors"))
            }
            (None, Some(_)) if !self.header_suffices => {
                Err(self.refuse("the trusted header alone is not enough: send Authorization: Bearer with a token, too"))
            }
            (Some(actor), _) | (None, Some(actor)) => {
                if self.notes_actor {
                    request::note_actor(|| actor.to_string());
                }
                Ok(Some(actor))
            }
            (None, None) => Ok(None),
        }
    }

    /// The refusal of a request that names no actor and needs one.
    pub(super) fn missing(&self) -> Problem {
        match (&self.jwt, &self.trusted) {
            (Some(_), _) => self.refuse("send Authorization: Bearer with a token"),
            (None, Some((name, _))) => self.refuse(format!("send the header {name} with the actor's id")),
            (None, None) => self.refuse("no way to name an actor is configured: see [auth] in weir.toml"),
        }
    }

    fn refuse(&self, detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
        unauthenticated(detail, &self.challenge)
    }

    fn bearer(&self, headers: &HeaderMap, id_type: IdType) -> Result<Option<Id>, Problem> {
        let given = one(headers, &header::AUTHORIZATION)
            .map_err(|_| Problem::new(&BAD_HEADER, "send Authorization at most once"))?;
        let Some(given) = given else { return Ok(None) };
        let Some(jwt) = &self.jwt else {
            // Behind a proxy that has verified it already and says who it is in the trusted header.
            return match self.trusted {
                Some(_) => Ok(None),
                None => Err(self.refuse("tokens are not accepted here: see [auth.jwt] in weir.toml")),
            };
        };
        let token = bearer_token(given).ok_or_else(|| self.refuse("send Authorization: Bearer with a token"))?;
        // All failures share one detail: the caller must not learn which check failed.
        let wrong = || self.refuse("the token is not valid, has expired, or does not name an actor of this kind");
        let subject = self.subject(&jwt.load(), token).ok_or_else(wrong)?;
        let actor = match &subject {
            Subject::Integer(value) if id_type == IdType::Integer => Id::Int(*value),
            Subject::Integer(_) => return Err(wrong()),
            Subject::Text(text) => Id::parse(id_type, text).map_err(|_| wrong())?,
        };
        Ok(Some(actor))
    }

    /// Removes the trusted header from a request to an upstream if the peer is not trusted or the header alone is not
    /// enough: an origin that trusts weir would believe it. Spellings with `_` are always removed: weir does not read
    /// them, and many frameworks (CGI, WSGI) treat both spellings as the same header.
    pub(super) fn drop_untrusted(&self, headers: &mut HeaderMap, peer: IpAddr) {
        let Some((name, from)) = &self.trusted else { return };
        if !self.header_suffices || !from.includes(peer) {
            headers.remove(name);
        }
        let is_alias =
            |known: &HeaderName| known != name && known.as_str().replace('_', "-") == name.as_str().replace('_', "-");
        let aliases: Vec<HeaderName> = headers.keys().filter(|known| is_alias(known)).cloned().collect();
        for alias in aliases {
            headers.remove(alias);
        }
    }

    fn trusted(&self, headers: &HeaderMap, peer: IpAddr, id_type: IdType) -> Result<Option<Id>, Problem> {
        let Some((name, from)) = &self.trusted else { return Ok(None) };
        let given = one(headers, name).map_err(|_| Problem::new(&BAD_HEADER, format!("send {name} at most once")))?;
        let Some(given) = given else { return Ok(None) };
        if !from.includes(peer) {
            return Err(self.refuse(format!("{name} is not accepted from {peer}: see auth.trusted_header_from")));
        }
        let parsed = std::str::from_utf8(given.as_bytes()).ok().map(|text| Id::parse(id_type, text));
        match parsed {
            Some(Ok(actor)) => Ok(Some(actor)),
            Some(Err(error)) => Err(self.refuse(format!("{name}: {error}"))),
            None => Err(self.refuse(format!("{name}: expected UTF-8"))),
        }
    }
}

impl Jwt {
    fn new(config: &JwtConfig) -> Result<Self, ConfigError> {
        let rules = Rules::new(config)?;
        let Some(algorithm) = rules.algorithms().next().filter(|_| config.jwks_url.is_none()) else {
            return Ok(Self { pinned: None, rules });
        };
        let bytes = config.read_key()?;
        let key = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Ok(DecodingKey::from_secret(&bytes)),
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(&bytes),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(&bytes),
            _ => DecodingKey::from_rsa_pem(&bytes),
        };
        let key = key.map_err(|error| ConfigError::Value {
            field: "auth.jwt.key".into(),
            reason: format!("is not a PEM public key for {algorithm:?}: {error}"),
        })?;
        Ok(Self { pinned: Some((algorithm, key)), rules })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::token::TOKEN_BYTES_MAX;
    use super::*;
    use weir_core::config::OneOrMany;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW_S: u64 = 1_800_000_000;
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn jwt_config() -> JwtConfig {
        JwtConfig {
            algorithm: "HS256".into(),
            key: Some(SECRET.into()),
            audience: Some("weir".into()),
            issuer: Some("https://issuer.example".into()),
            ..JwtConfig::default()
        }
    }

    fn authenticator(jwt: Option<JwtConfig>, from: Option<TrustedHeaderFrom>) -> Authenticator {
        let config = AuthConfig {
            jwt,
            trusted_header: from.as_ref().map(|_| "X-Actor-Id".into()),
            trusted_header_from: from.unwrap_or_default(),
            ..AuthConfig::default()
        };
        Authenticator::new(&config, Clock::manual(NOW_S * 1000)).unwrap()
    }

    fn claims() -> serde_json::Value {
        json!({ "sub": "7", "exp": NOW_S + 60, "aud": "weir", "iss": "https://issuer.example" })
    }

    fn changed(name: &str, value: serde_json::Value) -> serde_json::Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> serde_json::Value {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    fn sign(algorithm: Algorithm, claims: &serde_json::Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// The actor, or the status of the refusal.
    fn by_token(token: &str) -> Result<Option<Id>, u16> {
        let headers = headers(&[("authorization", &format!("Bearer {token}"))]);
        authenticator(Some(jwt_config()), None)
            .actor(&headers, ELSEWHERE, IdType::Integer)
            .map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_good_token_names_the_actor() {
        assert_eq!(by_token(&sign(Algorithm::HS256, &claims())), Ok(Some(Id::Int(7))));
        assert_eq!(by_token(&sign(Algorithm::HS256, &changed("sub", json!(7)))), Ok(Some(Id::Int(7))));
        assert_eq!(by_token(&sign(Algorithm::HS256, &changed("aud", json!(["other", "weir"])))), Ok(Some(Id::Int(7))));
        assert_eq!(by_token(&sign(Algorithm::HS256, &changed("exp", json!(NOW_S - 29)))), Ok(Some(Id::Int(7))));
        assert_eq!(by_token(&sign(Algorithm::HS256, &changed("nbf", json!(NOW_S + 29)))), Ok(Some(Id::Int(7))));
    }

    #[test]
    fn a_wrong_claim_is_refused() {
        for wrong in [
            changed("exp", json!(NOW_S - 31)),
            changed("exp", json!("tomorrow")),
            changed("exp", json!(-1)),
            changed("nbf", json!(NOW_S + 31)),
            changed("nbf", json!("now")),
            changed("aud", json!("other")),
            changed("iss", json!("https://other.example")),
            changed("sub", json!("seven")),
            changed("sub", json!(7.5)),
            changed("sub", json!(null)),
            changed("sub", json!("07")),
            without("exp"),
            without("aud"),
            without("iss"),
            without("sub"),
        ] {
            assert_eq!(by_token(&sign(Algorithm::HS256, &wrong)), Err(401), "{wrong}");
        }
    }

    #[test]
    fn several_audiences_and_issuers_are_as_good_as_one() {
        let several = JwtConfig {
            audience: Some(OneOrMany::Many(vec!["shop".into(), "weir".into()])),
            issuer: Some(OneOrMany::Many(vec!["https://old.example".into(), "https://issuer.example".into()])),
            ..jwt_config()
        };
        let by = |claims: &serde_json::Value| {
            let token = format!("Bearer {}", sign(Algorithm::HS256, claims));
            let found = authenticator(Some(several.clone()), None);
            found.actor(&headers(&[("authorization", &token)]), ELSEWHERE, IdType::Integer).is_ok()
        };
        assert!(
            by(&claims()) && by(&changed("aud", json!("shop"))) && by(&changed("iss", json!("https://old.example")))
        );
        assert!(!by(&changed("aud", json!("other"))) && !by(&changed("iss", json!("https://new.example"))));
        assert!(!by(&without("aud")) && !by(&without("iss")));
    }

    #[test]
    fn the_actor_is_in_the_claim_that_is_named() {
        let by = |claim: &str, claims: &serde_json::Value| {
            let config = JwtConfig { actor_claim: claim.into(), ..jwt_config() };
            let token = format!("Bearer {}", sign(Algorithm::HS256, claims));
            let found = authenticator(Some(config), None);
            let actor = found.actor(&headers(&[("authorization", &token)]), ELSEWHERE, IdType::Integer);
            actor.map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(by("user.id", &changed("user", json!({ "id": 8 }))), Ok(Some(Id::Int(8))));
        assert_eq!(by("user.id", &changed("user.id", json!(8))), Err(401), "a path is no name");
        assert_eq!(by("/user.id", &changed("user.id", json!("8"))), Ok(Some(Id::Int(8))));
        assert_eq!(
            by("https://example.org/actor", &changed("https://example.org/actor", json!(9))),
            Ok(Some(Id::Int(9)))
        );
        for wrong in [json!(8.5), json!(null), json!({}), json!([8]), json!(true), json!("eight")] {
            assert_eq!(by("user.id", &changed("user", json!({ "id": wrong }))), Err(401), "{wrong}");
        }
        assert_eq!(by("user.id", &claims()), Err(401), "sub does not stand in for it");
        let mut late = changed("user", json!({ "id": 8 }));
        late["exp"] = json!(NOW_S - 31);
        assert_eq!(by("user.id", &late), Err(401));
        late["exp"] = json!("tomorrow");
        assert_eq!(by("user.id", &late), Err(401));
        let mut early = changed("user", json!({ "id": 8 }));
        early["nbf"] = json!(NOW_S + 31);
        assert_eq!(by("user.id", &early), Err(401));
    }

    #[test]
    fn only_the_pinned_algorithm_is_accepted() {
        assert_eq!(by_token(&sign(Algorithm::HS384, &claims())), Err(401));
        let good = sign(Algorithm::HS256, &claims());
        let mut parts = good.split('.');
        let (_, payload, signature) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        // {"alg":"none","typ":"JWT"}
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        assert_eq!(by_token(&format!("{none}.{payload}.")), Err(401));
        assert_eq!(by_token(&format!("{none}.{payload}.{signature}")), Err(401));
    }

    #[test]
    fn a_spoilt_token_is_refused() {
        let good = sign(Algorithm::HS256, &claims());
        let other_key =
            encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(&[b'x'; 32])).unwrap();
        let (unsigned, _) = good.rsplit_once('.').unwrap();
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for bad in [&other_key, &format!("{unsigned}."), unsigned, &format!("{good}."), &format!("{good}x"), &long, "."]
        {
            assert_eq!(by_token(bad), Err(401), "{bad}");
        }
    }

    #[test]
    fn a_critical_extension_is_refused() {
        let header = Header { crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::HS256) };
        let token = encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
        assert_eq!(by_token(&token), Err(401));
    }

    #[test]
    fn the_header_must_be_bearer_once() {
        let good = sign(Algorithm::HS256, &claims());
        let authenticator = authenticator(Some(jwt_config()), None);
        let status = |pairs: &[(&'static str, &str)]| {
            let verdict = authenticator.actor(&headers(pairs), LOOPBACK, IdType::Integer);
            verdict.map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(status(&[]), Ok(None));
        assert_eq!(status(&[("authorization", &format!("bearer {good}"))]), Ok(Some(Id::Int(7))));
        assert_eq!(status(&[("authorization", &good)]), Err(401));
        assert_eq!(status(&[("authorization", "Basic eDp5")]), Err(401));
        assert_eq!(status(&[("authorization", &format!("Bearer  {good}"))]), Err(401));
        let twice = format!("Bearer {good}");
        assert_eq!(status(&[("authorization", &twice), ("authorization", &twice)]), Err(400));
    }

    #[test]
    fn the_trusted_header_is_trusted_only_where_it_may() {
        let actor = |from, peer, pairs: &[(&'static str, &str)]| {
            let verdict = authenticator(None, from).actor(&headers(pairs), peer, IdType::Integer);
            verdict.map_err(|problem| problem.status().as_u16())
        };
        let seven = [("x-actor-id", "7")];
        let loopback = || Some(TrustedHeaderFrom::Loopback);
        assert_eq!(actor(loopback(), LOOPBACK, &seven), Ok(Some(Id::Int(7))));
        assert_eq!(actor(loopback(), Ipv6Addr::LOCALHOST.into(), &seven), Ok(Some(Id::Int(7))));
        assert_eq!(actor(loopback(), Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), &seven), Ok(Some(Id::Int(7))));
        assert_eq!(actor(loopback(), ELSEWHERE, &seven), Err(401));
        assert_eq!(actor(loopback(), ELSEWHERE, &[]), Ok(None));
        assert_eq!(actor(Some(TrustedHeaderFrom::Any), ELSEWHERE, &seven), Ok(Some(Id::Int(7))));
        let inside = || Some(TrustedHeaderFrom::Networks(vec!["192.0.2.0/24".to_owned()].try_into().unwrap()));
        assert_eq!(actor(inside(), ELSEWHERE, &seven), Ok(Some(Id::Int(7))));
        assert_eq!(actor(inside(), LOOPBACK, &seven), Err(401), "a list names all of them");
        assert_eq!(actor(None, LOOPBACK, &seven), Ok(None), "not configured: not looked at");
        assert_eq!(actor(loopback(), LOOPBACK, &[("x-actor-id", "7"), ("x-actor-id", "7")]), Err(400));
        assert_eq!(actor(loopback(), LOOPBACK, &[("x-actor-id", "seven")]), Err(401));
        assert_eq!(actor(loopback(), LOOPBACK, &[("x-actor-id", "")]), Err(401));
        assert_eq!(actor(None, LOOPBACK, &[("authorization", "Bearer x")]), Err(401), "nobody could verify it");
    }

    #[test]
    fn the_trusted_header_goes_to_an_upstream_only_from_who_is_believed() {
        let goes_on = |from, peer| {
            let mut headers = headers(&[("x-actor-id", "7"), ("x_actor-id", "8"), ("x_actor_id", "9")]);
            authenticator(None, Some(from)).drop_untrusted(&mut headers, peer);
            assert!(!headers.contains_key("x_actor-id") && !headers.contains_key("x_actor_id"));
            headers.contains_key("x-actor-id")
        };
        assert!(goes_on(TrustedHeaderFrom::Loopback, LOOPBACK) && goes_on(TrustedHeaderFrom::Any, ELSEWHERE));
        assert!(!goes_on(TrustedHeaderFrom::Loopback, ELSEWHERE));
    }

    #[test]
    fn two_identities_must_be_one() {
        let authenticator = authenticator(Some(jwt_config()), Some(TrustedHeaderFrom::Loopback));
        let bearer = format!("Bearer {}", sign(Algorithm::HS256, &claims()));
        let actor = |id| {
            let headers = headers(&[("authorization", &bearer), ("x-actor-id", id)]);
            authenticator.actor(&headers, LOOPBACK, IdType::Integer).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(actor("7"), Ok(Some(Id::Int(7))));
        assert_eq!(actor("8"), Err(401));
    }

    #[test]
    fn the_header_beside_tokens_is_not_enough_unless_it_is_said_so() {
        let config = |trusted_header_alone| AuthConfig {
            jwt: Some(jwt_config()),
            trusted_header: Some("X-Actor-Id".into()),
            trusted_header_alone,
            ..AuthConfig::default()
        };
        let authenticator = |alone| Authenticator::new(&config(alone), Clock::manual(NOW_S * 1000)).unwrap();
        let seven = headers(&[("x-actor-id", "7")]);
        let actor = |alone| authenticator(alone).actor(&seven, LOOPBACK, IdType::Integer);
        assert_eq!(actor(false).unwrap_err().status(), 401);
        assert_eq!(actor(true).unwrap(), Some(Id::Int(7)));
        let goes_on = |alone| {
            let mut headers = seven.clone();
            authenticator(alone).drop_untrusted(&mut headers, LOOPBACK);
            headers.contains_key("x-actor-id")
        };
        assert_eq!((goes_on(false), goes_on(true)), (false, true), "an origin takes no word that weir does not take");
        assert!(authenticator(false).actor(&HeaderMap::new(), LOOPBACK, IdType::Integer).unwrap().is_none());
    }

    #[test]
    fn tokens_that_are_for_something_else_are_refused() {
        let with_type = |typ: Option<&str>| {
            let header = Header { typ: typ.map(str::to_owned), ..Header::new(Algorithm::HS256) };
            by_token(&encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap())
        };
        for good in [None, Some("JWT"), Some("at+jwt"), Some("application/at+JWT")] {
            assert_eq!(with_type(good), Ok(Some(Id::Int(7))), "{good:?}");
        }
        for bad in ["weir-pass+jwt", "weir-ticket+jwt", "Application/Logout+JWT", "dpop+jwt"] {
            assert_eq!(with_type(Some(bad)), Err(401), "{bad}");
        }
    }

    #[test]
    fn a_refusal_carries_a_challenge() {
        let reply = authenticator(Some(jwt_config()), None).missing().into_reply();
        assert_eq!(reply.status(), 401);
        assert!(reply.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
}
