//! A hundred thousand people before a store, on a clock that a test moves: what they are told, and what comes.
//!
//! Store, flow and intervals are the host's own; only the people and the time are made up. Three in ten give up at a time of
//! their own, and nobody tells the queue.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir::config::StoreConfig;
use weir::model::Id;
use weir::room::flow::{Eta, Flow, poll_after_ms};
use weir::store::{
    Opened, Opening, Queues, RoomBatch, RoomCommit, RoomFigures, RoomOp, RoomResult, RoomTick, RoomTimes, RoomVerb,
    TICK_PEOPLE_MAX, Ticked,
};
use weir_tests::services::temporary_directory;

const KIND: &str = "concert";
const PEOPLE: usize = 100_000;
const ARRIVE_MS: u64 = 10_000;
const STEP_MS: u64 = 500;
const CAPACITY: u64 = 5_000;
const GRACE_MS: u64 = 60_000;
const START_MS: u64 = 1_800_000_000_000;
/// What was told so long before, or earlier, up to the span before, is looked at together, in seconds.
const SPANS_S: [u64; 3] = [120, 30, 5];
/// The intervals of a kind by default.
const POLL_MS: (u64, u64) = (1_000, 20_000);
const POLLS_PER_S: u64 = 5_000;

#[derive(Clone, Copy, Default)]
struct Person {
    /// When they give up, if they do.
    gives_up_ms: Option<u64>,
    joined_ms: u64,
    number: u64,
    /// When they were first told something, and what.
    first: Option<(u64, Eta)>,
}

/// What becomes of those who were told something.
#[derive(Default)]
struct Told {
    error_share: Vec<f64>,
    within: usize,
}

impl Told {
    fn add(&mut self, (told_ms, eta): (u64, Eta), came_ms: u64) {
        let real = came_ms.saturating_sub(told_ms) as f64;
        let middle = eta.middle().as_millis() as f64;
        self.error_share.push((middle - real).abs() / real.max(1_000.0));
        // A place is taken up at the next poll of the clock, half a second late at most.
        let (low, high) = (eta.low_ms.saturating_sub(STEP_MS), eta.high_ms + STEP_MS);
        self.within += usize::from((low..=high).contains(&came_ms.saturating_sub(told_ms)));
    }

    fn line(&mut self) -> String {
        self.error_share.sort_by(f64::total_cmp);
        let at = |share: f64| self.error_share[(self.error_share.len() as f64 * share) as usize] * 100.0;
        format!(
            "median error {:.1} %, 90th percentile {:.1} %, in the band {:.0} %",
            at(0.5),
            at(0.9),
            self.within as f64 * 100.0 / self.error_share.len() as f64
        )
    }
}

/// A time that no pause holds up.
fn times(now_ms: u64) -> RoomTimes {
    let (grace_ms, pause_ms_max) = (GRACE_MS, u64::MAX);
    RoomTimes { at_ms: now_ms, now_ms, pause_ms_max, owner: "test".into(), grace_ms, ended_ttl_ms: 1_000 }
}

/// Everybody, what they will do, and what they were told.
struct Crowd {
    random: StdRng,
    people: Vec<Person>,
    /// Who does what in a step: a join, a poll, the end of a stay.
    agenda: BTreeMap<u64, Vec<(usize, RoomVerb)>>,
    flow: Flow,
    at_first: Told,
    by_span: [Told; SPANS_S.len()],
    samples: BTreeMap<usize, Vec<(u64, Eta)>>,
    polls: u64,
    /// Polls that an interval of 2 s would have made.
    fixed: u64,
    came: usize,
    abandoned: u64,
}

fn step_of(ms: u64) -> u64 {
    ms.div_ceil(STEP_MS).max(1)
}

impl Crowd {
    /// Everybody arrives at some time; some give up.
    fn new() -> Self {
        let mut random = StdRng::seed_from_u64(11);
        let mut people = vec![Person::default(); PEOPLE];
        let mut agenda: BTreeMap<u64, Vec<(usize, RoomVerb)>> = BTreeMap::new();
        for (actor, person) in people.iter_mut().enumerate() {
            person.joined_ms = random.random_range(0..ARRIVE_MS);
            let gives_up = random.random_range(0..10) < 3;
            person.gives_up_ms = gives_up.then(|| person.joined_ms + random.random_range(0..300_000));
            let join = RoomVerb::Join { lane: 128, lottery_rank: None, through_ms: None };
            agenda.entry(step_of(person.joined_ms)).or_default().push((actor, join));
        }
        Self {
            random,
            people,
            agenda,
            flow: Flow::default(),
            at_first: Told::default(),
            by_span: SPANS_S.map(|_| Told::default()),
            samples: BTreeMap::new(),
            polls: 0,
            fixed: 0,
            came: 0,
            abandoned: 0,
        }
    }

    /// One batch of joins, polls and ends.
    async fn act(&mut self, rooms: &dyn Queues, doing: &[(usize, RoomVerb)], now_ms: u64) {
        let op = |&(actor, verb): &(usize, RoomVerb)| RoomOp {
            actor: Id::Int(actor as i64),
            number: self.people[actor].number,
            verb,
        };
        let batch = RoomBatch {
            seed: [3; 32],
            times: times(START_MS + now_ms),
            waiting_max: 1_000_000,
            ops: doing.iter().map(op).collect(),
        };
        let commit = rooms.apply_room(KIND, &Id::Int(1), batch).await.unwrap();
        let RoomCommit::Done(results, figures) = commit else { panic!("{commit:?}") };
        self.flow.observe(figures, START_MS + now_ms, CAPACITY);
        for ((actor, verb), result) in doing.iter().zip(results) {
            self.polls += u64::from(matches!(verb, RoomVerb::Poll));
            match result {
                RoomResult::Waiting { number, ahead, .. } => {
                    self.people[*actor].number = number;
                    let eta = self.flow.eta(ahead);
                    self.waits(*actor, eta, figures.waiting, now_ms);
                }
                RoomResult::Active { admitted_ms, .. } => self.comes_in(*actor, admitted_ms - START_MS, now_ms),
                RoomResult::Ended { .. } | RoomResult::Unknown | RoomResult::Full => {}
            }
        }
    }

    /// Somebody is told when it will be their turn, and asks again when they are told to, or gives up.
    fn waits(&mut self, actor: usize, eta: Option<Eta>, waiting: u64, now_ms: u64) {
        let person = &mut self.people[actor];
        if let Some(eta) = eta {
            person.first = person.first.or(Some((now_ms, eta)));
            if actor.is_multiple_of(10) {
                self.samples.entry(actor).or_default().push((now_ms, eta));
            }
        }
        let bounds = (POLL_MS.0, POLL_MS.1, GRACE_MS);
        let after_ms = poll_after_ms(bounds, POLLS_PER_S, waiting, eta);
        let next_ms = now_ms + after_ms + self.random.random_range(0..=after_ms * 3 / 10);
        match person.gives_up_ms {
            Some(gives_up_ms) if next_ms > gives_up_ms => {
                self.fixed += gives_up_ms.saturating_sub(person.joined_ms) / 2_000;
            }
            _ => self.agenda.entry(step_of(next_ms)).or_default().push((actor, RoomVerb::Poll)),
        }
    }

    /// Somebody is in: what they were told is compared with that.
    fn comes_in(&mut self, actor: usize, admitted_ms: u64, now_ms: u64) {
        let person = &self.people[actor];
        self.came += 1;
        self.fixed += (admitted_ms.saturating_sub(person.joined_ms)) / 2_000;
        if let Some(told) = person.first {
            self.at_first.add(told, admitted_ms);
        }
        for told in self.samples.remove(&actor).unwrap_or_default() {
            let left_ms = admitted_ms.saturating_sub(told.0);
            let span = SPANS_S.iter().position(|span_s| left_ms >= span_s * 1_000);
            if let Some(span) = span {
                self.by_span[span].add(told, admitted_ms);
            }
        }
        let done_ms = now_ms + self.random.random_range(5_000..25_000);
        self.agenda.entry(step_of(done_ms)).or_default().push((actor, RoomVerb::Complete));
    }

    /// Ticks until nobody more can be let in.
    async fn tick(&mut self, rooms: &dyn Queues, now_ms: u64) -> RoomFigures {
        loop {
            let tick = RoomTick {
                seed: [3; 32],
                times: times(START_MS + now_ms),
                lease_ms: 1_000,
                admit: TICK_PEOPLE_MAX,
                capacity: CAPACITY,
                active_ttl_ms: 120_000,
                claim_ms: 60_000,
            };
            let ticked = rooms.tick_room(KIND, &Id::Int(1), tick).await.unwrap();
            let Ticked::Done { admitted, is_more, figures } = ticked else { panic!("{ticked:?}") };
            self.flow.observe(figures, START_MS + now_ms, CAPACITY);
            assert!(figures.active <= CAPACITY);
            self.abandoned = figures.abandoned + figures.no_shows;
            if admitted < TICK_PEOPLE_MAX && !is_more {
                return figures;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hundred_thousand_are_told_and_how_often_they_ask() {
    // What is measured is no disk.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temporary_directory("eta"));
    let config = StoreConfig { path: directory.path().join("store"), ..StoreConfig::default() };
    let store = weir::store::open(&config).await.unwrap();
    let rooms: &dyn Queues = &*store;
    let opening = Opening { seed: [3; 32], now_ms: START_MS, queues_max: 10, idle_ms: 1_000 };
    assert_eq!(rooms.open_room(KIND, &Id::Int(1), opening).await, Ok(Opened::Open([3; 32])));
    let mut crowd = Crowd::new();
    let mut last = RoomFigures { waiting: 1, ..RoomFigures::default() };
    for step in 1.. {
        let now_ms = step * STEP_MS;
        let doing = crowd.agenda.remove(&step).unwrap_or_default();
        if doing.is_empty() && crowd.agenda.is_empty() && last.waiting + last.active == 0 {
            break;
        }
        for doing in doing.chunks(2_000) {
            crowd.act(rooms, doing, now_ms).await;
        }
        last = crowd.tick(rooms, now_ms).await;
    }
    let Crowd { mut at_first, mut by_span, polls, fixed, came, abandoned, .. } = crowd;
    println!("eta: {PEOPLE} arrivals, {abandoned} gave up, {came} came in; told first: {}", at_first.line());
    for (span_s, told) in SPANS_S.iter().zip(&mut by_span) {
        println!("eta: told {span_s} s before or earlier: {}", told.line());
    }
    let saved = fixed as f64 / polls as f64;
    println!("polls: {polls} by adaptive intervals, {fixed} every 2 s: {saved:.1} times fewer");
    assert_eq!(came as u64 + abandoned, PEOPLE as u64, "everybody came in or gave up");
    assert!(polls * 2 < fixed, "adaptive intervals save more than half");
}
