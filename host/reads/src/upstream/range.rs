//! One range of a complete body (RFC 9110, section 14). A request for several ranges gets the whole.

use std::ops::Range;

use hyper::header::{self, HeaderMap};

/// The part of a body that a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Bytes(Range<usize>),
    /// Bytes beyond its end: 416.
    Beyond,
}

/// The part of a body of `length` bytes that `Range` wants. A malformed header is ignored, as the RFC says.
pub(super) fn part(request: &HeaderMap, length: usize) -> Part {
    let mut values = request.get_all(header::RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Part::Whole };
    let Some((unit, range)) = value.to_str().ok().and_then(|text| text.split_once('=')) else { return Part::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return Part::Whole;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    let number = |text: &str| -> Option<usize> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().unwrap_or(usize::MAX))
    };
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix {
            0 => Part::Beyond,
            _ if length == 0 => Part::Beyond,
            suffix => Part::Bytes(length.saturating_sub(suffix)..length),
        },
        (Some(first), last) if last.is_some() || range.trim().ends_with('-') => {
            let last = last.unwrap_or(usize::MAX);
            match first {
                first if last < first => Part::Whole,
                first if first >= length => Part::Beyond,
                first => Part::Bytes(first..last.saturating_add(1).min(length)),
            }
        }
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let of = |text: &str| {
            let mut request = HeaderMap::new();
            request.insert(header::RANGE, text.parse().unwrap());
            part(&request, 10)
        };
        assert_eq!(of("bytes=0-1"), Part::Bytes(0..2));
        assert_eq!(of("bytes=1-"), Part::Bytes(1..10));
        assert_eq!(of("bytes=-1"), Part::Bytes(9..10));
        assert_eq!(of("bytes=-100"), Part::Bytes(0..10));
        assert_eq!(of("bytes=5-100"), Part::Bytes(5..10));
        assert_eq!([of("bytes=10-"), of("bytes=-0")], [Part::Beyond, Part::Beyond]);
        for whole in ["bytes=2-1", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=-", "bytes", "bytes=1-b"] {
            assert_eq!(of(whole), Part::Whole, "{whole}");
        }
        assert_eq!(part(&HeaderMap::new(), 10), Part::Whole);
    }
}
