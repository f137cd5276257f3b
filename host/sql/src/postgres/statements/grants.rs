//! Rights, as statements that an administrator runs.

use std::collections::BTreeMap;

use super::{path, quote};
use crate::grants::{OWN_TABLES, Rights};

/// Who is connected, to which database, where new tables go, and whether weir's own are there.
pub(in crate::postgres) const WHO: &str = "SELECT current_user::text, current_database()::text,
    COALESCE(current_schema()::text, 'public'), to_regclass('weir_meta') IS NOT NULL";

/// Sequences that number the rows of a table: $1 its name.
pub(in crate::postgres) const SEQUENCES: &str = "SELECT DISTINCT s.seqrelid::regclass::text
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = d.objid
    WHERE d.refobjid = to_regclass($1) AND d.deptype IN ('a', 'i')";

/// Whom the rights are for, and where.
pub(in crate::postgres) struct Who {
    pub user: String,
    pub database: String,
    pub schema: String,
    /// weir's own tables are there already.
    pub has_own: bool,
}

/// All rights that are needed; `sequences` are named as the catalogue does.
pub(in crate::postgres) fn grants(who: &Who, needed: &BTreeMap<String, Rights>, sequences: &[String]) -> Vec<String> {
    let user = quote(&who.user);
    let mut grants = vec![
        format!("GRANT CONNECT ON DATABASE {} TO {user}", quote(&who.database)),
        // For its own tables, when it is started for the first time and after an update.
        format!("GRANT USAGE, CREATE ON SCHEMA {} TO {user}", quote(&who.schema)),
    ];
    if who.has_own {
        let own = OWN_TABLES.map(quote).join(", ");
        grants.push(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {own} TO {user}"));
    }
    for (table, rights) in needed {
        let mut words = vec!["SELECT".to_owned()];
        words.extend(rights.inserts.then(|| "INSERT".to_owned()));
        words.extend(rights.deletes.then(|| "DELETE".to_owned()));
        if !rights.updates.is_empty() {
            let columns: Vec<String> = rights.updates.iter().map(|column| quote(column)).collect();
            words.push(format!("UPDATE ({})", columns.join(", ")));
        }
        grants.push(format!("GRANT {} ON {} TO {user}", words.join(", "), path(table)));
    }
    grants.extend(sequences.iter().map(|sequence| format!("GRANT USAGE, SELECT ON SEQUENCE {sequence} TO {user}")));
    grants
}
