//! Counts and times of what every request does. A number that all cores add to is a cache line that they take from each
//! other, each time; these have a line for each core, and are handed over to the metrics when somebody looks.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use metrics::Counter;

/// Lines at most: beyond so many cores, some share one.
const LINES_MAX: usize = 16;
/// Bounds of the buckets for times, in seconds; a metric's last bucket has none.
pub const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// The same, in nanoseconds.
const BOUNDS_NS: [u64; SECONDS.len()] = {
    let mut bounds_ns = [0; SECONDS.len()];
    let mut at = 0;
    while at < SECONDS.len() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "5 s at most")]
        let bound_ns = (SECONDS[at] * 1e9 + 0.5) as u64;
        bounds_ns[at] = bound_ns;
        at += 1;
    }
    bounds_ns
};
/// Buckets of times.
const BUCKETS: usize = SECONDS.len() + 1;

/// Lines on this machine.
static LINES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from).min(LINES_MAX));
/// All that there are, to hand them over.
static ALL: Mutex<Vec<Weak<dyn HandOver>>> = Mutex::new(Vec::new());
/// All counters in seconds.
static SECONDS_TOTALS: Mutex<Vec<InSeconds>> = Mutex::new(Vec::new());
/// All timers.
static TIMERS: Mutex<Vec<Weak<Timer>>> = Mutex::new(Vec::new());
/// Gives each thread a place.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static LINE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % *LINES;
}

trait HandOver: Send + Sync {
    fn hand_over(&self);
    /// What was added at `place` so far.
    fn total(&self, place: usize) -> u64;
}

/// A counter in seconds that is counted in microseconds: the recorder's counters are whole numbers, so it writes itself.
struct InSeconds {
    name: &'static str,
    /// Its label, as it is written.
    label: String,
    of: Weak<dyn HandOver>,
    place: usize,
}

/// Two of the usual lines: processors fetch them in pairs.
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

/// Numbers that are moved together, on one line for each core.
pub struct Lines<const N: usize>(Box<[Line<N>]>);

impl<const N: usize> Default for Lines<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Lines<N> {
    /// All zero.
    pub fn new() -> Self {
        Self((0..*LINES).map(|_| Line(std::array::from_fn(|_| AtomicU64::new(0)))).collect())
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The first number of the first line: one for all cores, which shares its line with nothing else.
    pub fn first(&self) -> &AtomicU64 {
        &self.0[0].0[0]
    }

    /// The line of this thread.
    pub fn mine(&self) -> &[AtomicU64; N] {
        &self.0[LINE.with(|line| *line)].0
    }

    /// The number at `place` over all lines; each of them may be moved meanwhile.
    pub fn sum(&self, place: usize) -> u64 {
        self.0.iter().map(|line| line.0[place].load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    fn sums(&self) -> [u64; N] {
        std::array::from_fn(|place| self.sum(place))
    }
}

/// `N` counters that are often moved.
pub struct Tally<const N: usize> {
    lines: Lines<N>,
    counters: [Counter; N],
    handed_over: Mutex<[u64; N]>,
}

impl<const N: usize> Tally<N> {
    /// Stands for these metrics.
    pub fn new(counters: [Counter; N]) -> Arc<Self> {
        let tally = Arc::new(Self { lines: Lines::new(), counters, handed_over: Mutex::new([0; N]) });
        register(Arc::downgrade(&tally) as Weak<dyn HandOver>);
        tally
    }

    /// The microseconds at `place` are the counter `name` in seconds, with this label. Its own counter there is to do nothing.
    pub fn in_seconds(self: &Arc<Self>, place: usize, name: &'static str, (label, value): (&str, &str)) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let of = Arc::downgrade(self) as Weak<dyn HandOver>;
        let mut all = SECONDS_TOTALS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.of.strong_count() > 0);
        all.push(InSeconds { name, label: format!("{label}=\"{value}\""), of, place });
    }

    /// Adds to the counter at `place`.
    pub fn add(&self, place: usize, count: u64) {
        self.lines.mine()[place].fetch_add(count, Ordering::Relaxed);
    }

    /// What was added at `place` so far.
    pub fn sum(&self, place: usize) -> u64 {
        self.lines.sum(place)
    }
}

impl<const N: usize> HandOver for Tally<N> {
    fn hand_over(&self) {
        let mut before = self.handed_over.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.lines.sums();
        for ((counter, before), now) in self.counters.iter().zip(before.iter()).zip(now) {
            counter.increment(now.wrapping_sub(*before));
        }
        *before = now;
    }

    fn total(&self, place: usize) -> u64 {
        self.sum(place)
    }
}

/// A histogram of times that is often moved. The recorder keeps every single time until it folds them; this one has a number
/// for each bucket, and writes itself.
pub struct Timer {
    name: &'static str,
    route: &'static str,
    counts: Lines<BUCKETS>,
    sum_ns: Lines<1>,
}

impl Timer {
    /// The histogram `name` with the label `route`.
    pub fn new(name: &'static str, route: &'static str) -> Arc<Self> {
        let timer = Arc::new(Self { name, route, counts: Lines::new(), sum_ns: Lines::new() });
        let mut all = TIMERS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&timer));
        timer
    }

    /// Something took so long.
    pub fn record(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.iter().position(|bound_ns| took_ns <= *bound_ns).unwrap_or(BUCKETS - 1);
        self.counts.mine()[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.mine()[0].fetch_add(took_ns, Ordering::Relaxed);
    }

    /// Its lines in Prometheus' text format.
    fn write(&self, to: &mut String) {
        let (name, route) = (self.name, self.route);
        let mut count = 0;
        let bounds = SECONDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, in_bucket) in bounds.zip(self.counts.sums()) {
            count += in_bucket;
            let _ = writeln!(to, "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {count}");
        }
        // Whole microseconds: what is less is noise.
        let sum_us = self.sum_ns.sum(0) / 1_000;
        let _ = writeln!(to, "{name}_sum{{route=\"{route}\"}} {}.{:06}", sum_us / 1_000_000, sum_us % 1_000_000);
        let _ = writeln!(to, "{name}_count{{route=\"{route}\"}} {count}");
    }
}

/// All timers of this name, in Prometheus' text format.
pub fn write_timers(name: &str, help: &str) -> String {
    let all: Vec<Weak<Timer>> = TIMERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut text = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
    all.iter().filter_map(Weak::upgrade).filter(|timer| timer.name == name).for_each(|timer| timer.write(&mut text));
    text
}

/// All counters in seconds of this name, in Prometheus' text format.
pub fn write_seconds(name: &str, help: &str) -> String {
    let all = SECONDS_TOTALS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = format!("# HELP {name} {help}\n# TYPE {name} counter\n");
    for one in all.iter().filter(|one| one.name == name) {
        if let Some(of) = one.of.upgrade() {
            let total_us = of.total(one.place);
            let _ = writeln!(text, "{name}{{{}}} {}.{:06}", one.label, total_us / 1_000_000, total_us % 1_000_000);
        }
    }
    text
}

fn register(one: Weak<dyn HandOver>) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|one| one.strong_count() > 0);
    all.push(one);
}

/// Brings the metrics up to date.
pub fn hand_over() {
    // Not under the lock: a thread that creates one meanwhile need not wait.
    let all: Vec<Weak<dyn HandOver>> = ALL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    all.iter().filter_map(Weak::upgrade).for_each(|one| one.hand_over());
}

#[cfg(test)]
mod tests {
    use metrics::CounterFn;

    use super::*;

    #[derive(Default)]
    struct Seen {
        count: AtomicU64,
    }

    impl CounterFn for Seen {
        fn increment(&self, count: u64) {
            self.count.fetch_add(count, Ordering::Relaxed);
        }

        fn absolute(&self, _: u64) {}
    }

    #[test]
    fn what_all_threads_add_is_handed_over_once() {
        let seen = [Arc::<Seen>::default(), Arc::<Seen>::default()];
        let tally = Tally::new(seen.clone().map(Counter::from_arc));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1_000).for_each(|_| tally.add(1, 2)));
            }
        });
        hand_over();
        hand_over();
        assert_eq!((tally.sum(0), tally.sum(1)), (0, 16_000));
        assert_eq!(seen.map(|seen| seen.count.load(Ordering::Relaxed)), [0, 16_000]);
    }

    #[test]
    fn microseconds_are_written_as_seconds() {
        let tally = Tally::new([Counter::noop(), Counter::noop()]);
        tally.in_seconds(1, "test_saved_seconds_total", ("read", "a\"b"));
        tally.add(1, 1_500_001);
        let text = write_seconds("test_saved_seconds_total", "Saved");
        assert!(text.ends_with("test_saved_seconds_total{read=\"a\\\"b\"} 1.500001\n"), "{text}");
        assert!(text.contains("# TYPE test_saved_seconds_total counter\n"), "{text}");
    }

    #[test]
    fn a_timer_writes_a_histogram() {
        let timer = Timer::new("test_seconds", "/r");
        for took_us in [50, 51, 99, 7_000_000] {
            timer.record(Duration::from_micros(took_us));
        }
        let text = write_timers("test_seconds", "Time");
        for line in [
            "# TYPE test_seconds histogram",
            "test_seconds_bucket{route=\"/r\",le=\"0.00005\"} 1",
            "test_seconds_bucket{route=\"/r\",le=\"0.0001\"} 3",
            "test_seconds_bucket{route=\"/r\",le=\"5\"} 3",
            "test_seconds_bucket{route=\"/r\",le=\"+Inf\"} 4",
            "test_seconds_sum{route=\"/r\"} 7.000200",
            "test_seconds_count{route=\"/r\"} 4",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
    }
}
