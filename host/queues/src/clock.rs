//! The clock of a queue: it removes people whose time is over, then admits as many as the rules say.
//!
//! One of several hosts runs it at a time, by a lease that each step renews. The lease only saves work: the store's step itself
//! holds the capacity, on whichever host it runs. A step that leaves no waiting or active people returns the lease, so that the
//! host of the next arrival gets it at once. Otherwise its owner ticks at least once a second, on whichever host people arrive
//! and leave.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::Instant;

use super::queue::Queue;
use super::shared::{Shared, pause_ms_max};
use weir_core::config::RoomMode;
use weir_core::model::{AdmissionPlan, RoomState};
use weir_core::telemetry;
use weir_store::{RoomFigures, RoomTick, StoreError, TICK_PEOPLE_MAX, Ticked};

/// Shortest time between two ticks of a queue, however much happens, in milliseconds.
const TICK_MS_MIN: u64 = 20;
/// Longest time between two ticks of an empty queue, in milliseconds; an arrival ends it.
const TICK_MS_IDLE: u64 = 5_000;
/// Longest time between two ticks otherwise, in milliseconds.
const TICK_MS_MAX: u64 = 1_000;
/// How often the clock reports a queue as used, in milliseconds.
const USED_MS: u64 = 600_000;

/// Runs the clock until it is aborted, or the store no longer has the queue.
pub(super) async fn run(shared: Arc<Shared>, queue: Arc<Queue>) {
    let mut clock = Clock::new(&shared);
    loop {
        let begun = Instant::now();
        let pause_ms = match clock.tick(&shared, &queue).await {
            Ok(pause_ms) => pause_ms,
            Err(error) => {
                let _ = shared.refusal(&error);
                busy_pause_ms(&shared)
            }
        };
        if clock.is_over {
            return;
        }
        tokio::time::sleep_until(begun + Duration::from_millis(TICK_MS_MIN)).await;
        // A wake-up counts whether it came during the sleep or comes now.
        let _ = tokio::time::timeout(Duration::from_millis(pause_ms), queue.wake.notified()).await;
    }
}

struct Clock {
    /// When the rules were asked last, and the figures then.
    planned: Option<(u64, RoomFigures)>,
    used_ms: u64,
    /// The store no longer has this life of the queue.
    is_over: bool,
    gauges: [Gauge; 3],
    /// What this queue adds to the gauges of its kind.
    reported: [f64; 3],
    totals: [Counter; 6],
    /// The totals that the counters of the kind already contain.
    counted: Option<[u64; 6]>,
}

impl Clock {
    fn new(shared: &Shared) -> Self {
        let kind = || shared.config.kind.clone();
        let gauge = |name: &'static str| gauge!(name, "kind" => kind());
        let ended = |how: &'static str| counter!(telemetry::ROOM_PEOPLE_TOTAL, "kind" => kind(), "what" => how);
        Self {
            planned: None,
            used_ms: 0,
            is_over: false,
            gauges: [telemetry::ROOM_WAITING, telemetry::ROOM_ACTIVE, telemetry::ROOM_ADMITTED_PER_SECOND].map(gauge),
            reported: [0.0; 3],
            counted: None,
            totals: ["admitted", "completed", "expired", "no-show", "abandoned", "left"].map(ended),
        }
    }

    /// One round. Returns the pause before the next, in milliseconds.
    async fn tick(&mut self, shared: &Shared, queue: &Queue) -> Result<u64, StoreError> {
        let Some(swept) = self.step(shared, queue, (0, 1)).await? else {
            // Another host admitted people meanwhile: this one must not admit them again by a rate, or count them.
            self.planned = None;
            self.counted = None;
            self.report_gauges([0.0; 3]);
            // Soon replaces an owner that is gone, and shows the store that this host is alive.
            return Ok(busy_pause_ms(shared).min(shared.config.lease_ms / 2));
        };
        let (mut is_more, mut figures) = (swept.1, swept.2);
        self.counted.get_or_insert(totals(&figures));
        while is_more {
            let Some(swept) = self.step(shared, queue, (0, 1)).await? else { return Ok(TICK_MS_MAX) };
            (is_more, figures) = (swept.1, swept.2);
        }
        shared.served();
        let plan = self.plan(shared, figures).await;
        let mut left = plan.admit;
        while left > 0 {
            let wanted = left.min(TICK_PEOPLE_MAX);
            let Some(admitted) = self.step(shared, queue, (wanted, plan.active_ttl_ms)).await? else {
                return Ok(TICK_MS_MAX);
            };
            figures = admitted.2;
            left -= wanted;
            if admitted.0 < wanted {
                break;
            }
        }
        self.report(shared, queue, figures).await;
        let is_idle = figures.waiting == 0 && figures.active == 0;
        Ok(if is_idle { TICK_MS_IDLE } else { u64::from(plan.next_tick_ms).clamp(TICK_MS_MIN, busy_pause_ms(shared)) })
    }

    /// One step of the store; `None` when it is another host's turn, or the queue's life is over.
    async fn step(
        &mut self,
        shared: &Shared,
        queue: &Queue,
        (admit, active_ttl_ms): (u32, u32),
    ) -> Result<Option<(u32, bool, RoomFigures)>, StoreError> {
        let config = &shared.config;
        let seed = queue.seed();
        let times = shared.times();
        let now_ms = times.now_ms;
        let tick = RoomTick {
            seed,
            times,
            lease_ms: config.lease_ms,
            admit,
            capacity: capacity(shared),
            active_ttl_ms: u64::from(active_ttl_ms),
            claim_ms: config.claim_ms,
        };
        match shared.store.tick_room(&config.kind, &queue.id, tick).await? {
            Ticked::NotOurs => Ok(None),
            Ticked::OtherLife => {
                // Unless a request has opened it again meanwhile.
                self.is_over = queue.seed() == seed;
                Ok(None)
            }
            Ticked::Done { admitted, is_more, figures } => {
                queue.observe(figures, now_ms, config.capacity);
                Ok(Some((admitted, is_more, figures)))
            }
        }
    }

    /// The plan of the mode, or of the rules.
    async fn plan(&mut self, shared: &Shared, figures: RoomFigures) -> AdmissionPlan {
        let now_ms = shared.clock.steady_ms();
        let (since_ms, before) = match self.planned {
            Some((at_ms, before)) => (now_ms.saturating_sub(at_ms), before),
            None => (0, figures),
        };
        let since = |of: fn(&RoomFigures) -> u64| of(&figures).saturating_sub(of(&before));
        let state = RoomState {
            waiting: figures.waiting,
            active: figures.active,
            capacity: capacity(shared),
            since_ms,
            admitted: since(|figures| figures.admitted),
            completed: since(|figures| figures.completed),
            // For the rules, people who never showed up are a part of those whose time ran out.
            expired: since(|figures| figures.expired + figures.no_shows),
            no_shows: since(|figures| figures.no_shows),
            abandoned: since(|figures| figures.abandoned + figures.left),
        };
        self.planned = Some((now_ms, figures));
        let mut plan = shared.admission.plan(&shared.config.kind, shared.clock.now_ms(), &state).await;
        match shared.config.mode {
            RoomMode::Open | RoomMode::Closed => {}
            RoomMode::QueueAll => plan.admit = 0,
            RoomMode::PassThrough => plan.admit = u32::try_from(figures.waiting).unwrap_or(u32::MAX),
        }
        plan.admit = plan.admit.min(u32::try_from(figures.waiting).unwrap_or(u32::MAX));
        plan
    }

    /// Reports metrics, and that the queue is in use.
    async fn report(&mut self, shared: &Shared, queue: &Queue, figures: RoomFigures) {
        self.report_gauges([figures.waiting as f64, figures.active as f64, queue.flow().admitted_per_s()]);
        let (now, before) = (totals(&figures), self.counted.unwrap_or_default());
        for (counter, (now, before)) in self.totals.iter().zip(now.into_iter().zip(before)) {
            counter.increment(now.saturating_sub(before));
        }
        self.counted = Some(now);
        let now_ms = shared.clock.steady_ms();
        if figures.waiting + figures.active > 0 && now_ms.saturating_sub(self.used_ms) >= USED_MS {
            self.used_ms = now_ms;
            let _ = shared.open(&queue.id).await;
        }
    }
}

impl Clock {
    /// Updates what this queue adds to the gauges of its kind.
    fn report_gauges(&mut self, now: [f64; 3]) {
        for ((gauge, now), reported) in self.gauges.iter().zip(now).zip(&mut self.reported) {
            gauge.increment(now - *reported);
            *reported = now;
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.report_gauges([0.0; 3]);
    }
}

/// The totals: admitted, completed, expired, no-show, abandoned, left.
fn totals(figures: &RoomFigures) -> [u64; 6] {
    let RoomFigures { admitted, completed, expired, no_shows, abandoned, left, .. } = *figures;
    [admitted, completed, expired, no_shows, abandoned, left]
}

/// Longest time between two ticks of a queue in use: half of the pause that counts as a standstill.
fn busy_pause_ms(shared: &Shared) -> u64 {
    TICK_MS_MAX.min(pause_ms_max(&shared.config) / 2)
}

/// Most active people.
fn capacity(shared: &Shared) -> u64 {
    // A double holds this exactly, which the store's step needs.
    if shared.config.mode == RoomMode::PassThrough { 1 << 50 } else { shared.config.capacity }
}
