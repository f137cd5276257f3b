//! store/embedded: being built.
