//! Rows as JSON: `{"rows":[{"id":1,…},…]}`, in the order of the columns.

use weir_core::model::SqlValue;
use weir_listener::text::{push, push_json_string};

/// The names of the columns as JSON keys.
pub(super) struct Columns(Vec<Vec<u8>>);

impl Columns {
    pub(super) fn new(names: &[String]) -> Self {
        let json = |name: &String| {
            let mut json = Vec::new();
            push_json_string(&mut json, name);
            json.push(b':');
            json
        };
        Self(names.iter().map(json).collect())
    }

    pub(super) fn json(&self, rows: &[Vec<SqlValue>]) -> Vec<u8> {
        let mut json = b"{\"rows\":[".to_vec();
        for (index, row) in rows.iter().enumerate() {
            json.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            for (place, (name, value)) in self.0.iter().zip(row).enumerate() {
                if place > 0 {
                    json.push(b',');
                }
                json.extend_from_slice(name);
                push_value(&mut json, value);
            }
            json.push(b'}');
        }
        json.extend_from_slice(b"]}");
        json
    }
}

fn push_value(json: &mut Vec<u8>, value: &SqlValue) {
    match value {
        SqlValue::Null => json.extend_from_slice(b"null"),
        SqlValue::Integer(number) => push(json, format_args!("{number}")),
        // JSON has no infinity.
        SqlValue::Real(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => push(json, format_args!("{number}")),
            None => json.extend_from_slice(b"null"),
        },
        SqlValue::Text(text) => push_json_string(json, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_json() {
        let columns = Columns::new(&["id".into(), "a\"b".into()]);
        let rows = [
            vec![SqlValue::Integer(1), SqlValue::Text("x\n".into())],
            vec![SqlValue::Real(0.5), SqlValue::Null],
            vec![SqlValue::Real(f64::NAN), SqlValue::Real(2.0)],
        ];
        let text = String::from_utf8(columns.json(&rows)).unwrap();
        assert_eq!(text, r#"{"rows":[{"id":1,"a\"b":"x\u000a"},{"id":0.5,"a\"b":null},{"id":null,"a\"b":2.0}]}"#);
        assert_eq!(columns.json(&[]), b"{\"rows\":[]}");
    }
}
