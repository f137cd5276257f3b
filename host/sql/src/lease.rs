//! A pooled connection that goes back to the pool only when its work ended well.
//!
//! Knows no engine. Dropping a lease in mid-work (an error, a cancelled future, a panic) closes the
//! connection, and the server rolls back: nothing half-done is ever handed to the next user of the pool.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

use super::SqlError;
use super::classify::sql_error;
use super::health::Known;

/// A connection that has been idle for so long is tested before it is used. One that has worked a moment ago is not: a test
/// is a round trip, and what may fail after it must be met all the same.
pub(super) const UNTESTED_IDLE_MAX: Duration = Duration::from_secs(1);

/// See the file's text.
pub(super) struct Lease<DB: Database> {
    connection: PoolConnection<DB>,
    clean: bool,
    limit: Duration,
    known: Option<Arc<Known>>,
}

impl<DB: Database> Lease<DB> {
    /// Takes a connection. `limit` is the longest time that one step may go without an answer: the server's own
    /// limits come first, this one is for a server or a network that has gone silent.
    /// `known` learns from what fails.
    pub async fn take(pool: &Pool<DB>, limit: Duration, known: Option<&Arc<Known>>) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: pool.acquire().await?, clean: false, limit, known: known.cloned() })
    }

    /// Why no connection came from `pool`, with the server's address. `acquire_ms` is the time that was waited for one.
    pub fn refused(pool: &Pool<DB>, error: sqlx::Error, (address, acquire_ms): (&str, u64)) -> SqlError {
        if !matches!(error, sqlx::Error::PoolTimedOut) {
            return sql_error(error).at(address);
        }
        let most = pool.options().get_max_connections();
        SqlError::Transient(if pool.size() >= most && pool.num_idle() == 0 {
            format!("all sql.connections_max = {most} connections to {address} were in use for {acquire_ms} ms")
        } else {
            format!("no connection within {acquire_ms} ms at {address}")
        })
    }

    /// The connection.
    pub fn connection(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }

    /// The longest time that one step may go without an answer.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The work ended well: the connection goes back to the pool.
    pub fn give_back(mut self) {
        self.clean = true;
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if !self.clean {
            self.connection.close_on_drop();
        }
    }
}

/// Waits for `step`; silence beyond `limit` is a lost connection.
pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("no answer within {} ms", limit.as_millis());
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message)))
        }
    }
}

/// Runs `work` (which borrowed the lease's connection) to its end and gives the connection back or closes it.
macro_rules! leased {
    ($lease:expr, |$connection:ident| $work:expr) => {{
        let mut lease = $lease;
        let limit = lease.limit();
        let result = {
            let $connection = lease.connection();
            $crate::lease::within(limit, $work).await
        };
        $crate::lease::ended(lease, result)
    }};
}
pub(super) use leased;

/// Gives the connection back after a success, closes it after a failure.
pub(super) fn ended<DB: Database, T>(lease: Lease<DB>, result: Result<T, sqlx::Error>) -> Result<T, SqlError> {
    match &result {
        Ok(_) => lease.give_back(),
        Err(error) => {
            if let Some(known) = &lease.known {
                known.note(error);
            }
        }
    }
    result.map_err(sql_error)
}
