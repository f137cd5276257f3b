//! `[http.cors]` and `[admin.cors]`: which pages of other origins may read what a listener answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, value};

/// Stands for every origin, and for every header of a request.
const ANY: &str = "*";
/// Longest time that browsers may keep a permission, in seconds: a day. None of them keeps it longer.
const MAX_AGE_S_MAX: u32 = 86_400;

/// Which pages of other origins may read answers, and what they may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CorsConfig {
    /// Origins exactly as browsers write them (`https://app.example`, `http://localhost:3000`), or `["*"]` for every page, which
    /// then must do without credentials. Empty: none, and no header of CORS is sent.
    pub origins: Vec<String>,
    /// Pages may send cookies and what else the browser keeps of this host. `Authorization` that a page sets itself needs it not.
    pub credentials: bool,
    /// How long browsers may keep a permission, in seconds.
    pub max_age_s: u32,
    /// Headers of requests that pages may set besides those that weir's API knows; `["*"]`: any.
    pub headers: Vec<String>,
    /// Headers of answers that pages may read besides those of weir's API.
    pub expose: Vec<String>,
    /// Pages of public sites may reach this host in a private network (`Access-Control-Request-Private-Network`).
    pub private_network: bool,
    /// What holds for one kind in place of all of the above, by its name; an upstream is `upstream:NAME`.
    pub kinds: BTreeMap<String, CorsConfig>,
}

impl Default for CorsConfig {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            credentials: false,
            max_age_s: 600,
            headers: Vec::new(),
            expose: Vec::new(),
            private_network: false,
            kinds: BTreeMap::new(),
        }
    }
}

impl CorsConfig {
    /// Whether some page may read something.
    pub fn is_on(&self) -> bool {
        !self.origins.is_empty() || self.kinds.values().any(Self::is_on)
    }

    /// Whether every page may.
    pub fn is_for_all(&self) -> bool {
        self.origins.iter().any(|origin| origin == ANY)
    }

    /// Whether pages may set any header.
    pub fn takes_any_header(&self) -> bool {
        self.headers.iter().any(|name| name == ANY)
    }

    pub(super) fn validate(&self, at: &str) -> Result<(), ConfigError> {
        let field = |name: &str| format!("{at}.{name}");
        if self.is_for_all() && self.origins.len() > 1 {
            return Err(value(field("origins"), "\"*\" stands alone: it names every origin"));
        }
        if self.is_for_all() && self.credentials {
            let reason = "\"*\" and credentials = true would let every site act for whoever visits it, and browsers refuse it: \
                          name the origins";
            return Err(value(field("credentials"), reason));
        }
        for origin in self.origins.iter().filter(|origin| *origin != ANY) {
            check_origin(origin).map_err(|reason| value(field("origins"), format!("{origin:?} {reason}")))?;
        }
        if self.max_age_s > MAX_AGE_S_MAX {
            return Err(value(field("max_age_s"), format!("must be at most {MAX_AGE_S_MAX} (a day)")));
        }
        for (name, list) in [("headers", &self.headers), ("expose", &self.expose)] {
            let is_name = |text: &String| !text.is_empty() && text.bytes().all(is_token);
            if let Some(wrong) = list.iter().find(|text| !is_name(text)) {
                return Err(value(field(name), format!("{wrong:?} is no name of a header")));
            }
        }
        if self.takes_any_header() && self.headers.len() > 1 {
            return Err(value(field("headers"), "\"*\" stands alone: it names every header"));
        }
        if self.expose.iter().any(|name| name == ANY) {
            return Err(value(
                field("expose"),
                "name the headers: browsers do not take \"*\" for answers with credentials",
            ));
        }
        for (kind, cors) in &self.kinds {
            let at = field(&format!("kinds.{kind}"));
            if !cors.kinds.is_empty() {
                return Err(value(at, "is of one kind and names no further ones"));
            }
            cors.validate(&at)?;
        }
        Ok(())
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An origin is compared byte by byte with what browsers send: scheme, host and port, each in its one spelling.
fn check_origin(origin: &str) -> Result<(), String> {
    if origin == "null" {
        return Err("is what every sandboxed page and local file sends: give the page an origin".into());
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return Err("is no origin: write scheme://host, such as https://app.example".into());
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    if !is_scheme || rest != rest.to_ascii_lowercase() {
        return Err(format!("is not as browsers write it: write {}", origin.to_ascii_lowercase()));
    }
    if rest.contains('*') {
        return Err("has a \"*\": name each host; who can make one of these names could read everything".into());
    }
    if let Some(bare) = rest.split_once(['/', '?', '#']).map(|(host, _)| host) {
        return Err(format!("is more than an origin: write {scheme}://{bare}"));
    }
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    if let Some(host) = rest.strip_suffix(own_port).filter(|_| !own_port.is_empty()) {
        return Err(format!("names the port of its scheme, which browsers leave out: write {scheme}://{host}"));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_host = !host.is_empty()
        && (host.starts_with('[') && host.ends_with(']')
            || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)));
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    if is_host && is_port {
        Ok(())
    } else {
        Err("is no origin: write scheme://host or scheme://host:port; other alphabets as xn--…".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(toml: &str) -> Result<(), String> {
        let config: CorsConfig = toml::from_str(toml).map_err(|error| error.to_string())?;
        config.validate("http.cors").map_err(|error| error.to_string())
    }

    #[test]
    fn origins_are_what_browsers_write() {
        for good in [
            "https://app.example",
            "http://localhost:3000",
            "https://app.example:8443",
            "http://[::1]:3000",
            "http://127.0.0.1",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(verdict(&format!("origins = [{good:?}]")), Ok(()), "{good}");
        }
        for (wrong, says) in [
            ("null", "sandboxed"),
            ("app.example", "write scheme://host"),
            ("https://app.example/", "write https://app.example"),
            ("https://app.example/path", "write https://app.example"),
            ("https://App.example", "write https://app.example"),
            ("HTTPS://app.example", "write https://app.example"),
            ("https://app.example:443", "write https://app.example"),
            ("http://app.example:80", "write http://app.example"),
            ("https://*.example", "name each host"),
            ("https://bücher.example", "xn--"),
            ("https://user@app.example", "is no origin"),
            ("https://app.example:0443", "is no origin"),
            ("https://", "is no origin"),
        ] {
            let refused = verdict(&format!("origins = [{wrong:?}]")).unwrap_err();
            assert!(refused.starts_with("http.cors.origins: ") && refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn every_origin_has_no_credentials() {
        assert_eq!(verdict("origins = [\"*\"]"), Ok(()));
        assert!(verdict("origins = [\"*\"]\ncredentials = true").unwrap_err().contains("name the origins"));
        assert!(verdict("origins = [\"*\", \"https://a.example\"]").unwrap_err().contains("stands alone"));
        assert!(verdict("expose = [\"*\"]").is_err() && verdict("headers = [\"a b\"]").is_err());
        let nested = "[kinds.feed-like]\norigins = [\"null\"]";
        assert!(verdict(nested).unwrap_err().starts_with("http.cors.kinds.feed-like.origins: "));
        assert!(verdict("[kinds.a.kinds.b]").unwrap_err().contains("names no further ones"));
    }
}
