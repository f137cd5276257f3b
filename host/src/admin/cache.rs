//! What operators do with the cache: see it, and purge it.

use hyper::Method;
use hyper::http::request::Parts;
use serde_json::Value;

use super::query::Query;
use super::reply::wrong;
use super::{Operations, OperationsError};
use crate::listener::problem::Problem;

/// What is to be purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purged {
    /// One key, such as `read:concert-dates?concert=1` or `shop:/items/3`.
    Key(String),
    /// A group: of an upstream's responses, or `table:NAME`, `read:NAME`, `upstream:NAME`.
    Group(String),
    /// All keys that begin so.
    Prefix(String),
    /// Everything.
    All,
}

/// A purge: soft, what is kept becomes stale; hard, it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// What.
    pub what: Purged,
    /// Whether it may still be told while it is read anew.
    pub soft: bool,
}

/// `GET /admin/v1/cache`, `POST /admin/v1/cache/purge`.
pub(super) async fn answer(
    operations: &dyn Operations,
    head: &Parts,
) -> Result<Result<Value, OperationsError>, Problem> {
    if head.method != Method::POST {
        return Ok(operations.cache().await);
    }
    let purge = purge(head)?;
    Ok(operations.purge_cache(purge).await)
}

fn purge(head: &Parts) -> Result<Purge, Problem> {
    let query = Query::read(head, &["key", "group", "prefix", "all", "mode"])?;
    let soft = match query.get("mode") {
        None | Some("hard") => false,
        Some("soft") => true,
        Some(_) => return Err(wrong("mode must be soft or hard")),
    };
    let given = [
        query.get("key").map(|key| Purged::Key(key.into())),
        query.get("group").map(|group| Purged::Group(group.into())),
        query.get("prefix").map(|prefix| Purged::Prefix(prefix.into())),
        query.get("all").map(|_| Purged::All),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(what), None) => Ok(Purge { what, soft }),
        _ => Err(wrong("give one of ?key=, ?group=, ?prefix= and ?all=1")),
    }
}
