//! What the columns that get a kind's rows can hold, and what foreign keys lead to.

use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::PostgresSql;
use super::catalogue::read_facts;
use super::statements;
use super::statements::words::PostgresWords;
use crate::config::KindTable;
use crate::model::Id;
use crate::sql::SqlError;
use crate::sql::exec::documents;
use crate::sql::lease::leased;
use crate::sql::limits::{Limits, Parent, Seen, table_of};
use crate::sql::wire::{Batch, Fixed, Record as _, Wire as _};

impl PostgresSql {
    /// See [`crate::sql::Sql::limits`].
    pub(super) async fn read_limits(&self, table: &KindTable) -> Result<Limits, SqlError> {
        let Some(name) = table_of(table) else { return Ok(Limits::default()) };
        let mut seen = leased!(self.lease().await?, |connection| look(connection, name))?;
        if let KindTable::Ingest(table) = table {
            seen.forms = Some(documents::plan(self, table).await?.forms.clone());
        }
        Ok(Limits::new(&PostgresWords, table, &seen))
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

async fn look(connection: &mut PgConnection, table: &str) -> Result<Seen, sqlx::Error> {
    let facts = read_facts(connection, table, &[]).await?;
    let mut keys = Vec::new();
    for row in sqlx::query(statements::FOREIGN).bind(statements::path(table)).fetch_all(&mut *connection).await? {
        let (column, other, key): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let facts = read_facts(connection, &other, &[]).await?;
        keys.push((column, other, key, facts));
    }
    Ok(Seen { facts, keys, forms: None })
}
