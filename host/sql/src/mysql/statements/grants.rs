//! Rights, as statements that an administrator runs.

use std::collections::BTreeMap;

use super::{path, quote};
use crate::grants::{OWN_TABLES, Rights};

/// As whom the server takes us, and the database.
pub(in crate::mysql) const WHO: &str = "SELECT CAST(CURRENT_USER() AS CHAR), CAST(DATABASE() AS CHAR)";

/// All rights that are needed. `user` is `name@host`.
pub(in crate::mysql) fn grants(user: &str, database: &str, needed: &BTreeMap<String, Rights>) -> Vec<String> {
    let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
    let text = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    let user = format!("{}@{}", text(name), text(host));
    let database = quote(database);
    // It makes and changes its own tables: a right to create one that is not there yet can be given.
    let own = OWN_TABLES.iter().map(|table| {
        format!("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER ON {database}.{} TO {user}", quote(table))
    });
    let of_tables = needed.iter().map(|(table, rights)| {
        let mut words = vec!["SELECT"];
        words.extend(rights.inserts.then_some("INSERT"));
        words.extend(rights.deletes.then_some("DELETE"));
        // Of the whole table: reading under lock asks for that.
        words.extend((!rights.updates.is_empty()).then_some("UPDATE"));
        let place = if table.contains('.') { path(table) } else { format!("{database}.{}", path(table)) };
        format!("GRANT {} ON {place} TO {user}", words.join(", "))
    });
    own.chain(of_tables).collect()
}
