//! Answers of reads, and why there is none.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use super::load::FromSql;
use weir_cache::{CacheStatus, Entry, Forwarded};
use weir_core::error::Refusal;
use weir_listener::reply;

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// SQL does not answer, or too many requests wait.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The statement does not work.
    #[error("the read cannot be done: {0}")]
    Invalid(String),
    /// The result is larger than its limit.
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
    /// The request sent no query to SQL, or may not have sent one.
    fn from(error: E) -> Self {
        Self { error: error.into(), status: CacheStatus::unanswered(None) }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct ReadReply {
    pub(super) answer: Answer,
    /// Its age, in seconds.
    pub age_s: u64,
    /// What the cache did.
    pub status: CacheStatus,
    /// The reason that a rule gave, where it did.
    pub reason: Option<String>,
    /// No cache may store it.
    pub live: bool,
}

/// Where an answer is. All replies share a cached one. Each reference count is a cache line that all cores contend for, so an
/// answer has one only.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Cached(Arc<Entry<Body>>),
    Own(FromSql),
}

impl ReadReply {
    /// The JSON of the answer.
    pub fn into_json(self) -> reply::Shared {
        match self.answer {
            Answer::Cached(entry) => entry,
            Answer::Own(read) => Arc::new(read.json),
        }
    }

    /// Its entity tag, quotes included.
    pub fn etag(&self) -> &str {
        match &self.answer {
            Answer::Cached(entry) => &entry.value.etag,
            Answer::Own(read) => &read.etag,
        }
    }
}

/// A cached answer of a read.
#[derive(Debug)]
pub(crate) struct Body {
    pub(super) json: Bytes,
    pub(super) etag: Box<str>,
    /// Identifies this load among those of all hosts.
    pub(super) id: u64,
    pub(super) read_ms: u64,
    /// When it was last served, in milliseconds; recorded only for reads that are refreshed on time.
    pub(super) used_ms: AtomicU64,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}
