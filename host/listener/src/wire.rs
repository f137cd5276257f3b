//! The byte stream between hyper and the socket: framing watched on the way in, hyper's own refusals made
//! `application/problem+json` on the way out, and a close that lets the peer read the last reply.
//!
//! Bytes after a framing doubt never reach hyper. Instead, hyper gets input that it must refuse itself: in a head, a
//! NUL and the end of the head; in a body, a failed read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::framing::{Doubt, Fault, Framing};
use super::interim::Moment;
use super::problem::{MALFORMED, Problem, TARGET_TOO_LONG, TOO_MANY_HEADERS};
use super::turn::Turn;
use super::{Handler, Limits};
use crate::telemetry::SHED_TOTAL;

/// How long input is discarded after a reply that closes the connection in the middle of a request. Closing at once
/// would reset the connection, and the peer could lose the reply.
const LINGER: Duration = Duration::from_secs(1);
/// Where the last reply in a buffer is looked for: a reply of hyper's own has no more bytes than this.
const OWN_REPLY_BYTES_MAX: usize = 256;
/// What to do about too many headers.
pub(super) const TOO_MANY_HEADERS_DETAIL: &str = "send fewer or shorter headers";
/// What hyper gets instead of the rest of a head. No part of a head may hold NUL, and hyper parses a head as soon as it
/// ends.
const SPOILT_END: &[u8] = b"\0\r\n\r\n";
/// Size of the buffer into which discarded input is read.
const DISCARD_BYTES: usize = 4096;

/// A stream of bytes that hyper reads from and writes to.
pub(super) struct Wire<S, H> {
    stream: S,
    handler: Arc<H>,
    framing: Framing,
    doubt: Option<Doubt>,
    /// What is left of it to be read.
    spoilt_end: &'static [u8],
    turn: Arc<Turn>,
    /// Whether the source of interim answers knows this connection's task.
    is_known: bool,
    /// Whether hyper has written everything it had.
    is_flushed: bool,
    /// What is written besides, and how much of it is.
    interim: Option<(Vec<u8>, usize)>,
    rewritten: Option<Rewritten>,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    closing: Option<Pin<Box<Sleep>>>,
}

/// What is written instead of a buffer that ends with one of hyper's own refusals.
struct Rewritten {
    bytes: Vec<u8>,
    written: usize,
    /// Length of the buffer that hyper gave.
    given: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Wire<S, H> {
    /// The wire reports to `turn` when a head has begun but not ended. `turn` also holds the interim answers.
    pub(super) fn new(stream: S, handler: Arc<H>, limits: &Limits, turn: Arc<Turn>) -> Self {
        Self {
            stream,
            handler,
            framing: Framing::new(limits.uri_bytes_max),
            doubt: None,
            spoilt_end: SPOILT_END,
            turn,
            is_known: false,
            is_flushed: true,
            interim: None,
            rewritten: None,
            write_timeout: limits.write_timeout,
            stalled: None,
            closing: None,
        }
    }

    /// What hyper reads instead of the bytes in doubt.
    fn read_spoilt(&mut self, doubt: Doubt, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        if !doubt.is_in_head || self.spoilt_end.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, doubt.fault));
        }
        let (now, later) = self.spoilt_end.split_at(self.spoilt_end.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.spoilt_end = later;
        Ok(())
    }

    /// Writes to the socket; fails when it takes nothing for too long.
    fn poll_progress(&mut self, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.write_timeout)));
        ready!(stalled.as_mut().poll(context));
        counter!(SHED_TOTAL, "limit" => "write_timeout").increment(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes an origin's interim answers, if they may be sent now.
    fn poll_interim(&mut self, context: &mut Context<'_>, moment: Moment) -> Poll<io::Result<()>> {
        if self.interim.is_none() {
            self.interim = self.turn.interims().take(moment).map(|bytes| (bytes, 0));
        }
        while let Some((bytes, written)) = self.interim.take() {
            if written == bytes.len() {
                break;
            }
            match self.poll_progress(context, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.interim = Some((bytes, written + count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.interim = Some((bytes, written));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_rewritten(&mut self, context: &mut Context<'_>, mut rewritten: Rewritten) -> Poll<io::Result<usize>> {
        while rewritten.written < rewritten.bytes.len() {
            match self.poll_progress(context, &rewritten.bytes[rewritten.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => rewritten.written += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.rewritten = Some(rewritten);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(rewritten.given))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> AsyncRead for Wire<S, H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_known {
            // A task keeps its waker for life.
            self.turn.interims().set_waker(context.waker());
            self.is_known = true;
        }
        if let Some(doubt) = self.doubt {
            return Poll::Ready(self.read_spoilt(doubt, buffer));
        }
        if self.framing.in_head() {
            // It may have begun while the request before was answered.
            self.turn.note_head(true);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let (passed, doubt) = self.framing.observe(&buffer.filled()[before..]);
        self.turn.note_head(self.framing.in_head());
        let Some(doubt) = doubt else { return Poll::Ready(Ok(())) };
        self.doubt = Some(doubt);
        buffer.set_filled(before + passed);
        // To hyper nothing at all would be the end of the connection.
        Poll::Ready(if passed == 0 { self.read_spoilt(doubt, buffer) } else { Ok(()) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> AsyncWrite for Wire<S, H> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(rewritten) = self.rewritten.take() {
            return self.poll_rewritten(context, rewritten);
        }
        let moment = if self.is_flushed { Moment::Before } else { Moment::Within };
        ready!(self.poll_interim(context, moment))?;
        self.is_flushed = false;
        let Some((start, status)) = own_refusal(buffer) else { return self.poll_progress(context, buffer) };
        let problem = refusal(status, self.doubt.map(|doubt| doubt.fault));
        self.handler.refused(problem.status());
        let mut bytes = buffer[..start].to_vec();
        bytes.extend_from_slice(&problem.last_words());
        self.poll_rewritten(context, Rewritten { bytes, written: 0, given: buffer.len() })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written all that it had.
        self.is_flushed = true;
        ready!(self.poll_interim(context, Moment::After))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if self.framing.at_rest() {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        let closing = this.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        while closing.as_mut().poll(context).is_pending() {
            let mut discarded = [0; DISCARD_BYTES];
            let mut buffer = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The peer has closed too, or the connection is broken: nothing is left to wait for.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Where a refusal that hyper made by itself begins in `buffer`, and its status. It is the last thing that hyper
/// writes on a connection, has no body and no type; every refusal of a [`Handler`] has both.
fn own_refusal(buffer: &[u8]) -> Option<(usize, u16)> {
    if !buffer.ends_with(b"\r\n\r\n") {
        return None;
    }
    let tail = buffer.len().saturating_sub(OWN_REPLY_BYTES_MAX);
    let start = tail + buffer[tail..].windows(7).rposition(|window| window == b"HTTP/1.")?;
    let reply = &buffer[start..];
    let status: u16 = std::str::from_utf8(reply.get(9..12)?).ok()?.parse().ok()?;
    let empty = reply.windows(19).any(|window| window.eq_ignore_ascii_case(b"content-length: 0\r\n"));
    (empty && matches!(status, 400 | 414 | 431)).then_some((start, status))
}

fn refusal(status: u16, fault: Option<Fault>) -> Problem {
    match (fault, status) {
        (Some(fault), _) if fault.status() == StatusCode::URI_TOO_LONG => {
            Problem::new(&TARGET_TOO_LONG, fault.detail())
        }
        (Some(fault), _) => Problem::new(&MALFORMED, fault.detail()),
        (None, 414) => Problem::new(&TARGET_TOO_LONG, Fault::Uri.detail()),
        (None, 431) => Problem::new(&TOO_MANY_HEADERS, TOO_MANY_HEADERS_DETAIL),
        (None, _) => Problem::new(&MALFORMED, "the request line or a header is not HTTP/1.1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replies_of_hypers_own_are_rewritten() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(own_refusal(own), Some((0, 431)));
        let mut after_another = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec();
        let start = after_another.len();
        after_another.extend_from_slice(own);
        assert_eq!(own_refusal(&after_another), Some((start, 431)));
        for others in [
            &b"HTTP/1.1 404 Not Found\r\ncontent-length: 90\r\n\r\n"[..],
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"\r\n\r\n",
            b"",
        ] {
            assert_eq!(own_refusal(others), None);
        }
    }
}
