//! A JSON Web Key Set (RFC 7517): which key may have signed a token, and with which algorithm.
//!
//! A key is what its type makes it: nothing that a token says turns a public key into a secret. What is not for
//! signatures, too short, or of a kind that is not known is left out; the others are still good.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::token::Head;

/// Keys that are looked at; further ones are left out.
const KEYS_MAX: usize = 64;
/// Keys that are tried for a token that names none.
const TRIES_MAX: usize = 8;
/// Longest name of a key, in bytes.
pub(super) const KID_BYTES_MAX: usize = 256;
/// Smallest and largest modulus of RSA, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The usable keys of a set.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// Which keys may have signed a token.
#[derive(Debug)]
pub(super) enum Candidates<'a> {
    /// One of these, if any.
    Some(Vec<&'a DecodingKey>),
    /// One that is not in this set.
    Unknown,
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set, and keeps of it what can verify with one of `algorithms`.
    ///
    /// # Errors
    /// It is no set, or has no such key.
    pub(super) fn parse(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, String> {
        let written: Written =
            serde_json::from_slice(bytes).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
        let count = written.keys.len();
        let keys: Vec<Key> =
            written.keys.into_iter().take(KEYS_MAX).filter_map(|key| Key::parse(key, algorithms)).collect();
        if keys.is_empty() {
            return Err(format!("has {count} keys, and none for signatures with {algorithms:?}"));
        }
        Ok(Self(keys))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Their names.
    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|key| key.kid.as_deref())
    }

    /// The keys that may have signed a token with this head.
    pub(super) fn of(&self, head: &Head) -> Candidates<'_> {
        let fits = |key: &&Key| key.algorithms.contains(&head.algorithm);
        match head.kid.as_deref() {
            None => Candidates::Some(self.0.iter().filter(fits).take(TRIES_MAX).map(|key| &key.decoding).collect()),
            Some(kid) => {
                let named: Vec<&Key> = self.0.iter().filter(|key| key.kid.as_deref() == Some(kid)).collect();
                if named.is_empty() {
                    return Candidates::Unknown;
                }
                Candidates::Some(named.into_iter().filter(fits).map(|key| &key.decoding).collect())
            }
        }
    }
}

impl Key {
    fn parse(written: Value, accepted: &[Algorithm]) -> Option<Self> {
        let written: WrittenKey = serde_json::from_value(written).ok()?;
        let is_for_signatures = written.usage.as_deref().is_none_or(|usage| usage == "sig")
            && written.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let is_named_well = written.kid.as_ref().is_none_or(|kid| kid.len() <= KID_BYTES_MAX);
        if !is_for_signatures || !is_named_well {
            return None;
        }
        let part = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
        let is_long = |text: &Option<String>, length: usize| part(text).is_some_and(|bytes| bytes.len() == length);
        let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
        let (possible, decoding): (&[Algorithm], _) = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", _) => {
                let modulus = part(&written.n)?;
                let bytes = modulus.len() - modulus.iter().take_while(|byte| **byte == 0).count();
                if !RSA_BYTES.contains(&bytes) {
                    return None;
                }
                let all = jsonwebtoken::AlgorithmFamily::Rsa;
                let decoding = DecodingKey::from_rsa_components(&text(&written.n), &text(&written.e)).ok()?;
                return Self::with(written, all.algorithms(), accepted, decoding);
            }
            ("EC", Some("P-256")) if is_long(&written.x, 32) && is_long(&written.y, 32) => {
                (&[Algorithm::ES256], DecodingKey::from_ec_components(&text(&written.x), &text(&written.y)))
            }
            ("EC", Some("P-384")) if is_long(&written.x, 48) && is_long(&written.y, 48) => {
                (&[Algorithm::ES384], DecodingKey::from_ec_components(&text(&written.x), &text(&written.y)))
            }
            ("OKP", Some("Ed25519")) if is_long(&written.x, 32) => {
                (&[Algorithm::EdDSA], DecodingKey::from_ed_components(&text(&written.x)))
            }
            _ => return None,
        };
        Self::with(written, possible, accepted, decoding.ok()?)
    }

    /// With the algorithms that its type, the set and the configuration allow.
    fn with(
        written: WrittenKey,
        possible: &[Algorithm],
        accepted: &[Algorithm],
        decoding: DecodingKey,
    ) -> Option<Self> {
        let is_its_own = |algorithm: &Algorithm| match written.alg.as_deref() {
            None => true,
            // RFC 9864 names the curve.
            Some("Ed25519") => *algorithm == Algorithm::EdDSA,
            Some(alg) => alg.parse() == Ok(*algorithm),
        };
        let algorithms: Vec<Algorithm> =
            possible.iter().filter(|known| accepted.contains(known) && is_its_own(known)).copied().collect();
        (!algorithms.is_empty()).then_some(Self { kid: written.kid, algorithms, decoding })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

    fn b64(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xc3; bytes])
    }

    fn rsa(kid: &str) -> Value {
        json!({ "kty": "RSA", "kid": kid, "n": b64(256), "e": "AQAB" })
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn set(keys: &[Value], algorithms: &[Algorithm]) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys, "more": 1 }).to_string().as_bytes(), algorithms)
    }

    fn count(set: &KeySet, algorithm: Algorithm, kid: Option<&str>) -> Option<usize> {
        match set.of(&Head { algorithm, kid: kid.map(str::to_owned) }) {
            Candidates::Some(keys) => Some(keys.len()),
            Candidates::Unknown => None,
        }
    }

    #[test]
    fn a_key_verifies_what_its_type_and_the_configuration_allow() {
        let ec = json!({ "kty": "EC", "crv": "P-256", "kid": "e", "x": b64(32), "y": b64(32) });
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "o", "x": b64(32), "alg": "EdDSA", "use": "sig" });
        let pinned = with(rsa("p"), "alg", "PS256".into());
        let set = set(&[rsa("r"), ec, ed, pinned], &ALL).unwrap();
        assert_eq!(set.len(), 4);
        assert_eq!(count(&set, Algorithm::RS256, Some("r")), Some(1));
        assert_eq!(count(&set, Algorithm::RS384, Some("r")), Some(0), "not configured");
        assert_eq!(
            (count(&set, Algorithm::RS256, Some("p")), count(&set, Algorithm::PS256, Some("p"))),
            (Some(0), Some(1))
        );
        assert_eq!(
            (count(&set, Algorithm::ES256, Some("e")), count(&set, Algorithm::RS256, Some("e"))),
            (Some(1), Some(0))
        );
        assert_eq!(count(&set, Algorithm::HS256, Some("r")), Some(0), "no public key is a secret");
        assert_eq!(count(&set, Algorithm::EdDSA, None), Some(1));
        assert_eq!(count(&set, Algorithm::EdDSA, Some("x")), None);
    }

    #[test]
    fn what_is_not_for_signatures_or_not_sound_is_left_out() {
        let left_out = [
            with(rsa("a"), "use", "enc".into()),
            with(rsa("b"), "key_ops", json!(["encrypt"])),
            with(rsa("c"), "n", b64(128).into()),
            with(rsa("d"), "alg", "RSA-OAEP".into()),
            with(rsa("e"), "n", json!(7)),
            with(rsa("f"), "kid", "x".repeat(KID_BYTES_MAX + 1).into()),
            json!({ "kty": "oct", "kid": "g", "k": b64(64) }),
            json!({ "kty": "oct", "kid": "h", "k": b64(64), "alg": "HS256" }),
            json!({ "kty": "EC", "crv": "P-256", "kid": "i", "x": b64(31), "y": b64(32) }),
            json!({ "kty": "EC", "crv": "P-521", "kid": "j", "x": b64(66), "y": b64(66) }),
            json!({ "kty": "OKP", "crv": "X25519", "kid": "k", "x": b64(32) }),
            json!("no key"),
        ];
        assert!(set(&left_out, &ALL).unwrap_err().contains("has 12 keys, and none for signatures"));
        let with_good: Vec<Value> =
            left_out.into_iter().chain([with(rsa("z"), "key_ops", json!(["verify"]))]).collect();
        assert_eq!(set(&with_good, &ALL).unwrap().kids().collect::<Vec<_>>(), ["z"]);
        assert!(KeySet::parse(b"<html>", &ALL).unwrap_err().contains("is no JSON Web Key Set"));
        let many: Vec<Value> = (0..KEYS_MAX + 5).map(|n| rsa(&n.to_string())).collect();
        let set = set(&many, &ALL).unwrap();
        assert_eq!((set.len(), count(&set, Algorithm::RS256, None)), (KEYS_MAX, Some(TRIES_MAX)));
    }
}
