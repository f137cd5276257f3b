//! admin: being built.
