//! What the self-check asks: the server's settings, and of rows what is to be had in a bounded time.

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::text;
use super::statements::dialect::MysqlDialect;
use super::statements::{self, check};
use super::{MysqlDriver, MysqlSql};
use crate::driver::{ServerCheck, TextRows};
use crate::engine::Backend as _;
use crate::finding::{Problem, Remedy, refuse, warn};
use crate::lease::leased;
use crate::{Finding, SqlError};

/// Whether a switch of the server is off. MySQL says 0, MariaDB OFF, and later versions have words for more than on: all that is
/// not off is on.
fn is_off(value: &str) -> bool {
    ["0", "OFF", "NO", "FALSE", ""].iter().any(|off| value.trim().eq_ignore_ascii_case(off))
}

/// What is wrong with the server's switches: whether it takes no writes, whether it has a binary log, and of which format. Of
/// those that forbid writes, with their names, the one that forbids most comes last.
fn switches(read_only: &[(&str, String)], log_bin: &str, format: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((name, value)) = read_only.iter().rfind(|(_, value)| !is_off(value)) {
        let problem = format!("the server takes no writes now ({name} is {value})");
        findings.push(warn(Problem::ReadOnly, problem, Remedy::text("connect to the primary")));
    }
    if !is_off(log_bin) && format.eq_ignore_ascii_case("STATEMENT") {
        let problem = "binlog_format is STATEMENT, which refuses writes at read committed".into();
        findings.push(refuse(Problem::BinaryLog, problem, MysqlDialect::set_global("binlog_format", "'ROW'")));
    }
    findings
}

impl ServerCheck for MysqlDriver {
    async fn check_server(database: &MysqlSql) -> Result<Vec<Finding>, SqlError> {
        let lease = database.lease().await?;
        let maria = database.driver.is_maria();
        let row = leased!(lease, |connection| {
            sqlx::raw_sql(AssertSqlSafe(statements::settings(maria))).fetch_one(connection)
        })?;
        let setting = |index: usize| text(&row, index).unwrap_or_default();
        let mut findings = Vec::new();
        let mend = || MysqlDialect::set_global("innodb_flush_log_at_trx_commit", "1");
        match setting(0).as_str() {
            "1" => {}
            "0" => findings.push(refuse(
                Problem::CrashLoss,
                "innodb_flush_log_at_trx_commit is 0: a crash of the server undoes commits".into(),
                mend(),
            )),
            other => findings.push(warn(
                Problem::PowerLoss,
                format!("innodb_flush_log_at_trx_commit is {other}: a power failure undoes commits"),
                mend(),
            )),
        }
        let keep = || Remedy::text("let sessions keep their settings (a proxy in the way?)");
        if setting(1) != "READ-COMMITTED" {
            let problem = format!("the isolation level is {} and cannot be set: flushers will deadlock", setting(1));
            findings.push(refuse(Problem::SessionSettings, problem, keep()));
        }
        if !setting(2).contains("STRICT_ALL_TABLES") {
            let problem = "sql_mode is not strict and cannot be set: values would be cut silently".into();
            findings.push(refuse(Problem::SessionSettings, problem, keep()));
        }
        let read_only = [("read_only", setting(3)), ("super_read_only", setting(8)), ("innodb_read_only", setting(9))];
        findings.extend(switches(&read_only, &setting(4), &setting(5)));
        let idle = database.settings.idle_transaction_timeout_ms.div_ceil(1_000).max(1).to_string();
        if setting(7) != idle {
            let problem = format!(
                "idle transactions are ended after {} s, not {idle}: a stopped flusher could block others",
                setting(7)
            );
            findings.push(refuse(Problem::SessionSettings, problem, keep()));
        }
        Ok(findings)
    }

    async fn ask(
        database: &MysqlSql,
        connection: &mut MySqlConnection,
        query: String,
    ) -> Result<TextRows, sqlx::Error> {
        let query = check::bounded(database.driver.is_maria(), database.settings.check_timeout_ms, &query);
        let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(connection).await?;
        let texts = |row: &MySqlRow| (0..row.len()).map(|index| row.try_get_unchecked(index)).collect();
        rows.iter().map(texts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_as_every_version_words_them() {
        let of = |value: &str| [("read_only", value.to_owned())];
        for off in ["0", "OFF", "off"] {
            assert_eq!(switches(&of(off), off, "STATEMENT"), vec![], "{off}");
        }
        // MariaDB 12 has words beyond on and off.
        for on in ["1", "ON", "NO_LOCK", "NO_LOCK_NO_ADMIN"] {
            let names: Vec<Problem> = switches(&of(on), on, "STATEMENT").iter().map(|finding| finding.name).collect();
            assert_eq!(names, [Problem::ReadOnly, Problem::BinaryLog], "{on}");
            assert_eq!(switches(&of("OFF"), on, "MIXED"), vec![], "{on}");
        }
        let replica = [("read_only", "1".into()), ("super_read_only", "1".into()), ("innodb_read_only", "0".into())];
        let findings = switches(&replica, "0", "ROW");
        assert!(findings.len() == 1 && findings[0].problem.contains("(super_read_only is 1)"), "{findings:?}");
    }
}
