//! Query fields, strictly: a field that is misspelt is refused, not left aside.

use std::borrow::Cow;

use hyper::http::request::Parts;

use super::reply::wrong;
use weir_listener::problem::Problem;
use weir_listener::text::{decode_query_value, query_parts};

/// The fields of a query, decoded, each at most once.
pub(super) struct Query<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the query of `head`, in which only `known` fields may stand.
    ///
    /// # Errors
    /// 400 for a field that is unknown or given twice, and for a value that is not well encoded.
    pub(super) fn read(head: &'a Parts, known: &[&str]) -> Result<Self, Problem> {
        let mut fields: Vec<(&str, Cow<'_, str>)> = Vec::new();
        for (name, value) in query_parts(head.uri.query()) {
            if !known.contains(&name) {
                return Err(wrong(match known {
                    [] => "no query field is known here: leave it out".to_owned(),
                    known => format!("query fields that are known here: {}", known.join(", ")),
                }));
            }
            if fields.iter().any(|(earlier, _)| *earlier == name) {
                return Err(wrong(format!("{name} is given twice: give it once")));
            }
            let value = decode_query_value(value).map_err(|error| wrong(format!("{name}: {error}")))?;
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// The value of a field, if it is given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| &**value)
    }

    /// All fields, in order.
    pub(super) fn into_fields(self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.0.into_iter()
    }

    /// A number from 1 to `max`, or `default` when it is not given.
    ///
    /// # Errors
    /// 400.
    pub(super) fn limit(&self, name: &str, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let parsed = text.parse().ok().filter(|limit| (1..=max).contains(limit));
        parsed.ok_or_else(|| wrong(format!("{name} must be from 1 to {max}")))
    }
}
