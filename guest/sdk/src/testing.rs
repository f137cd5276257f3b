//! What stands for the host in native tests. Per thread, so that tests do not meet.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::Level;
use crate::sql::{Row, Value};

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

#[derive(Default)]
struct Host {
    settings: BTreeMap<(String, String), String>,
    logged: Vec<(Level, String)>,
    keys: BTreeMap<String, Vec<u8>>,
    rows: Vec<(String, Row, Vec<Row>)>,
    unavailable: bool,
}

/// Sets what [`setting`](crate::setting) returns on this thread.
pub fn set(kind: &str, key: &str, value: &str) {
    HOST.with_borrow_mut(|host| host.settings.insert((kind.to_owned(), key.to_owned()), value.to_owned()));
}

/// Takes the lines that were logged on this thread.
pub fn logged() -> Vec<(Level, String)> {
    HOST.with_borrow_mut(|host| std::mem::take(&mut host.logged))
}

/// Puts `value` under `key` for [`redis`](crate::redis); a counter is its decimal digits. Time does not pass here.
pub fn redis_set(key: &str, value: impl Into<Vec<u8>>) {
    HOST.with_borrow_mut(|host| host.keys.insert(key.to_owned(), value.into()));
}

/// What [`redis`](crate::redis) holds under `key`.
pub fn redis_value(key: &str) -> Option<Vec<u8>> {
    HOST.with_borrow(|host| host.keys.get(key).cloned())
}

/// Says which rows [`sql::run`](crate::sql::run) finds for one row of parameters. It finds none for all others.
pub fn sql_rows(statement: &str, parameters: &[Value], rows: &[&[Value]]) {
    let found = rows.iter().map(|row| row.to_vec()).collect();
    HOST.with_borrow_mut(|host| host.rows.push((statement.to_owned(), parameters.to_vec(), found)));
}

/// From now on store and SQL do not answer on this thread.
pub fn granted_are_unavailable() {
    HOST.with_borrow_mut(|host| host.unavailable = true);
}

/// Forgets everything that was set, kept and logged on this thread.
pub fn reset() {
    HOST.take();
}

pub(crate) fn get(kind: &str, key: &str) -> Option<String> {
    HOST.with_borrow(|host| host.settings.get(&(kind.to_owned(), key.to_owned())).cloned())
}

pub(crate) fn log(level: Level, message: &str) {
    HOST.with_borrow_mut(|host| host.logged.push((level, message.to_owned())));
}

/// Stands for the import `redis`, within the host's bounds.
pub(crate) mod redis {
    use super::HOST;
    use crate::redis::{Addition, Entry, Error, ITEMS_MAX};

    const KEY_BYTES_MAX: usize = 255;
    const VALUE_BYTES_MAX: usize = 64 << 10;

    /// `items`: key, bytes of the value, time to live.
    fn check<'a>(items: impl ExactSizeIterator<Item = (&'a str, usize, u32)>) -> Result<(), Error> {
        let invalid = |reason: String| Err(Error::Invalid(reason));
        if items.len() > ITEMS_MAX {
            return invalid(format!("{} are more than {ITEMS_MAX} in one call", items.len()));
        }
        for (key, value_bytes, ttl_ms) in items {
            if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
                return invalid(format!("a key of {} bytes: 1 to {KEY_BYTES_MAX} are allowed", key.len()));
            }
            if value_bytes > VALUE_BYTES_MAX {
                return invalid(format!("a value of {value_bytes} bytes: at most {VALUE_BYTES_MAX}"));
            }
            if ttl_ms == 0 {
                return invalid("a time to live of 0".into());
            }
        }
        if HOST.with_borrow(|host| host.unavailable) {
            return Err(Error::Unavailable("the test says so".into()));
        }
        Ok(())
    }

    pub(crate) fn get(keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        check(keys.iter().map(|key| (key.as_str(), 0, 1)))?;
        Ok(HOST.with_borrow(|host| keys.iter().map(|key| host.keys.get(key).cloned()).collect()))
    }

    pub(crate) fn set(entries: &[Entry]) -> Result<(), Error> {
        check(entries.iter().map(|entry| (entry.key.as_str(), entry.value.len(), entry.ttl_ms)))?;
        let entries = entries.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
        HOST.with_borrow_mut(|host| host.keys.extend(entries));
        Ok(())
    }

    pub(crate) fn increment(additions: &[Addition]) -> Result<Vec<i64>, Error> {
        check(additions.iter().map(|addition| (addition.key.as_str(), 0, addition.ttl_ms)))?;
        HOST.with_borrow_mut(|host| {
            let add = |Addition { key, by, .. }: &Addition| {
                let digits = host.keys.get(key).map_or("0".into(), |value| String::from_utf8_lossy(value));
                let sum = digits.parse::<i64>().ok().and_then(|held| held.checked_add(*by));
                let sum =
                    sum.ok_or_else(|| Error::Invalid(format!("{key:?} holds no counter, or one that is full")))?;
                host.keys.insert(key.clone(), sum.to_string().into_bytes());
                Ok(sum)
            };
            additions.iter().map(add).collect()
        })
    }
}

/// Stands for the import `sql`.
pub(crate) mod sql {
    use super::HOST;
    use crate::sql::{Error, ITEMS_MAX, Row};

    pub(crate) fn run(statement: &str, parameters: &[Row]) -> Result<Vec<Vec<Row>>, Error> {
        if parameters.len() > ITEMS_MAX {
            return Err(Error::Invalid(format!("{} rows of parameters are more than {ITEMS_MAX}", parameters.len())));
        }
        HOST.with_borrow(|host| {
            if host.unavailable {
                return Err(Error::Unavailable("the test says so".into()));
            }
            let found = |given: &Row| {
                let same = |(name, parameters, _): &&(String, Row, Vec<Row>)| name == statement && parameters == given;
                host.rows.iter().find(same).map_or_else(Vec::new, |(_, _, rows)| rows.clone())
            };
            Ok(parameters.iter().map(found).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Addition, Entry, Error};

    #[test]
    fn keys_are_kept_counted_and_bounded() {
        crate::redis::set(&[Entry::new("a", "x", 5)]).unwrap();
        assert_eq!(crate::redis::get(&["a".into(), "b".into()]), Ok(vec![Some(b"x".to_vec()), None]));
        assert_eq!(crate::redis::increment(&[Addition::new("n", 2, 1), Addition::new("n", 3, 1)]), Ok(vec![2, 5]));
        assert_eq!(redis_value("n"), Some(b"5".to_vec()));
        let invalid = |error: Result<Vec<i64>, Error>| matches!(error, Err(Error::Invalid(_)));
        assert!(invalid(crate::redis::increment(&[Addition::new("a", 1, 1)])), "a value is no counter");
        assert!(invalid(crate::redis::increment(&[Addition::new("n", 1, 0)])));
        assert!(invalid(crate::redis::increment(&[Addition::new("", 1, 1)])));
        assert!(crate::redis::get(&vec!["k".into(); 1_001]).is_err());
        assert!(crate::redis::set(&[Entry::new("a", vec![0; 65_537], 1)]).is_err());
        reset();
        assert_eq!(redis_value("n"), None);
    }

    #[test]
    fn rows_are_found_by_statement_and_parameters() {
        sql_rows("tier-of", &[7.into()], &[&["gold".into()]]);
        let run = |statement: &str| crate::sql::run(statement, &[vec![7.into()], vec!["7".into()]]);
        assert_eq!(run("tier-of"), Ok(vec![vec![vec!["gold".into()]], vec![]]));
        assert_eq!(run("other"), Ok(vec![vec![], vec![]]));
        granted_are_unavailable();
        assert!(matches!(run("tier-of"), Err(crate::sql::Error::Unavailable(_))));
    }
}
