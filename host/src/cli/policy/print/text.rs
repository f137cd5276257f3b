//! Single values of a host's answer as text. What is not there is empty.

use serde_json::Value;

use super::DIGEST_DIGITS;
use crate::listener::text::push_timestamp;

/// A value on one line, without what a terminal would obey.
pub(super) fn clean(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // Control characters, and those that turn the direction of the text around.
    let hostile = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hostile(c) { ' ' } else { c }).collect()
}

/// A field as text.
pub(super) fn text(object: &Value, name: &str) -> String {
    object.get(name).map(clean).unwrap_or_default()
}

/// A field as a count; 0 when it is not there.
pub(super) fn number(object: &Value, name: &str) -> u64 {
    object.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// The items of a field.
pub(super) fn list_of<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The entries of a field.
pub(super) fn map_of<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(name).and_then(Value::as_object).into_iter().flatten()
}

/// The beginning of a module's digest, which names it.
pub(super) fn short(module: &Value) -> String {
    text(module, "digest").chars().take(DIGEST_DIGITS).collect()
}

/// A module's name, version and digest.
pub(super) fn titled(module: &Value) -> String {
    let (name, version, digest) = (text(module, "name"), text(module, "version"), short(module));
    let name = if name.is_empty() { "unnamed".into() } else { name };
    let version = if version.is_empty() { version } else { format!(" {version}") };
    let digest = if digest.is_empty() { digest } else { format!(" ({digest})") };
    format!("{name}{version}{digest}")
}

/// Unix milliseconds as a time stamp to the second; empty for none and for 0.
pub(super) fn stamp(object: &Value, name: &str) -> String {
    let Some(unix_ms) = object.get(name).and_then(Value::as_u64).filter(|unix_ms| *unix_ms > 0) else {
        return String::new();
    };
    let mut text = Vec::new();
    push_timestamp(&mut text, unix_ms);
    let text = String::from_utf8_lossy(&text).into_owned();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// A share as percents.
pub(super) fn percent(object: &Value, name: &str) -> String {
    let share = object.get(name).and_then(Value::as_f64).unwrap_or_default();
    // To four digits: 0.07 * 100 is not 7.
    format!("{} %", (share * 1_000_000.0).round() / 10_000.0)
}

/// Milliseconds.
pub(super) fn milliseconds(value: &Value) -> String {
    value.as_f64().map(|ms| format!("{ms:.1} ms")).unwrap_or_default()
}

/// Mean, percentiles and maximum of times in microseconds.
pub(super) fn micros(times: Option<&Value>) -> String {
    let time = |name: &str| {
        let micros = times?.get(name)?.as_f64()?;
        Some(if micros < 1000.0 {
            format!("{name} {micros:.1} µs")
        } else {
            format!("{name} {:.1} ms", micros / 1000.0)
        })
    };
    let times: Vec<String> = ["mean", "p50", "p99", "max"].into_iter().filter_map(time).collect();
    if times.is_empty() { "no call yet".into() } else { times.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(clean(&json!("a\u{1b}[2J\nb\u{202e}c\u{9b}é")), "a [2J b c é");
        assert_eq!(clean(&json!({ "a\u{1b}": 1 })), "{\"a\\u001b\":1}");
        assert_eq!(clean(&Value::Null), "");
    }

    #[test]
    fn values_have_their_units() {
        let object = json!({ "share": 0.07, "whole": 1, "at_ms": 1_767_225_599_001_u64, "zero_ms": 0 });
        assert_eq!(percent(&object, "share"), "7 %");
        assert_eq!(percent(&object, "whole"), "100 %");
        assert_eq!(stamp(&object, "at_ms"), "2025-12-31T23:59:59Z");
        assert_eq!((stamp(&object, "zero_ms"), stamp(&object, "none")), (String::new(), String::new()));
        assert_eq!(milliseconds(&json!(38.24)), "38.2 ms");
        assert_eq!(micros(Some(&json!({ "p50": 9, "max": 2500.0 }))), "p50 9.0 µs, max 2.5 ms");
        assert_eq!(micros(Some(&Value::Null)), "no call yet");
    }

    #[test]
    fn a_module_is_named_by_what_is_known() {
        let digest = "0123456789abcdef";
        assert_eq!(titled(&json!({ "digest": digest, "name": "a", "version": "1" })), "a 1 (0123456789ab)");
        assert_eq!(titled(&json!({ "digest": null, "name": "built-in", "version": null })), "built-in");
        assert_eq!(titled(&Value::Null), "unnamed");
    }
}
