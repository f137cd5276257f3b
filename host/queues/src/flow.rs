//! The flow of a queue: how fast people are admitted and give up, and the waiting times that follow.
//!
//! A host samples the store's totals about once a second, whichever host moved them. When the queue is at its capacity, people are
//! admitted as fast as stays end, so the first fill says nothing. People in front also give up: with `r` admissions per second and
//! a share `h` of the waiting people that give up per second, `n` people in front are gone after ln(1 + h n / r) / h seconds.

use std::time::Duration;

use weir_store::RoomFigures;

/// Shortest time between two samples, in milliseconds.
const SAMPLE_MS_MIN: u64 = 1_000;
/// Time constants of the quick and the slow mean, in seconds.
const QUICK_S: f64 = 15.0;
const SLOW_S: f64 = 60.0;
/// The band is wider than the two means by this share on each side.
const BAND: f64 = 0.15;

/// Means over two spans.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Means {
    quick: f64,
    slow: f64,
}

impl Means {
    /// `measured_s` is the time of all samples including this one: while it is shorter than a span, the mean is that of all samples.
    fn add(&mut self, sample: f64, seconds: f64, measured_s: f64) {
        let toward = |mean: f64, span: f64| {
            let share = (1.0 - (-seconds / span).exp()).max(seconds / measured_s);
            mean + (sample - mean) * share
        };
        *self = Self { quick: toward(self.quick, QUICK_S), slow: toward(self.slow, SLOW_S) };
    }

    fn least(self) -> f64 {
        self.quick.min(self.slow)
    }

    fn most(self) -> f64 {
        self.quick.max(self.slow)
    }
}

/// The estimated time of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eta {
    /// Not before, in milliseconds from now.
    pub low_ms: u64,
    /// Not after.
    pub high_ms: u64,
}

impl Eta {
    /// Its middle.
    pub fn middle(self) -> Duration {
        Duration::from_millis(self.low_ms.midpoint(self.high_ms))
    }
}

/// The measured flow of one queue. See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// The newest figures.
    pub figures: RoomFigures,
    sampled: Option<(u64, RoomFigures)>,
    admitted: Means,
    /// Share of the waiting people that give up per second.
    given_up: Means,
    /// The time of all samples, in seconds, and the admissions into places that had become free.
    measured_s: f64,
    released: f64,
    /// At capacity: each admission waits for a stay to end.
    is_full: bool,
    capacity: u64,
}

impl Flow {
    /// Takes the store's figures at `now_ms`, under this capacity.
    pub fn observe(&mut self, figures: RoomFigures, now_ms: u64, capacity: u64) {
        // Replies of two hosts, or of two calls, may arrive out of order.
        let order = |of: &RoomFigures| of.joined + of.admitted + of.completed + of.expired + of.no_shows;
        if order(&figures) >= order(&self.figures) {
            self.figures = figures;
        }
        let Some((at_ms, before)) = self.sampled else {
            self.sampled = Some((now_ms, figures));
            return;
        };
        let passed_ms = now_ms.saturating_sub(at_ms);
        if passed_ms < SAMPLE_MS_MIN {
            return;
        }
        self.sampled = Some((now_ms, figures));
        let was_needed = before.waiting > 0 || figures.waiting > 0;
        if !was_needed {
            return;
        }
        let seconds = passed_ms as f64 / 1_000.0;
        let admitted = figures.admitted.saturating_sub(before.admitted);
        let is_full = figures.active * 20 >= capacity * 19;
        let fill = if is_full { figures.active.saturating_sub(before.active) } else { 0 };
        let given_up = (figures.abandoned + figures.left).saturating_sub(before.abandoned + before.left);
        let waited = (before.waiting + figures.waiting) as f64 / 2.0;
        let rate = admitted.saturating_sub(fill) as f64 / seconds;
        if self.measured_s == 0.0 && rate == 0.0 {
            return;
        }
        self.measured_s += seconds;
        self.released += rate * seconds;
        (self.is_full, self.capacity) = (is_full, capacity);
        self.admitted.add(rate, seconds, self.measured_s);
        self.given_up.add(given_up as f64 / seconds / waited.max(1.0), seconds, self.measured_s);
    }

    /// Whether an estimate makes sense. At capacity the short stays end first, so there is no estimate until half of the capacity
    /// has left, or a minute has passed.
    fn is_known(&self) -> bool {
        let least_s = 3.0;
        self.measured_s >= least_s
            && (!self.is_full || self.released * 2.0 >= self.capacity as f64 || self.measured_s >= SLOW_S)
    }

    /// Admissions per second, by the slow mean.
    pub fn admitted_per_s(&self) -> f64 {
        self.admitted.slow
    }

    /// When a person with so many people in front will be admitted; `None` while there is no estimate.
    pub fn eta(&self, ahead: u64) -> Option<Eta> {
        if !self.is_known() || self.admitted.least() < 0.001 {
            return None;
        }
        let seconds = |rate: f64, given_up: f64| {
            let people = ahead as f64 + 1.0;
            if given_up < 1e-9 { people / rate } else { (given_up * people / rate).ln_1p() / given_up }
        };
        let low = seconds(self.admitted.most(), self.given_up.most()) * (1.0 - BAND);
        let high = seconds(self.admitted.least(), self.given_up.least()) * (1.0 + BAND);
        Some(Eta { low_ms: (low * 1_000.0) as u64, high_ms: (high * 1_000.0).min(1e15) as u64 })
    }
}

/// When to poll again, in milliseconds, before jitter: after an eighth of the remaining time, later where many wait, and never so
/// late that the place is at risk.
pub fn poll_after_ms(
    (least_ms, most_ms, grace_ms): (u64, u64, u64),
    polls_per_s_max: u64,
    waiting: u64,
    eta: Option<Eta>,
) -> u64 {
    let by_time = eta.map_or(least_ms.saturating_mul(5), |eta| eta.low_ms / 8);
    // The half nearer to the front polls more often and shares the allowed rate.
    let by_load = waiting.saturating_mul(500) / polls_per_s_max.max(1);
    let most_ms = most_ms.min(grace_ms / 3).max(least_ms);
    by_time.max(by_load).clamp(least_ms, most_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(waiting: u64, active: u64, admitted: u64, abandoned: u64) -> RoomFigures {
        RoomFigures { waiting, active, admitted, abandoned, joined: 1_000, ..RoomFigures::default() }
    }

    #[test]
    fn the_first_fill_promises_nothing() {
        let mut flow = Flow::default();
        flow.observe(figures(1_000, 0, 0, 0), 0, 100);
        flow.observe(figures(900, 100, 100, 0), 1_000, 100);
        assert_eq!(flow.eta(10), None);
        for second in 2..120 {
            flow.observe(figures(1_000 - second * 5, 100, 100 + (second - 1) * 5, 0), second * 1_000, 100);
        }
        let eta = flow.eta(499).unwrap();
        assert!(eta.low_ms < 100_000 && eta.high_ms > 100_000, "{eta:?}");
        assert!((flow.admitted_per_s() - 5.0).abs() < 0.01);
    }

    #[test]
    fn those_who_give_up_make_it_shorter() {
        let mut flow = Flow::default();
        for second in 0..100 {
            flow.observe(figures(1_000, 0, second * 10, second * 10), second * 1_000, 10_000);
        }
        // ln(1 + 0.01 * 1000 / 10) / 0.01 = 69.3 s
        let eta = flow.eta(999).unwrap();
        assert!(eta.low_ms < 69_300 && 69_300 < eta.high_ms && eta.high_ms < 85_000, "{eta:?}");
    }

    #[test]
    fn polls_come_closer_near_the_front_and_never_endanger_a_place() {
        let bounds = (1_000, 20_000, 30_000);
        let at = |low_ms| Some(Eta { low_ms, high_ms: low_ms * 2 });
        assert_eq!(poll_after_ms(bounds, 5_000, 10, at(0)), 1_000);
        assert_eq!(poll_after_ms(bounds, 5_000, 10, at(40_000)), 5_000);
        assert_eq!(poll_after_ms(bounds, 5_000, 10, at(4_000_000)), 10_000);
        assert_eq!(poll_after_ms(bounds, 5_000, 70_000, at(0)), 7_000);
    }
}
