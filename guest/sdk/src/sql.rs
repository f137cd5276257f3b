//! The granted import `sql`: statements that the operator has written, and named in the configuration.
//!
//! A module that calls [`run`] must be granted its statements (`[[policy.grant]]`), and is called off the fast path. Ask
//! for a whole batch in one call. In native tests [`testing::sql_rows`](crate::testing::sql_rows) says what is found.

pub use crate::bindings::toggle::weir::policy::sql::{Error, Row, Value};

use crate::Id;
#[cfg(target_arch = "wasm32")]
use crate::bindings::toggle::weir::policy::sql as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::sql as host;

/// Rows of parameters in one call, at most.
pub const ITEMS_MAX: usize = 1_000;

/// Runs `statement` once for each row of `parameters`, in one transaction. One list of rows for each, in order.
///
/// # Errors
/// The statement is not granted, its parameters are wrong, there are more than [`ITEMS_MAX`] of them or too many rows, or
/// SQL does not answer in time.
pub fn run(statement: &str, parameters: &[Row]) -> Result<Vec<Vec<Row>>, Error> {
    host::run(statement, parameters)
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(one), Self::Integer(other)) => one == other,
            (Self::Real(one), Self::Real(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => false,
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&Id> for Value {
    fn from(id: &Id) -> Self {
        match id {
            Id::Int(value) => Self::Integer(*value),
            Id::Text(value) => Self::Text(value.clone()),
        }
    }
}
