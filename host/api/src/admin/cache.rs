//! What operators can purge from the cache, and how they say it.

use hyper::http::request::Parts;

use super::query::Query;
use super::reply::wrong;
use weir_listener::problem::Problem;

/// What a purge is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeTarget {
    /// One key: `read:concert-dates?concert=1` (each parameter, in the order of their names; texts in quotes), or of an
    /// upstream its name and the path and query that its origin sees, `shop:/shop/items/3`.
    Key(String),
    /// A group: `table:NAME`, `read:NAME`, `upstream:NAME`, `group:UPSTREAM:NAME` (of `Cache-Groups`), or one that the
    /// rule names.
    Group(String),
    /// All keys that begin so.
    Prefix(String),
    /// Everything.
    All,
}

/// A purge. After a soft one what is cached is stale, after a hard one it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// What.
    pub what: PurgeTarget,
    /// Whether it may still be served while it is loaded again.
    pub soft: bool,
}

/// What `POST /admin/v1/cache/purge` asks for.
pub(super) fn purge(head: &Parts) -> Result<Purge, Problem> {
    let query = Query::read(head, &["key", "group", "prefix", "all", "mode"])?;
    let soft = match query.get("mode") {
        None | Some("hard") => false,
        Some("soft") => true,
        Some(_) => return Err(wrong("mode must be soft or hard")),
    };
    if query.get("all").is_some_and(|all| all != "1") {
        return Err(wrong("write all=1 to purge everything"));
    }
    if let Some(name) = ["key", "group", "prefix"].into_iter().find(|name| query.get(name) == Some("")) {
        return Err(wrong(format!("{name} is empty; write all=1 to purge everything")));
    }
    let given = [
        query.get("key").map(|key| PurgeTarget::Key(key.into())),
        query.get("group").map(|group| PurgeTarget::Group(group.into())),
        query.get("prefix").map(|prefix| PurgeTarget::Prefix(prefix.into())),
        query.get("all").map(|_| PurgeTarget::All),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(what), None) => Ok(Purge { what, soft }),
        _ => Err(wrong("give one of ?key=, ?group=, ?prefix= and ?all=1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_says_what_it_means() {
        let read = |query: &str| {
            let uri = format!("/admin/v1/cache/purge?{query}");
            let (head, ()) = hyper::Request::builder().uri(uri).body(()).unwrap().into_parts();
            purge(&head).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(read("all=1&mode=soft"), Ok(Purge { what: PurgeTarget::All, soft: true }));
        assert_eq!(read("key=read:a"), Ok(Purge { what: PurgeTarget::Key("read:a".into()), soft: false }));
        for wrong in ["", "all=0", "all=", "all=true", "prefix=", "key=", "group=", "all=1&key=a", "all=1&mode=so"] {
            assert_eq!(read(wrong), Err(400), "{wrong}");
        }
    }
}
