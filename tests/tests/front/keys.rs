//! Keys of tokens that are published elsewhere: rotated under load, asked for by a flood, away, too old.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir::config::{Config, JwtConfig, OneOrMany};
use weir_tests::client::Client;
use weir_tests::origin::{Origin, Script, ok};
use weir_tests::services::{Host, HostConfig};
use weir_tests::stand::{Setup, Stand};
use weir_tests::tokens::{SigningKey, key_set};

use crate::{LIKE, PATIENCE, ask};

const ROTATIONS: usize = 15;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];

fn jwt(origin: &Origin) -> JwtConfig {
    JwtConfig {
        algorithm: OneOrMany::Many(ALGORITHMS.map(|algorithm| format!("{algorithm:?}")).into()),
        jwks_url: Some(format!("http://{}/keys", origin.address)),
        jwks_cooldown_ms: 100,
        ..JwtConfig::default()
    }
}

fn with(stand: &Stand, jwt: JwtConfig) -> Config {
    let mut config = stand.config();
    config.auth.jwt = Some(jwt);
    config
}

async fn like(client: &mut Client, bearer: &str) -> (u16, String) {
    let reply = ask(client, "PUT", LIKE, &[("authorization", bearer)]).await;
    let problem = if reply.status == 200 { String::new() } else { reply.json()["type"].as_str().unwrap().to_owned() };
    (reply.status, problem.trim_start_matches("urn:weir:problem:").to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_under_load_and_nobody_is_refused() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let first = Arc::new(SigningKey::new("key-0", Algorithm::ES256));
    let issuer = Origin::start(key_set(&[&first])).await;
    let host = stand.host(&with(&stand, jwt(&issuer)));
    let signing = Arc::new(Mutex::new(Arc::clone(&first)));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let people: Vec<_> = (1..=8)
        .map(|actor| {
            let (signing, stop, answered) = (Arc::clone(&signing), Arc::clone(&stop), Arc::clone(&answered));
            let mut client = Client::new(host.public());
            tokio::spawn(async move {
                let mut refused = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = signing.lock().unwrap().clone();
                    let outcome = like(&mut client, &key.bearer(actor)).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    if outcome.0 != 200 {
                        refused.push((key.kid.clone(), outcome));
                    }
                }
                refused
            })
        })
        .collect();
    let mut last = first;
    for n in 1..=ROTATIONS {
        let next = Arc::new(SigningKey::new(&format!("key-{n}"), ALGORITHMS[n % ALGORITHMS.len()]));
        // The issuer publishes both and signs with the new one at once, before anybody has read it.
        issuer.say(key_set(&[&last, &next]));
        *signing.lock().unwrap() = Arc::clone(&next);
        let before = answered.load(Ordering::Relaxed);
        tokio::time::timeout(PATIENCE, async {
            while answered.load(Ordering::Relaxed) < before + 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("requests go on");
        last = next;
    }
    stop.store(true, Ordering::Relaxed);
    let mut refused = Vec::new();
    for person in people {
        refused.extend(person.await.unwrap());
    }
    let (requests, reads) = (answered.load(Ordering::Relaxed), issuer.asked());
    println!("keys: rotations={ROTATIONS} requests={requests} refused={} reads={reads}", refused.len());
    assert!(refused.is_empty(), "{refused:?}");
    // One at the start, one for each rotation: not one for each request.
    assert!((ROTATIONS as u64 + 1..=2 * ROTATIONS as u64 + 2).contains(&reads), "{reads}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_key_has_gone_is_refused_without_a_read() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let (old, new) = (SigningKey::new("old", Algorithm::ES256), SigningKey::new("new", Algorithm::ES256));
    let issuer = Origin::start(key_set(&[&old])).await;
    let host = stand.host(&with(&stand, JwtConfig { jwks_cooldown_ms: 600_000, ..jwt(&issuer) }));
    let mut client = Client::new(host.public());
    assert_eq!(like(&mut client, &old.bearer(1)).await.0, 200);
    issuer.say(key_set(&[&new]));
    assert_eq!(like(&mut client, &new.bearer(1)).await.0, 200);
    let before = issuer.asked();
    assert_eq!(like(&mut client, &old.bearer(1)).await, (401, "unauthenticated".into()));
    assert_eq!(issuer.asked(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_keys_is_no_flood_of_reads() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let good = SigningKey::new("good", Algorithm::ES256);
    let issuer = Origin::start(key_set(&[&good])).await;
    let host = stand.host(&with(&stand, JwtConfig { jwks_cooldown_ms: 600_000, ..jwt(&issuer) }));
    let read = issuer.asked();
    let mut flood = Vec::new();
    for part in 0..8 {
        let (mut client, mut key) = (Client::new(host.public()), SigningKey::new("x", Algorithm::ES256));
        flood.push(tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for n in 0..40 {
                key.kid = format!("random-{part}-{n}");
                outcomes.push(like(&mut client, &key.bearer(1)).await);
            }
            outcomes
        }));
    }
    let mut outcomes = Vec::new();
    for part in flood {
        outcomes.extend(part.await.unwrap());
    }
    let of = |status| outcomes.iter().filter(|(known, _)| *known == status).count();
    println!(
        "keys: flood of {} unknown keys: reads={} 401={} 503={}",
        outcomes.len(),
        issuer.asked() - read,
        of(401),
        of(503)
    );
    assert_eq!(issuer.asked() - read, 1, "one read for all of them");
    assert_eq!(of(401) + of(503), outcomes.len(), "{outcomes:?}");
    assert!(outcomes.iter().all(|(status, name)| *status == 401 || name == "keys-unavailable"), "{outcomes:?}");
    assert_eq!(like(&mut Client::new(host.public()), &good.bearer(1)).await.0, 200, "who is known is served");
    let undecided = Client::new(host.admin()).metric("weir_jwks_undecided_total", &["cooldown"]).await;
    assert_eq!(undecided.unwrap_or(0.0) as usize, of(503));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_a_good_signature_of_a_published_key_counts() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let (rsa, ec) = (SigningKey::new("rsa", Algorithm::RS256), SigningKey::new("ec", Algorithm::ES256));
    let (mut enc, unlisted) = (SigningKey::new("enc", Algorithm::RS256), SigningKey::new("rsa", Algorithm::RS256));
    enc.jwk["use"] = "enc".into();
    let issuer = Origin::start(key_set(&[&rsa, &ec, &enc])).await;
    let host = stand.host(&with(&stand, JwtConfig { actor_claim: "user.id".into(), ..jwt(&issuer) }));
    let mut client = Client::new(host.public());
    let claims = || json!({ "user": { "id": 7 }, "sub": "8" });
    let bearer = |key: &SigningKey| format!("Bearer {}", key.sign(claims()));
    for key in [&rsa, &ec] {
        assert_eq!(like(&mut client, &bearer(key)).await.0, 200, "{}", key.kid);
    }
    let body = ask(&mut client, "GET", "/v1/toggles/feed-like/3/actors", &[]).await.json();
    assert_eq!(body["actors"][0]["actor"], 7, "the claim that is named: {body}");
    // Without a name each key of its type is tried.
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let resigned = |header: Value, secret: &[u8]| {
        let signed = format!("{}.{}", part(&header), part(&json!({ "user": { "id": 7 }, "exp": 4_102_444_800_u64 })));
        let mac =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256).unwrap();
        format!("Bearer {signed}.{mac}")
    };
    let modulus = URL_SAFE_NO_PAD.decode(rsa.jwk["n"].as_str().unwrap()).unwrap();
    let public = rsa.jwk.to_string();
    let mut nameless = Header::new(Algorithm::RS256);
    nameless.kid = None;
    let key = EncodingKey::from_rsa_pem(rsa.pem.as_bytes()).unwrap();
    let good = json!({ "user": { "id": 7 }, "exp": 4_102_444_800_u64 });
    let nameless = format!("Bearer {}", encode(&nameless, &good, &key).unwrap());
    assert_eq!(like(&mut client, &nameless).await.0, 200);
    for (what, token) in [
        ("a public key as a secret", resigned(json!({ "alg": "HS256", "kid": "rsa" }), &modulus)),
        ("the text of a public key as a secret", resigned(json!({ "alg": "HS256", "kid": "rsa" }), public.as_bytes())),
        (
            "an algorithm that is none",
            format!("Bearer {}.{}.", part(&json!({ "alg": "none", "kid": "rsa" })), part(&good)),
        ),
        ("a key of the same name that nobody has published", bearer(&unlisted)),
        ("a key in the token", resigned(json!({ "alg": "RS256", "kid": "rsa", "jwk": unlisted.jwk }), b"x")),
        ("no actor where it should be", format!("Bearer {}", rsa.sign(json!({ "sub": "7" })))),
        ("expired", format!("Bearer {}", rsa.sign(json!({ "user": { "id": 7 }, "exp": 1_000_000_000 })))),
    ] {
        assert_eq!(like(&mut client, &token).await, (401, "unauthenticated".into()), "{what}");
    }
    // It is published, and for something else.
    assert_eq!(like(&mut client, &bearer(&enc)).await, (401, "unauthenticated".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_good_keys_are_used_while_the_issuer_is_away_and_no_longer() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let key = SigningKey::new("one", Algorithm::EdDSA);
    let issuer = Origin::start(Script::Cut).await;
    let bounds = JwtConfig { jwks_refresh_s_min: 1, jwks_refresh_s_max: 1, jwks_stale_s_max: 3, ..jwt(&issuer) };
    let config = with(&stand, bounds);
    let mut host = Host::start(HostConfig::of(&config), stand.directory.path());
    let (mut client, mut operators) = (Client::new(host.public()), Client::new(host.admin()));
    assert_eq!(like(&mut client, &key.bearer(7)).await, (503, "keys-unavailable".into()), "it may be good");
    let ready = operators.get("/readyz").await;
    assert!(ready.status == 503 && ready.text().contains("token-keys"), "{}", ready.text());

    issuer.say(key_set(&[&key]));
    host.wait_ready();
    assert_eq!(like(&mut client, &key.bearer(7)).await.0, 200);
    // What is no set, too large, or leads elsewhere is no other set.
    let mut seen = Vec::new();
    for (script, says) in [
        (ok("", "<html>"), "is no JSON Web Key Set"),
        (ok("", "{\"keys\":[]}"), "has 0 keys"),
        (ok("", &" ".repeat(300_000)), "more than 262144 bytes"),
        (Script::Say("HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".into()), "set jwks_url"),
        (Script::Cut, "token-keys"),
    ] {
        issuer.say(script);
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let text = operators.get("/readyz").await.text();
                if text.contains(says) && text.contains("degraded") {
                    return text;
                }
                // So that the set does not grow too old meanwhile.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        seen.push(found.await.unwrap_or_else(|_| panic!("/readyz does not say {says}")));
        issuer.say(key_set(&[&key]));
        host.wait_ready();
        assert_eq!(like(&mut client, &key.bearer(7)).await.0, 200);
    }
    issuer.say(Script::Cut);
    let gone = tokio::time::timeout(PATIENCE, async {
        while like(&mut client, &key.bearer(7)).await.0 == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("the set becomes too old");
    assert_eq!(like(&mut client, &key.bearer(7)).await, (503, "keys-unavailable".into()));
    assert_eq!(operators.get("/readyz").await.status, 503);
    assert!(host.log().contains("the keys of tokens are too old"), "{}", host.log());
    issuer.say(key_set(&[&key]));
    host.wait_ready();
    assert_eq!(like(&mut client, &key.bearer(7)).await.0, 200, "and back");
    let failed = operators.metric("weir_jwks_fetches_total", &["failed"]).await;
    assert!(failed.is_some_and(|failed| failed >= 2.0), "{failed:?}");
}

/// Says this to each connection, over TLS as `localhost`: where it listens, and its certificate.
async fn say_encrypted(text: String) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, text) = (acceptor.clone(), text.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = [0; 4_096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, made.cert.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_read_over_tls_from_who_proves_who_it_is() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let key = SigningKey::new("one", Algorithm::ES256);
    let Script::Say(text) = key_set(&[&key]) else { panic!("a whole answer") };
    let (port, certificate) = say_encrypted(text).await;
    let ca_file = stand.directory.path().join("ca.pem");
    std::fs::write(&ca_file, certificate).unwrap();
    let unused = Origin::start(Script::Cut).await;
    let of = |tls_ca_file| {
        let url = Some(format!("https://localhost:{port}/keys"));
        with(&stand, JwtConfig { jwks_url: url, tls_ca_file, ..jwt(&unused) })
    };
    let host = stand.host(&of(Some(ca_file)));
    assert_eq!(like(&mut Client::new(host.public()), &key.bearer(7)).await.0, 200);
    drop(host);
    let host = Host::start(HostConfig::of(&of(None)), stand.directory.path());
    assert_eq!(like(&mut Client::new(host.public()), &key.bearer(7)).await, (503, "keys-unavailable".into()));
    let ready = Client::new(host.admin()).get("/readyz").await.json();
    let checks = ready["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "token-keys").unwrap();
    println!("keys: an authority that nobody knows: {}", check["detail"]);
    assert!(check["detail"].as_str().unwrap().contains("certificate"), "{check}");
}
