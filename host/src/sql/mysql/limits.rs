//! What the columns that get a kind's rows can hold, and what foreign keys lead to.

use std::collections::HashSet;

use sqlx::mysql::MySqlConnection;

use super::MysqlSql;
use super::catalogue::{read_facts, text};
use super::statements;
use super::statements::words::MysqlWords;
use crate::config::KindTable;
use crate::model::Id;
use crate::sql::SqlError;
use crate::sql::exec::documents;
use crate::sql::lease::leased;
use crate::sql::limits::{Limits, Parent, Seen, table_of};
use crate::sql::wire::{Batch, Record as _, Wire as _};

impl MysqlSql {
    /// See [`crate::sql::Sql::limits`].
    pub(super) async fn read_limits(&self, table: &KindTable) -> Result<Limits, SqlError> {
        let Some(name) = table_of(table) else { return Ok(Limits::default()) };
        let lease = self.lease().await?;
        let words = self.words();
        let mut seen = leased!(lease, |connection| look(connection, words, name))?;
        if let KindTable::Ingest(table) = table {
            seen.forms = Some(documents::plan(self, table).await?.forms.clone());
        }
        Ok(Limits::new(&words, table, &seen))
    }

    /// See [`crate::sql::Sql::existing`].
    pub(super) async fn existing_parents(&self, parent: &Parent, ids: &[Id]) -> Result<Vec<bool>, SqlError> {
        let there: HashSet<Id> = leased!(self.lease().await?, |connection| async {
            let rows = connection.fetch(&statements::parents(parent), &Batch::new().ids(parent.form, ids)).await?;
            rows.iter().map(|row| row.id(0, parent.form)).collect::<Result<_, sqlx::Error>>()
        })?;
        Ok(ids.iter().map(|id| there.contains(id)).collect())
    }
}

async fn look(connection: &mut MySqlConnection, words: MysqlWords, table: &str) -> Result<Seen, sqlx::Error> {
    let facts = read_facts(connection, words, table).await?;
    let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
    let mut keys = Vec::new();
    for row in sqlx::query(statements::FOREIGN).bind(schema).bind(name).fetch_all(&mut *connection).await? {
        let (column, other, key) = (text(&row, 0)?, text(&row, 1)?, text(&row, 2)?);
        let facts = read_facts(connection, words, &other).await?;
        keys.push((column, other, key, facts));
    }
    Ok(Seen { facts, keys, forms: None })
}
