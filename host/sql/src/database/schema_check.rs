//! The role of a database that is compared with the configuration.

use std::collections::HashSet;

use async_trait::async_trait;

use super::Database;
use crate::classify::{Class, judge, sql_error};
use crate::driver::{Connection, DialectIn, Driver};
use crate::engine::{Backend as _, Catalogue as _, Engine as _};
use crate::exec::{counters, documents, preferences, toggles};
use crate::grants::needed;
use crate::introspection::Introspection;
use crate::introspection::look::{Answer, Ask};
use crate::lease::{leased, within};
use crate::limits::{Seen, table_of};
use crate::wire::{Batch, Record as _, Wire as _};
use crate::{Finding, Limits, Parent, SchemaCheck, SqlError};
use weir_core::config::KindTable;
use weir_core::model::Id;

#[async_trait]
impl<D: Driver> SchemaCheck for Database<D> {
    async fn check_server(&self) -> Result<Vec<Finding>, SqlError> {
        D::check_server(self).await
    }

    async fn grants(&self, tables: &[KindTable], reads: &[String]) -> Result<Vec<String>, SqlError> {
        if !D::HAS_USERS {
            return Ok(Vec::new());
        }
        let mut parents = Vec::new();
        for table in tables {
            parents.extend(self.limits(table).await?.parents);
        }
        D::grants(self, &needed(tables.iter(), &parents, reads)).await
    }

    async fn check_table(&self, table: &KindTable) -> Result<Vec<Finding>, SqlError> {
        match table {
            KindTable::Toggle(table) => toggles::check_tables(self, table).await,
            KindTable::Counter(table) => counters::check_tables(self, table).await,
            KindTable::Ingest(table) => documents::check_tables(self, table).await,
            KindTable::Preference(table) => preferences::check_tables(self, table).await,
        }
    }

    async fn limits(&self, table: &KindTable) -> Result<Limits, SqlError> {
        let Some(name) = table_of(table) else { return Ok(Limits::default()) };
        let lease = self.lease().await?;
        let dialect = self.dialect();
        let mut seen = leased!(lease, |connection| look::<D>(connection, dialect, name))?;
        if let KindTable::Ingest(table) = table {
            seen.forms = Some(documents::plan(self, table).await?.forms.clone());
        }
        Ok(Limits::new(&dialect, table, &seen))
    }

    async fn existing(&self, parent: &Parent, ids: &[Id]) -> Result<Vec<bool>, SqlError> {
        let (statement, batch) = ((D::Engine::STATEMENTS.parents)(parent), Batch::new().ids(parent.form, ids));
        let rows = leased!(self.lease().await?, |connection| connection.fetch(&statement, &batch))?;
        let read = rows.iter().map(|row| row.id(0, parent.form));
        let found: HashSet<Id> = read.collect::<Result<_, _>>().map_err(sql_error)?;
        Ok(ids.iter().map(|id| found.contains(id)).collect())
    }
}

/// Reads the table that gets a kind's rows, and the tables that its foreign keys lead to.
async fn look<D: Driver>(
    connection: &mut Connection<D>,
    dialect: DialectIn<D>,
    table: &str,
) -> Result<Seen, sqlx::Error> {
    let facts = D::Engine::read_facts(connection, dialect, table, &[]).await?;
    let (statement, batch) = (D::Engine::STATEMENTS.foreign_keys)(table);
    let mut keys = Vec::new();
    for row in &connection.fetch(&statement, &batch).await? {
        let (column, other) = (row.text(0)?, row.text(1)?);
        let facts = D::Engine::read_facts(connection, dialect, &other, &[]).await?;
        // Without a name it is the other table's primary key.
        let named = row.optional_text(2)?;
        let Some(key) = named.or_else(|| primary_key(facts.as_ref()?)) else { continue };
        keys.push((column, other, key, facts));
    }
    Ok(Seen { facts, keys, forms: None })
}

/// The first column of a table's primary key, as SQLite names it.
fn primary_key(facts: &Introspection) -> Option<String> {
    facts.unique.iter().find(|key| key.name == "PRIMARY KEY")?.columns.first().cloned()
}

#[async_trait]
impl<D: Driver> Ask for Database<D> {
    async fn ask(&self, query: String) -> Result<Answer, SqlError> {
        let mut lease = self.lease().await?;
        match within(self.limit, D::ask(self, lease.connection(), query)).await {
            Ok(rows) => {
                lease.give_back();
                Ok(Answer::Rows(rows))
            }
            Err(error) => match judge(&error) {
                failure if matches!(failure.class, Class::Lost | Class::ReadOnly) => Err(failure.into()),
                failure => Ok(Answer::Unknown(failure.reason)),
            },
        }
    }
}
