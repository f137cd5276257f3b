//! How a plan of MySQL or MariaDB reaches the rows of a table: by a key, or by reading all of it.
//!
//! Pure. The plan comes in the form that MySQL or MariaDB has for programs, and is read as a structure, never searched for a name. Partitions
//! have names and keys of their own.

/// A row of a plan of MariaDB or MySQL (`EXPLAIN FORMAT=TRADITIONAL`); empty is what the server leaves NULL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// The table that is read.
    pub table: String,
    /// Names of the keys that could be used, with commas between them.
    pub possible_keys: String,
    /// That of the one that is.
    pub key: String,
}

/// Whether a plan says that `key` of `table` cannot be used. On a small table another way may be chosen; where no partition
/// holds the sample, no way is. A MySQL that does not execute a statement by its newer executor names no table in JSON, and one
/// that does has other members there than MariaDB: the table of rows is the same in all.
pub(super) fn misses(plan: &[Step], table: &str, key: &str) -> bool {
    let mut reads = plan.iter().filter(|step| step.table.eq_ignore_ascii_case(table)).peekable();
    // A name may have a comma in it.
    let lists = |step: &Step| format!(",{},", step.possible_keys).contains(&format!(",{key},"));
    reads.peek().is_some() && !reads.any(|step| step.key == key || lists(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_mysql_are_found_by_their_whole_names() {
        let step = |table: &str, possible_keys: &str, key: &str| {
            [Step { table: table.into(), possible_keys: possible_keys.into(), key: key.into() }]
        };
        let misses = |plan: &[Step], key: &str| super::misses(plan, "likes", key);
        assert!(!misses(&step("Likes", "x,PRIMARY", "x"), "PRIMARY"));
        assert!(!misses(&step("likes", "", "PRIMARY"), "PRIMARY"));
        assert!(misses(&step("likes", "x,PRIMARY", "x"), "PRI"));
        assert!(misses(&step("likes", "", ""), "PRIMARY"), "all of it is read");
        // "No matching rows after partition pruning".
        assert!(!misses(&step("", "", ""), "PRIMARY"));
    }
}
