//! Counts the running requests. No request waits for another to end, so this needs no queue. Each core has some
//! places of its own, so that short requests do not contend for one cache line; all cores share the rest.

use std::sync::atomic::{AtomicU64, Ordering};

use weir_core::telemetry::tally::Lines;

/// Places of one core. Requests that are answered at once need one per core; requests that wait overflow into the
/// shared places.
const PLACES_OF_CORE: u64 = 8;
/// Cores own at most this fraction of all places (1/n): a core that has run out cannot use another core's places.
const SHARE_OF_CORES: u64 = 16;

/// The counts, and their bounds.
pub(super) struct Underway {
    cores: Lines<1>,
    core_max: u64,
    all: Lines<1>,
    all_max: AtomicU64,
}

/// One request, until it is dropped.
#[derive(Debug)]
pub(super) struct One<'a>(&'a AtomicU64);

impl Underway {
    /// None yet; at most `count_max` at a time.
    pub(super) fn new(count_max: usize) -> Self {
        let (cores, count_max) = (Lines::new(), count_max as u64);
        let core_max = (count_max / SHARE_OF_CORES / cores.count() as u64).min(PLACES_OF_CORE);
        let all_max = count_max - core_max * cores.count() as u64;
        Self { cores, core_max, all: Lines::new(), all_max: AtomicU64::new(all_max) }
    }

    /// From now on at most `count_max` at a time; what belongs to cores stays theirs.
    pub(super) fn set_max(&self, count_max: usize) {
        let of_cores = self.core_max * self.cores.count() as u64;
        self.all_max.store((count_max as u64).saturating_sub(of_cores), Ordering::Relaxed);
    }

    /// One more; `None` where there are as many as there may be.
    pub(super) fn begin(&self) -> Option<One<'_>> {
        let [mine] = self.cores.mine();
        take(mine, self.core_max).or_else(|| take(self.all.first(), self.all_max.load(Ordering::Relaxed)))
    }
}

fn take(count: &AtomicU64, count_max: u64) -> Option<One<'_>> {
    let before = count.fetch_add(1, Ordering::Relaxed);
    // One that is refused is given back as it is dropped.
    let one = One(count);
    (before < count_max).then_some(one)
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_counted_exactly() {
        for count_max in [1, 2, 7, 15] {
            let underway = Underway::new(count_max);
            let mut under: Vec<_> = (0..count_max).map(|_| underway.begin()).collect();
            assert!(under.iter().all(Option::is_some));
            assert!(underway.begin().is_none() && underway.begin().is_none(), "those that are refused do not count");
            under.pop();
            assert!(underway.begin().is_some());
        }
        assert!(Underway::new(0).begin().is_none());
    }

    #[test]
    fn all_cores_together_have_no_more_than_the_bound() {
        let underway = Underway::new(4_096);
        let begun: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..32).map(|_| scope.spawn(|| std::iter::from_fn(|| underway.begin()).collect::<Vec<_>>())).collect();
            all.into_iter().flat_map(|one| one.join().unwrap()).collect()
        });
        assert!((3_840..=4_096).contains(&begun.len()), "{}", begun.len());
        drop(begun);
        assert_eq!(
            std::iter::from_fn(|| underway.begin().map(std::mem::forget)).count() as u64,
            underway.all_max.load(Ordering::Relaxed) + underway.core_max
        );
    }
}
