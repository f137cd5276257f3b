//! The room capability: a waiting room in front of a service with limited capacity.
//!
//! Uses `weir-core`, `weir-store` and `weir-policy`. Knows neither another capability, nor HTTP, nor SQL: the store
//! holds the queues. Holds no rule: [`Admission`] decides places and admissions, the store keeps order and capacity,
//! this module moves data in batches between them.
//!
//! - `admission`: the rules. `step`: one batch. `queue`: the queues of this host. `clock`: expiry and admission.
//! - `token`: tickets and passes. `flow`: rates, estimates, poll intervals. [`lottery`]: random places.

mod admission;
mod clock;
pub mod flow;
pub mod lottery;
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

use flow::poll_after_ms;
use queue::{LocalQueues, Queue, life};
use shared::Shared;
use step::{RoomRequest, RoomStep, StepResult};
use token::{Claims, Keyring, Use};
use weir_core::batcher::Batcher;
use weir_core::clock::Clock;
use weir_core::config::{BatchConfig, ConfigError, RoomConfig, RoomMode};
use weir_core::error::{Refusal, RoomRefusal};
use weir_core::model::Id;
use weir_core::telemetry;
use weir_store::{Queues, RoomEnd, RoomFigures, RoomResult, RoomVerb};

/// Most time to notify the other hosts that this one stops.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Rooms {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<RoomKind>>,
}

/// The parts of a kind.
pub struct RoomParts {
    /// Bounds of its batches.
    pub batch: BatchConfig,
    /// The store of the queues.
    pub store: Arc<dyn Queues>,
    /// The rules.
    pub admission: Arc<dyn Admission>,
    /// The time.
    pub clock: Clock,
    /// Names this host to the others.
    pub owner: String,
}

/// The status of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Waits.
    Waiting {
        /// The number of people in front; `None` before the lottery.
        ahead: Option<u64>,
        /// The estimated time of the admission, where there is one.
        eta: Option<Eta>,
        /// When to poll again, in milliseconds.
        poll_after_ms: u64,
        /// When the person joined, in Unix milliseconds.
        joined_ms: u64,
    },
    /// Was admitted.
    Active {
        /// The token that the protected service verifies.
        pass: String,
        /// When the stay ends, in Unix milliseconds.
        until_ms: u64,
        /// When the person was admitted, in Unix milliseconds.
        admitted_ms: u64,
    },
    /// The time ran out: of a stay, of the grace period without a poll, or of the claim after an admission.
    Expired {
        /// Whether it was a stay.
        is_stay: bool,
    },
    /// The person ended the place or the stay.
    Ended {
        /// Whether the stay was completed; otherwise the place was given up.
        was_active: bool,
    },
}

/// The answer to a person with a place or a stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomReply {
    /// The token for later requests: the one of this request, or, after a poll, a newer one for the same arrival.
    pub token: String,
    /// The person.
    pub actor: Id,
    /// The status.
    pub standing: Standing,
    /// This request created the place.
    pub is_new: bool,
    /// The queue.
    pub figures: RoomFigures,
    /// The time of this status, in Unix milliseconds.
    pub at_ms: u64,
}

/// The public view of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Its figures.
    pub figures: RoomFigures,
    /// Admissions per second.
    pub admitted_per_s: f64,
    /// The estimated admission of a person who joins now.
    pub eta: Option<Eta>,
    /// SHA-256 of the seed of the lottery.
    pub commitment: String,
    /// The seed, after the first admission.
    pub seed: Option<String>,
}

/// One kind.
pub struct RoomKind {
    shared: Arc<Shared>,
    queues: Arc<LocalQueues>,
    keyring: ArcSwap<Keyring>,
    steps: Batcher<RoomStep, Result<StepResult, Refusal>>,
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
        let queues = Arc::new(LocalQueues::default());
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

    /// Signs and verifies with these keys from now on.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.keyring.store(Arc::new(keyring));
    }

    /// Stops the clocks of its queues on this host.
    pub fn stop(&self) {
        self.resumer.abort();
        self.queues.stop();
    }

    /// The same, and notifies the other hosts, so that they need not wait for this one.
    pub async fn leave(&self) {
        self.resumer.abort();
        let (shared, kind) = (&self.shared, &self.shared.config.kind);
        let queues = self.queues.stop();
        let all = queues.iter().map(|queue| shared.store.part_room(kind, queue, &shared.owner));
        let said = tokio::time::timeout(LEAVE_TIME, futures_util::future::join_all(all)).await;
        if !matches!(said, Ok(said) if said.iter().all(Result::is_ok)) {
            tracing::info!(kind, "the other hosts were not told that this one stops: they find out");
        }
    }

    /// Gives a person a place, or returns the one that they have.
    ///
    /// # Errors
    /// See [`Refusal`]; of rooms: `QueueMissing`, `TooManyQueues`, `Closed`, `Full`.
    pub async fn join(&self, queue: &Id, actor: Id) -> Result<RoomReply, Refusal> {
        if self.config().mode == RoomMode::Closed {
            return Err(RoomRefusal::Closed.into());
        }
        let queue = self.queues.get(&self.shared, queue).await?;
        let step = self.submit(&queue, actor.clone(), RoomRequest::Join).await?;
        let number = match step.result {
            RoomResult::Waiting { number, .. } | RoomResult::Active { number, .. } => number,
            RoomResult::Full => return Err(RoomRefusal::Full.into()),
            RoomResult::Ended { .. } | RoomResult::Unknown => return Err(Refusal::StoreUnavailable),
        };
        self.joins.increment(1);
        let expected_ms = match step.result {
            RoomResult::Waiting { ahead, .. } => queue
                .flow()
                .eta(ahead)
                .map(|eta| step.now_ms.saturating_add(u64::try_from(eta.middle().as_millis()).unwrap_or(u64::MAX))),
            _ => None,
        };
        let claims = Claims {
            of: Use::Ticket,
            actor,
            number,
            life: life(&step.seed),
            expires_s: self.ticket_expires_s(step.now_ms),
            expected_ms,
            by_lottery: step.by_lottery,
        };
        let token = self.keyring.load().sign(&queue.id, &claims, step.now_ms).ok_or(Refusal::StoreUnavailable)?;
        self.reply(&queue, token, &claims, &step)
    }

    /// Runs an operation on the arrival of the ticket `token`.
    ///
    /// # Errors
    /// See [`Refusal`]; of rooms: the reasons to refuse a token, and `NotActive` for an extension or completion while
    /// waiting.
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
        let step = self.submit(queue, claims.actor.clone(), RoomRequest::About(claims.number, verb)).await?;
        if claims.life != life(&step.seed) {
            return Err(RoomRefusal::TokenEnded.into());
        }
        let needs_stay = matches!(ask, RoomAsk::Complete | RoomAsk::Extend { .. });
        if needs_stay && matches!(step.result, RoomResult::Waiting { .. }) {
            return Err(RoomRefusal::NotActive.into());
        }
        self.note_eta(claims, &step);
        if let Some(reply) = repeated(ask, token, claims, &step) {
            return Ok(reply);
        }
        let renewed = if ask == RoomAsk::Poll { self.renewed(&queue.id, claims, &step) } else { None };
        self.reply(queue, renewed.unwrap_or_else(|| token.to_owned()), claims, &step)
    }

    /// When a ticket that is made at `now_ms` expires, in Unix seconds.
    fn ticket_expires_s(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(self.config().token_ttl_ms).div_ceil(1_000)
    }

    /// A new ticket for a person whose ticket is past half of its time. The old one stays valid until it expires.
    fn renewed(&self, queue: &Id, claims: &Claims, step: &StepResult) -> Option<String> {
        let is_there = matches!(step.result, RoomResult::Waiting { .. } | RoomResult::Active { .. });
        let left_ms = claims.expires_s.saturating_mul(1_000).saturating_sub(step.now_ms);
        if !is_there || left_ms > self.config().token_ttl_ms / 2 {
            return None;
        }
        let claims = Claims { expires_s: self.ticket_expires_s(step.now_ms), ..claims.clone() };
        self.keyring.load().sign(queue, &claims, step.now_ms)
    }

    /// The status of many people, in one step. Index-aligned.
    pub async fn many(&self, queue: &Id, tokens: &[String]) -> Vec<Result<RoomReply, Refusal>> {
        let each = tokens.iter().map(|token| self.about(queue, token, RoomAsk::Poll));
        futures_util::future::join_all(each).await
    }

    /// Verifies a pass for a service, and returns its queue, too. Does not count the person as seen.
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

    /// The public view of a queue. Does not create one.
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
            commitment: lottery::commitment(&seed),
            seed: (flow.figures.admitted > 0).then(|| lottery::hex(&seed)),
        })
    }

    /// The people who take part in the lottery of a queue, in the order of arrival, from the `skip`th, at most `limit`.
    ///
    /// # Errors
    /// See [`Refusal`]; of rooms: `QueueMissing`.
    pub async fn arrivals(&self, queue: &Id, skip: u64, limit: usize) -> Result<Vec<Id>, Refusal> {
        let (store, kind) = (&self.shared.store, &self.config().kind);
        let found = store.room_entrants(kind, queue, skip, limit).await.map_err(|error| self.shared.refusal(&error))?;
        if found.is_empty() && self.queues.known(queue).is_none() {
            // Another host may have opened it.
            let queues = store.room_queues(kind).await.map_err(|error| self.shared.refusal(&error))?;
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

    async fn submit(&self, queue: &Arc<Queue>, actor: Id, request: RoomRequest) -> Result<StepResult, Refusal> {
        self.steps.submit(RoomStep { queue: Arc::clone(queue), actor, request }).await?
    }

    /// Records the estimate of the join against the real admission.
    fn note_eta(&self, claims: &Claims, step: &StepResult) {
        if let (Some(expected_ms), RoomResult::Active { admitted_ms, is_new: true, .. }) =
            (claims.expected_ms, step.result)
        {
            self.eta_error.record(expected_ms.abs_diff(admitted_ms) as f64 / 1_000.0);
        }
    }

    fn reply(&self, queue: &Queue, token: String, claims: &Claims, step: &StepResult) -> Result<RoomReply, Refusal> {
        let (standing, is_new) = match step.result {
            RoomResult::Waiting { ahead, joined_ms, is_new, .. } => {
                (self.waiting(queue, step, (ahead, claims.by_lottery, joined_ms)), is_new)
            }
            RoomResult::Active { until_ms, admitted_ms, is_new, .. } => {
                let pass =
                    Claims { of: Use::Pass, expires_s: until_ms.div_ceil(1_000), expected_ms: None, ..claims.clone() };
                let pass = self.keyring.load().sign(&queue.id, &pass, step.now_ms).ok_or(Refusal::StoreUnavailable)?;
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
        Ok(RoomReply { token, actor: actor.clone(), standing, is_new, figures: step.figures, at_ms: step.now_ms })
    }

    fn waiting(&self, queue: &Queue, step: &StepResult, (ahead, by_lottery, joined_ms): (u64, bool, u64)) -> Standing {
        let config = self.config();
        let flow = queue.flow();
        // Before the first admission every arrival moves the places of a lottery: show them after that only.
        let is_final = step.figures.admitted > 0 || !by_lottery;
        let eta = if is_final { flow.eta(ahead) } else { None };
        let bounds = (config.poll_ms_min, config.poll_ms_max, config.grace_ms);
        let is_next = step.figures.active + ahead < config.capacity && config.mode == RoomMode::Open && is_final;
        let base_ms = if is_next {
            config.poll_ms_min
        } else {
            poll_after_ms(bounds, config.polls_per_s_max, step.figures.waiting, eta)
        };
        // Up to 30 % later, so that people who came together do not poll together.
        let jitter_ms = rand::rng().random_range(0..=base_ms * 3 / 10);
        let ahead = is_final.then_some(ahead);
        Standing::Waiting { ahead, eta, poll_after_ms: base_ms + jitter_ms, joined_ms }
    }
}

/// The answer to a repeated leave or complete, as long as the store remembers the first: the same as the first time.
fn repeated(ask: RoomAsk, token: &str, claims: &Claims, step: &StepResult) -> Option<RoomReply> {
    let was_active = match (ask, step.result) {
        (RoomAsk::Leave | RoomAsk::Complete, RoomResult::Ended { end: RoomEnd::Completed, is_new: false }) => true,
        (RoomAsk::Leave, RoomResult::Ended { end: RoomEnd::Left, is_new: false }) => false,
        _ => return None,
    };
    Some(RoomReply {
        token: token.to_owned(),
        actor: claims.actor.clone(),
        standing: Standing::Ended { was_active },
        is_new: false,
        figures: step.figures,
        at_ms: step.now_ms,
    })
}

/// An operation on an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomAsk {
    /// The status, for the person.
    Poll,
    /// The status, as seen by someone else.
    Look,
    /// Gives up the place, or ends the stay.
    Leave,
    /// Ends the stay.
    Complete,
    /// Extend the stay.
    Extend {
        /// From now, in milliseconds; without it, the length at admission.
        ttl_ms: Option<u64>,
    },
}

impl Drop for RoomKind {
    fn drop(&mut self) {
        self.stop();
    }
}
