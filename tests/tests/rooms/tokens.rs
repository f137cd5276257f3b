//! Tokens that are not what they say.

use serde_json::{Value, json};
use weir::config::{Config, JwtConfig, RoomAlgorithm, RoomKeyConfig};
use weir_tests::client::Client;
use weir_tests::stand::{Setup, Stand};

use crate::{config, join, joined, poll, room, text};

/// Base64 for URLs, without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(LETTERS[(number >> (18 - 6 * place)) as usize & 63].into());
        }
    }
    text
}

fn unbase64url(text: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'-' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let number = chunk.iter().fold(0_u32, |number, letter| number << 6 | u32::from(digit(*letter)));
        let number = number << (6 * (4 - chunk.len()));
        (0..chunk.len() - 1).for_each(|place| bytes.push((number >> (16 - 8 * place)) as u8));
    }
    bytes
}

/// What a token says.
pub fn claims(token: &str) -> Value {
    serde_json::from_slice(&unbase64url(token.split('.').nth(1).unwrap())).unwrap()
}

/// The token with another header and other claims, and the signature that it had.
fn changed(token: &str, header: &[(&str, Value)], claims: &[(&str, Value)]) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let change = |part: &str, with: &[(&str, Value)]| {
        let mut value: Value = serde_json::from_slice(&unbase64url(part)).unwrap();
        with.iter().for_each(|(name, new)| value[*name] = new.clone());
        base64url(value.to_string().as_bytes())
    };
    format!("{}.{}.{}", change(parts[0], header), change(parts[1], claims), parts[2])
}

/// Tokens that were never issued, made of one that was.
fn forged(token: &str) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = token.split('.').collect();
    vec![
        ("nothing", "x".to_owned()),
        ("another signature", format!("{}.{}.{}", parts[0], parts[1], base64url(&[7; 32]))),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        (
            "alg=none",
            format!(
                "{}.{}.",
                base64url(json!({"alg":"none","typ":"weir-ticket+jwt","kid":"first"}).to_string().as_bytes()),
                parts[1]
            ),
        ),
        ("another algorithm", changed(token, &[("alg", json!("HS512"))], &[])),
        ("an unknown kid", changed(token, &[("kid", json!("other"))], &[])),
        ("a ticket as a pass", changed(token, &[("typ", json!("weir-pass+jwt"))], &[])),
        ("another actor", changed(token, &[], &[("sub", json!("2"))])),
        ("another number", changed(token, &[], &[("n", json!(2))])),
        ("a longer life", changed(token, &[], &[("exp", json!(4_000_000_000_u64))])),
        ("a long one", "a".repeat(3_000)),
    ]
}

/// A new key signs; the old one verifies as long as it is there.
async fn a_new_key_signs(stand: &Stand, mut config: Config, old: &str) {
    let second = RoomKeyConfig {
        kid: "second".into(),
        algorithm: RoomAlgorithm::HS256,
        key: Some("x".repeat(32)),
        key_file: None,
    };
    config.rooms[0].keys.insert(0, second);
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    assert_eq!(poll(&mut client, old).await.status, 200);
    let new = text(&join(&mut client, "1", 1).await.json(), "token").to_owned();
    let header: Value = serde_json::from_slice(&unbase64url(new.split('.').next().unwrap())).unwrap();
    assert_eq!(header["kid"], "second");
    assert_eq!(poll(&mut client, &new).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_expired_or_foreign_is_refused_by_name() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut short = room(1);
    short.token_ttl_ms = 1;
    short.kind = "short".into();
    let mut config = config(&stand, room(1));
    config.rooms.push(short);
    let mut host = stand.host(&config);
    let mut client = Client::new(host.public());
    let token = text(&joined(&mut client, 1).await, "token").to_owned();
    let mut refused = Vec::new();
    let mut check = async |what: &str, path: String, status: u16, name: &str| {
        let reply = client.get(&path).await;
        assert_eq!(
            (reply.status, reply.json()["type"].as_str()),
            (status, Some(&*format!("urn:weir:problem:{name}"))),
            "{what}"
        );
        refused.push(what.to_owned());
    };
    let at = |token: &str| format!("/v1/rooms/concert/1/tokens/{token}");
    for (what, token) in &forged(&token) {
        check(what, at(token), 403, "token-invalid").await;
    }
    check("another queue", format!("/v1/rooms/concert/2/tokens/{token}"), 403, "token-of-another-queue").await;
    check("another kind", format!("/v1/rooms/short/1/tokens/{token}"), 403, "token-of-another-queue").await;
    let path = "/v1/rooms/short/1/tokens";
    let short = Client::new(host.public()).request("POST", path, &[("x-actor-id", "1")], "").await.unwrap().json();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    check("expired", format!("{path}/{}", text(&short, "token")), 410, "token-expired").await;
    let mut other = Client::new(host.public());
    assert_eq!(other.request("DELETE", &at(&token), &[], "").await.unwrap().status, 200);
    check("after leaving", at(&token), 410, "token-ended").await;
    let again = joined(&mut other, 1).await;
    check("after coming back", at(&token), 410, "token-ended").await;
    let left = other.request("DELETE", &at(text(&again, "token")), &[], "").await.unwrap();
    let left_again = other.request("DELETE", &at(text(&again, "token")), &[], "").await.unwrap();
    assert_eq!((left.status, left_again.status), (200, 200), "once more is the same");
    assert_eq!(left.json()["status"], left_again.json()["status"]);
    let again = joined(&mut other, 1).await;
    println!("tokens: {} refused by name: {}", refused.len(), refused.join(", "));

    host.terminate();
    drop(host);
    a_new_key_signs(&stand, config, text(&again, "token")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_is_no_ticket_and_a_ticket_no_pass() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut config = config(&stand, room(1));
    // A shared secret, which the API takes for its own tokens, too: each kind of token is of one use all the same.
    let secret = "0123456789abcdef0123456789abcdef";
    let shared = config.rooms[0].keys[0].clone();
    config.rooms[0].keys =
        vec![RoomKeyConfig { algorithm: RoomAlgorithm::HS256, key: Some(secret.into()), key_file: None, ..shared }];
    config.auth.jwt = Some(JwtConfig { algorithm: "HS256".into(), key: Some(secret.into()), ..JwtConfig::default() });
    config.auth.trusted_header_alone = true;
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let ticket = text(&joined(&mut client, 1).await, "token").to_owned();
    let pass = text(&crate::until_active(&mut client, &ticket).await, "pass").to_owned();
    let json = [("content-type", "application/json")];
    let another_use = (403, json!("urn:weir:problem:token-of-another-use"));
    let base = "/v1/rooms/concert/1";
    for (method, path, headers) in [
        ("GET", format!("{base}/tokens/{pass}"), &[][..]),
        ("GET", format!("{base}/tokens/{pass}"), &[("accept", "text/event-stream")][..]),
        ("DELETE", format!("{base}/tokens/{pass}"), &[][..]),
        ("POST", format!("{base}/tokens/{pass}/complete"), &[][..]),
        ("POST", format!("{base}/tokens/{pass}/extend"), &[][..]),
    ] {
        let reply = client.request(method, &path, headers, "").await.unwrap();
        assert_eq!((reply.status, reply.json()["type"].clone()), another_use, "{method} {path}");
    }
    let many = json!({ "tokens": [pass, ticket] }).to_string();
    let many = client.request("POST", &format!("{base}/status"), &json, &many).await.unwrap().json();
    assert_eq!(many["tokens"][0]["problem"]["type"], another_use.1);
    assert_eq!(many["tokens"][1]["status"], "active", "nothing was done to it: {many}");
    let mut verify = async |token: &str| {
        let body = json!({ "token": token }).to_string();
        client.request("POST", "/v1/rooms/concert/verify", &json, &body).await.unwrap()
    };
    let refused = verify(&ticket).await;
    assert_eq!((refused.status, refused.json()["type"].clone()), another_use);
    assert_eq!(verify(&pass).await.json()["active"], true);
    // Neither names its holder to the rest of the API.
    for token in [&pass, &ticket] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer)];
        let reply = client.request("POST", &format!("{base}/tokens"), &headers, "").await.unwrap();
        assert_eq!((reply.status, reply.json()["type"].clone()), (401, json!("urn:weir:problem:unauthenticated")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_asking_always_has_a_token() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut room = room(1);
    room.token_ttl_ms = 3_000;
    // The one place is taken, so that the other waits.
    room.settings.insert("active-ttl-ms".into(), "600000".into());
    let host = stand.host(&config(&stand, room));
    let mut client = Client::new(host.public());
    let first = text(&joined(&mut client, 1).await, "token").to_owned();
    crate::until_active(&mut client, &first).await;
    let mut tokens = vec![text(&joined(&mut client, 2).await, "token").to_owned()];
    let fresh = poll(&mut client, &tokens[0]).await.json();
    assert_eq!(text(&fresh, "token"), tokens[0], "not before half of its time");
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(7) {
        let reply = poll(&mut client, tokens.last().unwrap()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let token = text(&reply.json(), "token").to_owned();
        if token != *tokens.last().unwrap() {
            let old = poll(&mut client, tokens.last().unwrap()).await;
            assert_eq!(old.status, 200, "the old one is good until its end: {}", old.text());
            tokens.push(token);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(poll(&mut client, &tokens[0]).await.status, 410);
    let (old, new) = (claims(&tokens[0]), claims(tokens.last().unwrap()));
    assert_eq!((&old["n"], &old["sub"], &old["life"]), (&new["n"], &new["sub"], &new["life"]));
    println!("tokens: {} for one place in 7 s of 3 s each", tokens.len());
}
