//! The room capability: a queue before something that bears only so many at once.
//!
//! Tier 3: imports tiers 0 to 2. Never imports flush, http or another capability, and knows no SQL: what a queue holds is the
//! store's. Holds no rule: [`Admission`] says where an arrival is placed and how many are let in, the store keeps the order and
//! the capacity, this room moves data in batches between them.
//!
//! - `admission`: the rules · `step`: one batch · `queue`: the queues of this host · `clock`: who goes, who is let in
//! - `token`: what a person holds · `flow`: how fast it goes, and when to ask again · `draw`: places by lot

mod admission;
mod clock;
pub mod draw;
pub mod flow;
mod queue;
mod shared;
mod step;
pub mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, counter, histogram};
use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

pub use admission::Admission;
pub use flow::Eta;

use crate::batcher::Batcher;
use crate::clock::Clock;
use crate::config::{BatchConfig, ConfigError, RoomConfig, RoomMode};
use crate::error::{Refusal, RoomRefusal};
use crate::model::Id;
use crate::store::{RoomEnd, RoomFigures, RoomResult, RoomVerb, Store};
use crate::telemetry;
use flow::poll_after_ms;
use queue::{Queue, Queues, life};
use shared::Shared;
use step::{Ask, Asked, Told};
use token::{Claims, Keyring, Use};

/// Time to tell the other hosts that this one stops.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Rooms {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<RoomKind>>,
}

/// What a kind is made of.
pub struct RoomParts {
    /// Bounds of its batches.
    pub batch: BatchConfig,
    /// Where queues are kept.
    pub store: Arc<dyn Store>,
    /// The rules.
    pub admission: Arc<dyn Admission>,
    /// The time.
    pub clock: Clock,
    /// Names this host to the others.
    pub owner: String,
}

/// How it stands with somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Waits.
    Waiting {
        /// So many are before; `None` before the draw.
        ahead: Option<u64>,
        /// When it will be let in, as far as that can be said.
        eta: Option<Eta>,
        /// When to ask again, in milliseconds.
        poll_after_ms: u64,
        /// Since when, in Unix milliseconds.
        joined_ms: u64,
    },
    /// Is in.
    Active {
        /// What the protected service verifies.
        pass: String,
        /// Until when, in Unix milliseconds.
        until_ms: u64,
        /// Since when, in Unix milliseconds.
        admitted_ms: u64,
    },
    /// Is gone, by a time that was over: a stay, or the grace of whoever did not ask, or did not come when let in.
    Expired {
        /// Whether it was a stay.
        is_stay: bool,
    },
    /// Is gone by request.
    Ended {
        /// Whether the stay was completed; else the place was given up.
        was_active: bool,
    },
}

/// The answer to whoever waits or is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomReply {
    /// Names the arrival in later requests: the one that was asked with, or, of a poll, a newer one of the same arrival.
    pub token: String,
    /// Who it is.
    pub actor: Id,
    /// How it stands.
    pub standing: Standing,
    /// This request made the place.
    pub is_new: bool,
    /// The queue.
    pub figures: RoomFigures,
    /// When it was so, in Unix milliseconds.
    pub at_ms: u64,
}

/// A queue, as everybody may see it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Its figures.
    pub figures: RoomFigures,
    /// Let in per second.
    pub admitted_per_s: f64,
    /// When whoever joins now will be let in.
    pub eta: Option<Eta>,
    /// SHA-256 of the seed of the draw.
    pub commitment: String,
    /// The seed, once somebody has been let in.
    pub seed: Option<String>,
}

/// One kind.
pub struct RoomKind {
    shared: Arc<Shared>,
    queues: Arc<Queues>,
    keyring: ArcSwap<Keyring>,
    steps: Batcher<Asked, Result<Told, Refusal>>,
    streams: Arc<Semaphore>,
    resumer: JoinHandle<()>,
    joins: Counter,
    polls: Counter,
    eta_error: Histogram,
}

impl RoomKind {
    /// Starts the kind's batcher and the clocks of the queues that the store knows, on the current runtime.
    ///
    /// # Errors
    /// A key that cannot be read or does not fit its algorithm.
    pub fn start(config: RoomConfig, parts: RoomParts) -> Result<Self, ConfigError> {
        let keyring = ArcSwap::from_pointee(Keyring::new(&config)?);
        let RoomParts { batch, store, admission, clock, owner } = parts;
        let kind = config.kind.clone();
        let streams = Arc::new(Semaphore::new(config.streams_max.min(Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared::new(config, store, admission, clock, owner));
        let queues = Arc::new(Queues::default());
        let of_steps = Arc::clone(&shared);
        let steps = Batcher::start(&batch, "rooms", &kind, move |batch| step::run(Arc::clone(&of_steps), batch));
        let resumer = tokio::spawn(queue::resume(Arc::clone(&shared), Arc::clone(&queues)));
        Ok(Self {
            shared,
            queues,
            keyring,
            steps,
            streams,
            resumer,
            joins: counter!(telemetry::ROOM_JOINS_TOTAL, "kind" => kind.clone()),
            polls: counter!(telemetry::ROOM_POLLS_TOTAL, "kind" => kind.clone()),
            eta_error: histogram!(telemetry::ROOM_ETA_ERROR_SECONDS, "kind" => kind),
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &RoomConfig {
        &self.shared.config
    }

    /// The keys of its tokens.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// From now on these sign and verify.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.keyring.store(Arc::new(keyring));
    }

    /// Ends the clocks of its queues on this host.
    pub fn stop(&self) {
        self.resumer.abort();
        self.queues.stop();
    }

    /// The same, and says so to the other hosts: they need not wait for this one.
    pub async fn leave(&self) {
        self.resumer.abort();
        let (shared, kind) = (&self.shared, &self.shared.config.kind);
        let queues = self.queues.stop();
        let all = queues.iter().map(|queue| shared.store.rooms().part_room(kind, queue, &shared.owner));
        let said = tokio::time::timeout(LEAVE_TIME, futures_util::future::join_all(all)).await;
        if !matches!(said, Ok(said) if said.iter().all(Result::is_ok)) {
            tracing::info!(kind, "the other hosts were not told that this one stops: they find out");
        }
    }

    /// A place for somebody, or the one that they have.
    ///
    /// # Errors
    /// See [`Refusal`]; of rooms: `QueueMissing`, `TooManyQueues`, `Closed`, `Full`.
    pub async fn join(&self, queue: &Id, actor: Id) -> Result<RoomReply, Refusal> {
        if self.config().mode == RoomMode::Closed {
            return Err(RoomRefusal::Closed.into());
        }
        let queue = self.queues.get(&self.shared, queue).await?;
        let told = self.ask(&queue, actor.clone(), Ask::Join).await?;
        let number = match told.result {
            RoomResult::Waiting { number, .. } | RoomResult::Active { number, .. } => number,
            RoomResult::Full => return Err(RoomRefusal::Full.into()),
            RoomResult::Ended { .. } | RoomResult::Unknown => return Err(Refusal::StoreUnavailable),
        };
        self.joins.increment(1);
        let expected_ms = match told.result {
            RoomResult::Waiting { ahead, .. } => queue
                .flow()
                .eta(ahead)
                .map(|eta| told.now_ms.saturating_add(u64::try_from(eta.middle().as_millis()).unwrap_or(u64::MAX))),
            _ => None,
        };
        let claims = Claims {
            of: Use::Ticket,
            actor,
            number,
            life: life(&told.seed),
            expires_s: self.ticket_expires_s(told.now_ms),
            expected_ms,
            by_lot: told.by_lot,
        };
        let token = self.keyring.load().sign(&queue.id, &claims, told.now_ms).ok_or(Refusal::StoreUnavailable)?;
        self.reply(&queue, token, &claims, &told)
    }

    /// What is asked about the arrival that the ticket `token` is for.
    ///
    /// # Errors
    /// See [`Refusal`]; of rooms: what a token is refused for, and `NotActive` for an extension or completion of whoever waits.
    pub async fn about(&self, queue: &Id, token: &str, verb: RoomAsk) -> Result<RoomReply, Refusal> {
        let now_ms = self.shared.clock.now_ms();
        let (claims, _) = self.keyring.load().verify(Use::Ticket, Some(queue), token, now_ms)?;
        let queue = self.queues.get(&self.shared, queue).await?;
        self.about_claims(&queue, token, &claims, verb).await
    }

    async fn about_claims(
        &self,
        queue: &Arc<Queue>,
        token: &str,
        claims: &Claims,
        ask: RoomAsk,
    ) -> Result<RoomReply, Refusal> {
        let verb = match ask {
            RoomAsk::Poll => {
                self.polls.increment(1);
                RoomVerb::Poll
            }
            RoomAsk::Look => RoomVerb::Look,
            RoomAsk::Leave => RoomVerb::Leave,
            RoomAsk::Complete => RoomVerb::Complete,
            RoomAsk::Extend { ttl_ms } => RoomVerb::Extend { ttl_ms, stay_ms_max: self.config().stay_ms_max },
        };
        if claims.life != life(&queue.seed()) {
            return Err(RoomRefusal::TokenEnded.into());
        }
        let told = self.ask(queue, claims.actor.clone(), Ask::About(claims.number, verb)).await?;
        if claims.life != life(&told.seed) {
            return Err(RoomRefusal::TokenEnded.into());
        }
        let needs_stay = matches!(ask, RoomAsk::Complete | RoomAsk::Extend { .. });
        if needs_stay && matches!(told.result, RoomResult::Waiting { .. }) {
            return Err(RoomRefusal::NotActive.into());
        }
        self.note_eta(claims, &told);
        if let Some(reply) = repeated(ask, token, claims, &told) {
            return Ok(reply);
        }
        let renewed = if ask == RoomAsk::Poll { self.renewed(&queue.id, claims, &told) } else { None };
        self.reply(queue, renewed.unwrap_or_else(|| token.to_owned()), claims, &told)
    }

    /// Until when a ticket is good that is made at `now_ms`, in Unix seconds.
    fn ticket_expires_s(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(self.config().token_ttl_ms).div_ceil(1_000)
    }

    /// A new ticket for whoever waits or is in and asks with one of which more than half of the time is over. The old one is good
    /// until its own end.
    fn renewed(&self, queue: &Id, claims: &Claims, told: &Told) -> Option<String> {
        let is_there = matches!(told.result, RoomResult::Waiting { .. } | RoomResult::Active { .. });
        let left_ms = claims.expires_s.saturating_mul(1_000).saturating_sub(told.now_ms);
        if !is_there || left_ms > self.config().token_ttl_ms / 2 {
            return None;
        }
        let claims = Claims { expires_s: self.ticket_expires_s(told.now_ms), ..claims.clone() };
        self.keyring.load().sign(queue, &claims, told.now_ms)
    }

    /// How it stands with many, in one step. Index-aligned.
    pub async fn many(&self, queue: &Id, tokens: &[String]) -> Vec<Result<RoomReply, Refusal>> {
        let each = tokens.iter().map(|token| self.about(queue, token, RoomAsk::Poll));
        futures_util::future::join_all(each).await
    }

    /// Whether the holder of a pass may be in, for a service that asks; nobody counts as seen by it. Also says which queue.
    ///
    /// # Errors
    /// As [`RoomKind::about`].
    pub async fn verify(&self, token: &str) -> Result<(Id, RoomReply), Refusal> {
        let (claims, named) = self.keyring.load().verify(Use::Pass, None, token, self.shared.clock.now_ms())?;
        let id = Id::parse(self.config().queue_type, &named).map_err(|_| RoomRefusal::TokenOfAnotherQueue)?;
        let queue = self.queues.get(&self.shared, &id).await?;
        let reply = self.about_claims(&queue, token, &claims, RoomAsk::Look).await?;
        Ok((id, reply))
    }

    /// A queue, as everybody may see it. Looking does not make one.
    ///
    /// # Errors
    /// `QueueMissing`.
    pub fn view(&self, queue: &Id) -> Result<QueueView, Refusal> {
        let found = self.queues.known(queue).ok_or(RoomRefusal::QueueMissing)?;
        let (flow, seed) = (found.flow(), found.seed());
        Ok(QueueView {
            figures: flow.figures,
            admitted_per_s: flow.admitted_per_s(),
            eta: flow.eta(flow.figures.waiting),
            commitment: draw::commitment(&seed),
            seed: (flow.figures.admitted > 0).then(|| draw::hex(&seed)),
        })
    }

    /// Who takes part in the draw of a queue, in the order of arrival, from the `skip`th, at most `limit`.
    ///
    /// # Errors
    /// See [`Refusal`]; of rooms: `QueueMissing`.
    pub async fn arrivals(&self, queue: &Id, skip: u64, limit: usize) -> Result<Vec<Id>, Refusal> {
        let (rooms, kind) = (self.shared.store.rooms(), &self.config().kind);
        let found = rooms.room_draw(kind, queue, skip, limit).await.map_err(|error| self.shared.refusal(&error))?;
        if found.is_empty() && self.queues.known(queue).is_none() {
            // Another host may have opened it.
            let queues = rooms.room_queues(kind).await.map_err(|error| self.shared.refusal(&error))?;
            if !queues.contains(queue) {
                return Err(RoomRefusal::QueueMissing.into());
            }
        }
        Ok(found)
    }

    /// The right to a stream of events; `None` where there are too many.
    pub fn may_stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }

    async fn ask(&self, queue: &Arc<Queue>, actor: Id, ask: Ask) -> Result<Told, Refusal> {
        self.steps.submit(Asked { queue: Arc::clone(queue), actor, ask }).await?
    }

    /// What was told at the join against what came.
    fn note_eta(&self, claims: &Claims, told: &Told) {
        if let (Some(expected_ms), RoomResult::Active { admitted_ms, is_new: true, .. }) =
            (claims.expected_ms, told.result)
        {
            self.eta_error.record(expected_ms.abs_diff(admitted_ms) as f64 / 1_000.0);
        }
    }

    fn reply(&self, queue: &Queue, token: String, claims: &Claims, told: &Told) -> Result<RoomReply, Refusal> {
        let (standing, is_new) = match told.result {
            RoomResult::Waiting { ahead, joined_ms, is_new, .. } => {
                (self.waiting(queue, told, (ahead, claims.by_lot, joined_ms)), is_new)
            }
            RoomResult::Active { until_ms, admitted_ms, is_new, .. } => {
                let pass =
                    Claims { of: Use::Pass, expires_s: until_ms.div_ceil(1_000), expected_ms: None, ..claims.clone() };
                let pass = self.keyring.load().sign(&queue.id, &pass, told.now_ms).ok_or(Refusal::StoreUnavailable)?;
                (Standing::Active { pass, until_ms, admitted_ms }, is_new)
            }
            RoomResult::Ended { end: RoomEnd::Expired, .. } => (Standing::Expired { is_stay: true }, false),
            RoomResult::Ended { end: RoomEnd::Abandoned | RoomEnd::NoShow, .. } => {
                (Standing::Expired { is_stay: false }, false)
            }
            RoomResult::Ended { end, is_new: true } => {
                (Standing::Ended { was_active: end == RoomEnd::Completed }, true)
            }
            RoomResult::Ended { .. } | RoomResult::Unknown => return Err(RoomRefusal::TokenEnded.into()),
            RoomResult::Full => return Err(RoomRefusal::Full.into()),
        };
        let Claims { actor, .. } = claims;
        Ok(RoomReply { token, actor: actor.clone(), standing, is_new, figures: told.figures, at_ms: told.now_ms })
    }

    fn waiting(&self, queue: &Queue, told: &Told, (ahead, by_lot, joined_ms): (u64, bool, u64)) -> Standing {
        let config = self.config();
        let flow = queue.flow();
        // Before the first is let in, a place by lot moves with every arrival: it is told when the draw is made.
        let is_drawn = told.figures.admitted > 0 || !by_lot;
        let eta = if is_drawn { flow.eta(ahead) } else { None };
        let bounds = (config.poll_ms_min, config.poll_ms_max, config.grace_ms);
        let is_next = told.figures.active + ahead < config.capacity && config.mode == RoomMode::Open && is_drawn;
        let base_ms = if is_next {
            config.poll_ms_min
        } else {
            poll_after_ms(bounds, config.polls_per_s_max, told.figures.waiting, eta)
        };
        // Up to 30 % later, so that those who came together do not ask together.
        let jitter_ms = rand::rng().random_range(0..=base_ms * 3 / 10);
        let ahead = is_drawn.then_some(ahead);
        Standing::Waiting { ahead, eta, poll_after_ms: base_ms + jitter_ms, joined_ms }
    }
}

/// The answer to whoever ends again what ended by request, as long as that is remembered: the same as the first time.
fn repeated(ask: RoomAsk, token: &str, claims: &Claims, told: &Told) -> Option<RoomReply> {
    let was_active = match (ask, told.result) {
        (RoomAsk::Leave | RoomAsk::Complete, RoomResult::Ended { end: RoomEnd::Completed, is_new: false }) => true,
        (RoomAsk::Leave, RoomResult::Ended { end: RoomEnd::Left, is_new: false }) => false,
        _ => return None,
    };
    Some(RoomReply {
        token: token.to_owned(),
        actor: claims.actor.clone(),
        standing: Standing::Ended { was_active },
        is_new: false,
        figures: told.figures,
        at_ms: told.now_ms,
    })
}

/// What may be asked about an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomAsk {
    /// How it stands; the holder asks.
    Poll,
    /// How it stands; somebody else asks.
    Look,
    /// Gives up the place, or ends the stay.
    Leave,
    /// Ends the stay.
    Complete,
    /// A longer stay.
    Extend {
        /// From now, in milliseconds; without it, as long as the stay was when it began.
        ttl_ms: Option<u64>,
    },
}

impl Drop for RoomKind {
    fn drop(&mut self) {
        self.stop();
    }
}
