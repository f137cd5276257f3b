//! Invalidations between hosts that share a Redis: what one host invalidates, the others invalidate too. A host that
//! was away catches up on what it missed when it is back, or drops everything it has cached.
//!
//! It lives in `app` because it joins modules that do not know each other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cache::invalidation::{Invalidation, Scope};
use crate::cache::{InvalidationLog, PurgeMode};
use crate::config::{Config, Namespace, StoreType};
use crate::store::{InvalidationBus, Received, StoreError, VERSION_OF_ALL, is_versioned, version_field};

/// Pause after Redis did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// How long a stopping host keeps publishing.
const LAST_WORDS: Duration = Duration::from_secs(2);
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(5);

/// The two halves.
pub struct Relays(Vec<JoinHandle<()>>);

impl Relays {
    /// Starts publishing and receiving. With the embedded store there are no other hosts.
    ///
    /// # Errors
    /// When the URL is invalid.
    pub fn start(config: &Config, host: &str, invalidations: &Arc<InvalidationLog>) -> Result<Self, StoreError> {
        if config.store.store_type == StoreType::Embedded || !keeps_anything(config) {
            return Ok(Self(Vec::new()));
        }
        // From now on, not from when the task begins.
        let heard = invalidations.subscribe();
        let namespace = config.store.namespace.clone().unwrap_or_else(|| Namespace::of_database(&config.sql.url));
        let relay = || InvalidationBus::new(&config.store, &namespace);
        let tells = tokio::spawn(tell(relay()?, host.to_owned(), Arc::clone(invalidations), heard));
        let hears = tokio::spawn(hear(relay()?, host.to_owned(), Arc::clone(invalidations)));
        Ok(Self(vec![tells, hears]))
    }

    /// Stops both tasks once everything is published, or after a timeout.
    pub async fn stop(&self, invalidations: &InvalidationLog) {
        let until = Instant::now() + LAST_WORDS;
        while !self.0.is_empty() && !invalidations.is_published() && Instant::now() < until {
            tokio::time::sleep(LAST_WORDS_PAUSE).await;
        }
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Without reads there is nothing to invalidate.
fn keeps_anything(config: &Config) -> bool {
    !config.reads.is_empty() || !config.upstreams.is_empty()
}

async fn tell(
    mut relay: InvalidationBus,
    host: String,
    invalidations: Arc<InvalidationLog>,
    mut heard: Receiver<Invalidation>,
) {
    loop {
        let (invalidation, count) = match heard.recv().await {
            Ok(invalidation) => (invalidation, 1),
            // Too many to tell one by one.
            Err(RecvError::Lagged(count)) => (Invalidation { scope: Scope::All, mode: PurgeMode::Hard }, count),
            Err(RecvError::Closed) => return,
        };
        let message = write(&host, &invalidation);
        let fields = fields(&invalidation.scope);
        while let Err(error) = relay.send(message.as_bytes(), &fields).await {
            tracing::debug!(%error, "an invalidation could not be told to the other hosts yet");
            tokio::time::sleep(RETRY).await;
        }
        invalidations.published(count);
    }
}

/// Whose versions an invalidation raises: more than it says where there is no version so small.
fn fields(what: &Scope) -> Vec<String> {
    match what {
        Scope::Groups(groups) => {
            groups.iter().filter(|group| is_versioned(group)).map(|group| version_field(group)).collect()
        }
        // `read:concert-dates?concert=1`: what stands before the parameters is the group of the read.
        Scope::Key(key) => vec![version_field(key.split_once('?').map_or(&**key, |(group, _)| group))],
        Scope::Prefix(_) | Scope::All => vec![VERSION_OF_ALL.to_owned()],
    }
}

async fn hear(mut relay: InvalidationBus, host: String, invalidations: Arc<InvalidationLog>) {
    loop {
        match relay.receive().await {
            Ok(Received::Messages(messages)) => {
                for message in &messages {
                    match read(message) {
                        Some((from, _)) if from == host => {}
                        Some((_, invalidation)) => invalidations.apply(&invalidation),
                        // Another version of weir says something that is not understood: the safe way.
                        None => invalidations.apply(&Invalidation { scope: Scope::All, mode: PurgeMode::Hard }),
                    }
                }
            }
            Ok(Received::Missed) => invalidations.apply(&Invalidation { scope: Scope::All, mode: PurgeMode::Hard }),
            Err(error) => {
                tracing::debug!(%error, "invalidations of other hosts are not heard");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn write(host: &str, invalidation: &Invalidation) -> String {
    let (what, value) = match &invalidation.scope {
        Scope::Groups(groups) => ("groups", json!(groups)),
        Scope::Key(key) => ("key", json!(key)),
        Scope::Prefix(prefix) => ("prefix", json!(prefix)),
        Scope::All => ("all", Value::Null),
    };
    json!({ "host": host, "what": what, "value": value, "soft": invalidation.mode == PurgeMode::Soft }).to_string()
}

fn read(message: &[u8]) -> Option<(String, Invalidation)> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let value = &message["value"];
    let what = match message["what"].as_str()? {
        "groups" => Scope::Groups(value.as_array()?.iter().map(text).collect::<Option<_>>()?),
        "key" => Scope::Key(text(value)?),
        "prefix" => Scope::Prefix(text(value)?),
        "all" => Scope::All,
        _ => return None,
    };
    let mode = if message["soft"].as_bool()? { PurgeMode::Soft } else { PurgeMode::Hard };
    Some((text(&message["host"])?, Invalidation { scope: what, mode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalidation_is_told_as_it_is() {
        for what in [
            Scope::Groups(vec!["a".into(), "b".into()]),
            Scope::Key("k\n".into()),
            Scope::Prefix("p".into()),
            Scope::All,
        ] {
            let invalidation = Invalidation { scope: what, mode: PurgeMode::Soft };
            let told = write("h", &invalidation);
            assert_eq!(read(told.as_bytes()), Some(("h".into(), invalidation)));
        }
        assert_eq!(read(b"{}"), None);
    }
}
