//! Plain data that every module uses: ids, intents, rules, actions, positions.
//!
//! Imports nothing of weir, does no I/O, knows no wasmtime, no Redis, no SQL. One file for each capability, and for
//! what they share.

mod aside;
mod cache;
mod count;
mod document;
mod guest;
mod id;
mod journal;
mod limit;
mod origin;
mod preference;
mod room;
mod toggle;

use std::sync::Arc;

// What crosses the border to the rules has one type on both of its sides.
pub use weir_policy_vectors::{
    Action, AdmissionPlan, Effect, FlushPlan, HitRule as CountRule, Placement as Place, RateLimit, Room as RoomState,
    Rule as ToggleRule, Verb, Violation,
};

pub use aside::Aside;
pub use cache::{CacheRule, ReadProfile};
pub use count::{CountChange, Hit};
pub use document::{Document, DocumentChange};
pub use guest::{KeyEntry, KeyIncrement, SqlValue};
pub use id::{ID_TEXT_BYTES_MAX, Id, IdError, IdType, partition_of};
pub use journal::{Backlog, Change, Checkpoint, DatabaseId, Digest, Incarnation, JournalId, KnownJournal};
pub use limit::RateState;
pub use origin::Origin;
pub use preference::{
    FIELD_NAME_BYTES_MAX, SETTING_TEXT_BYTES_MAX, Setting, SettingColumn, SettingRef, SettingType, SettingValues,
    Settings, SettingsChange,
};
pub use room::Arrival;
pub use toggle::{Intent, Member, PairState, ToggleChange};

/// Name of one configured use of a capability, such as `feed-like`.
pub type Kind = Arc<str>;

/// Number of a partition, `0..P`. All keys of a (kind, partition) change together, atomically.
pub type Partition = u16;

/// Place of an entry in the journal of one (kind, partition). Strictly increasing there; 0 is before the first entry.
pub type Position = u64;
