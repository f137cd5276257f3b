//! The roles of the store, one file each. Waiting rooms are in `room`.

mod health;
mod journal;
mod module_keys;
mod ownership;
mod state;
