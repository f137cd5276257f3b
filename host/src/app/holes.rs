//! Holes of journals, for operators: whether there are any, what was lost, and the end of being not ready for them.

use std::time::Duration;

use super::App;
use super::operations::{Operator, of_sql};
use crate::admin::OperationsError;
use crate::capability::journal_hole;
use crate::operators::{Acknowledged, Check, JournalHoles};
use crate::sql::JournalHole;

/// Most holes in a list; the newest are kept.
const HOLES_MAX: usize = 1_000;
/// Time for SQL to list the open holes. After that, the answer uses what the flushers know.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

impl Operator {
    /// Holes of a kind or of all, newest first; those that were acknowledged, too.
    ///
    /// # Errors
    /// When SQL does not answer.
    pub async fn journal_holes(&self, kind: Option<&str>) -> Result<JournalHoles, OperationsError> {
        let holes = self.sql.journal_holes(kind, false, HOLES_MAX).await.map_err(of_sql)?;
        Ok(JournalHoles { holes: holes.into_iter().map(journal_hole).collect() })
    }

    /// Acknowledges the holes of a kind: they no longer keep the host from being ready.
    ///
    /// # Errors
    /// Unknown kind; when SQL does not answer.
    pub async fn acknowledge_holes(&self, kind: &str) -> Result<Acknowledged, OperationsError> {
        self.table(kind)?;
        let acknowledged = self.sql.acknowledge_holes(kind, self.clock.now_ms()).await.map_err(of_sql)?;
        tracing::warn!(kind, acknowledged, "an operator has acknowledged the holes in the journal");
        Ok(Acknowledged { acknowledged })
    }
}

/// One check for each kind with unacknowledged holes, or one passing check if there are none.
pub(super) async fn checks(app: &App) -> Vec<Check> {
    let asked = tokio::time::timeout(OPEN_TIMEOUT, app.sql.journal_holes(None, true, HOLES_MAX)).await;
    let recorded: Option<Vec<JournalHole>> = asked.ok().and_then(Result::ok);
    let mut checks = Vec::new();
    for status in app.flush_statuses() {
        // What SQL has not recorded yet, only the flusher knows.
        let of_flusher = status.holes.into_iter().filter(|hole| recorded.is_none() || hole.id == 0);
        let of_sql = recorded.iter().flatten().filter(|hole| hole.kind == status.kind).cloned();
        let open: Vec<JournalHole> = of_flusher.chain(of_sql).collect();
        let Some(newest) = open.first() else { continue };
        let lost: u64 = open.iter().map(JournalHole::lost).sum();
        let bound = if open.iter().all(|hole| hole.is_exact) { "" } else { "at most " };
        let detail = format!(
            "the journal has lost {bound}{lost} accepted changes before they were in SQL, in {} holes, such as: {newest}; see \
             `weir journal holes`, and run `weir journal acknowledge {}` when it is dealt with",
            open.len(),
            status.kind
        );
        checks.push(Check { name: format!("journal:{}", status.kind), ready: false, detail });
    }
    if checks.is_empty() {
        checks.push(Check { name: "journal".into(), ready: true, detail: "without holes".into() });
    }
    checks
}
