//! One kind of a capability: the way of one request.

use std::sync::Arc;

use tokio::time::Instant;

use super::batch::{Batches, Evaluated, Submitted};
use super::{Capability, Hydrator, KindContext, KindParts, Load, Receipt, Settled};
use weir_core::batcher::Batcher;
use weir_core::config::{ConfigError, DurabilityLevel};
use weir_core::error::Refusal;

/// One kind: its configuration, its batchers, its way to policy, store and SQL.
pub struct Kind<C: Capability> {
    capability: Arc<C>,
    context: Arc<KindContext>,
    writes: Batcher<Submitted<C>, Result<Evaluated<C>, C::Refusal>>,
    hydrator: Hydrator<C::Load>,
}

/// A write that is in the journal.
pub struct Written<C: Capability> {
    /// What the store answered.
    pub done: C::Done,
    /// What the rules said of it.
    pub ruling: C::Ruling,
    /// Where it lies in the journal.
    pub receipt: Receipt,
    /// Whether it put something new there.
    pub is_new: bool,
    /// When it was evaluated, in Unix milliseconds.
    pub at_ms: u64,
    /// When its request must be answered.
    pub deadline: Instant,
}

impl<C: Capability> Kind<C> {
    /// Starts the kind's batchers on the current runtime.
    ///
    /// # Errors
    /// What is wrong with its configuration.
    pub fn start(config: C::Config, parts: KindParts) -> Result<Self, ConfigError> {
        let context = Arc::new(KindContext::new(parts));
        let capability = Arc::new(C::start(config, &context)?);
        let hydrator = Hydrator::start(Arc::clone(&context), capability.load(&context));
        let batches = Arc::new(Batches::new(Arc::clone(&capability), Arc::clone(&context)));
        let run = move |batch| Arc::clone(&batches).run(batch);
        let writes = Batcher::start(&context.parts.batch, C::QUEUE, context.kind(), run);
        Ok(Self { capability, context, writes, hydrator })
    }

    /// Its configuration.
    pub fn config(&self) -> &C::Config {
        self.capability.config()
    }

    /// What it is made of.
    pub fn context(&self) -> &KindContext {
        &self.context
    }

    /// What only its capability needs.
    pub fn capability(&self) -> &C {
        &self.capability
    }

    /// Decides, applies and journals one request, together with whatever is concurrent. With the kind's level `stored` it also
    /// waits for the flush, up to the deadline; the reply names the level really reached.
    ///
    /// # Errors
    /// See [`Refusal`]. A request on a target that is not loaded, and whose state SQL cannot give, is refused with nothing
    /// done.
    pub async fn write(&self, request: C::Request) -> Result<C::Reply, C::Refusal> {
        let written = self.submit(request).await?;
        let durability = self.reached(&written).await;
        Ok(C::reply(written, durability))
    }

    /// As [`Kind::write`], up to the journal.
    ///
    /// # Errors
    /// See [`Kind::write`].
    pub async fn submit(&self, request: C::Request) -> Result<Written<C>, C::Refusal> {
        let context = &*self.context;
        context.admit()?;
        self.capability.check(context, &request).await?;
        let deadline = context.deadline();
        let request = self.capability.prepare(context, request)?;
        let mut ruled = None;
        loop {
            let evaluated = self.writes.submit(Submitted { request: request.clone(), ruled }).await;
            self.capability.submitted(&request);
            let Evaluated { outcome, ruled: mut ruling, incarnation, at_ms } = evaluated??;
            let is_new = C::is_new(&outcome);
            match self.capability.settle(context, &request, &mut ruling.ruling, outcome) {
                Settled::Done { done, partition, position } => {
                    let receipt = Receipt { partition, incarnation, position };
                    return Ok(Written { done, ruling: ruling.ruling, receipt, is_new, at_ms, deadline });
                }
                // In a box: what is loaded already must not hold room for it.
                Settled::NotLoaded(misses) => Box::pin(self.hydrate(misses, deadline)).await?,
                Settled::Refused(refusal) => return Err(refusal),
            }
            ruled = C::IS_RULED.then_some(ruling);
        }
    }

    /// Loads what the store does not know, so that it can be asked again.
    ///
    /// # Errors
    /// See [`Hydrator::fetch`].
    pub async fn hydrate(&self, misses: Vec<<C::Load as Load>::Miss>, deadline: Instant) -> Result<(), Refusal> {
        self.hydrator.fetch(misses, deadline).await
    }

    /// The level that a write has reached, when what the configuration wants was waited for.
    async fn reached(&self, written: &Written<C>) -> DurabilityLevel {
        let (context, receipt) = (&self.context, written.receipt);
        let is_stored = match self.capability.durability() {
            // What is new is hardly in SQL yet: that is not worth asking.
            DurabilityLevel::Journaled => !written.is_new && context.knows_stored(receipt),
            DurabilityLevel::Stored => {
                if C::FLUSHES_FOR_WAITERS {
                    context.parts.watch.want_flush();
                }
                context.wait_stored(receipt, context.wait_until(written.deadline)).await
            }
        };
        if is_stored { DurabilityLevel::Stored } else { DurabilityLevel::Journaled }
    }
}
