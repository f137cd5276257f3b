//! Single values of a host's answer as text. What is not there is empty.

use serde_json::Value;

use super::DIGEST_DIGITS;
use crate::listener::text::push_timestamp;
use crate::operators::{Breaker, Micros, ModuleName, ModuleRecord, Serving, Trial, Uploaded};

/// A text on one line, without what a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    // Control characters, and those that turn the direction of the text around.
    let hostile = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hostile(c) { ' ' } else { c }).collect()
}

/// The same of a text that may be absent.
pub(super) fn clean_or_none(text: Option<&String>) -> String {
    text.map(|text| clean(text)).unwrap_or_default()
}

/// The same of what a module was given or has answered.
pub(super) fn clean_value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        other => clean(&other.to_string()),
    }
}

/// What a module is called.
pub(super) trait Named {
    /// Its name.
    fn name(&self) -> &str;
    /// Its version, if it has one.
    fn version(&self) -> Option<&String>;
    /// Its digest.
    fn digest(&self) -> &str;
}

macro_rules! named {
    ($($type:ty),*) => {
        $(impl Named for $type {
            fn name(&self) -> &str {
                &self.name
            }

            fn version(&self) -> Option<&String> {
                self.version.as_ref()
            }

            fn digest(&self) -> &str {
                &self.digest
            }
        })*
    };
}

named!(Breaker, ModuleName, ModuleRecord, Serving, Trial, Uploaded);

/// The beginning of a module's digest, which names it.
pub(super) fn short(module: &impl Named) -> String {
    clean(module.digest()).chars().take(DIGEST_DIGITS).collect()
}

/// A module's name, version and digest.
pub(super) fn titled(module: &impl Named) -> String {
    let (name, version, digest) = (clean(module.name()), clean_or_none(module.version()), short(module));
    let name = if name.is_empty() { "unnamed".into() } else { name };
    let version = if version.is_empty() { version } else { format!(" {version}") };
    let digest = if digest.is_empty() { digest } else { format!(" ({digest})") };
    format!("{name}{version}{digest}")
}

/// Unix milliseconds as a timestamp to the second; empty for 0.
pub(super) fn timestamp(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return String::new();
    }
    let mut text = Vec::new();
    push_timestamp(&mut text, unix_ms);
    let text = String::from_utf8_lossy(&text).into_owned();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// A share as percents.
pub(super) fn percent(share: f64) -> String {
    // To four digits: 0.07 * 100 is not 7.
    format!("{} %", (share * 1_000_000.0).round() / 10_000.0)
}

/// Milliseconds.
pub(super) fn milliseconds(ms: f64) -> String {
    format!("{ms:.1} ms")
}

/// Mean, percentiles and maximum of times in microseconds.
pub(super) fn micros(times: Option<&Micros>) -> String {
    let Some(times) = times else { return "no call yet".into() };
    let time = |(name, micros): (&str, f64)| {
        if micros < 1000.0 { format!("{name} {micros:.1} µs") } else { format!("{name} {:.1} ms", micros / 1000.0) }
    };
    let times = [("mean", times.mean), ("p50", times.p50 as f64), ("p99", times.p99 as f64), ("max", times.max as f64)];
    times.map(time).join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(clean("a\u{1b}[2J\nb\u{202e}c\u{9b}é"), "a [2J b c é");
        assert_eq!(clean_value(&json!("a\u{1b}b")), "a b");
        assert_eq!(clean_value(&json!({ "a\u{1b}": 1 })), "{\"a\\u001b\":1}");
        assert_eq!(clean_value(&Value::Null), "");
    }

    #[test]
    fn values_have_their_units() {
        assert_eq!((percent(0.07), percent(1.0)), ("7 %".into(), "100 %".into()));
        assert_eq!((timestamp(1_767_225_599_001), timestamp(0)), ("2025-12-31T23:59:59Z".into(), String::new()));
        assert_eq!(milliseconds(38.24), "38.2 ms");
        let times = Micros { mean: 9.5, p50: 9, p99: 20, max: 2500 };
        assert_eq!(micros(Some(&times)), "mean 9.5 µs, p50 9.0 µs, p99 20.0 µs, max 2.5 ms");
        assert_eq!(micros(None), "no call yet");
    }

    #[test]
    fn a_module_is_named_by_what_is_known() {
        let module = |digest: &str, name: &str, version: Option<&str>| ModuleName {
            digest: digest.into(),
            name: name.into(),
            version: version.map(Into::into),
        };
        assert_eq!(titled(&module("0123456789abcdef", "a", Some("1"))), "a 1 (0123456789ab)");
        assert_eq!(titled(&module("", "built-in", None)), "built-in");
        assert_eq!(titled(&ModuleName::default()), "unnamed");
    }
}
