//! What callers write into queries and small headers, read strictly: what is not understood is refused, not ignored.

use std::fmt::Write;

use hyper::header::{HeaderMap, HeaderName};

use super::problem::{BAD_HEADER, BAD_ID, BAD_QUERY};
use weir_core::model::{Id, IdType, Incarnation, Member, Position};
use weir_listener::head::one;
use weir_listener::problem::Problem;
use weir_listener::text::{decode_query_value, decode_segment, query_parts};
use weir_write::capability::Receipt;

/// Longest `Idempotency-Key`, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The values of the parameters `names`, still encoded. Each may be given once; no other may be given.
pub(super) fn parameters<'query, const COUNT: usize>(
    query: Option<&'query str>,
    names: [&str; COUNT],
) -> Result<[Option<&'query str>; COUNT], Problem> {
    let mut values = [None; COUNT];
    for (name, value) in query_parts(query) {
        let Some(place) = names.iter().position(|known| *known == name) else {
            let detail = match names.len() {
                0 => "this takes no query parameters".to_owned(),
                _ => format!("only these query parameters are known here: {}", names.join(", ")),
            };
            return Err(Problem::new(&BAD_QUERY, detail));
        };
        if values[place].replace(value).is_some() {
            return Err(Problem::new(&BAD_QUERY, format!("give {name} once")));
        }
    }
    Ok(values)
}

/// The id in a path segment.
pub(super) fn target(segment: &str, id_type: IdType) -> Result<Id, Problem> {
    let text = decode_segment(segment).map_err(|error| Problem::new(&BAD_ID, format!("target: {error}")))?;
    Id::parse(id_type, &text).map_err(|error| Problem::new(&BAD_ID, format!("target: {error}")))
}

/// The ids in `?targets=`, separated by commas. A comma that is part of a text id is written `%2C`; for the other types
/// that is a separator too, as form encoders write it.
pub(super) fn targets(value: Option<&str>, id_type: IdType, targets_max: usize) -> Result<Vec<Id>, Problem> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Err(Problem::new(&BAD_QUERY, "give the ids as ?targets=1,2,3"));
    };
    let wrong = |error: &dyn std::fmt::Display| Problem::new(&BAD_ID, format!("targets: {error}"));
    let mut ids = Vec::new();
    for part in value.split(',') {
        let decoded = decode_query_value(part).map_err(|error| wrong(&error))?;
        let mut add = |text: &str| {
            if ids.len() == targets_max {
                return Err(Problem::new(&BAD_QUERY, format!("give at most {targets_max} targets")));
            }
            ids.push(Id::parse(id_type, text).map_err(|error| wrong(&error))?);
            Ok(())
        };
        match id_type {
            IdType::Text => add(&decoded)?,
            IdType::Integer | IdType::Uuid => decoded.split(',').try_for_each(add)?,
        }
    }
    Ok(ids)
}

/// `?limit=`, from 1 to `limit_max`; `default` when absent.
pub(super) fn limit(value: Option<&str>, default: usize, limit_max: usize) -> Result<usize, Problem> {
    let Some(value) = value else { return Ok(default.min(limit_max)) };
    match value.parse() {
        Ok(limit) if (1..=limit_max).contains(&limit) && !value.starts_with('+') => Ok(limit),
        _ => Err(Problem::new(&BAD_QUERY, format!("limit must be a number from 1 to {limit_max}"))),
    }
}

/// The cursor after `member`: its time and id in hexadecimal. Opaque to callers.
pub(super) fn cursor(member: &Member) -> String {
    let actor = member.actor.to_string();
    let mut cursor = String::with_capacity(16 + 2 * actor.len());
    // Writing into a `String` cannot fail.
    let _ = write!(cursor, "{:x}.", member.since_ms);
    for byte in actor.bytes() {
        let _ = write!(cursor, "{byte:02x}");
    }
    cursor
}

/// The member that a cursor points behind.
pub(super) fn read_cursor(text: &str, id_type: IdType) -> Result<Member, Problem> {
    let wrong = || Problem::new(&BAD_QUERY, "before must be the \"next\" of an earlier answer for this kind");
    let (since, actor) = text.split_once('.').ok_or_else(wrong)?;
    let since_ms = u64::from_str_radix(since, 16).map_err(|_| wrong())?;
    let digits: Vec<u32> = actor.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>().ok_or_else(wrong)?;
    if !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    // Two hexadecimal digits make a byte.
    let bytes = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    let actor = String::from_utf8(bytes).map_err(|_| wrong())?;
    let actor = Id::parse(id_type, &actor).map_err(|_| wrong())?;
    let member = Member { actor, since_ms };
    // One spelling only, so that a cursor that was made up does not pass for one that was given.
    if cursor(&member) == text { Ok(member) } else { Err(wrong()) }
}

/// `?position=`: a `Weir-Receipt`, such as `3-17-01a204ee969e773fbb808ccfcf549f19`.
pub(super) fn receipt(value: Option<&str>) -> Result<Receipt, Problem> {
    let parsed = value.and_then(|value| {
        let (partition, rest) = value.split_once('-')?;
        let (position, life) = rest.split_once('-')?;
        let receipt = Receipt {
            partition: partition.parse().ok()?,
            incarnation: Incarnation(uuid::Uuid::try_parse(life).ok()?),
            position: position.parse::<Position>().ok()?,
        };
        (receipt.to_string() == value).then_some(receipt)
    });
    parsed.ok_or_else(|| Problem::new(&BAD_QUERY, "give the Weir-Receipt of a write as ?position="))
}

/// The `Idempotency-Key`, given once: a string as structured fields write it (RFC 9651, section 3.3.3), such as `"a1"`, of 1 to
/// 255 characters. Without quotes it is the same key, of visible ASCII characters.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let wrong = || {
        let detail = "Idempotency-Key must be one string of 1 to 255 ASCII characters, such as \"a1\", or the same without \
                      quotes and spaces";
        Problem::new(&BAD_HEADER, detail)
    };
    let Some(value) = one(headers, &IDEMPOTENCY_KEY).map_err(|_| wrong())? else { return Ok(None) };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => string_item(rest).ok_or_else(wrong)?,
        None if text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
        None => return Err(wrong()),
    };
    if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) { Ok(Some(key)) } else { Err(wrong()) }
}

/// The string of a structured field behind its first quote. Parameters behind it mean nothing here.
fn string_item(rest: &str) -> Option<String> {
    let (mut string, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => string.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            plain @ ' '..='~' => string.push(plain),
            _ => return None,
        }
    }
    let behind = characters.as_str();
    (behind.is_empty() || behind.starts_with(';')).then_some(string)
}

/// Seconds of `Prefer: wait=N` (RFC 7240). A preference that is not understood is ignored, as the RFC says.
pub(super) fn prefer_wait_s(headers: &HeaderMap) -> Option<u64> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status<T: std::fmt::Debug>(result: Result<T, Problem>) -> u16 {
        result.unwrap_err().status().as_u16()
    }

    #[test]
    fn parameters_are_known_and_given_once() {
        assert_eq!(parameters(Some("b=2&a=1"), ["a", "b"]).unwrap(), [Some("1"), Some("2")]);
        assert_eq!(parameters(None, ["a"]).unwrap(), [None]);
        assert_eq!(status(parameters(Some("a=1&c=2"), ["a"])), 400);
        assert_eq!(status(parameters(Some("a=1&a=1"), ["a"])), 400);
        assert_eq!(status(parameters(Some("a"), [])), 400);
    }

    #[test]
    fn targets_are_separated_by_commas() {
        let ints = |value| targets(Some(value), IdType::Integer, 3);
        assert_eq!(ints("1,2,3").unwrap(), [Id::Int(1), Id::Int(2), Id::Int(3)]);
        assert_eq!(ints("1%2C2").unwrap(), [Id::Int(1), Id::Int(2)]);
        for bad in ["", "1,", ",1", "1,,2", "1,x", "1, 2", "1+2", "1,2,3,4", "%zz"] {
            assert_eq!(status(ints(bad)), 400, "{bad}");
        }
        assert_eq!(status(targets(None, IdType::Integer, 3)), 400);
        let texts = targets(Some("a%2Cb,c+d"), IdType::Text, 3).unwrap();
        assert_eq!(texts, [Id::Text("a,b".into()), Id::Text("c d".into())]);
    }

    #[test]
    fn a_target_may_hold_an_encoded_slash() {
        assert_eq!(target("a%2Fb", IdType::Text).unwrap(), Id::Text("a/b".into()));
        for bad in ["%00", "%ff", "%2", "a%0Ab"] {
            assert_eq!(status(target(bad, IdType::Text)), 400, "{bad}");
        }
        assert_eq!(status(target("x", IdType::Integer)), 400);
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(limit(None, 50, 20).unwrap(), 20);
        assert_eq!(limit(Some("20"), 50, 20).unwrap(), 20);
        for bad in ["0", "21", "-1", "+1", "x", "", "1.0", "99999999999999999999"] {
            assert_eq!(status(limit(Some(bad), 50, 20)), 400, "{bad}");
        }
    }

    #[test]
    fn a_made_up_cursor_is_refused() {
        for bad in ["", ".", "1", "1.", "1.3", "01.37", "g.37", "1.zz", "1.3737x", "1.FF", "+1.37", "1.e9", "1.37.37"] {
            assert_eq!(status(read_cursor(bad, IdType::Integer)), 400, "{bad}");
        }
    }

    #[test]
    fn receipts_have_one_spelling() {
        let life = "01a204ee969e773fbb808ccfcf549f19";
        let good = format!("3-17-{life}");
        let read = receipt(Some(&good)).unwrap();
        assert_eq!((read.partition, read.position, read.to_string()), (3, 17, good));
        let spoilt = ["03-17", "3-+17", "65536-1", "-17", "3-"].map(|place| format!("{place}-{life}"));
        let upper = format!("3-17-{}", life.to_uppercase());
        let bad = [None, Some(""), Some("3"), Some("3-17"), Some("3-17-x"), Some(upper.as_str())];
        for bad in bad.into_iter().chain(spoilt.iter().map(|text| Some(text.as_str()))) {
            assert_eq!(status(receipt(bad)), 400, "{bad:?}");
        }
    }

    #[test]
    fn idempotency_keys_are_bounded() {
        let key = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", hyper::header::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            idempotency_key(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["a-1"]), Ok(Some("a-1".into())));
        assert_eq!(key(&["\"a-1\""]), key(&["a-1"]), "it is one key");
        assert_eq!(key(&["\"a-1\";v=2"]), key(&["a-1"]));
        assert_eq!(key(&[r#""a\"b\\ c""#]), Ok(Some(r#"a"b\ c"#.into())));
        assert_eq!(key(&[r#"a"b"#]), key(&[r#""a\"b""#]));
        assert_eq!(key(&[&"x".repeat(255)]), Ok(Some("x".repeat(255))));
        assert_eq!(key(&[&format!("\"{}\"", "x".repeat(255))]), Ok(Some("x".repeat(255))));
        let long = format!("\"{}\"", "x".repeat(256));
        for bad in
            [&[""][..], &["a b"], &["é"], &["a", "a"], &[&"x".repeat(256)], &[&long], &["\"\""], &["\"a"], &["\""]]
        {
            assert_eq!(key(bad), Err(400), "{bad:?}");
        }
        for bad in [&["\"a\" b"][..], &[r#""a\b""#], &[r#""a\"#], &["\"a\tb\""], &["\"é\""], &["\"a\"\"b\""]] {
            assert_eq!(key(bad), Err(400), "{bad:?}");
        }
    }

    #[test]
    fn a_wait_is_found_among_preferences() {
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.append("prefer", value.parse().unwrap());
            prefer_wait_s(&headers)
        };
        assert_eq!(wait("wait=3"), Some(3));
        assert_eq!(wait("respond-async, Wait = 10; foo=bar"), Some(10));
        assert_eq!(wait("wait=soon"), None);
        assert_eq!(wait("return=minimal"), None);
    }

    proptest! {
        #[test]
        fn a_cursor_leads_back_to_its_member(since_ms: u64, number: i64, text in "[a-zé/., ]{1,40}") {
            for (id_type, actor) in [(IdType::Integer, Id::Int(number)), (IdType::Text, Id::Text(text.as_str().into()))] {
                let member = Member { actor, since_ms };
                prop_assert_eq!(read_cursor(&cursor(&member), id_type).unwrap(), member);
            }
        }
    }
}
