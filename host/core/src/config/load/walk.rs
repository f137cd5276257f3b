//! What the schema says of a configuration: unknown names, wrong types, numbers out of bounds, words that are none, what is missing.
//!
//! Everything is looked at; what is a mistake is marked as out, so that the rest can be judged by itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::mistake::{Mistake, meant};
use super::tree::{Content, Node, Origin, value_of};
use super::{hide, join};
use crate::config::schema;

/// Checks a node against what may stand there.
pub(super) fn check(node: &mut Node, of: &Value, field: &str, mistakes: &mut Vec<Mistake>) {
    if node.is_out {
        return;
    }
    read_loose(node, of);
    let words = schema::words(of);
    if !words.is_empty() {
        return check_word(node, of, &words, field, mistakes);
    }
    let found = node.type_name();
    let is_whole_float = found == "integer" && !schema::admits(of, "integer") && schema::admits(of, "number");
    if let (true, Content::Integer(number)) = (is_whole_float, &node.content) {
        #[expect(clippy::cast_precision_loss, reason = "a whole number for a setting that may have a fraction")]
        let number = *number as f64;
        node.content = Content::Float(number);
        return;
    }
    let is_known = of.get("type").is_some() || schema::branches(of).len() > 1;
    if is_known && !schema::admits(of, found) {
        let reason = format!("must be {}, is {}", wanted(of), what(node));
        return out(node, of, field, reason, mistakes);
    }
    match &mut node.content {
        Content::Integer(number) => {
            let (least, most) = schema::bounds(of);
            let given = i128::from(*number);
            if !(least..=most).contains(&given) {
                let reason = format!("must be from {least} to {most}, is {given}");
                out(node, of, field, reason, mistakes);
            }
        }
        Content::List(nodes) => {
            let items = schema::items(of).unwrap_or_else(|| schema::anything());
            for node in nodes {
                let field = format!("{field}[{}]", node.index);
                check(node, items, &field, mistakes);
            }
        }
        Content::Table(_) => check_table(node, of, field, mistakes),
        _ => {}
    }
}

fn check_table(node: &mut Node, of: &Value, field: &str, mistakes: &mut Vec<Mistake>) {
    let here = node.name.clone().unwrap_or_else(|| node.origin.clone());
    let Some(entries) = node.entries_mut() else { return };
    let Some(properties) = schema::properties(of) else {
        let values = schema::values(of).unwrap_or_else(|| schema::anything());
        return entries.iter_mut().for_each(|(name, node)| check(node, values, &join(field, name), mistakes));
    };
    let given: Vec<String> = entries.keys().cloned().collect();
    for (name, node) in entries.iter_mut() {
        let field = join(field, name);
        match properties.get(name) {
            Some(of) => check(node, of, &field, mistakes),
            None => {
                // What is there already is not what was meant.
                let free = properties.keys().filter(|known| !given.contains(known)).map(String::as_str);
                let reason = format!("there is no such setting{}", meant(name, free));
                let origin = node.name.clone().unwrap_or_else(|| node.origin.clone());
                mistakes.push(Mistake { origin, field, reason });
                node.is_out = true;
            }
        }
    }
    for name in schema::required(of) {
        if !entries.contains_key(name) {
            let example = properties.get(name).map_or_else(String::new, example);
            mistakes.push(Mistake {
                origin: here.clone(),
                field: join(field, name),
                reason: format!("is missing{example}"),
            });
            node_is_missing(entries, name);
        }
    }
}

/// Marks the place of what is missing, so that its table is left out of what is looked at further.
fn node_is_missing(entries: &mut BTreeMap<String, Node>, name: &str) {
    let absent = Node { is_out: true, ..Node::new(Content::Text(String::new()), Origin::Default) };
    entries.insert(name.to_owned(), absent);
}

fn check_word(node: &mut Node, of: &Value, words: &[&str], field: &str, mistakes: &mut Vec<Mistake>) {
    let Some(given) = node.as_text() else {
        let reason = format!("must be one of {}, is {}", words.join(", "), what(node));
        return out(node, of, field, reason, mistakes);
    };
    if !words.contains(&given) {
        let near = super::mistake::nearest(given, words.iter().copied());
        let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        let reason = format!("{given:?} is none of {}{near}", words.join(", "));
        out(node, of, field, reason, mistakes);
    }
}

fn out(node: &mut Node, of: &Value, field: &str, reason: String, mistakes: &mut Vec<Mistake>) {
    mistakes.push(Mistake { origin: node.origin.clone(), field: field.to_owned(), reason: hide(reason, node, of) });
    node.is_out = true;
}

/// A text from outside of a file is what the setting asks for. Where a text may stand, it stays one unless it can only be meant as
/// something else: a list, or a number or `true` where these may stand, too.
fn read_loose(node: &mut Node, of: &Value) {
    let (true, Some(text)) = (node.is_loose, node.as_text()) else { return };
    let has_text = !schema::words(of).is_empty() || schema::admits(of, "string");
    let types = ["integer", "number", "boolean", "array", "object"];
    if has_text && !types.iter().any(|of_type| schema::admits(of, of_type)) {
        return;
    }
    let Some(read) = value_of(text, &node.origin) else { return };
    if schema::admits(of, read.type_name()) || (read.type_name() == "integer" && schema::admits(of, "number")) {
        node.content = read.content;
        node.is_loose = false;
    }
}

fn wanted(of: &Value) -> String {
    let types = [
        ("boolean", "true or false"),
        ("integer", "a whole number"),
        ("number", "a number"),
        ("string", "text between quotes"),
        ("array", "a list"),
        ("object", "a table"),
    ];
    let names = types.iter().filter(|(of_type, _)| schema::admits(of, of_type)).map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(" or ")
}

/// What stands there, in short.
fn what(node: &Node) -> String {
    match &node.content {
        Content::Text(text) => format!("the text {text:?}"),
        Content::Integer(number) => number.to_string(),
        Content::Float(number) => number.to_string(),
        Content::Boolean(value) => value.to_string(),
        Content::Time(text) => text.clone(),
        Content::List(_) => "a list".to_owned(),
        Content::Table(_) => "a table".to_owned(),
    }
}

fn example(of: &Value) -> String {
    let words = schema::words(of);
    if !words.is_empty() {
        return format!(": write one of {}", words.join(", "));
    }
    let said = of.get("description").and_then(Value::as_str).unwrap_or_default();
    let sentence = said.split(['.', ':', ';']).next().unwrap_or_default().replace('\n', " ");
    if sentence.is_empty() { String::new() } else { format!(" ({})", sentence.trim_end_matches('.')) }
}
