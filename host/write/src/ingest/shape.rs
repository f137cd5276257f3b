//! The shape of a document: its JSON Schema, its fields, its id.

use std::collections::{BTreeSet, HashSet};

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::Fields;
use weir_core::config::{ConfigError, IngestConfig};
use weir_core::model::{Id, IdType, Violation};
use weir_policy::Contract;
use weir_sql::Unfit;

/// Violations of one document that are reported.
pub(super) const VIOLATIONS_MAX: usize = 20;

/// What documents of one kind look like.
pub(super) struct Shape {
    schema: Option<Validator>,
    /// Fields that have a place in SQL, and of each nested table those of its elements.
    fields: BTreeSet<String>,
    children: Vec<(String, BTreeSet<String>)>,
    id_field: Option<String>,
    id_type: IdType,
    document_bytes_max: usize,
}

impl Shape {
    pub(super) fn new(config: &IngestConfig) -> Result<Self, ConfigError> {
        let wrong = |field: &str, reason: String| ConfigError::Value {
            field: format!("ingest {}: {field}", config.kind),
            reason,
        };
        let (field, text) = match (&config.schema, &config.schema_file) {
            (Some(text), _) => ("schema", Some(text.clone())),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| wrong("schema_file", format!("{}: {error}", path.display())))?;
                ("schema_file", Some(text))
            }
            (None, None) => ("schema", None),
        };
        let schema = match text {
            None => None,
            Some(text) => {
                let parsed: Value =
                    serde_json::from_str(&text).map_err(|error| wrong(field, format!("is not JSON: {error}")))?;
                let validator = jsonschema::draft202012::new(&parsed)
                    .map_err(|error| wrong(field, format!("is not a JSON Schema: {error}")))?;
                Some(validator)
            }
        };
        let table = &config.table;
        let own = table.columns.keys().chain(&config.id_field);
        let of_child =
            |child: &weir_core::config::ChildTable| (child.field.clone(), child.columns.keys().cloned().collect());
        Ok(Self {
            schema,
            fields: own.cloned().chain(table.children.iter().map(|child| child.field.clone())).collect(),
            children: table.children.iter().map(of_child).collect(),
            id_field: config.id_field.clone(),
            id_type: table.id_type,
            document_bytes_max: config.document_bytes_max,
        })
    }

    /// What is wrong with a document, at most [`VIOLATIONS_MAX`]; empty when nothing is.
    pub(super) fn violations(&self, document: &Value) -> Vec<Violation> {
        let mut found = Vec::new();
        let Some(fields) = document.as_object() else {
            report(&mut found, String::new(), "must be a JSON object".into());
            return found;
        };
        for name in fields.keys().filter(|name| !self.fields.contains(*name)) {
            report(&mut found, pointer(&[name]), "is no field of this kind".into());
        }
        for (name, known) in &self.children {
            child_violations(fields.get(name), (name, known), &mut found);
        }
        // What was reported of a field is not reported again of the object that it is in.
        let reported = found.clone();
        for error in self.schema.iter().flat_map(|schema| schema.iter_errors(document)).take(VIOLATIONS_MAX) {
            let path = error.instance_path().to_string();
            let is_reported = |name: &String| {
                let of_field = format!("{path}{}", pointer(&[name]));
                reported.iter().any(|violation| violation.path == of_field)
            };
            match error.kind() {
                ValidationErrorKind::AdditionalProperties { unexpected } if unexpected.iter().all(is_reported) => {}
                _ => report(&mut found, path, error.to_string()),
            }
        }
        if let Some(path) = nul(document, &mut Vec::new()) {
            report(&mut found, path, "holds a NUL character, which not every database can store".into());
        }
        if let Some(id_field) = &self.id_field
            && let Err(reason) = self.id_in(fields.get(id_field))
        {
            report(&mut found, pointer(&[id_field]), reason);
        }
        found
    }

    /// The id that a document brings along; `None` where weir makes ids. The document must have been found good.
    pub(super) fn id_of(&self, document: &Fields) -> Option<Id> {
        let id_field = self.id_field.as_ref()?;
        self.id_in(document.get(id_field)).ok()
    }

    /// That the id of a document does not fit into its column; `None` where weir makes ids.
    pub(super) fn unfit_id(&self, unfit: &Unfit) -> Option<Violation> {
        let message = format!("does not fit: column {} holds {}", unfit.column, unfit.limit);
        Some(Violation { path: pointer(&[self.id_field.as_ref()?]), message })
    }

    /// Whether weir makes the ids.
    pub(super) fn makes_ids(&self) -> bool {
        self.id_field.is_none()
    }

    fn id_in(&self, value: Option<&Value>) -> Result<Id, String> {
        let text = match value {
            None | Some(Value::Null) => return Err("is the id: it must be given".into()),
            Some(Value::String(text)) if self.id_type != IdType::Integer => text.clone(),
            Some(Value::Number(number)) if self.id_type == IdType::Integer => number.to_string(),
            Some(_) => return Err("is the id, and of another type".into()),
        };
        Id::parse(self.id_type, &text).map_err(|error| error.to_string())
    }

    /// Violations of a request's documents with each other: an id twice, and one that is too large.
    pub(super) fn violations_together(&self, documents: &[Fields], texts: &[String]) -> Vec<(usize, Violation)> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for (index, (document, text)) in documents.iter().zip(texts).enumerate() {
            if let Err(message) = self.check_size(text.len()) {
                found.push((index, Violation { path: String::new(), message }));
            }
            if let (Some(id), Some(field)) = (self.id_of(document), &self.id_field)
                && !seen.insert(id)
            {
                found.push((
                    index,
                    Violation { path: pointer(&[field]), message: "is there twice in this request".into() },
                ));
            }
        }
        found
    }
}

/// What a module makes of a document must still be one of its kind: nothing else could be stored.
impl Contract for Shape {
    fn check_document(&self, id: &Id, value: &Value) -> Result<(), String> {
        let same_id = |fields: &Fields| self.makes_ids() || self.id_of(fields).as_ref() == Some(id);
        match self.violations(value).first() {
            Some(violation) => Err(format!("{}: {}", violation.path, violation.message)),
            None if !value.as_object().is_some_and(same_id) => Err("its id is another".into()),
            None => Ok(()),
        }
    }

    fn check_size(&self, bytes: usize) -> Result<(), String> {
        match bytes > self.document_bytes_max {
            true => Err(format!("has {bytes} bytes; at most {} are taken", self.document_bytes_max)),
            false => Ok(()),
        }
    }
}

/// Adds a violation, up to [`VIOLATIONS_MAX`].
fn report(found: &mut Vec<Violation>, path: String, message: String) {
    if found.len() < VIOLATIONS_MAX {
        found.push(Violation { path, message });
    }
}

fn child_violations(value: Option<&Value>, (name, known): (&String, &BTreeSet<String>), found: &mut Vec<Violation>) {
    let elements = match value {
        None | Some(Value::Null) => return,
        Some(Value::Array(elements)) => elements,
        Some(_) => return report(found, pointer(&[name]), "must be an array".into()),
    };
    for (index, element) in elements.iter().enumerate() {
        let at = index.to_string();
        match element {
            // Elements that are kept whole are of any type.
            _ if known.is_empty() => {}
            Value::Object(fields) => {
                for unknown in fields.keys().filter(|field| !known.contains(*field)) {
                    report(found, pointer(&[name, &at, unknown]), "is no field of this kind".into());
                }
            }
            _ => report(found, pointer(&[name, &at]), "must be a JSON object".into()),
        }
    }
}

/// A JSON Pointer (RFC 6901).
fn pointer(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Where the first NUL character is, if there is one.
fn nul(value: &Value, path: &mut Vec<String>) -> Option<String> {
    let here = |path: &[String]| pointer(&path.iter().map(String::as_str).collect::<Vec<_>>());
    match value {
        Value::String(text) => text.contains('\0').then(|| here(path)),
        Value::Array(elements) => elements.iter().enumerate().find_map(|(index, element)| {
            path.push(index.to_string());
            let found = nul(element, path);
            path.pop();
            found
        }),
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            path.push(name.clone());
            let found = if name.contains('\0') { Some(here(path)) } else { nul(field, path) };
            path.pop();
            found
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ingest::check_schema;

    fn paths(shape: &Shape, document: &Value) -> Vec<String> {
        shape.violations(document).into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn the_demo_takes_what_its_schema_says() {
        let shape = Shape::new(&IngestConfig::demo()).unwrap();
        assert_eq!(paths(&shape, &json!({ "title": "a", "tracks": [{ "title": "b", "seconds": 3 }] })), [""; 0]);
        assert_eq!(paths(&shape, &json!({ "tracks": [] })), [""]);
        assert_eq!(paths(&shape, &json!({ "title": 5 })), ["/title"]);
        assert_eq!(paths(&shape, &json!({ "title": "a\0" })), ["/title"]);
        assert_eq!(
            paths(&shape, &json!({ "title": "a", "tracks": [{ "title": "b", "seconds": 1.5 }] })),
            ["/tracks/0/seconds"]
        );
        assert_eq!(paths(&shape, &json!([1])).len(), 1);
        let unknown = json!({ "title": "a", "x": 1, "tracks": [{ "title": "b", "y": 2 }] });
        assert_eq!(paths(&shape, &unknown), ["/x", "/tracks/0/y"], "once each");
    }

    #[test]
    fn a_field_without_a_column_is_refused_without_a_schema_too() {
        let mut config = IngestConfig::demo();
        config.schema = None;
        let shape = Shape::new(&config).unwrap();
        assert_eq!(
            paths(&shape, &json!({ "title": 5, "a/b": 1, "tracks": [{ "x": 1 }, 2] })),
            ["/a~1b", "/tracks/0/x", "/tracks/1"]
        );
        assert_eq!(paths(&shape, &json!({ "tracks": {} })), ["/tracks"]);
    }

    #[test]
    fn an_id_from_outside_is_of_its_type_and_there_once() {
        let mut config = IngestConfig::demo();
        (config.schema, config.id_field, config.table.id_type) = (None, Some("slug".into()), IdType::Text);
        let shape = Shape::new(&config).unwrap();
        assert_eq!(paths(&shape, &json!({ "slug": "a" })), [""; 0]);
        for wrong in [json!({}), json!({ "slug": 5 }), json!({ "slug": "" }), json!({ "slug": null })] {
            assert_eq!(paths(&shape, &wrong), ["/slug"], "{wrong}");
        }
        let document = |slug: &str| json!({ "slug": slug }).as_object().cloned().unwrap();
        let documents = [document("a"), document("b"), document("a")];
        let texts: Vec<String> = documents.iter().map(|document| json!(document).to_string()).collect();
        let found = shape.violations_together(&documents, &texts);
        assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_schema_that_is_none_is_named() {
        let mut config = IngestConfig::demo();
        config.schema = Some(r#"{"type": 5}"#.into());
        assert!(check_schema(&config).unwrap_err().to_string().contains("not a JSON Schema"));
        config.schema = Some("{".into());
        assert!(check_schema(&config).unwrap_err().to_string().contains("not JSON"));
    }
}
