//! How a plan reaches the rows of a table: by a key, or by reading all of it.
//!
//! Engine-free part of the room. Pure: an engine asks for the plan in the form that it has for programs, and what comes is read
//! as a structure, never searched for a name. Partitions have names and keys of their own.

use serde_json::Value;

/// Whether a plan of PostgreSQL (`EXPLAIN (FORMAT JSON)`) that deletes from a table reads all of a relation. What it deletes
/// from may be one table or its partitions; where none is left, nothing is read.
pub(super) fn postgres_scans(plan: &Value) -> Option<String> {
    let mut found = None;
    each(plan, &mut |node| {
        if node.get("Node Type").and_then(Value::as_str) == Some("ModifyTable") {
            each(node.get("Plans").unwrap_or(&Value::Null), &mut |inner| {
                found = found.take().or_else(|| scan_of(inner))
            });
        }
    });
    found
}

/// The relation that a node of a plan reads all of though an index would have been taken. One that is scanned in its index's
/// order, without a condition, is small; and its index was found to fit.
fn scan_of(node: &serde_json::Map<String, Value>) -> Option<String> {
    let text = |key: &str| node.get(key).and_then(Value::as_str);
    let (kind, relation) = (text("Node Type")?, text("Relation Name")?);
    matches!(kind, "Seq Scan" | "Sample Scan").then(|| format!("{kind} on {relation}"))
}

/// A row of a plan of MariaDB or MySQL (`EXPLAIN FORMAT=TRADITIONAL`); empty is what the server leaves NULL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MysqlStep {
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
pub(super) fn mysql_misses(plan: &[MysqlStep], table: &str, key: &str) -> bool {
    let mut reads = plan.iter().filter(|step| step.table.eq_ignore_ascii_case(table)).peekable();
    // A name may have a comma in it.
    let lists = |step: &MysqlStep| format!(",{},", step.possible_keys).contains(&format!(",{key},"));
    reads.peek().is_some() && !reads.any(|step| step.key == key || lists(step))
}

/// Whether steps of SQLite (`EXPLAIN QUERY PLAN`, the column `detail`) read all of `table`.
pub(super) fn sqlite_scans(steps: &[String], table: &str) -> Option<String> {
    let is_scan = |step: &&String| {
        let mut words = step.split_ascii_whitespace();
        let (how, what) = (words.next(), words.next());
        how == Some("SCAN")
            && what.is_some_and(|what| what.eq_ignore_ascii_case(table))
            && !step.contains("VIRTUAL TABLE")
    };
    steps.iter().find(is_scan).cloned()
}

/// Calls `look` with every object in a value.
fn each<'v>(value: &'v Value, look: &mut impl FnMut(&'v serde_json::Map<String, Value>)) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| each(value, look)),
        Value::Object(object) => {
            look(object);
            object.values().for_each(|value| each(value, look));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deleting(scans: &Value) -> Value {
        json!([{ "Plan": { "Node Type": "Aggregate", "Plans": [
            { "Node Type": "ModifyTable", "Operation": "Delete", "Relation Name": "likes", "Plans": [
                { "Node Type": "Nested Loop", "Plans": [{ "Node Type": "Function Scan", "Alias": "u" }, scans] }] },
            { "Node Type": "Seq Scan", "Relation Name": "pg_trigger" }] } }])
    }

    #[test]
    fn partitions_and_their_keys_are_keys() {
        let child = |name: &str| {
            json!({ "Node Type": "Index Scan", "Index Name": format!("{name}_pkey"), "Relation Name": name,
                    "Index Cond": "((post_id = u.t) AND (user_id = u.a))" })
        };
        let plan = deleting(&json!({ "Node Type": "Append", "Plans": [child("likes_0"), child("likes_1")] }));
        assert_eq!(postgres_scans(&plan), None);
        let bitmap = json!({ "Node Type": "Bitmap Heap Scan", "Relation Name": "likes", "Recheck Cond": "(a = b)",
                             "Plans": [{ "Node Type": "Bitmap Index Scan", "Index Name": "x", "Index Cond": "(a = b)" }] });
        assert_eq!(postgres_scans(&deleting(&bitmap)), None);
        assert_eq!(postgres_scans(&deleting(&json!({ "Node Type": "Result" }))), None, "no partition is left");
    }

    #[test]
    fn what_reads_a_relation_is_named() {
        let scan = json!({ "Node Type": "Seq Scan", "Relation Name": "likes_1" });
        assert_eq!(postgres_scans(&deleting(&scan)).unwrap(), "Seq Scan on likes_1");
        // A small table may be read in the order of its key.
        let whole = json!({ "Node Type": "Index Scan", "Relation Name": "likes", "Index Name": "likes_pkey" });
        assert_eq!(postgres_scans(&deleting(&whole)), None);
        // A name that is part of another says nothing.
        let other = json!({ "Node Type": "Seq Scan", "Relation Name": "likes", "Filter": "likes_pkey" });
        assert!(postgres_scans(&deleting(&other)).is_some());
    }

    #[test]
    fn keys_of_mysql_are_found_by_their_whole_names() {
        let step = |table: &str, possible_keys: &str, key: &str| {
            [MysqlStep { table: table.into(), possible_keys: possible_keys.into(), key: key.into() }]
        };
        let misses = |plan: &[MysqlStep], key: &str| mysql_misses(plan, "likes", key);
        assert!(!misses(&step("Likes", "x,PRIMARY", "x"), "PRIMARY"));
        assert!(!misses(&step("likes", "", "PRIMARY"), "PRIMARY"));
        assert!(misses(&step("likes", "x,PRIMARY", "x"), "PRI"));
        assert!(misses(&step("likes", "", ""), "PRIMARY"), "all of it is read");
        // "No matching rows after partition pruning".
        assert!(!misses(&step("", "", ""), "PRIMARY"));
    }

    #[test]
    fn steps_of_sqlite_are_read_word_by_word() {
        let steps =
            |first: &str| vec![first.to_owned(), "LIST SUBQUERY 1".into(), "SCAN j VIRTUAL TABLE INDEX 1:".into()];
        assert_eq!(
            sqlite_scans(&steps("SEARCH Feed_Like USING PRIMARY KEY (feed_id=? AND user_id=?)"), "feed_like"),
            None
        );
        assert_eq!(sqlite_scans(&steps("SCAN Feed_Like"), "feed_like").unwrap(), "SCAN Feed_Like");
        assert_eq!(sqlite_scans(&steps("SEARCH j USING PRIMARY KEY (a=?)"), "j"), None);
        assert_eq!(sqlite_scans(&steps("SCAN feed_like_old"), "feed_like"), None);
    }
}
