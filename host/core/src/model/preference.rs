//! Preferences: the settings of members, and what is changed of them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Id;

/// Longest name of a field, in bytes.
pub const FIELD_NAME_BYTES_MAX: usize = 63;
/// Longest text of a setting, in bytes.
pub const SETTING_TEXT_BYTES_MAX: usize = 1_000;

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SettingType {
    /// On or off.
    Bool,
    /// A signed 64-bit integer.
    Int,
    /// Text of at most [`SETTING_TEXT_BYTES_MAX`] bytes.
    Text,
}

impl SettingType {
    /// Its word in configuration and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Text => "text",
        }
    }
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Setting {
    /// See [`SettingType::Bool`].
    Bool(bool),
    /// See [`SettingType::Int`].
    Int(i64),
    /// See [`SettingType::Text`].
    Text(Arc<str>),
}

impl Setting {
    /// Its type.
    pub fn setting_type(&self) -> SettingType {
        match self {
            Self::Bool(_) => SettingType::Bool,
            Self::Int(_) => SettingType::Int,
            Self::Text(_) => SettingType::Text,
        }
    }

    /// As a JSON value.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Text(value) => value.as_ref().into(),
        }
    }

    /// The value of a field of `setting_type` in a JSON value; `None` where it is none, or longer than a text may be.
    pub fn from_json(setting_type: SettingType, value: &serde_json::Value) -> Option<Self> {
        match setting_type {
            SettingType::Bool => value.as_bool().map(Self::Bool),
            SettingType::Int => value.as_i64().map(Self::Int),
            SettingType::Text => {
                // No engine of all holds NUL.
                let text = value.as_str().filter(|text| text.len() <= SETTING_TEXT_BYTES_MAX && !text.contains('\0'));
                text.map(|text| Self::Text(text.into()))
            }
        }
    }
}

/// Settings of one member, all or some of them, packed: names and values, each name once. Part of the data format of stores
/// and journal.
///
/// ```text
/// record = length of the name u8 · name · ('y' | 'n' | 'i' i64 LE | 't' length u16 LE · UTF-8)
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings(Arc<[u8]>);

/// A value as it lies in [`Settings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingRef<'a> {
    /// See [`SettingType::Bool`].
    Bool(bool),
    /// See [`SettingType::Int`].
    Int(i64),
    /// See [`SettingType::Text`].
    Text(&'a str),
}

impl SettingRef<'_> {
    /// The value by itself.
    pub fn to_setting(self) -> Setting {
        match self {
            Self::Bool(value) => Setting::Bool(value),
            Self::Int(value) => Setting::Int(value),
            Self::Text(value) => Setting::Text(value.into()),
        }
    }
}

impl Settings {
    /// Packs names and values. Names and texts are as short as their limits say; longer ones are left out.
    pub fn of<'a>(fields: impl IntoIterator<Item = (&'a str, &'a Setting)>) -> Self {
        let mut packed = Vec::with_capacity(64);
        for (name, value) in fields {
            let (Ok(length), true) = (u8::try_from(name.len()), fits(value)) else { continue };
            packed.push(length);
            packed.extend_from_slice(name.as_bytes());
            match value {
                Setting::Bool(value) => packed.push(if *value { b'y' } else { b'n' }),
                Setting::Int(value) => {
                    packed.push(b'i');
                    packed.extend_from_slice(&value.to_le_bytes());
                }
                Setting::Text(text) => {
                    packed.push(b't');
                    packed.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
                    packed.extend_from_slice(text.as_bytes());
                }
            }
        }
        Self(packed.into())
    }

    /// What was packed; `None` where the bytes are not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, _, rest) = split(rest)?;
        }
        Some(Self(bytes.into()))
    }

    /// As packed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SettingRef<'_>)> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (name, value, later) = split(rest)?;
            rest = later;
            Some((name, value))
        })
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<SettingRef<'_>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// These, laid over others: of a field that is in both, this value.
    pub fn over(&self, below: &Self) -> Self {
        if below.is_empty() {
            return self.clone();
        }
        let mut packed = Vec::with_capacity(self.0.len() + below.0.len());
        let mut rest = &below.0[..];
        while let Some((name, _, later)) = split(rest) {
            if self.get(name).is_none() {
                packed.extend_from_slice(&rest[..rest.len() - later.len()]);
            }
            rest = later;
        }
        packed.extend_from_slice(&self.0);
        Self(packed.into())
    }

    /// As a JSON object.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_setting().to_json())).collect()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn fits(value: &Setting) -> bool {
    !matches!(value, Setting::Text(text) if text.len() > SETTING_TEXT_BYTES_MAX)
}

/// The first record, and what follows it.
fn split(bytes: &[u8]) -> Option<(&str, SettingRef<'_>, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let name = std::str::from_utf8(name).ok()?;
    let (letter, rest) = rest.split_first()?;
    match letter {
        b'y' | b'n' => Some((name, SettingRef::Bool(*letter == b'y'), rest)),
        b'i' => {
            let (value, rest) = rest.split_first_chunk::<8>()?;
            Some((name, SettingRef::Int(i64::from_le_bytes(*value)), rest))
        }
        b't' => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            Some((name, SettingRef::Text(std::str::from_utf8(text).ok()?), rest))
        }
        _ => None,
    }
}

/// One accepted change of a member's settings, as it lies in the journal. It says what holds afterwards, so repeating it is
/// harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsChange {
    /// Whose settings.
    pub member: Id,
    /// The fields that change, and what they hold afterwards.
    pub settings: Settings,
}

/// One field of many members, as the rules see it: where nothing is set, the field's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingColumn {
    /// The field.
    pub field: Arc<str>,
    /// Its values, one for each member.
    pub values: SettingValues,
}

/// The values of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingValues {
    /// See [`SettingType::Bool`].
    Bools(Vec<bool>),
    /// See [`SettingType::Int`].
    Ints(Vec<i64>),
    /// See [`SettingType::Text`].
    Texts(Vec<Arc<str>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(fields: &[(&str, Setting)]) -> Settings {
        Settings::of(fields.iter().map(|(name, value)| (*name, value)))
    }

    #[test]
    fn what_is_packed_is_read_back_and_cut_bytes_are_not() {
        let all = settings(&[
            ("social", Setting::Bool(true)),
            ("quiet_from", Setting::Int(-5)),
            ("app_version", Setting::Text("é1.2".into())),
        ]);
        assert_eq!(Settings::from_bytes(all.as_bytes()), Some(all.clone()));
        assert_eq!(all.get("quiet_from"), Some(SettingRef::Int(-5)));
        assert_eq!(all.get("app_version"), Some(SettingRef::Text("é1.2")));
        assert_eq!(all.get("event"), None);
        for end in 1..all.as_bytes().len() {
            let cut = Settings::from_bytes(&all.as_bytes()[..end]);
            assert!(cut.is_none_or(|cut| cut.iter().count() < 3), "{end}");
        }
        assert!(Settings::from_bytes(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_later_value_of_a_field_holds() {
        let first = settings(&[("a", Setting::Bool(true)), ("b", Setting::Int(1))]);
        let second = settings(&[("b", Setting::Int(2)), ("c", Setting::Text("x".into()))]);
        let both = second.over(&first);
        assert_eq!(serde_json::Value::Object(both.to_json()), serde_json::json!({"a": true, "b": 2, "c": "x"}));
        assert_eq!(second.over(&Settings::default()), second);
        assert_eq!(Settings::default().over(&first), first);
    }

    #[test]
    fn values_are_of_their_type() {
        let read = Setting::from_json;
        assert_eq!(read(SettingType::Bool, &true.into()), Some(Setting::Bool(true)));
        assert_eq!(read(SettingType::Bool, &1.into()), None);
        assert_eq!(read(SettingType::Int, &1.5.into()), None);
        assert_eq!(read(SettingType::Text, &"a\0".into()), None);
        assert_eq!(read(SettingType::Text, &"x".repeat(SETTING_TEXT_BYTES_MAX + 1).into()), None);
    }
}
