//! `weir health`: asks the running host's operators' listener, for health checks of containers that have no curl.

use hyper::Method;
use serde_json::json;

use super::client::{AdminAddress, AdminClient, Call};
use super::{Failure, Where};
use crate::operators::{Alive, Check, Ready};

/// Asks `/livez`, or `/readyz`.
///
/// # Errors
/// When the host is not alive or not ready, with its reason; or when no host answers.
pub async fn run(place: &Where, admin: &AdminAddress, is_ready: bool, json: bool) -> Result<(), Failure> {
    let (config, _) = place.load()?;
    let client = AdminClient::new(admin, &config.admin)?;
    let path = if is_ready { "/readyz" } else { "/livez" };
    let Some(answer) = client.ask(Call::new(Method::GET, path)).await? else { return Err(client.no_host("")) };
    let word = if is_ready { "ready" } else { "alive" };
    let (holds, why) = if is_ready { readiness(&answer.read()) } else { liveness(answer.read()) };
    if json {
        println!("{}", json!({ "ok": holds, "answer": answer.body }));
    } else if holds {
        println!("{word}");
    }
    if holds {
        return Ok(());
    }
    let failure = Failure::no(format!("not {word}: {why}"));
    Err(if json { failure.told() } else { failure })
}

/// Whether it is, and why not.
fn liveness(Alive { alive, reason }: Alive) -> (bool, String) {
    (alive, reason.unwrap_or_default())
}

/// Whether it is, and which checks do not hold.
fn readiness(Ready { ready, checks, .. }: &Ready) -> (bool, String) {
    let failed = checks.iter().filter(|check| !check.ready);
    let failed: Vec<String> = failed.map(|Check { name, detail, .. }| format!("{name}: {detail}")).collect();
    (*ready, failed.join("; "))
}
