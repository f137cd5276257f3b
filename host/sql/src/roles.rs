//! The roles of a database: code that needs one of them holds only that one.
//!
//! [`crate::Sql`] is all of them together. Holds no SQL and sends nothing; the engines implement the roles.

mod dead_letters;
mod loader;
mod schema_check;
mod sink;
mod statements;

pub use dead_letters::{DeadLetter, DeadLetters};
pub use loader::{Loader, StoredDocument, TargetRow, TargetState};
pub use schema_check::SchemaCheck;
pub use sink::{Applied, Fence, Sink};
pub use statements::{RowSets, StatementError, Statements};
