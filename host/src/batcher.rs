//! batcher: being built.
