//! The numbers of batches, and the mark of the synced ones. See `files/header`.

use std::path::Path;

use super::files::Log;
use super::files::batch_header::{BatchHeader, MarkFile};
use super::layout::{SPACES, Space};
use crate::StoreError;

/// The headers of an open store.
#[derive(Debug)]
pub(super) struct BatchHeaders {
    /// The last batch, with `last` as after it.
    newest: BatchHeader,
    mark: MarkFile,
    is_warned: bool,
}

impl BatchHeaders {
    /// `in_tables` is the newest header in the database: the log may be empty.
    pub(super) fn open(directory: &Path, log: Log, in_tables: Option<BatchHeader>) -> Result<Self, StoreError> {
        let of_log = log.header.filter(|header| in_tables.as_ref().is_none_or(|known| known.number <= header.number));
        let mut newest = of_log.or(in_tables).unwrap_or_else(|| BatchHeader { salt: salt(), ..BatchHeader::default() });
        newest.last.resize(SPACES, 0);
        // The database has synced everything that it found.
        newest.synced = newest.number;
        let mark = MarkFile::open(directory, &newest);
        let mark =
            mark.map_err(|error| StoreError::Refused(format!("disk: the mark of what has been synced: {error}")))?;
        Ok(Self { newest, mark, is_warned: false })
    }

    /// The header of the next batch; the database gives the batch no smaller number than `seqno`.
    pub(super) fn next(&self, seqno: u64) -> BatchHeader {
        BatchHeader { number: self.newest.number + 1, seqno_min: seqno, ..self.newest.clone() }
    }

    /// Records that the batch of `header` is written, and wrote to `touched`.
    pub(super) fn written(&mut self, header: BatchHeader, touched: &[Space], is_synced: bool) {
        self.newest = header;
        for space in [Space::System].iter().chain(touched) {
            self.newest.last[*space as usize] = self.newest.seqno_min;
        }
        if is_synced {
            self.newest.synced = self.newest.number;
            if let Err(error) = self.mark.write(&self.newest)
                && !std::mem::replace(&mut self.is_warned, true)
            {
                // Without the mark, damage at the very end of the log looks like a torn tail; all other damage is still noticed.
                tracing::warn!(%error, "the mark of what the embedded store has synced could not be written");
            }
        }
    }

    pub(super) fn sync(&self) {
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "the mark of what the embedded store has synced could not be brought to the disk");
        }
    }
}

/// A random number.
fn salt() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 ^ uuid::Uuid::new_v4().as_u64_pair().1
}
