//! The requests of the toggle capability.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::http::request::Parts;

use super::problem::{Repeatable, TARGET_MISSING, from_refusal};
use super::query;
use super::reply::{self, ReplyText};
use super::shared::{Shared, refused_read};
use weir_core::model::{Id, Verb};
use weir_listener::Reply;
use weir_listener::problem::Problem;
use weir_write::toggle::{ToggleKind, ToggleRequest};

/// Actors in one list when the caller does not say.
const ACTORS_LIMIT_DEFAULT: usize = 50;
/// One kind, with what its replies need.
pub(super) struct KindView {
    kind: Arc<ToggleKind>,
    text: ReplyText,
}

/// A write whose head was understood; its body is still to be read.
pub(super) struct Write {
    request: ToggleRequest,
}

impl KindView {
    pub(super) fn new(kind: Arc<ToggleKind>) -> Self {
        let text = ReplyText::new(&kind.config().response);
        Self { kind, text }
    }

    fn actor(&self, shared: &Shared, headers: &HeaderMap, peer: IpAddr) -> Result<Option<Id>, Problem> {
        shared.authenticator.actor(headers, peer, self.kind.config().table.actor_type)
    }

    fn target(&self, segment: &str) -> Result<Id, Problem> {
        query::target(segment, self.kind.config().table.target_type)
    }

    /// `POST`, `PUT`, `DELETE`: everything but the body.
    pub(super) fn read_write(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        verb: Verb,
        segment: &str,
    ) -> Result<Write, Problem> {
        let target = self.target(segment)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = self.actor(shared, &head.headers, peer)?.ok_or_else(|| shared.authenticator.missing())?;
        let idempotency_key = query::idempotency_key(&head.headers)?;
        Ok(Write { request: ToggleRequest { verb, target, actor, idempotency_key } })
    }

    /// `POST`, `PUT`, `DELETE`.
    pub(super) async fn write(&self, shared: &Shared, write: Write) -> Result<Reply, Problem> {
        // PUT and DELETE say what shall hold: sent twice they come to the same (RFC 9110, 9.2.2).
        let absolute = write.request.verb != Verb::Toggle;
        let repeatable =
            if absolute || write.request.idempotency_key.is_some() { Repeatable::Yes } else { Repeatable::No };
        let applied = shared.within(self.kind.write(write.request)).await;
        applied.map(|reply| self.text.toggled(&reply)).map_err(|refusal| from_refusal(&refusal, repeatable))
    }

    /// `GET` of one target.
    pub(super) async fn read(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        segment: &str,
    ) -> Result<Reply, Problem> {
        let target = self.target(segment)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = self.actor(shared, &head.headers, peer)?;
        let states = shared.within(self.kind.read(std::slice::from_ref(&target), actor.as_ref())).await;
        match states.map_err(refused_read)?.first() {
            Some(Some(state)) => Ok(self.text.state(*state, shared.clock.now_ms())),
            _ => Err(Problem::new(&TARGET_MISSING, "use the id of a target that exists")),
        }
    }

    /// `GET` of many targets.
    pub(super) async fn read_many(&self, shared: &Shared, head: &Parts, peer: IpAddr) -> Result<Reply, Problem> {
        let [targets] = query::parameters(head.uri.query(), ["targets"])?;
        let targets = query::targets(targets, self.kind.config().table.target_type, shared.targets_max)?;
        let actor = self.actor(shared, &head.headers, peer)?;
        let states = shared.within(self.kind.read(&targets, actor.as_ref())).await.map_err(refused_read)?;
        Ok(self.text.states(&targets, &states))
    }

    /// `GET …/actors`, newest first.
    pub(super) async fn actors(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        segment: &str,
    ) -> Result<Reply, Problem> {
        let target = self.target(segment)?;
        let [limit, before] = query::parameters(head.uri.query(), ["limit", "before"])?;
        let limit = query::limit(limit, ACTORS_LIMIT_DEFAULT, shared.actors_limit_max)?;
        let actor_type = self.kind.config().table.actor_type;
        let before = before.map(|cursor| query::read_cursor(cursor, actor_type)).transpose()?;
        self.actor(shared, &head.headers, peer)?;
        // Fetch one more than requested, to know whether there is a next page.
        let members = shared.within(self.kind.members(&target, before.as_ref(), limit + 1));
        let mut members = members.await.map_err(refused_read)?;
        let more = members.len() > limit;
        members.truncate(limit);
        let next = members.last().filter(|_| more).map(query::cursor);
        Ok(reply::actors(&members, next.as_deref()))
    }

    /// `GET …/status`: at once, or as long as `Prefer: wait=N` and the deadline let it wait for `stored`.
    pub(super) async fn status(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        segment: &str,
    ) -> Result<Reply, Problem> {
        self.target(segment)?;
        self.actor(shared, &head.headers, peer)?;
        shared.status(self.kind.context(), head).await
    }
}
