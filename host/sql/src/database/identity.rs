//! Which database this is, and where the journals of its kinds are.

use super::{Connection, Database};
use crate::classify::sql_error;
use crate::driver::Driver;
use crate::engine::Backend as _;
use crate::lease::leased;
use crate::wire::{Batch, Record as _, Wire as _};
use crate::{SqlError, identity};
use weir_core::model::{DatabaseId, KnownJournal};

impl<D: Driver> Database<D> {
    async fn has_table(&self, name: &str) -> Result<bool, SqlError> {
        let batch = Batch::new().text(name);
        let rows = leased!(self.lease().await?, |connection| connection.fetch(&Self::own().has_table, &batch))?;
        rows.first().map_or(Ok(false), |row| row.boolean(0)).map_err(sql_error)
    }

    /// The value in `weir_meta` of this name, which is `value` where there was none.
    pub(super) async fn recorded(&self, name: &str, value: &str) -> Result<String, SqlError> {
        let record = Batch::new().text(name).text(value);
        leased!(self.lease().await?, |connection| async {
            connection.execute(&Self::own().meta_record, &record).await?;
            self.read_meta(connection, name).await?.ok_or(sqlx::Error::RowNotFound)
        })
    }

    async fn read_meta(&self, connection: &mut Connection<D>, name: &str) -> Result<Option<String>, sqlx::Error> {
        let rows = connection.fetch(&Self::own().meta_read, &Batch::new().text(name)).await?;
        rows.first().map(|row| row.text(0)).transpose()
    }

    /// See [`crate::Sql::database_id`].
    pub(super) async fn read_id(&self) -> Result<Option<DatabaseId>, SqlError> {
        if !self.has_table("weir_meta").await? {
            return Ok(None);
        }
        let text = leased!(self.lease().await?, |connection| self.read_meta(connection, identity::NAME))?;
        text.map(|text| identity::parsed(&text)).transpose().map_err(sql_error)
    }

    /// See [`crate::Sql::identify`].
    pub(super) async fn make_id(&self) -> Result<DatabaseId, SqlError> {
        let text = self.recorded(identity::NAME, &identity::fresh()).await?;
        identity::parsed(&text).map_err(sql_error)
    }

    /// See [`crate::Sql::journals`].
    pub(super) async fn read_journals(&self) -> Result<Vec<KnownJournal>, SqlError> {
        if !self.has_table("weir_journal").await? {
            return Ok(Vec::new());
        }
        let batch = Batch::new();
        let rows = leased!(self.lease().await?, |connection| connection.fetch(&Self::own().journals, &batch))?;
        let journals =
            rows.iter().map(|row| identity::journal(row.text(0)?, &row.text(1)?, row.text(2)?, row.boolean(3)?));
        journals.collect::<Result<_, _>>().map_err(sql_error)
    }

    /// See [`crate::Sql::note_journals`].
    pub(super) async fn write_journals(&self, journals: &[KnownJournal]) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| async {
            for known in journals {
                let batch = Batch::new().text(known.kind.as_str()).uuid(known.journal.0).text(known.place.as_str());
                connection.execute(&Self::own().journal_set, &batch.boolean(known.is_closed)).await?;
            }
            Ok(())
        })
    }
}
