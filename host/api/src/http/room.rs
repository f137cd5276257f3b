//! The requests of the room capability.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::problem::{INVALID_BODY, Repeatable, TOO_MANY_TOKENS, from_refusal};
use super::reply::{self, timestamp};
use super::route::Route;
use super::shared::{Shared, refused_read};
use super::{json, query};
use weir_core::config::RoomMode;
use weir_core::model::Id;
use weir_core::telemetry::request;
use weir_listener::Reply;
use weir_listener::problem::Problem;
use weir_listener::reply::{Piece, ReplyBody};
use weir_queues::token::TOKEN_BYTES_MAX;
use weir_queues::{Eta, RoomAsk, RoomKind, RoomReply, Standing};

/// Time between two looks of a stream.
const STREAM_PAUSE: Duration = Duration::from_secs(1);
/// Looks of a stream; then the client asks again, as event sources do by themselves.
const STREAM_LOOKS: usize = 25;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One kind.
pub(super) struct RoomView {
    kind: Arc<RoomKind>,
}

/// A request whose path was understood.
pub(super) struct Place<'a> {
    pub(super) route: Route,
    pub(super) queue: &'a str,
    pub(super) token: &'a str,
}

impl RoomView {
    pub(super) fn new(kind: Arc<RoomKind>) -> Self {
        Self { kind }
    }

    /// The public keys of its passes.
    pub(super) fn keys(&self) -> Vec<Value> {
        self.kind.keyring().public().cloned().collect()
    }

    fn queue(&self, segment: &str) -> Result<Id, Problem> {
        query::target(segment, self.kind.config().queue_type)
    }

    /// Every request but that for events. `body` is empty, or JSON.
    pub(super) async fn answer(
        &self,
        shared: &Shared,
        place: Place<'_>,
        head: &Parts,
        body: &[u8],
        peer: IpAddr,
    ) -> Result<Reply, Problem> {
        let [] = query::parameters(head.uri.query(), [])?;
        match (place.route, &head.method) {
            (Route::RoomTokens, _) => self.join(shared, &place, head, body, peer).await,
            (Route::RoomStatus, _) => self.many(shared, &place, body).await,
            (Route::RoomVerify, _) => self.verify(shared, body).await,
            (Route::RoomToken, &Method::DELETE) => self.about(shared, &place, RoomAsk::Leave).await,
            (Route::RoomToken, _) => self.about(shared, &place, RoomAsk::Poll).await,
            (Route::RoomComplete, _) => {
                says_nothing(body)?;
                self.about(shared, &place, RoomAsk::Complete).await
            }
            (Route::RoomExtend, _) => {
                let ttl_ms = ttl_ms(body, self.kind.config().stay_ms_max)?;
                self.about(shared, &place, RoomAsk::Extend { ttl_ms }).await
            }
            _ => self.view(&place, shared.clock.now_ms()),
        }
    }

    async fn join(
        &self,
        shared: &Shared,
        place: &Place<'_>,
        head: &Parts,
        body: &[u8],
        peer: IpAddr,
    ) -> Result<Reply, Problem> {
        let queue = self.queue(place.queue)?;
        says_nothing(body)?;
        let actor = shared.authenticator.actor(&head.headers, peer, self.kind.config().actor_type)?;
        let actor = actor.ok_or_else(|| shared.authenticator.missing())?;
        let joined = shared.within(self.kind.join(&queue, actor)).await;
        // An actor that joins twice keeps one place.
        let joined = joined.map_err(|refusal| from_refusal(&refusal, Repeatable::Yes))?;
        let mut body = self.body(&queue, &joined);
        body["durability"] = "journaled".into();
        let mut response = reply::json(body.to_string());
        if joined.is_new {
            *response.status_mut() = StatusCode::CREATED;
        }
        let location = format!("/v1/rooms/{}/{}/tokens/{}", self.kind.config().kind, place.queue, joined.token);
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        retry_after(response.headers_mut(), &joined.standing);
        Ok(response)
    }

    async fn about(&self, shared: &Shared, place: &Place<'_>, ask: RoomAsk) -> Result<Reply, Problem> {
        let queue = self.queue(place.queue)?;
        let told = shared.within(self.kind.about(&queue, place.token, ask)).await;
        // Whatever is asked twice is done once.
        let told = told.map_err(|refusal| from_refusal(&refusal, Repeatable::Yes))?;
        let mut body = self.body(&queue, &told);
        if ask != RoomAsk::Poll {
            body["durability"] = "journaled".into();
        }
        let mut response = reply::json(body.to_string());
        retry_after(response.headers_mut(), &told.standing);
        Ok(response)
    }

    async fn many(&self, shared: &Shared, place: &Place<'_>, body: &[u8]) -> Result<Reply, Problem> {
        let queue = self.queue(place.queue)?;
        let most = shared.targets_max;
        let wrong = || Problem::new(&INVALID_BODY, format!("send {{\"tokens\": [\"…\"]}} with 1 to {most} tokens"));
        let Value::Object(mut fields) = json::read(body)? else { return Err(wrong()) };
        let Some(Value::Array(tokens)) = fields.remove("tokens") else { return Err(wrong()) };
        if !fields.is_empty() || tokens.is_empty() {
            return Err(wrong());
        }
        if tokens.len() > most {
            return Err(Problem::new(&TOO_MANY_TOKENS, format!("send at most {most} tokens")));
        }
        let text = |token: Value| match token {
            Value::String(token) => Ok(token),
            _ => Err(wrong()),
        };
        let tokens: Vec<String> = tokens.into_iter().map(text).collect::<Result<_, _>>()?;
        let told = shared.within(async { Ok(self.kind.many(&queue, &tokens).await) }).await.map_err(refused_read)?;
        let told: Vec<Value> = told
            .into_iter()
            .zip(&tokens)
            .map(|(told, token)| match told {
                Ok(told) => self.body(&queue, &told),
                Err(refusal) => {
                    let problem = from_refusal(&refusal, Repeatable::Yes);
                    let (urn, detail) = problem.named();
                    let status = problem.status().as_u16();
                    json!({ "token": token, "problem": { "type": urn, "status": status, "detail": detail } })
                }
            })
            .collect();
        Ok(reply::json(json!({ "tokens": told }).to_string()))
    }

    async fn verify(&self, shared: &Shared, body: &[u8]) -> Result<Reply, Problem> {
        let wrong = || Problem::new(&INVALID_BODY, "send {\"token\": \"…\"}");
        let Value::Object(fields) = json::read(body)? else { return Err(wrong()) };
        let token = fields.get("token").and_then(Value::as_str).filter(|_| fields.len() == 1).ok_or_else(wrong)?;
        let (queue, told) = shared.within(self.kind.verify(token)).await.map_err(refused_read)?;
        let mut body = json!({
            "active": matches!(told.standing, Standing::Active { .. }),
            "status": word(&told.standing),
            "queue": queue.to_json(),
            "actor": told.actor.to_json(),
            "timestamp": timestamp(told.at_ms),
        });
        if let Standing::Active { until_ms, .. } = told.standing {
            body["expiresAt"] = timestamp(until_ms).into();
        }
        Ok(reply::json(body.to_string()))
    }

    fn view(&self, place: &Place<'_>, now_ms: u64) -> Result<Reply, Problem> {
        let queue = self.queue(place.queue)?;
        let view = self.kind.view(&queue).map_err(refused_read)?;
        let config = self.kind.config();
        let body = json!({
            "queue": queue.to_json(),
            "mode": config.mode.as_str(),
            "waiting": view.figures.waiting,
            "active": view.figures.active,
            "capacity": config.capacity,
            "admittedPerSecond": (view.admitted_per_s * 100.0).round() / 100.0,
            "eta": view.eta.map(eta),
            "totals": {
                "joined": view.figures.joined,
                "admitted": view.figures.admitted,
                "completed": view.figures.completed,
                "expired": view.figures.expired,
                "noShows": view.figures.no_shows,
                "abandoned": view.figures.abandoned,
                "left": view.figures.left,
            },
            "draw": { "commitment": view.commitment, "seed": view.seed },
            "timestamp": timestamp(now_ms),
        });
        Ok(reply::json(body.to_string()))
    }

    /// Our names, and those of `cfWaitingRoom` beside them.
    fn body(&self, queue: &Id, told: &RoomReply) -> Value {
        let mut body = Map::new();
        let mut add = |name: &str, value: Value| body.insert(name.to_owned(), value);
        add("token", told.token.as_str().into());
        add("status", word(&told.standing).into());
        add("queue", queue.to_json());
        match &told.standing {
            Standing::Waiting { ahead, eta: expected, poll_after_ms, joined_ms } => {
                add("position", ahead.map(|ahead| ahead + 1).into());
                add("ahead", (*ahead).into());
                add("waiting", told.figures.waiting.into());
                add("eta", expected.map(eta).into());
                add("pollAfterMs", (*poll_after_ms).into());
                add("joinedAt", timestamp(*joined_ms).into());
            }
            Standing::Active { pass, until_ms, admitted_ms } => {
                add("pass", pass.as_str().into());
                add("expiresAt", timestamp(*until_ms).into());
                add("expiresInMs", until_ms.saturating_sub(told.at_ms).into());
                add("admittedAt", timestamp(*admitted_ms).into());
            }
            Standing::Expired { is_stay } => {
                add("reason", if *is_stay { "stay-over" } else { "not-seen" }.into());
            }
            Standing::Ended { .. } => {}
        }
        add("timestamp", timestamp(told.at_ms).into());
        add("cfWaitingRoom", self.cloudflare(told));
        Value::Object(body)
    }

    /// What clients of Cloudflare's waiting room read.
    fn cloudflare(&self, told: &RoomReply) -> Value {
        let config = self.kind.config();
        let (waits, eta, poll_after_ms) = match &told.standing {
            Standing::Waiting { eta, poll_after_ms, .. } => (true, *eta, *poll_after_ms),
            _ => (false, None, 0),
        };
        let minutes = eta.map(|eta| eta.middle().as_secs().div_ceil(60));
        let formatted = match minutes {
            None => "unavailable".to_owned(),
            Some(1) => "1 minute".to_owned(),
            Some(minutes) => format!("{minutes} minutes"),
        };
        json!({
            "inWaitingRoom": waits,
            "waitTime": minutes.unwrap_or(0),
            "waitTimeKnown": minutes.is_some(),
            "waitTimeFormatted": formatted,
            "queueIsFull": told.figures.waiting >= config.waiting_max,
            "queueAll": config.mode == RoomMode::QueueAll,
            "lastUpdated": timestamp(told.at_ms),
            "refreshIntervalSeconds": poll_after_ms.div_ceil(1_000),
        })
    }

    /// `GET` with `Accept: text/event-stream`: a stream near the front, else one event that says when to come back.
    pub(super) async fn events(self: &Arc<Self>, shared: &Shared, place: Place<'_>) -> Result<Reply, Problem> {
        let queue = self.queue(place.queue)?;
        let asked = shared.within(self.kind.about(&queue, place.token, RoomAsk::Poll)).await;
        let told = asked.map_err(refused_read)?;
        let (first, stays) = self.event(&queue, &told);
        let permit = if stays { self.kind.may_stream() } else { None };
        let Some(permit) = permit else { return Ok(events(ReplyBody::whole(first))) };
        let (pieces, receiver) = mpsc::channel::<Piece>(1);
        let (view, mut token) = (Arc::clone(self), told.token);
        tokio::spawn(request::carry(async move {
            let _permit = permit;
            let mut next = Some(first);
            for _ in 0..STREAM_LOOKS {
                if let Some(event) = next.take()
                    && pieces.send(Ok(event)).await.is_err()
                {
                    return;
                }
                tokio::time::sleep(STREAM_PAUSE).await;
                let (event, stays) = match view.kind.about(&queue, &token, RoomAsk::Poll).await {
                    Ok(told) => {
                        let event = view.event(&queue, &told);
                        token = told.token;
                        event
                    }
                    // The client asks again, and that answer gives the reason.
                    Err(_) => return,
                };
                if !stays {
                    let _ = pieces.send(Ok(event)).await;
                    return;
                }
                next = Some(event);
            }
        }));
        Ok(events(ReplyBody::channel(receiver)))
    }

    /// An event, and whether another will follow.
    fn event(&self, queue: &Id, told: &RoomReply) -> (Bytes, bool) {
        let near = self.kind.config().stream_ahead_max;
        let (stays, retry_ms) = match told.standing {
            Standing::Waiting { ahead: Some(ahead), .. } if ahead <= near => (true, 1_000),
            Standing::Waiting { poll_after_ms, .. } => (false, poll_after_ms),
            _ => (false, 60_000),
        };
        let text = format!("retry: {retry_ms}\nevent: status\ndata: {}\n\n", self.body(queue, told));
        (Bytes::from(text), stays)
    }
}

/// Whether a stream of events is wanted.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream"))
}

/// Longest body of a request: many tokens.
pub(super) fn body_bytes_max(route: Route, targets_max: usize, otherwise: usize) -> usize {
    if route == Route::RoomStatus { targets_max.saturating_mul(TOKEN_BYTES_MAX / 4).max(otherwise) } else { otherwise }
}

fn events(body: ReplyBody) -> Reply {
    let mut response = hyper::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // One event per second keeps the stream alive. This header asks a proxy in front of this host not to buffer them.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Waiting { .. } => "waiting",
        Standing::Active { .. } => "active",
        Standing::Expired { .. } => "expired",
        Standing::Ended { was_active: true } => "completed",
        Standing::Ended { was_active: false } => "left",
    }
}

fn eta(eta: Eta) -> Value {
    json!({ "lowMs": eta.low_ms, "highMs": eta.high_ms })
}

fn retry_after(headers: &mut HeaderMap, standing: &Standing) {
    if let Standing::Waiting { poll_after_ms, .. } = standing {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(poll_after_ms.div_ceil(1_000)));
    }
}

fn says_nothing(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() { Ok(()) } else { weir_listener::body::check_says_nothing(body) }
}

/// `{"ttlMs": n}`; `None` for an empty body.
fn ttl_ms(body: &[u8], most_ms: u64) -> Result<Option<u64>, Problem> {
    let wrong = || Problem::new(&INVALID_BODY, format!("send no body, or {{\"ttlMs\": n}} with n from 1 to {most_ms}"));
    if body.is_empty() {
        return Ok(None);
    }
    let Value::Object(fields) = json::read(body)? else { return Err(wrong()) };
    match fields.get("ttlMs") {
        None if fields.is_empty() => Ok(None),
        Some(ttl_ms) if fields.len() == 1 => {
            ttl_ms.as_u64().filter(|ttl_ms| (1..=most_ms).contains(ttl_ms)).map(Some).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}
