//! Playlists are tidied before they are stored: the title is trimmed, and words that are not wanted are refused, with the
//! place where they stand.
//!
//! The setting `forbidden` lists the words, with commas between: `spam, casino`. They are found as whole words, in upper and
//! lower case, in the title and in the titles of the tracks.
//!
//! A document comes as text and goes back as text. This crate reads it with `serde_json`; the shape (which fields there are,
//! how long they may be) is the JSON Schema's matter in the kind's configuration, and was checked before. A document that
//! needs no change is answered with `Ok(None)`: it is not written a second time.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use weir_policy_sdk::{Document, Ingest, Verdict, Violation, export, setting};

struct CleanPlaylist;

impl Ingest for CleanPlaylist {
    fn validate(kind: &str, _now_ms: u64, batch: &[Document]) -> Vec<Verdict> {
        let forbidden = setting(kind, "forbidden").unwrap_or_default().to_lowercase();
        let forbidden: BTreeSet<&str> = forbidden.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        batch.iter().map(|document| judge(&document.body, &forbidden)).collect()
    }
}

fn judge(body: &str, forbidden: &BTreeSet<&str>) -> Verdict {
    let whole = |error: serde_json::Error| vec![Violation::new("", error.to_string())];
    let mut fields: Map<String, Value> = serde_json::from_str(body).map_err(whole)?;
    let mut violations: Vec<Violation> =
        titles(&fields).into_iter().filter_map(|(path, title)| unwanted(path, title, forbidden)).collect();
    let title = fields.get("title").and_then(Value::as_str).unwrap_or_default();
    let trimmed = title.trim().to_owned();
    let is_trimmed = trimmed.len() < title.len();
    if is_trimmed && trimmed.is_empty() {
        violations.push(Violation::new("/title", "is blank"));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    if !is_trimmed {
        return Ok(None);
    }
    fields.insert("title".into(), trimmed.into());
    Ok(Some(Value::Object(fields).to_string()))
}

/// Every title, and where it stands.
fn titles(fields: &Map<String, Value>) -> Vec<(String, &str)> {
    let own = fields.get("title").and_then(Value::as_str).map(|title| ("/title".to_owned(), title));
    let tracks = fields.get("tracks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_tracks = tracks
        .iter()
        .enumerate()
        .filter_map(|(index, track)| Some((format!("/tracks/{index}/title"), track.get("title")?.as_str()?)));
    own.into_iter().chain(of_tracks).collect()
}

/// The violation of a title that holds a forbidden word.
fn unwanted(path: String, title: &str, forbidden: &BTreeSet<&str>) -> Option<Violation> {
    let lower = title.to_lowercase();
    let word = lower.split(|c: char| !c.is_alphanumeric()).find(|word| forbidden.contains(word))?;
    Some(Violation::new(path, format!("the word {word:?} is not wanted here")))
}

export!(CleanPlaylist: ingest);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_policy_sdk::{testing, vectors};

    #[test]
    fn the_cases_hold() {
        vectors::check::<CleanPlaylist>(include_str!("../cases.json"));
    }

    #[test]
    fn what_needs_no_change_is_not_written_again() {
        let judge = |body: &str| CleanPlaylist::validate("playlist", 0, &[Document::new("a", 7, body)]).remove(0);
        assert_eq!(judge(r#"{"title":"Jazz","tracks":[]}"#), Ok(None));
        assert_eq!(judge(r#"{"title":" Jazz "}"#), Ok(Some(r#"{"title":"Jazz"}"#.into())));
    }

    #[test]
    fn only_whole_words_are_forbidden() {
        testing::set("playlist", "forbidden", "Spam");
        let batch = [r#"{"title":"Spamalot"}"#, r#"{"title":"SPAM!"}"#].map(|body| Document::new(1, 7, body));
        let verdicts = CleanPlaylist::validate("playlist", 0, &batch);
        assert_eq!(verdicts[0], Ok(None));
        assert_eq!(verdicts[1], Err(vec![Violation::new("/title", "the word \"spam\" is not wanted here")]));
    }
}
