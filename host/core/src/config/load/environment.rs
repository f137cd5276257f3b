//! `WEIR_SECTION__KEY`: every setting by a variable of the environment.
//!
//! A name is the path of a setting in upper case, its parts with `__` between; a hyphen is written `_`. An element of a `[[list]]` is
//! named by its name (`WEIR_TOGGLE__FEED_LIKE__DURABILITY`) or its place from 0; the place after the last makes a new one. The value
//! is taken as it is where the setting is a text, else it is read as a TOML value. Variables come after all files.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use super::mistake::{Mistake, nearest};
use super::tree::{Content, Node, Origin};
use crate::config::schema;

const PREFIX: &str = "WEIR_";
const BETWEEN: &str = "__";
/// What is read elsewhere.
const OTHERS: [&str; 1] = ["WEIR_LOG"];
/// Part of a configuration of which the demo can do without.
const OF_OWN: [&str; 9] = ["sql", "store", "toggle", "counter", "ingest", "preference", "room", "read", "upstream"];

/// Whether a variable makes a configuration of its own, where there is no file, instead of changing the demo.
pub(super) fn is_own(environment: &BTreeMap<String, String>) -> bool {
    let sections = environment.keys().filter_map(|name| name.strip_prefix(PREFIX)?.split_once(BETWEEN));
    sections.into_iter().any(|(section, _)| OF_OWN.iter().any(|own| is_same(own, section)))
}

/// Lays the variables over a configuration; returns what is said of those that are no setting.
pub(super) fn lay(root: &mut Node, environment: &BTreeMap<String, String>, mistakes: &mut Vec<Mistake>) -> Vec<String> {
    let mut said = Vec::new();
    let mut given = Vec::new();
    for (name, text) in environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        let path: Vec<&str> = name[PREFIX.len()..].split(BETWEEN).collect();
        match path.len() {
            1 => said.extend(alone(name, mistakes)),
            _ => given.push((path, name, text)),
        }
    }
    // An element of a list is made before the one after it.
    given.sort_by(|(one, ..), (other, ..)| in_order(one, other));
    for (path, name, text) in &given {
        take_form(path, &given.iter().map(|(path, ..)| path.as_slice()).collect::<Vec<_>>(), root);
        let origin = Origin::Environment((*name).clone());
        let node = Node { is_loose: true, ..Node::new(Content::Text((*text).clone()), origin.clone()) };
        if let Err(reason) = put(root, schema::schema(), path, node, false) {
            mistakes.push(Mistake { origin, field: String::new(), reason });
        }
    }
    said
}

/// A name without `__` is no setting: most likely it is meant for somebody else. One that is a setting but for its underscores is a
/// mistake.
fn alone(name: &str, mistakes: &mut Vec<Mistake>) -> Option<String> {
    if OTHERS.contains(&name) || is_of_orchestrator(name) {
        return None;
    }
    let known = names();
    let plain = |name: &str| name.replace('_', "");
    if let Some(meant) = known.iter().find(|known| plain(known) == plain(name)) {
        let reason = format!("there is no such setting; did you mean {meant}?");
        mistakes.push(Mistake { origin: Origin::Environment(name.to_owned()), field: String::new(), reason });
        return None;
    }
    let near = nearest(name, known.iter().map(String::as_str));
    let near = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    Some(format!("the variable {name} is no setting of weir{near}: it is not looked at"))
}

/// What Kubernetes and Docker set in every container for a service that is called weir.
fn is_of_orchestrator(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The variables of all settings outside of lists.
fn names() -> Vec<String> {
    fn walk(prefix: &str, of: &Value, found: &mut Vec<String>) {
        for (name, of) in schema::properties(of).into_iter().flatten() {
            let name = format!("{prefix}{}", name.to_ascii_uppercase().replace('-', "_"));
            if schema::properties(of).is_some() {
                walk(&format!("{name}{BETWEEN}"), of, found);
            } else if !schema::is_tables(of) {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    walk(PREFIX, schema::schema(), &mut found);
    found
}

fn is_same(name: &str, written: &str) -> bool {
    name.replace('-', "_").eq_ignore_ascii_case(&written.replace('-', "_"))
}

fn in_order(one: &[&str], other: &[&str]) -> Ordering {
    let parts = one.iter().zip(other).map(|(one, other)| match (one.parse::<usize>(), other.parse::<usize>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        _ => one.cmp(other),
    });
    parts.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| one.len().cmp(&other.len()))
}

/// A setting that a file gives in one form (itself, or its `…_file`) is given in the other one here: only the latter counts. Given
/// here in both it is a mistake.
fn take_form(path: &[&str], all: &[&[&str]], root: &mut Node) {
    let Some((last, before)) = path.split_last() else { return };
    let last = last.to_ascii_lowercase();
    let other = last.strip_suffix("_file").map_or_else(|| schema::file_of(&last), ToOwned::to_owned);
    let is_also_given = all.iter().any(|path| {
        path.split_last().is_some_and(|(name, beside)| beside == before && name.eq_ignore_ascii_case(&other))
    });
    if is_also_given {
        return;
    }
    if let Some(entries) = at(root, schema::schema(), before).and_then(Node::entries_mut) {
        entries.remove(&other);
    }
}

/// What is there at a path.
fn at<'a>(node: &'a mut Node, of: &Value, path: &[&str]) -> Option<&'a mut Node> {
    let Some((first, rest)) = path.split_first() else { return Some(node) };
    match &mut node.content {
        Content::Table(entries) => {
            let name = entries.keys().find(|name| is_same(name, first))?.clone();
            let of = schema::properties(of).and_then(|properties| properties.get(&name)).or_else(|| schema::values(of));
            at(entries.get_mut(&name)?, of?, rest)
        }
        Content::List(nodes) => {
            let items = schema::items(of)?;
            let place = place_of(nodes, items, first)?;
            at(nodes.get_mut(place)?, items, rest)
        }
        _ => None,
    }
}

/// The element with this name, or at this place.
fn place_of(nodes: &[Node], items: &Value, written: &str) -> Option<usize> {
    let named = |node: &Node| Some(is_same(node.get(schema::name_of(items)?)?.as_text()?, written));
    let by_name = nodes.iter().position(|node| named(node) == Some(true));
    by_name.or_else(|| written.parse().ok().filter(|place| *place < nodes.len()))
}

fn put(node: &mut Node, of: &Value, path: &[&str], value: Node, of_rules: bool) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        // Where the rest of the table came from is still known.
        *node = Node { name: node.name.clone(), ..value };
        return Ok(());
    };
    let origin = value.origin.clone();
    if schema::is_tables(of) {
        if !matches!(node.content, Content::List(_)) {
            node.content = Content::List(Vec::new());
        }
        let (Content::List(nodes), Some(items)) = (&mut node.content, schema::items(of)) else { return Ok(()) };
        let place = match place_of(nodes, items, first) {
            Some(place) => place,
            None if first.parse() == Ok(nodes.len()) => {
                nodes.push(Node { index: nodes.len(), ..Node::table(origin) });
                nodes.len() - 1
            }
            None => return Err(no_element(nodes, items, first)),
        };
        return nodes.get_mut(place).map_or(Ok(()), |node| put(node, items, rest, value, false));
    }
    let (name, of) = step(node, of, first, of_rules)?;
    let of_rules = name == "settings";
    if node.entries().is_none() {
        *node = Node { name: node.name.clone(), ..Node::table(origin.clone()) };
    }
    let Some(entries) = node.entries_mut() else { return Ok(()) };
    put(entries.entry(name).or_insert_with(|| Node::table(origin)), of, rest, value, of_rules)
}

/// The setting that a part of a name means, and what it is.
fn step<'a>(node: &Node, of: &'a Value, written: &str, of_rules: bool) -> Result<(String, &'a Value), String> {
    if let Some(properties) = schema::properties(of) {
        let found = properties.iter().find(|(name, _)| is_same(name, written));
        return found.map(|(name, of)| (name.clone(), of)).ok_or_else(|| {
            let near = nearest(written, properties.keys().map(String::as_str));
            let near = near.map_or_else(String::new, |near| {
                format!("; did you mean {}?", near.to_ascii_uppercase().replace('-', "_"))
            });
            format!("there is no setting {written}{near}")
        });
    }
    if let Some(values) = schema::values(of) {
        let known = node.entries().and_then(|entries| entries.keys().find(|name| is_same(name, written)));
        // What rules read has hyphens by custom; columns and fields have not.
        let fresh = written.to_ascii_lowercase();
        let fresh = if of_rules { fresh.replace('_', "-") } else { fresh };
        return Ok((known.cloned().unwrap_or(fresh), values));
    }
    Err(format!("there is no setting {written}: what comes before it has no parts; give it as a whole"))
}

fn no_element(nodes: &[Node], items: &Value, written: &str) -> String {
    let name = schema::name_of(items).unwrap_or("name");
    let known = nodes.iter().filter_map(|node| node.get(name)?.as_text()).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "there is none yet".to_owned() } else { format!("there are: {known}") };
    format!(
        "there is no element {written}: write its {name} or its place from 0; {} makes a new one ({known})",
        nodes.len()
    )
}
