//! Whether SQL serves: its known state, so that no caller waits for a server that is away, and the probe that finds it
//! again.
//!
//! Knows no engine. Each failure is reported here. A connection that was lost, or that does not come soon, is a
//! suspicion; a probe on a fresh connection of its own (whose address is resolved anew) decides, and goes on until the
//! server serves. A server that refuses writes as a whole is believed at once. When a server comes back, or turns out not
//! to be the one to write to, all pooled connections that are older than that are closed: after a failover they lead to
//! the node that was put down; and whenever another one of several servers was chosen (see `hosts`). Sends nothing by itself:
//! the probe is the engine's.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{Database, Pool};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::classify::{Class, judge};
use super::lease::Lease;
use super::{SqlError, Standing};

/// A pooled connection that takes longer to come is a suspicion.
const SUSPICION: Duration = Duration::from_millis(200);
/// Pauses between probes of a server that does not serve.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is known of one database.
pub(super) struct Health {
    known: Arc<Known>,
    prober: JoinHandle<()>,
}

/// The part that connections keep.
#[derive(Debug)]
pub(super) struct Known {
    standing: watch::Sender<Standing>,
    suspected: Notify,
    origin: Instant,
    /// Pooled connections from before are closed, in milliseconds after `origin`.
    shed_before_ms: AtomicU64,
    /// How often another server was chosen.
    moves: watch::Sender<u64>,
}

impl Drop for Health {
    fn drop(&mut self) {
        self.prober.abort();
    }
}

impl Health {
    /// Starts on the current runtime. `probe` tries the server, or all servers, in its own bounds.
    pub fn start<P, F>(known: Arc<Known>, probe: P) -> Self
    where
        P: Fn() -> F + Send + 'static,
        F: Future<Output = Standing> + Send,
    {
        let watched = Arc::clone(&known);
        let prober = tokio::spawn(async move {
            loop {
                watched.suspected.notified().await;
                let mut pause = PAUSE_MIN;
                loop {
                    watched.set(probe().await);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    if watched.standing() == Standing::Serves {
                        break;
                    }
                }
            }
        });
        Self { known, prober }
    }

    /// What is known now.
    pub fn standing(&self) -> Standing {
        self.known.standing()
    }

    /// Takes a connection; fails at once while the server is known to be away, also when that becomes known meanwhile.
    pub async fn lease<DB: Database>(&self, pool: &Pool<DB>, limit: Duration) -> Result<Lease<DB>, sqlx::Error> {
        let mut standing = self.known.standing.subscribe();
        let suspecting = async {
            tokio::time::sleep(SUSPICION).await;
            self.known.suspected.notify_one();
            std::future::pending::<std::convert::Infallible>().await
        };
        let away = async {
            let away = standing.wait_for(|standing| matches!(standing, Standing::Away(_))).await;
            away.map_or_else(|_| String::new(), |away| away.reason().unwrap_or_default().to_owned())
        };
        // After a move, callers that wait for the old server wait for the new one instead.
        let mut moves = self.known.moves.subscribe();
        let taking = async {
            loop {
                tokio::select! {
                    biased;
                    Ok(()) = moves.changed() => {}
                    taken = Lease::take(pool, limit, Some(&self.known)) => return taken,
                }
            }
        };
        tokio::select! {
            biased;
            reason = away => Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::NotConnected, reason))),
            taken = taking => taken.inspect_err(|error| self.known.note(error)),
            never = suspecting => match never {},
        }
    }

    /// Does `work` unless another server is chosen meanwhile: on the one that was left it may wait for ever.
    pub async fn unless_moved<T>(&self, work: impl Future<Output = Result<T, SqlError>>) -> Result<T, SqlError> {
        let mut moves = self.known.moves.subscribe();
        tokio::select! {
            biased;
            result = work => result,
            Ok(()) = moves.changed() => Err(SqlError::OutcomeUnknown("another server was chosen meanwhile".into())),
        }
    }

    /// Learns from what a transaction came to.
    pub fn note_result<T>(&self, result: &Result<T, SqlError>) {
        match result {
            Err(SqlError::ReadOnly(reason)) => self.known.refuses_writes(reason),
            Err(SqlError::Transient(_) | SqlError::OutcomeUnknown(_)) => self.known.suspected.notify_one(),
            _ => {}
        }
    }
}

impl Known {
    /// Of a database of which nothing bad is known.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            standing: watch::Sender::new(Standing::Serves),
            suspected: Notify::new(),
            origin: Instant::now(),
            shed_before_ms: AtomicU64::new(0),
            moves: watch::Sender::new(0),
        })
    }

    /// Another server was chosen: connections from before lead to the one that was left.
    pub fn moved(&self) {
        self.shed_before_ms.store(self.now_ms(), Ordering::Relaxed);
        self.moves.send_modify(|moves| *moves += 1);
    }

    /// A connection led to a server that is not to be used.
    pub fn suspect(&self) {
        self.suspected.notify_one();
    }

    fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Learns from a failure.
    pub fn note(&self, error: &sqlx::Error) {
        let failure = judge(error);
        match failure.class {
            Class::ReadOnly => self.refuses_writes(&failure.reason),
            Class::Lost => self.suspected.notify_one(),
            Class::Transient if matches!(error, sqlx::Error::PoolTimedOut) => self.suspected.notify_one(),
            _ => {}
        }
    }

    fn refuses_writes(&self, reason: &str) {
        self.set(Standing::ReadOnly(reason.to_owned()));
        self.suspected.notify_one();
    }

    /// Whether a pooled connection of this age is from before the last change.
    pub fn is_shed(&self, age: Duration) -> bool {
        let born_ms = self.now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        born_ms < self.shed_before_ms.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn set(&self, now: Standing) {
        let before = self.standing.send_replace(now.clone());
        if std::mem::discriminant(&before) == std::mem::discriminant(&now) {
            return;
        }
        self.shed_before_ms.store(self.now_ms(), Ordering::Relaxed);
        match now {
            Standing::Serves => tracing::info!("SQL serves again"),
            Standing::ReadOnly(reason) => tracing::error!(reason, "SQL takes no writes: changes wait in the journal"),
            Standing::Away(reason) => {
                tracing::error!(reason, "SQL is away: what needs it is refused at once, changes wait in the journal");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> sqlx::Error {
        sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    }

    #[tokio::test]
    async fn a_probe_decides_and_finds_it_back() {
        const LONG_AGO: Duration = Duration::from_secs(3_600);
        let (serve, served) = watch::channel(false);
        let known = Known::new();
        let health = Health::start(Arc::clone(&known), move || {
            let serves = *served.borrow();
            async move { if serves { Standing::Serves } else { Standing::Away("gone".into()) } }
        });
        let mut standing = known.standing.subscribe();
        assert_eq!(health.standing(), Standing::Serves, "nobody has suspected anything");
        assert!(!known.is_shed(LONG_AGO));
        known.note(&lost());
        standing.wait_for(|standing| matches!(standing, Standing::Away(_))).await.unwrap();
        serve.send(true).unwrap();
        standing.wait_for(|standing| *standing == Standing::Serves).await.unwrap();
        assert!(known.is_shed(LONG_AGO), "what is older leads to nobody knows where");
        assert!(!known.is_shed(Duration::ZERO));
    }
}
