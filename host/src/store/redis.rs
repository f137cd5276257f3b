//! store/redis: being built.
