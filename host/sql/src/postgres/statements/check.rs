//! What only the self-check asks of the catalogue, and within which time it asks of rows.

/// Begins for a query that only reads, within so many milliseconds.
pub(in crate::postgres) fn begin(timeout_ms: u64) -> String {
    format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout_ms}; SET LOCAL lock_timeout = {timeout_ms}")
}

/// Columns by which a table, or a partition of it, is partitioned: $1 its number.
pub(in crate::postgres) const PARTITIONED_BY: &str =
    "SELECT DISTINCT COALESCE(a.attname::text, 'an expression') FROM pg_catalog.pg_partitioned_table AS p
    CROSS JOIN LATERAL unnest(p.partattrs::int2[]) AS n
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = n AND n <> 0
    WHERE p.partrelid = $1::oid
        OR p.partrelid IN (SELECT t.relid FROM pg_partition_tree($1::oid::regclass) AS t) ORDER BY 1";

/// Triggers and rules that run when rows come or go, of a table and of its partitions: $1 its number; name, definition (with
/// that of the function), quoted table, whether it is a rule. Those that a partition inherits are listed once.
pub(in crate::postgres) const TRIGGERS: &str = "SELECT * FROM (SELECT DISTINCT ON (g.tgname) g.tgname::text,
        pg_get_triggerdef(g.oid) || ' ' || pg_get_functiondef(g.tgfoid), g.tgrelid::regclass::text, false
    FROM pg_catalog.pg_trigger AS g
    WHERE (g.tgrelid = $1::oid OR g.tgrelid IN (SELECT t.relid FROM pg_partition_tree($1::oid::regclass) AS t))
        AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 12 <> 0
    ORDER BY g.tgname, g.tgrelid <> $1::oid) AS triggers
    UNION ALL SELECT r.rulename::text, pg_get_ruledef(r.oid), r.ev_class::regclass::text, true
    FROM pg_catalog.pg_rewrite AS r
    WHERE r.ev_class = $1::oid AND r.ev_type IN ('3', '4') AND r.ev_enabled IN ('O', 'A')";
