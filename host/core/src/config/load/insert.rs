//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` in any text of a configuration; `$${` is a `${` as it stands.
//!
//! What is put in is text and nothing else: it is not read as TOML, nor looked through for further `${`.

use std::collections::BTreeMap;
use std::path::Path;

use super::mistake::{Mistake, nearest};
use super::tree::{Content, Inserted, Node};
use crate::config::secret;

/// Puts in what the texts below a node ask for.
pub(super) fn insert(
    node: &mut Node,
    field: &str,
    environment: &BTreeMap<String, String>,
    mistakes: &mut Vec<Mistake>,
) {
    match &mut node.content {
        Content::Table(entries) => {
            for (name, node) in entries {
                insert(node, &super::join(field, name), environment, mistakes);
            }
        }
        Content::List(nodes) => {
            for node in nodes {
                let field = format!("{field}[{}]", node.index);
                insert(node, &field, environment, mistakes);
            }
        }
        Content::Text(text) if text.contains("${") => match filled(text, environment) {
            Ok((filled, inserted)) => {
                node.is_loose = !inserted.is_empty();
                (node.inserted, *text) = (inserted, filled);
            }
            Err(reason) => {
                mistakes.push(Mistake { origin: node.origin.clone(), field: field.to_owned(), reason });
                node.is_out = true;
            }
        },
        _ => {}
    }
}

fn filled(text: &str, environment: &BTreeMap<String, String>) -> Result<(String, Vec<Inserted>), String> {
    let (mut filled, mut inserted, mut rest) = (String::new(), Vec::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = after;
            continue;
        }
        filled.push_str(before);
        let end = after.find('}').ok_or("`${` is not closed by `}`; write $${ for a `${` that is meant so")?;
        let put = looked_up(&after[..end], environment)?;
        filled.push_str(&put.text);
        inserted.push(put);
        rest = &after[end + 1..];
    }
    filled.push_str(rest);
    Ok((filled, inserted))
}

fn looked_up(asked: &str, environment: &BTreeMap<String, String>) -> Result<Inserted, String> {
    if let Some(path) = asked.strip_prefix("file:") {
        let text = secret::text_of("", Path::new(path))
            .map_err(|error| error.to_string().trim_start_matches(": ").to_owned())?;
        return Ok(Inserted { stand_in: format!("${{{asked}}}"), text });
    }
    let (name, default) = asked.split_once(":-").map_or((asked, None), |(name, default)| (name, Some(default)));
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        return Err(format!("`${{{asked}}}` names no variable: write ${{NAME}}, ${{NAME:-default}} or ${{file:PATH}}"));
    }
    let found = environment.get(name).filter(|text| default.is_none() || !text.is_empty());
    match (found, default) {
        (Some(text), _) => Ok(Inserted { stand_in: format!("${{{name}}}"), text: text.clone() }),
        (None, Some(default)) => Ok(Inserted { stand_in: format!("${{{name}}}"), text: default.to_owned() }),
        (None, None) => {
            let near = nearest(name, environment.keys().map(String::as_str).filter(|known| *known != name));
            let near = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            Err(format!("the variable {name} is not set{near}: set it, or write ${{{name}:-default}}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_put_in_as_it_is() {
        let environment = BTreeMap::from([
            ("HOST".to_owned(), "db".to_owned()),
            ("EMPTY".to_owned(), String::new()),
            ("ODD".to_owned(), "a\"]\n${HOST}".to_owned()),
        ]);
        let filled = |text: &str| filled(text, &environment).map(|(text, _)| text);
        for (text, right) in [
            ("postgres://${HOST}/x", "postgres://db/x"),
            ("${HOST}${HOST}", "dbdb"),
            ("${PORT:-5432}", "5432"),
            ("${HOST:-other}", "db"),
            ("${EMPTY:-other}", "other"),
            ("${EMPTY}", ""),
            ("${PORT:-}", ""),
            ("${PORT:-a:-b}", "a:-b"),
            ("$${HOST}", "${HOST}"),
            ("$5 $$ $ {", "$5 $$ $ {"),
            ("${ODD}", "a\"]\n${HOST}"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(right), "{text}");
        }
        let why = |text: &str| filled(text).unwrap_err();
        assert_eq!(
            why("${HOTS}"),
            "the variable HOTS is not set (did you mean HOST?): set it, or write ${HOTS:-default}"
        );
        assert!(why("${HOST").contains("not closed"));
        for wrong in ["${}", "${a b}", "${1A}", "${A-B}"] {
            assert!(why(wrong).contains("names no variable"), "{wrong}");
        }
        assert!(why("${file:/nowhere/at/all}").starts_with("cannot read /nowhere/at/all: No such file"));
    }
}
