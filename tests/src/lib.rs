//! What the process-level tests of weir stand on: real servers, a client, a database handle, a load with a ledger.
//!
//! Nothing here is mocked: [`services`] starts Redis, PostgreSQL, MariaDB and the `weir` binary itself on free
//! loopback ports, each in a temporary directory. A server that is missing is a failure that says how to get it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test harness fails by panicking")]

pub mod bench;
pub mod certificates;
pub mod client;
pub mod database;
pub mod guest;
pub mod kinds;
pub mod load;
pub mod operator;
pub mod origin;
pub mod proxy;
pub mod services;
pub mod source;
pub mod stand;
pub mod swap;
pub mod tokens;
