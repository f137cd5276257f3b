//! Answers of reads, and why there is none.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use super::load::FromSql;
use crate::cache::{CacheStatus, Entry, Forwarded};
use crate::error::Refusal;
use crate::listener::reply;

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// SQL is away, or too many wait.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The statement does not work.
    #[error("the read cannot be done: {0}")]
    Invalid(String),
    /// It finds more than it may.
    #[error("the read finds more than {limit} = {max}")]
    TooLarge {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
}

/// A read without an answer, and what the cache did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ReadFailure {
    /// Why.
    pub error: ReadError,
    pub(super) status: CacheStatus,
}

impl ReadFailure {
    pub(super) fn after(error: impl Into<ReadError>, why: Forwarded) -> Self {
        Self { error: error.into(), status: CacheStatus::unanswered(Some(why)) }
    }

    /// `Cache-Status`, with this reason.
    pub fn cache_status(&self, detail: &'static str) -> String {
        self.status.because(detail).text()
    }
}

impl<E: Into<ReadError>> From<E> for ReadFailure {
    /// SQL was not asked, or it is not known whether.
    fn from(error: E) -> Self {
        Self { error: error.into(), status: CacheStatus::unanswered(None) }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct ReadReply {
    pub(super) answer: Answer,
    /// How old it is, in seconds.
    pub age_s: u64,
    /// What the cache did.
    pub status: CacheStatus,
    /// The reason in words that a rule chose, where it did.
    pub reason: Option<String>,
    /// It must not be kept by anybody.
    pub live: bool,
}

/// Where an answer stands. One that is kept is shared by all who are told it: each count of its owners that is moved
/// is a cache line that all cores fight for, so there is one.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Kept(Arc<Entry<Body>>),
    Own(FromSql),
}

impl ReadReply {
    /// JSON: what is left of an answer when its head is written.
    pub fn into_json(self) -> reply::Shared {
        match self.answer {
            Answer::Kept(entry) => entry,
            Answer::Own(read) => Arc::new(read.json),
        }
    }

    /// Its entity tag, quotes included.
    pub fn etag(&self) -> &str {
        match &self.answer {
            Answer::Kept(entry) => &entry.value.etag,
            Answer::Own(read) => &read.etag,
        }
    }
}

/// What is kept of a read.
#[derive(Debug)]
pub(crate) struct Body {
    pub(super) json: Bytes,
    pub(super) etag: Box<str>,
    /// Tells this reading from all others, also of other hosts.
    pub(super) id: u64,
    pub(super) read_ms: u64,
    /// When it was last asked for, as Unix time; kept only for reads that are read anew on time.
    pub(super) used_ms: AtomicU64,
}

impl AsRef<[u8]> for Entry<Body> {
    fn as_ref(&self) -> &[u8] {
        &self.value.json
    }
}
