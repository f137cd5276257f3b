//! What MySQL and MariaDB mean by their errors.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use crate::classify::{Class, Judged};

/// Judges what is an error of MySQL's or MariaDB's.
pub(crate) fn judge(error: &dyn DatabaseError) -> Option<Judged> {
    let mysql = error.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(Judged {
        class: class(mysql.number(), mysql.message()),
        is_full: matches!(mysql.number(), 1040 | 1203 | 1226),
        wrote_in_read_only: mysql.number() == 1792,
        text: error.to_string(),
    })
}

fn class(number: u16, message: &str) -> Class {
    match number {
        // A transaction that is read-only by itself: weir never asks for one and writes in it. InnoDB that is.
        1792 | 1836 | 1874 => Class::ReadOnly,
        // Of many options that forbid a statement, the one that is meant.
        1290 if message.contains("read-only") || message.contains("read_only") => Class::ReadOnly,
        // NULL, range, truncation, wrong value, length (of the row, too), CHECK (MySQL, MariaDB), other unique key,
        // foreign keys, SIGNAL of a trigger, no partition for the value, text that is no JSON, or has a name or depth that JSON
        // of MySQL has not, what an index on an expression cannot hold.
        1048 | 1062 | 1118 | 1169 | 1216 | 1217 | 1264 | 1265 | 1292 | 1366 | 1367 | 1406 | 1411 | 1451 | 1452
        | 1525 | 1526 | 1586 | 1644 | 1690 | 1748 | 1761 | 1762 | 3140 | 3141 | 3150 | 3151 | 3157 | 3158 | 3751
        | 3752 | 3819 | 3903 | 3904 | 3907 | 4025 => Class::Row,
        // Lock wait, and no lock at once.
        1205 | 3572 => Class::Locked,
        // Deadlock, too many connections, memory, disk, table full, engine error, an option, interrupted,
        // time limits, definition changed, statements exhausted or to be prepared again, failed at commit, rolled back by a
        // group of servers, or it is not ready.
        1015 | 1020 | 1021 | 1028 | 1030 | 1037 | 1038 | 1040 | 1041 | 1114 | 1129 | 1135 | 1180 | 1203 | 1206
        | 1213 | 1226 | 1243 | 1290 | 1317 | 1412 | 1461 | 1615 | 1637 | 1969 | 3024 | 3100 | 3101 | 3168 => {
            Class::Transient
        }
        // Shutdown, aborted or killed connections, network errors, too long idle.
        1053 | 1077 | 1079 | 1080 | 1152 | 1153 | 1158 | 1159 | 1160 | 1161 | 1184 | 1927 | 2006 | 2013 | 3169
        | 4031 => Class::Lost,
        _ => Class::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mysql_numbers_are_judged() {
        let row_class = |number| class(number, "");
        for number in [1048, 1062, 1118, 1264, 1406, 1452, 3140, 3819, 4025] {
            assert_eq!(row_class(number), Class::Row, "{number}");
        }
        let read_only = "The MariaDB server is running with the --read-only option so it cannot execute this statement";
        for (number, message) in [(1290, read_only), (1792, ""), (1836, "")] {
            assert_eq!(class(number, message), Class::ReadOnly, "{number}");
        }
        let other_class = |number| class(number, "The server is running with the --skip-grant-tables option");
        assert_eq!((row_class(1205), row_class(3572)), (Class::Locked, Class::Locked));
        for number in [1213, 1040, 1290, 1114, 1969] {
            assert_eq!(other_class(number), Class::Transient, "{number}");
        }
        for number in [1146, 1054, 1142, 1364, 1136, 1064, 1044, 1467, 167, 9999] {
            assert_eq!(other_class(number), Class::Permanent, "{number}");
        }
        assert_eq!(row_class(1927), Class::Lost);
    }
}
