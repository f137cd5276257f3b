//! `weir explain KIND TARGET [ACTOR]`: asks the running host, or looks itself when none runs.

use hyper::Method;
use serde::Serialize;
use serde_json::Value;

use super::client::{AdminAddress, AdminClient, segment};
use super::{Failure, Where};
use crate::app::operations::Operator;
use crate::operators::{Explanation, to_text};

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
    let known: Explanation = match client.call(Method::GET, &path).await? {
        Some(known) => known,
        None => Operator::open_to_look(config).await?.explain(&pair.kind, &pair.target, pair.actor.as_deref()).await?,
    };
    if json {
        println!("{}", to_text(&known));
    } else {
        print(&known);
    }
    Ok(())
}

/// Sections in the order of the way of a write.
fn print(known: &Explanation) {
    let (target, actor) = (&known.target, known.actor.as_ref().map_or_else(|| "none".into(), ToString::to_string));
    let partition = known.partition.map_or_else(|| "none".into(), |partition| partition.to_string());
    println!("{} target {target} actor {actor} (partition {partition})", known.kind);
    section("store", &known.store);
    section("sql", &known.sql);
    section("checkpoint", &known.checkpoint);
    section("dead letters", &known.dead_letters);
    section("holes in the journal of its partition", &known.holes);
    if let Some(places) = &known.look_at {
        section("look at", places);
    }
}

/// Whatever is in it, as a tree.
fn section(title: &str, part: &impl Serialize) {
    println!("{title}:");
    lines(&serde_json::to_value(part).unwrap_or_default(), 1);
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
