//! What policy modules keep, count and ask SQL for.

/// A parameter or a column of a statement that was granted to a policy module.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// An integer, and booleans as 0 and 1.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text, and what the database writes as text.
    Text(String),
}

/// A key of a policy module's own, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key, 1 to 255 bytes, without the module's prefix.
    pub key: String,
    /// The value, at most 64 KiB.
    pub value: Vec<u8>,
    /// Time to live, in milliseconds, 1 or more.
    pub ttl_ms: u32,
}

/// A counter of a policy module's own, and what is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIncrement {
    /// The key, 1 to 255 bytes, without the module's prefix.
    pub key: String,
    /// What is added; 0 reads it.
    pub by: i64,
    /// How long the counter lives after it began, in milliseconds, 1 or more. Later increments do not prolong it.
    pub ttl_ms: u32,
}
