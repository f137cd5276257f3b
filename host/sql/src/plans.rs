//! What is prepared for tables, so that the catalogue is read once.
//!
//! Sends nothing.

use std::sync::{Arc, PoisonError, RwLock};

use super::SqlError;
use super::engine::{Backend, Engine};
use super::exec::counters::{self, CounterPlan};
use super::exec::documents::{self, DocumentPlan};
use super::exec::preferences::{self, PreferencePlan};
use super::exec::toggles::{self, TogglePlan};
use weir_core::config::{CounterTable, IngestTable, KindTable, PreferenceTable, ToggleTable};

/// What is prepared for the tables of one kind.
#[derive(Debug)]
pub(super) struct Plan<T, F, S> {
    /// Its tables.
    pub table: T,
    /// How values lie in their columns.
    pub forms: F,
    /// Its statements.
    pub statements: S,
}

/// The plan of a kind of any capability.
pub(super) enum PlanOf<E: Engine> {
    /// Of a toggle.
    Toggle(Arc<TogglePlan<E>>),
    /// Of a counter.
    Counter(Arc<CounterPlan<E>>),
    /// Of documents.
    Ingest(Arc<DocumentPlan<E>>),
    /// Of preferences.
    Preference(Arc<PreferencePlan<E>>),
}

impl<E: Engine> PlanOf<E> {
    /// What is prepared for the tables, prepared now if need be.
    pub async fn of<B: Backend<Engine = E>>(backend: &B, table: &KindTable) -> Result<Self, SqlError> {
        Ok(match table {
            KindTable::Toggle(table) => Self::Toggle(toggles::plan(backend, table).await?),
            KindTable::Counter(table) => Self::Counter(counters::plan(backend, table).await?),
            KindTable::Ingest(table) => Self::Ingest(documents::plan(backend, table).await?),
            KindTable::Preference(table) => Self::Preference(preferences::plan(backend, table).await?),
        })
    }
}

/// The plans of all kinds.
pub(super) struct PlanCache<E: Engine> {
    /// Of toggles.
    pub toggles: Plans<ToggleTable, TogglePlan<E>>,
    /// Of counters.
    pub counters: Plans<CounterTable, CounterPlan<E>>,
    /// Of documents.
    pub documents: Plans<IngestTable, DocumentPlan<E>>,
    /// Of preferences.
    pub preferences: Plans<PreferenceTable, PreferencePlan<E>>,
}

impl<E: Engine> Default for PlanCache<E> {
    fn default() -> Self {
        Self {
            toggles: Plans::default(),
            counters: Plans::default(),
            documents: Plans::default(),
            preferences: Plans::default(),
        }
    }
}

impl<E: Engine> PlanCache<E> {
    /// Hands the result on, and forgets the plan of the tables when a failure may come from a changed schema.
    pub fn invalidated_by<R>(&self, table: &KindTable, result: Result<R, SqlError>) -> Result<R, SqlError> {
        match table {
            KindTable::Toggle(table) => self.toggles.invalidated_by(table, result),
            KindTable::Counter(table) => self.counters.invalidated_by(table, result),
            KindTable::Ingest(table) => self.documents.invalidated_by(table, result),
            KindTable::Preference(table) => self.preferences.invalidated_by(table, result),
        }
    }
}

/// What is prepared for tables of one capability.
pub(super) struct Plans<T, P>(RwLock<Vec<(T, Arc<P>)>>);

impl<T, P> Default for Plans<T, P> {
    fn default() -> Self {
        Self(RwLock::new(Vec::new()))
    }
}

impl<T: PartialEq + Clone, P> Plans<T, P> {
    /// What was prepared for `table`.
    pub fn get(&self, table: &T) -> Option<Arc<P>> {
        let plans = self.0.read().unwrap_or_else(PoisonError::into_inner);
        plans.iter().find(|(known, _)| known == table).map(|(_, plan)| Arc::clone(plan))
    }

    /// Keeps what was prepared for `table`.
    pub fn put(&self, table: &T, plan: P) -> Arc<P> {
        let plan = Arc::new(plan);
        let mut plans = self.0.write().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|(known, _)| known != table);
        plans.push((table.clone(), Arc::clone(&plan)));
        plan
    }

    /// Forgets it: the tables are not what they were.
    pub fn forget(&self, table: &T) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != table);
    }

    /// Hands the result on, and forgets the plan when a failure may come from a changed schema.
    pub fn invalidated_by<R>(&self, table: &T, result: Result<R, SqlError>) -> Result<R, SqlError> {
        if matches!(result, Err(SqlError::Permanent(_))) {
            self.forget(table);
        }
        result
    }
}
