//! A mistake in a configuration, and how it is told: place, setting, what is wrong and what to write.

use std::fmt;

use super::tree::Origin;

/// A name that is shorter is the beginning of too many.
const BEGINNING_BYTES_MIN: usize = 4;
/// Of more names than these none is told.
const NAMES_MAX: usize = 10;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands.
    pub origin: Origin,
    /// The setting, dotted; empty where it is none.
    pub field: String,
    /// What is wrong and what to write.
    pub reason: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(out, "{}: ", self.origin)?;
        }
        if !self.field.is_empty() {
            write!(out, "{}: ", self.field)?;
        }
        out.write_str(&self.reason)
    }
}

/// One mistake as it is; of several, how many, and a line for each.
pub(crate) fn told(mistakes: &[Mistake]) -> String {
    match mistakes {
        [one] => one.to_string(),
        some => {
            let lines = some.iter().map(|mistake| format!("\n{mistake}"));
            format!("{} mistakes in the configuration{}", some.len(), lines.collect::<String>())
        }
    }
}

/// The known name that is meant, where one is near enough; with what to write.
pub(super) fn meant<'a>(given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(given, known.clone()) {
        return format!("; did you mean {near}?");
    }
    let mut names: Vec<&str> = known.collect();
    names.sort_unstable();
    if names.is_empty() || names.len() > NAMES_MAX {
        return String::new();
    }
    format!("; known here: {}", names.join(", "))
}

/// The name that differs least, if it differs little, or is the beginning of what was written.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let given = plain(given);
    let far = (given.chars().count() / 3).max(1);
    let by_distance = known.map(|name| {
        let distance = strsim::damerau_levenshtein(&given, &plain(name));
        let begins = name.len() >= BEGINNING_BYTES_MIN && given.starts_with(&plain(name));
        (if begins { distance.min(far) } else { distance }, name)
    });
    let (distance, name) = by_distance.min_by_key(|(distance, name)| (*distance, name.len()))?;
    (distance <= far).then_some(name)
}
