//! `[[room]]`: one kind of the room capability: queues before something that bears only so many at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::{PolicyFailure, check_kind};
use super::{ConfigError, all, at_least, between, ensure, exactly_one, secret, value};
use crate::model::{Id, IdType};

/// Shortest secret for HS256, in bytes.
const SECRET_BYTES_MIN: usize = 32;
/// Longest time of any kind here, in milliseconds: a year.
const TIME_MS_MAX: u64 = 366 * 86_400_000;
/// Greatest `capacity` and `waiting_max`.
const PEOPLE_MAX: u64 = 100_000_000;

/// One kind of the room capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomConfig {
    /// Its name in URLs: lower-case letters, digits and hyphens.
    pub kind: String,
    /// Type of the queue's id.
    #[serde(default = "default_id_type")]
    pub queue_type: IdType,
    /// Type of the actor's id.
    #[serde(default = "default_id_type")]
    pub actor_type: IdType,
    /// The queues that there are. Empty: every id is one, up to `queues_max`.
    #[serde(default)]
    pub queues: Vec<String>,
    /// Queues at most. Beyond, one makes room where nobody waits or is in and nobody came or went for `grace_ms`, the one that
    /// was used longest ago, with its totals and its draw; where there is none, the join is answered 503. With `queues` nobody
    /// else can take them up.
    #[serde(default = "default_queues_max")]
    pub queues_max: usize,
    /// In place of `grace_ms` in `queues_max`, where it is shorter, in milliseconds. While there is room, totals are kept.
    #[serde(default = "default_queue_idle_ms")]
    pub queue_idle_ms: u64,
    /// Who is let in at all.
    #[serde(default)]
    pub mode: RoomMode,
    /// Who may be in at once, per queue. The store never lets in more.
    #[serde(default = "default_capacity")]
    pub capacity: u64,
    /// Who may wait, per queue; beyond: 503.
    #[serde(default = "default_waiting_max")]
    pub waiting_max: u64,
    /// Whoever waits and does not ask for so long is gone, in milliseconds.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
    /// Whoever is let in and does not come for so long is out again, in milliseconds.
    #[serde(default = "default_claim_ms")]
    pub claim_ms: u64,
    /// Longest stay with all extensions, in milliseconds.
    #[serde(default = "default_stay_ms_max")]
    pub stay_ms_max: u64,
    /// How long it is remembered why somebody is gone, in milliseconds.
    #[serde(default = "default_ended_ttl_ms")]
    pub ended_ttl_ms: u64,
    /// How long a token for a place is good, in milliseconds. Whoever polls after half of it gets a new one.
    #[serde(default = "default_token_ttl_ms")]
    pub token_ttl_ms: u64,
    /// Shortest time between two polls that a reply asks for, in milliseconds.
    #[serde(default = "default_poll_ms_min")]
    pub poll_ms_min: u64,
    /// Longest such time, in milliseconds; never over a third of the grace.
    #[serde(default = "default_poll_ms_max")]
    pub poll_ms_max: u64,
    /// Polls of one queue that are aimed at in a second; intervals grow with those who wait.
    #[serde(default = "default_polls_per_s_max")]
    pub polls_per_s_max: u64,
    /// With at most so many before them, whoever asks for server-sent events gets a stream; the others one event.
    #[serde(default = "default_stream_ahead_max")]
    pub stream_ahead_max: u64,
    /// Streams at once on this host; beyond, one event.
    #[serde(default = "default_streams_max")]
    pub streams_max: usize,
    /// For how long one host has the clock of a queue, in milliseconds.
    #[serde(default = "default_lease_ms")]
    pub lease_ms: u64,
    /// `iss` of tokens.
    #[serde(default = "default_issuer")]
    pub issuer: String,
    /// The keys of tokens. The first signs, all verify: put a new one first, and take the old one out when its tokens are over.
    pub keys: Vec<RoomKeyConfig>,
    /// What a batch gets when its policy module fails.
    #[serde(default)]
    pub on_policy_failure: PolicyFailure,
    /// Settings that the policy reads through its `config` import. The default rules know `opens-at-ms` (0: open),
    /// `closes-at-ms` (0: never), `draw` (true: whoever comes before it opens is placed by lot), `admit-per-second` (0: as many
    /// as there is space), `active-ttl-ms` (300000) and `tick-ms` (250).
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// Who is let in at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoomMode {
    /// Whoever comes, as the rules say and as far as there is space.
    #[default]
    Open,
    /// Nobody: all wait.
    QueueAll,
    /// Those who wait; nobody joins any more.
    Closed,
    /// Everybody at once, whatever the capacity: to see the figures before it matters.
    PassThrough,
}

impl RoomMode {
    /// Its word in configuration and replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::QueueAll => "queue-all",
            Self::Closed => "closed",
            Self::PassThrough => "pass-through",
        }
    }
}

/// A key of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomKeyConfig {
    /// Its name in tokens.
    pub kid: String,
    /// How passes are signed: `EdDSA`, `ES256`, `RS256` or `HS256`.
    pub algorithm: RoomAlgorithm,
    /// The secret (HS256: at least 32 bytes), or the private key as PEM (PKCS #8). Prefer `key_file`.
    #[serde(default)]
    #[schemars(extend("x-weir-secret" = "whole"))]
    pub key: Option<String>,
    /// File with the key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// How passes are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RoomAlgorithm {
    /// Ed25519: whoever verifies needs the public key only, from `/.well-known/jwks.json`.
    EdDSA,
    /// ECDSA on P-256, for those who verify with a library without Ed25519.
    ES256,
    /// RSA with at least 2048 bits: known everywhere; passes are longer, and signing takes about 20 times as long.
    RS256,
    /// A shared secret.
    HS256,
}

fn default_id_type() -> IdType {
    IdType::Integer
}
fn default_queues_max() -> usize {
    1_000
}
fn default_queue_idle_ms() -> u64 {
    86_400_000
}
fn default_capacity() -> u64 {
    100
}
fn default_waiting_max() -> u64 {
    2_000_000
}
fn default_grace_ms() -> u64 {
    120_000
}
fn default_claim_ms() -> u64 {
    60_000
}
fn default_stay_ms_max() -> u64 {
    1_800_000
}
fn default_ended_ttl_ms() -> u64 {
    600_000
}
fn default_token_ttl_ms() -> u64 {
    86_400_000
}
fn default_poll_ms_min() -> u64 {
    1_000
}
fn default_poll_ms_max() -> u64 {
    20_000
}
fn default_polls_per_s_max() -> u64 {
    5_000
}
fn default_stream_ahead_max() -> u64 {
    100
}
fn default_streams_max() -> usize {
    500
}
fn default_lease_ms() -> u64 {
    5_000
}
fn default_issuer() -> String {
    "weir".into()
}

impl RoomConfig {
    /// Kind `concert` of the embedded demo; `key_file` is made when it does not exist.
    pub fn demo(key_file: PathBuf) -> Self {
        let key =
            RoomKeyConfig { kid: "demo".into(), algorithm: RoomAlgorithm::EdDSA, key: None, key_file: Some(key_file) };
        Self {
            kind: "concert".into(),
            queue_type: default_id_type(),
            actor_type: default_id_type(),
            queues: Vec::new(),
            queues_max: default_queues_max(),
            queue_idle_ms: default_queue_idle_ms(),
            mode: RoomMode::Open,
            capacity: default_capacity(),
            waiting_max: default_waiting_max(),
            grace_ms: default_grace_ms(),
            claim_ms: default_claim_ms(),
            stay_ms_max: default_stay_ms_max(),
            ended_ttl_ms: default_ended_ttl_ms(),
            token_ttl_ms: default_token_ttl_ms(),
            poll_ms_min: default_poll_ms_min(),
            poll_ms_max: default_poll_ms_max(),
            polls_per_s_max: default_polls_per_s_max(),
            stream_ahead_max: default_stream_ahead_max(),
            streams_max: default_streams_max(),
            lease_ms: default_lease_ms(),
            issuer: default_issuer(),
            keys: vec![key],
            on_policy_failure: PolicyFailure::Deny,
            settings: BTreeMap::new(),
        }
    }

    /// Whether there is such a queue.
    pub fn has_queue(&self, queue: &Id) -> bool {
        self.queues.is_empty()
            || self.queues.iter().any(|known| Id::parse(self.queue_type, known).as_ref() == Ok(queue))
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("room[{index}].{name}");
        let mut found = vec![check_kind(&field("kind"), &self.kind)];
        for queue in &self.queues {
            let parsed = Id::parse(self.queue_type, queue);
            found.push(parsed.map(drop).map_err(|error| value(field("queues"), format!("{queue:?}: {error}"))));
        }
        let times = [
            ("queue_idle_ms", self.queue_idle_ms),
            ("grace_ms", self.grace_ms),
            ("claim_ms", self.claim_ms),
            ("stay_ms_max", self.stay_ms_max),
            ("ended_ttl_ms", self.ended_ttl_ms),
            ("token_ttl_ms", self.token_ttl_ms),
            ("poll_ms_min", self.poll_ms_min),
            ("poll_ms_max", self.poll_ms_max),
            ("lease_ms", self.lease_ms),
        ];
        for (name, given) in times {
            found.push(at_least(&field(name), given, 1));
            let reason = format!("must be at most {TIME_MS_MAX} (a year)");
            found.push(ensure(given <= TIME_MS_MAX, field(name), reason));
        }
        found.extend([
            at_least(&field("queues_max"), self.queues_max, self.queues.len().max(1)),
            between(&field("capacity"), self.capacity, 1, PEOPLE_MAX),
            between(&field("waiting_max"), self.waiting_max, 1, PEOPLE_MAX),
            at_least(&field("poll_ms_max"), self.poll_ms_max, self.poll_ms_min),
            at_least(&field("grace_ms"), self.grace_ms, self.poll_ms_min.saturating_mul(3)),
            at_least(&field("polls_per_s_max"), self.polls_per_s_max, 1),
            self.validate_keys(index),
        ]);
        all(found)
    }

    fn validate_keys(&self, index: usize) -> Result<(), ConfigError> {
        let mut found = vec![ensure(
            !self.keys.is_empty(),
            format!("room[{index}].keys"),
            "give at least one key; make one with: openssl genpkey -algorithm ed25519 -out room.pem",
        )];
        for (at, key) in self.keys.iter().enumerate() {
            let field = |name: &str| format!("room[{index}].keys[{at}].{name}");
            let fits = (1..=64).contains(&key.kid.len()) && key.kid.bytes().all(|byte| byte.is_ascii_graphic());
            let is_new = self.keys[..at].iter().all(|other| other.kid != key.kid);
            found.extend([
                ensure(fits, field("kid"), "must be 1 to 64 visible ASCII characters"),
                ensure(is_new, field("kid"), format!("{:?} is the name of another key", key.kid)),
                exactly_one(&field("key"), key.key.is_some(), key.key_file.is_some()),
            ]);
        }
        all(found)
    }
}

impl RoomKeyConfig {
    /// The key.
    ///
    /// # Errors
    /// A file that cannot be read; a secret that is too short.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        let bytes = match (&self.key, &self.key_file) {
            (Some(key), _) => key.clone().into_bytes(),
            // A key in PEM counts as it is: tickets are sealed with all of its bytes.
            (None, Some(path)) if self.algorithm != RoomAlgorithm::HS256 => secret::raw("room.keys.key_file", path)?,
            (None, Some(path)) => secret::bytes_of("room.keys.key_file", path)?,
            (None, None) => return Err(value("room.keys.key_file", "is missing")),
        };
        if self.algorithm == RoomAlgorithm::HS256 && bytes.len() < SECRET_BYTES_MIN {
            return Err(value("room.keys.key", "a shared secret must have at least 32 bytes"));
        }
        Ok(bytes)
    }
}
