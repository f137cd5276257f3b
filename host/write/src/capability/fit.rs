//! What SQL could never take is refused at the door: values that their column cannot hold, rows whose parent is not there.
//!
//! What the columns hold is read from the catalogue at the start, and again now and then: comparing costs no round trip. Whether
//! the row is there that a foreign key leads to is asked in bulk, of all who ask at the same time together, and remembered. What
//! is not known, because SQL does not answer, is let through: it is judged by the flush, as ever, and counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use metrics::{Counter, counter};
use serde_json::Value;

use weir_core::batcher::Batcher;
use weir_core::config::{BatchConfig, FitConfig, KindTable};
use weir_core::error::Refusal;
use weir_core::model::{Id, Settings, Violation};
use weir_core::telemetry;
use weir_sql::{Limits, Parent, ParentOf, Sql, SqlError, Standing, Unfit};

/// Ids that one statement asks for.
const IDS_MAX: usize = 1_000;
/// Pause before the catalogue is asked again after it did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What fits into the tables of one kind.
pub struct Fit {
    kind: String,
    table: KindTable,
    sql: Arc<dyn Sql>,
    batch: BatchConfig,
    config: FitConfig,
    known: ArcSwap<Known>,
    refused: Counter,
}

/// What is known now.
#[derive(Default)]
struct Known {
    limits: Limits,
    parents: Vec<Parents>,
}

/// The ids that a row is made of.
#[derive(Clone, Copy)]
struct RowIds<'i> {
    target: Option<&'i Id>,
    actor: Option<&'i Id>,
}

/// Rows that one foreign key leads to.
struct Parents {
    parent: Arc<Parent>,
    rows: Arc<Rows>,
    asked: Batcher<Id, Option<bool>>,
}

/// What is remembered of them.
struct Rows {
    sql: Arc<dyn Sql>,
    kept: quick_cache::sync::Cache<Id, (Instant, bool)>,
    config: FitConfig,
    kind: String,
    is_failing: AtomicBool,
    present: Counter,
    missing: Counter,
    skipped: Counter,
}

impl Fit {
    /// For one kind. Knows nothing, and lets everything through, before [`Fit::learn`].
    pub fn new(kind: &str, table: KindTable, sql: Arc<dyn Sql>, batch: &BatchConfig, config: &FitConfig) -> Self {
        Self {
            kind: kind.to_owned(),
            table,
            sql,
            batch: BatchConfig { items_max: batch.items_max.min(IDS_MAX), ..batch.clone() },
            config: config.clone(),
            known: ArcSwap::default(),
            refused: counter!(telemetry::UNFIT_TOTAL, "kind" => kind.to_owned()),
        }
    }

    /// Reads the catalogue. What is remembered of rows stays where nothing has changed.
    ///
    /// # Errors
    /// When SQL does not answer, or the tables cannot be used: what was known stays.
    pub async fn learn(&self) -> Result<(), SqlError> {
        let mut limits = self.sql.limits(&self.table).await?;
        if !self.config.parents {
            limits.parents.clear();
        }
        if self.known.load().limits != limits {
            let parents = limits.parents.iter().map(|parent| self.parents(parent)).collect();
            self.known.store(Arc::new(Known { limits, parents }));
        }
        Ok(())
    }

    /// Goes on reading the catalogue for as long as somebody has `fit`.
    pub fn keep_learning(fit: &Arc<Self>) {
        let (weak, refresh) = (Arc::downgrade(fit), Duration::from_millis(fit.config.refresh_ms));
        let mut pause = if fit.is_known() { refresh } else { RETRY };
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(fit) = weak.upgrade() else { return };
                // The flusher reports why it fails.
                pause = if fit.learn().await.is_ok() { refresh } else { RETRY };
            }
        });
    }

    fn is_known(&self) -> bool {
        self.known.load().limits != Limits::default()
    }

    fn parents(&self, parent: &Parent) -> Parents {
        let outcome = |outcome: &'static str| counter!(telemetry::PARENT_CHECKS_TOTAL, "kind" => self.kind.clone(), "outcome" => outcome);
        let rows = Arc::new(Rows {
            sql: Arc::clone(&self.sql),
            kept: quick_cache::sync::Cache::new(self.config.parents_max),
            config: self.config.clone(),
            kind: self.kind.clone(),
            is_failing: AtomicBool::new(false),
            present: outcome("present"),
            missing: outcome("missing"),
            skipped: outcome("skipped"),
        });
        let (asking, parent) = (Arc::clone(&rows), Arc::new(parent.clone()));
        let of = Arc::clone(&parent);
        let asked = Batcher::start(&self.batch, "parents", &self.kind, move |ids: Vec<Id>| {
            let (rows, parent) = (Arc::clone(&asking), Arc::clone(&of));
            async move { rows.ask(&parent, &ids).await }
        });
        Parents { parent, rows, asked }
    }

    /// Whether ids and number fit, and, where a row may be `made` of them, whether those are there that it belongs to.
    ///
    /// # Errors
    /// [`Refusal::Unfit`], [`Refusal::ParentMissing`].
    pub async fn check(&self, target: &Id, actor: Option<&Id>, by: Option<u32>, made: bool) -> Result<(), Refusal> {
        let ids = RowIds { target: Some(target), actor };
        if self.check_now(ids, by, made)? {
            return Ok(());
        }
        // In a box: who is remembered must not hold room for it.
        Box::pin(self.ask_parents(ids)).await
    }

    /// As [`Fit::check`], of who creates a document.
    ///
    /// # Errors
    /// As [`Fit::check`].
    pub async fn check_actor(&self, actor: &Id) -> Result<(), Refusal> {
        let ids = RowIds { target: None, actor: Some(actor) };
        if self.check_now(ids, None, true)? {
            return Ok(());
        }
        Box::pin(self.ask_parents(ids)).await
    }

    /// What can be said without asking; `false` where SQL must be asked.
    fn check_now(&self, ids: RowIds<'_>, by: Option<u32>, made: bool) -> Result<bool, Refusal> {
        let known = self.known.load();
        known.limits.check(ids.target, ids.actor, by).map_err(|unfit| self.refuse_unfit(unfit))?;
        let mut is_known = true;
        for Parents { parent, rows, .. } in known.parents.iter().filter(|_| made) {
            let Some(id) = ids.that_must_be_there(parent) else { continue };
            match rows.remembered(id) {
                Some(true) => {}
                Some(false) => return Err(self.missing(parent)),
                None => is_known = false,
            }
        }
        Ok(is_known)
    }

    async fn ask_parents(&self, ids: RowIds<'_>) -> Result<(), Refusal> {
        let known = self.known.load_full();
        for Parents { parent, rows, asked } in &known.parents {
            let Some(id) = ids.that_must_be_there(parent) else { continue };
            if rows.remembered(id) != Some(true) && !rows.wait(asked, id).await {
                return Err(self.missing(parent));
            }
        }
        Ok(())
    }

    fn missing(&self, parent: &Parent) -> Refusal {
        let (column, table) = (Arc::clone(&parent.column), parent.table.as_str().into());
        self.refuse(Refusal::ParentMissing { column, table })
    }

    /// Whether the id of a document from outside fits.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check_document_id(&self, id: &Id) -> Result<(), Unfit> {
        self.known.load().limits.check(Some(id), None, None)
    }

    /// Whether what is set of a member fits.
    ///
    /// # Errors
    /// [`Refusal::Unfit`].
    pub fn check_settings(&self, settings: &Settings) -> Result<(), Refusal> {
        self.known.load().limits.check_settings(settings).map_err(|unfit| self.refuse_unfit(unfit))
    }

    /// What of a document does not fit, at most `most`.
    pub fn violations(&self, document: &Value, most: usize) -> Vec<Violation> {
        self.known.load().limits.violations(document, most)
    }

    fn refuse_unfit(&self, Unfit { column, limit }: Unfit) -> Refusal {
        self.refuse(Refusal::Unfit { column, limit })
    }

    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.refused.increment(1);
        refusal
    }
}

impl<'i> RowIds<'i> {
    /// The id that must be there.
    fn that_must_be_there(self, parent: &Parent) -> Option<&'i Id> {
        match parent.of {
            ParentOf::Target => self.target,
            ParentOf::Actor => self.actor,
        }
    }
}

impl Rows {
    fn remembered(&self, id: &Id) -> Option<bool> {
        let (until, is_there) = self.kept.get(id)?;
        (Instant::now() < until).then_some(is_there)
    }

    /// Whether it is there, as SQL says; where SQL does not say it in time, it is taken to be.
    async fn wait(&self, asked: &Batcher<Id, Option<bool>>, id: &Id) -> bool {
        let answer = async {
            if self.sql.standing() != Standing::Serves {
                return None;
            }
            let limit = Duration::from_millis(self.config.wait_ms);
            tokio::time::timeout(limit, asked.submit(id.clone())).await.ok()?.ok()?
        };
        match answer.await {
            Some(is_there) => {
                if is_there { &self.present } else { &self.missing }.increment(1);
                is_there
            }
            None => {
                self.skipped.increment(1);
                true
            }
        }
    }

    /// Asks for many; each may be there more than once.
    async fn ask(&self, parent: &Parent, ids: &[Id]) -> Vec<Option<bool>> {
        let mut distinct: Vec<Id> = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let found = match self.sql.existing(parent, &distinct).await {
            Ok(found) => found,
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    let (kind, column) = (&self.kind, &*parent.column);
                    tracing::warn!(kind, column, %error, "it is not known which rows are there that a foreign key leads to");
                }
                return vec![None; ids.len()];
            }
        };
        self.is_failing.store(false, Ordering::Relaxed);
        let now = Instant::now();
        for (id, is_there) in distinct.iter().zip(&found) {
            let kept_ms = if *is_there { self.config.present_ms } else { self.config.missing_ms };
            self.kept.insert(id.clone(), (now + Duration::from_millis(kept_ms), *is_there));
        }
        let of = |id: &Id| distinct.binary_search(id).ok().and_then(|place| found.get(place).copied());
        ids.iter().map(of).collect()
    }
}
