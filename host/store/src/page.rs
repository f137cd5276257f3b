//! Pages of a target's members.

use std::cmp::Reverse;

use weir_core::model::Member;

/// Most members that are sorted on a thread that answers requests.
const INLINE_MAX: usize = 500;

/// The newest `limit` of `all` that are older than `before`, newest first, ties by actor text descending. Sorts many members on
/// the blocking pool; `None` when the pool has shut down.
pub(super) async fn page(all: Vec<Member>, before: Option<&Member>, limit: usize) -> Option<Vec<Member>> {
    if all.len() <= INLINE_MAX {
        return Some(cut(all, before, limit));
    }
    let before = before.cloned();
    tokio::task::spawn_blocking(move || cut(all, before.as_ref(), limit)).await.ok()
}

fn cut(all: Vec<Member>, before: Option<&Member>, limit: usize) -> Vec<Member> {
    let newness = |member: &Member| (member.since_ms, member.actor.to_string());
    let before = before.map(newness);
    let is_older = |member: &Member| match &before {
        None => true,
        Some(before) if member.since_ms == before.0 => newness(member) < *before,
        Some(before) => member.since_ms < before.0,
    };
    let mut page: Vec<Member> = all.into_iter().filter(is_older).collect();
    if limit < page.len() {
        // Times order most members: only those near the end of the page need texts.
        page.sort_unstable_by_key(|member| Reverse(member.since_ms));
        let last_ms = page.get(limit.saturating_sub(1)).map_or(0, |member| member.since_ms);
        page.retain(|member| member.since_ms >= last_ms);
    }
    page.sort_by_cached_key(|member| Reverse(newness(member)));
    page.truncate(limit);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::model::Id;

    #[test]
    fn a_page_is_the_newest_of_those_before() {
        let member = |actor: i64, since_ms| Member { actor: Id::Int(actor), since_ms };
        let all = vec![member(1, 5), member(2, 7), member(10, 5), member(9, 5), member(4, 6)];
        let actors = |page: Vec<Member>| page.into_iter().map(|member| member.actor.to_string()).collect::<Vec<_>>();
        assert_eq!(actors(cut(all.clone(), None, 9)), ["2", "4", "9", "10", "1"]);
        assert_eq!(actors(cut(all.clone(), None, 3)), ["2", "4", "9"]);
        assert_eq!(actors(cut(all.clone(), Some(&member(9, 5)), 1)), ["10"]);
        assert_eq!(actors(cut(all, Some(&member(1, 5)), 1)), Vec::<String>::new());
    }
}
