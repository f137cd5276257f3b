//! Who asks, by which scheme and under which host: what proxies say of it, as far as they are trusted.
//!
//! A header from an untrusted peer counts for nothing. A peer in `trusted_proxies` is believed about the address that
//! called it; if that address is a trusted proxy too, its statement is also believed, and so on from the right. The
//! client is the first address that is not trusted. Only the configured kind of header is read: a proxy that sets one
//! kind passes the other on as the client wrote it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::head::is_host;
use crate::config::{AdminConfig, HttpConfig, Networks, ProxyHeaders};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How a client speaks to the outermost proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

/// Whose word a listener takes, and in which headers.
pub struct Trust {
    proxies: Networks,
    language: ProxyHeaders,
    /// The setting that names the proxies.
    setting: &'static str,
    /// Whether the log already has a warning about an untrusted peer.
    has_warned: AtomicBool,
}

/// Who asks, and for what: all of it true, or not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The client.
    pub client: IpAddr,
    /// The trusted proxies between the client and this host, from the client on.
    proxies: Vec<IpAddr>,
    /// How the client speaks.
    pub scheme: Scheme,
    /// The host that the client asks for, in lower case and without the scheme's own port; `None` where it names none.
    pub host: Option<String>,
    /// A trusted proxy asks for the client: it knows its hosts.
    pub is_by_proxy: bool,
}

/// What one proxy says of who asked it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hop {
    client: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<String>,
}

impl Scheme {
    /// Its name in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn of(text: &str) -> Option<Self> {
        match text.trim() {
            text if text.eq_ignore_ascii_case("http") => Some(Self::Http),
            text if text.eq_ignore_ascii_case("https") => Some(Self::Https),
            _ => None,
        }
    }

    fn port(self) -> &'static str {
        match self {
            Self::Http => ":80",
            Self::Https => ":443",
        }
    }
}

impl From<&HttpConfig> for Trust {
    fn from(config: &HttpConfig) -> Self {
        Self {
            proxies: config.trusted_proxies.clone(),
            language: config.proxy_headers,
            setting: "http.trusted_proxies",
            has_warned: AtomicBool::new(false),
        }
    }
}

impl From<&AdminConfig> for Trust {
    fn from(config: &AdminConfig) -> Self {
        Self {
            proxies: config.trusted_proxies.clone(),
            language: config.proxy_headers,
            setting: "admin.trusted_proxies",
            has_warned: AtomicBool::new(false),
        }
    }
}

impl Trust {
    /// Whether a peer's word is taken.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        !self.proxies.is_empty() && self.proxies.contains(peer)
    }

    /// Who asks.
    pub fn caller(&self, headers: &HeaderMap, peer: IpAddr) -> Caller {
        let peer = peer.to_canonical();
        let own_host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let plain = |host| Caller::new(peer, Vec::new(), Scheme::Http, host);
        if !self.proxies.contains(peer) {
            self.warn_once(headers, peer);
            return plain(own_host);
        }
        let hops = match self.language {
            ProxyHeaders::XForwarded => x_forwarded(headers, |address| self.proxies.contains(address)),
            ProxyHeaders::Forwarded => forwarded(headers),
        };
        // From the right: each hop was written by the one right of it, the last one by the peer.
        let (mut client, mut proxies, mut outermost) = (peer, Vec::new(), Hop::default());
        for hop in hops.into_iter().rev() {
            let Some(address) = hop.client else {
                // This hop does not name its client, so nothing vouches for the hops to its left.
                outermost = hop;
                break;
            };
            proxies.insert(0, client);
            client = address;
            outermost = hop;
            if !self.proxies.contains(client) {
                break;
            }
        }
        let scheme = outermost.scheme.unwrap_or(Scheme::Http);
        Caller { is_by_proxy: true, ..Caller::new(client, proxies, scheme, outermost.host.or(own_host)) }
    }

    /// Warns once about a peer that sends proxy headers but is not trusted: an operator may have forgotten to list it.
    fn warn_once(&self, headers: &HeaderMap, peer: IpAddr) {
        let speaks = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
        if speaks && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                setting = self.setting,
                "a peer says for whom it asks, and is not believed; if it is your proxy, name it in this setting"
            );
        }
    }
}

impl Caller {
    fn new(client: IpAddr, proxies: Vec<IpAddr>, scheme: Scheme, host: Option<String>) -> Self {
        let host = host.map(|host| host.to_ascii_lowercase());
        let host = host.map(|host| host.strip_suffix(scheme.port()).map_or(host.clone(), str::to_owned));
        Self { client, proxies, scheme, host: host.filter(|host| !host.is_empty()), is_by_proxy: false }
    }

    /// The same caller without its host, for when nothing vouches for that host.
    #[must_use]
    pub fn without_host(self) -> Self {
        Self { host: None, ..self }
    }

    /// Names the client to the next host, in both kinds of header, and replaces whatever they held.
    pub fn write(&self, headers: &mut HeaderMap) {
        let addresses = || std::iter::once(&self.client).chain(&self.proxies);
        let chain = addresses().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let about = match &self.host {
            Some(host) => format!(";host=\"{host}\";proto={}", self.scheme.as_str()),
            None => format!(";proto={}", self.scheme.as_str()),
        };
        // Whichever element a program reads, it reads the same host and scheme.
        let element = |address: &IpAddr| match address {
            IpAddr::V4(address) => format!("for={address}{about}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\"{about}"),
        };
        let elements = addresses().map(element).collect::<Vec<_>>().join(", ");
        set(headers, X_FORWARDED_FOR, Some(&chain));
        set(headers, X_FORWARDED_PROTO, Some(self.scheme.as_str()));
        set(headers, X_FORWARDED_HOST, self.host.as_deref());
        set(headers, header::FORWARDED, Some(&elements));
    }

    /// Where the client sees what it asks for: `https://shop.example`. Two that differ here may be answered otherwise.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.host.as_deref().unwrap_or_default())
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    match value.and_then(|value| HeaderValue::from_str(value).ok()) {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// The members of a list in all lines of a header, in order.
fn members(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    lines.flat_map(|line| split(&line, ',').into_iter().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Splits where no quotes are, and trims.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let at = move |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c => return c == separator && !quoted,
        }
        false
    };
    text.split(at).map(str::trim).collect()
}

/// `X-Forwarded-For`, with scheme and host at the outermost trusted hop: of a list, what that one has added; of a
/// single value, that.
fn x_forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Vec<Hop> {
    let clients: Vec<Option<IpAddr>> = members(headers, &X_FORWARDED_FOR).iter().map(|text| address(text)).collect();
    // So many proxies in a row are believed: the peer, and those that it and they name.
    let believed = 1 + clients.iter().rev().take_while(|client| client.is_some_and(&is_trusted)).count();
    let at_outermost = |name: &HeaderName| {
        let values = members(headers, name);
        values.get(values.len().saturating_sub(believed.min(clients.len().max(1)))).cloned()
    };
    let scheme = at_outermost(&X_FORWARDED_PROTO).as_deref().and_then(Scheme::of);
    let host = at_outermost(&X_FORWARDED_HOST).filter(|host| is_host(host.as_bytes()));
    let mut hops: Vec<Hop> = clients.into_iter().map(|client| Hop { client, ..Hop::default() }).collect();
    if hops.is_empty() {
        hops.push(Hop::default());
    }
    for hop in &mut hops {
        (hop.scheme, hop.host) = (scheme, host.clone());
    }
    hops
}

/// `Forwarded` (RFC 7239).
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let hop = |element: &String| {
        let mut hop = Hop::default();
        for pair in split(element, ';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inside) => inside.replace('\\', ""),
                None => value.to_owned(),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => hop.client = address(&value),
                "proto" => hop.scheme = Scheme::of(&value),
                "host" => hop.host = Some(value).filter(|host| is_host(host.as_bytes())),
                _ => {}
            }
        }
        hop
    };
    members(headers, &header::FORWARDED).iter().map(hop).collect()
}

/// An address with or without a port; `None` for `unknown` and names that hide one.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let inside = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    inside.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CDN: &str = "10.0.0.2";
    const BALANCER: &str = "10.0.0.1";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn caller(language: ProxyHeaders, peer: &str, pairs: &[(&'static str, &str)]) -> Caller {
        let proxies = Networks::try_from(vec!["10.0.0.0/8".to_owned()]).unwrap();
        let config = HttpConfig { trusted_proxies: proxies, proxy_headers: language, ..HttpConfig::default() };
        Trust::from(&config).caller(&headers(pairs), peer.parse().unwrap())
    }

    fn seen(caller: &Caller) -> (String, String) {
        let mut headers = HeaderMap::new();
        caller.write(&mut headers);
        (caller.origin(), headers[X_FORWARDED_FOR].to_str().unwrap().to_owned())
    }

    fn x(peer: &str, pairs: &[(&'static str, &str)]) -> (String, String) {
        seen(&caller(ProxyHeaders::XForwarded, peer, pairs))
    }

    #[test]
    fn a_stranger_is_believed_nothing() {
        let all = [
            ("host", "shop.example"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "for=1.2.3.4;host=evil.example;proto=https"),
        ];
        assert_eq!(x("203.0.113.9", &all), ("http://shop.example".into(), "203.0.113.9".into()));
    }

    #[test]
    fn several_lines_are_one_list_that_is_walked_from_the_right() {
        let of = |lines: &[&str]| {
            let pairs: Vec<(&'static str, &str)> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            x(BALANCER, &pairs).1
        };
        assert_eq!(of(&["1.2.3.4"]), "1.2.3.4, 10.0.0.1");
        assert_eq!(of(&["6.6.6.6", "1.2.3.4"]), "1.2.3.4, 10.0.0.1", "what the client wrote is left out");
        assert_eq!(of(&["6.6.6.6, 1.2.3.4", CDN]), "1.2.3.4, 10.0.0.2, 10.0.0.1");
        assert_eq!(of(&["10.9.9.9", CDN]), "10.9.9.9, 10.0.0.2, 10.0.0.1", "all are trusted");
        assert_eq!(of(&["6.6.6.6, unknown"]), "10.0.0.1", "the one who asked is hidden");
        assert_eq!(of(&["[2001:db8::1]:443"]), "2001:db8::1, 10.0.0.1");
        assert_eq!(of(&["1.2.3.4:5678"]), "1.2.3.4, 10.0.0.1");
        assert_eq!(of(&[]), "10.0.0.1");
    }

    #[test]
    fn scheme_and_host_are_those_of_the_outermost_trusted_proxy() {
        let of = |pairs: &[(&'static str, &str)]| x(BALANCER, &[&[("host", "inner")], pairs].concat()).0;
        let client = ("x-forwarded-for", "1.2.3.4");
        let both = ("x-forwarded-for", "1.2.3.4, 10.0.0.2");
        assert_eq!(
            of(&[client, ("x-forwarded-proto", "HTTPS"), ("x-forwarded-host", "Shop.Example:443")]),
            "https://shop.example"
        );
        assert_eq!(of(&[client, ("x-forwarded-proto", "http, https")]), "https://inner", "the client said http");
        assert_eq!(of(&[both, ("x-forwarded-proto", "ftp, https, http")]), "https://inner", "what the CDN said");
        assert_eq!(of(&[both, ("x-forwarded-proto", "https")]), "https://inner");
        assert_eq!(of(&[client, ("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a/b")]), "http://inner");
        assert_eq!(of(&[("x-forwarded-proto", "https")]), "https://inner");
        assert_eq!(of(&[client, ("forwarded", "for=1.2.3.4;host=evil;proto=https")]), "http://inner", "one language");
    }

    #[test]
    fn forwarded_is_read_where_proxies_speak_it() {
        let of = |lines: &[&str]| {
            let pairs: Vec<(&'static str, &str)> = lines.iter().map(|line| ("forwarded", *line)).collect();
            seen(&caller(
                ProxyHeaders::Forwarded,
                BALANCER,
                &[&[("host", "inner"), ("x-forwarded-for", "6.6.6.6")], &pairs[..]].concat(),
            ))
        };
        let expected = ("https://shop.example".to_owned(), "1.2.3.4, 10.0.0.1".to_owned());
        assert_eq!(of(&["for=6.6.6.6;host=evil", "For=\"1.2.3.4:99\";Proto=https;host=shop.example"]), expected);
        let chain = of(&["for=1.2.3.4;proto=https;host=\"shop.example:8443\", for=10.0.0.2;proto=http"]);
        assert_eq!(chain, ("https://shop.example:8443".into(), "1.2.3.4, 10.0.0.2, 10.0.0.1".into()));
        assert_eq!(of(&["for=1.2.3.4, for=_hidden;proto=https"]), ("https://inner".into(), "10.0.0.1".into()));
        assert_eq!(of(&["for=\"[2001:db8::1]:1\""]).1, "2001:db8::1, 10.0.0.1");
    }

    #[test]
    fn it_is_said_in_both_languages() {
        let caller = caller(
            ProxyHeaders::XForwarded,
            BALANCER,
            &[("host", "a"), ("x-forwarded-for", "2001:db8::1"), ("x-forwarded-proto", "https")],
        );
        let mut headers =
            headers(&[("forwarded", "for=evil"), ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7")]);
        caller.write(&mut headers);
        let of =
            |name: HeaderName| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(of(X_FORWARDED_FOR), ["2001:db8::1, 10.0.0.1"]);
        assert_eq!((of(X_FORWARDED_PROTO), of(X_FORWARDED_HOST)), (vec!["https"], vec!["a"]));
        let elements = "for=\"[2001:db8::1]\";host=\"a\";proto=https, for=10.0.0.1;host=\"a\";proto=https";
        assert_eq!(of(header::FORWARDED), [elements]);
        assert!(caller.is_by_proxy && caller.without_host().host.is_none());
    }
}
