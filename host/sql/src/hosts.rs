//! The servers that `sql.url` names, and which of them is used: the one that takes writes.
//!
//! Knows no engine. A driver knows one server only, so each is tried by itself, all at once, and the pool is given
//! the address of the one that was chosen. It stays chosen while it takes writes, so that two that both do are not mixed.
//! Names are looked up anew at each connection. Sends nothing by itself: the trial is the engine's.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Standing;
use super::classify::{Class, is_full, judge, placed};
use weir_core::config::{ConfigError, SqlConfig, SqlUrl, TlsConfig};
use weir_core::tls::ClientTls;

/// How long one of several servers is tried: one that is silent must not hold up that the others are found.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(1);

/// How long the one that took writes must have been away before another one is believed.
const AWAY_MIN: Duration = Duration::from_secs(1);
/// Ranks of what servers show.
const WRITES: u8 = 0;
const READ_ONLY: u8 = 3;
const AWAY: u8 = 4;

/// What a server showed when it was tried.
#[derive(Debug)]
pub(super) enum Shown {
    /// It takes writes.
    Writes,
    /// It says that it takes none, why.
    ReadOnly(String),
    /// It answered, and what it was asked failed.
    Answers(sqlx::Error),
    /// There was no connection.
    Refuses(sqlx::Error),
}

impl Shown {
    /// Of what a statement came to that changes nothing.
    pub fn of(written: Result<(), sqlx::Error>) -> Self {
        written.map_or_else(Self::Answers, |()| Self::Writes)
    }

    /// The lower, the better.
    fn rank(&self) -> u8 {
        let by_error = |error: &sqlx::Error, otherwise| match judge(error).class {
            Class::ReadOnly => READ_ONLY,
            Class::Lost if !is_full(error) => AWAY,
            _ => otherwise,
        };
        match self {
            Self::Writes => WRITES,
            // A fresh database has no table of weir's yet.
            Self::Answers(error) => by_error(error, 1),
            Self::Refuses(error) => by_error(error, 2),
            Self::ReadOnly(_) => READ_ONLY,
        }
    }

    /// What it says of the server. One that answers is there, whatever it says: that it has no connection left, no table of weir
    /// yet, or another password. Callers get that error.
    fn standing(&self, address: &str) -> Standing {
        let error = match self {
            Self::Writes => return Standing::Serves,
            Self::ReadOnly(reason) => return Standing::ReadOnly(placed(reason, address)),
            Self::Answers(error) | Self::Refuses(error) => error,
        };
        let failure = judge(error);
        match failure.class {
            Class::ReadOnly => Standing::ReadOnly(failure.reason),
            Class::Lost if !is_full(error) => Standing::Away(placed(&failure.reason, address)),
            _ => Standing::Serves,
        }
    }
}

/// One server.
struct Host<O> {
    options: O,
    address: String,
}

/// See the file's text. `O` is how the engine's driver connects.
pub(super) struct Hosts<O> {
    all: Vec<Host<O>>,
    chosen: AtomicUsize,
    history: Mutex<History>,
}

/// What is known of the chosen one.
#[derive(Debug, Default)]
struct History {
    /// It has taken writes.
    is_settled: bool,
    /// Since when it is away.
    away_since: Option<Instant>,
}

impl<O> std::fmt::Debug for Hosts<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // How the driver connects has a password in it.
        f.debug_list().entries(self.all.iter().map(|host| &host.address)).finish()
    }
}

impl<O: Clone> Hosts<O> {
    /// In the order in which they are preferred: how to connect to each, and its address. There is at least one.
    pub fn new(all: Vec<(O, String)>) -> Self {
        let all = all.into_iter().map(|(options, address)| Host { options, address }).collect();
        Self { all, chosen: AtomicUsize::new(0), history: Mutex::default() }
    }

    fn chosen(&self) -> &Host<O> {
        &self.all[self.chosen.load(Ordering::Acquire).min(self.all.len() - 1)]
    }

    /// How to connect to the one that was chosen.
    pub fn options(&self) -> O {
        self.chosen().options.clone()
    }

    /// The address of the one that was chosen.
    pub fn address(&self) -> String {
        self.chosen().address.clone()
    }

    /// Whether there is a choice.
    pub fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// Tries all, and chooses; `moved` is given the new one. The answer is what can be said of SQL as a whole.
    pub async fn find<F, T>(&self, limit: Duration, one: F, moved: impl FnOnce(O)) -> Standing
    where
        F: Fn(O) -> T,
        T: Future<Output = Shown>,
    {
        let limit = if self.are_several() { limit.min(ONE_OF_SEVERAL) } else { limit };
        let trials = self.all.iter().map(|host| {
            let trial = one(host.options.clone());
            async move { tokio::time::timeout(limit, trial).await.unwrap_or_else(|_| Shown::Refuses(silent(limit))) }
        });
        let shown = join_all(trials).await;
        let (count, before) = (self.all.len(), self.chosen.load(Ordering::Acquire));
        // The first of the best: the one that is used already, then as they are written.
        let order = std::iter::once(before).chain((0..count).filter(|place| *place != before));
        let best = order.min_by_key(|place| shown[*place].rank()).unwrap_or(before);
        let moves = best != before && self.may_move(&shown[before], &shown[best]);
        if moves {
            self.chosen.store(best, Ordering::Release);
            tracing::warn!(
                address = self.all[best].address,
                before = self.all[before].address,
                "SQL is written elsewhere"
            );
            moved(self.all[best].options.clone());
        }
        // What counts is the one that is used: while it is away changes wait in the journal, whatever the others are.
        let told = if moves { best } else { before };
        self.note(&shown[told]);
        self.summed(&shown, told)
    }

    /// Whether writes may go elsewhere. Who has taken them keeps them through a moment of silence: another server may be a replica
    /// that was never made read-only, and what is written there is lost for all others.
    fn may_move(&self, before: &Shown, best: &Shown) -> bool {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if !history.is_settled {
            return best.rank() < READ_ONLY;
        }
        let is_over = match before.rank() {
            AWAY => history.away_since.get_or_insert_with(Instant::now).elapsed() >= AWAY_MIN,
            // It says itself that it takes none any more.
            rank => rank == READ_ONLY,
        };
        best.rank() == WRITES && is_over
    }

    /// The one that is used has taken writes of weir's.
    pub fn settle(&self) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).is_settled = true;
    }

    /// Keeps what the one showed that is used.
    fn note(&self, shown: &Shown) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.rank() < READ_ONLY {
            history.away_since = None;
        }
        history.is_settled |= shown.rank() == WRITES;
    }

    /// Where none takes writes, each says why.
    fn summed(&self, shown: &[Shown], best: usize) -> Standing {
        let standing = shown[best].standing(&self.all[best].address);
        let all = || {
            let reasons = shown.iter().zip(&self.all).filter_map(|(shown, host)| {
                shown.standing(&host.address).reason().map(|reason| placed(reason, &host.address))
            });
            reasons.collect::<Vec<_>>().join("; ")
        };
        match standing {
            Standing::ReadOnly(_) if self.are_several() => Standing::ReadOnly(all()),
            Standing::Away(_) if self.are_several() => Standing::Away(all()),
            standing => standing,
        }
    }
}

/// The servers of `sql.url`, a URL for each, and how connections to them are encrypted.
pub(super) fn servers(settings: &SqlConfig) -> Result<(SqlUrl, Option<TlsConfig>), ConfigError> {
    let (url, tls) = settings.secured()?;
    // The driver reads the files at each connection; that they can be read is seen here, with their names.
    tls.as_ref().map(|tls| ClientTls::new("sql", tls)).transpose()?;
    Ok((url, tls))
}

fn silent(limit: Duration) -> sqlx::Error {
    let message = format!("no answer within {} ms", limit.as_millis());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> sqlx::Error {
        sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    }

    fn hosts() -> Hosts<u8> {
        Hosts::new(vec![(0, "one:1".into()), (1, "two:2".into()), (2, "three:3".into())])
    }

    #[test]
    fn what_answers_is_there() {
        let standing = |shown: Shown| shown.standing("127.0.0.1:3399");
        assert_eq!(standing(Shown::Writes), Standing::Serves);
        assert_eq!(standing(Shown::Answers(sqlx::Error::RowNotFound)), Standing::Serves);
        assert_eq!(standing(Shown::Refuses(refused())), Standing::Away("connection refused at 127.0.0.1:3399".into()));
    }

    #[tokio::test]
    async fn the_one_that_takes_writes_is_chosen_and_stays() {
        let hosts = hosts();
        let find = async |shown: fn(u8) -> Shown| {
            let mut moved = None;
            let standing =
                hosts.find(Duration::from_secs(60), |host| async move { shown(host) }, |to| moved = Some(to)).await;
            (standing, moved, hosts.address())
        };
        let second = |host| if host == 0 { Shown::ReadOnly("a replica".into()) } else { Shown::Writes };
        assert_eq!(find(second).await, (Standing::Serves, Some(1), "two:2".into()));
        assert_eq!(find(|_| Shown::Writes).await, (Standing::Serves, None, "two:2".into()), "it stays");
        let last = |host| if host == 2 { Shown::Writes } else { Shown::Refuses(refused()) };
        let (standing, moved, _) = find(last).await;
        assert!(
            matches!(standing, Standing::Away(_)) && moved.is_none(),
            "a moment of silence moves nothing: {standing:?}"
        );
        hosts.history.lock().unwrap().away_since = Instant::now().checked_sub(AWAY_MIN);
        let fresh = |host| if host == 2 { Shown::Answers(sqlx::Error::RowNotFound) } else { Shown::Refuses(refused()) };
        assert_eq!(find(fresh).await.1, None, "nor does one that is not known to take writes");
        assert_eq!(find(last).await, (Standing::Serves, Some(2), "three:3".into()));
    }

    #[tokio::test]
    async fn at_the_start_a_fresh_database_will_do() {
        let hosts = hosts();
        let last =
            async |host| if host == 2 { Shown::Answers(sqlx::Error::RowNotFound) } else { Shown::Refuses(refused()) };
        assert_eq!(hosts.find(Duration::from_secs(60), last, |_| ()).await, Standing::Serves);
        assert_eq!(hosts.address(), "three:3");
    }

    #[tokio::test]
    async fn where_none_takes_writes_each_says_why() {
        let hosts = hosts();
        let shown = |host: u8| if host == 1 { Shown::ReadOnly("a replica".into()) } else { Shown::Refuses(refused()) };
        let standing = hosts.find(Duration::from_secs(60), |host| async move { shown(host) }, |_| ()).await;
        let all = "connection refused at one:1; a replica at two:2; connection refused at three:3";
        assert_eq!(
            standing,
            Standing::Away(all.into()),
            "the one that is used is away; a replica elsewhere is no reason to stop"
        );
        assert_eq!(hosts.address(), "one:1", "nothing better was found");
    }
}
