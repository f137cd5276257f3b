//! Where one request ends and the next begins, watched from outside of hyper.
//!
//! hyper is lenient where leniency is how requests are smuggled past a proxy: it takes a bare LF as the end of a line,
//! folds equal `Content-Length`s into one, and drops a `Content-Length` beside `Transfer-Encoding`. A service cannot
//! see any of that afterwards. So [`Framing`] follows the bytes as they arrive, and on the first doubt says how many of
//! them are beyond it. [`super::wire`] gives hyper these and nothing that comes after, so that a connection whose place
//! is lost is over: what is refused does not depend on what hyper would make of it.

use hyper::StatusCode;

/// Longest prefix of a line that is looked at: enough for `transfer-encoding:` and `content-length:` with their values.
const PREFIX_BYTES: usize = 64;
/// What a request line holds besides its target: a method and the version.
const REQUEST_LINE_SLACK_BYTES: usize = 64;
/// Longest line that gives the size of a chunk, with extensions, which are ignored.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Digits of the largest size of a chunk.
const CHUNK_SIZE_DIGITS_MAX: usize = 15;

/// Why the end of a request is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.detail())]
pub(super) enum Fault {
    /// A line ends without CR, or goes on in the next one.
    Line,
    /// More than one length, or one that is not a plain number.
    Length,
    /// A transfer coding other than one `chunked`.
    Coding,
    /// A broken chunk.
    Chunk,
    /// The request target is too long.
    Uri,
}

impl Fault {
    /// The status that it is refused with.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Uri => StatusCode::URI_TOO_LONG,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What the sender has to change.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Line => "every line of a request's head must end with CR LF, and a header is one line",
            Self::Length => "send Content-Length at most once, as a plain number, and never beside Transfer-Encoding",
            Self::Coding => "send Transfer-Encoding at most once, and only as \"chunked\"",
            Self::Chunk => "a chunk is its size in hexadecimal, CR LF, its bytes, CR LF",
            Self::Uri => "send a shorter request target",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request line; empty lines are skipped, as hyper does.
    Start,
    Header,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    /// After a fault: nothing passes any more.
    Lost(Doubt),
}

/// The end of what can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Why.
    pub(super) fault: Fault,
    /// It lies in a head, which hyper refuses by itself; otherwise in a body, which its reader refuses.
    pub(super) is_in_head: bool,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    prefix: [u8; PREFIX_BYTES],
    line_bytes: usize,
    last: u8,
    length: Option<u64>,
    chunked: bool,
    uri_bytes_max: usize,
}

impl Framing {
    pub(super) fn new(uri_bytes_max: usize) -> Self {
        Self {
            state: State::Start,
            prefix: [0; PREFIX_BYTES],
            line_bytes: 0,
            last: 0,
            length: None,
            chunked: false,
            uri_bytes_max,
        }
    }

    /// Whether everything received belongs to whole requests.
    pub(super) fn at_rest(&self) -> bool {
        self.state == State::Start && self.line_bytes == 0
    }

    /// Whether a head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.state == State::Header || (self.state == State::Start && self.line_bytes > 0)
    }

    /// Follows `bytes`: how many of them may be handed on, and the doubt that the others are in. After a doubt none may.
    pub(super) fn observe(&mut self, bytes: &[u8]) -> (usize, Option<Doubt>) {
        let mut at = 0;
        while at < bytes.len() {
            let here = bytes.len() - at;
            match &mut self.state {
                State::Lost(doubt) => return (at, Some(*doubt)),
                State::Body(left) | State::ChunkData(left) => {
                    let taken = here.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.state = if self.chunked { State::ChunkEnd } else { State::Start };
                        self.begin_line();
                        if self.state == State::Start {
                            self.begin_request();
                        }
                    }
                }
                _ => {
                    let is_in_head = matches!(self.state, State::Start | State::Header);
                    let (taken, fault) = self.observe_line(&bytes[at..]);
                    at += taken;
                    if let Some(fault) = fault {
                        // The last of them completes what is in doubt.
                        at -= 1;
                        self.state = State::Lost(Doubt { fault, is_in_head });
                    }
                }
            }
        }
        (at, None)
    }

    /// Follows the rest of a line; returns how many bytes belong to it, at least one. With a fault, the last of them is
    /// the first that must not pass.
    fn observe_line(&mut self, bytes: &[u8]) -> (usize, Option<Fault>) {
        let end = memchr::memchr(b'\n', bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        if self.line_bytes < PREFIX_BYTES {
            let kept = piece.len().min(PREFIX_BYTES - self.line_bytes);
            self.prefix[self.line_bytes..self.line_bytes + kept].copy_from_slice(&piece[..kept]);
        }
        self.line_bytes += piece.len();
        if let Some(last) = piece.last() {
            self.last = *last;
        }
        if let Some((bytes_max, fault)) = self.longest_line()
            && self.line_bytes > bytes_max
        {
            // Up to the first byte that is too many, wherever this piece ends.
            return (piece.len() - (self.line_bytes - bytes_max) + 1, Some(fault));
        }
        if end.is_none() {
            return (piece.len(), None);
        }
        let fault = if self.last == b'\r' { self.end_line().err() } else { Some(Fault::Line) };
        (piece.len() + 1, fault)
    }

    /// Most bytes of a line like this, without its LF, and what it means when there are more.
    fn longest_line(&self) -> Option<(usize, Fault)> {
        match self.state {
            State::Start => Some((self.uri_bytes_max + REQUEST_LINE_SLACK_BYTES, Fault::Uri)),
            State::ChunkSize | State::ChunkEnd => Some((CHUNK_LINE_BYTES_MAX, Fault::Chunk)),
            _ => None,
        }
    }

    fn end_line(&mut self) -> Result<(), Fault> {
        // Without its CR.
        let line_bytes = self.line_bytes - 1;
        let prefix = self.prefix;
        let line = &prefix[..line_bytes.min(PREFIX_BYTES)];
        self.begin_line();
        self.state = match (self.state, line_bytes) {
            (State::Start, 0) => State::Start,
            (State::Start, _) => State::Header,
            (State::Header, 0) => self.end_head()?,
            (State::Header, _) => {
                self.header(line, line_bytes)?;
                State::Header
            }
            (State::ChunkSize, _) => match chunk_size(line)? {
                0 => State::Trailer,
                size => State::ChunkData(size),
            },
            (State::ChunkEnd, 0) => State::ChunkSize,
            (State::ChunkEnd, _) => return Err(Fault::Chunk),
            (State::Trailer, 0) => {
                self.begin_request();
                State::Start
            }
            (other, _) => other,
        };
        Ok(())
    }

    fn begin_line(&mut self) {
        self.line_bytes = 0;
        self.last = 0;
    }

    fn begin_request(&mut self) {
        self.length = None;
        self.chunked = false;
    }

    fn end_head(&mut self) -> Result<State, Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Fault::Length),
            (true, None) => Ok(State::ChunkSize),
            (false, Some(length)) if length > 0 => Ok(State::Body(length)),
            (false, _) => {
                self.begin_request();
                Ok(State::Start)
            }
        }
    }

    fn header(&mut self, line: &[u8], line_bytes: usize) -> Result<(), Fault> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Fault::Line);
        }
        // A name that does not fit the prefix is none of ours.
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Ok(()) };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() || line_bytes > PREFIX_BYTES {
                return Err(Fault::Length);
            }
            self.length = Some(plain_number(value).ok_or(Fault::Length)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || line_bytes > PREFIX_BYTES || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Coding);
            }
            self.chunked = true;
        }
        Ok(())
    }
}

fn plain_number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !plain {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let plain = (1..=CHUNK_SIZE_DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    if !plain {
        return Err(Fault::Chunk);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Fault::Chunk)?;
    u64::from_str_radix(text, 16).map_err(|_| Fault::Chunk)
}

mod property;

#[cfg(test)]
mod tests {
    use super::*;

    const URI_BYTES_MAX: usize = 100;

    /// Follows `text` whole and in pieces of every size up to 7: the verdict, and how much passes, must not depend on it.
    /// After a doubt nothing passes, whatever comes.
    fn fault(text: &str) -> Option<Fault> {
        let verdict = |piece: usize| {
            let mut framing = Framing::new(URI_BYTES_MAX);
            let (mut passed, mut doubt) = (0, None);
            for chunk in text.as_bytes().chunks(piece) {
                let (here, found) = framing.observe(chunk);
                assert!(doubt.is_none() || (here, found) == (0, doubt), "{text:?} passes after a doubt");
                passed += here;
                doubt = doubt.or(found);
            }
            assert_eq!(passed < text.len(), doubt.is_some(), "{text:?}");
            assert!(doubt.is_none() || framing.observe(b"GET / HTTP/1.1\r\n\r\n") == (0, doubt), "{text:?}");
            (doubt, passed, framing.at_rest())
        };
        let whole = verdict(text.len());
        for piece in 1..=7 {
            assert_eq!(verdict(piece), whole, "{text:?} in pieces of {piece}");
        }
        assert!(whole.0.is_some() || whole.2, "{text:?} is neither whole nor refused");
        whole.0.map(|doubt| doubt.fault)
    }

    #[test]
    fn well_framed_requests_pass_untouched() {
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\n\n\n\n\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        ] {
            assert_eq!(fault(good), None, "{good:?}");
        }
    }

    #[test]
    fn doubts_are_refused() {
        for (bad, expected) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::Line),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::Line),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::Line),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Line),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Fault::Line),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", Fault::Length),
            ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx", Fault::Length),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", Fault::Length),
            ("POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Coding),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::Coding),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Fault::Coding),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\n", Fault::Chunk),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n", Fault::Chunk),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n", Fault::Line),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n", Fault::Line),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n", Fault::Line),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: a\nU: b\r\n\r\n", Fault::Line),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n\r\n", Fault::Line),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", Fault::Chunk),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", Fault::Chunk),
        ] {
            assert_eq!(fault(bad), Some(expected), "{bad:?}");
        }
    }

    #[test]
    fn the_second_request_is_watched_like_the_first() {
        let first = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(fault(&format!("{first}GET / HTTP/1.1\nHost: a\r\n\r\n")), Some(Fault::Line));
    }

    #[test]
    fn a_long_target_is_named_as_such() {
        let long = "x".repeat(URI_BYTES_MAX + REQUEST_LINE_SLACK_BYTES);
        assert_eq!(fault(&format!("GET /{long} HTTP/1.1\r\n\r\n")), Some(Fault::Uri));
        assert_eq!(Fault::Uri.status(), StatusCode::URI_TOO_LONG);
    }

    #[test]
    fn a_line_that_is_too_long_for_a_chunk_size_is_refused() {
        let long = "x".repeat(CHUNK_LINE_BYTES_MAX);
        let text = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{long}\r\n");
        assert_eq!(fault(&text), Some(Fault::Chunk));
    }
}
