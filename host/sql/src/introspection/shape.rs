//! What the names, keys and triggers of a table say about its rows: that weir's pair does not tell them apart, that they have
//! a state, that somebody counts them already.
//!
//! Knows no engine. Pure. It goes by names, because nothing else says it; so an operator who knows better can say
//! so (`sql.acknowledged`).

use super::{Dialect, Introspection, Known, Trigger};
use crate::Finding;
use crate::finding::{Problem, Remedy, refuse, warn};

/// Names of columns that say which thing of several a row is about, or which of several things somebody did; without
/// underscores, in lower case.
const DIFFER: &[&str] = &[
    "contenttype",
    "contenttypeid",
    "objecttype",
    "entitytype",
    "targettype",
    "itemtype",
    "subjecttype",
    "resourcetype",
    "modeltype",
    "type",
    "kind",
    "reaction",
    "reactiontype",
    "reactionid",
    "emoji",
    "vote",
    "votetype",
    "islike",
    "liketype",
    "isdislike",
];

/// Names of columns that say that a row is deleted though it is there.
const DELETED: &[&str] = &[
    "deleted",
    "isdeleted",
    "deletedat",
    "deletedon",
    "deletedby",
    "deletedts",
    "deletiontime",
    "deleteflag",
    "softdeleted",
    "removed",
    "isremoved",
    "removedat",
    "discarded",
    "discardedat",
    "trashed",
    "trashedat",
    "unlikedat",
    "withdrawnat",
    "undoneat",
    "revoked",
    "revokedat",
    "cancelledat",
    "canceledat",
];

/// Names of columns that say that rows have a state.
const STATE: &[&str] = &[
    "state",
    "status",
    "active",
    "isactive",
    "enabled",
    "isenabled",
    "valid",
    "isvalid",
    "validto",
    "validuntil",
    "archived",
    "isarchived",
    "archivedat",
    "hidden",
    "ishidden",
    "hiddenat",
    "liked",
    "isliked",
];

fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

fn is_among(names: &[&str], column: &str) -> bool {
    names.contains(&plain(column).as_str())
}

/// Whether a column's name says that it gives the type of another column's ids: `likeable_type` of `likeable_id`.
fn is_type_of(column: &str, id_column: &str) -> bool {
    let id = plain(id_column);
    let Some(stem) = id.strip_suffix("id").filter(|stem| !stem.is_empty()) else { return false };
    plain(column).strip_prefix(stem).is_some_and(|rest| ["type", "kind", "class", "model", "table"].contains(&rest))
}

/// Why a column that weir does not know distinguishes rows of one pair; `pair` are the first two of `given`.
fn differs_by(facts: &Introspection, given: &[&str], column: &str) -> Option<String> {
    let pair = given.get(..2)?;
    let wider = facts.unique.iter().find(|key| {
        let has = |name: &str| key.columns.iter().any(|c| c == name);
        pair.iter().all(|name| has(name)) && has(column)
    });
    if let Some(key) = wider.filter(|_| facts.unique_on(pair).is_none()) {
        return Some(format!("its unique key {} holds it", key.name));
    }
    let says = is_among(DIFFER, column) || given.iter().any(|id| is_type_of(column, id));
    says.then(|| "its name says so".to_owned())
}

/// The columns of a table that weir neither reads nor writes, and that the operator has not said to know.
fn unmapped<'f>(table: &str, facts: &'f Introspection, given: &[&str], known: &Known<'_>) -> Vec<&'f str> {
    let columns = facts.columns.iter().map(|column| column.name.as_str());
    columns.filter(|name| !given.contains(name) && !known.has(table, name)).collect()
}

/// Whether a column makes [`check_pairs`] refuse a table, so that nothing else need be said of it.
pub(super) fn is_refused(table: &str, facts: &Introspection, given: &[&str], column: &str, known: &Known<'_>) -> bool {
    given.len() >= 2
        && !known.has(table, column)
        && (differs_by(facts, given, column).is_some() || is_among(STATE, column) || is_among(DELETED, column))
}

fn acknowledge(table: &str, name: &str) -> String {
    format!("sql.acknowledged = [\"{table}.{name}\"]")
}

/// A table of pairs whose rows are not what weir takes them for. `given` are target, actor, and what else weir fills.
pub(super) fn check_pairs(table: &str, facts: &Introspection, given: &[&str], known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in unmapped(table, facts, given, known) {
        if let Some(why) = differs_by(facts, given, name) {
            findings.push(refuse(
                Problem::RowsDiffer,
                format!(
                    "{table} tells rows of one ({}) apart by {name} ({why}), and weir knows only these two: it would take rows \
                     that are about different things for the same",
                    given[..2].join(", ")
                ),
                Remedy::text(format!(
                    "weir cannot map {name} yet: keep what this kind is about in a table of its own; a unique key on the two \
                     alone would forbid rows that are good; if {name} is the same in all rows for ever, write {}",
                    acknowledge(table, name)
                )),
            ));
        } else if is_among(DELETED, name) || is_among(STATE, name) {
            findings.push(refuse(
                Problem::RowState,
                format!(
                    "{table}.{name} says that a row that is there need not count: weir would count it, and would delete rows \
                     that your application only marks"
                ),
                Remedy::text(format!(
                    "weir cannot map {name} yet: keep only rows that count in this table; if {name} never says that a row does \
                     not count, write {}",
                    acknowledge(table, name)
                )),
            ));
        }
    }
    findings
}

/// A table of documents or settings: weir would serve soft-deleted rows. `given` is what weir maps.
pub(super) fn check_read(table: &str, facts: &Introspection, given: &[&str], known: &Known<'_>) -> Vec<Finding> {
    let columns = unmapped(table, facts, given, known).into_iter().filter(|name| is_among(DELETED, name));
    let finding = |name: &str| {
        refuse(
            Problem::RowState,
            format!("{table}.{name} says that a row that is there may be deleted: weir would tell it all the same"),
            Remedy::text(format!(
                "weir cannot map {name} yet: move deleted rows to a table of their own; if {name} never says that a row is \
                 deleted, write {}",
                acknowledge(table, name)
            )),
        )
    };
    columns.map(finding).collect()
}

/// A table of targets or members: what is deleted without going away is there for weir. `given` is what weir maps.
pub(super) fn check_targets(table: &str, facts: &Introspection, given: &[&str], known: &Known<'_>) -> Vec<Finding> {
    let columns = unmapped(table, facts, given, known).into_iter().filter(|name| is_among(DELETED, name));
    let finding = |name: &str| {
        warn(
            Problem::StateIgnored,
            format!("{table}.{name} says that a row may be deleted: for weir it is there as long as the row is"),
            Remedy::text(format!(
                "let a rule of yours refuse what is deleted, or delete the row; if that is how it shall be, write {}",
                acknowledge(table, name)
            )),
        )
    };
    columns.map(finding).collect()
}

/// What a trigger does with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// Nothing that can be seen.
    Nothing,
    /// It names it.
    Names,
    /// It sets it.
    Sets,
}

/// The words and signs of a text, in lower case, without quotes.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut is_open = false;
    for c in text.chars() {
        let is_word = c.is_alphanumeric() || c == '_';
        if is_word && is_open {
            tokens.last_mut().into_iter().for_each(|last| last.extend(c.to_lowercase()));
        } else if is_word {
            tokens.push(c.to_lowercase().collect());
        } else if !c.is_whitespace() && !['"', '`', '\''].contains(&c) {
            tokens.push(c.to_string());
        }
        is_open = is_word;
    }
    tokens
}

/// What a trigger with this text does with `table.column`. A name that it is given as an argument, or puts into a statement
/// that it makes up, is taken to be set.
fn touch(text: &str, table: &str, column: &str) -> Touch {
    let (table, column) = (table.rsplit('.').next().unwrap_or(table).to_lowercase(), column.to_lowercase());
    let tokens = tokens(text);
    if !tokens.contains(&table) || !tokens.contains(&column) {
        return Touch::Nothing;
    }
    let at = |index: usize| tokens.get(index).map_or("", String::as_str);
    let makes_up = tokens.iter().enumerate().any(|(index, token)| {
        token == "execute" && !["function", "procedure"].contains(&at(index + 1)) || token == "prepare"
    });
    if makes_up {
        return Touch::Sets;
    }
    let mut is_in_set = false;
    for (index, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "set" => is_in_set = true,
            "where" | ";" => is_in_set = false,
            word if word == column && is_in_set => {
                let listed = ["(", ","].contains(&at(index.wrapping_sub(1))) && [")", ","].contains(&at(index + 1));
                if ["=", ":"].contains(&at(index + 1)) || listed {
                    return Touch::Sets;
                }
            }
            _ => {}
        }
    }
    Touch::Names
}

/// Triggers and rules of the table `rows` that keep the count `counts.count` by themselves.
pub(super) fn check_counting<D: Dialect>(
    dialect: &D,
    (rows, facts): (&str, &Introspection),
    (counts, count): (&str, &str),
    setting: &str,
    known: &Known<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for trigger in facts.triggers.iter().filter(|trigger| !known.has(rows, &trigger.name)) {
        let Trigger { name, .. } = trigger;
        let remedy = |ending: &str| {
            dialect.drop_trigger(rows, trigger).saying(format!(
                "let one of them count: leave {setting} out in weir.toml, and the trigger counts alone; or let weir count, and \
                 let nobody else write into {rows}{ending}"
            ))
        };
        match touch(&trigger.text, counts, count) {
            Touch::Nothing => {}
            Touch::Sets => findings.push(refuse(
                Problem::CountingTrigger,
                format!("{name} on {rows} sets {counts}.{count}, as weir does: each row would be counted twice"),
                remedy(&format!(" (if it does not count, write {}):", acknowledge(rows, name))),
            )),
            Touch::Names => findings.push(warn(
                Problem::CountingTrigger,
                format!("{name} on {rows} names {counts}.{count}, which weir counts: if it counts, too, each row counts twice"),
                remedy(&format!(" (it does not count: write {}):", acknowledge(rows, name))),
            )),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trigger_does_with_a_count_is_read_from_its_text() {
        let touch = |text: &str| touch(text, "public.feed", "like_count");
        for sets in [
            "UPDATE feed SET like_count = like_count + 1 WHERE id = NEW.feed_id",
            "update \"feed\" f set title = 'x', \"like_count\" = f.like_count + 1",
            "UPDATE `feed` SET `like_count`=`like_count`+1",
            "UPDATE feed SET (title, like_count) = ('x', 1)",
            "CREATE TRIGGER t AFTER INSERT ON l EXECUTE FUNCTION bump('feed', 'like_count') EXECUTE format('UPDATE %I')",
        ] {
            assert_eq!(touch(sets), Touch::Sets, "{sets}");
        }
        for names in [
            "SELECT like_count FROM feed WHERE id = NEW.feed_id",
            "UPDATE feed SET is_hot = true WHERE like_count = 100",
        ] {
            assert_eq!(touch(names), Touch::Names, "{names}");
        }
        for nothing in
            ["UPDATE feeds SET like_count = 1", "UPDATE feed SET like_counter = 1", "INSERT INTO log VALUES (1)"]
        {
            assert_eq!(touch(nothing), Touch::Nothing, "{nothing}");
        }
    }

    #[test]
    fn names_tell_types_states_and_deletion() {
        assert!(is_type_of("likeable_type", "likeable_id") && is_type_of("likeableType", "likeableId"));
        assert!(is_type_of("object_kind", "object_id"));
        assert!(!is_type_of("user_type", "feed_id") && !is_type_of("type", "id"));
        for deleted in ["deleted_at", "is_deleted", "deletedAt", "removed_at"] {
            assert!(is_among(DELETED, deleted), "{deleted}");
        }
        assert!(is_among(STATE, "status") && is_among(STATE, "is_active"));
        for good in ["created_at", "note", "score", "id", "source", "undeletable"] {
            assert!(!is_among(DELETED, good) && !is_among(STATE, good) && !is_among(DIFFER, good), "{good}");
        }
    }
}
