//! sql/sqlite: being built.
