//! Streamed look-ups: members come line by line, answers go line by line, and memory holds one part of them at a time.
//!
//! ```text
//! → {"topic":"social"}        ← {"enabled":[1,3]}            one line for each part
//! → 1                         ← {"enabled":[5],"errors":[…]}  what is no member is named, and the rest goes on
//! → [2,3]                     ← {"members":300000,"enabled":…,"errors":0}   the last line
//! ```
//! An answer without the last line is not whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use metrics::counter;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::lookup_request::{self, LookupRequest, Named};
use super::{Answer, NDJSON, answer, known_topic};
use crate::http::problem::{INVALID_BODY, Repeatable, from_refusal};
use weir_core::telemetry::SHED_TOTAL;
use weir_listener::Reply;
use weir_listener::body::broken;
use weir_listener::problem::{BODY_TIMEOUT, Problem};
use weir_listener::reply::{CutShort, Piece, ReplyBody};
use weir_write::preference::{PreferenceKind, Topic};

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How long a part that is not full waits for more members.
const PART_WAIT: Duration = Duration::from_millis(50);
/// Parts of the answer that wait for the client to take them.
const PIECES_WAITING: usize = 2;
/// A client that takes nothing of the answer for so long has gone, or means to stay.
const TAKE_TIMEOUT: Duration = weir_listener::WRITE_TIMEOUT;

/// Reads the first line, and answers the rest while it comes.
///
/// # Errors
/// What is wrong with the first line; too many streams.
pub(super) async fn begin(kind: &Arc<PreferenceKind>, body: Incoming, timeout: Duration) -> Result<Reply, Problem> {
    let turn = kind.begin_stream().map_err(|refusal| from_refusal(&refusal, Repeatable::Yes).close())?;
    let mut lines = Lines { body, buffer: BytesMut::new(), ended: false, timeout };
    let first = lines.next().await?;
    let first = first.ok_or_else(|| Problem::new(&INVALID_BODY, "the first line must be {\"topic\":\"…\"}"))?;
    let LookupRequest { topic, members } =
        lookup_request::read_topic(&first, kind.config().table.member_type).map_err(Problem::close)?;
    let topic = known_topic(kind, &topic).await.map_err(Problem::close)?;
    let (pieces, taken) = mpsc::channel(PIECES_WAITING);
    let stream = Stream { kind: Arc::clone(kind), topic, lines, pieces, _turn: turn };
    tokio::spawn(weir_core::telemetry::request::carry(stream.run(members)));
    let mut response = Response::new(ReplyBody::channel(taken));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Stream {
    kind: Arc<PreferenceKind>,
    topic: Topic,
    lines: Lines,
    pieces: mpsc::Sender<Piece>,
    _turn: OwnedSemaphorePermit,
}

impl Stream {
    async fn run(mut self, mut members: Vec<Named>) {
        let config = self.kind.config();
        let (part, id_type) = (config.chunk_members * config.chunks_in_flight, config.table.member_type);
        let (mut total, mut enabled, mut errors) = (0, 0, 0);
        loop {
            let ended = loop {
                if members.len() >= part {
                    break false;
                }
                let read = match members.is_empty() {
                    true => self.lines.next().await,
                    // What has come is not kept from the client while the next one is awaited.
                    false => match tokio::time::timeout(PART_WAIT, self.lines.next()).await {
                        Ok(read) => read,
                        Err(_) => break false,
                    },
                };
                match read {
                    Ok(Some(line)) => lookup_request::read_line(&line, id_type, &mut members),
                    Ok(None) => break true,
                    Err(problem) => return self.fail(&problem).await,
                }
            };
            total += members.len();
            if !members.is_empty() {
                match answer(&self.kind, &self.topic, std::mem::take(&mut members)).await {
                    Ok(Answer { mut body, enabled: some, errors: failed }) => {
                        enabled += some;
                        errors += failed;
                        body.extend_from_slice(b"}\n");
                        if !self.send(Ok(body.into())).await {
                            return;
                        }
                    }
                    Err(problem) => return self.fail(&problem).await,
                }
            }
            if ended {
                let last = json!({ "members": total, "enabled": enabled, "errors": errors });
                self.send(Ok(format!("{last}\n").into())).await;
                return;
            }
        }
    }

    /// Sends the reason and cuts the answer short, so that the client does not take it for complete.
    async fn fail(&self, problem: &Problem) {
        let (name, detail) = problem.named();
        let line = json!({ "type": name, "detail": detail });
        if self.send(Ok(format!("{line}\n").into())).await {
            self.send(Err(CutShort(name))).await;
        }
    }

    /// Whether the client is still there.
    async fn send(&self, piece: Piece) -> bool {
        let sent = tokio::time::timeout(TAKE_TIMEOUT, self.pieces.send(piece)).await;
        matches!(sent, Ok(Ok(())))
    }
}

/// The lines of a body, as they come.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
    /// Time without progress.
    timeout: Duration,
}

impl Lines {
    /// The next line that is not empty, without its end; `None` at the end of the body. May be dropped while it waits:
    /// nothing that was read is lost.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + end + 1).freeze();
                searched = 0;
                let line = line.slice_ref(line.trim_ascii());
                if !line.is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.ended {
                let line = self.buffer.split().freeze();
                let line = line.slice_ref(line.trim_ascii());
                return Ok((!line.is_empty()).then_some(line));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Problem::new(&INVALID_BODY, format!("a line may have {LINE_BYTES_MAX} bytes")).close());
            }
            searched = self.buffer.len();
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Problem> {
        let Ok(frame) = tokio::time::timeout(self.timeout, self.body.frame()).await else {
            counter!(SHED_TOTAL, "limit" => "body_timeout_ms").increment(1);
            let detail = format!("send more of the body within {} ms", self.timeout.as_millis());
            return Err(Problem::new(&BODY_TIMEOUT, detail).close());
        };
        match frame {
            None => self.ended = true,
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
        Ok(())
    }
}
