//! store/redis: being built.
use super::*;
/// Being built.
pub struct RedisStore;
