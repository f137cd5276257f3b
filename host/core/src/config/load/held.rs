//! `…_file`: a setting that stands in a file of its own, such as a secret that an orchestrator mounts.
//!
//! Both forms at once are a mistake. What a URL needs is put in place here, since it is used all over; keys and tokens are read where
//! they are used, so that a reload reads them anew, and for nobody else.

use serde_json::Value;

use super::mistake::Mistake;
use super::tree::{Content, Node, Origin};
use crate::config::{ConfigError, schema, secret};

/// Reads what a configuration says is in files.
pub(super) fn read(node: &mut Node, of: &Value, field: &str, mistakes: &mut Vec<Mistake>) {
    match &mut node.content {
        Content::List(nodes) => {
            let items = schema::items(of).unwrap_or_else(|| schema::anything());
            for node in nodes {
                let field = format!("{field}[{}]", node.index);
                read(node, items, &field, mistakes);
            }
        }
        Content::Table(_) => {
            let Some(properties) = schema::properties(of) else { return };
            for (name, of) in properties {
                let file = schema::file_of(name);
                if properties.contains_key(&file) {
                    read_one(node, (name, &file), of, field, mistakes);
                }
            }
            for (name, node) in node.entries_mut().into_iter().flatten() {
                let of = properties.get(name).unwrap_or_else(|| schema::anything());
                read(node, of, &super::join(field, name), mistakes);
            }
        }
        _ => {}
    }
}

fn read_one(node: &mut Node, (name, file): (&str, &str), of: &Value, field: &str, mistakes: &mut Vec<Mistake>) {
    let Some(entries) = node.entries_mut() else { return };
    let is_given = entries.contains_key(name);
    let Some(named) = entries.get_mut(file) else { return };
    let field = super::join(field, file);
    if is_given {
        let reason = format!("give {name} or {file}, not both");
        mistakes.push(Mistake { origin: named.name.clone().unwrap_or_else(|| named.origin.clone()), field, reason });
        named.is_out = true;
        return;
    }
    let (true, Some(path)) = (schema::secret(of) == Some(schema::URL), named.as_text()) else { return };
    let path = std::path::PathBuf::from(path);
    let read = secret::text_of(&field, &path);
    let read = read.and_then(|text| match text.trim() {
        "" => Err(ConfigError::Value { field: field.clone(), reason: format!("{} is empty", path.display()) }),
        text => Ok(text.to_owned()),
    });
    match read {
        Ok(text) => drop(entries.insert(name.to_owned(), Node::new(Content::Text(text), Origin::Held(path)))),
        Err(error) => {
            let origin = named.origin.clone();
            let reason = if let ConfigError::Value { reason, .. } = error { reason } else { error.to_string() };
            mistakes.push(Mistake { origin, field, reason });
            // Nobody is told besides that it is missing.
            entries.insert(
                name.to_owned(),
                Node { is_out: true, ..Node::new(Content::Text(String::new()), Origin::Held(path)) },
            );
        }
    }
}
