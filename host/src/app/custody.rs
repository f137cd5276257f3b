//! Which database owns the journal, and whether everything in it gets flushed to SQL. A start and `weir check` compare
//! this before anything is flushed.
//!
//! Part of `app`, because it joins store and SQL, which do not know each other. What is compared:
//! - the database that is recorded with the journal, and the one that `sql.url` leads to;
//! - if an earlier version recorded none: the incarnations of its partitions and `weir_checkpoint`, which only a
//!   database that has flushed them holds;
//! - the kinds that hold changes, and those that are configured;
//! - where this database's kinds were journaled last (`weir_journal`), and where they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::AppError;
use super::schema::{self, KindFinding};
use crate::config::{Config, Namespace, StoreConfig, StoreType};
use crate::model::{DatabaseId, KnownJournal};
use crate::sql::{Finding, Problem, Sql, SqlError};
use crate::store::{Binding, ForeignJournal, Inventory, KindInventory, Store, StoreError};

/// How often it is looked whether the host that flushes a kind is still there.
const LEASE_LOOK: Duration = Duration::from_millis(200);

/// What the comparison came to.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What was found.
    pub findings: Vec<KindFinding>,
    /// The kinds of an earlier version that were shown to be this database's.
    take: Vec<String>,
    takes_all: bool,
}

/// Compares, binds the journal to its database, and notes where it is. Nothing is flushed before.
///
/// # Errors
/// [`AppError::Schema`] with the ways out, where something does not fit.
pub async fn settle(config: &Config, store: &dyn Store, sql: &dyn Sql) -> Result<(), AppError> {
    let holdings = look_twice(config, store).await?;
    let verdict = judge(config, &holdings, sql).await?;
    schema::refuse_or_warn(verdict.findings.clone())?;
    bind(config, store, sql, &verdict, false).await
}

/// Binds the journal to the database at `sql.url`, and notes where it is.
///
/// # Errors
/// When the store or SQL does not answer, or when the journal belongs to another database and `is_forced` is false.
pub async fn bind(
    config: &Config,
    store: &dyn Store,
    sql: &dyn Sql,
    verdict: &Verdict,
    is_forced: bool,
) -> Result<(), AppError> {
    let database = sql.identify().await?;
    let kinds: Vec<String> = config.kinds().iter().map(|(kind, _)| (*kind).to_owned()).collect();
    let rooms = config.rooms.iter().map(|room| room.kind.clone()).collect();
    let (take, takes_all) = (verdict.take.clone(), verdict.takes_all);
    store.bind(&Binding { database, kinds: kinds.clone(), rooms, take, takes_all, is_forced }).await?;
    sql.pin(database);
    note(&kinds, store, sql, false).await
}

/// Notes where the journals of kinds are.
async fn note(kinds: &[String], store: &dyn Store, sql: &dyn Sql, is_closed: bool) -> Result<(), AppError> {
    let holdings = store.inventory().await?;
    let Some(journal) = holdings.journal else { return Ok(()) };
    let known = |kind: &String| KnownJournal { kind: kind.clone(), journal, place: holdings.place.clone(), is_closed };
    Ok(sql.note_journals(&kinds.iter().map(known).collect::<Vec<_>>()).await?)
}

/// Called when a host stops. If no other host writes to its journal and the journal is empty, this records it as
/// closed, so that another store may take its place.
///
/// # Errors
/// When store or SQL do not answer.
pub async fn close(config: &Config, store: &dyn Store, sql: &dyn Sql) -> Result<(), AppError> {
    let is_shared = config.store.store_type != StoreType::Embedded;
    if is_shared || store.inventory().await?.all().any(|kind| kind.waiting() > 0) {
        return Ok(());
    }
    let kinds: Vec<String> = config.kinds().iter().map(|(kind, _)| (*kind).to_owned()).collect();
    note(&kinds, store, sql, true).await
}

/// What the store holds. A kind that is not configured here may belong to another host, which flushes it. A killed host
/// leaves a lease that looks the same for a while.
async fn look_twice(config: &Config, store: &dyn Store) -> Result<Inventory, StoreError> {
    let until = Instant::now() + Duration::from_millis(config.flush.lease_ms + config.flush.lease_ms / 2);
    loop {
        let holdings = store.inventory().await?;
        let is_in_doubt =
            |kind: &KindInventory| kind.is_flushed && kind.waiting() > 0 && !is_configured(config, &kind.kind);
        if !holdings.all().any(is_in_doubt) || Instant::now() > until {
            return Ok(holdings);
        }
        tokio::time::sleep(LEASE_LOOK).await;
    }
}

/// Compares what a store holds with the database and the configuration. Changes nothing.
///
/// # Errors
/// When SQL does not answer.
pub async fn judge(config: &Config, holdings: &Inventory, sql: &dyn Sql) -> Result<Verdict, SqlError> {
    let ours = sql.database_id().await?;
    let mut verdict = judge_owner(config, holdings, sql).await?;
    if holdings.database.is_none() || holdings.database == ours {
        // If the journal belongs to another database, this one does not judge its other contents.
        verdict.findings.extend(orphans(config, holdings, &verdict.take));
        verdict.findings.extend(elsewhere(config, holdings, ours, sql).await?);
    }
    Ok(verdict)
}

/// Compares only whose the journal is. Changes nothing.
///
/// # Errors
/// When SQL does not answer.
pub async fn judge_owner(config: &Config, holdings: &Inventory, sql: &dyn Sql) -> Result<Verdict, SqlError> {
    let ours = sql.database_id().await?;
    let mut verdict = Verdict::default();
    if let Some(owner) = holdings.database.filter(|owner| Some(*owner) != ours) {
        let ForeignJournal { problem, remedy } = ForeignJournal::new(&holdings.place, owner, ours);
        verdict.findings.push(refusal(Problem::ForeignJournal, problem, remedy));
        return Ok(verdict);
    }
    if let Some(recorded) = holdings.partitions.filter(|recorded| *recorded != config.store.partitions) {
        verdict.findings.push(refusal(
            Problem::Partitions,
            format!("{} holds data of {recorded} partitions", holdings.place),
            format!("write store.partitions = {recorded}, or let weir flush all and start with an empty store"),
        ));
    }
    prove(config, holdings, sql, &mut verdict).await?;
    Ok(verdict)
}

/// Which kinds of an earlier version are this database's.
async fn prove(config: &Config, holdings: &Inventory, sql: &dyn Sql, verdict: &mut Verdict) -> Result<(), SqlError> {
    let is_embedded = config.store.store_type == StoreType::Embedded;
    let (mut shown, mut others) = (Vec::new(), Vec::new());
    for kind in &holdings.earlier {
        if kind.is_taken || has_flushed(kind, sql).await? { shown.push(kind) } else { others.push(kind) }
    }
    // A directory is of one host, and so of one database.
    if is_embedded && !shown.is_empty() {
        shown.append(&mut others);
    }
    verdict.take = shown.iter().map(|kind| kind.kind.clone()).collect();
    verdict.takes_all = others.is_empty();
    let in_doubt = |kind: &&&KindInventory| kind.waiting() > 0 && (is_embedded || is_configured(config, &kind.kind));
    let in_doubt: Vec<&KindInventory> = others.iter().filter(in_doubt).copied().collect();
    if in_doubt.is_empty() {
        return Ok(());
    }
    let is_named = config.store.namespace.as_ref().is_some_and(|name| *name != Namespace::of_database(&config.sql.url));
    let problem = format!(
        "{} holds changes from before journals had a database, and this one has never flushed that journal: {}",
        holdings.place,
        counts(&in_doubt)
    );
    let way_out = if is_embedded { "write another store.path" } else { "write a name of its own into store.namespace" };
    let remedy = format!(
        "correct sql.url; or let the version of weir that wrote them flush them; or, if they are another application's, \
         {way_out}; if they are this database's all the same, run `weir store adopt`"
    );
    // A configuration that names a journal of its own leaves the other journal to others.
    let finding = match is_named && !is_embedded {
        true => Finding::warning(Problem::UnknownJournal, problem, remedy),
        false => Finding::refusal(Problem::UnknownJournal, problem, remedy),
    };
    verdict.findings.push(KindFinding { kind: None, finding });
    Ok(())
}

/// Whether this database has flushed the journal of a kind: it knows the incarnation of one of its partitions, and its
/// checkpoint reaches at least as far as the journal was trimmed.
async fn has_flushed(kind: &KindInventory, sql: &dyn Sql) -> Result<bool, SqlError> {
    let rows = match sql.checkpoints(&kind.kind, &kind.partitions()).await {
        // There is no table so far.
        Err(SqlError::Permanent(_)) => return Ok(false),
        rows => rows?,
    };
    let is_known = |(head, row): (&crate::store::Head, &Option<crate::model::Checkpoint>)| {
        row.is_some_and(|row| row.incarnation == head.incarnation && row.position >= head.flushed)
    };
    Ok(kind.heads.iter().zip(&rows).any(is_known))
}

/// Kinds with changes that no host flushes to SQL. From an earlier version, only the kinds in `take`, which were shown
/// to belong to this database. Needs no SQL.
pub fn orphans(config: &Config, holdings: &Inventory, take: &[String]) -> Vec<KindFinding> {
    let is_orphan =
        |kind: &&KindInventory| kind.waiting() > 0 && !kind.is_flushed && !is_configured(config, &kind.kind);
    let finding = |kind: &KindInventory| KindFinding {
        kind: Some(kind.kind.clone()),
        finding: Finding::refusal(
            Problem::OrphanKind,
            format!(
                "the journal ({}) holds {} of this kind that SQL does not have, and the configuration does not name it: \
                 nobody would flush them",
                holdings.place,
                changes(kind.waiting())
            ),
            format!(
                "put the kind back into the configuration and start weir until `weir store list` shows that nothing waits; or, \
                 if it has another name now, run `weir store rename {} NEW`; or give them up: `weir store drop {}`",
                kind.kind, kind.kind
            ),
        ),
    };
    let earlier = holdings.earlier.iter().filter(|kind| kind.is_taken || take.contains(&kind.kind));
    holdings.kinds.iter().chain(earlier).filter(is_orphan).map(finding).collect()
}

/// Journals of this database that lie somewhere else.
async fn elsewhere(
    config: &Config,
    holdings: &Inventory,
    ours: Option<DatabaseId>,
    sql: &dyn Sql,
) -> Result<Vec<KindFinding>, SqlError> {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut findings = Vec::new();
    for known in sql.journals().await? {
        if !known.is_closed && known.place == holdings.place && Some(known.journal) != holdings.journal {
            let problem =
                format!("the journal that was here ({}) is gone, and what it had not flushed, too", known.place);
            let remedy = "find out who emptied the store; its last changes of this kind may be missing in SQL";
            let finding = Finding::warning(Problem::EmptiedStore, problem, remedy);
            findings.push(KindFinding { kind: Some(known.kind.clone()), finding });
        }
        let is_here = Some(known.journal) == holdings.journal || known.place == holdings.place;
        if !known.is_closed && !is_here {
            places.entry(known.place).or_default().insert(known.kind);
        }
    }
    for (place, kinds) in places {
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        let problem = match look_at(config, &place).await {
            Ok(Some(there)) => match waiting_of(&there, ours) {
                None => continue,
                Some(counts) => format!("changes wait in another store of this database ({place}): {counts}"),
            },
            Ok(None) => format!(
                "{kinds} of this database were journaled in another store last ({place}), which is not to be found here: \
                 whether changes wait in it cannot be seen"
            ),
            Err(error) => format!(
                "{kinds} of this database were journaled in another store last ({place}), and whether changes wait in it \
                 cannot be seen: {error}"
            ),
        };
        findings.push(refusal(Problem::OtherStore, problem, ELSEWHERE_REMEDY.into()));
    }
    // A directory that was never recorded, because an earlier version wrote it.
    if config.store.store_type != StoreType::Embedded && findings.iter().all(|found| found.finding.warning) {
        findings.extend(left_directory(config, ours, sql).await?);
    }
    Ok(findings)
}

/// What to do about changes in a store that the configuration does not lead to.
const ELSEWHERE_REMEDY: &str = "start weir with the store as it was (store.type, store.path, store.url, store.namespace) until \
                                `weir store list` shows that nothing waits, and stop it; or give up what waits there: \
                                `weir store forget`";

/// The directory at `store.path` where the configuration says Redis: what waits in it, if it is this database's.
async fn left_directory(
    config: &Config,
    ours: Option<DatabaseId>,
    sql: &dyn Sql,
) -> Result<Option<KindFinding>, SqlError> {
    // What cannot be read, or is another host's, is not known to be ours.
    let Ok(Some(there)) = crate::store::inspect_directory(&config.store.path).await else { return Ok(None) };
    let is_given_up = |known: &KnownJournal| Some(known.journal) == there.journal && known.is_closed;
    let mut is_ours =
        there.database.is_some() && there.database == ours && !sql.journals().await?.iter().any(is_given_up);
    for kind in &there.earlier {
        is_ours = is_ours || (kind.waiting() > 0 && has_flushed(kind, sql).await?);
    }
    let waiting = waiting_of(&there, there.database).filter(|_| is_ours);
    Ok(waiting.map(|counts| {
        let problem = format!("changes wait in another store of this database ({}): {counts}", there.place);
        refusal(Problem::OtherStore, problem, ELSEWHERE_REMEDY.into())
    }))
}

/// What waits in a store, if it is this database's.
fn waiting_of(there: &Inventory, ours: Option<DatabaseId>) -> Option<String> {
    if there.database.is_some() && there.database != ours {
        return None;
    }
    let waiting: Vec<&KindInventory> = there.all().filter(|kind| kind.waiting() > 0).collect();
    (!waiting.is_empty()).then(|| counts(&waiting))
}

/// What lies at a place that `weir_journal` names. A Redis is asked with the user and password of `store.url`.
async fn look_at(config: &Config, place: &str) -> Result<Option<Inventory>, StoreError> {
    let unknown = || StoreError::Misconfigured(format!("{place:?} is no place of a store"));
    let (word, rest) = place.split_once(' ').ok_or_else(unknown)?;
    let store_type = match word {
        "embedded" => return crate::store::inspect_directory(Path::new(rest)).await,
        "redis" => StoreType::Redis,
        "redis-cluster" => StoreType::RedisCluster,
        "redis-sentinel" => StoreType::Redis,
        _ => return Err(unknown()),
    };
    let (address, namespace) = rest.split_once(' ').ok_or_else(unknown)?;
    let namespace = Namespace::try_from(namespace.to_owned()).map_err(|_| unknown())?;
    let login = config.store.url.split_once("//").and_then(|(_, rest)| rest.split_once('@')).map(|(login, _)| login);
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    // Encrypted as ours is.
    let secured = config.store.secured().map_err(|error| StoreError::Misconfigured(error.to_string()))?;
    let scheme = if secured.is_some() { "rediss" } else { "redis" };
    let url = match (address.split_once(','), address.rsplit_once('/')) {
        _ if word == "redis-sentinel" => format!("{scheme}+sentinel://{login}{address}"),
        // The nodes of a cluster have one database each.
        (Some(_), Some((servers, _))) => format!("{scheme}://{login}{servers}"),
        _ => format!("{scheme}://{login}{address}"),
    };
    let there = StoreConfig { store_type, url, namespace: Some(namespace), ..config.store.clone() };
    Ok(crate::store::inspect(&there).await?.0)
}

/// Gives up the changes that wait in stores other than the configured one: their journals are no longer missed. Returns
/// the number of kinds concerned.
///
/// # Errors
/// When SQL does not answer.
pub async fn forget_others(config: &Config, here: &Inventory, sql: &dyn Sql) -> Result<usize, SqlError> {
    let is_other = |known: &KnownJournal| Some(known.journal) != here.journal && known.place != here.place;
    let mut others: Vec<KnownJournal> = sql.journals().await?.into_iter().filter(is_other).collect();
    others.iter_mut().for_each(|known| known.is_closed = true);
    if config.store.store_type != StoreType::Embedded
        && let Ok(Some(there)) = crate::store::inspect_directory(&config.store.path).await
        && let Some(journal) = there.journal
    {
        let of = |kind: &KindInventory| (kind.kind.clone(), there.place.clone());
        let known = |(kind, place)| KnownJournal { kind, journal, place, is_closed: true };
        others.extend(there.all().map(of).map(known));
    }
    sql.note_journals(&others).await?;
    Ok(others.len())
}

fn is_configured(config: &Config, kind: &str) -> bool {
    config.kinds().iter().any(|(name, _)| *name == kind)
}

fn refusal(name: Problem, problem: String, remedy: String) -> KindFinding {
    KindFinding { kind: None, finding: Finding::refusal(name, problem, remedy) }
}

fn counts(kinds: &[&KindInventory]) -> String {
    kinds.iter().map(|kind| format!("{} of {}", changes(kind.waiting()), kind.kind)).collect::<Vec<_>>().join(", ")
}

/// `1 change`, `165 changes`.
pub fn changes(count: u64) -> String {
    if count == 1 { "1 change".into() } else { format!("{count} changes") }
}

impl Verdict {
    /// What an operator decides: all that an earlier version has left of the configured kinds is this database's.
    pub fn adopting(config: &Config, holdings: &Inventory) -> Self {
        let take: Vec<String> = holdings
            .earlier
            .iter()
            .filter(|kind| config.store.store_type == StoreType::Embedded || is_configured(config, &kind.kind))
            .map(|kind| kind.kind.clone())
            .collect();
        let takes_all = take.len() == holdings.earlier.len();
        Self { findings: Vec::new(), take, takes_all }
    }
}
