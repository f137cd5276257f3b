//! The statements on weir's own tables, as they cross.

use super::{
    DEAD_COUNTS, DEAD_LETTERS, DEAD_RENAME, HAS_TABLE, HOLE_PASS, HOLE_RECORD, HOLES, HOLES_ACKNOWLEDGE, JOURNAL_SET,
    JOURNALS, META_READ, META_RECORD, PING,
};
use crate::mysql::CHUNK;
use crate::mysql::wire::Template;
use crate::own::OwnStatements;

/// Parameters in the order in which the texts have places for them.
pub(in crate::mysql) fn own() -> OwnStatements<Template> {
    let once = |text: &'static str, places: &[usize]| Template::whole().once(text, places);
    let in_order = |text, count| once(text, &(0..count).collect::<Vec<usize>>());
    OwnStatements {
        ping: in_order(PING, 0),
        has_table: in_order(HAS_TABLE, 1),
        meta_read: in_order(META_READ, 1),
        meta_record: in_order(META_RECORD, 2),
        journals: in_order(JOURNALS, 0),
        journal_set: once(JOURNAL_SET, &[0, 1, 2, 3, 1, 2, 3]),
        dead_letters: once(DEAD_LETTERS, &[0, 0, 1, 2]),
        dead_newest: newest(),
        dead_counts: in_order(DEAD_COUNTS, 0),
        dead_drop: Template::padded(CHUNK).text("DELETE FROM weir_dead_letter WHERE id IN (").list().text(")"),
        dead_rename: once(DEAD_RENAME, &[1, 0]),
        dead_write: write(),
        hole_pass: once(HOLE_PASS, &[5, 6, 7, 0, 1, 2, 3, 4]),
        hole_record: in_order(HOLE_RECORD, 11),
        holes: once(HOLES, &[0, 0, 1, 2]),
        holes_acknowledge: once(HOLES_ACKNOWLEDGE, &[1, 0]),
    }
}

/// Targets that differ in trailing spaces are equal to this engine, but not here.
fn newest() -> Template {
    Template::padded(CHUNK)
        .once(
            "SELECT l.id, l.kind, CAST(l.`partition` AS SIGNED), l.target, l.actor, l.action, l.at_ms, l.incarnation,
         l.`position`, l.digest, l.reason, l.dead_at_ms, l.body FROM weir_dead_letter AS l
         JOIN (SELECT MAX(id) AS id FROM weir_dead_letter WHERE kind = ? AND action = ? AND target IN (",
            [0, 1],
        )
        .each("?", ", ", [2])
        .text(
            ")
               GROUP BY CAST(target AS BINARY)) AS n ON n.id = l.id",
        )
}

fn write() -> Template {
    Template::exact(CHUNK)
        .text(
            "INSERT INTO weir_dead_letter
         (kind, `partition`, target, actor, action, at_ms, incarnation, `position`, digest, reason, dead_at_ms, body)
         VALUES ",
        )
        .each("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ", ", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 10])
}
