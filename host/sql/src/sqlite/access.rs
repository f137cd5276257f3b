//! How a plan of SQLite reaches the rows of a table: by a key, or by reading all of it.
//!
//! Pure. The plan comes in the form that SQLite has for programs, and is read as a structure, never searched for a name. Partitions
//! have names and keys of their own.

/// Whether steps of SQLite (`EXPLAIN QUERY PLAN`, the column `detail`) read all of `table`.
pub(super) fn scans(steps: &[String], table: &str) -> Option<String> {
    let is_scan = |step: &&String| {
        let mut words = step.split_ascii_whitespace();
        let (how, what) = (words.next(), words.next());
        how == Some("SCAN")
            && what.is_some_and(|what| what.eq_ignore_ascii_case(table))
            && !step.contains("VIRTUAL TABLE")
    };
    steps.iter().find(is_scan).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_sqlite_are_read_word_by_word() {
        let steps =
            |first: &str| vec![first.to_owned(), "LIST SUBQUERY 1".into(), "SCAN j VIRTUAL TABLE INDEX 1:".into()];
        assert_eq!(scans(&steps("SEARCH Feed_Like USING PRIMARY KEY (feed_id=? AND user_id=?)"), "feed_like"), None);
        assert_eq!(scans(&steps("SCAN Feed_Like"), "feed_like").unwrap(), "SCAN Feed_Like");
        assert_eq!(scans(&steps("SEARCH j USING PRIMARY KEY (a=?)"), "j"), None);
        assert_eq!(scans(&steps("SCAN feed_like_old"), "feed_like"), None);
    }
}
