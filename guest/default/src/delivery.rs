//! The default rules of preferences: who gets a push on a topic. Pure, and columnar: one call judges thousands of members.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `topic:<name>` | of the configuration | the fields that a topic needs, separated by commas |
//! | `quiet-from-field` | `quiet_from` | field with the minute of the day (UTC) at which a member's quiet hours begin |
//! | `quiet-until-field` | `quiet_until` | field with the minute at which they end; the same as the first: no quiet hours |
//! | `version-field` | `app_version` | field with the version of a member's app, such as `2.10.1`; empty: not known |
//! | `version-min` | empty | oldest version that can show the push; empty: every version |
//!
//! Every field of a topic that is on or off must be on: the master switch and the topic's own are two of them.

/// Minutes of a day.
const DAY_MINUTES: i64 = 1_440;

/// The values of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values<'a> {
    /// On or off.
    Bools(&'a [bool]),
    /// Integers.
    Ints(&'a [i64]),
    /// Texts.
    Texts(Vec<&'a str>),
}

/// A field and its values, one for each member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column<'a> {
    /// Its name.
    pub field: &'a str,
    /// Its values.
    pub values: Values<'a>,
}

/// What an operator may set for a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    quiet_from: String,
    quiet_until: String,
    version: String,
    version_min: String,
}

impl Settings {
    /// Reads the settings through `get`.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let or = |key: &str, default: &str| get(key).unwrap_or_else(|| default.to_owned());
        Self {
            quiet_from: or("quiet-from-field", "quiet_from"),
            quiet_until: or("quiet-until-field", "quiet_until"),
            version: or("version-field", "app_version"),
            version_min: or("version-min", "").trim().to_owned(),
        }
    }
}

/// The fields that a topic needs, by its setting; empty where there is no such topic.
pub fn fields(setting: Option<&str>) -> Vec<String> {
    let names = setting.unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
}

/// Whether each of so many members gets it at `now_ms`.
pub fn enabled(settings: &Settings, now_ms: u64, members: usize, columns: &[Column<'_>]) -> Vec<bool> {
    let mut enabled = vec![true; members];
    let ints = |name: &str| {
        columns.iter().find_map(|column| match &column.values {
            Values::Ints(values) if column.field == name => Some(*values),
            _ => None,
        })
    };
    for column in columns {
        match &column.values {
            Values::Bools(values) => {
                enabled.iter_mut().zip(*values).for_each(|(enabled, value)| *enabled &= *value);
            }
            Values::Texts(values) if column.field == settings.version && !settings.version_min.is_empty() => {
                let fits = |version: &str| version.is_empty() || is_at_least(version, &settings.version_min);
                enabled.iter_mut().zip(values).for_each(|(enabled, version)| *enabled &= fits(version));
            }
            Values::Ints(_) | Values::Texts(_) => {}
        }
    }
    if let (Some(from), Some(until)) = (ints(&settings.quiet_from), ints(&settings.quiet_until)) {
        let minute = i64::try_from(now_ms / 60_000).unwrap_or(0) % DAY_MINUTES;
        let quiet = from.iter().zip(until).map(|(from, until)| is_within(minute, *from, *until));
        enabled.iter_mut().zip(quiet).for_each(|(enabled, quiet)| *enabled &= !quiet);
    }
    enabled
}

/// Whether a minute of the day lies in the hours from one minute up to another, which may be past midnight.
fn is_within(minute: i64, from: i64, until: i64) -> bool {
    if from <= until { (from..until).contains(&minute) } else { minute >= from || minute < until }
}

/// Whether a version is no older than another: numbers between dots are compared one by one, what is no number counts as 0.
fn is_at_least(version: &str, least: &str) -> bool {
    let mut parts = version.split('.').map(number);
    let mut least = least.split('.').map(number);
    loop {
        match (parts.next(), least.next()) {
            (None, None) => return true,
            (part, wanted) => {
                let (part, wanted) = (part.unwrap_or(0), wanted.unwrap_or(0));
                if part != wanted {
                    return part > wanted;
                }
            }
        }
    }
}

/// The number that a part of a version begins with.
fn number(part: &str) -> u64 {
    let end = part.bytes().take_while(u8::is_ascii_digit).count();
    part[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)]) -> Settings {
        Settings::read(|key| set.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()))
    }

    fn column<'a>(field: &'a str, values: Values<'a>) -> Column<'a> {
        Column { field, values }
    }

    #[test]
    fn every_switch_must_be_on() {
        let columns = [
            column("enabled", Values::Bools(&[true, true, false, false])),
            column("social", Values::Bools(&[true, false, true, false])),
        ];
        assert_eq!(enabled(&settings(&[]), 0, 4, &columns), [true, false, false, false]);
        assert_eq!(enabled(&settings(&[]), 0, 2, &[]), [true, true]);
    }

    #[test]
    fn quiet_hours_may_cross_midnight() {
        let at = |minute: u64| {
            let columns = [
                column("quiet_from", Values::Ints(&[1_320, 60, 0])),
                column("quiet_until", Values::Ints(&[420, 120, 0])),
            ];
            enabled(&settings(&[]), minute * 60_000, 3, &columns)
        };
        assert_eq!(at(0), [false, true, true]);
        assert_eq!(at(60), [false, false, true]);
        assert_eq!(at(119), [false, false, true]);
        assert_eq!(at(120), [false, true, true]);
        assert_eq!(at(420), [true, true, true]);
        assert_eq!(at(1_320 + 1_440), [false, true, true]);
    }

    #[test]
    fn an_app_that_is_too_old_gets_nothing() {
        let of = |least: &str| {
            let columns = [column("app_version", Values::Texts(vec!["2.9", "2.10.1", "", "3", "2.10-beta"]))];
            enabled(&settings(&[("version-min", least)]), 0, 5, &columns)
        };
        assert_eq!(of(""), [true; 5]);
        assert_eq!(of("2.10"), [false, true, true, true, true]);
        assert_eq!(of("2.10.2"), [false, false, true, true, false]);
    }

    #[test]
    fn a_topic_names_its_fields() {
        assert_eq!(fields(Some("enabled, social ,")), ["enabled", "social"]);
        assert!(fields(None).is_empty());
    }
}
