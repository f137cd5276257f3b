//! The journal: the only thing that the foreground half (requests) and the background half (flush) share.
//!
//! Tier 1: imports tier 0 only. It owns the *format* of an entry. The store appends entries, atomically with the
//! state that they change, and reads them back; nobody else writes them.

pub mod entry;

pub use entry::{Entry, EntryError};
