//! Passes of waiting rooms, verified as a service would that knows nothing of weir: with the published key and `openssl`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::Value;
use weir::config::{RoomAlgorithm, RoomConfig, RoomKeyConfig};
use weir_tests::client::Client;
use weir_tests::services::find_binary;
use weir_tests::stand::{Setup, Stand};
use weir_tests::tokens::SigningKey;

use crate::ask;

const KINDS: [(&str, RoomAlgorithm, Algorithm); 3] = [
    ("by-ed", RoomAlgorithm::EdDSA, Algorithm::EdDSA),
    ("by-ec", RoomAlgorithm::ES256, Algorithm::ES256),
    ("by-rsa", RoomAlgorithm::RS256, Algorithm::RS256),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_of_each_algorithm_are_verified_by_others() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut config = stand.config();
    for (kind, algorithm, of_key) in KINDS {
        let key = SigningKey::new(kind, of_key);
        let file = stand.directory.path().join(format!("{kind}.pem"));
        std::fs::write(&file, &key.pem).unwrap();
        let key = RoomKeyConfig { kid: format!("kid-{kind}"), algorithm, key: None, key_file: Some(file) };
        config.rooms.push(RoomConfig { kind: kind.into(), keys: vec![key], ..RoomConfig::demo("unused".into()) });
    }
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let set = client.get("/.well-known/jwks.json").await.json();
    assert_eq!(set["keys"].as_array().unwrap().len(), KINDS.len(), "{set}");
    for (kind, _, algorithm) in KINDS {
        let base = format!("/v1/rooms/{kind}/1/tokens");
        let joined = ask(&mut client, "POST", &base, &[("x-actor-id", "7")]).await.json();
        let path = format!("{base}/{}", joined["token"].as_str().unwrap());
        let pass = tokio::time::timeout(crate::PATIENCE, async {
            loop {
                let status = client.get(&path).await.json();
                if let Some(pass) = status["pass"].as_str() {
                    return pass.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let pass = pass.await.expect("let in");
        let parts: Vec<&str> = pass.split('.').collect();
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
        let kid = format!("kid-{kind}");
        assert_eq!(header["alg"], format!("{algorithm:?}"), "{header}");
        assert_eq!((&header["kid"], &header["typ"]), (&Value::from(kid.as_str()), &"weir-pass+jwt".into()), "{header}");
        let keys = set["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["kid"] == kid.as_str()).unwrap();
        assert_eq!((&key["use"], &key["alg"]), (&"sig".into(), &header["alg"]), "{key}");
        assert!(key.get("d").is_none() && key.get("p").is_none(), "the private part stays here");
        let signed = format!("{}.{}", parts[0], parts[1]);
        let directory = stand.directory.path();
        assert!(verifies(directory, key, &signed, &decode(parts[2])), "{kind}: {key}");
        assert!(
            !verifies(directory, key, &format!("{signed}x"), &decode(parts[2])),
            "{kind}: openssl says yes to anything"
        );
        println!("passes: {} verified by openssl with the published key, {} bytes", header["alg"], pass.len());
        // And by weir itself.
        let body = format!("{{\"token\":{pass:?}}}");
        let verify = format!("/v1/rooms/{kind}/verify");
        let told = client.request("POST", &verify, &[("content-type", "application/json")], &body).await.unwrap();
        assert_eq!((told.status, &told.json()["actor"]), (200, &7.into()), "{}", told.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_does_not_fit_its_algorithm_is_refused_with_the_command_for_one_that_does() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    for (_, algorithm, of_key) in KINDS {
        let other = if of_key == Algorithm::ES256 { Algorithm::EdDSA } else { Algorithm::ES256 };
        let key = Some(SigningKey::new("x", other).pem);
        let key = RoomKeyConfig { kid: "x".into(), algorithm, key, key_file: None };
        let room = RoomConfig { keys: vec![key], ..RoomConfig::demo("unused".into()) };
        let refused = weir::room::token::Keyring::new(&room).err().expect("refused").to_string();
        assert!(refused.contains("key \"x\"") && refused.contains("openssl genpkey -algorithm"), "{refused}");
    }
    drop(stand);
}

/// Whether `openssl` verifies a signature with a JSON Web Key.
fn verifies(directory: &Path, key: &Value, signed: &str, signature: &[u8]) -> bool {
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (public, data) = (write("public.pem", pem(key).as_bytes()), write("signed", signed.as_bytes()));
    let is_ed = key["kty"] == "OKP";
    let signature =
        if key["kty"] == "EC" { of_integers(&signature[..32], &signature[32..]) } else { signature.to_vec() };
    let signature = write("signature", &signature);
    let mut command = Command::new(find_binary("openssl"));
    if is_ed {
        command.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(public).arg("-sigfile").arg(signature);
        command.arg("-in").arg(data);
    } else {
        command.args(["dgst", "-sha256", "-verify"]).arg(public).arg("-signature").arg(signature).arg(data);
    }
    let output = command.output().expect("openssl runs");
    output.status.success()
}

/// A public key as PEM, made of its JSON Web Key by hand.
fn pem(key: &Value) -> String {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let (algorithm, bits): (&[u8], Vec<u8>) = match key["kty"].as_str().unwrap() {
        "RSA" => (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00", of_integers(&part("n"), &part("e"))),
        "EC" => (
            b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
            [&[4][..], &part("x"), &part("y")].concat(),
        ),
        _ => (b"\x06\x03\x2b\x65\x70", part("x")),
    };
    let der = tagged(0x30, &[tagged(0x30, algorithm), tagged(0x03, &[&[0][..], &bits].concat())].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

/// DER: a sequence of two integers.
fn of_integers(first: &[u8], second: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let from = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
        let sign: &[u8] = if bytes[from] >= 0x80 { &[0] } else { &[] };
        tagged(0x02, &[sign, &bytes[from..]].concat())
    };
    tagged(0x30, &[integer(first), integer(second)].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..128 => vec![tag, length as u8],
        128..256 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}
