//! `weir flush [KIND]`: what waits in the journal goes to SQL now, whatever the rules plan. Through the running host, which
//! alone knows how; says how many changes that were.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::client::{AdminAddress, AdminClient, Asked, segment};
use super::{Failure, Where};

/// Time for the answer: longer than a host takes for a flush, whatever its `flush.drain_grace_ms`.
const DEADLINE: Duration = Duration::from_secs(600);

/// Runs the command.
///
/// # Errors
/// When no host is reachable, and when not everything could be flushed.
pub async fn run(kind: Option<&str>, place: &Where, admin: &AdminAddress, json: bool) -> Result<(), Failure> {
    let (config, _) = place.load()?;
    let client = AdminClient::new(admin, &config.admin)?;
    let of_kind = kind.map(|kind| format!("?kind={}", segment(kind))).unwrap_or_default();
    let asked = Asked { deadline: DEADLINE, ..Asked::new(Method::POST, format!("/admin/v1/flush{of_kind}")) };
    let answer = client.ask(asked).await?.ok_or_else(|| client.no_host(""))?;
    let flushed = client.accept(answer)?;
    if json {
        println!("{flushed}");
        return Ok(());
    }
    for kind in flushed.get("kinds").and_then(Value::as_array).into_iter().flatten() {
        let (name, changes) = (kind.get("kind").and_then(Value::as_str), kind.get("flushed").and_then(Value::as_u64));
        println!("{}: {} changes flushed", name.unwrap_or_default(), changes.unwrap_or_default());
    }
    Ok(())
}
