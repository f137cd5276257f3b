//! Settings of members: changes, look-ups, idempotency, what becomes of their state.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir::model::{Change, Id, Setting, Settings, SettingsChange};
use weir::store::{CountResult, Idempotency, LoadedState, MemberRead, SettingsBatch, SettingsOp, SettingsResult};

use crate::counters::hit;
use crate::stand::{Backend, DIGEST, KIND, Stand};

fn settings(fields: &[(&str, Setting)]) -> Settings {
    Settings::of(fields.iter().map(|(name, value)| (*name, value)))
}

fn on(name: &str) -> Settings {
    settings(&[(name, Setting::Bool(true))])
}

fn set(member: i64, settings: Settings) -> SettingsOp {
    SettingsOp { member: Id::Int(member), settings, idempotency: None }
}

fn keyed(op: SettingsOp, key: u8, fingerprint: u8) -> SettingsOp {
    SettingsOp { idempotency: Some(Idempotency { key: [key; 16], fingerprint: [fingerprint; 16] }), ..op }
}

impl<B: Backend> Stand<B> {
    async fn puts(&self, ops: Vec<SettingsOp>) -> Vec<SettingsResult> {
        let batch = SettingsBatch { digest: DIGEST, at_ms: self.now_ms(), now_ms: self.now_ms(), ops };
        self.store().put_settings(KIND, batch).await.unwrap().results
    }

    async fn put(&self, op: SettingsOp) -> SettingsResult {
        self.puts(vec![op]).await.remove(0)
    }

    async fn member(&self, member: i64) -> MemberRead {
        self.store().settings(KIND, self.now_ms(), &[Id::Int(member)]).await.remove(0).unwrap()
    }

    async fn told(&self, member: i64) -> Value {
        match self.member(member).await {
            MemberRead::Known(settings) => Value::Object(settings.to_json()),
            other => panic!("not known: {other:?}"),
        }
    }

    async fn load_settings(&self, member: i64, settings: Settings) {
        self.load(vec![(member, LoadedState::Settings(settings))]).await;
    }
}

fn done(result: &SettingsResult) -> (u64, bool) {
    match result {
        SettingsResult::Done(outcome) => (outcome.position, outcome.replayed),
        other => panic!("not applied: {other:?}"),
    }
}

pub async fn a_member_is_cold_until_it_is_loaded<B: Backend>() {
    let stand = Stand::<B>::new().await;
    assert_eq!(stand.member(1).await, MemberRead::NotLoaded);
    assert_eq!(stand.put(set(1, on("a"))).await, SettingsResult::TargetNotLoaded);
    stand.load_settings(1, on("b")).await;
    stand.load(vec![(2, LoadedState::Missing)]).await;
    assert_eq!(stand.told(1).await, json!({"b": true}));
    assert_eq!(stand.member(2).await, MemberRead::Missing);
    assert_eq!(stand.put(set(2, on("a"))).await, SettingsResult::TargetMissing);
    stand.load_settings(3, Settings::default()).await;
    assert_eq!(stand.told(3).await, json!({}));
}

pub async fn each_change_is_laid_over_those_before_it<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let before = settings(&[("a", Setting::Bool(true)), ("b", Setting::Int(-1)), ("c", Setting::Text("é".into()))]);
    stand.load_settings(1, before).await;
    stand.load_settings(2, Settings::default()).await;
    let results = stand
        .puts(vec![
            set(1, settings(&[("b", Setting::Int(i64::MAX)), ("a", Setting::Bool(false))])),
            set(2, settings(&[("c", Setting::Text("x".repeat(1_000).as_str().into()))])),
            set(1, settings(&[("d", Setting::Text("".into())), ("b", Setting::Int(7))])),
            set(3, on("a")),
        ])
        .await;
    assert!(done(&results[0]).0 > 0);
    assert_eq!(results[3], SettingsResult::TargetNotLoaded);
    assert_eq!(stand.told(1).await, json!({"a": false, "b": 7, "c": "é", "d": ""}));
    assert_eq!(stand.told(2).await["c"].as_str().unwrap().len(), 1_000);
    // All that was accepted is in the journal, in order, and nothing else.
    let mut journaled: BTreeMap<Id, Vec<Value>> = BTreeMap::new();
    for partition in 0..stand.store().partitions() {
        for (_, change) in stand.records(partition, 100).await {
            let Change::Settings(SettingsChange { member, settings, .. }) = change else { panic!("{change:?}") };
            journaled.entry(member).or_default().push(Value::Object(settings.to_json()));
        }
    }
    assert_eq!(journaled.len(), 2);
    assert_eq!(journaled[&Id::Int(1)], [json!({"b": i64::MAX, "a": false}), json!({"d": "", "b": 7})]);
}

pub async fn an_idempotency_key_answers_the_first_change_again<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_settings(1, Settings::default()).await;
    let first = done(&stand.put(keyed(set(1, on("a")), 1, 1)).await);
    done(&stand.put(set(1, settings(&[("a", Setting::Bool(false))]))).await);
    assert_eq!(done(&stand.put(keyed(set(1, on("a")), 1, 1)).await), (first.0, true));
    assert_eq!(stand.put(keyed(set(1, on("a")), 1, 2)).await, SettingsResult::IdempotencyConflict);
    assert_eq!(stand.told(1).await, json!({"a": false}));
}

pub async fn thousands_of_members_are_read_in_order<B: Backend>() {
    const MEMBERS: i64 = 5_000;
    // Loading them takes a busy machine longer than one that is missing is remembered.
    let stand = Stand::<B>::tuned(|config| config.absent_ttl_s = 600).await;
    let loads = (1..=MEMBERS).filter(|n| n % 3 != 0).map(|n| {
        let state =
            if n % 5 == 0 { LoadedState::Missing } else { LoadedState::Settings(settings(&[("n", Setting::Int(n))])) };
        (n, state)
    });
    stand.load(loads.collect()).await;
    let members: Vec<Id> = (1..=MEMBERS).rev().map(Id::Int).collect();
    let found = stand.store().settings(KIND, stand.now_ms(), &members).await;
    for (n, read) in (1..=MEMBERS).rev().zip(found) {
        let expected = match n {
            n if n % 3 == 0 => MemberRead::NotLoaded,
            n if n % 5 == 0 => MemberRead::Missing,
            n => MemberRead::Known(settings(&[("n", Setting::Int(n))])),
        };
        assert_eq!(read.unwrap(), expected, "{n}");
    }
}

pub async fn changes_survive_a_crash_and_are_clean_after_the_flush<B: Backend>() {
    let mut stand = Stand::<B>::new().await;
    stand.load_settings(1, on("a")).await;
    done(&stand.put(set(1, on("b"))).await);
    stand.crash().await;
    // What SQL says of it is older than the journal.
    if !B::STATE_SURVIVES {
        stand.load_settings(1, on("a")).await;
    }
    assert_eq!(stand.told(1).await, json!({"a": true, "b": true}));
    let partition = stand.partition(1);
    let head = stand.head(partition).await;
    assert_eq!(head.backlog.entries, 1);
    let (id, trimmed) = ([Id::Int(1)], head.last);
    stand.store().trim(KIND, partition, head.incarnation, trimmed, &id, &[]).await.unwrap();
    assert_eq!(stand.head(partition).await.backlog.entries, 0);
    assert_eq!(stand.told(1).await, json!({"a": true, "b": true}));
    // A row that SQL refused: what the store knows is wrong.
    done(&stand.put(set(1, on("c"))).await);
    let head = stand.head(partition).await;
    stand.store().trim(KIND, partition, head.incarnation, head.last, &id, &id).await.unwrap();
    assert_eq!(stand.member(1).await, MemberRead::NotLoaded);
}

pub async fn settings_are_no_other_capabilitys_state<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_settings(1, on("a")).await;
    assert_eq!(stand.hit(hit(1, 1)).await, CountResult::TargetNotLoaded);
    stand.load_count(2, 5).await;
    assert_eq!(stand.member(2).await, MemberRead::NotLoaded);
    assert_eq!(stand.put(set(2, on("a"))).await, SettingsResult::TargetNotLoaded);
    stand.store().wipe_state(KIND).await.unwrap();
    assert_eq!(stand.member(1).await, MemberRead::NotLoaded);
}
