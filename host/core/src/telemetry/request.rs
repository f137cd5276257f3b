//! The request that is being answered: its id and its trace, for log lines, problems and origins.
//!
//! A span for each request would be written down whether or not anything is logged. So the ids lie beside the future that
//! answers, and `format` reads them when a line is written. What goes on on a task of its own takes them along
//! ([`carry`]).

use std::cell::RefCell;
use std::fmt;
use std::future::Future;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task_local;

/// Longest id that is taken from others, in bytes.
const ID_BYTES_MAX: usize = 128;
/// W3C Trace Context: version, trace id, parent id, flags.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;
/// The trace is recorded.
const SAMPLED: u8 = 1;

/// How a request is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    id: RequestId,
    trace: [u8; 16],
    flags: u8,
    /// The trace was begun by others.
    is_continued: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RequestId {
    Made([u8; 16]),
    Taken(Box<str>),
}

struct Current {
    tag: Option<Tag>,
    actor: RefCell<Option<String>>,
}

task_local! {
    static CURRENT: Current;
}

impl Tag {
    /// Names a request. What its headers say is taken only from who is trusted, and where it is well-formed; the rest is made.
    pub fn of(headers: &HeaderMap, name: &HeaderName, is_trusted: bool, is_sampled: bool) -> Self {
        let made: [u8; 16] = rand::random();
        let taken = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| is_trusted && values.next().is_none())
        };
        let id = taken(name).filter(|id| is_id(id.as_bytes())).and_then(|id| id.to_str().ok());
        let id = id.map_or(RequestId::Made(made), |id| RequestId::Taken(id.into()));
        match taken(&TRACEPARENT).and_then(|parent| parse(parent.as_bytes())) {
            Some((trace, flags)) => Self { id, trace: trace.to_be_bytes(), flags, is_continued: true },
            None => Self { id, trace: made, flags: u8::from(is_sampled) * SAMPLED, is_continued: false },
        }
    }

    /// The id as a header's value.
    pub fn header(&self) -> HeaderValue {
        match &self.id {
            RequestId::Made(id) => {
                let text = bytes::Bytes::copy_from_slice(&hex(id));
                HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""))
            }
            RequestId::Taken(id) => HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("")),
        }
    }

    /// The trace's id, as 32 digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }

    /// The id as text.
    pub fn id(&self) -> String {
        self.to_string()
    }

    /// Names a request that goes on to an origin: the same id, the same trace, and this host as its parent.
    pub fn write(&self, name: &HeaderName, headers: &mut HeaderMap) {
        headers.insert(name.clone(), self.header());
        // Zero is no id.
        let span = rand::random::<u64>().max(1);
        let parent = format!("00-{}-{span:016x}-{:02x}", self.trace_id(), self.flags);
        if let Ok(parent) = HeaderValue::from_str(&parent) {
            headers.insert(TRACEPARENT, parent);
        }
        if !self.is_continued {
            // It belongs to a trace that was not taken up.
            headers.remove(TRACESTATE);
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            RequestId::Made(id) => write!(out, "{:032x}", u128::from_be_bytes(*id)),
            RequestId::Taken(id) => out.write_str(id),
        }
    }
}

fn hex(bytes: &[u8; 16]) -> [u8; 32] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 0xf);
    }
    text
}

/// What can stand in a header, a log line and a JSON text as it is.
fn is_id(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.iter().all(is_plain)
}

/// The trace id and the flags of a `traceparent`. A later version may say more after what is known.
fn parse(text: &[u8]) -> Option<(u128, u8)> {
    let (known, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let mut parts = known.split(|byte| *byte == b'-');
    let mut part = |length: usize| {
        let part = parts.next().filter(|part| part.len() == length && part.iter().all(is_digit))?;
        u128::from_str_radix(std::str::from_utf8(part).ok()?, 16).ok()
    };
    let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_whole = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with(b"-") };
    (version != 0xff && trace != 0 && parent != 0 && is_whole).then(|| (trace, u8::try_from(flags).unwrap_or(0)))
}

/// Answers a request under its name; `None`: it has none. `look` sees the answer under the same name. Says who the actor was,
/// where somebody noted it.
pub async fn scope<F: Future>(
    tag: Option<Tag>,
    answering: F,
    look: impl FnOnce(&F::Output),
) -> (F::Output, Option<String>) {
    let current = Current { tag, actor: RefCell::new(None) };
    let noted = async move {
        let answered = answering.await;
        look(&answered);
        let actor = CURRENT.try_with(|current| current.actor.take()).ok().flatten();
        (answered, actor)
    };
    CURRENT.scope(current, noted).await
}

/// The same future, under the name of the request that it is made for: for a task of its own.
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let tag = CURRENT.try_with(|current| current.tag.clone()).ok().flatten();
    CURRENT.scope(Current { tag, actor: RefCell::new(None) }, future)
}

/// Notes who the actor of the request under way is.
pub fn note_actor(actor: impl FnOnce() -> String) {
    let _ = CURRENT.try_with(|current| *current.actor.borrow_mut() = Some(actor()));
}

/// Hands over the name of the request under way, where there is one.
pub(super) fn with_current<T>(read: impl FnOnce(&Tag) -> T) -> Option<T> {
    CURRENT.try_with(|current| current.tag.as_ref().map(read)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-request-id");
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn tag(pairs: &[(&'static str, &str)], is_trusted: bool) -> Tag {
        Tag::of(&headers(pairs), &NAME, is_trusted, true)
    }

    #[test]
    fn names_are_taken_from_who_is_trusted() {
        let pairs = [("x-request-id", "abc-1"), ("traceparent", PARENT)];
        let taken = tag(&pairs, true);
        assert_eq!((taken.id().as_str(), taken.header().as_bytes()), ("abc-1", &b"abc-1"[..]));
        assert_eq!((taken.trace_id().as_str(), taken.flags), ("0af7651916cd43dd8448eb211c80319c", 1));
        let made = tag(&pairs, false);
        assert!(made.id().len() == 32 && made.id() == made.trace_id() && made.header() == made.id().as_str());
        assert_ne!(made.id(), tag(&pairs, false).id());
        assert_ne!(tag(&pairs[1..], true).id(), taken.trace_id(), "a trace may have several requests");
    }

    #[test]
    fn a_hostile_id_is_replaced() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        for hostile in ["", "a b", "a\"b", "a\tb", "<script>", "a\u{e9}", "a,b", "a;b", "a\\b", "%0a", long.as_str()] {
            assert_eq!(tag(&[("x-request-id", hostile)], true).id().len(), 32, "{hostile}");
        }
        assert_eq!(tag(&[("x-request-id", &long[1..])], true).id(), long[1..]);
        assert_eq!(tag(&[("x-request-id", "a"), ("x-request-id", "b")], true).id().len(), 32);
    }

    #[test]
    fn a_wrong_traceparent_begins_a_new_trace() {
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cb7ad6b7169203331---01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        ] {
            assert!(!tag(&[("traceparent", wrong)], true).is_continued, "{wrong}");
        }
        assert!(tag(&[("traceparent", &PARENT.replacen("00", "cc", 1))], true).is_continued);
        assert!(tag(&[("traceparent", &format!("cc{}-more", &PARENT[2..]))], true).is_continued);
    }

    #[test]
    fn an_origin_hears_of_the_trace() {
        let sent = |is_trusted| {
            let mut headers = headers(&[("traceparent", PARENT), ("tracestate", "a=1"), ("x-request-id", "abc")]);
            Tag::of(&headers, &NAME, is_trusted, true).write(&NAME, &mut headers);
            headers
        };
        let continued = sent(true);
        let parent = continued["traceparent"].to_str().unwrap();
        assert!(parent.starts_with(&PARENT[..36]) && parent.ends_with("-01") && parent != PARENT, "{parent}");
        assert_eq!(
            (&continued["tracestate"], &continued["x-request-id"]),
            (&"a=1".parse().unwrap(), &"abc".parse().unwrap())
        );
        let begun = sent(false);
        assert!(parse(begun["traceparent"].as_bytes()).is_some() && !begun.contains_key("tracestate"));
        assert!(!begun["traceparent"].to_str().unwrap().contains(&PARENT[3..35]));
    }

    #[tokio::test]
    async fn a_name_lasts_as_long_as_its_request() {
        let tag = tag(&[], false);
        let seen = || with_current(Tag::id);
        assert_eq!(seen(), None);
        let answering = async {
            tokio::task::yield_now().await;
            let aside = tokio::spawn(carry(async move { with_current(Tag::id) })).await.unwrap();
            note_actor(|| "7".into());
            (seen(), aside, tokio::spawn(async move { with_current(Tag::id) }).await.unwrap())
        };
        let ((own, aside, other), actor) = scope(Some(tag.clone()), answering, |_| {}).await;
        assert_eq!((own, aside, other), (Some(tag.id()), Some(tag.id()), None));
        assert_eq!((actor.as_deref(), seen()), (Some("7"), None));
    }
}
