//! Names in Redis. All of them are data format.
//!
//! ```text
//! weir:format                    hash    version, partitions
//! weir:relay                     stream  what hosts tell each other; m a message as JSON; about 10,000 are kept
//! weir:{weir:relay}:v            hash    versions of cached reads: `*` of all, and of each group that was ever invalidated; any
//!                                        text that was never there before
//! weir:cache:<hash>              string  a cached read that hosts share, in the Redis of `cache.shared.url`; expires
//! weir:{kind}:flusher            string  owner of the lease
//! weir:{kind:p}:x                hash    head: inc, life; s, what all entries of the journal carry; n, as doubles: last, flushed, floor; changes and bytes ever
//!                                        appended; of these, trimmed; time of the oldest that waits; dirty targets;
//!                                        documents that wait; the last position that was trimmed; what
//!                                        the changes amounted to (of a counter the sum of the increments), ever appended,
//!                                        and of these, trimmed (-1: nobody has counted it)
//! weir:{kind:p}:j                stream  journal; id `<position>-0`; p records, k the letter of each, m digest; n, as
//!                                        doubles: time, changes and bytes ever appended up to it, the entry before it,
//!                                        what all changes before it amounted to; then what the head has in s. Entries of
//!                                        earlier versions end after the third number
//! weir:{kind:p}:t:<target>       hash    '' → mode, invalid, life, last, count; actor (tagged) →
//!                                        since, or `-`: known to be absent (huge targets). Expires when clean. Of a
//!                                        document that waits: i id and a actor (tagged), b body, t time. Of a member: its
//!                                        settings follow in '' itself, packed (see `model/preference`)
//! weir:{kind:p}:d:<target>       zset    changed pairs by position of the newest change (huge targets)
//! weir:{kind:p}:o:<actor>        zset    ids of the documents of an actor (tagged) that wait, by position
//! weir:{kind:p}:u                string  table of windows (see `store/unique`), at most 128 bytes for each of its buckets;
//!                                        expires after the longest window
//! weir:{kind:p}:l:<n>:<target>:<actor>  string  rate limit: theoretical arrival time in microseconds
//! weir:{kind:p}:i:<key>          string  outcome of an idempotency key, where its operation is
//! weir:{kind}:rooms              zset    queues of a waiting room (tagged) by when they were known to be in use last
//! weir:{kind:q:<queue>}:m        hash    seed, number of the last arrival, totals, when somebody came or went last
//!                                        (`used`); expires a week after the last tick
//! weir:{kind:q:<queue>}:w        zset    who waits (tagged), by lane and place
//! weir:{kind:q:<queue>}:a        zset    who is in, by until when
//! weir:{kind:q:<queue>}:s        zset    who waits, by when to look whether they still ask
//! weir:{kind:q:<queue>}:p        hash    actor → record (see `room.lua`)
//! weir:{kind:q:<queue>}:d        list    who takes part in the draw, in the order of arrival
//! weir:{kind:q:<queue>}:t        string  owner of the queue's clock, while its lease lasts
//! weir:{kind:q:<queue>}:h        zset    hosts through which people ask, by when they called last
//! weir:{kind:q:<queue>}:e:<actor>  string  number and reason of somebody who is gone; expires
//! weir-module:{<module>}:<key>   string  what a policy module keeps: `v` and a value, or the digits of a counter
//! ```
//! In a cluster all keys of a partition are in one slot, so that one script call reads and writes them. A script proves
//! before anything else that its slot is not on its way to another node: see `slot.lua`.
//!
//! One hash holds all of a target, so that one call reads it and its actors, and they expire together. The scripts make
//! the keys after `:x` from it.

use crate::model::Partition;

/// The hash of format and number of partitions.
pub(super) const FORMAT: &str = "weir:format";

/// The stream of what hosts tell each other.
pub(super) const RELAY: &str = "weir:relay";

/// Versions of cached reads: in the slot of the stream, so that one step raises a version and tells of it.
pub(super) const VERSIONS: &str = "weir:{weir:relay}:v";

/// A cached read that hosts share.
pub(super) fn shared(hash: &str) -> String {
    format!("weir:cache:{hash}")
}

/// The head of a partition.
pub(super) fn head(kind: &str, partition: Partition) -> String {
    format!("weir:{{{kind}:{partition}}}:x")
}

/// The lease of a kind's flusher.
pub(super) fn flusher(kind: &str) -> String {
    format!("weir:{{{kind}}}:flusher")
}

/// The outcome of an idempotency key: in the partition of the operation, so that both are written in one step.
pub(super) fn outcome(kind: &str, partition: Partition, key: &[u8; 16]) -> String {
    format!("weir:{{{kind}:{partition}}}:i:{:032x}", u128::from_be_bytes(*key))
}

/// The queues of a waiting room.
pub(super) fn queues(kind: &str) -> String {
    format!("weir:{{{kind}}}:rooms")
}

/// A queue, by its tagged id.
pub(super) fn queue(kind: &str, queue: &str) -> String {
    format!("weir:{{{kind}:q:{}}}:m", braceless(queue))
}

/// Who takes part in the draw of a queue.
pub(super) fn draw(kind: &str, queue: &str) -> String {
    format!("weir:{{{kind}:q:{}}}:d", braceless(queue))
}

/// Without braces, which would end the hash tag: `%7b` and `%7d`, and `%25` for what makes them.
fn braceless(text: &str) -> String {
    text.replace('%', "%25").replace('{', "%7b").replace('}', "%7d")
}

/// A key of a policy module's own. Whatever `key` is: no name of a module holds a brace or a colon.
pub(super) fn guest(module: &str, key: &str) -> String {
    format!("weir-module:{{{module}}}:{key}")
}
