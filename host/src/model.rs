//! Plain data that every module uses: ids, intents, rules, actions, positions.
//!
//! Tier 0. Imports nothing of weir, does no I/O, knows no wasmtime, no Redis, no SQL. One file for each capability, and for
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

pub use aside::Aside;
pub use cache::{CacheRule, ReadProfile};
pub use count::{CountChange, CountRule, Hit};
pub use document::{Document, DocumentChange, Violation};
pub use guest::{KeyEntry, KeyIncrement, SqlValue};
pub use id::{ID_TEXT_BYTES_MAX, Id, IdError, IdType, partition_of};
pub use journal::{Backlog, Change, Checkpoint, DatabaseId, Digest, Incarnation, JournalId, KnownJournal};
pub use limit::{RateLimit, RateState};
pub use origin::Origin;
pub use preference::{
    FIELD_NAME_BYTES_MAX, SETTING_TEXT_BYTES_MAX, Setting, SettingColumn, SettingRef, SettingType, SettingValues,
    Settings, SettingsChange,
};
pub use room::{AdmissionPlan, Arrival, Place, RoomState};
pub use toggle::{Action, Effect, Intent, Member, PairState, ToggleChange, ToggleRule, Verb};

/// Name of one configured use of a capability, such as `feed-like`.
pub type Kind = Arc<str>;

/// Number of a partition, `0..P`. All keys of a (kind, partition) change together, atomically.
pub type Partition = u16;

/// Place of an entry in the journal of one (kind, partition). Strictly increasing there; 0 is before the first entry.
pub type Position = u64;
