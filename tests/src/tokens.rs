//! An issuer of tokens: keys of each type, the set that it publishes, and what it signs.

use std::process::Command;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use weir::clock::Clock;

use crate::origin::{Script, ok};
use crate::services::find_binary;

/// A private key, and its public part.
pub struct SigningKey {
    /// Its name.
    pub kid: String,
    /// As PEM (PKCS #8).
    pub pem: String,
    /// Its public part, as a JSON Web Key.
    pub jwk: Value,
    algorithm: Algorithm,
    encoding: EncodingKey,
}

impl SigningKey {
    /// A new one.
    pub fn new(kid: &str, algorithm: Algorithm) -> Self {
        let arguments: &[&str] = match algorithm {
            Algorithm::ES256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Algorithm::EdDSA => &["-algorithm", "ed25519"],
            _ => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        };
        // As operators make them.
        let made = Command::new(find_binary("openssl")).arg("genpkey").args(arguments).output().expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pem = String::from_utf8(made.stdout).expect("PEM");
        let encoding = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        let encoding = encoding.expect("a key in PEM");
        let jwk = Jwk::from_encoding_key(&encoding, algorithm).expect("its public part");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        Self { kid: kid.into(), pem, jwk, algorithm, encoding }
    }

    /// A token with these claims, good for an hour.
    pub fn sign(&self, mut claims: Value) -> String {
        if claims.get("exp").is_none() {
            claims["exp"] = json!(Clock::Real.now_ms() / 1_000 + 3_600);
        }
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        encode(&header, &claims, &self.encoding).expect("a token")
    }

    /// `Bearer …` of somebody.
    pub fn bearer(&self, actor: i64) -> String {
        format!("Bearer {}", self.sign(json!({ "sub": actor.to_string() })))
    }
}

/// The set of these keys, as an issuer publishes it.
pub fn key_set(keys: &[&SigningKey]) -> Script {
    let keys: Vec<&Value> = keys.iter().map(|key| &key.jwk).collect();
    ok("Content-Type: application/json\r\n", &json!({ "keys": keys }).to_string())
}
