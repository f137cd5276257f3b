//! Operations that are written down, for the tests of this listener and of the command line that speaks to it.

#![cfg(any(test, feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::sync::Mutex;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::*;
use weir_core::config::PolicyConfig;
use weir_core::operators::{
    Acknowledged, Arrivals, Audit, CacheReport, Check, Commanded, DeadLetters, Explanation, FlushReport, Flushed,
    JournalHoles, PolicyDiff, PolicyList, Uploaded,
};
use weir_listener::testing::{Served, serve};

/// Records every call and returns an empty answer, or the one that the test set.
pub struct Written {
    ready: bool,
    calls: Mutex<Vec<String>>,
    uploads: Mutex<Vec<(String, Upload)>>,
    answer: Mutex<Option<Result<Value, OperationsError>>>,
    /// Holds uploads back until it has permits.
    pub gate: Semaphore,
    /// One permit for each upload that has begun.
    pub begun: Semaphore,
}

impl Written {
    /// Nothing was called yet; whether it says that it is ready.
    pub fn new(ready: bool) -> Arc<Self> {
        Arc::new(Self {
            ready,
            calls: Mutex::default(),
            uploads: Mutex::default(),
            answer: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            begun: Semaphore::new(0),
        })
    }

    /// What was called so far.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// What was uploaded so far, and by whom.
    pub fn uploads(&self) -> Vec<(String, Upload)> {
        self.uploads.lock().unwrap().clone()
    }

    /// What everything about policies is answered from now on.
    pub fn answers(&self, answer: Result<Value, OperationsError>) {
        *self.answer.lock().unwrap() = Some(answer);
    }

    /// Holds uploads back.
    pub fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn call<T: Default>(&self, text: String) -> T {
        self.calls.lock().unwrap().push(text);
        T::default()
    }

    fn told<T: Default + DeserializeOwned>(&self, text: String) -> Result<T, OperationsError> {
        let nothing = self.call(text);
        match self.answer.lock().unwrap().clone() {
            None => Ok(nothing),
            Some(answer) => answer.map(|answer| serde_json::from_value(answer).unwrap()),
        }
    }
}

#[async_trait]
impl Operations for Written {
    async fn readiness(&self) -> Vec<Check> {
        let check = |name: &str, ready| Check { name: name.into(), ready, detail: "is as it is".into() };
        vec![check("store", true), check("sql", self.ready)]
    }

    async fn flush_status(&self) -> Result<FlushReport, OperationsError> {
        Ok(self.call("flush".into()))
    }

    async fn flush_now(&self, kind: Option<&str>) -> Result<Flushed, OperationsError> {
        if kind == Some("nothing") {
            return Err(OperationsError::NotFound("no such kind".into()));
        }
        Ok(self.call(format!("flush now {kind:?}")))
    }

    async fn policies(&self) -> Result<PolicyList, OperationsError> {
        self.told("policies".into())
    }

    async fn upload_policy(&self, by: &str, upload: Upload) -> Result<Uploaded, OperationsError> {
        self.begun.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.uploads.lock().unwrap().push((by.into(), upload));
        self.told("upload".into())
    }

    async fn command_policy(&self, by: &str, command: ModuleCommand) -> Result<Commanded, OperationsError> {
        self.told(format!("{by}: {command:?}"))
    }

    async fn policy_diff(&self) -> Result<PolicyDiff, OperationsError> {
        self.told("diff".into())
    }

    async fn policy_audit(&self, limit: usize) -> Result<Audit, OperationsError> {
        self.told(format!("audit {limit}"))
    }

    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<DeadLetters, OperationsError> {
        Ok(self.call(format!("letters {kind:?} {after} {limit}")))
    }

    async fn replay_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        self.call::<()>(format!("replay {id}"));
        if id == 13 { Err(OperationsError::Conflict("still refused".into())) } else { Ok(()) }
    }

    async fn drop_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        self.call::<()>(format!("drop {id}"));
        if id == 13 { Err(OperationsError::NotFound("no such letter".into())) } else { Ok(()) }
    }

    async fn journal_holes(&self, kind: Option<&str>) -> Result<JournalHoles, OperationsError> {
        Ok(self.call(format!("holes {}", kind.unwrap_or("-"))))
    }

    async fn acknowledge_holes(&self, kind: &str) -> Result<Acknowledged, OperationsError> {
        Ok(self.call(format!("acknowledge {kind}")))
    }

    async fn explain(&self, kind: &str, target: &str, actor: Option<&str>) -> Result<Explanation, OperationsError> {
        if actor == Some("x") {
            return Err(OperationsError::Invalid("no such id".into()));
        }
        Ok(self.call(format!("explain {kind} {target} {}", actor.unwrap_or("-"))))
    }

    async fn cache(&self) -> Result<CacheReport, OperationsError> {
        Ok(self.call("cache".into()))
    }

    async fn purge_cache(&self, purge: Purge) -> Result<(), OperationsError> {
        self.call::<()>(format!("{purge:?}"));
        Ok(())
    }

    async fn room_arrivals(
        &self,
        kind: &str,
        queue: &str,
        skip: u64,
        limit: usize,
    ) -> Result<Arrivals, OperationsError> {
        Ok(self.call(format!("arrivals {kind} {queue} {skip} {limit}")))
    }

    fn metrics(&self) -> String {
        "weir_up 1\n".into()
    }
}

/// A listener with the default limits.
pub async fn admin(token: Option<&str>, ready: bool) -> (Served, Arc<Written>) {
    let written = Written::new(ready);
    let limits = PolicyLimits::from(&PolicyConfig::default());
    (admin_with(token, limits, &written).await, written)
}

/// A listener with these limits.
pub async fn admin_with(token: Option<&str>, limits: PolicyLimits, written: &Arc<Written>) -> Served {
    let config = AdminConfig { token: token.map(Into::into), ..AdminConfig::default() };
    let operations: Arc<dyn Operations> = Arc::clone(written) as _;
    serve(Arc::new(AdminState::new(&config, limits, operations).unwrap()), LIMITS).await
}

/// A request without a body; `more` are further header lines.
pub fn request(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
}
