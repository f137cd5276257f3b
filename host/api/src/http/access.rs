//! The access log: one line for each request, when its answer has been sent.
//!
//! Everything a client sends is escaped, so that no line can be made to look like two. The log holds no query, token or
//! credential, and names the actor only if configured.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Version};

use super::reply::{CACHE_STATUS, WEIR_DURABILITY};
use weir_core::config::{AccessLogConfig, AccessLogFormat, ConfigError};
use weir_core::telemetry::lines::{Lines, Target};
use weir_core::telemetry::request::Tag;
use weir_listener::Reply;
use weir_listener::text::{push, push_json_string, push_timestamp};

/// Bytes of a line of usual length.
const LINE_BYTES: usize = 384;
/// Bytes of what a client sends that stand in a line; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1_024;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Where lines go, and how they look.
pub struct AccessLog {
    lines: Lines,
    is_json: bool,
    /// Lines say who the actor was.
    pub(super) names_actors: bool,
}

/// What a line says of a request.
pub(super) struct Entry {
    at_ms: u64,
    begun: Instant,
    client: IpAddr,
    method: Method,
    path: String,
    version: Version,
    kind: Option<String>,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
}

/// The same, and what it says of the answer.
struct Line {
    entry: Entry,
    tag: Option<Tag>,
    actor: Option<String>,
    status: u16,
    level: Option<HeaderValue>,
    cache: Option<HeaderValue>,
}

impl AccessLog {
    /// Opens the file; `None` where there are no lines.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(config: &AccessLogConfig) -> Result<Option<Arc<Self>>, ConfigError> {
        if config.format == AccessLogFormat::Off {
            return Ok(None);
        }
        let target = match config.to.as_str() {
            "stdout" => Target::Stdout,
            path => Target::File(path.into()),
        };
        let lines = Lines::open(target, config.queue_lines_max).map_err(|error| ConfigError::Value {
            field: "log.access.to".into(),
            reason: format!("{:?} cannot be opened: {error}; make its directory, or let weir write there", config.to),
        })?;
        let is_json = config.format == AccessLogFormat::Json;
        Ok(Some(Arc::new(Self { lines, is_json, names_actors: config.actor })))
    }

    /// Reopens the file after it was moved away (log rotation).
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// Writes what waits, and ends.
    pub fn close(&self) {
        self.lines.close();
    }

    /// Writes a line when the answer has been sent.
    pub(super) fn write(self: &Arc<Self>, entry: Entry, tag: Option<Tag>, actor: Option<String>, reply: &mut Reply) {
        let (headers, is_head) = (reply.headers(), entry.method == Method::HEAD);
        let line = Line {
            status: reply.status().as_u16(),
            level: headers.get(WEIR_DURABILITY).cloned(),
            cache: headers.get(CACHE_STATUS).cloned(),
            entry,
            tag,
            actor: actor.filter(|_| self.names_actors),
        };
        let log = Arc::clone(self);
        let tell = move |bytes| log.lines.push(if log.is_json { line.json(bytes) } else { line.combined(bytes) });
        match reply.body().size_hint().exact() {
            _ if is_head => tell(0),
            Some(bytes) if !reply.body().is_stream() => tell(bytes),
            _ => reply.body_mut().tell_when_sent(tell),
        }
    }
}

impl Entry {
    /// What is known of a request. `path` holds no secret.
    pub(super) fn new(
        request: &Request<Incoming>,
        path: String,
        kind: Option<String>,
        client: IpAddr,
        at_ms: u64,
        begun: Instant,
    ) -> Self {
        let header = |name| request.headers().get(name).cloned();
        Self {
            at_ms,
            begun,
            client,
            method: request.method().clone(),
            path,
            version: request.version(),
            kind,
            referer: header(header::REFERER),
            agent: header(header::USER_AGENT),
        }
    }
}

impl Line {
    fn json(&self, bytes: u64) -> Vec<u8> {
        let entry = &self.entry;
        let mut line = Vec::with_capacity(LINE_BYTES);
        line.extend_from_slice(b"{\"time\":\"");
        push_timestamp(&mut line, entry.at_ms);
        line.push(b'"');
        if let Some(tag) = &self.tag {
            push(&mut line, format_args!(",\"request\":\"{tag}\",\"trace\":\"{}\"", tag.trace_id()));
        }
        push(&mut line, format_args!(",\"client\":\"{}\"", entry.client));
        let mut text = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                push(&mut line, format_args!(",\"{name}\":"));
                push_json_string(&mut line, &plain(value.as_bytes()));
            }
        };
        text("actor", self.actor.as_deref());
        text("method", Some(entry.method.as_str()));
        text("path", Some(&entry.path));
        text("kind", entry.kind.as_deref());
        text("level", self.level.as_ref().and_then(|level| level.to_str().ok()));
        text("cache", self.cache.as_ref().and_then(|cache| cache.to_str().ok()));
        let duration_ms = entry.begun.elapsed().as_secs_f64() * 1_000.0;
        let status = self.status;
        push(&mut line, format_args!(",\"status\":{status},\"bytes\":{bytes},\"duration_ms\":{duration_ms:.3}}}\n"));
        line
    }

    fn combined(&self, bytes: u64) -> Vec<u8> {
        let entry = &self.entry;
        let mut line = Vec::with_capacity(LINE_BYTES);
        push(&mut line, format_args!("{} - ", entry.client));
        match &self.actor {
            Some(actor) => push_escaped(&mut line, actor.as_bytes(), true),
            None => line.push(b'-'),
        }
        line.extend_from_slice(b" [");
        push_day(&mut line, entry.at_ms);
        line.extend_from_slice(b"] \"");
        push_escaped(&mut line, entry.method.as_str().as_bytes(), true);
        line.push(b' ');
        push_escaped(&mut line, entry.path.as_bytes(), true);
        push(&mut line, format_args!(" {:?}\" {} {bytes}", entry.version, self.status));
        // The query of a page may hold what its user must keep.
        let referer = entry.referer.as_ref().map(HeaderValue::as_bytes);
        let referer = referer.and_then(|referer| referer.split(|byte| matches!(byte, b'?' | b'#')).next());
        for text in [referer, entry.agent.as_ref().map(HeaderValue::as_bytes)] {
            line.extend_from_slice(b" \"");
            push_escaped(&mut line, text.unwrap_or(b"-"), false);
            line.push(b'"');
        }
        match &self.tag {
            Some(tag) => push(&mut line, format_args!(" {tag}\n")),
            None => line.extend_from_slice(b" -\n"),
        }
        line
    }
}

/// Text of a client without what a terminal would obey: a control character is written as `\x1b`.
fn plain(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]);
    if !text.contains(char::is_control) {
        return text.into_owned();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character.is_control() {
            true => escaped.push_str(&format!("\\x{:02x}", u32::from(character))),
            false => escaped.push(character),
        }
    }
    escaped
}

/// As Apache and nginx escape: what is not printable ASCII, quotes and backslashes as `\x22`; `is_word`: spaces, too.
fn push_escaped(line: &mut Vec<u8>, text: &[u8], is_word: bool) {
    for byte in &text[..text.len().min(TEXT_BYTES_MAX)] {
        match byte {
            b'"' | b'\\' => push(line, format_args!("\\x{byte:02x}")),
            b' ' if is_word => line.extend_from_slice(b"\\x20"),
            b' '..=b'~' => line.push(*byte),
            _ => push(line, format_args!("\\x{byte:02x}")),
        }
    }
}

/// `30/Nov/2026:16:25:06 +0000`.
fn push_day(line: &mut Vec<u8>, at_ms: u64) {
    let mut text = Vec::with_capacity(24);
    push_timestamp(&mut text, at_ms);
    let text = String::from_utf8(text).unwrap_or_default();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let month = part(5, 7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&"Jan");
    push(line, format_args!("{}/{month}/{}:{} +0000", part(8, 10), part(0, 4), part(11, 19)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str, agent: &[u8]) -> Line {
        let entry = Entry {
            at_ms: 951_782_400_000,
            begun: Instant::now(),
            client: "192.0.2.7".parse().unwrap(),
            method: Method::POST,
            path: path.into(),
            version: Version::HTTP_11,
            kind: Some("feed-like".into()),
            referer: Some(HeaderValue::from_static("https://app.example/a?token=secret")),
            agent: Some(HeaderValue::from_bytes(agent).unwrap()),
        };
        let level = Some(HeaderValue::from_static("journaled"));
        Line { entry, tag: None, actor: Some("a \"b\"".into()), status: 200, level, cache: None }
    }

    #[test]
    fn a_combined_line_is_one_line_whatever_a_client_sends() {
        let text = String::from_utf8(line("/a\u{1b}[2J\"x\\y z\u{e9}", b"evil\" 200 \t\xff").combined(12)).unwrap();
        let expected = "192.0.2.7 - a\\x20\\x22b\\x22 [29/Feb/2000:00:00:00 +0000] \
                        \"POST /a\\x1b[2J\\x22x\\x5cy\\x20z\\xc3\\xa9 HTTP/1.1\" 200 12 \
                        \"https://app.example/a\" \"evil\\x22 200 \\x09\\xff\" -\n";
        assert_eq!(text, expected);
        let long = line(&"x".repeat(9_000), b"a").combined(0);
        assert!(long.len() < 2_000, "{}", long.len());
    }

    #[test]
    fn a_line_of_json_is_one_object() {
        let text = String::from_utf8(line("/a\u{1b}[2J\"x\\y\u{9b}1m", b"-").json(12)).unwrap();
        assert_eq!(
            (text.matches('\n').count(), text.contains(char::from(0x1b)), text.contains('\u{9b}')),
            (1, false, false)
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["path"], "/a\\x1b[2J\"x\\y\\x9b1m");
        assert_eq!((&value["time"], &value["level"]), (&"2000-02-29T00:00:00.000Z".into(), &"journaled".into()));
        assert_eq!((&value["status"], &value["bytes"], &value["kind"]), (&200.into(), &12.into(), &"feed-like".into()));
        assert!(value.get("cache").is_none() && !text.contains("secret"));
    }
}
