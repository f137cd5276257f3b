//! Look-ups: in chunks, each fetched together, laid out in columns, and judged in one policy call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use metrics::{Counter, Histogram, counter, histogram};
use tokio::sync::{Semaphore, watch};

use super::load::SettingsLoad;
use super::share::{Claim, FetchAnswer, FetchSender, Fetched, Share};
use crate::capability::{KindContext, hydrate_all};
use weir_core::config::{FieldConfig, LookupFallback, PreferenceConfig, StoreFallback};
use weir_core::error::Refusal;
use weir_core::model::{Id, Setting, SettingColumn, SettingRef, SettingValues, Settings};
use weir_core::telemetry;
use weir_store::MemberRead;

/// Loads from SQL at once, of one kind: each is one connection.
const LOADS_MAX: usize = 4;

/// What can be looked up: its name, and the fields that the rules need for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    name: String,
    fields: Vec<FieldConfig>,
}

/// What a look-up found. Who does not exist (see [`super::PreferenceKind::read`]) has nothing enabled, whatever the rules make of
/// defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// Whether each member has the topic enabled, index-aligned; `false` for those that failed.
    pub enabled: Vec<bool>,
    /// Of which members it is not known, by index, and why.
    pub failed: Vec<(usize, Refusal)>,
}

/// The place of a member, and what was found of it.
type Judged = (usize, Result<Enabled, Refusal>);

/// Whether a member has a topic enabled. The order is that of the counters of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enabled {
    No,
    Yes,
    /// There is no such member.
    Missing,
}

/// Look-ups of one kind.
pub(super) struct Lookups {
    config: Arc<PreferenceConfig>,
    context: Arc<KindContext>,
    fetcher: Arc<Fetcher>,
    lookup_seconds: Histogram,
    rule_seconds: Histogram,
    outcomes: [Counter; 4],
}

/// Fetches members from the store, and from SQL what the store does not know.
struct Fetcher {
    config: Arc<PreferenceConfig>,
    context: Arc<KindContext>,
    load: Arc<SettingsLoad>,
    share: Share,
    loads: Semaphore,
    fetches: Counter,
    store_seconds: Histogram,
}

impl Lookups {
    pub(super) fn new(config: Arc<PreferenceConfig>, context: Arc<KindContext>, load: Arc<SettingsLoad>) -> Self {
        let kind = || context.kind().to_owned();
        let outcome = |outcome: &'static str| counter!(telemetry::PREFERENCE_MEMBERS_TOTAL, "kind" => kind(), "outcome" => outcome);
        let fetcher = Fetcher {
            share: Share::new(Duration::from_millis(config.share_ms), config.near_entries_max),
            loads: Semaphore::new(LOADS_MAX),
            fetches: counter!(telemetry::PREFERENCE_FETCHES_TOTAL, "kind" => kind()),
            store_seconds: histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "settings"),
            config: Arc::clone(&config),
            context: Arc::clone(&context),
            load,
        };
        Self {
            lookup_seconds: histogram!(telemetry::PREFERENCE_LOOKUP_SECONDS, "kind" => kind()),
            rule_seconds: histogram!(telemetry::PREFERENCE_RULE_SECONDS, "kind" => kind()),
            outcomes: [outcome("disabled"), outcome("enabled"), outcome("missing"), outcome("failed")],
            fetcher: Arc::new(fetcher),
            config,
            context,
        }
    }

    /// See [`super::PreferenceKind::topic`]. A field that is not configured is a mistake of the module.
    pub(super) async fn topic(&self, name: &str) -> Result<Option<Topic>, Refusal> {
        let parts = &self.context.parts;
        let fields = parts.policies.delivery_fields(&parts.kind, name).await.map_err(|_| Refusal::PolicyFailed)?;
        if fields.is_empty() {
            return Ok(None);
        }
        let field = |name: &String| self.config.table.field(name).cloned().ok_or(Refusal::PolicyFailed);
        let fields = fields.iter().map(field).collect::<Result<_, _>>()?;
        Ok(Some(Topic { name: name.to_owned(), fields }))
    }

    /// Members as they are now, index-aligned. Each may be there once.
    pub(super) async fn fetch(&self, members: Vec<Id>) -> Vec<Fetched> {
        self.fetcher.fetch(members).await
    }

    /// The member was written.
    pub(super) fn forget(&self, member: &Id) {
        self.fetcher.share.forget(member);
    }

    /// See [`super::PreferenceKind::lookup`].
    pub(super) async fn lookup(&self, topic: &Topic, members: &[Id]) -> Result<Looked, Refusal> {
        let started = Instant::now();
        let (asked, place_of) = distinct(members);
        // Members of one partition are next to each other: a chunk is few calls of the store.
        let mut order: Vec<(u16, usize)> =
            asked.iter().enumerate().map(|(place, member)| (self.context.partition(member), place)).collect();
        order.sort_unstable();
        let mut judged: Vec<Result<Enabled, Refusal>> = vec![Ok(Enabled::No); asked.len()];
        let mut waiting = order.chunks(self.config.chunk_members);
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.config.chunks_in_flight
                && let Some(chunk) = waiting.next()
            {
                let places: Vec<usize> = chunk.iter().map(|(_, place)| *place).collect();
                let members = places.iter().map(|place| asked[*place].clone()).collect();
                under_way.push(self.chunk(topic, places, members));
            }
            let Some(chunk) = under_way.next().await else { break };
            for (place, answer) in chunk? {
                judged[place] = answer;
            }
        }
        let mut looked = Looked { enabled: Vec::with_capacity(members.len()), failed: Vec::new() };
        let mut counts = [0, 0, 0, 0];
        for (index, place) in place_of.into_iter().enumerate() {
            let is_enabled = match &judged[place] {
                Ok(enabled) => {
                    counts[*enabled as usize] += 1;
                    *enabled == Enabled::Yes
                }
                Err(refusal) => {
                    counts[3] += 1;
                    looked.failed.push((index, refusal.clone()));
                    false
                }
            };
            looked.enabled.push(is_enabled);
        }
        self.outcomes.iter().zip(counts).for_each(|(counter, count)| counter.increment(count));
        self.lookup_seconds.record(started.elapsed().as_secs_f64());
        Ok(looked)
    }

    /// One chunk: one fetch, one policy call. Answers by the places of the members.
    async fn chunk(&self, topic: &Topic, places: Vec<usize>, members: Vec<Id>) -> Result<Vec<Judged>, Refusal> {
        let count = members.len();
        let fetched = self.fetcher.fetch(members).await;
        let parts = &self.context.parts;
        let started = Instant::now();
        let columns: Vec<SettingColumn> = topic.fields.iter().map(|field| column(field, &fetched)).collect();
        let now_ms = parts.clock.now_ms();
        // A chunk has far fewer than this can count.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let enabled = parts.policies.deliver(&parts.kind, &topic.name, now_ms, count, columns).await;
        self.rule_seconds.record(started.elapsed().as_secs_f64());
        let enabled = enabled.map_err(|_| Refusal::PolicyFailed)?;
        let of_member = |is_there: bool, is_enabled: bool| match (is_there, is_enabled) {
            (false, _) => Enabled::Missing,
            (true, true) => Enabled::Yes,
            (true, false) => Enabled::No,
        };
        let answers = fetched
            .into_iter()
            .zip(enabled)
            .map(|(fetched, is_enabled)| fetched.map(|settings| of_member(settings.is_some(), is_enabled)));
        Ok(places.into_iter().zip(answers).collect())
    }
}

/// Each member once, in order of its first place; and for each place the index among these.
fn distinct(members: &[Id]) -> (Vec<&Id>, Vec<usize>) {
    let (mut asked, mut place_of) = (Vec::with_capacity(members.len()), Vec::with_capacity(members.len()));
    let mut places: HashMap<&Id, usize> = HashMap::with_capacity(members.len());
    for member in members {
        let place = *places.entry(member).or_insert_with(|| {
            asked.push(member);
            asked.len() - 1
        });
        place_of.push(place);
    }
    (asked, place_of)
}

/// The values of a field: the default where nothing is set, or nothing of that type, or nothing could be read.
fn column(field: &FieldConfig, fetched: &[Fetched]) -> SettingColumn {
    let set = fetched.iter().map(|fetched| match fetched {
        Ok(Some(settings)) => settings.get(&field.name),
        Ok(None) | Err(_) => None,
    });
    let values = match &field.default {
        Setting::Bool(default) => SettingValues::Bools(
            set.map(|value| if let Some(SettingRef::Bool(on)) = value { on } else { *default }).collect(),
        ),
        Setting::Int(default) => SettingValues::Ints(
            set.map(|value| if let Some(SettingRef::Int(number)) = value { number } else { *default }).collect(),
        ),
        Setting::Text(default) => SettingValues::Texts(
            set.map(|value| match value {
                Some(SettingRef::Text(text)) if text != &**default => text.into(),
                _ => Arc::clone(default),
            })
            .collect(),
        ),
    };
    SettingColumn { field: field.name.as_str().into(), values }
}

impl Fetcher {
    /// Each member once: from what is kept, with a fetch that is under way, or by a fetch of its own.
    async fn fetch(self: &Arc<Self>, members: Vec<Id>) -> Vec<Fetched> {
        let (sender, answer) = watch::channel(None);
        let (claims, mine) = self.share.claim(&members, &answer);
        if !mine.is_empty() {
            let fetcher = Arc::clone(self);
            // Others may wait for it: it goes on when this caller has gone.
            tokio::spawn(async move { fetcher.fetch_for_all(mine, sender).await });
        }
        let mut found = Vec::with_capacity(claims.len());
        for claim in claims {
            found.push(match claim {
                Claim::Cached(settings) => Ok(settings),
                Claim::Mine(place) => found_by(&answer, place).await,
                Claim::Joined(answer, place) => found_by(&answer, place).await,
            });
        }
        found
    }

    async fn fetch_for_all(&self, members: Vec<Id>, sender: FetchSender) {
        self.fetches.increment(members.len() as u64);
        let found = self.ask(&members).await;
        self.share.finish(members, &sender, found);
    }

    /// Asks the store; what it does not know is loaded, and then asked for again.
    async fn ask(&self, members: &[Id]) -> Vec<Fetched> {
        let deadline = self.context.deadline();
        let mut found: Vec<Fetched> = vec![Err(Refusal::SqlUnavailable); members.len()];
        let mut left: Vec<usize> = (0..members.len()).collect();
        loop {
            let asked: Vec<Id> = left.iter().map(|index| members[*index].clone()).collect();
            let (missed, failed) = self.ask_store(&asked, &left, &mut found).await;
            if !failed.is_empty() && self.config.on_store_failure == StoreFallback::Sql {
                self.ask_sql(members, &failed, &mut found).await;
            }
            if missed.is_empty() {
                return found;
            }
            let misses = missed.iter().map(|index| members[*index].clone()).collect();
            // The semaphore is never closed.
            let _load = self.loads.acquire().await;
            let refused = match hydrate_all(&self.context, &*self.load, misses, deadline).await {
                Ok(refused) => refused,
                Err(refusal) => {
                    missed.iter().for_each(|index| found[*index] = self.of_sql_failure(&refusal));
                    return found;
                }
            };
            left = missed;
            left.retain(|index| match refused.get(&self.context.partition(&members[*index])) {
                Some(refusal) => {
                    found[*index] = Err(refusal.clone());
                    false
                }
                None => true,
            });
            if left.is_empty() || tokio::time::Instant::now() >= deadline {
                return found;
            }
        }
    }

    /// Which of `left` are not loaded, and which the store did not answer for.
    async fn ask_store(&self, asked: &[Id], left: &[usize], found: &mut [Fetched]) -> (Vec<usize>, Vec<usize>) {
        let (parts, started) = (&self.context.parts, Instant::now());
        let reads = parts.store.settings(&parts.kind, parts.clock.steady_ms(), asked).await;
        self.store_seconds.record(started.elapsed().as_secs_f64());
        let (mut missed, mut failed) = (Vec::new(), Vec::new());
        for (index, read) in left.iter().zip(reads) {
            match read {
                Ok(MemberRead::Known(settings)) => found[*index] = Ok(Some(settings)),
                Ok(MemberRead::Missing) => found[*index] = Ok(None),
                Ok(MemberRead::NotLoaded) => missed.push(*index),
                Err(error) => {
                    found[*index] = Err(self.context.store_refusal(&error));
                    failed.push(*index);
                }
            }
        }
        if failed.is_empty() {
            self.context.store_served();
        }
        (missed, failed)
    }

    /// Asks SQL instead of the store. Where that fails, too, the store's failure stands.
    async fn ask_sql(&self, members: &[Id], failed: &[usize], found: &mut [Fetched]) {
        let wanted: Vec<Id> = failed.iter().map(|index| members[*index].clone()).collect();
        // The semaphore is never closed.
        let _load = self.loads.acquire().await;
        if let Ok(loaded) = self.context.parts.sql.load_settings(&self.config.table, &wanted).await {
            failed.iter().zip(loaded).for_each(|(index, settings)| found[*index] = Ok(settings));
        }
    }

    fn of_sql_failure(&self, refusal: &Refusal) -> Fetched {
        match self.config.on_sql_failure {
            LookupFallback::Error => Err(refusal.clone()),
            LookupFallback::Default => Ok(Some(Settings::default())),
        }
    }
}

/// What a fetch found at a place, when it has ended.
async fn found_by(answer: &FetchAnswer, place: usize) -> Fetched {
    let mut answer = answer.clone();
    match answer.wait_for(Option::is_some).await {
        Ok(found) => {
            found.as_ref().and_then(|found| found.get(place).cloned()).unwrap_or(Err(Refusal::StoreUnavailable))
        }
        Err(_) => Err(Refusal::StoreUnavailable),
    }
}
