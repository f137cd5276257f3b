//! Statements that the operator wrote and grants to policy modules: their bounds, and what their failures mean.
//!
//! Knows no engine: an engine begins the transaction, prepares, and reads its columns; what one call may
//! take (connections, time, rows, bytes) and what it may be given is decided here. A connection that met anything but
//! success is closed, as everywhere here. All runs of a call go to the server together (`script`). Never retries, never lets a
//! module wait for longer than the statement's time.

mod script;

use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use sqlx::{Arguments, Column, Either, Encode, Row, Statement, Type};
use tokio::sync::Semaphore;

use super::classify::{Class, judge, sql_error, wrote_in_read_only};
use super::finding::{Problem, Remedy, refuse};
use super::rows::civil;
use super::{Finding, RowSets, SqlError, StatementError};
use weir_core::config::{ParameterType, StatementConfig};
use weir_core::model::SqlValue;

pub(super) use script::{Script, run_each, run_one_by_one, run_together};

/// Bytes that all runs of one call may find together: 8 for a number, the length of a text.
const FOUND_BYTES_MAX: usize = 4 << 20;
/// What one run of a statement must not have.
const SEVERAL_RESULTS: &str = "it has not one result for each of its runs";
/// Connections of the pool that modules leave to the host: one flushes, another hydrates.
const CONNECTIONS_SPARED: u32 = 2;

/// Why a call ended early.
pub(super) enum Stop {
    /// The database or the connection.
    Sql(sqlx::Error),
    /// What was asked for, or what was found, is not allowed.
    Refused(String),
    /// More was found than this limit allows.
    TooLarge { limit: &'static str, max: usize },
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Permanent(reason) => Self::Refused(reason),
            other => Self::Sql(sqlx::Error::Io(std::io::Error::other(other.to_string()))),
        }
    }
}

impl Stop {
    fn judged(self, statement: &StatementConfig) -> StatementError {
        let name = &statement.name;
        match self {
            Self::Refused(reason) => StatementError::Invalid(format!("statement {name}: {reason}")),
            Self::TooLarge { limit, max } => StatementError::TooLarge { statement: name.clone(), limit, max },
            Self::Sql(error) if !statement.write && wrote_in_read_only(&error) => StatementError::Invalid(format!(
                "statement {name} writes, which its configuration does not allow; set write = true ({})",
                judge(&error).reason
            )),
            Self::Sql(error) => {
                let failure = judge(&error);
                let reason = format!("statement {name}: {}", failure.reason);
                match failure.class {
                    Class::Row | Class::Permanent => StatementError::Invalid(reason),
                    Class::Transient | Class::ReadOnly | Class::Locked | Class::Lost => {
                        StatementError::Unavailable(reason)
                    }
                }
            }
        }
    }
}

/// As many calls at once as leave the host connections of its own.
pub(super) struct GrantedPermits(Semaphore);

impl GrantedPermits {
    pub fn new(connections_max: u32) -> Self {
        let permits = connections_max.saturating_sub(CONNECTIONS_SPARED).max(1);
        Self(Semaphore::new(usize::try_from(permits).unwrap_or(1)))
    }

    /// Does `work` (which drops its connection when it is dropped) in the statement's time, waiting for a permit included.
    pub async fn run<T>(
        &self,
        statement: &StatementConfig,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, StatementError> {
        let permitted = async {
            let _permit = self.0.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            work.await
        };
        match tokio::time::timeout(Duration::from_millis(statement.timeout_ms), permitted).await {
            Ok(done) => done.map_err(|stop| stop.judged(statement)),
            Err(_) => Err(StatementError::Unavailable(format!(
                "statement {}: not done within timeout_ms = {}",
                statement.name, statement.timeout_ms
            ))),
        }
    }
}

/// The statement as it is sent: its name and types before it, for readers of the server's session list, and so
/// that statements of the same text and other types are not prepared as one.
pub(super) fn text(statement: &StatementConfig) -> String {
    let types: Vec<String> = statement.parameters.iter().map(|wanted| format!("{wanted:?}").to_lowercase()).collect();
    format!("/* weir {}({}) */ {}", statement.name, types.join(", "), statement.sql)
}

fn placeholders<S: Statement>(prepared: &S) -> usize {
    match prepared.parameters() {
        Some(Either::Left(types)) => types.len(),
        Some(Either::Right(count)) => count,
        None => 0,
    }
}

fn mismatch<S: Statement>(statement: &StatementConfig, prepared: &S) -> Option<String> {
    let (there, listed) = (placeholders(prepared), statement.parameters.len());
    (there != listed).then(|| format!("it has {there} placeholders, and its parameters list {listed}"))
}

/// Refuses a statement whose placeholders are not those of its configuration.
pub(super) fn fits<S: Statement>(statement: &StatementConfig, prepared: &S) -> Result<(), Stop> {
    mismatch(statement, prepared).map_or(Ok(()), |problem| Err(Stop::Refused(problem)))
}

/// Binds one row of parameters, NULLs with their type.
pub(super) fn arguments<A>(statement: &StatementConfig, values: &[SqlValue]) -> Result<A, Stop>
where
    A: Arguments,
    for<'t> Option<i64>: Encode<'t, A::Database> + Type<A::Database>,
    for<'t> Option<f64>: Encode<'t, A::Database> + Type<A::Database>,
    for<'t> Option<String>: Encode<'t, A::Database> + Type<A::Database>,
{
    if values.len() != statement.parameters.len() {
        return Err(Stop::Refused(format!("{} parameters instead of {}", values.len(), statement.parameters.len())));
    }
    let mut arguments = A::default();
    for (index, (wanted, value)) in statement.parameters.iter().zip(values).enumerate() {
        let added = match (wanted, value) {
            (ParameterType::Integer, SqlValue::Integer(number)) => arguments.add(Some(*number)),
            (ParameterType::Integer, SqlValue::Null) => arguments.add(None::<i64>),
            (ParameterType::Real, SqlValue::Real(number)) => arguments.add(Some(*number)),
            (ParameterType::Real, SqlValue::Null) => arguments.add(None::<f64>),
            (ParameterType::Text, SqlValue::Text(text)) => arguments.add(Some(text.clone())),
            (ParameterType::Text, SqlValue::Null) => arguments.add(None::<String>),
            (wanted, _) => {
                return Err(Stop::Refused(format!("parameter {} is not of type {wanted:?}", index + 1).to_lowercase()));
            }
        };
        added.map_err(|error| Stop::Sql(sqlx::Error::Encode(error)))?;
    }
    Ok(arguments)
}

/// What a column holds that is none of the four values.
pub(super) fn unreadable(type_name: &str) -> String {
    format!("has type {type_name}: cast it to text in the statement")
}

/// Bytes of statements that go to the server together.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Statements that go to the server together: one round trip. Some of them are runs of the operator's statement.
#[derive(Default)]
pub(super) struct Message {
    /// The statements, a semicolon after each.
    pub text: String,
    statements: usize,
    /// Which of them are runs, ascending.
    runs: Vec<usize>,
}

impl Message {
    /// Adds a statement that finds nothing.
    pub fn add(&mut self, statement: &str) {
        self.text.push_str(statement);
        self.text.push_str(";\n");
        self.statements += 1;
    }

    /// Adds statements that find nothing.
    pub fn add_all(&mut self, statements: &[String]) {
        statements.iter().for_each(|statement| self.add(statement));
    }

    /// Adds a run.
    pub fn add_run(&mut self, statement: &str) {
        self.runs.push(self.statements);
        self.add(statement);
    }

    /// Whether it goes now, and the rest in another.
    pub fn is_full(&self) -> bool {
        self.text.len() >= MESSAGE_BYTES_MAX
    }
}

/// Whether a statement can be prepared and run by statements, and has one result. By its first word: others (`CALL`,
/// `SHOW`, `EXPLAIN`) are run one after the other.
pub(super) fn is_plain(sql: &str) -> bool {
    const PLAIN: [&str; 9] = ["SELECT", "WITH", "VALUES", "TABLE", "INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE"];
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        let after = match rest {
            // What MariaDB and MySQL read of such a comment depends on their version.
            _ if rest.starts_with("/*!") || rest.starts_with("/*M!") => return false,
            _ if rest.starts_with("/*") => rest.find("*/").map(|end| end + 2),
            _ if rest.starts_with("--") || rest.starts_with('#') => rest.find('\n'),
            _ => break,
        };
        match after {
            Some(after) => rest = &rest[after..],
            None => return false,
        }
    }
    let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    PLAIN.iter().any(|plain| word.eq_ignore_ascii_case(plain))
}

/// What is wrong with a row of parameters, before it is written down.
pub(super) fn check_values(
    statement: &StatementConfig,
    values: &[SqlValue],
    cannot_be: impl Fn(&SqlValue) -> Option<&'static str>,
) -> Result<(), Stop> {
    if values.len() != statement.parameters.len() {
        return Err(Stop::Refused(format!("{} parameters instead of {}", values.len(), statement.parameters.len())));
    }
    for (index, (wanted, value)) in statement.parameters.iter().zip(values).enumerate() {
        let is_right = match value {
            SqlValue::Null => true,
            SqlValue::Integer(_) => *wanted == ParameterType::Integer,
            SqlValue::Real(_) => *wanted == ParameterType::Real,
            SqlValue::Text(_) => *wanted == ParameterType::Text,
        };
        if !is_right {
            let problem = format!("parameter {} is not of type {wanted:?}", index + 1);
            return Err(Stop::Refused(problem.to_lowercase()));
        }
        if let Some(problem) = cannot_be(value) {
            return Err(Stop::Refused(format!("parameter {} {problem}", index + 1)));
        }
    }
    Ok(())
}

/// What is left of what one call may find.
pub(super) struct Tally<'a> {
    statement: &'a StatementConfig,
    rows_left: usize,
    bytes_left: usize,
}

impl<'a> Tally<'a> {
    pub fn new(statement: &'a StatementConfig) -> Self {
        Self { statement, rows_left: statement.rows_max, bytes_left: FOUND_BYTES_MAX }
    }

    /// The rows of one run. Stops at the first row too many; what else there is, is not read.
    pub async fn collect<R: Row>(
        &mut self,
        mut rows: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
        read: impl Fn(&R, usize) -> Result<SqlValue, String>,
    ) -> Result<Vec<Vec<SqlValue>>, Stop> {
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            found.push(self.take(&row, &read)?);
        }
        Ok(found)
    }

    /// The rows of each run of `message`, as [`Tally::collect`] reads them. Where one statement ends and the next begins
    /// the server says.
    pub async fn collect_runs<Q, R: Row>(
        &mut self,
        message: &Message,
        mut results: impl Stream<Item = Result<Either<Q, R>, sqlx::Error>> + Unpin,
        read: impl Fn(&R, usize) -> Result<SqlValue, String>,
    ) -> Result<RowSets, Stop> {
        let mut sets: RowSets = vec![Vec::new(); message.runs.len()];
        let (mut done, mut run) = (0, 0);
        while let Some(result) = results.try_next().await? {
            let is_run = message.runs.get(run) == Some(&done);
            match result {
                Either::Right(row) if is_run => sets[run].push(self.take(&row, &read)?),
                Either::Right(_) => return Err(Stop::Refused(SEVERAL_RESULTS.into())),
                Either::Left(_) => {
                    run += usize::from(is_run);
                    done += 1;
                }
            }
        }
        if done == message.statements { Ok(sets) } else { Err(Stop::Refused(SEVERAL_RESULTS.into())) }
    }

    fn take<R: Row>(
        &mut self,
        row: &R,
        read: impl Fn(&R, usize) -> Result<SqlValue, String>,
    ) -> Result<Vec<SqlValue>, Stop> {
        if self.rows_left == 0 {
            return Err(Stop::TooLarge { limit: "rows_max", max: self.statement.rows_max });
        }
        self.rows_left -= 1;
        let values =
            (0..row.len()).map(|index| read(row, index).map_err(|problem| Stop::Refused(column(row, index, &problem))));
        let values: Vec<SqlValue> = values.collect::<Result<_, _>>()?;
        for value in &values {
            let bytes = if let SqlValue::Text(text) = value { text.len() } else { 8 };
            let left = self.bytes_left.checked_sub(bytes);
            self.bytes_left = left.ok_or(Stop::TooLarge { limit: "found_bytes_max", max: FOUND_BYTES_MAX })?;
        }
        Ok(values)
    }
}

fn column<R: Row>(row: &R, index: usize, problem: &str) -> String {
    let name = row.columns().get(index).map(|column| column.name().to_owned()).unwrap_or_default();
    format!("column {} ({name}) {problem}", index + 1)
}

/// The names of what a statement finds.
pub(super) fn column_names<S: Statement>(prepared: &S) -> Vec<String> {
    prepared.columns().iter().map(|column| column.name().to_owned()).collect()
}

/// What is wrong with a statement, by what the database said when it prepared it; `unreadable` says what of a column's
/// type is, where the engine knows it beforehand.
pub(super) fn finding<S: Statement>(
    statement: &StatementConfig,
    prepared: Result<S, sqlx::Error>,
    unreadable: impl Fn(&<S::Database as sqlx::Database>::Column) -> Option<String>,
) -> Result<Option<Finding>, SqlError> {
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            return match judge(&error) {
                failure if matches!(failure.class, Class::Row | Class::Permanent) => {
                    let remedy = format!("correct sql of statement {:?} in weir.toml", statement.name);
                    Ok(Some(refuse(Problem::Statement, failure.reason, Remedy::text(remedy))))
                }
                _ => Err(sql_error(error)),
            };
        }
    };
    if let Some(problem) = mismatch(statement, &prepared) {
        let remedy = Remedy::text("list the type of each placeholder in its parameters");
        return Ok(Some(refuse(Problem::Statement, problem, remedy)));
    }
    let columns = prepared.columns().iter().enumerate();
    let unread = columns.filter_map(|(index, column)| {
        unreadable(column).map(|problem| format!("column {} ({}) {problem}", index + 1, column.name()))
    });
    let unread: Vec<String> = unread.collect();
    let remedy = Remedy::text("cast these columns to text");
    Ok((!unread.is_empty()).then(|| refuse(Problem::Statement, unread.join("; "), remedy)))
}

/// `2024-05-01`, of a day since 1970-01-01; years before 1 as PostgreSQL writes them.
pub(super) fn date_text(days: i64) -> String {
    let (year, month, day) = civil(days);
    if year > 0 { format!("{year:04}-{month:02}-{day:02}") } else { format!("{:04}-{month:02}-{day:02} BC", 1 - year) }
}

/// `12:34:56` or `12:34:56.789`, of microseconds of a day.
pub(super) fn clock_text(micros: u64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}").trim_end_matches('0').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_databases_write_them() {
        assert_eq!(date_text(0), "1970-01-01");
        assert_eq!(date_text(-1), "1969-12-31");
        assert_eq!(date_text(19_782), "2024-02-29");
        assert_eq!(date_text(-719_528), "0001-01-01 BC");
        assert_eq!(date_text(2_932_897), "10000-01-01");
        assert_eq!(clock_text(0), "00:00:00");
        assert_eq!(clock_text(45_296_789_000), "12:34:56.789");
        assert_eq!(clock_text(86_399_999_999), "23:59:59.999999");
    }

    #[test]
    fn a_plain_statement_is_known_by_its_first_word() {
        for plain in [
            "SELECT 1",
            "  with x as (select 1) select * from x",
            "((SELECT 1) UNION (SELECT 2))",
            "/* why */ -- because\n# of it\nInsert INTO x VALUES (1)",
            "DELETE\nFROM x",
        ] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in
            ["CALL p(?)", "SHOW TABLES", "EXPLAIN SELECT 1", "/*!50000 CALL p() */", "SELECTED", "", "/* SELECT"]
        {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn modules_leave_connections_to_the_host() {
        for (connections, permits) in [(2, 1), (3, 1), (4, 2), (8, 6)] {
            assert_eq!(GrantedPermits::new(connections).0.available_permits(), permits);
        }
    }
}
