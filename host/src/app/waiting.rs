//! What a start waits for: a line a second that names it, with address and cause, up to a bound. Then it goes on without, or ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{OnTimeout, StartConfig};

/// After the bound it is said more rarely.
const SAID_AFTERWARDS: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Look again.
    GoOn,
    /// The bound is over, and that is the end.
    End,
}

/// A wait that has begun.
pub struct Waiting {
    config: StartConfig,
    began: Instant,
    /// When it was said last that it goes on without, after its beginning.
    said: Option<Duration>,
}

impl Waiting {
    /// Begins now.
    pub fn new(config: &StartConfig) -> Self {
        Self { config: config.clone(), began: Instant::now(), said: None }
    }

    /// How long it has taken, in seconds.
    pub fn waited_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Whether the bound is over: what is refused from now on was not the start's business.
    pub fn is_over(&self) -> bool {
        self.began.elapsed() >= Duration::from_millis(self.config.wait_ms_max)
    }

    /// Says what is still missing.
    pub fn note(&mut self, missing: &str) -> Verdict {
        self.note_after(self.began.elapsed(), missing)
    }

    fn note_after(&mut self, waited: Duration, missing: &str) -> Verdict {
        let (waited_s, of_s) = (waited.as_secs(), self.config.wait_ms_max / 1_000);
        if waited < Duration::from_millis(self.config.wait_ms_max) {
            tracing::warn!(waited_s, of_s, "waiting for {missing}");
            return Verdict::GoOn;
        }
        if self.config.on_timeout == OnTimeout::Exit {
            return Verdict::End;
        }
        match self.said {
            None => tracing::error!(
                waited_s,
                "going on without {missing}: known targets are served, nothing is flushed, and what is missing is taken up when it \
                 comes (start.wait_ms_max, start.on_timeout)"
            ),
            Some(said) if waited.saturating_sub(said) >= SAID_AFTERWARDS => {
                tracing::warn!(waited_s, "still without {missing}");
            }
            Some(_) => return Verdict::GoOn,
        }
        self.said = Some(waited);
        Verdict::GoOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_at_its_bound() {
        let config = StartConfig { wait_ms_max: 2_000, on_timeout: OnTimeout::Exit };
        let mut serving = Waiting::new(&StartConfig { on_timeout: OnTimeout::Serve, ..config.clone() });
        let mut ending = Waiting::new(&config);
        let second = Duration::from_secs;
        for waited_s in 0..2 {
            assert_eq!(ending.note_after(second(waited_s), "sql"), Verdict::GoOn);
            assert_eq!((serving.note_after(second(waited_s), "sql"), serving.said), (Verdict::GoOn, None));
        }
        assert_eq!(ending.note_after(second(2), "sql"), Verdict::End);
        // Said once, and then once a minute.
        for (waited_s, said_s) in [(2, 2), (3, 2), (61, 2), (62, 62), (100, 62)] {
            assert_eq!(serving.note_after(second(waited_s), "sql"), Verdict::GoOn);
            assert_eq!(serving.said, Some(second(said_s)));
        }
    }
}
