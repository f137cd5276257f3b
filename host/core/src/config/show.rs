//! What is in force, setting by setting, and where it comes from. Secrets are not shown.

use std::fmt::Write;

use serde_json::Value;

use super::load::{Content, Loaded, Node, Origin};
use super::schema::{self, schema as whole};
use super::secret::{HIDDEN, is_secret_name, without_password};

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Its path, dotted; elements of lists by their place.
    pub setting: String,
    /// What holds, secrets hidden.
    pub value: Value,
    /// Where it comes from.
    pub origin: String,
}

/// All that is in force.
pub fn shown(loaded: &Loaded) -> Vec<Shown> {
    let mut found = Vec::new();
    let value = serde_json::to_value(&loaded.config).unwrap_or_default();
    walk("", &value, Some(&loaded.root), whole(), &mut found);
    found
}

fn walk(path: &str, value: &Value, node: Option<&Node>, of: &Value, found: &mut Vec<Shown>) {
    match value {
        Value::Null => {}
        Value::Object(entries) => {
            let is_table = |value: &Value, of: &Value| {
                value.is_object() || (value.as_array().is_some_and(|list| !list.is_empty()) && schema::is_tables(of))
            };
            let of_name = |name: &str| {
                let known = schema::properties(of).and_then(|properties| properties.get(name));
                known.or_else(|| schema::values(of)).unwrap_or_else(|| schema::anything())
            };
            // Settings of a table stand before the tables in it.
            let (tables, plain): (Vec<_>, Vec<_>) =
                entries.iter().partition(|(name, value)| is_table(value, of_name(name)));
            for (name, value) in plain.into_iter().chain(tables) {
                let known = of_name(name);
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{}", key(name)) };
                // Among the names that nobody here knows, those of secrets say so.
                let is_free = schema::properties(of).is_none();
                if is_free && is_secret_name(name) && value.is_string() {
                    found.push(Shown {
                        setting: path,
                        value: HIDDEN.into(),
                        origin: origin(node.and_then(|node| node.get(name))),
                    });
                } else {
                    walk(&path, value, node.and_then(|node| node.get(name)), known, found);
                }
            }
        }
        Value::Array(elements) if schema::is_tables(of) && !elements.is_empty() => {
            let items = schema::items(of).unwrap_or_else(|| schema::anything());
            for (place, value) in elements.iter().enumerate() {
                let node = node
                    .and_then(|node| if let Content::List(nodes) = &node.content { nodes.get(place) } else { None });
                walk(&format!("{path}[{place}]"), value, node, items, found);
            }
        }
        value => found.push(Shown { setting: path.to_owned(), value: hidden(value, of), origin: origin(node) }),
    }
}

fn origin(node: Option<&Node>) -> String {
    let Some(node) = node else { return Origin::Default.to_string() };
    let mut said = node.origin.to_string();
    for inserted in &node.inserted {
        let _ = write!(said, ", {}", inserted.stand_in);
    }
    said
}

fn hidden(value: &Value, of: &Value) -> Value {
    match (schema::secret(of), value) {
        (Some(schema::URL), Value::String(url)) => without_password(url).into(),
        (Some(_), Value::String(_)) => HIDDEN.into(),
        // A URL may stand where nobody expects one.
        (None, Value::String(text)) if text.contains("://") && text.contains('@') => without_password(text).into(),
        _ => value.clone(),
    }
}

/// A name as it is written in TOML.
fn key(name: &str) -> String {
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_plain { name.to_owned() } else { Value::from(name).to_string() }
}

impl Loaded {
    /// As TOML, with where each value comes from behind it.
    pub fn to_text(&self) -> String {
        let (mut text, mut table) = (String::new(), String::new());
        for shown in shown(self) {
            let (of, name) = split(&shown.setting);
            if of != table {
                table = of.to_owned();
                let _ = write!(text, "\n{}\n", header(of));
            }
            let line = format!("{name} = {}", in_toml(&shown.value));
            let _ = writeln!(text, "{line:<48} # {}", shown.origin);
        }
        text.trim_start().to_owned()
    }
}

/// The table of a setting and its name there.
fn split(setting: &str) -> (&str, &str) {
    let at = if setting.ends_with('"') { setting.find(".\"") } else { setting.rfind('.') };
    at.map_or(("", setting), |at| (&setting[..at], &setting[at + 1..]))
}

/// The table's line: elements of lists by `[[…]]`, what is in one by its list's name.
fn header(table: &str) -> String {
    let plain = |path: &str| {
        let parts = path.split('.').map(|part| part.split('[').next().unwrap_or(part));
        parts.collect::<Vec<_>>().join(".")
    };
    if table.ends_with(']') { format!("[[{}]]", plain(table)) } else { format!("[{}]", plain(table)) }
}

fn in_toml(value: &Value) -> String {
    match value {
        Value::Array(elements) => format!("[{}]", elements.iter().map(in_toml).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(name, value)| format!("{} = {}", key(name), in_toml(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        // What JSON and TOML write alike, but for the rest of the control characters.
        Value::String(text) => Value::from(text.as_str()).to_string().replace('\u{7f}', "\\u007f"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn what_is_shown_is_what_holds_and_can_be_read_again() {
        let demo = Config::demo("data".as_ref());
        let loaded = Sources::built_in(demo.clone()).load().unwrap();
        assert_eq!(loaded.config, demo);
        let text = loaded.to_text();
        let again: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again, demo, "{text}");
        assert!(shown(&loaded).iter().all(|shown| shown.origin == "default"));
    }
}
