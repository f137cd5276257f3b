//! Caching directives of origins and clients: `Cache-Control` (RFC 9111), `CDN-Cache-Control` (RFC 9213) and its predecessor
//! `Surrogate-Control`. Malformed headers are read leniently and always to the safe side: a lifetime that is not a number is 0, and
//! of two lifetimes the shorter counts.

use hyper::header::{self, HeaderMap, HeaderName};

/// The targeted header of RFC 9213 that shared caches obey.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// The header of the Edge Architecture Specification, which many frameworks still send.
pub(super) const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
/// The name that `Surrogate-Control` may address.
const SURROGATE_ID: &str = "weir";

/// The directives of a response. Times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) max_age_s: Option<u64>,
    pub(super) s_maxage_s: Option<u64>,
    pub(super) stale_while_revalidate_s: Option<u64>,
    pub(super) stale_if_error_s: Option<u64>,
    /// Fields that must not be served from the cache: those that `no-cache` and `private` name.
    pub(super) fields: Vec<String>,
    /// They came from a header for shared caches: `Expires` does not count.
    pub(super) targeted: bool,
}

/// The directives of a request. Times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age_s: Option<u64>,
    pub(super) min_fresh_s: Option<u64>,
    /// `u64::MAX` for `max-stale` without a number.
    pub(super) max_stale_s: Option<u64>,
}

impl Control {
    /// The directives for this cache: those of the most specific header that is present and well-formed.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if let Some(control) = dictionary(&joined(headers, &CDN_CACHE_CONTROL)) {
            return control;
        }
        if let Some(control) = surrogate(&joined(headers, &SURROGATE_CONTROL)) {
            return control;
        }
        let mut control = Self::default();
        for directive in split(&joined(headers, &header::CACHE_CONTROL), b',') {
            let (name, value) = name_and_value(directive);
            control.add(&name, value.as_deref());
        }
        control
    }

    fn add(&mut self, name: &str, value: Option<&str>) {
        let named = value.filter(|value| !value.is_empty());
        match name {
            "no-store" => self.no_store = true,
            "no-cache" | "private" => match named {
                Some(fields) => {
                    self.fields.extend(fields.split(',').map(|field| field.trim().to_ascii_lowercase()));
                }
                None if name == "private" => self.private = true,
                None => self.no_cache = true,
            },
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => shorter(&mut self.max_age_s, value),
            "s-maxage" => shorter(&mut self.s_maxage_s, value),
            "stale-while-revalidate" => shorter(&mut self.stale_while_revalidate_s, value),
            "stale-if-error" => shorter(&mut self.stale_if_error_s, value),
            _ => {}
        }
    }
}

impl Control {
    /// Drops the directives that forbid storing or limit its time, but keeps those that say who may see it.
    pub(super) fn loosened(self) -> Self {
        Self {
            private: self.private,
            // These allow serving it to all.
            public: self.public || self.must_revalidate || self.s_maxage_s.is_some(),
            stale_while_revalidate_s: self.stale_while_revalidate_s,
            stale_if_error_s: self.stale_if_error_s,
            fields: self.fields,
            targeted: true,
            ..Self::default()
        }
    }
}

impl Wishes {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut wishes = Self::default();
        for directive in split(&joined(headers, &header::CACHE_CONTROL), b',') {
            let (name, value) = name_and_value(directive);
            match name.as_str() {
                "no-cache" => wishes.no_cache = true,
                "no-store" => wishes.no_store = true,
                "only-if-cached" => wishes.only_if_cached = true,
                "max-age" => shorter(&mut wishes.max_age_s, value.as_deref()),
                "min-fresh" => wishes.min_fresh_s = value.as_deref().and_then(seconds),
                "max-stale" => wishes.max_stale_s = value.as_deref().map_or(Some(u64::MAX), seconds),
                _ => {}
            }
        }
        wishes
    }
}

/// All values of a header as one list.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(first) = values.next() else { return String::new() };
    values.fold(first.into_owned(), |mut all, value| {
        all.push(',');
        all.push_str(&value);
        all
    })
}

/// The members of a list, trimmed, without empty ones. Quoted text is not split.
pub(super) fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut members, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if byte == separator && !quoted => {
                members.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    members.push(text[from..].trim());
    members.retain(|member| !member.is_empty());
    members
}

/// `Max-Age="5"` → `max-age`, `5`.
fn name_and_value(directive: &str) -> (String, Option<String>) {
    let (name, value) = match directive.split_once('=') {
        Some((name, value)) => (name, Some(unquoted(value))),
        None => (directive, None),
    };
    (name.to_ascii_lowercase(), value)
}

fn unquoted(value: &str) -> String {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inside) => inside.replace('\\', ""),
        None => value.to_owned(),
    }
}

/// A number of seconds, capped where it is too large for every purpose.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX).min(u64::from(u32::MAX)))
}

/// Takes the shorter of the known and the given time; a malformed one is 0.
fn shorter(known: &mut Option<u64>, value: Option<&str>) {
    let given = value.and_then(seconds).unwrap_or(0);
    *known = Some(known.map_or(given, |known| known.min(given)));
}

/// A structured dictionary (RFC 8941) as RFC 9213 requires: `None` where it is absent or malformed; directives with values of a
/// wrong type are skipped.
fn dictionary(text: &str) -> Option<Control> {
    if text.trim().is_empty() {
        return None;
    }
    let mut control = Control { targeted: true, ..Control::default() };
    for member in split(text, b',') {
        let item = split(member, b';').into_iter().next()?;
        let (key, value) = item.split_once('=').map_or((item, None), |(key, value)| (key, Some(value)));
        let is_key = key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte));
        if !is_key {
            return None;
        }
        match value {
            None | Some("?1") => control.add(key, None),
            Some(value) if seconds(value).is_some() => {
                // In a dictionary the last value counts.
                match key {
                    "max-age" => control.max_age_s = seconds(value),
                    "s-maxage" => control.s_maxage_s = seconds(value),
                    _ => control.add(key, Some(value)),
                }
            }
            Some(value) if is_bare_item(value) => {}
            Some(_) => return None,
        }
    }
    Some(control)
}

/// A valid item of a structured field that is not a plain number, and is of no use here.
fn is_bare_item(value: &str) -> bool {
    let Some(first) = value.chars().next() else { return false };
    match first {
        '"' => value.len() > 1 && value.ends_with('"'),
        '?' => value == "?0",
        ':' => value.len() > 1 && value.ends_with(':'),
        '-' | '0'..='9' => value.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'),
        other => (other.is_ascii_alphabetic() || other == '*') && value.bytes().all(|byte| byte.is_ascii_graphic()),
    }
}

/// `max-age=60+30;weir, no-store;other`: the directives for all caches or for weir; `None` where there are none.
fn surrogate(text: &str) -> Option<Control> {
    let mut control = Control { targeted: true, ..Control::default() };
    let mut any = false;
    for directive in split(text, b',') {
        let mut parts = split(directive, b';').into_iter();
        let Some(item) = parts.next() else { continue };
        let targets: Vec<&str> = parts.collect();
        if !targets.is_empty() && !targets.iter().any(|target| target.eq_ignore_ascii_case(SURROGATE_ID)) {
            continue;
        }
        any = true;
        let (name, value) = name_and_value(item);
        let fresh = value.as_deref().map(|value| value.split_once('+').map_or(value, |(fresh, _)| fresh));
        control.add(&name, fresh);
    }
    any.then_some(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn control(text: &'static str) -> Control {
        Control::of(&headers(&[("cache-control", text)]))
    }

    #[test]
    fn lifetimes_are_read_to_the_safe_side() {
        let max_age = |text| control(text).max_age_s;
        assert_eq!(max_age("MaX-aGe=3600"), Some(3_600));
        assert_eq!(max_age("foobar, max-age=003600"), Some(3_600));
        assert_eq!(max_age("max-age=\"3600\""), Some(3_600));
        assert_eq!(max_age("max-age=99999999999"), Some(u64::from(u32::MAX)));
        for none in
            ["max-age='3600'", "max-age=-1", "max-age=1.5", "max-age=", "max-age", "max-age= 5", "max-age=5, max-age=x"]
        {
            assert_eq!(max_age(none), Some(0), "{none}");
        }
        assert_eq!(max_age("max-age=1800, max-age=1"), Some(1));
        assert_eq!(max_age("extension=\"max-age=3600\", max-age=1"), Some(1));
        assert_eq!(max_age("extension=\"a\\\", max-age=3600\""), None);
    }

    #[test]
    fn fields_may_be_named() {
        let named = control("no-cache=\"A, b\", private=c, max-age=5");
        assert_eq!(
            (named.no_cache, named.private, named.fields),
            (false, false, vec!["a".into(), "b".into(), "c".into()])
        );
        assert!(control("No-CaChE").no_cache && control("private").private);
    }

    #[test]
    fn a_header_for_shared_caches_comes_first() {
        let of = |pairs| Control::of(&headers(pairs));
        let both = of(&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60, stale-while-revalidate=5")]);
        assert_eq!(
            (both.no_store, both.max_age_s, both.stale_while_revalidate_s, both.targeted),
            (false, Some(60), Some(5), true)
        );
        let broken = of(&[("cache-control", "max-age=1"), ("cdn-cache-control", "Max-Age=60")]);
        assert_eq!((broken.max_age_s, broken.targeted), (Some(1), false));
        let wrong_type = of(&[("cdn-cache-control", "max-age=\"60\", no-store")]);
        assert_eq!((wrong_type.max_age_s, wrong_type.no_store), (None, true));
        let other = of(&[("cache-control", "max-age=1"), ("surrogate-control", "max-age=60;other")]);
        assert_eq!((other.max_age_s, other.targeted), (Some(1), false));
        let ours = of(&[("cache-control", "no-store"), ("surrogate-control", "max-age=60+30;weir")]);
        assert_eq!((ours.max_age_s, ours.no_store), (Some(60), false));
    }

    #[test]
    fn wishes_of_a_client() {
        let of = |text| Wishes::of(&headers(&[("cache-control", text)]));
        assert_eq!(of("max-stale").max_stale_s, Some(u64::MAX));
        assert_eq!(of("max-stale=5, min-fresh=2, max-age=1").max_stale_s, Some(5));
        assert_eq!(of("nothing-to-see-here"), Wishes::default());
        assert!(of("only-if-cached").only_if_cached && of("no-cache").no_cache);
    }
}
