//! A request as its origin gets it. Key and variant are made of this value and of nothing else, so the response under a key is
//! the origin's answer to exactly that request.
//!
//! The client's own wishes (conditions, ranges, directives that it may not give) are separate, and go to the origin only where the
//! answer is for this client alone.

use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;

use super::conditional::CONDITIONS;
use super::control::split;
use super::hop::{self, Pseudonym};
use super::key;
use super::names::{HeaderRules, is_credential};
use weir_core::config::{ConfigError, UpstreamConfig};
use weir_listener::forwarded::Caller;

/// Announces to an origin that weir obeys `Surrogate-Control`, and under which name.
const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
const CAPABILITY: HeaderValue = HeaderValue::from_static("weir=\"Surrogate/1.0\"");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// How requests are prepared for one origin.
pub(super) struct Passage {
    upstream: String,
    /// The part of the path that the origin does not see.
    strip: Option<String>,
    /// The same, in the form that programs use to make links: `/shop`.
    prefix: Option<HeaderValue>,
    authority: HeaderValue,
    preserve_host: bool,
    /// The operator configured the hosts: requests for others do not get here.
    has_hosts: bool,
    clients_may_force: bool,
    rules: HeaderRules,
    /// The header that names weir's actor to the origin, too.
    identity: Option<HeaderName>,
    /// Our name in `Via`.
    pub(super) pseudonym: Pseudonym,
}

/// The identity in a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) cookie: bool,
    pub(super) authorization: bool,
    /// weir's own actor, an API key, a token.
    pub(super) credential: bool,
}

/// A request as its origin gets it.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The client's method; a load for all always uses GET.
    pub(super) method: Method,
    /// Path and query, as the origin sees them.
    pub(super) path: String,
    /// The base of the key of all variants for all hosts: `shop:/items/1`.
    pub(super) primary: String,
    /// The key of all variants that this client may get.
    pub(super) key: String,
    pub(super) caller: Caller,
    pub(super) person: Person,
    headers: HeaderMap,
    own: HeaderMap,
}

impl Person {
    /// Whether there is any.
    pub(super) fn is_known(self) -> bool {
        self.cookie || self.authorization || self.credential
    }

    fn of(headers: &HeaderMap, identity: Option<&HeaderName>) -> Self {
        let mut person = Self::default();
        for name in headers.keys() {
            match name {
                &header::COOKIE => person.cookie = true,
                &header::AUTHORIZATION => person.authorization = true,
                name if Some(name) == identity || is_credential(name.as_str()) => person.credential = true,
                _ => {}
            }
        }
        person
    }
}

impl Passage {
    /// # Errors
    /// An invalid header name.
    pub(super) fn new(
        config: &UpstreamConfig,
        authority: HeaderValue,
        identity: Option<HeaderName>,
        pseudonym: Pseudonym,
    ) -> Result<Self, ConfigError> {
        let strip = config.strip_prefix.then(|| config.prefix.clone());
        let prefix = strip.as_deref().map(|prefix| prefix.trim_end_matches('/')).filter(|prefix| !prefix.is_empty());
        Ok(Self {
            upstream: config.name.clone(),
            prefix: prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()),
            strip,
            authority,
            preserve_host: config.preserve_host,
            has_hosts: !config.hosts.is_empty(),
            clients_may_force: config.clients_may_force,
            rules: HeaderRules::new(config)?,
            identity,
            pseudonym,
        })
    }

    /// Prepares a request for the origin.
    pub(super) fn outgoing(&self, head: Parts, caller: Caller) -> Outgoing {
        // An unverified host would end up in links that the origin makes, also in mails; and one client could request the same
        // resource under a thousand hosts.
        let is_vouched = self.preserve_host || self.has_hosts || caller.is_by_proxy;
        let caller = if is_vouched { caller } else { caller.without_host() };
        let path = key::path_and_query(&head.uri, self.strip.as_deref());
        let mut headers = head.headers;
        hop::strip(&mut headers);
        headers.remove(header::EXPECT);
        self.rules.apply(&mut headers, self.identity.as_ref());
        normalize(&mut headers);
        let own = self.take_own(&mut headers);
        let person = Person::of(&headers, self.identity.as_ref());
        let host = caller.host.as_deref().filter(|_| self.preserve_host);
        let host = host.and_then(|host| HeaderValue::from_str(host).ok()).unwrap_or_else(|| self.authority.clone());
        headers.insert(header::HOST, host);
        headers.append(header::VIA, self.pseudonym.via(head.version));
        headers.append(SURROGATE_CAPABILITY, CAPABILITY);
        caller.write(&mut headers);
        if let Some(prefix) = &self.prefix {
            headers.insert(X_FORWARDED_PREFIX, prefix.clone());
        }
        let primary = key::primary(&self.upstream, &path);
        let key = key::variant(&key::at(&primary, &caller.origin()), self.rules.passed(), &headers);
        Outgoing { method: head.method, path, primary, key, caller, person, headers, own }
    }

    /// Takes out the headers that the client sends for itself.
    fn take_own(&self, headers: &mut HeaderMap) -> HeaderMap {
        let directives = [header::CACHE_CONTROL, header::PRAGMA];
        let directives = directives.iter().filter(|_| !self.clients_may_force);
        let mut own = HeaderMap::new();
        for name in CONDITIONS.iter().chain([&header::RANGE]).chain(directives) {
            if let Some(value) = headers.remove(name) {
                own.insert(name, value);
            }
        }
        own
    }
}

impl Outgoing {
    /// The headers of a load for all: key and variant are made of them.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The client's own headers: its conditions, and its range.
    pub(super) fn own(&self) -> &HeaderMap {
        &self.own
    }

    /// The headers of a request whose answer is for this client alone.
    pub(super) fn as_asked(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        for (name, value) in &self.own {
            headers.insert(name, value.clone());
        }
        headers
    }

    /// Whether a load for all is exactly the request of this client.
    pub(super) fn is_for_all(&self) -> bool {
        self.method == Method::GET && self.own.is_empty()
    }

    /// Whether this client gets the whole response; weir answers its conditions.
    pub(super) fn wants_whole(&self) -> bool {
        self.method == Method::GET && !self.own.contains_key(header::RANGE)
    }
}

/// Joins repeated headers into one line, and unifies spelling that has no meaning. The request is sent in this form, not only
/// compared.
fn normalize(headers: &mut HeaderMap) {
    if headers.len() != headers.keys_len() {
        let several = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
        let names: Vec<HeaderName> = headers.keys().filter(several).cloned().collect();
        for name in names {
            let separator: &[u8] = if name == header::COOKIE { b"; " } else { b", " };
            let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
            if let Ok(line) = HeaderValue::from_bytes(&lines.join(separator)) {
                headers.insert(name, line);
            }
        }
    }
    for (name, spell) in [(header::ACCEPT_LANGUAGE, languages as fn(&str) -> _), (header::ACCEPT_ENCODING, codings)] {
        let spelled = headers.get(&name).and_then(|value| value.to_str().ok()).and_then(spell);
        if let Some(value) = spelled.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// Languages as browsers write them, the most wanted first. Equally wanted ones stay in order, because programs take the first.
/// `None` where the value is malformed.
fn languages(text: &str) -> Option<String> {
    let mut languages: Vec<(u32, String)> = split(text, b',').into_iter().map(language).collect::<Option<_>>()?;
    languages.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let written = languages.iter().map(|(weight, tag)| match weight {
        1_000 => tag.clone(),
        weight => format!("{tag};q={}", f64::from(*weight) / 1_000.0),
    });
    Some(written.collect::<Vec<_>>().join(","))
}

/// `DE;q=0.5` → 500, `de`.
fn language(member: &str) -> Option<(u32, String)> {
    let (tag, weight) = member.split_once(';').map_or((member, None), |(tag, weight)| (tag.trim(), Some(weight)));
    let is_tag = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-*".contains(&byte));
    let weight = match weight {
        None => 1.0,
        Some(weight) => weight.trim().strip_prefix("q=")?.parse::<f64>().ok().filter(|q| (0.0..=1.0).contains(q))?,
    };
    // Weights have three digits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000")]
    let weight = (weight * 1_000.0).round() as u32;
    // RFC 5646, section 2.1.1: `zh-Hant-TW`.
    let part = |(place, part): (usize, &str)| {
        let lower = part.to_ascii_lowercase();
        match part.len() {
            2 if place > 0 => lower.to_ascii_uppercase(),
            4 if place > 0 => lower[..1].to_ascii_uppercase() + &lower[1..],
            _ => lower,
        }
    };
    is_tag.then(|| (weight, tag.split('-').enumerate().map(part).collect::<Vec<_>>().join("-")))
}

/// Content codings as browsers write them.
fn codings(text: &str) -> Option<String> {
    let members = split(text, b',');
    let written: Vec<String> = members.iter().map(|member| member.to_ascii_lowercase().replace(' ', "")).collect();
    (!written.is_empty()).then(|| written.join(", "))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;
    use weir_core::config::HttpConfig;
    use weir_listener::forwarded::Trust;

    fn outgoing(config: &UpstreamConfig, method: &str, pairs: &[(&str, &str)]) -> Outgoing {
        let identity = Some(HeaderName::from_static("x-actor-id"));
        let passage = Passage::new(config, HeaderValue::from_static("origin:1"), identity, Pseudonym::of("weir-0"));
        let mut request = Request::builder().method(method).uri("/shop/a?b");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let caller = Trust::from(&HttpConfig::default()).caller(&head.headers, "127.0.0.1".parse().unwrap());
        passage.unwrap().outgoing(head, caller)
    }

    fn shop() -> UpstreamConfig {
        UpstreamConfig::new("shop", "/shop/", "http://origin:1")
    }

    fn written(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn what_is_of_one_hop_or_not_vouched_for_goes_no_further() {
        let sent = outgoing(
            &shop(),
            "GET",
            &[
                ("connection", "a, host, accept-language"),
                ("a", "1"),
                ("accept-language", "ko"),
                ("te", "trailers"),
                ("host", "Weir:80"),
                ("x-forwarded-host", "evil"),
                ("x_forwarded_host", "evil"),
                ("x-http-method-override", "DELETE"),
                ("x-forwarded-for", "10.0.0.1"),
            ],
        );
        let expected = [
            "forwarded: for=127.0.0.1;proto=http",
            "host: origin:1",
            "surrogate-capability: weir=\"Surrogate/1.0\"",
            "via: 1.1 weir-0",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
        ];
        assert_eq!(written(&sent.headers), expected);
        assert_eq!((sent.primary.as_str(), sent.key.as_str()), ("shop:/shop/a?b", "shop:/shop/a?b\n@http://"));
        let vary = [header::ACCEPT_LANGUAGE];
        let plain = outgoing(&shop(), "GET", &[("host", "weir")]);
        assert_eq!(key::variant(&sent.key, &vary, sent.headers()), key::variant(&plain.key, &vary, plain.headers()));
    }

    #[test]
    fn the_host_is_the_clients_where_it_is_preserved() {
        let config = UpstreamConfig { preserve_host: true, strip_prefix: true, ..shop() };
        let sent = outgoing(&config, "GET", &[("host", "Shop.Example")]);
        assert_eq!(sent.headers[header::HOST], "shop.example");
        assert_eq!((sent.path.as_str(), sent.headers["x-forwarded-prefix"].to_str().unwrap()), ("/a?b", "/shop"));
        assert_ne!(sent.key, outgoing(&config, "GET", &[("host", "other.example")]).key);
        let named = UpstreamConfig { hosts: vec!["a.example".into()], ..shop() };
        let sent = outgoing(&named, "GET", &[("host", "a.example")]);
        assert_eq!([&sent.headers["host"], &sent.headers["x-forwarded-host"]], ["origin:1", "a.example"]);
        let of = |host| outgoing(&shop(), "GET", &[("host", host)]).key;
        assert_eq!(of("a.example"), of("b.example"), "nobody vouches for it: it is not sent either");
    }

    #[test]
    fn what_a_client_wants_for_itself_is_no_part_of_what_is_sent_for_all() {
        let own = [("if-none-match", "\"a\""), ("range", "bytes=0-1"), ("cache-control", "no-cache"), ("pragma", "x")];
        let sent = outgoing(&shop(), "GET", &own);
        assert_eq!(written(sent.headers()), written(outgoing(&shop(), "GET", &[]).headers()));
        assert_eq!((sent.own().len(), sent.as_asked().len()), (4, sent.headers().len() + 4));
        assert!(!sent.is_for_all() && !sent.wants_whole());
        let may = UpstreamConfig { clients_may_force: true, ..shop() };
        assert_eq!(outgoing(&may, "GET", &own).headers()["cache-control"], "no-cache");
        assert!(outgoing(&shop(), "GET", &[]).is_for_all() && !outgoing(&shop(), "HEAD", &[]).wants_whole());
    }

    #[test]
    fn who_asks_is_seen() {
        let of = |pairs: &[(&str, &str)]| outgoing(&shop(), "GET", pairs).person;
        assert!(!of(&[("user-agent", "x"), ("accept", "y")]).is_known());
        assert_eq!(of(&[("cookie", "a=b")]), Person { cookie: true, ..Person::default() });
        assert_eq!(of(&[("authorization", "x")]), Person { authorization: true, ..Person::default() });
        for name in ["x-actor-id", "x-api-key"] {
            assert_eq!(of(&[(name, "x")]), Person { credential: true, ..Person::default() });
        }
        assert!(!of(&[("cookie", "a=b"), ("connection", "cookie")]).is_known(), "the origin does not see it");
    }

    #[test]
    fn lines_and_spelling_are_made_one_and_sent_so() {
        let of = |pairs: &[(&str, &str)], name: &str| {
            outgoing(&shop(), "GET", pairs).headers()[name].to_str().unwrap().to_owned()
        };
        assert_eq!(of(&[("foo", "1"), ("foo", "2")], "foo"), "1, 2");
        assert_eq!(of(&[("cookie", "a=1"), ("cookie", "b=2")], "cookie"), "a=1; b=2");
        let language = |text| of(&[("accept-language", text)], "accept-language");
        assert_eq!(language("EN-us;q=0.7 , de,ZH-hant-tw"), "de,zh-Hant-TW,en-US;q=0.7");
        assert_eq!([language("ko, en"), language("en, ko")], ["ko,en", "en,ko"], "programs take the first");
        for same in ["en;q=x", "en;level=1", "de;q=2", "d_e"] {
            assert_eq!(language(same), same);
        }
        assert_eq!(of(&[("accept-encoding", "GZIP,br;q=0.5 , *")], "accept-encoding"), "gzip, br;q=0.5, *");
    }

    #[test]
    fn what_an_operator_lets_pass_is_part_of_the_key() {
        let config = UpstreamConfig { pass_headers: vec!["x-real-ip".into()], ..shop() };
        let key = |value| outgoing(&config, "GET", &[("host", "weir"), ("x-real-ip", value)]).key;
        assert_eq!(key("1.2.3.4"), "shop:/shop/a?b\n@http://\nx-real-ip:1.2.3.4");
        assert_ne!(key("1.2.3.4"), key("1.2.3.5"));
    }
}
