//! What operators do with a store when no host runs: inspect it, give up waiting changes, move them to another kind, or
//! give the store to another database.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::custody::{self, Verdict};
use super::{AppError, load_policies};
use crate::cache::InvalidationLog;
use crate::clock::Clock;
use crate::config::{Config, KindTable};
use crate::flush::{FlushParts, Flusher};
use crate::journal::JournalWatch;
use crate::policy::{Compiler, PolicySetup};
use crate::sql::Sql;
use crate::store::{Inventory, KindInventory, Store};

/// How long the flush of a kind may take that gets another name. What is left then goes on the next time.
const RENAME_TIME: Duration = Duration::from_secs(600);

/// Store and SQL of a configuration, for one command.
pub struct Keeper {
    config: Config,
    store: Arc<dyn Store>,
    sql: Arc<dyn Sql>,
}

impl Keeper {
    /// Opens both. Whose the journal is, is not looked at.
    ///
    /// # Errors
    /// When one of them does not answer, or a running host has the directory.
    pub async fn open(config: Config) -> Result<Self, AppError> {
        let config = config.with_namespace();
        let store = crate::store::open(&config.store).await?;
        let sql = crate::sql::open(&config.sql).await?;
        sql.migrate().await?;
        Ok(Self { config, store, sql })
    }

    /// Does what a start does, except for kinds that no host flushes: the caller deals with those.
    async fn settle(&self) -> Result<Inventory, AppError> {
        let holdings = self.store.inventory().await?;
        let verdict = custody::judge_owner(&self.config, &holdings, &*self.sql).await?;
        super::schema::refuse_or_warn(verdict.findings.clone())?;
        custody::bind(&self.config, &*self.store, &*self.sql, &verdict, false).await?;
        Ok(self.store.inventory().await?)
    }

    /// Deletes all of a kind. Returns the number of changes given up.
    ///
    /// # Errors
    /// When the journal is not this database's, a host flushes the kind, or there is no such kind.
    pub async fn drop_kind(&self, kind: &str) -> Result<u64, AppError> {
        let held = found(&self.settle().await?, kind)?;
        self.store.drop_kind(kind).await?;
        Ok(held.waiting())
    }

    /// Deletes everything, regardless of which database owns it. Returns the number of changes given up.
    ///
    /// # Errors
    /// When a host flushes one of its kinds.
    pub async fn drop_all(&self) -> Result<u64, AppError> {
        let holdings = self.store.inventory().await?;
        is_at_rest(&holdings)?;
        self.store.drop_all().await?;
        Ok(holdings.kinds.iter().map(KindInventory::waiting).sum())
    }

    /// Gives the journal to the database at `sql.url`.
    ///
    /// # Errors
    /// When a host flushes one of its kinds.
    pub async fn adopt(&self) -> Result<Inventory, AppError> {
        let holdings = self.store.inventory().await?;
        is_at_rest(&holdings)?;
        let verdict = Verdict::adopting(&self.config, &holdings);
        custody::bind(&self.config, &*self.store, &*self.sql, &verdict, true).await?;
        Ok(self.store.inventory().await?)
    }

    /// Gives up what waits in other stores of this database; how many kinds that concerned.
    ///
    /// # Errors
    /// When SQL does not answer.
    pub async fn forget(&self) -> Result<usize, AppError> {
        let holdings = self.store.inventory().await?;
        self.sql.identify().await?;
        Ok(custody::forget_others(&self.config, &holdings, &*self.sql).await?)
    }

    /// Writes the waiting changes of kind `from` into the tables of kind `to`, once, and deletes `from`. Returns the
    /// number of changes. Other state (idempotency keys, windows of uniqueness) is not carried over.
    ///
    /// # Errors
    /// When `to` is not configured, `from` is, or some of it could not be flushed: then it stays where it is.
    pub async fn rename(&self, from: &str, to: &str) -> Result<u64, AppError> {
        let refused = |reason: String| AppError::System { what: format!("rename {from}"), reason };
        let Some((table, renamed)) = self
            .config
            .kinds()
            .into_iter()
            .find(|(kind, _)| *kind == to)
            .map(|(_, table)| (table, crate::write::renamed(&self.config, to, from)))
        else {
            return Err(refused(format!("the configuration has no kind {to}")));
        };
        if self.config.kinds().iter().any(|(kind, _)| *kind == from) {
            return Err(refused(format!("the configuration still has it: take {from} out first")));
        }
        let held = found(&self.settle().await?, from)?;
        let flusher = self.flusher(from, table, &renamed).await?;
        let flushed = flusher.flush_now(RENAME_TIME).await;
        flusher.stop(Duration::ZERO).await;
        flushed.map_err(|error| refused(format!("{error}; what was not flushed is still there")))?;
        self.sql.rename_dead_letters(from, to).await?;
        self.store.drop_kind(from).await?;
        Ok(held.waiting())
    }

    /// A flusher of kind `kind` into `table`.
    async fn flusher(&self, kind: &str, table: KindTable, config: &Config) -> Result<Flusher, AppError> {
        let setup = PolicySetup { compiler: Compiler::this_executable(), ..PolicySetup::default() };
        let policies = load_policies(config, setup).await?;
        let (_, schema_ready) = watch::channel(true);
        Ok(Flusher::start(FlushParts {
            kind: kind.to_owned(),
            table,
            fold: crate::write::fold,
            config: config.flush.clone(),
            owner: format!("store-{}", std::process::id()),
            policies: Arc::clone(&policies.rules),
            watch: Arc::new(JournalWatch::new(self.store.partitions(), Clock::Real)),
            store: Arc::<dyn Store>::clone(&self.store),
            sql: self.sql.clone(),
            journal: config.journal.clone(),
            invalidations: Arc::new(InvalidationLog::default()),
            clock: Clock::Real,
            schema_ready,
        }))
    }
}

/// Finds a kind that the store holds and no host flushes now.
fn found(holdings: &Inventory, kind: &str) -> Result<KindInventory, AppError> {
    let refused = |reason: String| AppError::System { what: format!("find {kind}"), reason };
    let Some(held) = holdings.all().find(|held| held.kind == kind) else {
        return Err(refused(format!("{} holds no such kind", holdings.place)));
    };
    if held.is_flushed {
        return Err(refused("a host flushes it now: stop it, and wait until its lease is over".into()));
    }
    Ok(held.clone())
}

fn is_at_rest(holdings: &Inventory) -> Result<(), AppError> {
    holdings.all().filter(|held| held.is_flushed).try_for_each(|held| found(holdings, &held.kind).map(|_| ()))
}
