//! `[auth.jwt]`: which JSON Web Tokens say who somebody is.

use std::path::PathBuf;

use hyper::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::{TlsConfig, TlsMode, UrlTls};
use super::{ConfigError, at_least, secret, value};

/// Algorithms with a secret that both sides know.
const SHARED: [&str; 3] = ["HS256", "HS384", "HS512"];
/// Algorithms with a public key.
const PUBLIC: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// Shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 32;

/// One text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several; any of them will do.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T: Into<String>> From<T> for OneOrMany {
    fn from(text: T) -> Self {
        Self::One(text.into())
    }
}

/// Pinned algorithms and their key, or where the keys are published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384` or `EdDSA`; with
    /// `jwks_url` also several, none of them HS*. A token with another one is refused.
    pub algorithm: OneOrMany,
    /// The secret (HS*), or the public key as PEM (the others). Prefer `key_file`.
    #[schemars(extend("x-weir-secret" = "whole"))]
    pub key: Option<String>,
    /// File with the key.
    pub key_file: Option<PathBuf>,
    /// Where the issuer publishes its keys as a JSON Web Key Set, in place of a key. They are read at the start, again and again
    /// in the background, and when a token names a key that is not known yet.
    #[schemars(extend("x-weir-secret" = "url"))]
    pub jwks_url: Option<String>,
    /// File that holds the URL.
    pub jwks_url_file: Option<PathBuf>,
    /// Shortest time between two reads in the background, in seconds, whatever `Cache-Control: max-age` says.
    pub jwks_refresh_s_min: u64,
    /// Longest such time, in seconds. Without `max-age` it is 300.
    pub jwks_refresh_s_max: u64,
    /// How long the last good set is used while the URL is away, in seconds; then tokens are answered 503.
    pub jwks_stale_s_max: u64,
    /// Shortest time between two reads that tokens with unknown keys cause, in milliseconds, however many there are.
    pub jwks_cooldown_ms: u64,
    /// Time for one read, in milliseconds.
    pub jwks_timeout_ms: u64,
    /// Largest set, in bytes.
    pub jwks_bytes_max: usize,
    /// Whether the connection to `jwks_url` is encrypted, where the URL does not say it: `off` allows `http://` to another machine,
    /// where whoever stands in between could send keys of his own.
    pub tls: Option<TlsMode>,
    /// Certificates of authorities that are trusted for `jwks_url` besides the system's, as PEM.
    pub tls_ca_file: Option<PathBuf>,
    /// Required `aud`, when set: one of these.
    pub audience: Option<OneOrMany>,
    /// Required `iss`, when set: one of these.
    pub issuer: Option<OneOrMany>,
    /// The claim that is the actor: a name (`sub`), a path (`user.id`), a URL (`https://example.org/actor`, one name), or a JSON
    /// Pointer (`/user.id`) for names with dots.
    pub actor_claim: String,
    /// Allowed difference of clocks for `exp` and `nbf`, in seconds.
    pub leeway_s: u64,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            algorithm: OneOrMany::default(),
            key: None,
            key_file: None,
            jwks_url: None,
            jwks_url_file: None,
            jwks_refresh_s_min: 30,
            jwks_refresh_s_max: 3_600,
            jwks_stale_s_max: 86_400,
            jwks_cooldown_ms: 5_000,
            jwks_timeout_ms: 3_000,
            jwks_bytes_max: 256 << 10,
            tls: None,
            tls_ca_file: None,
            audience: None,
            issuer: None,
            actor_claim: "sub".into(),
            leeway_s: 30,
        }
    }
}

impl JwtConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let algorithms = self.algorithm.as_slice();
        let known = || SHARED.iter().chain(&PUBLIC).copied().collect::<Vec<_>>().join(", ");
        let is_known = |name: &String| SHARED.contains(&name.as_str()) || PUBLIC.contains(&name.as_str());
        if algorithms.is_empty() || !algorithms.iter().all(is_known) {
            return Err(value("auth.jwt.algorithm", format!("must be of {}", known())));
        }
        let sources = [self.key.is_some(), self.key_file.is_some(), self.jwks_url.is_some()];
        if sources.iter().filter(|is_given| **is_given).count() != 1 {
            return Err(value("auth.jwt.key", "give one of key, key_file and jwks_url"));
        }
        match &self.jwks_url {
            Some(_) => self.validate_jwks()?,
            None if algorithms.len() > 1 => {
                return Err(value("auth.jwt.algorithm", "is one with a key; several need jwks_url"));
            }
            None => {}
        }
        for (name, list) in [("audience", &self.audience), ("issuer", &self.issuer)] {
            let list = list.as_ref().map(OneOrMany::as_slice);
            if list.is_some_and(|list| list.is_empty() || list.iter().any(String::is_empty)) {
                return Err(value(format!("auth.jwt.{name}"), "names nothing: leave it out to ask for none"));
            }
        }
        if self.actor_path().iter().any(String::is_empty) {
            let reason = "must be a name (sub), a path (user.id), a URL, or a JSON Pointer (/user.id)";
            return Err(value("auth.jwt.actor_claim", reason));
        }
        Ok(())
    }

    fn validate_jwks(&self) -> Result<(), ConfigError> {
        // Whoever has a public key could sign with it as if it were a secret.
        if let Some(shared) = self.algorithm.as_slice().iter().find(|name| SHARED.contains(&name.as_str())) {
            return Err(value("auth.jwt.algorithm", format!("{shared} needs a secret; published keys are public")));
        }
        self.secured()?;
        at_least("auth.jwt.jwks_refresh_s_min", self.jwks_refresh_s_min, 1)?;
        at_least("auth.jwt.jwks_refresh_s_max", self.jwks_refresh_s_max, self.jwks_refresh_s_min)?;
        at_least("auth.jwt.jwks_stale_s_max", self.jwks_stale_s_max, self.jwks_refresh_s_max)?;
        at_least("auth.jwt.jwks_cooldown_ms", self.jwks_cooldown_ms, 100)?;
        at_least("auth.jwt.jwks_timeout_ms", self.jwks_timeout_ms, 1)?;
        at_least("auth.jwt.jwks_bytes_max", self.jwks_bytes_max, 1_024)
    }

    /// How the connection to `jwks_url` is encrypted; `None`: it is not, or there is no such URL.
    ///
    /// # Errors
    /// What is no URL; plain to another machine where nobody has asked for it.
    pub fn secured(&self) -> Result<Option<TlsConfig>, ConfigError> {
        let Some(url) = &self.jwks_url else { return Ok(None) };
        let wrong = || value("auth.jwt.jwks_url", "must be a URL that begins with https:// (or http:// on loopback)");
        let parsed: Uri = url.parse().map_err(|_| wrong())?;
        let said = match parsed.scheme_str() {
            Some("https") => UrlTls::Required { word: "https://" },
            Some("http") => UrlTls::Plain { word: "http://", instead: "https://" },
            _ => return Err(wrong()),
        };
        if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(value("auth.jwt.jwks_url", "names a user: published keys are for everybody"));
        }
        let host = parsed.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let tls = TlsConfig { mode: self.tls, ca_file: self.tls_ca_file.clone(), ..TlsConfig::default() };
        Ok(tls.decide("auth.jwt", said, &[host])?.then_some(tls))
    }

    /// `jwks_url` as it is shown: without a query, which may hold a key.
    pub fn jwks_shown(&self) -> String {
        let url = self.jwks_url.as_deref().unwrap_or_default();
        url.split_once('?').map_or_else(|| url.to_owned(), |(url, _)| format!("{url}?…"))
    }

    /// Where in the claims the actor stands, name by name.
    pub fn actor_path(&self) -> Vec<String> {
        let claim = self.actor_claim.as_str();
        match claim.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect(),
            None if claim.contains(':') => vec![claim.to_owned()],
            None => claim.split('.').map(str::to_owned).collect(),
        }
    }

    /// The key's bytes, read from its file where that is configured.
    pub fn read_key(&self) -> Result<Vec<u8>, ConfigError> {
        let bytes = match (&self.key, &self.key_file) {
            (Some(key), _) => key.clone().into_bytes(),
            (None, Some(path)) => secret::bytes_of("auth.jwt.key_file", path)?,
            (None, None) => return Err(value("auth.jwt.key", "is missing")),
        };
        let is_shared = self.algorithm.as_slice().iter().any(|name| SHARED.contains(&name.as_str()));
        if is_shared && bytes.len() < SECRET_BYTES_MIN {
            return Err(value("auth.jwt.key", "a shared secret must have at least 32 bytes"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(toml: &str) -> Result<JwtConfig, String> {
        let config: JwtConfig = toml::from_str(toml).map_err(|error| error.to_string())?;
        config.validate().map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_come_from_one_place() {
        assert!(jwt("algorithm = \"RS256\"\nkey_file = \"a\"").is_ok());
        assert!(jwt("algorithm = [\"RS256\", \"ES256\"]\njwks_url = \"https://a/jwks\"").is_ok());
        for (wrong, says) in [
            ("key_file = \"a\"", "algorithm: must be of"),
            ("algorithm = []\nkey_file = \"a\"", "algorithm: must be of"),
            ("algorithm = \"none\"\nkey_file = \"a\"", "algorithm: must be of"),
            ("algorithm = \"RS256\"", "give one of"),
            ("algorithm = \"RS256\"\nkey = \"a\"\njwks_url = \"https://a\"", "give one of"),
            ("algorithm = [\"RS256\", \"ES256\"]\nkey = \"a\"", "several need jwks_url"),
            ("algorithm = \"HS256\"\njwks_url = \"https://a\"", "published keys are public"),
            ("algorithm = \"RS256\"\njwks_url = \"file:///a\"", "begins with https://"),
            ("algorithm = \"RS256\"\njwks_url = \"http://login.example/keys\"", "auth.jwt.tls = \"off\""),
            ("algorithm = \"RS256\"\njwks_url = \"https://a/\"\ntls = \"off\"", "leave one of them out"),
            ("algorithm = \"RS256\"\njwks_url = \"http://127.0.0.1/\"\ntls_ca_file = \"a\"", "auth.jwt.tls_ca_file"),
            ("algorithm = \"RS256\"\nkey = \"a\"\naudience = []", "audience: names nothing"),
            ("algorithm = \"RS256\"\nkey = \"a\"\nactor_claim = \"a..b\"", "actor_claim"),
            ("algorithm = \"RS256\"\nkey = \"a\"\nactor_claim = \"\"", "actor_claim"),
        ] {
            let refused = jwt(wrong).unwrap_err();
            assert!(refused.contains(says), "{wrong}: {refused}");
        }
    }

    #[test]
    fn the_actors_claim_is_a_name_a_path_or_a_pointer() {
        let path = |claim: &str| JwtConfig { actor_claim: claim.into(), ..JwtConfig::default() }.actor_path();
        assert_eq!(path("sub"), ["sub"]);
        assert_eq!(path("user.id"), ["user", "id"]);
        assert_eq!(path("https://example.org/actor.id"), ["https://example.org/actor.id"]);
        assert_eq!(path("/user.id/a~1b"), ["user.id", "a/b"]);
    }
}
