//! `weir flush [KIND]`: what waits in the journal goes to SQL now, whatever the rules plan. Through the running host, which
//! alone knows how; says how many changes that were.

use std::time::Duration;

use hyper::Method;

use super::client::{AdminAddress, AdminClient, Call, segment};
use super::{Failure, Where};
use crate::operators::{Flushed, KindFlushed, to_text};

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
    let call = Call { deadline: DEADLINE, ..Call::new(Method::POST, format!("/admin/v1/flush{of_kind}")) };
    let answer = client.ask(call).await?.ok_or_else(|| client.no_host(""))?;
    let flushed: Flushed = client.accept(answer)?;
    if json {
        println!("{}", to_text(&flushed));
        return Ok(());
    }
    for KindFlushed { kind, flushed } in flushed.kinds {
        println!("{kind}: {flushed} changes flushed");
    }
    Ok(())
}
