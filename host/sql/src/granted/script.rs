//! The run of an operator's statement: all of a call in one message, or one run after the other.
//!
//! Knows no engine: each says with a [`Script`] which statements begin, prepare, run and end.

use sqlx::{AssertSqlSafe, Encode, Executor, Statement as _, Type};

use super::{Message, Stop, Tally, arguments, check_values};
use crate::RowSets;
use weir_core::config::StatementConfig;
use weir_core::model::SqlValue;

/// The statements of an engine that a call of an operator's statement consists of.
pub(crate) trait Script: Sync {
    /// Forgets the statement.
    const DEALLOCATE: &'static str;

    /// Begins a transaction for it.
    fn begin(&self, statement: &StatementConfig) -> Vec<String>;
    /// Prepares it in the session.
    fn prepare(&self, statement: &StatementConfig) -> Vec<String>;
    /// Gives the next run its values, where that takes a statement.
    fn assign(&self, _values: &[SqlValue]) -> Option<String> {
        None
    }
    /// Runs it.
    fn execute(&self, values: &[SqlValue]) -> String;
    /// Commits, and gives the session back what it had.
    fn end(&self) -> Vec<String>;
    /// Why a value cannot be one of this engine.
    fn cannot_be(&self, value: &SqlValue) -> Option<&'static str>;
}

/// Runs a statement once for each row of parameters, in one transaction and one round trip: the message that has the runs
/// also begins and ends the transaction. A statement that writes ends it in a second message, so that nothing is kept of
/// what is refused. Parameters that take more than a megabyte as literals (MySQL writes texts in hexadecimal, twice as
/// long) go in several messages.
pub(crate) async fn run_together<D, S>(
    connection: &mut D::Connection,
    script: &S,
    statement: &StatementConfig,
    parameters: &[Vec<SqlValue>],
    read: impl Fn(&D::Row, usize) -> Result<SqlValue, String> + Sync,
) -> Result<RowSets, Stop>
where
    D: sqlx::Database,
    S: Script,
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    let (mut tally, mut sets) = (Tally::new(statement), Vec::with_capacity(parameters.len()));
    let mut message = Message::default();
    message.add_all(&script.begin(statement));
    message.add_all(&script.prepare(statement));
    for values in parameters {
        check_values(statement, values, |value| script.cannot_be(value))?;
        if message.is_full() {
            let sql = AssertSqlSafe(std::mem::take(&mut message.text));
            sets.extend(tally.collect_runs(&message, sqlx::raw_sql(sql).fetch_many(&mut *connection), &read).await?);
            message = Message::default();
        }
        message.add_all(script.assign(values).as_slice());
        message.add_run(&script.execute(values));
    }
    message.add(S::DEALLOCATE);
    if !statement.write {
        message.add_all(&script.end());
    }
    let sql = AssertSqlSafe(std::mem::take(&mut message.text));
    sets.extend(tally.collect_runs(&message, sqlx::raw_sql(sql).fetch_many(&mut *connection), &read).await?);
    if statement.write {
        sqlx::raw_sql(AssertSqlSafe(script.end().join("; "))).execute(&mut *connection).await?;
    }
    Ok(sets)
}

/// The same of a statement that no other one can run, or whose columns lose digits as text: one run after the other.
pub(crate) async fn run_one_by_one<D, S>(
    connection: &mut D::Connection,
    script: &S,
    statement: &StatementConfig,
    prepared: &D::Statement,
    parameters: &[Vec<SqlValue>],
    read: impl Fn(&D::Row, usize) -> Result<SqlValue, String> + Sync,
) -> Result<RowSets, Stop>
where
    D: sqlx::Database,
    S: Script,
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
    for<'t> Option<i64>: Encode<'t, D> + Type<D>,
    for<'t> Option<f64>: Encode<'t, D> + Type<D>,
    for<'t> Option<String>: Encode<'t, D> + Type<D>,
    D::Arguments: sqlx::IntoArguments<D>,
{
    sqlx::raw_sql(AssertSqlSafe(script.begin(statement).join("; "))).execute(&mut *connection).await?;
    let sets = run_each::<D>(connection, statement, prepared, parameters, read).await?;
    sqlx::raw_sql(AssertSqlSafe(script.end().join("; "))).execute(&mut *connection).await?;
    Ok(sets)
}

/// The runs alone, inside of a transaction.
pub(crate) async fn run_each<D>(
    connection: &mut D::Connection,
    statement: &StatementConfig,
    prepared: &D::Statement,
    parameters: &[Vec<SqlValue>],
    read: impl Fn(&D::Row, usize) -> Result<SqlValue, String> + Sync,
) -> Result<RowSets, Stop>
where
    D: sqlx::Database,
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
    for<'t> Option<i64>: Encode<'t, D> + Type<D>,
    for<'t> Option<f64>: Encode<'t, D> + Type<D>,
    for<'t> Option<String>: Encode<'t, D> + Type<D>,
    D::Arguments: sqlx::IntoArguments<D>,
{
    let (mut tally, mut sets) = (Tally::new(statement), Vec::with_capacity(parameters.len()));
    for values in parameters {
        let query = prepared.query_with(arguments::<D::Arguments>(statement, values)?);
        sets.push(tally.collect(query.fetch(&mut *connection), &read).await?);
    }
    Ok(sets)
}
