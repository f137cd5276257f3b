//! The operators' listener while the host starts: it answers probes at once, and everything else as soon as it can.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tokio::sync::watch;

use super::guard::Guard;
use super::{AdminState, OPERATION_DEADLINE, UNAVAILABLE, reply};
use weir_core::config::{AdminConfig, ConfigError};
use weir_core::operators::{Alive, Check, Ready};
use weir_listener::forwarded::Trust;
use weir_listener::problem::Problem;
use weir_listener::{Handler, Handling, Reply};

/// Leads to an [`AdminState`] as soon as there is one.
pub struct Gate {
    state: watch::Sender<Option<Arc<AdminState>>>,
    guard: Guard,
    trust: Trust,
}

impl Gate {
    /// Creates a closed gate, with the guard that the later state also uses.
    ///
    /// # Errors
    /// A token file that cannot be read or holds too little.
    pub fn new(config: &AdminConfig) -> Result<Self, ConfigError> {
        let guard = Guard::new(config.read_token()?.as_deref());
        Ok(Self { state: watch::Sender::new(None), guard, trust: Trust::from(config) })
    }

    /// Opens the gate: from now on `state` answers every request.
    pub fn open(&self, state: Arc<AdminState>) {
        self.state.send_replace(Some(state));
    }

    /// Answers a probe while the gate is still closed.
    fn probed(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Reply, Problem> {
        let (head, _) = request.into_parts();
        let peer = self.trust.caller(&head.headers, peer.ip()).client;
        self.guard.check_origin(&head, peer, false)?;
        if head.uri.path() == "/livez" {
            return Ok(reply::json(StatusCode::OK, &Alive { alive: true, reason: None }));
        }
        let detail = "the host is starting: it opens the store and SQL, and compiles modules";
        let check = Check { name: "start".into(), ready: false, detail: detail.into() };
        Ok(reply::json(StatusCode::SERVICE_UNAVAILABLE, &Ready::from(vec![check])))
    }
}

impl Handler for Gate {
    async fn handle(&self, request: Request<Incoming>, peer: SocketAddr, handling: &Handling) -> Reply {
        let known = self.state.borrow().clone();
        if let Some(state) = known {
            return state.handle(request, peer, handling).await;
        }
        let is_get = *request.method() == Method::GET || *request.method() == Method::HEAD;
        if is_get && ["/livez", "/readyz"].contains(&request.uri().path()) {
            return self.probed(request, peer).unwrap_or_else(Problem::into_reply);
        }
        let mut states = self.state.subscribe();
        let opened = tokio::time::timeout(OPERATION_DEADLINE, states.wait_for(Option::is_some)).await;
        let state = opened.ok().and_then(Result::ok).and_then(|state| state.clone());
        match state {
            Some(state) => state.handle(request, peer, handling).await,
            None => Problem::new(&UNAVAILABLE, "the host is still starting").into_reply(),
        }
    }
}
