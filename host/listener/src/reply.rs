//! What answers carry: bytes that are there, or a stream of them that is made while it is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::turn::Handling;

/// How long the bytes sent before a cut have to drain: a body error ends the connection and drops what is still
/// buffered.
const CUT_DELAY: Duration = Duration::from_millis(100);

/// The answer ended early: the connection is aborted, so that the client does not take the answer for complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer ended early: {0}")]
pub struct CutShort(pub String);

/// A piece of a streamed answer.
pub type Piece = Result<Bytes, CutShort>;

/// Bytes that have other owners, too.
pub type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What the wire is given.
pub enum Chunk {
    /// Bytes.
    Own(Bytes),
    /// Somebody's, from a place on.
    Shared(Shared, usize),
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.chunk().len()
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(of, at) => (**of).as_ref().get(*at..).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Own(bytes) => bytes.advance(count),
            Self::Shared(_, at) => *at += count,
        }
    }
}

/// How much of a stream was sent, with the callback that gets the total at its end.
struct Sent {
    bytes: u64,
    tell: Option<Box<dyn FnOnce(u64) + Send>>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.bytes);
        }
    }
}

/// The body of an answer.
#[derive(Default)]
pub struct ReplyBody(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Whole(Bytes),
    Shared(Shared),
    Stream {
        pieces: Pin<Box<dyn Stream<Item = Piece> + Send>>,
        /// Its length, where it is known.
        bytes_left: Option<u64>,
        /// It is the handler's turn until all is sent.
        handling: Option<Handling>,
        /// Who wants to know how much was sent.
        sent: Option<Sent>,
    },
    /// About to be torn off.
    Cut {
        error: CutShort,
        delay: Pin<Box<tokio::time::Sleep>>,
    },
}

impl ReplyBody {
    /// Bytes that are there.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Whole(bytes) })
    }

    /// Bytes that are there and stay where they are.
    pub fn shared(bytes: Shared) -> Self {
        Self(if (*bytes).as_ref().is_empty() { Kind::Empty } else { Kind::Shared(bytes) })
    }

    /// Pieces that are made while they are sent; `length` where it is known beforehand.
    pub fn stream(pieces: impl Stream<Item = Piece> + Send + 'static, length: Option<u64>) -> Self {
        Self(Kind::Stream { pieces: Box::pin(pieces), bytes_left: length, handling: None, sent: None })
    }

    /// Streams pieces from a channel. The sender waits while the client does not take them.
    pub fn channel(pieces: mpsc::Receiver<Piece>) -> Self {
        let next = |mut pieces: mpsc::Receiver<Piece>| async move { pieces.recv().await.map(|piece| (piece, pieces)) };
        Self::stream(futures_util::stream::unfold(pieces, next), None)
    }

    /// The same with its length, where it is known after all.
    pub fn of_length(mut self, length: Option<u64>) -> Self {
        if let Kind::Stream { bytes_left, .. } = &mut self.0 {
            *bytes_left = length;
        }
        self
    }

    /// Whether it is made while it is sent.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Stream { .. })
    }

    /// Calls `tell` with the number of bytes sent when a stream ends, for any reason. Other bodies never call it.
    pub fn tell_when_sent(&mut self, tell: impl FnOnce(u64) + Send + 'static) {
        if let Kind::Stream { sent, .. } = &mut self.0 {
            *sent = Some(Sent { bytes: 0, tell: Some(Box::new(tell)) });
        }
    }

    /// Keeps the handler's turn until a stream has been sent; at once for all others.
    pub(super) fn hold(&mut self, mut turn: Handling) {
        if let Kind::Stream { handling, .. } = &mut self.0 {
            turn.go_on();
            *handling = Some(turn);
        }
    }
}

impl Body for ReplyBody {
    type Data = Chunk;
    type Error = CutShort;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, CutShort>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(_) | Kind::Shared(_) => {
                let chunk = match std::mem::take(&mut self.0) {
                    Kind::Whole(bytes) => Chunk::Own(bytes),
                    Kind::Shared(bytes) => Chunk::Shared(bytes, 0),
                    _ => return Poll::Ready(None),
                };
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Kind::Stream { pieces, bytes_left, sent, .. } => {
                let piece = ready!(pieces.as_mut().poll_next(context));
                match piece {
                    Some(Ok(bytes)) => {
                        if let Some(left) = bytes_left {
                            *left = left.saturating_sub(bytes.len() as u64);
                        }
                        if let Some(sent) = sent {
                            sent.bytes += bytes.len() as u64;
                        }
                        Poll::Ready(Some(Ok(Frame::data(Chunk::Own(bytes)))))
                    }
                    Some(Err(error)) => {
                        self.0 = Kind::Cut { error, delay: Box::pin(tokio::time::sleep(CUT_DELAY)) };
                        self.poll_frame(context)
                    }
                    None => {
                        self.0 = Kind::Empty;
                        Poll::Ready(None)
                    }
                }
            }
            Kind::Cut { error, delay } => {
                ready!(delay.as_mut().poll(context));
                let error = error.clone();
                self.0 = Kind::Empty;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Shared(bytes) => SizeHint::with_exact((**bytes).as_ref().len() as u64),
            Kind::Stream { bytes_left: Some(left), .. } => SizeHint::with_exact(*left),
            Kind::Stream { .. } | Kind::Cut { .. } => SizeHint::default(),
        }
    }
}
