//! `weir explain KIND TARGET [ACTOR]`: asks the running host, or looks itself when none runs.

use hyper::Method;
use serde_json::Value;

use super::client::{AdminAddress, AdminClient, segment};
use super::{Failure, Where};
use crate::app::operations::Operator;

/// Whom to explain.
pub struct Pair {
    /// The kind.
    pub kind: String,
    /// The target's id.
    pub target: String,
    /// The actor's id; only a toggle needs one.
    pub actor: Option<String>,
}

/// Prints everything known of the target, or of the pair.
///
/// # Errors
/// Unknown kind, wrong id, or neither host nor data reachable.
pub async fn run(pair: Pair, place: Where, admin: AdminAddress, json: bool) -> Result<(), Failure> {
    let (config, _) = place.load()?;
    let client = AdminClient::new(&admin, &config.admin)?;
    let mut path = format!("/admin/v1/explain/{}/{}", segment(&pair.kind), segment(&pair.target));
    if let Some(actor) = &pair.actor {
        path = format!("{path}/{}", segment(actor));
    }
    let known = match client.call(Method::GET, &path).await? {
        Some(known) => known,
        None => Operator::open_to_look(config).await?.explain(&pair.kind, &pair.target, pair.actor.as_deref()).await?,
    };
    if json {
        println!("{known}");
    } else {
        print(&known);
    }
    Ok(())
}

/// Sections in the order of the way of a write.
fn print(known: &Value) {
    let text = |name: &str| known.get(name).map_or(String::new(), plain);
    println!("{} target {} actor {} (partition {})", text("kind"), text("target"), text("actor"), text("partition"));
    for (title, name) in [
        ("store", "store"),
        ("sql", "sql"),
        ("checkpoint", "checkpoint"),
        ("dead letters", "dead_letters"),
        ("holes in the journal of its partition", "holes"),
    ] {
        println!("{title}:");
        lines(known.get(name).unwrap_or(&Value::Null), 1);
    }
    if let Some(places) = known.get("look_at") {
        println!("look at:");
        lines(places, 1);
    }
}

fn lines(value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(inner) if !inner.is_empty() => {
                        println!("{indent}{name}:");
                        lines(field, depth + 1);
                    }
                    Value::Array(items) if !items.is_empty() => {
                        println!("{indent}{name}:");
                        lines(field, depth + 1);
                    }
                    _ => println!("{indent}{name}: {}", plain(field)),
                }
            }
        }
        Value::Array(items) if items.is_empty() => println!("{indent}none"),
        Value::Array(items) => items.iter().for_each(|item| match item {
            Value::Object(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, field)| format!("{name} {}", plain(field))).collect();
                println!("{indent}- {}", fields.join(", "));
            }
            other => println!("{indent}- {}", plain(other)),
        }),
        other => println!("{indent}{}", plain(other)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        Value::Array(items) if items.is_empty() => "none".into(),
        other => other.to_string(),
    }
}
