//! Pairs of toggles: how they are stored, and how what was really changed is counted.

use std::collections::HashSet;

use super::flush::{Effect, FlushTransaction};
use super::toggles::{TogglePlan, WriteStatements, read_known, read_pairs};
use crate::effect::{WriteOperation, all_counted, all_met, pairs_left};
use crate::engine::{Engine, StatementOf};
use crate::introspection::toggle::mismatch;
use crate::rows::{Deltas, Unstorable, split, unsigned};
use crate::wire::{Batch, Record as _, Statement as _};
use crate::{Row, RowChange};
use weir_core::model::{Action, Id};

/// What a statement did to pairs.
struct Changed {
    /// Pairs that it really changed.
    rows: u64,
    /// Whether there are triggers that may have discarded others; `None` where the statement does not say.
    may_skip: Option<bool>,
}

/// A statement that returns what it changed.
struct Returning<'s, S> {
    statement: &'s S,
    action: Action,
    says_skipping: bool,
}

/// Statements of an engine that returns nothing.
struct Looking<'s, S> {
    look: &'s S,
    delete: &'s S,
    insert: &'s S,
}

impl<E: Engine> FlushTransaction<'_, E> {
    /// Deletes, inserts, and counts what was really changed.
    pub(super) async fn store_toggles(&mut self, plan: &TogglePlan<E>, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        match &plan.statements.write {
            WriteStatements::Returning { delete, insert, says_skipping } => {
                let says_skipping = *says_skipping;
                let delete = Returning { statement: delete, action: Action::Remove, says_skipping };
                let insert = Returning { statement: insert, action: Action::Add, says_skipping };
                self.store_returning(plan, [delete, insert], rows).await
            }
            WriteStatements::Looking { look, delete, insert } => {
                self.store_looking(plan, &Looking { look, delete, insert }, rows).await
            }
        }
    }

    async fn store_returning(
        &mut self,
        plan: &TogglePlan<E>,
        [delete, insert]: [Returning<'_, StatementOf<E>>; 2],
        rows: &[&Row],
    ) -> Result<Effect, sqlx::Error> {
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        effect.deleted = self.change(plan, &delete, rows, &mut deltas, &mut effect.dead).await?;
        effect.inserted = self.change(plan, &insert, rows, &mut deltas, &mut effect.dead).await?;
        let (targets, changes) = deltas.changed();
        if let (Some(key), Some(lock), 2..) = (plan.forms.key, &plan.statements.lock_counts, targets.len()) {
            self.execute(lock, &Batch::new().ids(key, targets.iter().copied())).await?;
        }
        self.count(plan, &targets, &changes).await?;
        Ok(effect)
    }

    /// Deletes or inserts those of the rows that have the statement's action, and looks for those that were discarded; how
    /// many it really changed.
    async fn change(
        &mut self,
        plan: &TogglePlan<E>,
        returning: &Returning<'_, StatementOf<E>>,
        rows: &[&Row],
        deltas: &mut Deltas,
        dead: &mut Vec<Unstorable>,
    ) -> Result<u64, sqlx::Error> {
        let (removes, adds) = split(rows);
        let changes = if returning.action == Action::Add { adds } else { removes };
        if changes.is_empty() {
            return Ok(0);
        }
        let changed = self.run(plan, returning, &changes, deltas).await?;
        if changed.rows < changes.len() as u64 && self.may_skip(plan, changed.may_skip).await? {
            let there = self.pairs_there(plan, &changes).await?;
            dead.extend(pairs_left(&plan.table.name, rows, returning.action, &there));
        }
        Ok(changed.rows)
    }

    /// Deletes or inserts, adding to the delta of each row that it really changed.
    async fn run(
        &mut self,
        plan: &TogglePlan<E>,
        returning: &Returning<'_, StatementOf<E>>,
        changes: &[&RowChange],
        deltas: &mut Deltas,
    ) -> Result<Changed, sqlx::Error> {
        let is_insert = returning.action == Action::Add;
        let by = if is_insert { 1 } else { -1 };
        let batch = pairs_of::<E>(plan, changes, is_insert);
        // If nothing changed, the database does not report whether there are triggers.
        let mut changed = Changed { rows: 0, may_skip: returning.says_skipping.then_some(true) };
        for row in &self.fetch(returning.statement, &batch).await? {
            let mut count = 1;
            if returning.says_skipping {
                count = row.integer(1)?;
                changed.may_skip = Some(row.boolean(2)?);
            }
            deltas.add(row.id(0, plan.forms.target)?, by * count);
            changed.rows += unsigned(count);
        }
        Ok(changed)
    }

    /// Whether there are triggers that may have discarded a row.
    async fn may_skip(&mut self, plan: &TogglePlan<E>, said: Option<bool>) -> Result<bool, sqlx::Error> {
        if let Some(said) = said {
            return Ok(said);
        }
        self.statements += 1;
        E::may_skip(self.connection, &plan.table.name).await
    }

    /// Those of the pairs that are there.
    async fn pairs_there(
        &mut self,
        plan: &TogglePlan<E>,
        changes: &[&RowChange],
    ) -> Result<HashSet<(Id, Id)>, sqlx::Error> {
        self.statements += 1;
        let pairs: Vec<(&Id, &Id)> = changes.iter().map(|change| (&change.target, &change.actor)).collect();
        let found = read_pairs::<E>(self.connection, plan, &plan.statements.pairs, &pairs).await?;
        let there = pairs.iter().zip(found).filter(|(_, at_ms)| at_ms.is_some());
        Ok(there.map(|((target, actor), _)| ((*target).clone(), (*actor).clone())).collect())
    }

    async fn store_looking(
        &mut self,
        plan: &TogglePlan<E>,
        looking: &Looking<'_, StatementOf<E>>,
        rows: &[&Row],
    ) -> Result<Effect, sqlx::Error> {
        let Looking { look, delete, insert } = *looking;
        let (removes, adds) = split(rows);
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        self.lock_targets(plan, rows).await?;
        for part in look.parts(&removes) {
            let (there, _) = self.look(plan, look, part).await?;
            for piece in delete.parts(&there) {
                let met = self.execute(delete, &pairs_of::<E>(plan, piece, false)).await?;
                all_met(WriteOperation::Delete, &plan.table.name, met, piece.len())?;
                piece.iter().for_each(|change| deltas.add(change.target.clone(), -1));
                effect.deleted += met;
            }
        }
        for part in look.parts(&adds) {
            let (_, missing) = self.look(plan, look, part).await?;
            // Should another session have added one of the pairs meanwhile, the unique key says so, and the search for
            // the bad row looks again and finds it there.
            for piece in insert.parts(&missing) {
                let met = self.execute(insert, &pairs_of::<E>(plan, piece, true)).await?;
                all_met(WriteOperation::Insert, &plan.table.name, met, piece.len())?;
                piece.iter().for_each(|change| deltas.add(change.target.clone(), 1));
                effect.inserted += met;
            }
        }
        let (targets, changes) = deltas.changed();
        self.count(plan, &targets, &changes).await?;
        Ok(effect)
    }

    /// Locks the rows of the targets in order. Inserting into a table with a foreign key would take shared locks on
    /// them first, and two flushers would then wait for each other to count.
    async fn lock_targets(&mut self, plan: &TogglePlan<E>, rows: &[&Row]) -> Result<(), sqlx::Error> {
        let (Some(key), Some(lock)) = (plan.forms.key, &plan.statements.lock_counts) else { return Ok(()) };
        // Sorted by target before.
        let mut targets: Vec<&Id> = rows.iter().map(|row| row.target()).collect();
        targets.dedup();
        for part in lock.parts(&targets) {
            let batch = self.locking(Batch::new().ids(key, part.iter().copied()));
            self.fetch(lock, &batch).await?;
        }
        Ok(())
    }

    /// Locks the existing rows and separates them from the missing ones. Compared exactly: a collation
    /// that takes other ids for equal deletes nothing, and is met by the unique key when it inserts.
    async fn look<'r>(
        &mut self,
        plan: &TogglePlan<E>,
        look: &StatementOf<E>,
        changes: &[&'r RowChange],
    ) -> Result<(Vec<&'r RowChange>, Vec<&'r RowChange>), sqlx::Error> {
        self.statements += 1;
        let pairs: Vec<(&Id, &Id)> = changes.iter().map(|change| (&change.target, &change.actor)).collect();
        let found = read_pairs::<E>(self.connection, plan, look, &pairs).await?;
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for (change, at_ms) in changes.iter().zip(found) {
            if at_ms.is_some() { there.push(*change) } else { missing.push(*change) }
        }
        Ok((there, missing))
    }

    /// Adds to the counts of targets, and looks whether those that were not met are not there.
    async fn count(&mut self, plan: &TogglePlan<E>, targets: &[&Id], changes: &[i64]) -> Result<(), sqlx::Error> {
        let (Some(key), Some(add)) = (plan.forms.key, &plan.statements.counts) else { return Ok(()) };
        for (part, changes) in add.parts(targets).into_iter().zip(add.parts(changes)) {
            let batch = Batch::new().ids(key, part.iter().copied()).integers(changes.iter().copied());
            let counted = self.execute(add, &batch).await?;
            if counted < part.len() as u64 {
                self.statements += 1;
                let ids: Vec<Id> = part.iter().map(|target| (*target).clone()).collect();
                let known = read_known::<E>(self.connection, plan, &ids).await?;
                all_counted(&plan.table, counted, part, changes, known.as_ref())?;
            }
        }
        Ok(())
    }

    /// What makes every insert fail.
    pub(super) async fn toggle_mismatch(&mut self, plan: &TogglePlan<E>) -> Result<Option<String>, sqlx::Error> {
        let pairs = E::read_facts(self.connection, self.dialect, &plan.table.name, &[]).await?;
        Ok(mismatch(&self.dialect, &plan.table, pairs.as_ref()))
    }
}

/// Targets, actors, and times where they are stored.
fn pairs_of<'r, E: Engine>(plan: &TogglePlan<E>, changes: &[&'r RowChange], is_insert: bool) -> Batch<'r> {
    let forms = plan.forms;
    let batch = Batch::new().ids(forms.target, changes.iter().map(|change| &change.target));
    let batch = batch.ids(forms.actor, changes.iter().map(|change| &change.actor));
    match forms.created {
        Some(form) if is_insert => batch.times(form, changes.iter().map(|change| change.origin.at_ms)),
        _ => batch,
    }
}
