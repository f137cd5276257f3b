//! What policy modules keep: values and counters, each module's own, until their time is over.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir::model::{KeyEntry, KeyIncrement};
use weir::store::{Counted, ReadResult};

use crate::stand::{Backend, OnRedis, Stand};

/// Longer than any test.
const LONG_MS: u32 = 600_000;

fn entry(key: &str, value: &[u8], ttl_ms: u32) -> KeyEntry {
    KeyEntry { key: key.into(), value: value.to_vec(), ttl_ms }
}

fn plus(key: &str, by: i64) -> KeyIncrement {
    KeyIncrement { key: key.into(), by, ttl_ms: LONG_MS }
}

impl<B: Backend> Stand<B> {
    async fn keep(&self, module: &str, entries: &[KeyEntry]) {
        self.store().guest_set(module, self.now_ms(), entries.to_vec()).await.unwrap();
    }

    async fn kept(&self, module: &str, keys: &[&str]) -> Vec<Option<Vec<u8>>> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        self.store().guest_get(module, self.now_ms(), &keys).await.unwrap()
    }

    async fn count(&self, module: &str, increments: &[KeyIncrement]) -> Counted {
        self.store().guest_increment(module, self.now_ms(), increments.to_vec()).await.unwrap()
    }
}

fn some(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec())
}

pub async fn a_module_finds_what_it_kept<B: Backend>() {
    let stand = Stand::<B>::new().await;
    assert_eq!(stand.kept("m", &[]).await, vec![]);
    stand.keep("m", &[]).await;
    assert_eq!(stand.count("m", &[]).await, Counted::Totals(vec![]));
    let bytes: Vec<u8> = (0..=255).collect();
    let large = vec![b'v'; 64 << 10];
    let long = "k".repeat(255);
    stand
        .keep(
            "m",
            &[
                entry("a", b"1", LONG_MS),
                entry("empty", b"", LONG_MS),
                entry("bytes", &bytes, u32::MAX),
                entry(&long, &large, LONG_MS),
                entry("a", b"2", LONG_MS),
                entry("a b:{c}\n\0é", b"odd", LONG_MS),
            ],
        )
        .await;
    let asked = ["bytes", "a", "nothing", "a", "empty", &long, "a b:{c}\n\0é"];
    let expected = vec![some(&bytes), some(b"2"), None, some(b"2"), some(b""), some(&large), some(b"odd")];
    assert_eq!(stand.kept("m", &asked).await, expected, "in order, and of a key set twice the later value");
    stand.keep("m", &[entry("a", b"vv", LONG_MS)]).await;
    assert_eq!(stand.kept("m", &["a", "empty"]).await, vec![some(b"vv"), some(b"")]);
    let many: Vec<String> = (0..1_000).map(|n| format!("many-{n}")).collect();
    stand.keep("m", &many.iter().map(|key| entry(key, key.as_bytes(), LONG_MS)).collect::<Vec<_>>()).await;
    let found = stand.kept("m", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(found, many.iter().map(|key| some(key.as_bytes())).collect::<Vec<_>>());
}

pub async fn modules_do_not_see_each_other<B: Backend>() {
    let stand = Stand::<B>::new().await;
    // Names and keys that a careless prefix would mix up, with each other and with weir's own keys.
    let modules = ["a", "a.b", "a-b", "weir", "feed-like", "0"];
    let keys = ["x", "b:x", ".b:x", "a:x", "{a}:x", "format", "flusher", "\0x"];
    for module in modules {
        for key in keys {
            stand.keep(module, &[entry(key, format!("{module}/{key}").as_bytes(), LONG_MS)]).await;
        }
        assert_eq!(stand.count(module, &[plus("counter", 1)]).await, Counted::Totals(vec![1]), "{module}");
    }
    for module in modules {
        let expected: Vec<_> = keys.iter().map(|key| some(format!("{module}/{key}").as_bytes())).collect();
        assert_eq!(stand.kept(module, &keys).await, expected, "{module}");
    }
    assert_eq!(stand.kept("b", &keys).await, vec![None; keys.len()]);
    // weir's own keys are as they were.
    stand.load_whole(1, &[]).await;
    assert_eq!(stand.done(1, 2).await.state.count, 1);
    assert!(matches!(stand.read(1, 2).await, ReadResult::Known(_)));
    stand.store().ping().await.unwrap();
}

pub async fn counters_count_in_order<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let increments = [plus("a", 1), plus("b", -5), plus("a", 2), plus("none", 0), plus("b", 0), plus("a", -10)];
    assert_eq!(stand.count("m", &increments).await, Counted::Totals(vec![1, -5, 3, 0, -5, -7]));
    assert_eq!(stand.kept("m", &["a", "b", "none"]).await, vec![some(b"-7"), some(b"-5"), None], "0 begins nothing");
    let exact = (1 << 53) + 1;
    assert_eq!(stand.count("m", &[plus("large", exact), plus("large", 0)]).await, Counted::Totals(vec![exact, exact]));
    let edges = [plus("max", i64::MAX), plus("min", i64::MIN), plus("min", i64::MAX)];
    assert_eq!(stand.count("m", &edges).await, Counted::Totals(vec![i64::MAX, i64::MIN, -1]));
}

pub async fn what_cannot_be_counted_changes_nothing<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.keep("m", &[entry("value", b"5", LONG_MS), entry("empty", b"", LONG_MS)]).await;
    stand.count("m", &[plus("counter", i64::MAX - 1)]).await;
    for (bad, expected) in [
        (plus("value", 1), Counted::NotACounter(3)),
        (plus("value", 0), Counted::NotACounter(3)),
        (plus("empty", 1), Counted::NotACounter(3)),
        (plus("counter", 1), Counted::Overflow(3)),
    ] {
        let increments = [plus("fresh", 1), plus("counter", 1), plus("fresh", 1), bad];
        assert_eq!(stand.count("m", &increments).await, expected);
        let expected = vec![None, some((i64::MAX - 1).to_string().as_bytes()), some(b"5"), some(b"")];
        assert_eq!(stand.kept("m", &["fresh", "counter", "value", "empty"]).await, expected, "nothing was done");
    }
    // A counter can be replaced by a value, and is none then.
    stand.keep("m", &[entry("counter", b"7", LONG_MS)]).await;
    assert_eq!(stand.count("m", &[plus("counter", 1)]).await, Counted::NotACounter(0));
}

pub async fn what_was_kept_is_forgotten_after_its_time<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let short = |by| KeyIncrement { key: "counter".into(), by, ttl_ms: 1_000 };
    stand.keep("m", &[entry("short", b"1", 1_000), entry("long", b"2", LONG_MS), entry("longer", b"3", 1_000)]).await;
    assert_eq!(stand.count("m", &[short(1)]).await, Counted::Totals(vec![1]));
    stand.keep("m", &[entry("longer", b"4", LONG_MS)]).await;
    // Later increments do not prolong a counter, however long they would let it live.
    stand.until("a counter that is used ends", async || stand.count("m", &[plus("counter", 0)]).await == zero()).await;
    stand.until("a value ends", async || stand.kept("m", &["short"]).await == vec![None]).await;
    assert_eq!(stand.kept("m", &["long", "longer"]).await, vec![some(b"2"), some(b"4")], "set anew, it lives anew");
    assert_eq!(stand.count("m", &[short(7), short(1)]).await, Counted::Totals(vec![7, 8]), "it begins again");
}

fn zero() -> Counted {
    Counted::Totals(vec![0])
}

pub async fn concurrent_increments_are_counted_exactly<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, now_ms) = (Arc::clone(stand.store()), stand.now_ms());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..50 {
                    match store.guest_increment("m", now_ms, vec![plus("counter", 1)]).await.unwrap() {
                        Counted::Totals(totals) => seen.extend(totals),
                        other => panic!("{other:?}"),
                    }
                }
                seen
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    assert_eq!(seen, (1..=400).collect(), "each total once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_every_key_has_a_time_to_live_and_a_prefix() {
    let stand = Stand::<OnRedis>::new().await;
    stand.keep("m", &[entry("value", b"1", 60_000)]).await;
    let counted = |by, ttl_ms| KeyIncrement { key: "counter".into(), by, ttl_ms };
    stand.count("m", &[counted(1, 50_000), counted(1, 600_000)]).await;
    stand.count("m", &[counted(1, 600_000)]).await;
    // One that failed leaves the time to live as it was, too.
    let failed = stand.count("m", &[counted(1, 600_000), counted(i64::MAX, 600_000)]).await;
    assert_eq!(failed, Counted::Overflow(1));
    let redis = &stand.backend.0;
    let mut names: Vec<String> = redis.command(&["KEYS", "weir:test:module:*"]);
    names.sort();
    assert_eq!(names, ["weir:test:module:{m}:counter", "weir:test:module:{m}:value"]);
    for (name, most_ms) in [("weir:test:module:{m}:counter", 50_000), ("weir:test:module:{m}:value", 60_000)] {
        let left_ms: i64 = redis.command(&["PTTL", name]);
        assert!((1..=most_ms).contains(&left_ms), "{name}: {left_ms}");
    }
    assert_eq!(redis.command::<String>(&["GET", "weir:test:module:{m}:counter"]), "3");
}
