//! Dead letters: what is written of a row that can never be stored, and the row that a letter was.
//!
//! Knows no engine. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{CountRow, DeadLetter, DocumentRow, EventRow, Row, RowChange, SettingsRow, SqlError};
use weir_core::config::{KindTable, PreferenceTable};
use weir_core::model::{Action, Digest, Id, Origin, Setting, Settings};

/// Why a count or an event of a target that is gone can never be stored.
pub(super) const TARGET_GONE: &str = "the target is not there any more";

/// The action that the dead letter of a document names.
pub(super) const CREATE: &str = "create";
/// The action that the dead letter of a member's settings names.
const SET: &str = "set";

/// How the action of a row is called in its dead letter.
pub(super) fn action(row: &Row) -> &'static str {
    match row {
        Row::Toggle(RowChange { action: Action::Add, .. }) => "add",
        Row::Toggle(RowChange { action: Action::Remove, .. }) => "remove",
        Row::Count(_) => "count",
        Row::Event(_) => "event",
        Row::Document(_) => CREATE,
        Row::Settings(_) => SET,
    }
}

/// What else is needed to store a row again.
pub(super) fn body(row: &Row) -> Option<String> {
    match row {
        Row::Toggle(_) => None,
        Row::Count(CountRow { by, .. }) | Row::Event(EventRow { by, .. }) => Some(json!({ "by": by }).to_string()),
        Row::Document(document) => Some(document.body.to_string()),
        Row::Settings(row) => Some(Value::Object(row.settings.to_json()).to_string()),
    }
}

/// Canonical text of a row's actor; empty where there is none.
pub(super) fn actor(row: &Row) -> String {
    row.actor().map(Id::to_string).unwrap_or_default()
}

/// The row that a dead letter was.
pub(super) fn replayed(table: &KindTable, letter: &DeadLetter) -> Result<Row, SqlError> {
    let wrong = |what: &str, why: &str| SqlError::Permanent(format!("dead letter {}: {what}: {why}", letter.id));
    let (target_type, actor_type) = table.id_types();
    let target = Id::parse(target_type, &letter.target).map_err(|error| wrong("target", &error.to_string()))?;
    let actor = || Id::parse(actor_type, &letter.actor).map_err(|error| wrong("actor", &error.to_string()));
    let body = letter.body.as_deref();
    let by = || {
        let by = body.and_then(|body| serde_json::from_str::<Value>(body).ok()?.get("by")?.as_u64());
        by.ok_or_else(|| wrong("body", "says no number \"by\""))
    };
    let (partition, position, at_ms) = (letter.partition, letter.position, letter.at_ms);
    let origin = Origin { partition, position, digest: Digest::default(), at_ms };
    Ok(match (table, letter.action.as_str()) {
        (KindTable::Toggle(_), name @ ("add" | "remove")) => {
            let action = if name == "add" { Action::Add } else { Action::Remove };
            Row::Toggle(RowChange { origin, target, actor: actor()?, action })
        }
        (KindTable::Counter(_), "count") => Row::Count(CountRow { origin, target, by: by()? }),
        (KindTable::Counter(table), "event") => {
            if table.events.is_none() {
                return Err(wrong("action", "this kind has no table of events any more"));
            }
            let actor = if letter.actor.is_empty() { None } else { Some(actor()?) };
            Row::Event(EventRow { origin, target, actor, by: by()? })
        }
        (KindTable::Ingest(_), CREATE) => {
            let body = Arc::from(body.ok_or_else(|| wrong("body", "there is none"))?);
            Row::Document(DocumentRow { origin, id: target, actor: actor()?, body })
        }
        (KindTable::Preference(table), SET) => {
            let settings = body.and_then(|body| settings(table, body));
            let settings = settings.ok_or_else(|| wrong("body", "does not fit the fields that are configured now"))?;
            Row::Settings(SettingsRow { origin, member: target, settings })
        }
        (_, other) => return Err(wrong("action", &format!("{other:?} is none of this kind"))),
    })
}

/// The settings that the body of a letter says.
fn settings(table: &PreferenceTable, body: &str) -> Option<Settings> {
    let Ok(Value::Object(fields)) = serde_json::from_str(body) else { return None };
    let read = |(name, value): (&String, &Value)| Setting::from_json(table.field(name)?.field_type, value);
    let values: Vec<Setting> = fields.iter().map(read).collect::<Option<_>>()?;
    Some(Settings::of(fields.keys().map(String::as_str).zip(&values)))
}

/// The newest of the letters of each target, in order.
pub(super) fn newest(targets: &[String], letters: Vec<DeadLetter>) -> Vec<Option<DeadLetter>> {
    let mut found: HashMap<String, DeadLetter> = HashMap::with_capacity(letters.len());
    for letter in letters {
        if found.get(&letter.target).is_none_or(|known| known.id < letter.id) {
            found.insert(letter.target.clone(), letter);
        }
    }
    targets.iter().map(|target| found.get(target).cloned()).collect()
}

/// The dead letter is not there any more.
pub(super) fn no_letter(id: i64) -> sqlx::Error {
    sqlx::Error::InvalidArgument(format!("there is no dead letter {id} any more"))
}

/// A row can still not be stored.
pub(super) fn still_dead(reason: String) -> sqlx::Error {
    sqlx::Error::InvalidArgument(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::config::{CounterConfig, EventTable, IngestConfig, PreferenceConfig, ToggleConfig};

    fn letter(row: &Row) -> DeadLetter {
        DeadLetter {
            id: 1,
            kind: "k".into(),
            partition: row.partition(),
            target: row.target().to_string(),
            actor: actor(row),
            action: action(row).into(),
            body: body(row),
            at_ms: 5,
            incarnation: String::new(),
            position: row.position(),
            digest: String::new(),
            reason: String::new(),
            dead_at_ms: 6,
        }
    }

    #[test]
    fn every_row_comes_back_from_its_letter() {
        let mut counter = CounterConfig::demo().table;
        counter.events = Some(EventTable {
            name: "video_view".into(),
            target_column: "video_id".into(),
            actor_column: "user_id".into(),
            created_at_column: None,
            by_column: None,
        });
        let (toggle, counter) = (KindTable::Toggle(ToggleConfig::demo().table), KindTable::Counter(counter));
        let ingest = KindTable::Ingest(IngestConfig::demo().table);
        let preference = KindTable::Preference(PreferenceConfig::demo().table);
        let origin = Origin { partition: 3, position: 7, digest: Digest::default(), at_ms: 5 };
        let (target, actor) = (Id::Int(1), Id::Int(2));
        let add = RowChange { origin, target: target.clone(), actor: actor.clone(), action: Action::Add };
        let remove = RowChange { action: Action::Remove, ..add.clone() };
        let event = EventRow { origin, target: target.clone(), actor: None, by: 9 };
        let known = EventRow { actor: Some(actor.clone()), ..event.clone() };
        let count = CountRow { origin, target, by: u64::MAX };
        let (id, body) = (Id::Uuid(uuid::Uuid::from_u128(5)), Arc::from("{\"title\":\"é\"}"));
        let document = DocumentRow { origin, id, actor, body };
        let settings = Settings::of([("app_version", &Setting::Text("é1".into())), ("social", &Setting::Bool(false))]);
        let settings = SettingsRow { origin, member: Id::Int(9), settings };
        for (table, row) in [
            (&preference, Row::Settings(settings)),
            (&toggle, Row::Toggle(add)),
            (&toggle, Row::Toggle(remove)),
            (&counter, Row::Count(count)),
            (&counter, Row::Event(event)),
            (&counter, Row::Event(known)),
            (&ingest, Row::Document(document)),
        ] {
            assert_eq!(replayed(table, &letter(&row)), Ok(row.clone()));
            let other = if matches!(table, KindTable::Toggle(_)) { &counter } else { &toggle };
            assert!(matches!(replayed(other, &letter(&row)), Err(SqlError::Permanent(_))));
        }
    }
}
