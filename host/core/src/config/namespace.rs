//! `store.namespace`: what tells the keys of one database from those of another in a Redis that they share.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest namespace, in bytes.
const NAMESPACE_BYTES_MAX: usize = 64;
/// Where the URL names no database.
const FALLBACK: &str = "weir";

/// A part of every key in Redis: letters, digits, `_`, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

impl Namespace {
    /// The default: the name of the database that a URL names, so that all hosts of a database have the same. Two databases of one
    /// name have the same, too: the second one is refused until it has another.
    pub fn of_database(url: &str) -> Self {
        let name = database_name(url);
        let fit = |c: char| if is_fit(c) { c } else { '-' };
        let name: String = name.chars().map(fit).take(NAMESPACE_BYTES_MAX).collect();
        Self(if name.is_empty() { FALLBACK.into() } else { name })
    }

    /// As it stands in keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Namespace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > NAMESPACE_BYTES_MAX || !text.chars().all(is_fit) {
            return Err(format!(
                "store.namespace: {text:?} must be 1 to {NAMESPACE_BYTES_MAX} letters, digits, `_`, `.` and `-`"
            ));
        }
        Ok(Self(text))
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> Self {
        namespace.0
    }
}

fn is_fit(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Of a server the database, or the user where none is named (which is PostgreSQL's default); of a file its stem.
fn database_name(url: &str) -> &str {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if scheme == "sqlite" {
        let file = place.rsplit('/').next().unwrap_or(place);
        return file.split_once('.').map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem });
    }
    if let Some(named) = query.split('&').find_map(|pair| pair.strip_prefix("dbname=")) {
        return named;
    }
    let (authority, path) =
        place.trim_start_matches('/').split_once('/').unwrap_or((place.trim_start_matches('/'), ""));
    if !path.is_empty() {
        return path;
    }
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.split_once(':').map_or(user, |(user, _)| user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_name_of_the_database() {
        let of = |url: &str| Namespace::of_database(url).as_str().to_owned();
        assert_eq!(of("postgres://weir:secret@db.example:5432/shop?sslmode=require"), "shop");
        assert_eq!(of("postgres://weir:secret@10.0.0.7:6432/shop"), "shop", "through another address");
        assert_eq!(of("postgres://weir@db/?dbname=shop"), "shop");
        assert_eq!(of("postgres://shop:secret@db"), "shop");
        assert_eq!(of("mysql://root@db/shop%2Deu"), "shop-2Deu");
        assert_eq!(of("mysql://db"), "weir");
        assert_eq!((of("sqlite://weir-data/demo.db"), of("sqlite:///srv/demo.db")), ("demo".into(), "demo".into()));
        assert_eq!(of("sqlite://.hidden"), ".hidden");
    }

    #[test]
    fn a_namespace_cannot_end_a_hash_tag_or_a_part_of_a_key() {
        for wrong in ["", "a:b", "a{b", "a*", "a b", &"a".repeat(65)] {
            assert!(Namespace::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(Namespace::try_from("shop_1.eu-west".to_owned()).map(String::from), Ok("shop_1.eu-west".into()));
    }
}
