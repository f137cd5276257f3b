//! Waiting rooms through HTTP: the demo's queue, hostile tokens, a sale on two hosts that are killed, a swap in mid-sale, a
//! draw that is made again from what is public.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "rooms/crowd.rs"]
mod crowd;
#[path = "rooms/eta.rs"]
mod eta;
#[path = "rooms/hosts.rs"]
mod hosts;
#[path = "rooms/tokens.rs"]
mod tokens;

use std::time::Duration;

use serde_json::Value;
use weir::config::{Config, RoomAlgorithm, RoomConfig, RoomKeyConfig};
use weir_tests::client::{Client, Reply};
use weir_tests::guest;
use weir_tests::operator::Operator;
use weir_tests::services::host::weir;
use weir_tests::services::{Host, HostConfig, temporary_directory};
use weir_tests::stand::{Setup, Stand};

/// The secret of the kinds of these tests.
const SECRET: &str = "a secret of at least thirty-two bytes";

/// Kind `concert`, with passes by a shared secret.
fn room(capacity: u64) -> RoomConfig {
    let key = RoomKeyConfig {
        kid: "first".into(),
        algorithm: RoomAlgorithm::HS256,
        key: Some(SECRET.into()),
        key_file: None,
    };
    RoomConfig { capacity, keys: vec![key], lease_ms: 500, ..RoomConfig::demo("unused".into()) }
}

fn config(stand: &Stand, room: RoomConfig) -> Config {
    let mut config = stand.config();
    config.rooms.push(room);
    config
}

async fn join(client: &mut Client, queue: &str, actor: i64) -> Reply {
    let path = format!("/v1/rooms/concert/{queue}/tokens");
    client.request("POST", &path, &[("x-actor-id", &actor.to_string())], "").await.unwrap()
}

async fn joined(client: &mut Client, actor: i64) -> Value {
    let reply = join(client, "1", actor).await;
    assert!([200, 201].contains(&reply.status), "{}", reply.text());
    reply.json()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {value}"))
}

async fn poll(client: &mut Client, token: &str) -> Reply {
    client.get(&format!("/v1/rooms/concert/1/tokens/{token}")).await
}

/// Polls until it is active.
async fn until_active(client: &mut Client, token: &str) -> Value {
    for _ in 0..600 {
        let status = poll(client, token).await.json();
        if status["status"] == "active" {
            return status;
        }
        assert_eq!(status["status"], "waiting", "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_of_the_demo() {
    let directory = temporary_directory("demo");
    let mut host = Host::start_on_picked_ports(HostConfig::Demo, directory.path());
    let mut client = Client::new(host.public());
    assert_eq!(client.request("POST", "/v1/rooms/concert/1/tokens", &[], "").await.unwrap().status, 401);
    let first = join(&mut client, "1", 7).await;
    assert_eq!((first.status, first.header("retry-after").is_empty()), (201, false), "{}", first.text());
    let token = text(&first.json(), "token").to_owned();
    assert!(first.header("location").ends_with(&token));
    let again = join(&mut client, "1", 7).await;
    assert_eq!(again.status, 200, "the same person has the same place");
    let active = until_active(&mut client, &token).await;
    assert_eq!(active["cfWaitingRoom"]["inWaitingRoom"], false);
    let pass = text(&active, "pass").to_owned();

    // A service without a call: the public key alone.
    let keys = client.get("/.well-known/jwks.json").await.json();
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["kid"]), (&"OKP".into(), &"demo".into()), "{keys}");
    // And with one.
    let json = [("content-type", "application/json")];
    let body = format!("{{\"token\":{pass:?}}}");
    let verified = client.request("POST", "/v1/rooms/concert/verify", &json, &body).await.unwrap().json();
    assert_eq!((&verified["active"], &verified["actor"], &verified["queue"]), (&true.into(), &7.into(), &1.into()));
    let extended = format!("/v1/rooms/concert/1/tokens/{token}/extend");
    let extended = client.request("POST", &extended, &json, "{\"ttlMs\": 600000}").await.unwrap().json();
    assert!(extended["expiresInMs"].as_u64().unwrap() > 500_000, "{extended}");
    let many = format!("{{\"tokens\":[{token:?},\"x\"]}}");
    let many = client.request("POST", "/v1/rooms/concert/1/status", &json, &many).await.unwrap().json();
    assert_eq!(
        (&many["tokens"][0]["status"], &many["tokens"][1]["problem"]["type"], &many["tokens"][1]["token"]),
        (&"active".into(), &"urn:weir:problem:token-invalid".into(), &"x".into())
    );
    let too_many = format!("{{\"tokens\":[{}]}}", vec!["\"x\""; 10_000].join(","));
    let too_many = client.request("POST", "/v1/rooms/concert/1/status", &json, &too_many).await.unwrap();
    assert_eq!((too_many.status, text(&too_many.json(), "type")), (413, "urn:weir:problem:too-many-tokens"));
    let events = format!("/v1/rooms/concert/1/tokens/{token}");
    let events = client.request("GET", &events, &[("accept", "text/event-stream")], "").await.unwrap();
    assert!(events.text().contains("event: status\ndata: {") && events.text().starts_with("retry: "));

    // What was done survives the host.
    host.kill();
    host.restart();
    let mut client = Client::new(host.public());
    assert_eq!(poll(&mut client, &token).await.json()["status"], "active");
    let completed =
        client.request("POST", &format!("/v1/rooms/concert/1/tokens/{token}/complete"), &[], "").await.unwrap();
    assert_eq!(completed.json()["status"], "completed");
    for (method, end) in [("POST", "/complete"), ("DELETE", "")] {
        let again = format!("/v1/rooms/concert/1/tokens/{token}{end}");
        let again = client.request(method, &again, &[("idempotency-key", "one")], "").await.unwrap();
        assert_eq!((again.status, text(&again.json(), "status")), (200, "completed"), "once more is the same");
    }
    let verified = client.request("POST", "/v1/rooms/concert/verify", &json, &body).await.unwrap();
    assert_eq!(verified.status, 410, "revoked at once, though the pass has not expired");
    let view = client.get("/v1/rooms/concert/1").await.json();
    assert_eq!((&view["totals"]["completed"], &view["active"]), (&1.into(), &0.into()), "{view}");
}

/// Ends the stay of whoever is in at once, so that the next is let in, three at a time: when each was let in, and who it was.
async fn let_in(client: &mut Client, tokens: &[String]) -> Vec<(String, i64)> {
    let mut order = Vec::new();
    let mut is_done = vec![false; tokens.len()];
    for _ in 0..3_000 {
        for (actor, token) in tokens
            .iter()
            .enumerate()
            .filter(|(actor, _)| !is_done[*actor])
            .map(|(a, t)| (a, t.clone()))
            .collect::<Vec<_>>()
        {
            let status = poll(client, &token).await.json();
            if status["status"] == "active" {
                is_done[actor] = true;
                order.push((text(&status, "admittedAt").to_owned(), actor as i64 + 1));
                let path = format!("/v1/rooms/concert/1/tokens/{token}");
                assert_eq!(client.request("DELETE", &path, &[], "").await.unwrap().json()["status"], "completed");
            }
        }
        if order.len() == tokens.len() {
            break;
        }
    }
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draw_is_made_again_from_what_is_public() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut room = room(3);
    let opens_at_ms = weir::clock::Clock::Real.now_ms() + 2_500;
    room.settings.insert("opens-at-ms".into(), opens_at_ms.to_string());
    let host = stand.host(&config(&stand, room));
    let mut client = Client::new(host.public());
    let mut tokens = Vec::new();
    for actor in 1..=40 {
        let place = joined(&mut client, actor).await;
        assert!(place["position"].is_null(), "a place by lot is not told before the draw: {place}");
        tokens.push(text(&place, "token").to_owned());
    }
    let before = client.get("/v1/rooms/concert/1").await.json();
    assert!(before["draw"]["seed"].is_null(), "{before}");
    let mut order = let_in(&mut client, &tokens).await;
    let late = joined(&mut client, 99).await;
    let seed = client.get("/v1/rooms/concert/1").await.json();
    assert_eq!(seed["draw"]["commitment"], before["draw"]["commitment"]);
    let log: Vec<String> = (1..=40).map(|actor| format!("{actor}\n")).collect();
    std::fs::write(stand.directory.path().join("arrivals.txt"), log.concat()).unwrap();
    let (seed_text, commitment) = (text(&seed["draw"], "seed"), text(&seed["draw"], "commitment"));
    let draw = |arguments: &[&str]| weir(stand.directory.path(), &[&["rooms", "draw", "--seed"], arguments].concat());
    let printed = draw(&[seed_text, "--commitment", commitment, "arrivals.txt"]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let drawn: Vec<i64> = printed.stdout.lines().map(|line| line.parse().unwrap()).collect();
    // Those of one tick were let in at the same moment.
    let place = |actor: &i64| drawn.iter().position(|other| other == actor).unwrap();
    order.sort_by_key(|(at, actor)| (at.clone(), place(actor)));
    assert_eq!(order.iter().map(|(_, actor)| *actor).collect::<Vec<_>>(), drawn);
    println!("draw: order of 40 made again from seed and arrivals; whoever came later is {}", late["status"]);
    let arrivals = "/admin/v1/rooms/concert/";
    let mut admin = Client::new(host.admin());
    assert_eq!(admin.get(&format!("{arrivals}999/arrivals")).await.status, 404, "nobody has opened it");
    let answer = admin.get(&format!("{arrivals}1/arrivals")).await.json();
    std::fs::write(stand.directory.path().join("arrivals.json"), answer.to_string()).unwrap();
    let of_answer = draw(&[seed_text, "arrivals.json"]);
    assert_eq!(of_answer.stdout, printed.stdout, "{}", of_answer.stderr);
    std::fs::write(stand.directory.path().join("broken.json"), "{\"arrivals\":[1,").unwrap();
    assert_eq!(draw(&[seed_text, "broken.json"]).code, Some(1));
    let explained = admin.get("/admin/v1/explain/concert/1").await.json();
    assert_eq!(text(&explained, "store"), "the queue is there", "{explained}");
    let wrong = draw(&[&"0".repeat(64), "--commitment", commitment, "arrivals.txt"]);
    assert_eq!(wrong.code, Some(1), "a seed that was not promised is refused: {}", wrong.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_are_swapped_in_mid_sale() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let host = stand.host(&config(&stand, room(2)));
    let mut client = Client::new(host.public());
    let mut operator = Operator::new(host.admin());
    let mut tokens = Vec::new();
    for actor in 1..=120 {
        tokens.push(text(&joined(&mut client, actor).await, "token").to_owned());
    }
    let modules = [guest::admission(1, 60_000), guest::admission(1_000, 60_000), guest::admission(2, 50_000)];
    let (mut swaps, mut times): (usize, Vec<String>) = (0, Vec::new());
    let mut positions: Vec<u64> = vec![u64::MAX; tokens.len()];
    for (done, token) in tokens.iter().enumerate() {
        if done % 10 == 5 {
            let module = guest::with_section(modules[swaps % 3].clone(), "number", &swaps.to_string());
            assert_eq!(operator.push(&module, "door", true).await.status, 201);
            swaps += 1;
        }
        let active = until_active(&mut client, token).await;
        times.push(text(&active, "admittedAt").to_owned());
        for (other, token) in tokens.iter().enumerate().skip(done + 1).step_by(7) {
            let status = poll(&mut client, token).await.json();
            if let Some(position) = status["position"].as_u64() {
                assert!(position <= positions[other], "{other}: {position} after {}", positions[other]);
                positions[other] = position;
            } else {
                assert_eq!(status["status"], "active", "no token is lost: {status}");
            }
        }
        let path = format!("/v1/rooms/concert/1/tokens/{token}/complete");
        assert_eq!(client.request("POST", &path, &[], "").await.unwrap().status, 200);
    }
    assert!(times.is_sorted(), "let in in the order of arrival, whoever decides");
    println!("swap: {swaps} modules while 120 were let in two at a time; lost=0 jumps=0");
}
