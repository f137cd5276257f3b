//! What is asked of a component without a host: is it good, does it pass its vectors, does it decide as recorded, does it
//! keep state between calls.

mod bench;
pub(super) mod calls;
mod check;
mod purity;

pub use bench::Difference;
pub use check::{ReplayReport, TestReport, check, check_file, replay_file, test_file};
pub use purity::{PurityReport, check_purity};
