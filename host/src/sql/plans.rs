//! What an engine has prepared for tables, so that the catalogue is read once.
//!
//! Engine-free part of the room. Sends nothing.

use std::sync::{Arc, PoisonError, RwLock};

use super::SqlError;

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

    /// Forgets it when a failure may come from a changed schema.
    pub fn heed<R>(&self, table: &T, result: Result<R, SqlError>) -> Result<R, SqlError> {
        if matches!(result, Err(SqlError::Permanent(_))) {
            self.forget(table);
        }
        result
    }
}
