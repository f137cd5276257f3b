//! sql/postgres: being built.
