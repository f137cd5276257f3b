//! A crowd before hosts that are killed: each person asks, waits, comes in, and goes, and remembers what was said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_tests::client::Client;
use weir_tests::services::{Host, HostConfig};
use weir_tests::stand::{Setup, Stand};

use crate::{config, room};

const CAPACITY: u64 = 20;
const PEOPLE: i64 = 240;
const LIMIT: Duration = Duration::from_secs(120);

/// What somebody remembers.
#[derive(Debug, Default)]
struct Memory {
    /// When let in, and the token that it was with.
    admitted: Vec<(String, String)>,
    unknown: u64,
}

/// What all share.
struct Crowd {
    addresses: std::sync::Mutex<Vec<std::net::SocketAddr>>,
    /// Who is in, as far as those who were told know.
    inside: AtomicU64,
    most_inside: AtomicU64,
    polls: AtomicU64,
}

impl Crowd {
    fn address(&self, random: &mut StdRng) -> std::net::SocketAddr {
        let addresses = self.addresses.lock().unwrap();
        addresses[random.random_range(0..addresses.len())]
    }

    /// Asks one of the hosts until one answers.
    async fn ask(
        &self,
        random: &mut StdRng,
        memory: &mut Memory,
        (method, path): (&str, &str),
        actor: i64,
    ) -> (u16, Value) {
        let began = Instant::now();
        loop {
            let mut client = Client::new(self.address(random));
            let answer = client.request(method, path, &[("x-actor-id", &actor.to_string())], "").await;
            match answer {
                Ok(reply) if reply.status < 500 => return (reply.status, reply.json()),
                _ => memory.unknown += 1,
            }
            assert!(began.elapsed() < LIMIT, "no host answers");
            tokio::time::sleep(Duration::from_millis(random.random_range(5..40))).await;
        }
    }
}

/// One person: joins, asks until let in, stays a little, and is done.
async fn person(crowd: Arc<Crowd>, actor: i64) -> Memory {
    let mut random = StdRng::seed_from_u64(actor.unsigned_abs());
    let mut memory = Memory::default();
    tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000))).await;
    let join = ("POST", "/v1/rooms/concert/1/tokens");
    let (status, place) = crowd.ask(&mut random, &mut memory, join, actor).await;
    assert!([200, 201].contains(&status), "{place}");
    let token = place["token"].as_str().unwrap().to_owned();
    let path = format!("/v1/rooms/concert/1/tokens/{token}");
    let mut position = place["position"].as_u64().unwrap_or(u64::MAX);
    let began = Instant::now();
    let admitted_at = loop {
        let (status, told) = crowd.ask(&mut random, &mut memory, ("GET", &path), actor).await;
        crowd.polls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(status, 200, "a place is never lost while its owner asks: {told}");
        match told["status"].as_str() {
            Some("active") => break told["admittedAt"].as_str().unwrap().to_owned(),
            Some("waiting") => {
                let now = told["position"].as_u64().unwrap();
                assert!(now <= position, "actor {actor}: position {now} after {position}");
                position = now;
            }
            _ => panic!("actor {actor}: {told}"),
        }
        if random.random_range(0..20) == 0 {
            let (_, again) = crowd.ask(&mut random, &mut memory, join, actor).await;
            if let Some(now) = again["position"].as_u64() {
                assert!(now <= position, "who joins twice keeps the place");
            }
        }
        assert!(began.elapsed() < LIMIT, "actor {actor} is not let in");
        tokio::time::sleep(Duration::from_millis(random.random_range(20..120))).await;
    };
    let inside = crowd.inside.fetch_add(1, Ordering::SeqCst) + 1;
    crowd.most_inside.fetch_max(inside, Ordering::SeqCst);
    memory.admitted.push((admitted_at, token));
    tokio::time::sleep(Duration::from_millis(random.random_range(100..400))).await;
    crowd.inside.fetch_sub(1, Ordering::SeqCst);
    let (status, told) = crowd.ask(&mut random, &mut memory, ("POST", &format!("{path}/complete")), actor).await;
    // 410: it was done, and the answer was lost with the host.
    assert!(status == 200 || (status == 410 && memory.unknown > 0), "{status} {told}");
    memory
}

/// Sends the crowd against `hosts`, of which one is killed now and then.
async fn sale(name: &str, mut hosts: Vec<Host>, mut between: impl FnMut(usize)) {
    let crowd = Arc::new(Crowd {
        addresses: std::sync::Mutex::new(hosts.iter().map(Host::public).collect()),
        inside: AtomicU64::new(0),
        most_inside: AtomicU64::new(0),
        polls: AtomicU64::new(0),
    });
    let done = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch(Arc::clone(&crowd), Arc::clone(&done)));
    let people: Vec<_> = (1..=PEOPLE).map(|actor| tokio::spawn(person(Arc::clone(&crowd), actor))).collect();
    let mut kills = 0;
    while kills < 5 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let which = kills % hosts.len();
        hosts[which].kill();
        between(kills);
        hosts[which].restart();
        crowd.addresses.lock().unwrap()[which] = hosts[which].public();
        kills += 1;
    }
    let mut admitted: Vec<(u64, String)> = Vec::new();
    let mut unknown = 0;
    for task in people {
        let memory = task.await.expect("a person");
        assert_eq!(memory.admitted.len(), 1, "nobody twice");
        unknown += memory.unknown;
        admitted.extend(memory.admitted.into_iter().map(|(at, token)| (number(&token), at)));
    }
    done.store(true, Ordering::Relaxed);
    let most_active = watcher.await.unwrap();
    admitted.sort();
    let numbers: std::collections::BTreeSet<u64> = admitted.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), admitted.len(), "no place was given twice");
    let jumps = admitted.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
    assert_eq!(jumps, 0, "let in in the order of arrival: {admitted:?}");
    let most_inside = crowd.most_inside.load(Ordering::SeqCst);
    println!(
        "room {name}: people={PEOPLE} kills={kills} polls={} unanswered={unknown} capacity={CAPACITY} most-active={most_active} \
         most-inside={most_inside} lost=0 twice=0 jumps={jumps}",
        crowd.polls.load(Ordering::Relaxed)
    );
    assert!(most_active <= CAPACITY && most_inside <= CAPACITY, "{most_active} {most_inside}");
}

/// The most that the queue itself said to be active.
async fn watch(crowd: Arc<Crowd>, done: Arc<AtomicBool>) -> u64 {
    let (mut most, mut random) = (0, StdRng::seed_from_u64(0));
    while !done.load(Ordering::Relaxed) {
        let mut client = Client::new(crowd.address(&mut random));
        if let Ok(reply) = client.request("GET", "/v1/rooms/concert/1", &[], "").await
            && reply.status == 200
        {
            most = most.max(reply.json()["active"].as_u64().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    most
}

/// The number of the arrival that a token is for.
fn number(token: &str) -> u64 {
    let claims = crate::tokens::claims(token);
    claims["n"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_on_the_embedded_store_whose_host_is_killed() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let host = stand.host(&config(&stand, room(CAPACITY)));
    sale("embedded", vec![host], |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_on_two_hosts_that_are_killed_and_a_redis_too() {
    let mut stand = Stand::start(Setup::RedisPostgres, 1).await;
    let config = config(&stand, room(CAPACITY));
    let hosts: Vec<Host> = (0..2)
        .map(|number| {
            let directory = stand.directory.path().join(format!("host-{number}"));
            std::fs::create_dir_all(&directory).unwrap();
            let mut host = Host::start(HostConfig::of(&config), &directory);
            host.wait_ready();
            host
        })
        .collect();
    let redis = stand.redis();
    sale("redis, two hosts", hosts, |kills| {
        if kills % 2 == 1 {
            redis.kill();
            redis.restart();
        }
    })
    .await;
}
