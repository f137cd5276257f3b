//! Micro-benchmarks: what the policy costs for an item, journal entries, coalescing, one commit of a store.
//!
//! `tests/bench/run micro [--filter decide] [--milliseconds 3000]`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir::config::{BuiltinRules, Namespace, PolicyConfig, PolicyFailure, StoreConfig, StoreType};
use weir::journal::entry;
use weir::model::{Action, Change, Digest, Effect, Id, Intent, ToggleChange, ToggleRule, Verb, partition_of};
use weir::policy::{KindPolicy, Policies, PolicySetup};
use weir::store::{Hydration, LoadedState, Store, TargetLoad, ToggleBatch, ToggleOp};
use weir_tests::bench::report::{Aim, Report, machine, target_directory};
use weir_tests::services::{AppendFsync, Redis, RedisOptions, temporary_directory};

const KIND: &str = "feed-like";
const NOW_MS: u64 = 1_790_000_000_000;
const TARGETS: i64 = 1_000;
const DIGEST: Digest = Digest([7; 32]);

/// Single steps of the hot path.
#[derive(Debug, Args)]
pub struct Options {
    /// Only the measurements whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Time of one measurement, in milliseconds; a third of it warms up.
    #[arg(long, default_value_t = 3_000)]
    milliseconds: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { filter: None, milliseconds: 100 }
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    println!("{}", machine());
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(options.milliseconds / 3))
        .measurement_time(Duration::from_millis(options.milliseconds))
        .without_plots()
        .output_directory(&target_directory().join("criterion"));
    if let Some(filter) = &options.filter {
        criterion = criterion.with_filter(filter);
    }
    policy(&mut criterion);
    journal(&mut criterion);
    stores(&mut criterion);
    criterion.final_summary();
    summary(report);
}

fn policies(rules: BuiltinRules) -> (Arc<Policies>, tempfile::TempDir) {
    let directory = temporary_directory("micro");
    let config = PolicyConfig { builtin: rules, registry: directory.path().join("policy"), ..PolicyConfig::default() };
    let kind = KindPolicy { kind: KIND.into(), settings: [].into(), on_failure: PolicyFailure::BuiltIn };
    (Policies::load(&config, &[kind], PolicySetup::default()).unwrap(), directory)
}

fn policy(criterion: &mut Criterion) {
    for (name, rules) in [("component", BuiltinRules::Component), ("native", BuiltinRules::Native)] {
        let (policies, _directory) = policies(rules);
        let mut group = criterion.benchmark_group(format!("decide-{name}"));
        for size in [1, 16, 64, 256] {
            let batch: Vec<Intent> = (0..size)
                .map(|number| Intent { target: Id::Int(number % 100), actor: Id::Int(number), verb: Verb::Toggle })
                .collect();
            group.throughput(Throughput::Elements(size.unsigned_abs()));
            group.bench_with_input(BenchmarkId::from_parameter(size), &batch, |bencher, batch| {
                // A pure module decides without waiting.
                bencher.iter(|| policies.rules.decide_toggles(KIND, NOW_MS, black_box(batch)).now_or_never().unwrap());
            });
        }
        group.finish();
        let changes = changes(10_000);
        let mut group = criterion.benchmark_group(format!("coalesce-{name}"));
        group.throughput(Throughput::Elements(10_000));
        group.bench_function("10000", |bencher| bencher.iter(|| policies.rules.coalesce(KIND, black_box(&changes))));
        group.finish();
    }
}

fn changes(count: usize) -> Vec<ToggleChange> {
    let mut rng = StdRng::seed_from_u64(4);
    let mut change = || ToggleChange {
        target: Id::Int(rng.random_range(1..=TARGETS)),
        actor: Id::Int(rng.random_range(1..=1_000)),
        action: if rng.random() { Action::Add } else { Action::Remove },
    };
    (0..count).map(|_| change()).collect()
}

fn journal(criterion: &mut Criterion) {
    let changes: Vec<Change> = changes(256).into_iter().map(Change::Toggle).collect();
    let bytes = entry::encode(&DIGEST, NOW_MS, None, &changes);
    let mut group = criterion.benchmark_group("journal-entry");
    group.throughput(Throughput::Elements(256));
    group
        .bench_function("encode", |bencher| bencher.iter(|| entry::encode(&DIGEST, NOW_MS, None, black_box(&changes))));
    group.bench_function("decode", |bencher| bencher.iter(|| entry::decode(1, black_box(&bytes)).unwrap()));
    group.finish();
}

fn stores(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = temporary_directory("micro");
    let redis = Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() });
    for (name, config) in [
        ("embedded", StoreConfig { path: directory.path().join("store"), ..StoreConfig::default() }),
        (
            "redis-everysec",
            StoreConfig {
                store_type: StoreType::Redis,
                url: redis.url(),
                namespace: Namespace::try_from("micro".to_owned()).ok(),
                ..StoreConfig::default()
            },
        ),
    ] {
        let store = runtime.block_on(weir::store::open(&config)).unwrap();
        runtime.block_on(hydrate(&store));
        let mut rng = StdRng::seed_from_u64(9);
        let mut group = criterion.benchmark_group(format!("commit-{name}"));
        for size in [1, 64, 256] {
            group.throughput(Throughput::Elements(size));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.to_async(&runtime).iter_batched(
                    || batch(&mut rng, size),
                    |batch| store.toggle(KIND, batch),
                    criterion::BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

fn batch(rng: &mut StdRng, size: u64) -> ToggleBatch {
    let rule = ToggleRule { when_absent: Effect::Add, when_present: Effect::Remove, limit: None };
    let mut op = || ToggleOp {
        target: Id::Int(rng.random_range(1..=TARGETS)),
        actor: Id::Int(rng.random_range(1..=100_000)),
        rule,
        idempotency: None,
    };
    ToggleBatch { at_ms: NOW_MS, now_ms: NOW_MS, digest: DIGEST, ops: (0..size).map(|_| op()).collect() }
}

/// Nobody likes any of the targets.
async fn hydrate(store: &Arc<dyn Store>) {
    let all: Vec<_> = (0..store.partitions()).collect();
    let heads = store.heads(KIND, &all).await.unwrap();
    let hydrations = heads.iter().map(|head| Hydration {
        partition: head.partition,
        incarnation: head.incarnation,
        position: head.flushed,
        aside: None,
        targets: (1..=TARGETS)
            .map(Id::Int)
            .filter(|target| partition_of(target, store.partitions()) == head.partition)
            .map(|target| TargetLoad { target, state: LoadedState::Whole(Vec::new()) })
            .collect(),
        pairs: Vec::new(),
        now_ms: NOW_MS,
    });
    store.hydrate(KIND, hydrations.collect()).await.unwrap();
}

/// What criterion has just written, for one item.
fn summary(report: &mut Report) {
    report.section("for one item", &["ns"]);
    if let (Some(alone), Some(together)) = (estimate("decide-component", "1"), estimate("decide-component", "64")) {
        report.usual("the rules for one item: alone to one of 64", alone / (together / 64.0), 8.0);
    }
    if let (Some(alone), Some(together)) = (estimate("commit-embedded", "1"), estimate("commit-embedded", "64")) {
        report.usual("a commit for one item: alone to one of 64", alone / (together / 64.0), 30.0);
    }
    for (group, sizes) in [
        ("decide-component", &["1", "16", "64", "256"][..]),
        ("decide-native", &["1", "16", "64", "256"]),
        ("coalesce-component", &["10000"]),
        ("coalesce-native", &["10000"]),
        ("journal-entry", &["encode", "decode"]),
        ("commit-embedded", &["1", "64", "256"]),
        ("commit-redis-everysec", &["1", "64", "256"]),
    ] {
        for size in sizes {
            let Some(ns) = estimate(group, size) else { continue };
            let items = size.parse().unwrap_or(256.0);
            report.row("for one item", &format!("{group}, {size}"), &[("ns", Some(ns / items))]);
            match (group, *size) {
                ("decide-component", "1") => report.aim("policy call alone, in ns", ns, Aim::AtMost(250.0)),
                ("decide-component", "64" | "256") => {
                    report.aim(format!("policy for an item of {size}, in ns"), ns / items, Aim::AtMost(60.0));
                }
                _ => {}
            }
        }
    }
}

/// Mean time of one iteration, in nanoseconds; `None` for what a filter left out.
fn estimate(group: &str, id: &str) -> Option<f64> {
    let directory = target_directory().join("criterion").join(group).join(id);
    let text = std::fs::read_to_string(directory.join("new/estimates.json")).ok()?;
    serde_json::from_str::<Value>(&text).ok()?["mean"]["point_estimate"].as_f64()
}
