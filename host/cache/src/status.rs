//! `Cache-Status` (RFC 9211): what the cache did with a request, and why.

use std::fmt::Write;

/// The name of this cache in the header.
const CACHE: &str = "weir";
/// Usual length of the header's value, in bytes.
const STATUS_BYTES: usize = 64;

/// Why the origin was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// The request does not use the cache.
    Bypass,
    /// Requests with this method always go to the origin.
    Method,
    /// The cache has nothing for it.
    UriMiss,
    /// The cached answer is for other request headers.
    VaryMiss,
    /// The request does not accept the cached answer.
    Request,
    /// The cached answer is stale.
    Stale,
}

/// What the cache did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Why the origin was asked; `None` is a hit.
    pub forwarded: Option<Forwarded>,
    /// The status of the origin's answer, where the client gets another one.
    pub origin_status: Option<u16>,
    /// How long the answer stays fresh, in milliseconds; negative when it is stale.
    pub ttl_ms: Option<i64>,
    /// The answer was cached.
    pub stored: bool,
    /// The answer was loaded for another request.
    pub collapsed: bool,
    /// There is no answer. Without `forwarded` this is no hit.
    pub unanswered: bool,
    /// Why.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    /// A hit.
    pub fn hit(ttl_ms: i64) -> Self {
        Self { ttl_ms: Some(ttl_ms), ..Self::default() }
    }

    /// The origin was asked.
    pub fn forwarded(why: Forwarded) -> Self {
        Self { forwarded: Some(why), ..Self::default() }
    }

    /// There is no answer; `why` says why the origin was asked, if it was.
    pub fn unanswered(why: Option<Forwarded>) -> Self {
        Self { forwarded: why, unanswered: true, ..Self::default() }
    }

    /// The same for a stale answer: its time to live is over, even where an invalidation ended it early.
    pub fn stale(self) -> Self {
        Self { ttl_ms: self.ttl_ms.map(|ttl_ms| ttl_ms.min(-1)), ..self }
    }

    /// The same, with a reason made of RFC 9211's token characters.
    pub fn because(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// Seconds to live of a hit without further details.
    pub fn plain_hit_ttl_s(&self) -> Option<i64> {
        let ttl_ms = self.ttl_ms?;
        (*self == Self::hit(ttl_ms)).then(|| ttl_ms.div_euclid(1_000))
    }

    /// The value of the metric label `how`.
    pub fn how(&self) -> &'static str {
        match self.forwarded {
            _ if self.unanswered => "failed",
            _ if self.collapsed => "collapsed",
            None if self.ttl_ms.is_some_and(|ttl_ms| ttl_ms <= 0) => "stale",
            None => "hit",
            Some(Forwarded::Bypass | Forwarded::Method) => "bypass",
            Some(_) => "miss",
        }
    }

    /// The header's value.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(STATUS_BYTES);
        text.push_str(CACHE);
        // Writing into a `String` cannot fail.
        let _ = match self.forwarded {
            None if self.unanswered => Ok(()),
            None => {
                text.push_str("; hit");
                Ok(())
            }
            Some(why) => write!(text, "; fwd={}", why.token()),
        };
        if let Some(status) = self.origin_status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl_ms) = self.ttl_ms {
            let _ = write!(text, "; ttl={}", ttl_ms.div_euclid(1_000));
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        text
    }
}

impl Forwarded {
    fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_the_rfc_has_it() {
        assert_eq!(CacheStatus::hit(2_999).text(), "weir; hit; ttl=2");
        assert_eq!(CacheStatus::hit(-1).because("origin-failed").text(), "weir; hit; ttl=-1; detail=origin-failed");
        assert_eq!(CacheStatus::hit(5_000).stale().text(), "weir; hit; ttl=-1");
        assert_eq!(CacheStatus::hit(-5_000).stale().text(), "weir; hit; ttl=-5");
        let unanswered = CacheStatus::unanswered;
        assert_eq!(unanswered(None).because("overloaded").text(), "weir; detail=overloaded");
        let late = unanswered(Some(Forwarded::Stale)).because("origin-late");
        assert_eq!(late.text(), "weir; fwd=stale; detail=origin-late");
        let fetched =
            CacheStatus { origin_status: Some(304), stored: true, ..CacheStatus::forwarded(Forwarded::Stale) };
        assert_eq!(fetched.text(), "weir; fwd=stale; fwd-status=304; stored");
        assert_eq!(CacheStatus::forwarded(Forwarded::Bypass).because("live").text(), "weir; fwd=bypass; detail=live");
    }
}
