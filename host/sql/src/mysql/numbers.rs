//! AUTO_INCREMENT: whether it is to blame for what a row failed with.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::text;
use super::statements;
use super::statements::dialect::MysqlDialect;
use crate::numbers::{Numbering, grown};
use weir_core::config::KindTable;

/// What is to blame, if a row failed with `reason` for the number that it got: this engine gives the greatest number again
/// and calls it a duplicate, or says that it is out of range.
pub(super) async fn blamed_auto_increment(
    connection: &mut MySqlConnection,
    table: &KindTable,
    reason: &str,
) -> Result<Option<String>, sqlx::Error> {
    if !["1062", "1264", "167 "].iter().any(|number| reason.starts_with(number)) {
        return Ok(None);
    }
    for grown in grown(table) {
        let table = grown.table;
        let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
        let query = sqlx::query(statements::NUMBERED).bind(schema).bind(name);
        for row in query.fetch_all(&mut *connection).await? {
            let (column, declared) = (text(&row, 0)?, text(&row, 1)?);
            if !grown.is_numbered(&column) {
                continue;
            }
            let greatest = AssertSqlSafe(statements::greatest(table, &column));
            let last: Option<String> = sqlx::query(greatest).fetch_one(&mut *connection).await?.try_get(0)?;
            let Some((last, most)) = last.and_then(|last| last.parse().ok()).zip(most(&declared)) else { continue };
            let source = "AUTO_INCREMENT".to_owned();
            let numbering = Numbering { table: table.to_owned(), column, source, last, step: 1, most };
            if numbering.is_used_up() {
                return Ok(Some(numbering.used_up(&MysqlDialect::widen_number(table, &numbering.column))));
            }
        }
    }
    Ok(None)
}

/// The greatest number of a column with this type.
fn most(declared: &str) -> Option<i128> {
    let declared = declared.to_ascii_lowercase();
    let of = |name: &str| declared.starts_with(name);
    let bits = if of("tinyint") {
        8
    } else if of("smallint") {
        16
    } else if of("mediumint") {
        24
    } else if of("int") {
        32
    } else if of("bigint") {
        64
    } else {
        return None;
    };
    Some(if declared.contains("unsigned") { (1 << bits) - 1 } else { (1 << (bits - 1)) - 1 })
}

#[cfg(test)]
mod tests {
    use super::most;

    #[test]
    fn the_greatest_number_follows_from_the_type() {
        assert_eq!(most("tinyint(4)"), Some(127));
        assert_eq!(most("mediumint(8) unsigned"), Some(16_777_215));
        assert_eq!(most("int(11)"), Some(2_147_483_647));
        assert_eq!(most("bigint(20) unsigned"), Some(u64::MAX.into()));
        assert_eq!(most("double"), None);
    }
}
