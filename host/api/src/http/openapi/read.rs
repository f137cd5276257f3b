//! What is particular to SQL reads.

use serde_json::{Value, json};

use super::parameter;
use weir_core::config::{ParameterType, ReadConfig};

pub(super) fn parameters(read: &ReadConfig) -> Vec<Value> {
    let of = |(name, wanted): (&String, &ParameterType)| {
        let schema = match wanted {
            ParameterType::Integer => json!({ "type": "integer", "format": "int64" }),
            ParameterType::Real => json!({ "type": "number" }),
            ParameterType::Text => json!({ "type": "string", "maxLength": 1_024 }),
        };
        parameter(name, "query", true, &schema, "A parameter of the statement")
    };
    read.parameters.iter().map(of).collect()
}

pub(super) fn success_schema() -> Value {
    let rows = json!({ "type": "array", "items": { "type": "object" } });
    json!({ "type": "object", "properties": { "rows": rows }, "required": ["rows"] })
}
