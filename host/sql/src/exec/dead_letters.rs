//! Dead letters: written in the transaction of the flush that found them.

use super::flush::{Dead, FlushTransaction};
use crate::Row;
use crate::dead_letters::{action, actor, body};
use crate::documents::BYTES_PER_INSERT;
use crate::engine::Engine;
use crate::rows::{parts_of, signed};
use crate::wire::{Batch, Statement as _};

impl<E: Engine> FlushTransaction<'_, E> {
    /// Writes dead letters.
    pub(super) async fn write_dead_letters(
        &mut self,
        kind: &str,
        dead: &[Dead<'_>],
        now_ms: u64,
    ) -> Result<(), sqlx::Error> {
        let write = &E::own().dead_write;
        // One document may be as large as many other rows.
        let bytes_max = if E::SPLITS_DEAD_LETTERS { BYTES_PER_INSERT } else { usize::MAX };
        for part in parts_of(dead, usize::MAX, bytes_max, bytes) {
            for piece in write.parts(part) {
                self.execute(write, &batch::<E>(kind, piece, now_ms)).await?;
            }
        }
        Ok(())
    }
}

fn bytes(dead: &Dead<'_>) -> usize {
    if let Row::Document(document) = dead.row { document.body.len() } else { 0 }
}

fn batch<'a, E: Engine>(kind: &'a str, dead: &'a [Dead<'_>], now_ms: u64) -> Batch<'a> {
    let life = |dead: &Dead<'_>| dead.incarnation.map(|life| life.to_string()).unwrap_or_default();
    // JSON escapes a NUL; what is no JSON may hold one, and must not stop the flush.
    let body =
        |dead: &Dead<'_>| body(dead.row).map(|body| if E::STORES_NUL { body } else { body.replace('\0', "\u{fffd}") });
    Batch::new()
        .text(kind)
        .partitions(dead.iter().map(|dead| dead.row.partition()))
        .texts(dead.iter().map(|dead| dead.row.target().to_string()))
        .texts(dead.iter().map(|dead| actor(dead.row)))
        .texts(dead.iter().map(|dead| action(dead.row)))
        .integers(dead.iter().map(|dead| signed(dead.row.at_ms())))
        .texts(dead.iter().map(life))
        .integers(dead.iter().map(|dead| signed(dead.row.position())))
        .texts(dead.iter().map(|dead| dead.row.digest().to_string()))
        .texts(dead.iter().map(|dead| dead.reason))
        .optional_texts(dead.iter().map(body))
        .integer(signed(now_ms))
}
