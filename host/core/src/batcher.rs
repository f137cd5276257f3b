//! Natural batching: whatever arrives while the previous batches are in flight goes together in the next one.
//!
//! Knows neither policy nor store; it is given an asynchronous function from a batch to
//! results of the same length. It never waits for a batch to fill: an idle host adds no latency, a busy one gathers.
//!
//! Bounded on every side: `queue_max` items wait, `items_max` go together, `in_flight_max` batches are under way. A
//! full queue is refused at once, never waited for.

use std::future::Future;
use std::sync::Arc;

use metrics::{counter, histogram};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::config::BatchConfig;
use crate::error::Refusal;
use crate::telemetry;

struct Waiting<I, O> {
    item: I,
    answer: oneshot::Sender<O>,
}

/// A queue of items and the task that gathers them. When it is dropped the items in the queue are still run.
pub struct Batcher<I, O> {
    queue: mpsc::Sender<Waiting<I, O>>,
    name: &'static str,
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// Starts the gathering task on the current runtime. `name` names the queue in refusals and metrics; `run` gets a
    /// batch of 1 to `items_max` items in order of arrival and MUST return as many results, in the same order.
    pub fn start<F, R>(config: &BatchConfig, name: &'static str, kind: &str, run: F) -> Self
    where
        F: Fn(Vec<I>) -> R + Send + Sync + 'static,
        R: Future<Output = Vec<O>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(config.queue_max);
        let sizes = histogram!(telemetry::BATCH_ITEMS, "kind" => kind.to_owned(), "queue" => name);
        tokio::spawn(gather(waiting, config.clone(), run, sizes));
        Self { queue, name }
    }

    /// Puts an item into the queue and waits for its result.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when the queue is full (nothing was done); [`Refusal::OutcomeUnknown`] when the batch
    /// died.
    pub async fn submit(&self, item: I) -> Result<O, Refusal> {
        let (answer, result) = oneshot::channel();
        match self.queue.try_send(Waiting { item, answer }) {
            Ok(()) => result.await.map_err(|_| Refusal::OutcomeUnknown),
            Err(mpsc::error::TrySendError::Full(_)) => {
                counter!(telemetry::SHED_TOTAL, "limit" => "batch.queue_max").increment(1);
                Err(Refusal::Overloaded { queue: self.name })
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::Draining),
        }
    }
}

async fn gather<I, O, F, R>(
    mut waiting: mpsc::Receiver<Waiting<I, O>>,
    config: BatchConfig,
    run: F,
    sizes: metrics::Histogram,
) where
    I: Send + 'static,
    O: Send + 'static,
    F: Fn(Vec<I>) -> R + Send + Sync + 'static,
    R: Future<Output = Vec<O>> + Send + 'static,
{
    let in_flight = Arc::new(Semaphore::new(config.in_flight_max));
    let mut gathered = Vec::with_capacity(config.items_max);
    // The permit first: while none is free, the queue gathers.
    while let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await {
        if waiting.recv_many(&mut gathered, config.items_max).await == 0 {
            return;
        }
        // Let callers that are about to ask do so first: a batch of one costs as much as one of a hundred, and after a
        // batch was answered the first of the next would go alone.
        tokio::task::yield_now().await;
        while gathered.len() < config.items_max
            && let Ok(another) = waiting.try_recv()
        {
            gathered.push(another);
        }
        let (items, answers): (Vec<I>, Vec<_>) =
            gathered.drain(..).map(|waiting| (waiting.item, waiting.answer)).unzip();
        sizes.record(items.len() as f64);
        let results = run(items);
        tokio::spawn(async move {
            for (answer, result) in answers.into_iter().zip(results.await) {
                // The asker may have gone; the operation stands all the same.
                let _ = answer.send(result);
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn limits(items_max: usize, queue_max: usize, in_flight_max: usize) -> BatchConfig {
        BatchConfig { items_max, queue_max, in_flight_max }
    }

    #[tokio::test]
    async fn what_waits_during_a_batch_goes_together() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let (seen, held) = (Arc::clone(&sizes), Arc::clone(&gate));
        let batcher = Arc::new(Batcher::start(&limits(4, 100, 1), "test", "k", move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.len());
            let held = Arc::clone(&held);
            async move {
                held.acquire().await.unwrap().forget();
                items.into_iter().map(|item| item * 2).collect()
            }
        }));
        let submit = |n: u32| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(async move { batcher.submit(n).await })
        };
        let first = submit(1);
        while sizes.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (2..8).map(submit).collect();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        gate.add_permits(10);
        assert_eq!(first.await.unwrap(), Ok(2));
        for (n, result) in (2..8).zip(rest) {
            assert_eq!(result.await.unwrap(), Ok(n * 2));
        }
        assert_eq!(*sizes.lock().unwrap(), vec![1, 4, 2]);
    }

    #[tokio::test]
    async fn a_full_queue_is_refused_at_once() {
        let batcher = Arc::new(Batcher::start(&limits(1, 1, 1), "test", "k", |_: Vec<u32>| async {
            std::future::pending::<()>().await;
            Vec::<u32>::new()
        }));
        let mut refused = None;
        for n in 0..4 {
            let submitter = Arc::clone(&batcher);
            let submitted = tokio::spawn(async move { submitter.submit(n).await });
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            if submitted.is_finished() {
                refused = Some(submitted.await.unwrap());
            }
        }
        assert_eq!(refused, Some(Err(Refusal::Overloaded { queue: "test" })));
    }

    #[tokio::test]
    async fn a_batch_that_dies_answers_unknown() {
        let batcher = Batcher::start(&limits(1, 1, 1), "test", "k", |_: Vec<u32>| async { Vec::<u32>::new() });
        assert_eq!(batcher.submit(1).await, Err(Refusal::OutcomeUnknown));
    }
}
