//! `weir health`: asks the running host's operators' listener, for health checks of containers that have no curl.

use hyper::Method;
use serde_json::{Value, json};

use super::client::{AdminAddress, AdminClient, Asked};
use super::{Failure, Where};

/// Asks `/livez`, or `/readyz`.
///
/// # Errors
/// The host is not alive, or not ready, with its reason; or nobody answers.
pub async fn run(place: &Where, admin: &AdminAddress, is_ready: bool, json: bool) -> Result<(), Failure> {
    let (config, _) = place.load()?;
    let client = AdminClient::new(admin, &config.admin)?;
    let path = if is_ready { "/readyz" } else { "/livez" };
    let Some(answer) = client.ask(Asked::new(Method::GET, path)).await? else { return Err(client.no_host("")) };
    let word = if is_ready { "ready" } else { "alive" };
    let holds = answer.body.get(word).and_then(Value::as_bool) == Some(true);
    if json {
        println!("{}", json!({ "ok": holds, "answer": answer.body }));
    } else if holds {
        println!("{word}");
    }
    if holds {
        return Ok(());
    }
    let failure = Failure::no(format!("not {word}: {}", reasons(&answer.body)));
    Err(if json { failure.told() } else { failure })
}

/// Why, as the host says.
fn reasons(body: &Value) -> String {
    let checks = body.get("checks").and_then(Value::as_array).into_iter().flatten();
    let failed = checks.filter(|check| check.get("ready") == Some(&Value::Bool(false)));
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let failed: Vec<String> =
        failed.map(|check| format!("{}: {}", text(check, "name"), text(check, "detail"))).collect();
    if failed.is_empty() { text(body, "reason") } else { failed.join("; ") }
}
