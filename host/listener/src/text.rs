//! Small conversions of text that both listeners need: percent-decoding, JSON strings, timestamps.

use std::borrow::Cow;
use std::io::Write;

/// A percent-encoding that is cut short, has no hexadecimal digits, or does not give UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a percent-encoding of UTF-8 text")]
pub struct EncodingError;

/// Decodes one path segment, strictly.
///
/// # Errors
/// [`EncodingError`], where lenient decoders would leave the text as it is.
pub fn decode_segment(text: &str) -> Result<Cow<'_, str>, EncodingError> {
    decode(text, false)
}

/// Decodes one value of a query, strictly; `+` is a space, as in forms.
///
/// # Errors
/// [`EncodingError`], where lenient decoders would leave the text as it is.
pub fn decode_query_value(text: &str) -> Result<Cow<'_, str>, EncodingError> {
    decode(text, true)
}

fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, EncodingError> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next())?, hex(bytes.next())?);
                high << 4 | low
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| EncodingError)
}

fn hex(byte: Option<u8>) -> Result<u8, EncodingError> {
    match byte {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        _ => Err(EncodingError),
    }
}

/// Splits a query into (name, value still encoded), in order. A part without `=` has an empty value.
pub fn query_parts(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Appends `text` as a JSON string.
pub fn push_json_string(to: &mut Vec<u8>, text: &str) {
    to.push(b'"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        to.extend_from_slice(&text.as_bytes()[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            _ => push(to, format_args!("\\u{byte:04x}")),
        }
    }
    to.extend_from_slice(&text.as_bytes()[plain_from..]);
    to.push(b'"');
}

/// Appends formatted text.
pub fn push(to: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into a `Vec` cannot fail.
    let _ = to.write_fmt(text);
}

/// Appends Unix milliseconds as an RFC 3339 timestamp in UTC with milliseconds, without quotes.
pub fn push_timestamp(to: &mut Vec<u8>, unix_ms: u64) {
    const DAY_S: u64 = 86_400;
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (day, second) = (seconds / DAY_S, seconds % DAY_S);
    // Days since 0000-03-01, in eras of 400 years (146,097 days): Howard Hinnant's civil_from_days.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    for (value, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (hour, 2, b':'),
        (minute, 2, b':'),
        (second, 2, b'.'),
        (ms, 3, b'Z'),
    ] {
        push_digits(to, value, width);
        to.push(after);
    }
}

/// Appends a number in decimal.
pub fn push_number(to: &mut Vec<u8>, value: u64) {
    push_digits(to, value, 1);
}

/// Appends a number in decimal, with zeros before it up to `width` digits. By hand: the formatting machinery takes five
/// times as long, several times a reply.
fn push_digits(to: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while value > 0 {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    to.extend_from_slice(&digits[at.min(digits.len() - width.min(digits.len()))..]);
}

/// Appends bytes in lower-case hexadecimal.
pub fn push_hex(to: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        to.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_is_strict() {
        assert_eq!(decode_segment("a%2Fb%c3%A9").unwrap(), "a/bé");
        assert_eq!(decode_segment("a+b").unwrap(), "a+b");
        assert_eq!(decode_query_value("a+b%2B").unwrap(), "a b+");
        for bad in ["%", "%2", "%zz", "%+1", "%ff", "%c0%af", "%ed%a0%80", "a%"] {
            assert_eq!(decode_segment(bad), Err(EncodingError), "{bad}");
        }
    }

    #[test]
    fn queries_are_split() {
        let parts: Vec<_> = query_parts(Some("a=1&&b&c=d=e&")).collect();
        assert_eq!(parts, [("a", "1"), ("b", ""), ("c", "d=e")]);
        assert_eq!(query_parts(None).count(), 0);
    }

    #[test]
    fn json_strings_survive_a_parser() {
        for text in ["", "plain", "\"", "\\", "\u{0}\u{1f}\u{7f}", "é\u{2028}😀", "a\nb\tc", "</script>"] {
            let mut json = Vec::new();
            push_json_string(&mut json, text);
            assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn numbers_are_written_out() {
        let text = |value| {
            let mut text = Vec::new();
            push_number(&mut text, value);
            String::from_utf8(text).unwrap()
        };
        for value in [0, 9, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(text(value), value.to_string());
        }
        let mut hex = Vec::new();
        push_hex(&mut hex, &[0, 0x1f, 0xff]);
        assert_eq!(hex, b"001fff");
    }

    #[test]
    fn time_stamps_are_civil() {
        let timestamp = |ms| {
            let mut text = Vec::new();
            push_timestamp(&mut text, ms);
            String::from_utf8(text).unwrap()
        };
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(timestamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(951_868_800_000), "2000-03-01T00:00:00.000Z");
        assert_eq!(timestamp(1_767_225_599_001), "2025-12-31T23:59:59.001Z");
        assert_eq!(timestamp(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
