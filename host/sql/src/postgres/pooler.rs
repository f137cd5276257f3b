//! Whether a pooler is in between that hands a session's transactions to one server process now and to another then, and
//! whether it follows prepared statements there.
//!
//! Of such a pooler weir uses nothing that outlives a transaction but prepared statements, by name. One that follows them gives
//! them names of its own; one that does not would find under the driver's name what another session has prepared.

use std::collections::BTreeSet;

use sqlx::Row as _;

use super::{PostgresSql, statements};
use crate::engine::Backend as _;
use crate::finding::{Finding, Problem, Remedy, refuse};
use crate::lease::{leased, within};
use crate::{SqlError, classify::sql_error};
use weir_core::config::Pooler;

/// How often two sessions are asked for their processes.
const ROUNDS: usize = 4;
/// What the server says of a prepared statement that is there already, or not at all.
const MIXED_UP: [&str; 2] = ["42P05", "26000"];
/// With this the driver's own names of prepared statements begin.
const OWN_NAME: &str = "sqlx_";

impl PostgresSql {
    /// What is wrong between weir and the server.
    pub(super) async fn check_pooler(&self) -> Result<Option<Finding>, SqlError> {
        let shares = self.shares_processes().await?;
        Ok(match (self.settings.pooler, shares) {
            (Pooler::None, true) => Some(refuse(
                Problem::SessionSettings,
                "a pooler hands transactions of one session to several server processes: what sessions set is lost or another's"
                    .into(),
                Remedy::text("write pooler = \"transaction\" in [sql], or let it pool sessions"),
            )),
            (Pooler::Transaction, true) if !self.follows_statements().await? => Some(refuse(
                Problem::SessionSettings,
                "the pooler does not follow prepared statements: one session would run what another has prepared".into(),
                Remedy::text("PgBouncer 1.21 or later with max_prepared_statements = 200, or let it pool sessions"),
            )),
            _ => None,
        })
    }

    /// Whether two sessions were served by one process, or one by several.
    async fn shares_processes(&self) -> Result<bool, SqlError> {
        let mut leases = [self.lease().await?, self.lease().await?];
        let mut processes = [BTreeSet::new(), BTreeSet::new()];
        for _ in 0..ROUNDS {
            for (lease, seen) in leases.iter_mut().zip(&mut processes) {
                let asked = within(self.limit, sqlx::raw_sql(statements::PROCESS).fetch_one(lease.connection())).await;
                let process: String = asked.and_then(|row| row.try_get(0)).map_err(sql_error)?;
                seen.insert(process);
            }
        }
        leases.into_iter().for_each(crate::lease::Lease::give_back);
        let [one, two] = &processes;
        Ok(one.len() > 1 || two.len() > 1 || !one.is_disjoint(two))
    }

    /// Whether a statement that was prepared has another name at the server than the driver gave it.
    async fn follows_statements(&self) -> Result<bool, SqlError> {
        let asked: Result<Vec<String>, SqlError> = leased!(self.lease().await?, |connection| {
            sqlx::query_scalar(statements::PREPARED).bind(statements::PREPARED).fetch_all(connection)
        });
        let names = match asked {
            // Another session has prepared something under this name, or this one's is at another process.
            Err(error) if is_mixed_up(&error) => return Ok(false),
            asked => asked?,
        };
        Ok(!names.is_empty() && names.iter().all(|name| !name.starts_with(OWN_NAME)))
    }
}

/// Whether a session found no statement of its own under a name: the error depends on which session was there before.
fn is_mixed_up(error: &SqlError) -> bool {
    let (SqlError::Permanent(reason) | SqlError::Transient(reason)) = error else { return false };
    MIXED_UP.iter().any(|code| reason.starts_with(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_of_a_pooler_that_mixes_statements_up_are_known() {
        assert!(is_mixed_up(&SqlError::Permanent("42P05: prepared statement \"sqlx_s_1\" already exists".into())));
        assert!(is_mixed_up(&SqlError::Transient("26000: prepared statement \"sqlx_s_1\" does not exist".into())));
        assert!(!is_mixed_up(&SqlError::Transient("57P03: the database system is starting up".into())));
    }
}
