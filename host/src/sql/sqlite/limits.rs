//! What the columns that get a kind's rows can hold, and what foreign keys lead to.

use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::SqliteSql;
use super::catalogue::read_facts;
use super::statements;
use super::statements::words::SqliteWords;
use crate::config::KindTable;
use crate::model::Id;
use crate::sql::SqlError;
use crate::sql::exec::documents;
use crate::sql::lease::leased;
use crate::sql::limits::{Limits, Parent, Seen, table_of};
use crate::sql::wire::{Batch, Fixed, Record as _, Wire as _};

impl SqliteSql {
    /// See [`crate::sql::Sql::limits`].
    pub(super) async fn read_limits(&self, table: &KindTable) -> Result<Limits, SqlError> {
        let Some(name) = table_of(table) else { return Ok(Limits::default()) };
        let mut seen = leased!(self.lease().await?, |connection| look(connection, name))?;
        if let KindTable::Ingest(table) = table {
            seen.forms = Some(documents::plan(self, table).await?.forms.clone());
        }
        Ok(Limits::new(&SqliteWords, table, &seen))
    }

    /// See [`crate::sql::Sql::existing`].
    pub(super) async fn existing_parents(&self, parent: &Parent, ids: &[Id]) -> Result<Vec<bool>, SqlError> {
        let there: HashSet<Id> = leased!(self.lease().await?, |connection| async {
            let statement = Fixed::from(statements::parents(parent));
            let rows = connection.fetch(&statement, &Batch::new().ids(parent.form, ids)).await?;
            rows.iter().map(|row| row.id(0, parent.form)).collect::<Result<_, sqlx::Error>>()
        })?;
        Ok(ids.iter().map(|id| there.contains(id)).collect())
    }
}

async fn look(connection: &mut SqliteConnection, table: &str) -> Result<Seen, sqlx::Error> {
    let facts = read_facts(connection, table).await?;
    let (schema, name) = table.split_once('.').unwrap_or(("main", table));
    let mut keys = Vec::new();
    for row in sqlx::query(statements::FOREIGN).bind(name).bind(schema).fetch_all(&mut *connection).await? {
        let (column, other): (String, String) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
        let named: Option<String> = row.try_get_unchecked(2)?;
        let facts = read_facts(connection, &other).await?;
        // Without a name it is the other table's primary key.
        let primary =
            || Some(facts.as_ref()?.unique.iter().find(|key| key.name == "PRIMARY KEY")?.columns.first()?.clone());
        let Some(key) = named.or_else(primary) else { continue };
        keys.push((column, other, key, facts));
    }
    Ok(Seen { facts, keys, forms: None })
}
