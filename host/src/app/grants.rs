//! What stands behind the imports `redis` and `sql` of policy modules: the store's keys, and the operator's statements.
//!
//! It lives in `app` because it joins modules that do not know each other. Checks what a module asks for against the
//! configuration; which module was granted what is decided before, in `policy`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::config::{ParameterType, PolicyConfig, StatementConfig};
use crate::model::{KeyEntry, KeyIncrement, SqlValue};
use crate::policy::{Capabilities, GrantError, GuestKeys, GuestStatements, RowSets};
use crate::sql::{self, StatementError};
use crate::store::{Counted, ModuleKeys, StoreError};

/// Everything that can be granted, over this host's store and SQL.
pub fn capabilities(
    store: Arc<dyn ModuleKeys>,
    sql: Arc<dyn sql::Statements>,
    policy: &PolicyConfig,
    clock: Clock,
) -> Capabilities {
    let statements = policy.statements.iter().map(|statement| (statement.name.clone(), statement.clone())).collect();
    Capabilities { keys: Arc::new(Keys { store, clock }), statements: Arc::new(Statements { sql, statements }) }
}

/// Keys in the store.
struct Keys {
    store: Arc<dyn ModuleKeys>,
    clock: Clock,
}

#[async_trait]
impl GuestKeys for Keys {
    async fn get(&self, module: &str, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, GrantError> {
        self.store.guest_get(module, self.clock.steady_ms(), &keys).await.map_err(unavailable)
    }

    async fn set(&self, module: &str, entries: Vec<KeyEntry>) -> Result<(), GrantError> {
        self.store.guest_set(module, self.clock.steady_ms(), entries).await.map_err(unavailable)
    }

    async fn increment(&self, module: &str, increments: Vec<KeyIncrement>) -> Result<Vec<i64>, GrantError> {
        let keys: Vec<String> = increments.iter().map(|increment| increment.key.clone()).collect();
        let key = |index: usize| keys.get(index).cloned().unwrap_or_default();
        match self.store.guest_increment(module, self.clock.steady_ms(), increments).await.map_err(unavailable)? {
            Counted::Totals(totals) => Ok(totals),
            Counted::NotACounter(index) => {
                Err(GrantError::Invalid(format!("key {:?} holds a value that was set, not a counter", key(index))))
            }
            Counted::Overflow(index) => {
                Err(GrantError::Invalid(format!("counter {:?} would leave the range of 64 bits", key(index))))
            }
        }
    }
}

fn unavailable(error: StoreError) -> GrantError {
    GrantError::Unavailable(error.to_string())
}

/// The operator's statements.
struct Statements {
    sql: Arc<dyn sql::Statements>,
    statements: BTreeMap<String, StatementConfig>,
}

#[async_trait]
impl GuestStatements for Statements {
    async fn run(&self, statement: &str, parameters: Vec<Vec<SqlValue>>, write: bool) -> Result<RowSets, GrantError> {
        let Some(configured) = self.statements.get(statement) else {
            return Err(GrantError::Invalid(format!("there is no statement {statement:?}")));
        };
        if configured.write && !write {
            return Err(GrantError::Invalid(format!("statement {statement} may write, and this module must not now")));
        }
        check(configured, &parameters)?;
        self.sql.run_statement(configured, &parameters).await.map_err(|error| match error {
            error @ StatementError::TooLarge { .. } => GrantError::Invalid(error.to_string()),
            StatementError::Invalid(reason) => GrantError::Invalid(reason),
            StatementError::Unavailable(reason) => GrantError::Unavailable(reason),
        })
    }
}

/// Number and types of the parameters of each row. NULL is of every type.
fn check(statement: &StatementConfig, rows: &[Vec<SqlValue>]) -> Result<(), GrantError> {
    let (name, wanted) = (&statement.name, &statement.parameters);
    for (row, values) in rows.iter().enumerate() {
        if values.len() != wanted.len() {
            let (given, wanted) = (values.len(), wanted.len());
            return Err(GrantError::Invalid(format!(
                "statement {name} takes {wanted} parameters; row {row} has {given}"
            )));
        }
        for (place, (wanted, value)) in wanted.iter().zip(values).enumerate() {
            let is_right = match value {
                SqlValue::Null => true,
                SqlValue::Integer(_) => *wanted == ParameterType::Integer,
                SqlValue::Real(_) => *wanted == ParameterType::Real,
                SqlValue::Text(_) => *wanted == ParameterType::Text,
            };
            if !is_right {
                let wanted = format!("{wanted:?}").to_lowercase();
                return Err(GrantError::Invalid(format!(
                    "parameter {} of statement {name} must be {wanted} or null; in row {row} it is not",
                    place + 1
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SqlConfig, StoreConfig};

    const STATEMENTS: &str = "
        [[statement]]
        name = \"tier-of\"
        sql = \"SELECT ?, ?, ?\"
        parameters = [\"integer\", \"real\", \"text\"]
        [[statement]]
        name = \"note\"
        sql = \"INSERT INTO note VALUES (?)\"
        parameters = [\"text\"]
        write = true
        [[statement]]
        name = \"notes\"
        sql = \"SELECT text FROM note\"";

    async fn granted(directory: &std::path::Path) -> (Capabilities, Clock) {
        let clock = Clock::manual(1_800_000_000_000);
        let store = StoreConfig { path: directory.join("store"), ..StoreConfig::default() };
        let store = crate::store::open(&store).await.unwrap();
        let url = format!("sqlite://{}", directory.join("weir.db").display());
        let sql = crate::sql::open(&SqlConfig { url, ..SqlConfig::default() }).await.unwrap();
        sql.execute_script("CREATE TABLE note (text TEXT)").await.unwrap();
        let policy: PolicyConfig = toml::from_str(STATEMENTS).unwrap();
        (capabilities(store, sql, &policy, clock.clone()), clock)
    }

    fn invalid<T: std::fmt::Debug>(result: Result<T, GrantError>, part: &str) {
        match result {
            Err(GrantError::Invalid(reason)) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn statements_are_checked_and_run() {
        let directory = tempfile::tempdir().unwrap();
        let (granted, _) = granted(directory.path()).await;
        let run = async |name: &str, rows: Vec<Vec<SqlValue>>| granted.statements.run(name, rows, true).await;
        let row = || vec![SqlValue::Integer(7), SqlValue::Real(0.5), SqlValue::Text("x".into())];
        let nulls = || vec![SqlValue::Null, SqlValue::Null, SqlValue::Null];
        assert_eq!(run("tier-of", vec![row(), nulls()]).await, Ok(vec![vec![row()], vec![nulls()]]));
        invalid(run("tier", vec![]).await, "no statement \"tier\"");
        invalid(run("tier-of", vec![row(), row()[..2].to_vec()]).await, "takes 3 parameters; row 1 has 2");
        invalid(run("tier-of", vec![row().into_iter().rev().collect()]).await, "parameter 1 of statement tier-of");
        let mut wrong = row();
        wrong[1] = SqlValue::Integer(1);
        invalid(run("tier-of", vec![wrong]).await, "must be real or null");
    }

    #[tokio::test]
    async fn a_module_that_must_not_write_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let (granted, _) = granted(directory.path()).await;
        let text = || vec![vec![SqlValue::Text("hello".into())]];
        invalid(granted.statements.run("note", text(), false).await, "must not now");
        assert_eq!(granted.statements.run("notes", vec![vec![]], false).await, Ok(vec![vec![]]));
        assert_eq!(granted.statements.run("note", text(), true).await, Ok(vec![vec![]]));
        assert_eq!(granted.statements.run("notes", vec![vec![]], false).await, Ok(vec![text()]));
    }

    #[tokio::test]
    async fn keys_are_kept_counted_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (granted, clock) = granted(directory.path()).await;
        let entry = KeyEntry { key: "value".into(), value: b"1".to_vec(), ttl_ms: 1_000 };
        granted.keys.set("m", vec![entry]).await.unwrap();
        let counter = |key: &str, by| vec![KeyIncrement { key: key.into(), by, ttl_ms: 1_000 }];
        assert_eq!(granted.keys.increment("m", counter("count", i64::MAX)).await, Ok(vec![i64::MAX]));
        invalid(granted.keys.increment("m", counter("count", 1)).await, "counter \"count\" would leave");
        invalid(granted.keys.increment("m", counter("value", 1)).await, "key \"value\" holds a value");
        let keys = || vec!["value".to_owned(), "count".to_owned()];
        let kept = vec![Some(b"1".to_vec()), Some(i64::MAX.to_string().into_bytes())];
        assert_eq!(granted.keys.get("m", keys()).await, Ok(kept));
        assert_eq!(granted.keys.get("other", keys()).await, Ok(vec![None, None]));
        clock.advance_ms(1_000);
        assert_eq!(granted.keys.get("m", keys()).await, Ok(vec![None, None]));
    }
}
