//! flush: being built.
