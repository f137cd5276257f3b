//! Names in Redis. All of them are data format.
//!
//! ```text
//! weir:<ns>:format               hash    version, partitions; journal and database, ids; `kind:<kind>` for each kind that was
//!                                        ever written
//! weir:<ns>:relay                stream  what hosts tell each other; m a message as JSON; about 10,000 are kept
//! weir:<ns>:{weir:<ns>:relay}:v  hash    versions of cached reads: `*` of all, and of each group that was ever invalidated; any
//!                                        text that was never there before
//! weir:<ns>:cache:<hash>         string  a cached read that hosts share, in the Redis of `cache.shared.url`; expires
//! weir:<ns>:{kind}:flusher            string  owner of the lease
//! weir:<ns>:{kind:p}:x                hash    head: inc, life; s, what all entries of the journal carry; n, as doubles: last,
//!                                        flushed, floor; changes and bytes ever
//!                                        appended; of these, trimmed; time of the oldest that waits; dirty targets;
//!                                        documents that wait; the last position that was trimmed; what
//!                                        the changes amounted to (of a counter the sum of the increments), ever appended,
//!                                        and of these, trimmed (-1: not counted)
//! weir:<ns>:{kind:p}:j                stream  journal; id `<position>-0`; p records, k the letter of each, m digest; n, as
//!                                        doubles: time, changes and bytes ever appended up to it, the entry before it,
//!                                        what all changes before it amounted to; then what the head has in s. Entries of
//!                                        earlier versions end after the third number
//! weir:<ns>:{kind:p}:t:<target>       hash    '' → mode, invalid, life, last, count; actor (tagged) →
//!                                        since, or `-`: known to be absent (huge targets). Expires when clean. Of a
//!                                        document that waits: i id and a actor (tagged), b body, t time. Of a member: its
//!                                        settings follow in '' itself, packed (see `model/preference`)
//! weir:<ns>:{kind:p}:d:<target>       zset    changed pairs by position of the newest change (huge targets)
//! weir:<ns>:{kind:p}:o:<actor>        zset    ids of the documents of an actor (tagged) that wait, by position
//! weir:<ns>:{kind:p}:u                string  table of windows (see `unique`), at most 128 bytes for each of its buckets;
//!                                        expires after the longest window
//! weir:<ns>:{kind:p}:l:<n>:<target>:<actor>  string  rate limit: theoretical arrival time in microseconds
//! weir:<ns>:{kind:p}:i:<key>          string  outcome of an idempotency key, where its operation is
//! weir:<ns>:{kind}:rooms              zset    queues of a waiting room (tagged) by when they were known to be in use last
//! weir:<ns>:{kind:q:<queue>}:m        hash    seed, number of the last arrival, totals, when somebody came or went last
//!                                        (`used`); expires a week after the last tick
//! weir:<ns>:{kind:q:<queue>}:w        zset    who waits (tagged), by lane and place
//! weir:<ns>:{kind:q:<queue>}:a        zset    who is in, by until when
//! weir:<ns>:{kind:q:<queue>}:s        zset    who waits, by when to look whether they still ask
//! weir:<ns>:{kind:q:<queue>}:p        hash    actor → record (see `room.lua`)
//! weir:<ns>:{kind:q:<queue>}:d        list    who takes part in the draw, in the order of arrival
//! weir:<ns>:{kind:q:<queue>}:t        string  owner of the queue's clock, while its lease lasts
//! weir:<ns>:{kind:q:<queue>}:h        zset    hosts through which people ask, by when they called last
//! weir:<ns>:{kind:q:<queue>}:e:<actor>  string  number and reason of somebody who is gone; expires
//! weir:<ns>:module:{<module>}:<key>  string  what a policy module keeps: `v` and a value, or the digits of a counter
//! ```
//! `<ns>` is the namespace (`store.namespace`), which keeps databases apart that share a Redis. Up to format 4 there was none:
//! `weir:format`, `weir:{kind:p}:x`, `weir-module:{<module>}:<key>` (see `upgrade`). It stands before the hash tag, so that a key has
//! the same slot with and without it.
//!
//! In a cluster all keys of a partition are in one slot, so that one script call reads and writes them. A script proves
//! before anything else that its slot is not on its way to another node: see `slot.lua`.
//!
//! One hash holds all of a target, so that one call reads it and its actors, and they expire together. The scripts make
//! the keys after `:x` from it.

use weir_core::config::Namespace;
use weir_core::model::Partition;

/// The hash of format and number of partitions up to format 4.
pub(super) const EARLIER_FORMAT: &str = "weir:format";

/// The invalidation bus up to format 4: a stream, and versions of cached reads. They can be lost without harm.
pub(super) const EARLIER_RELAY: [&str; 2] = ["weir:relay", "weir:{weir:relay}:v"];

/// Prefixes of the keys of kinds, and of policy modules, up to format 4; a hash tag follows.
const EARLIER: &str = "weir:";
const EARLIER_MODULE: &str = "weir-module:";

/// A pattern of all keys up to format 4 that have a hash tag.
pub(super) const EARLIER_TAGGED: &str = "weir*{*}:*";

/// The names in one namespace.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// `weir:<ns>:`.
    prefix: String,
}

/// The owner of an earlier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// Of a kind: its journal and state.
    Kind(&'a str),
    /// Of a waiting room.
    Room(&'a str),
    /// Of a policy module.
    Module,
    /// No owner, or a lease: must not be moved.
    Nobody,
}

impl Keys {
    pub(super) fn new(namespace: &Namespace) -> Self {
        Self { prefix: format!("weir:{namespace}:") }
    }

    /// The hash of format, number of partitions, journal, database and kinds.
    pub(super) fn format(&self) -> String {
        format!("{}format", self.prefix)
    }

    /// The stream of the invalidation bus.
    pub(super) fn relay(&self) -> String {
        format!("{}relay", self.prefix)
    }

    /// Versions of cached reads: in the slot of the stream, so that one step changes a version and sends a message.
    pub(super) fn versions(&self) -> String {
        format!("{}{{{}}}:v", self.prefix, self.relay())
    }

    /// A cached read that hosts share.
    pub(super) fn shared(&self, hash: &str) -> String {
        format!("{}cache:{hash}", self.prefix)
    }

    /// The head of a partition.
    pub(super) fn head(&self, kind: &str, partition: Partition) -> String {
        format!("{}{{{kind}:{partition}}}:x", self.prefix)
    }

    /// The lease of a kind's flusher.
    pub(super) fn flusher(&self, kind: &str) -> String {
        format!("{}{{{kind}}}:flusher", self.prefix)
    }

    /// The outcome of an idempotency key: in the partition of the operation, so that one step writes both.
    pub(super) fn outcome(&self, kind: &str, partition: Partition, key: &[u8; 16]) -> String {
        format!("{}{{{kind}:{partition}}}:i:{:032x}", self.prefix, u128::from_be_bytes(*key))
    }

    /// The queues of a waiting room.
    pub(super) fn queues(&self, kind: &str) -> String {
        format!("{}{{{kind}}}:rooms", self.prefix)
    }

    /// A queue, by its tagged id.
    pub(super) fn queue(&self, kind: &str, queue: &str) -> String {
        format!("{}{{{kind}:q:{}}}:m", self.prefix, braceless(queue))
    }

    /// The people who take part in the lottery of a queue.
    pub(super) fn draw(&self, kind: &str, queue: &str) -> String {
        format!("{}{{{kind}:q:{}}}:d", self.prefix, braceless(queue))
    }

    /// A key of a policy module. Unambiguous for any `key`, because module names hold no brace or colon.
    pub(super) fn guest(&self, module: &str, key: &str) -> String {
        format!("{}module:{{{module}}}:{key}", self.prefix)
    }

    /// Patterns of all keys of a kind.
    pub(super) fn of_kind(&self, kind: &str) -> [String; 2] {
        [format!("{}{{{kind}:*}}:*", self.prefix), format!("{}{{{kind}}}:*", self.prefix)]
    }

    /// A pattern of all keys.
    pub(super) fn all(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// The present name of a tagged key of an earlier format; in the same slot.
    pub(super) fn of_earlier(&self, key: &str) -> Option<String> {
        match (key.strip_prefix(EARLIER), key.strip_prefix(EARLIER_MODULE)) {
            (Some(rest), _) if rest.starts_with('{') => Some(format!("{}{rest}", self.prefix)),
            (_, Some(rest)) => Some(format!("{}module:{rest}", self.prefix)),
            _ => None,
        }
    }
}

/// The head of a partition up to format 4.
pub(super) fn earlier_head(kind: &str, partition: Partition) -> String {
    format!("{EARLIER}{{{kind}:{partition}}}:x")
}

/// The lease of a kind's flusher up to format 4.
pub(super) fn earlier_flusher(kind: &str) -> String {
    format!("{EARLIER}{{{kind}}}:flusher")
}

/// The owner of a key up to format 4; `None` for other names.
pub(super) fn earlier_owner(key: &str) -> Option<Owner<'_>> {
    if key.starts_with(EARLIER_MODULE) {
        return Some(Owner::Module);
    }
    let (tag, rest) = key.strip_prefix(EARLIER)?.strip_prefix('{')?.split_once("}:")?;
    Some(match tag.split_once(':') {
        None if rest == "rooms" => Owner::Room(tag),
        None => Owner::Nobody,
        Some((kind, place)) if place.starts_with("q:") => Owner::Room(kind),
        Some((kind, place)) if place.parse::<Partition>().is_ok() => Owner::Kind(kind),
        // The versions of cached reads.
        Some(_) => Owner::Nobody,
    })
}

/// Escapes braces, which would end the hash tag, as `%7b` and `%7d`, and `%` as `%25`.
fn braceless(text: &str) -> String {
    text.replace('%', "%25").replace('{', "%7b").replace('}', "%7d")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(namespace: &str) -> Keys {
        Keys::new(&Namespace::try_from(namespace.to_owned()).unwrap())
    }

    fn tag(key: &str) -> Option<&str> {
        key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag)
    }

    #[test]
    fn a_key_keeps_its_hash_tag_under_its_new_name() {
        let keys = keys("shop");
        for (earlier, now) in [
            ("weir:{like:3}:x", Some("weir:shop:{like:3}:x")),
            ("weir:{like:3}:t:{a}:b", Some("weir:shop:{like:3}:t:{a}:b")),
            ("weir-module:{m}:weir:{x}", Some("weir:shop:module:{m}:weir:{x}")),
            ("weir:format", None),
            ("weir:shop:{like:3}:x", None),
        ] {
            assert_eq!(keys.of_earlier(earlier).as_deref(), now);
            assert!(now.is_none_or(|now| tag(now) == tag(earlier)), "{earlier}");
        }
        assert_eq!(keys.of_earlier(&earlier_head("like", 3)), Some(keys.head("like", 3)));
        assert_eq!(tag(&keys.versions()), Some(keys.relay().as_str()), "one slot with the stream");
    }

    #[test]
    fn an_earlier_key_says_whose_it_is() {
        for (key, owner) in [
            ("weir:{like:3}:j", Some(Owner::Kind("like"))),
            ("weir:{like}:flusher", Some(Owner::Nobody)),
            ("weir:{concert}:rooms", Some(Owner::Room("concert"))),
            ("weir:{concert:q:t%7b1}:m", Some(Owner::Room("concert"))),
            ("weir:{weir:relay}:v", Some(Owner::Nobody)),
            ("weir-module:{m}:k", Some(Owner::Module)),
            ("weir:shop:{like:3}:x", None),
            ("other:{like:3}:x", None),
        ] {
            assert_eq!(earlier_owner(key), owner, "{key}");
        }
    }
}
