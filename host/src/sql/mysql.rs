//! sql/mysql: being built.
