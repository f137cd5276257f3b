//! How a plan of PostgreSQL reaches the rows of a table: by a key, or by reading all of it.
//!
//! Pure. The plan comes in the form that PostgreSQL has for programs, and is read as a structure, never searched for a name. Partitions
//! have names and keys of their own.

use serde_json::Value;

/// Whether a plan of PostgreSQL (`EXPLAIN (FORMAT JSON)`) that deletes from a table reads all of a relation. What it deletes
/// from may be one table or its partitions; where none is left, nothing is read.
pub(super) fn scans(plan: &Value) -> Option<String> {
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
        assert_eq!(scans(&plan), None);
        let bitmap = json!({ "Node Type": "Bitmap Heap Scan", "Relation Name": "likes", "Recheck Cond": "(a = b)",
                             "Plans": [{ "Node Type": "Bitmap Index Scan", "Index Name": "x", "Index Cond": "(a = b)" }] });
        assert_eq!(scans(&deleting(&bitmap)), None);
        assert_eq!(scans(&deleting(&json!({ "Node Type": "Result" }))), None, "no partition is left");
    }

    #[test]
    fn what_reads_a_relation_is_named() {
        let scan = json!({ "Node Type": "Seq Scan", "Relation Name": "likes_1" });
        assert_eq!(scans(&deleting(&scan)).unwrap(), "Seq Scan on likes_1");
        // A small table may be read in the order of its key.
        let whole = json!({ "Node Type": "Index Scan", "Relation Name": "likes", "Index Name": "likes_pkey" });
        assert_eq!(scans(&deleting(&whole)), None);
        // A name that is part of another says nothing.
        let other = json!({ "Node Type": "Seq Scan", "Relation Name": "likes", "Filter": "likes_pkey" });
        assert!(scans(&deleting(&other)).is_some());
    }
}
