//! Who is on a target.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::Toggle;
use crate::capability::Kind;
use weir_core::error::Refusal;
use weir_core::model::{Id, Member};
use weir_store::Members;

/// A page of members, newest first; `None` when the target must be hydrated first.
pub(super) async fn page(
    kind: &Kind<Toggle>,
    target: &Id,
    before: Option<&Member>,
    limit: usize,
) -> Result<Option<Vec<Member>>, Refusal> {
    let (parts, context) = (&kind.context().parts, kind.context());
    let known = parts.store.members(&parts.kind, parts.clock.steady_ms(), target, before, limit).await;
    match known.map_err(|error| context.store_refusal(&error))? {
        Members::Whole(page) => Ok(Some(page)),
        Members::TargetMissing => Err(Refusal::TargetMissing),
        Members::TargetNotLoaded => Ok(None),
        Members::Overlay { present, absent } => overlay(kind, target, before, limit, present, absent).await.map(Some),
    }
}

/// SQL's page with the store's newer knowledge laid over it. SQL is asked for as many rows more as could be hidden.
async fn overlay(
    kind: &Kind<Toggle>,
    target: &Id,
    before: Option<&Member>,
    limit: usize,
    present: Vec<Member>,
    absent: Vec<Id>,
) -> Result<Vec<Member>, Refusal> {
    let (parts, context) = (&kind.context().parts, kind.context());
    let rows_max = limit.saturating_add(present.len()).saturating_add(absent.len());
    let rows = parts.sql.load_members(&kind.config().table, target, before, rows_max).await;
    let rows = rows.map_err(|error| context.sql_refusal(&error))?;
    let hidden: HashSet<Id> = absent.into_iter().chain(present.iter().map(|member| member.actor.clone())).collect();
    let mut page: Vec<Member> = rows.into_iter().filter(|row| !hidden.contains(&row.actor)).collect();
    page.extend(present.into_iter().filter(|member| before.is_none_or(|before| newness(member) < newness(before))));
    page.sort_by_cached_key(|member| Reverse(newness(member)));
    page.truncate(limit);
    Ok(page)
}

/// The order of a list of members: newest first, ties by actor text descending.
fn newness(member: &Member) -> (u64, String) {
    (member.since_ms, member.actor.to_string())
}
