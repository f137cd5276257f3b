//! The JSON Schema of a configuration, made from the types, and how to ask it. For editors, and for what is said of a mistake.
//!
//! Pure. Marks of its own: `x-weir-secret` (`whole`, or `url`: only its passwords) on what is not shown, `x-weir-needs` for what
//! must be given here or in its `…_file`.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Config;

/// What is shown of a setting with [`SECRET`] `url`.
pub(super) const URL: &str = "url";
const SECRET: &str = "x-weir-secret";
const NEEDS: &str = "x-weir-needs";
/// What names an element of a list of tables, in this order.
const NAMES: [&str; 5] = ["kind", "name", "module", "kid", "field"];

/// The schema (draft 7, which editors know best), without references.
pub fn schema() -> &'static Value {
    static MADE: OnceLock<Value> = OnceLock::new();
    MADE.get_or_init(|| {
        let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
        allow_files(&mut schema);
        if let Some(root) = schema.as_object_mut() {
            root.insert("title".into(), "weir.toml".into());
        }
        schema
    })
}

/// What may be in a file instead is not required by itself.
fn allow_files(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        let has_file = |name: &str| {
            let properties = object.get("properties").and_then(Value::as_object);
            properties.is_some_and(|properties| properties.contains_key(&file_of(name)))
        };
        let required = object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let (needs, required): (Vec<Value>, Vec<Value>) =
            required.into_iter().partition(|name| name.as_str().is_some_and(has_file));
        if !needs.is_empty() {
            object.insert("required".into(), Value::Array(required));
            object.insert(NEEDS.into(), Value::Array(needs));
        }
        object.values_mut().for_each(allow_files);
    } else if let Some(list) = schema.as_array_mut() {
        list.iter_mut().for_each(allow_files);
    }
}

/// The setting that names a file with the value of another one.
pub(super) fn file_of(name: &str) -> String {
    format!("{name}_file")
}

/// What may stand there, without `null`, which TOML has not.
pub(super) fn branches(schema: &Value) -> Vec<&Value> {
    let list = ["anyOf", "oneOf"].iter().find_map(|word| schema.get(word)?.as_array());
    match list {
        Some(list) => list.iter().filter(|branch| !is_null(branch)).flat_map(branches).collect(),
        None => vec![schema],
    }
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// Whether a value of this type (`string`, `integer` …) may stand there.
pub(super) fn admits(schema: &Value, of_type: &str) -> bool {
    branches(schema).into_iter().any(|branch| is_of(branch, of_type))
}

fn is_of(branch: &Value, of_type: &str) -> bool {
    match branch.get("type") {
        Some(Value::String(one)) => one == of_type,
        Some(Value::Array(some)) => some.iter().any(|one| one == of_type),
        _ => of_type == "string" && branch.get("const").is_some_and(Value::is_string),
    }
}

/// The branch for values of this type.
pub(super) fn branch_of<'a>(schema: &'a Value, of_type: &str) -> Option<&'a Value> {
    branches(schema).into_iter().find(|branch| is_of(branch, of_type))
}

/// The words that may stand there, where nothing but words may.
pub(super) fn words(schema: &Value) -> Vec<&str> {
    let found: Option<Vec<Vec<&str>>> = branches(schema).into_iter().map(words_of).collect();
    found.unwrap_or_default().concat()
}

fn words_of(branch: &Value) -> Option<Vec<&str>> {
    match (branch.get("const"), branch.get("enum").and_then(Value::as_array)) {
        (Some(word), _) => Some(vec![word.as_str()?]),
        (None, Some(words)) => Some(words.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

/// The settings of a table.
pub(super) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    branch_of(schema, "object")?.get("properties")?.as_object()
}

/// What each value of a table is whose names are free.
pub(super) fn values(schema: &Value) -> Option<&Value> {
    branch_of(schema, "object")?.get("additionalProperties").filter(|values| values.is_object())
}

/// What each element of a list is.
pub(super) fn items(schema: &Value) -> Option<&Value> {
    branch_of(schema, "array")?.get("items")
}

/// Whether it is a list of tables.
pub(super) fn is_tables(schema: &Value) -> bool {
    items(schema).is_some_and(|items| properties(items).is_some())
}

/// What names an element of a list of tables.
pub(super) fn name_of(items: &Value) -> Option<&'static str> {
    let properties = properties(items)?;
    NAMES.into_iter().find(|name| properties.contains_key(*name))
}

/// What a table cannot do without; the second part is also had from a file.
pub(super) fn required(schema: &Value) -> Vec<&str> {
    let Some(branch) = branch_of(schema, "object") else { return Vec::new() };
    let of = |word: &str| branch.get(word).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    of("required").chain(of(NEEDS)).collect()
}

/// Whether it is a secret, and of which sort.
pub(super) fn secret(schema: &Value) -> Option<&str> {
    schema.get(SECRET).and_then(Value::as_str)
}

/// Least and greatest whole number.
pub(super) fn bounds(schema: &Value) -> (i128, i128) {
    let branch = branch_of(schema, "integer").unwrap_or(schema);
    let of_format = match branch.get("format").and_then(Value::as_str) {
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("int8") => (i8::MIN.into(), i8::MAX.into()),
        Some("int16") => (i16::MIN.into(), i16::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        // TOML has no greater ones.
        Some("uint64" | "uint") => (0, i64::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    };
    let named = |word: &str| branch.get(word).and_then(Value::as_i64).map(i128::from);
    (named("minimum").unwrap_or(of_format.0), named("maximum").unwrap_or(of_format.1))
}

/// Where nothing is known.
pub(super) fn anything() -> &'static Value {
    static MADE: OnceLock<Value> = OnceLock::new();
    MADE.get_or_init(|| json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All settings of the schema: path, schema, the settings beside it.
    fn settings<'a>(path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value, &'a Map<String, Value>)>) {
        if let Some(properties) = properties(schema) {
            for (name, of) in properties {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                found.push((path.clone(), of, properties));
                settings(&path, items(of).unwrap_or(of), found);
            }
        }
    }

    fn all() -> Vec<(String, &'static Value, &'static Map<String, Value>)> {
        let mut found = Vec::new();
        settings("", schema(), &mut found);
        assert!(found.len() > 200, "the walk is blind: {}", found.len());
        found
    }

    #[test]
    fn every_secret_and_url_is_marked_and_may_be_in_a_file() {
        let mut seen = 0;
        for (path, schema, beside) in all() {
            let name = path.rsplit('.').next().unwrap();
            let words: Vec<&str> = name.split('_').collect();
            let is_text = admits(schema, "string");
            let sounds_secret = ["url", "origin", "token", "secret", "password", "key"].contains(words.last().unwrap());
            if is_text && sounds_secret {
                seen += 1;
                assert!(secret(schema).is_some(), "{path} is not marked: #[schemars(extend(\"x-weir-secret\" = …))]");
                assert!(beside.contains_key(&file_of(name)), "{path} has no {name}_file beside it");
            }
        }
        assert!(seen >= 6, "{seen}");
    }

    #[test]
    fn every_list_of_tables_has_names_and_every_setting_says_what_it_is() {
        for (path, schema, _) in all() {
            if is_tables(schema) {
                assert!(name_of(items(schema).unwrap()).is_some(), "{path}: nothing names its elements");
            }
            let says = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(!says.is_empty(), "{path} has no description");
        }
        let mut kinds = words(&schema()["properties"]["store"]["properties"]["type"]);
        kinds.sort_unstable();
        assert_eq!(kinds, ["embedded", "redis", "redis-cluster"]);
    }

    #[test]
    fn numbers_have_bounds() {
        let store = &schema()["properties"]["store"]["properties"];
        assert_eq!(bounds(&store["partitions"]), (0, 65_535));
        assert_eq!(bounds(&store["replicas_min"]), (0, 4_294_967_295));
        assert_eq!(bounds(&store["state_ttl_s"]).0, 0);
    }
}
