//! Statements of checkpoints, and of what was set aside.

use std::sync::LazyLock;

use crate::exec::checkpoints::CheckpointStatements;
use crate::mysql::wire::Template;

/// Checkpoints are never split: one flush moves as many as it has.
const ALL: usize = usize::MAX;

/// The statements. Parameters: kind, partitions, incarnations, epochs, from, to.
pub(in crate::mysql) static STATEMENTS: LazyLock<CheckpointStatements<Template>> =
    LazyLock::new(|| CheckpointStatements {
        read: read().text(") ORDER BY `partition`"),
        lock: read().text(") ORDER BY `partition` FOR UPDATE"),
        locks_before_fence: false,
        // This driver counts the rows that the condition found, which is what a compare-and-set needs.
        fence: Template::padded(ALL)
            .text("UPDATE weir_checkpoint SET `position` = CASE `partition`")
            .each(" WHEN ? THEN ?", "", [1, 5])
            .once(" ELSE `position` END\n         WHERE kind = ? AND `partition` IN (", [0])
            .each("?", ", ", [1])
            .text(") AND (`partition`, incarnation, epoch, `position`) IN (")
            .each("(?, ?, ?, ?)", ", ", [1, 2, 3, 4])
            .text(")\n         ORDER BY `partition`"),
        create: Template::whole()
            .text("INSERT INTO weir_checkpoint (kind, `partition`, incarnation, epoch, `position`) VALUES ")
            .each("(?, ?, ?, 0, 0)", ", ", [0, 1, 2])
            .text("\n         ON DUPLICATE KEY UPDATE kind = kind"),
        set: Template::exact(1).once(
            "UPDATE weir_checkpoint SET incarnation = ?, epoch = ?, `position` = ? WHERE kind = ? AND `partition` = ?",
            [2, 3, 4, 0, 1],
        ),
        place: Template::whole()
            .once("UPDATE weir_checkpoint SET `position` = ? WHERE kind = ? AND `partition` = ?", [2, 0, 1]),
        asides: Template::whole().once(
            "SELECT CAST(`partition` AS SIGNED), `position`, ahead, incarnation, targets
    FROM weir_aside WHERE kind = ? ORDER BY `partition`",
            [0],
        ),
        aside_drop: Template::whole().once("DELETE FROM weir_aside WHERE kind = ? AND `partition` = ?", [0, 1]),
        aside_set: Template::whole().once(
            "INSERT INTO weir_aside (kind, `partition`, incarnation, `position`, ahead, targets)
    VALUES (?, ?, ?, ?, ?, ?)",
            [0, 1, 2, 3, 4, 5],
        ),
    });

fn read() -> Template {
    Template::padded(ALL)
        .once(
            "SELECT CAST(`partition` AS SIGNED), incarnation, epoch, `position` FROM weir_checkpoint
         WHERE kind = ? AND `partition` IN (",
            [0],
        )
        .each("?", ", ", [1])
}
