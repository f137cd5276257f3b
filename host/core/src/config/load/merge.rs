//! Several files as one: what comes later overrides what came earlier, setting by setting.
//!
//! A `[[list]]` of tables outside of other lists is one list for all files: an element with a name that is there already (`kind`,
//! `name` or `module`) is laid over it, the others are put behind. Every other list, also one inside such an element, is replaced as a
//! whole. A setting and its `…_file` are one setting in two forms: what comes later takes the place of the other form, too.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tree::{Content, Node};
use crate::config::schema;

/// Lays `later` over `earlier`.
pub(super) fn merge(earlier: &mut Node, later: Node, of: &Value) {
    let (Content::Table(earlier), Content::Table(later)) = (&mut earlier.content, later.content) else { return };
    tables(earlier, later, of, true);
}

fn tables(earlier: &mut BTreeMap<String, Node>, later: BTreeMap<String, Node>, of: &Value, appends: bool) {
    let names: Vec<String> = later.keys().cloned().collect();
    for name in &names {
        let other = name.strip_suffix("_file").map_or_else(|| schema::file_of(name), ToOwned::to_owned);
        if !later.contains_key(&other) {
            earlier.remove(&other);
        }
    }
    for (name, node) in later {
        let of = schema::properties(of).and_then(|properties| properties.get(&name));
        let of = of.unwrap_or_else(|| schema::anything());
        match earlier.get_mut(&name) {
            Some(before) => lay(before, node, of, appends),
            None => drop(earlier.insert(name, node)),
        }
    }
}

fn lay(earlier: &mut Node, later: Node, of: &Value, appends: bool) {
    match (&mut earlier.content, later.content) {
        (Content::Table(before), Content::Table(after)) => {
            tables(before, after, of, appends);
            // A mistake in it is looked for where it was said last.
            earlier.name = later.name.or_else(|| earlier.name.clone());
            earlier.origin = later.origin;
        }
        (Content::List(before), Content::List(after)) if appends && schema::is_tables(of) => {
            let items = schema::items(of).unwrap_or_else(|| schema::anything());
            append(before, after, items);
        }
        (_, content) => *earlier = Node { content, ..later },
    }
}

fn append(earlier: &mut Vec<Node>, later: Vec<Node>, of: &Value) {
    let name = schema::name_of(of);
    let named = |node: &Node| Some(node.get(name?)?.as_text()?.to_owned());
    // Only what an earlier file has named: a name that is twice in one file is a mistake.
    let known = earlier.len();
    for node in later {
        let same = named(&node)
            .and_then(|given| earlier[..known].iter().position(|other| named(other) == Some(given.clone())));
        match same.and_then(|at| earlier.get_mut(at)) {
            Some(before) => lay(before, node, of, false),
            None => {
                let index = earlier.len();
                earlier.push(Node { index, ..node });
            }
        }
    }
}
