//! What an operator does with the policy modules of a running host, over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::client::{Client, NoAnswer, Reply};

const ALL: &str = "/admin/v1/policies";
/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);
/// Parts of a form; no component of a test holds it.
const BOUNDARY: &str = "the-boundary-of-a-form-with-a-module";

/// An operator with one connection.
#[derive(Debug)]
pub struct Operator {
    /// Asks everything that is not below `/admin/v1/policies`.
    pub client: Client,
}

impl Operator {
    /// An operator of the host whose operators' listener is `admin`.
    pub fn new(admin: SocketAddr) -> Self {
        Self { client: Client::new(admin) }
    }

    /// Uploads a component, and activates it if that is asked for.
    pub async fn push(&mut self, component: &[u8], name: &str, activate: bool) -> Reply {
        answer(self.try_push(component, name, activate).await)
    }

    /// The same where the host may die meanwhile.
    pub async fn try_push(&mut self, component: &[u8], name: &str, activate: bool) -> Result<Reply, NoAnswer> {
        let path = format!("{ALL}?name={name}&activate={activate}");
        let headers = [("content-type", "application/wasm"), ("x-operator", "tests")];
        self.client.request_bytes("POST", &path, &headers, component.to_vec()).await
    }

    /// Uploads a component with test vectors, as a form, and activates it.
    pub async fn push_with_vectors(&mut self, component: &[u8], name: &str, vectors: &str) -> Reply {
        let mut body = Vec::new();
        for (part, bytes) in [("module", component), ("vectors", vectors.as_bytes())] {
            let head =
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{part}\"\r\n\r\n");
            body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
        }
        body.extend(format!("--{BOUNDARY}--\r\n").bytes());
        let path = format!("{ALL}?name={name}&activate=true");
        let form = format!("multipart/form-data; boundary={BOUNDARY}");
        let headers = [("content-type", form.as_str()), ("x-operator", "tests")];
        answer(self.client.request_bytes("POST", &path, &headers, body).await)
    }

    /// A command such as `POST` `/NAME/activate`; panics unless it is done.
    pub async fn command(&mut self, method: &str, path: &str) -> Value {
        let reply = answer(self.try_command(method, path).await);
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
        reply.json()
    }

    /// The same, whatever the answer.
    pub async fn try_command(&mut self, method: &str, path: &str) -> Result<Reply, NoAnswer> {
        self.client.request(method, &format!("{ALL}{path}"), &[("x-operator", "tests")], "").await
    }

    /// What serves, what is tried, the registry, the last events.
    pub async fn status(&mut self) -> Value {
        self.command("GET", "").await
    }

    /// What the `shadow` or the `canary` has shown.
    pub async fn diff(&mut self, of: &str) -> Value {
        self.command("GET", "/diff").await[of].take()
    }

    /// Waits until an event of this sort concerns the module of this name.
    pub async fn wait_for_event(&mut self, what: &str, module: &str) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if let Some(event) = event(&status, what, module) {
                return event;
            }
            assert!(began.elapsed() < LIMIT, "{module}: no event {what} within {LIMIT:?}: {status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A counter; 0 when it is not there.
    pub async fn counter(&mut self, name: &str, labels: &[&str]) -> f64 {
        self.client.metric(name, labels).await.unwrap_or_default()
    }
}

/// The youngest event of this sort that concerns the module of this name.
pub fn event(status: &Value, what: &str, module: &str) -> Option<Value> {
    let titled = format!("{module} (");
    let events = status["events"].as_array().expect("events");
    events
        .iter()
        .find(|event| event["what"] == what && event["module"].as_str().is_some_and(|text| text.starts_with(&titled)))
        .cloned()
}

/// The digest that serves `interface`.
pub fn serving(status: &Value, interface: &str) -> String {
    let digest = &status["active"][interface]["digest"];
    digest.as_str().unwrap_or_else(|| panic!("nothing serves {interface}: {status:#}")).to_owned()
}

fn answer(reply: Result<Reply, NoAnswer>) -> Reply {
    reply.unwrap_or_else(|NoAnswer(reason)| panic!("{reason}"))
}
