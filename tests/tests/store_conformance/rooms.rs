//! Waiting rooms: places, stays, and what survives.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir::model::Id;
use weir::room::lottery;
use weir::store::{
    Opened, Opening, RoomBatch, RoomCommit, RoomEnd, RoomFigures, RoomOp, RoomResult, RoomTick, RoomTimes, RoomVerb,
    Ticked,
};

use crate::stand::{Backend, OnRedis, START_MS, Stand};

const ROOM: &str = "concert";
const QUEUE: Id = Id::Int(1);
const GRACE_MS: u64 = 10_000;
const CLAIM_MS: u64 = 3_000;
const STAY_MS: u64 = 20_000;
const JOIN: RoomVerb = RoomVerb::Join { lane: 128, lottery_rank: None, through_ms: None };

fn opening(seed: u8, now_ms: u64) -> Opening {
    Opening { seed: [seed; 32], now_ms, queues_max: 2, idle_ms: 60_000 }
}

/// A queue of a stand.
struct Room<'a, B: Backend> {
    stand: &'a Stand<B>,
    seed: [u8; 32],
    now_ms: u64,
    /// Every pause is one in which people could ask, unless a test says otherwise.
    pause_ms_max: u64,
}

impl<'a, B: Backend> Room<'a, B> {
    async fn open(stand: &'a Stand<B>, seed: u8) -> Self {
        Self::open_at(stand, seed, START_MS).await
    }

    async fn open_at(stand: &'a Stand<B>, seed: u8, now_ms: u64) -> Self {
        let opened = stand.store().open_room(ROOM, &QUEUE, opening(seed, now_ms)).await.unwrap();
        let Opened::Open(seed) = opened else { panic!("{opened:?}") };
        Self { stand, seed, now_ms, pause_ms_max: u64::MAX }
    }

    fn times(&self, owner: &str) -> RoomTimes {
        RoomTimes {
            at_ms: self.now_ms,
            now_ms: self.now_ms,
            pause_ms_max: self.pause_ms_max,
            owner: owner.into(),
            grace_ms: GRACE_MS,
            ended_ttl_ms: 60_000,
        }
    }

    async fn commit(&self, ops: Vec<RoomOp>) -> RoomCommit {
        self.commit_of("a", ops).await
    }

    async fn commit_of(&self, owner: &str, ops: Vec<RoomOp>) -> RoomCommit {
        let batch = RoomBatch { seed: self.seed, times: self.times(owner), waiting_max: 100_000, ops };
        self.stand.store().apply_room(ROOM, &QUEUE, batch).await.unwrap()
    }

    async fn all(&self, ops: Vec<RoomOp>) -> (Vec<RoomResult>, RoomFigures) {
        match self.commit(ops).await {
            RoomCommit::Done(results, figures) => (results, figures),
            other => panic!("{other:?}"),
        }
    }

    async fn one(&self, actor: i64, number: u64, verb: RoomVerb) -> RoomResult {
        self.all(vec![RoomOp { actor: Id::Int(actor), number, verb }]).await.0[0]
    }

    async fn join(&self, actors: std::ops::RangeInclusive<i64>) -> Vec<RoomResult> {
        self.all(actors.map(|actor| RoomOp { actor: Id::Int(actor), number: 0, verb: JOIN }).collect()).await.0
    }

    async fn tick_of(&self, owner: &str, admit: u32, capacity: u64) -> Ticked {
        let tick = RoomTick {
            seed: self.seed,
            times: self.times(owner),
            lease_ms: 60_000,
            admit,
            capacity,
            active_ttl_ms: STAY_MS,
            claim_ms: CLAIM_MS,
        };
        self.stand.store().tick_room(ROOM, &QUEUE, tick).await.unwrap()
    }

    async fn tick(&self, admit: u32, capacity: u64) -> (u32, RoomFigures) {
        match self.tick_of("a", admit, capacity).await {
            Ticked::Done { admitted, figures, .. } => (admitted, figures),
            other => panic!("{other:?}"),
        }
    }
}

fn ahead(result: RoomResult) -> u64 {
    match result {
        RoomResult::Waiting { ahead, .. } => ahead,
        other => panic!("{other:?}"),
    }
}

pub async fn a_person_has_one_place_and_positions_only_shrink<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let room = Room::open(&stand, 1).await;
    let joined = room.join(1..=5).await;
    let expected =
        |number: u64| RoomResult::Waiting { number, ahead: number - 1, lane: 128, joined_ms: START_MS, is_new: true };
    assert_eq!(joined, (1..=5).map(expected).collect::<Vec<_>>());
    let again = room.join(3..=3).await[0];
    assert!(matches!(again, RoomResult::Waiting { number: 3, ahead: 2, is_new: false, .. }), "{again:?}");
    let early = RoomVerb::Join { lane: 1, lottery_rank: None, through_ms: None };
    assert_eq!(ahead(room.one(9, 0, early).await), 0, "a lane before the others");
    assert_eq!(ahead(room.one(5, 5, RoomVerb::Poll).await), 5);
    let left = RoomResult::Ended { end: RoomEnd::Left, is_new: true };
    assert_eq!(room.one(2, 2, RoomVerb::Leave).await, left);
    assert_eq!(ahead(room.one(5, 5, RoomVerb::Poll).await), 4);
    assert_eq!(room.one(2, 2, RoomVerb::Poll).await, RoomResult::Ended { end: RoomEnd::Left, is_new: false });
    assert_eq!(room.one(2, 99, RoomVerb::Poll).await, RoomResult::Unknown);
    let back = room.join(2..=2).await[0];
    assert!(matches!(back, RoomResult::Waiting { number: 7, ahead: 5, is_new: true, .. }), "{back:?}");
    let still_left = RoomResult::Ended { end: RoomEnd::Left, is_new: false };
    assert_eq!(room.one(2, 2, RoomVerb::Leave).await, still_left, "the old number does not touch the new place");
    assert_eq!(ahead(room.one(2, 7, RoomVerb::Look).await), 5);
    let still = room.one(5, 5, RoomVerb::Complete).await;
    assert_eq!(ahead(still), 4, "whoever waits goes on waiting");
}

pub async fn the_capacity_holds_whatever_is_asked_for<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let mut room = Room::open(&stand, 1).await;
    room.join(1..=1_200).await;
    assert_eq!(room.tick(u32::MAX, 700).await.0, 500, "a step is bounded");
    assert_eq!(room.tick(u32::MAX, 700).await, (200, room.tick(0, 700).await.1));
    let (admitted, figures) = room.tick(u32::MAX, 700).await;
    assert_eq!((admitted, figures.active, figures.waiting, figures.admitted), (0, 700, 500, 700));
    assert_eq!(ahead(room.one(701, 701, RoomVerb::Poll).await), 0, "in the order of arrival");
    let done = RoomResult::Ended { end: RoomEnd::Completed, is_new: true };
    assert_eq!(room.one(5, 5, RoomVerb::Complete).await, done);
    assert_eq!(room.tick(u32::MAX, 700).await.0, 1);
    let next = room.one(701, 701, RoomVerb::Poll).await;
    assert!(matches!(next, RoomResult::Active { is_new: true, .. }), "{next:?}");
    // Those who did not come are out again, in bounded steps.
    room.now_ms += CLAIM_MS;
    let (_, figures) = room.tick(0, 700).await;
    assert_eq!((figures.active, figures.expired, figures.no_shows), (200, 0, 500));
    let (_, figures) = room.tick(0, 700).await;
    assert_eq!((figures.active, figures.no_shows, figures.completed), (1, 699, 1));
}

pub async fn whoever_does_not_ask_goes_and_whoever_asks_stays<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let mut room = Room::open(&stand, 1).await;
    room.join(1..=3).await;
    room.now_ms += GRACE_MS - 1;
    assert_eq!(ahead(room.one(2, 2, RoomVerb::Poll).await), 1);
    assert_eq!(ahead(room.one(3, 3, RoomVerb::Look).await), 2, "to be looked at is not to ask");
    assert_eq!(room.tick(0, 0).await.1.abandoned, 0);
    room.now_ms += 1;
    let (_, figures) = room.tick(0, 0).await;
    assert_eq!((figures.abandoned, figures.waiting), (2, 1));
    assert_eq!(ahead(room.one(2, 2, RoomVerb::Poll).await), 0, "places behind move up");
    assert_eq!(room.one(3, 3, RoomVerb::Poll).await, RoomResult::Ended { end: RoomEnd::Abandoned, is_new: false });
    for _ in 0..5 {
        room.now_ms += GRACE_MS - 1;
        assert_eq!(ahead(room.one(2, 2, RoomVerb::Poll).await), 0);
        assert_eq!(room.tick(0, 0).await.1.abandoned, 2);
    }
}

pub async fn stays_are_claimed_extended_and_over<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let mut room = Room::open(&stand, 1).await;
    room.join(1..=2).await;
    room.tick(2, 2).await;
    let until = |result: RoomResult| match result {
        RoomResult::Active { until_ms, .. } => until_ms - START_MS,
        other => panic!("{other:?}"),
    };
    assert_eq!(until(room.one(1, 1, RoomVerb::Look).await), CLAIM_MS);
    assert_eq!(until(room.one(1, 1, RoomVerb::Poll).await), STAY_MS);
    assert!(matches!(room.one(1, 1, RoomVerb::Poll).await, RoomResult::Active { is_new: false, .. }));
    let extend = |ttl_ms| RoomVerb::Extend { ttl_ms: Some(ttl_ms), stay_ms_max: 30_000 };
    let as_at_first = RoomVerb::Extend { ttl_ms: None, stay_ms_max: 30_000 };
    assert_eq!(until(room.one(1, 1, extend(10)).await), STAY_MS, "never shorter");
    room.now_ms += 1_000;
    assert_eq!(until(room.one(1, 1, as_at_first).await), STAY_MS + 1_000, "as long as the rules gave");
    assert_eq!(until(room.one(1, 1, extend(25_000)).await), 26_000);
    assert_eq!(until(room.one(1, 1, extend(90_000)).await), 30_000, "never longer than the longest");
    room.now_ms = START_MS + CLAIM_MS;
    // Nobody has swept yet: it is over all the same.
    assert_eq!(room.one(2, 2, RoomVerb::Poll).await, RoomResult::Ended { end: RoomEnd::NoShow, is_new: false });
    let (_, figures) = room.all(Vec::new()).await;
    assert_eq!((figures.active, figures.no_shows), (1, 1));
    room.now_ms = START_MS + 30_000;
    let (_, figures) = room.tick(0, 2).await;
    assert_eq!((figures.expired, figures.no_shows), (1, 1), "each is counted once");
    assert_eq!(room.one(1, 1, RoomVerb::Poll).await, RoomResult::Ended { end: RoomEnd::Expired, is_new: false });
    let through = RoomVerb::Join { lane: 0, lottery_rank: None, through_ms: Some(7) };
    assert_eq!(until(room.one(4, 0, through).await), 30_007);
}

pub async fn a_standstill_is_charged_to_nobody<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let mut room = Room::open(&stand, 1).await;
    room.pause_ms_max = 1_000;
    room.join(1..=4).await;
    room.tick(2, 2).await;
    room.one(1, 1, RoomVerb::Poll).await;
    // Far longer than anybody's time: it counts as the longest pause there may be, for those who wait and those who are in.
    room.now_ms += 500_000;
    let (admitted, figures) = room.tick(9, 2).await;
    assert_eq!((admitted, figures.waiting, figures.active, figures.abandoned), (0, 2, 2, 0));
    let RoomResult::Active { until_ms, admitted_ms, .. } = room.one(1, 1, RoomVerb::Poll).await else { panic!() };
    assert_eq!(
        (until_ms, admitted_ms),
        (room.now_ms + STAY_MS - 1_000, room.now_ms - 500_000),
        "what was left is left"
    );
    // A clock that is set back takes nobody's time either, and gives none.
    room.now_ms -= 1_000_000;
    room.tick(0, 2).await;
    assert!(matches!(room.one(2, 2, RoomVerb::Poll).await, RoomResult::Active { is_new: true, .. }));
    // Whoever really goes is gone in time: nine more seconds of the ten.
    for (passed_ms, waiting) in [(8_999, 2), (1, 0)] {
        for _ in 0..passed_ms / 1_000 {
            room.now_ms += 1_000;
            room.tick(0, 2).await;
        }
        room.now_ms += passed_ms % 1_000;
        let (_, figures) = room.tick(0, 2).await;
        assert_eq!((figures.waiting, figures.abandoned), (waiting, 2 - waiting), "after {passed_ms}");
    }
    let (_, figures) = room.tick(0, 2).await;
    assert_eq!((figures.active, figures.expired), (2, 0));
}

/// Several hosts share a Redis: those who asked through the one that is silent must find another one first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_host_holds_the_time_for_a_while() {
    let stand = Stand::<OnRedis>::new().await;
    let mut room = Room::open(&stand, 1).await;
    room.pause_ms_max = 1_000;
    room.join(1..=2).await;
    room.commit_of("b", vec![RoomOp { actor: Id::Int(3), number: 0, verb: JOIN }]).await;
    let pass = async |room: &mut Room<'_, OnRedis>, seconds: u64| {
        for _ in 0..seconds {
            room.now_ms += 1_000;
            room.one(1, 1, RoomVerb::Poll).await;
            room.tick(0, 0).await;
        }
        room.tick(0, 0).await.1
    };
    assert_eq!(pass(&mut room, 29).await.abandoned, 0, "b may come back");
    room.tick_of("b", 0, 0).await;
    assert_eq!(pass(&mut room, 8).await.abandoned, 0, "b's silence has cost nobody more than a pause");
    assert_eq!(pass(&mut room, 20).await.abandoned, 0, "nor does its second");
    // It is not expected any more: what passes from now on counts.
    assert_eq!(pass(&mut room, 12).await.abandoned, 2);
    assert_eq!(ahead(room.one(1, 1, RoomVerb::Poll).await), 0, "whoever asked stays");

    // One that says that it stops holds nothing up, and its turn is over at once.
    room.commit_of("c", vec![RoomOp { actor: Id::Int(4), number: 0, verb: JOIN }]).await;
    stand.store().part_room(ROOM, &QUEUE, "a").await.unwrap();
    assert!(matches!(room.tick_of("c", 0, 0).await, Ticked::Done { .. }));
    stand.store().part_room(ROOM, &QUEUE, "c").await.unwrap();
    assert_eq!(pass(&mut room, 10).await.abandoned, 3);
}

pub async fn places_survive_a_crash<B: Backend>() {
    let mut stand = Stand::<B>::new().await;
    {
        let room = Room::open(&stand, 1).await;
        room.join(1..=100).await;
        room.tick(10, 50).await;
        room.one(3, 3, RoomVerb::Poll).await;
        room.one(4, 4, RoomVerb::Complete).await;
        room.one(20, 20, RoomVerb::Leave).await;
    }
    stand.crash().await;
    assert_eq!(stand.store().room_queues(ROOM).await.unwrap(), [QUEUE]);
    let mut room = Room::open_at(&stand, 2, START_MS + 1_000).await;
    assert_eq!(room.seed, [1; 32], "the same life");
    let (_, figures) = room.all(Vec::new()).await;
    assert_eq!((figures.waiting, figures.active, figures.joined, figures.admitted), (89, 9, 100, 10));
    assert_eq!((figures.completed, figures.left), (1, 1));
    assert_eq!(ahead(room.one(100, 100, RoomVerb::Poll).await), 88);
    assert!(matches!(room.one(3, 3, RoomVerb::Poll).await, RoomResult::Active { is_new: false, .. }));
    assert!(!matches!(room.one(4, 4, RoomVerb::Poll).await, RoomResult::Active { .. } | RoomResult::Waiting { .. }));
    let joined = room.join(101..=101).await[0];
    assert!(matches!(joined, RoomResult::Waiting { number: 101, ahead: 89, .. }), "{joined:?}");
    room.now_ms += 1;
    assert_eq!(room.tick(u32::MAX, 50).await.0, 41);
}

pub async fn a_lost_store_is_another_life<B: Backend>() {
    let mut stand = Stand::<B>::new().await;
    Room::open(&stand, 1).await.join(1..=3).await;
    stand.lose_all().await;
    let lost = Room { stand: &stand, seed: [1; 32], now_ms: START_MS, pause_ms_max: u64::MAX };
    assert_eq!(lost.commit(Vec::new()).await, RoomCommit::OtherLife);
    assert_eq!(lost.tick_of("a", 1, 1).await, Ticked::OtherLife);
    let room = Room::open(&stand, 2).await;
    assert_eq!(room.seed, [2; 32]);
    assert_eq!(lost.commit(Vec::new()).await, RoomCommit::OtherLife);
    assert_eq!(ahead(room.join(7..=7).await[0]), 0);
}

pub async fn a_draw_is_reproduced_from_its_seed_and_log<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let room = Room::open(&stand, 9).await;
    let actors: Vec<Id> = (1..=500).map(Id::Int).collect();
    let join = |actor: &Id| RoomOp {
        actor: actor.clone(),
        number: 0,
        // Few lots, so that many are taken.
        verb: RoomVerb::Join { lane: 64, lottery_rank: Some(lottery::rank(&room.seed, actor)), through_ms: None },
    };
    room.all(actors.iter().map(join).collect()).await;
    let mut logged = stand.store().room_entrants(ROOM, &QUEUE, 0, 400).await.unwrap();
    logged.extend(stand.store().room_entrants(ROOM, &QUEUE, 400, 400).await.unwrap());
    assert_eq!(logged, actors);
    let order = lottery::order(&room.seed, &logged);
    let looks = order.iter().map(|actor| {
        let Id::Int(number) = actor else { panic!() };
        RoomOp { actor: actor.clone(), number: number.unsigned_abs(), verb: RoomVerb::Look }
    });
    let (results, _) = room.all(looks.collect()).await;
    let places: Vec<u64> = results.into_iter().map(ahead).collect();
    assert_eq!(places, (0..500).collect::<Vec<_>>());
    let taken = RoomVerb::Join { lane: 64, lottery_rank: Some(lottery::rank(&room.seed, &order[0])), through_ms: None };
    assert_eq!(ahead(room.one(1_000, 0, taken).await), 1, "behind whoever has the lot");
}

pub async fn queues_are_bounded_and_make_room_when_idle<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let rooms = stand.store();
    let open = async |queue: i64, now_ms| rooms.open_room(ROOM, &Id::Int(queue), opening(queue as u8, now_ms)).await;
    assert_eq!(open(1, START_MS).await, Ok(Opened::Open([1; 32])));
    assert_eq!(open(2, START_MS + 50_000).await, Ok(Opened::Open([2; 32])));
    assert_eq!(open(3, START_MS + 59_999).await, Ok(Opened::Full));
    assert_eq!(open(3, START_MS + 60_000).await, Ok(Opened::Open([3; 32])));
    let mut queues = rooms.room_queues(ROOM).await.unwrap();
    queues.sort();
    assert_eq!(queues, [Id::Int(2), Id::Int(3)]);
}

pub async fn a_queue_where_somebody_is_makes_no_room<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let rooms = stand.store();
    let open = async |queue: i64, now_ms| rooms.open_room(ROOM, &Id::Int(queue), opening(queue as u8, now_ms)).await;
    assert_eq!(open(2, START_MS - 1).await, Ok(Opened::Open([2; 32])));
    let mut room = Room::open(&stand, 1).await;
    room.join(1..=1).await;
    room.now_ms = START_MS + 70_000;
    assert_eq!(open(3, room.now_ms).await, Ok(Opened::Open([3; 32])), "of two, the one where nobody is");
    assert_eq!(open(4, room.now_ms).await, Ok(Opened::Full));
    room.one(1, 1, RoomVerb::Leave).await;
    assert_eq!(open(4, room.now_ms + 59_999).await, Ok(Opened::Full));
    let later_ms = room.now_ms + 60_000;
    assert!(matches!(room.one(1, 1, RoomVerb::Look).await, RoomResult::Ended { .. } | RoomResult::Unknown));
    assert_eq!(open(3, later_ms).await, Ok(Opened::Open([3; 32])), "it is in use again");
    assert_eq!(open(4, later_ms + 60_000).await, Ok(Opened::Open([4; 32])), "the one that was used longest ago");
    assert_eq!(room.commit(Vec::new()).await, RoomCommit::OtherLife);
    assert_eq!(room.tick_of("a", 1, 1).await, Ticked::OtherLife);
    assert_eq!(open(1, later_ms + 60_000).await, Ok(Opened::Open([1; 32])), "as new");
}

pub async fn an_idle_queue_is_nobodys<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let room = Room::open(&stand, 1).await;
    assert!(matches!(room.tick_of("a", 0, 1).await, Ticked::Done { .. }));
    room.join(1..=2).await;
    let Ticked::Done { admitted, figures, .. } = room.tick_of("b", 5, 1).await else { panic!() };
    assert_eq!((admitted, figures.active, figures.waiting), (1, 1, 1));
    // Whoever has it while somebody is there keeps it, or there is no lease: in no case more come in than may be.
    match room.tick_of("a", 5, 1).await {
        Ticked::NotOurs => {}
        Ticked::Done { admitted, figures, .. } => assert_eq!((admitted, figures.active), (0, 1)),
        Ticked::OtherLife => panic!(),
    }
    room.one(1, 1, RoomVerb::Complete).await;
    room.one(2, 2, RoomVerb::Leave).await;
    assert!(matches!(room.tick_of("b", 0, 1).await, Ticked::Done { .. }));
    assert!(matches!(room.tick_of("a", 0, 1).await, Ticked::Done { .. }), "given back");
}

/// Somebody, as the model sees them.
#[derive(Clone, Copy, PartialEq)]
enum Model {
    Waits { seen_ms: u64 },
    Stays { until_ms: u64, has_come: bool },
}

/// People in the order of arrival: actor, number, how the model sees them.
type People = Vec<(i64, u64, Model)>;

/// Somebody joins, is there already, or comes again after the end of a stay.
fn join(people: &mut People, actor: i64, number: &mut u64, now_ms: u64) {
    let place = people.iter().position(|(other, ..)| *other == actor);
    let place = place.filter(|place| match people[*place].2 {
        Model::Stays { until_ms, .. } if until_ms <= now_ms => {
            people.remove(*place);
            false
        }
        _ => true,
    });
    match place {
        Some(place) => {
            if let Model::Waits { seen_ms } = &mut people[place].2 {
                *seen_ms = now_ms;
            }
        }
        None => {
            *number += 1;
            people.push((actor, *number, Model::Waits { seen_ms: now_ms }));
        }
    }
}

/// Somebody asks.
fn ask(people: &mut People, place: usize, now_ms: u64) {
    match &mut people[place].2 {
        Model::Waits { seen_ms } => *seen_ms = now_ms,
        Model::Stays { until_ms, .. } if *until_ms <= now_ms => {
            people.remove(place);
        }
        Model::Stays { until_ms, has_come } if !*has_come => {
            *until_ms += STAY_MS - CLAIM_MS;
            *has_come = true;
        }
        Model::Stays { .. } => {}
    }
}

/// Whose time is up is gone, and the first are let in; how many wait then.
fn let_in(people: &mut People, admitted: u64, now_ms: u64) -> usize {
    people.retain(|(_, _, model)| match model {
        Model::Waits { seen_ms } => seen_ms + GRACE_MS > now_ms,
        Model::Stays { until_ms, .. } => *until_ms > now_ms,
    });
    let first = people.iter_mut().filter(|(_, _, model)| matches!(model, Model::Waits { .. }));
    for (_, _, model) in first.take(admitted as usize) {
        *model = Model::Stays { until_ms: now_ms + CLAIM_MS, has_come: false };
    }
    people.iter().filter(|(_, _, model)| matches!(model, Model::Waits { .. })).count()
}

/// Random operations against a model.
pub async fn random_operations_agree_with_a_model<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let mut room = Room::open(&stand, 1).await;
    let mut random = StdRng::seed_from_u64(7);
    let mut people = People::new();
    let mut number = 0;
    for step in 0..1_500 {
        room.now_ms += random.random_range(0..400);
        let now_ms = room.now_ms;
        let actor = random.random_range(1..=40);
        let place = people.iter().position(|(other, ..)| *other == actor);
        match random.random_range(0..10) {
            0..4 => {
                let result = room.join(actor..=actor).await[0];
                join(&mut people, actor, &mut number, now_ms);
                check(&people, actor, result, step);
            }
            4..7 => {
                let Some(place) = place else { continue };
                let result = room.one(actor, people[place].1, RoomVerb::Poll).await;
                ask(&mut people, place, now_ms);
                check(&people, actor, result, step);
            }
            7 => {
                let Some(place) = place else { continue };
                let result = room.one(actor, people[place].1, RoomVerb::Leave).await;
                assert!(matches!(result, RoomResult::Ended { .. }), "step {step}: {result:?}");
                people.remove(place);
            }
            _ => {
                let capacity = random.random_range(3..8);
                let (admitted, figures) = room.tick(random.random_range(0..4), capacity).await;
                let waiting = let_in(&mut people, admitted.into(), now_ms);
                assert_eq!(figures.waiting, waiting as u64, "step {step}");
                assert_eq!(figures.active, (people.len() - waiting) as u64, "step {step}");
                assert!(admitted == 0 || figures.active <= capacity, "step {step}");
            }
        }
    }
    assert!(number > 100);
}

/// What is told of somebody is what the model says.
fn check(people: &[(i64, u64, Model)], actor: i64, result: RoomResult, step: usize) {
    let before = people.iter().take_while(|(other, ..)| *other != actor);
    let expected_ahead = before.filter(|(_, _, model)| matches!(model, Model::Waits { .. })).count() as u64;
    match (people.iter().find(|(other, ..)| *other == actor), result) {
        (Some((_, number, Model::Waits { .. })), RoomResult::Waiting { number: told, ahead, .. }) => {
            assert_eq!((told, ahead), (*number, expected_ahead), "step {step}");
        }
        (
            Some((_, number, Model::Stays { until_ms, .. })),
            RoomResult::Active { number: told, until_ms: until, .. },
        ) => {
            assert_eq!((told, until), (*number, *until_ms), "step {step}");
        }
        (None, RoomResult::Ended { .. }) => {}
        (_, other) => panic!("step {step}: {other:?}"),
    }
}
