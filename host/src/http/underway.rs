//! How many requests are under way. Nobody waits for another to end, so this needs no queue: two additions a request.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The count, and its bound.
#[derive(Debug)]
pub(super) struct Underway {
    count: AtomicUsize,
    count_max: usize,
}

/// One request, until it is dropped.
#[derive(Debug)]
pub(super) struct One<'a>(&'a AtomicUsize);

impl Underway {
    /// None yet; at most `count_max` at a time.
    pub(super) fn new(count_max: usize) -> Self {
        Self { count: AtomicUsize::new(0), count_max }
    }

    /// One more; `None` where there are as many as there may be.
    pub(super) fn begin(&self) -> Option<One<'_>> {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let one = One(&self.count);
        // One that is refused is given back as it is dropped.
        (before < self.count_max).then_some(one)
    }
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
    fn no_more_than_the_bound() {
        let underway = Underway::new(2);
        let (first, second) = (underway.begin(), underway.begin());
        assert!(first.is_some() && second.is_some());
        assert!(underway.begin().is_none() && underway.begin().is_none(), "those that are refused do not count");
        drop(first);
        assert!(underway.begin().is_some());
    }
}
