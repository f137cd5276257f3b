//! Counts and times of what every request does. A number that all cores add to is a cache line that they take from each
//! other, each time; these have a line for each core, and are handed over to the metrics when somebody looks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, Histogram};

/// Lines at most: beyond so many cores, some share one.
const LINES_MAX: usize = 16;
/// Bounds of the buckets for times, in seconds; a metric's last bucket has none.
pub const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Buckets of times.
const BUCKETS: usize = SECONDS.len() + 1;

/// Lines on this machine.
static LINES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from).min(LINES_MAX));
/// All that there are, to hand them over.
static ALL: Mutex<Vec<Weak<dyn HandOver>>> = Mutex::new(Vec::new());
/// Gives each thread a place.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static LINE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % *LINES;
}

trait HandOver: Send + Sync {
    fn hand_over(&self);
}

/// Two of the usual lines: processors fetch them in pairs.
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

/// Numbers that grow together, on one line for each core.
struct Lines<const N: usize>(Box<[Line<N>]>);

impl<const N: usize> Lines<N> {
    fn new() -> Self {
        Self((0..*LINES).map(|_| Line(std::array::from_fn(|_| AtomicU64::new(0)))).collect())
    }

    /// The line of this thread.
    fn mine(&self) -> &[AtomicU64; N] {
        &self.0[LINE.with(|line| *line)].0
    }

    fn sum(&self, place: usize) -> u64 {
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
}

/// A histogram of times that is often moved. The metric gets as many times as were recorded in each bucket, each of them
/// their mean: its counts and its sum are the true ones.
pub struct Timer {
    counts: Lines<BUCKETS>,
    sums_ns: Lines<BUCKETS>,
    histogram: Histogram,
    handed_over: Mutex<[(u64, u64); BUCKETS]>,
}

impl Timer {
    /// Stands for this metric.
    pub fn new(histogram: Histogram) -> Arc<Self> {
        let handed_over = Mutex::new([(0, 0); BUCKETS]);
        let timer = Arc::new(Self { counts: Lines::new(), sums_ns: Lines::new(), histogram, handed_over });
        register(Arc::downgrade(&timer) as Weak<dyn HandOver>);
        timer
    }

    /// Something took so long.
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS - 1);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts.mine()[bucket].fetch_add(1, Ordering::Relaxed);
        self.sums_ns.mine()[bucket].fetch_add(took_ns, Ordering::Relaxed);
    }
}

impl HandOver for Timer {
    fn hand_over(&self) {
        let mut before = self.handed_over.lock().unwrap_or_else(PoisonError::into_inner);
        let (counts, sums_ns) = (self.counts.sums(), self.sums_ns.sums());
        for (bucket, (before, now)) in before.iter_mut().zip(counts.into_iter().zip(sums_ns)).enumerate() {
            let (count, sum_ns) = (now.0.wrapping_sub(before.0), now.1.wrapping_sub(before.1));
            *before = now;
            let Ok(times) = usize::try_from(count) else { continue };
            if times > 0 {
                // A time that was counted while its nanoseconds were not there yet must not fall into another bucket.
                let (low, high) = bounds(bucket);
                #[allow(clippy::cast_precision_loss, reason = "a mean of times, good to 53 bits")]
                let mean = (sum_ns as f64 / 1e9 / count as f64).clamp(low, high);
                self.histogram.record_many(mean, times);
            }
        }
    }
}

/// The least and the greatest time that belongs into a bucket, in seconds.
fn bounds(bucket: usize) -> (f64, f64) {
    let low = bucket.checked_sub(1).map_or(0.0, |below| SECONDS[below].next_up());
    (low, SECONDS.get(bucket).copied().unwrap_or(f64::MAX))
}

fn register(one: Weak<dyn HandOver>) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|one| one.strong_count() > 0);
    all.push(one);
}

/// Brings the metrics up to date.
pub fn hand_over() {
    // Not under the lock: whoever makes one meanwhile need not wait.
    let all: Vec<Weak<dyn HandOver>> = ALL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    all.iter().filter_map(Weak::upgrade).for_each(|one| one.hand_over());
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use metrics::{CounterFn, HistogramFn};

    use super::*;

    #[derive(Default)]
    struct Seen {
        count: AtomicU64,
        times: Mutex<Vec<f64>>,
    }

    impl CounterFn for Seen {
        fn increment(&self, count: u64) {
            self.count.fetch_add(count, Ordering::Relaxed);
        }

        fn absolute(&self, _: u64) {}
    }

    impl HistogramFn for Seen {
        fn record(&self, value: f64) {
            self.times.lock().unwrap().push(value);
        }
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
    fn times_keep_their_buckets_and_their_sum() {
        let seen = Arc::<Seen>::default();
        let timer = Timer::new(Histogram::from_arc(Arc::clone(&seen)));
        for took_us in [50, 51, 99, 7_000_000] {
            timer.record(Duration::from_micros(took_us));
        }
        timer.hand_over();
        timer.hand_over();
        let times = seen.times.lock().unwrap().clone();
        assert_eq!(times.iter().map(|time| (time * 1e6).round() as u64).collect::<Vec<_>>(), [50, 75, 75, 7_000_000]);
        assert!(times[0] <= SECONDS[0]);
    }
}
