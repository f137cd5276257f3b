//! Settings of members as rows, and back.
//!
//! Knows no engine. Pure. A member without a row has no settings; NULL is none either. What becomes a new row
//! has the defaults of the configuration in the columns that are not set.

use std::collections::{HashMap, HashSet};

use super::SettingsRow;
use super::introspection::preference::FieldForm;
use super::rows::Unstorable;
use weir_core::config::PreferenceTable;
use weir_core::model::{Id, SETTING_TEXT_BYTES_MAX, Setting, SettingRef, SettingType, Settings};

/// What changes of a member, in the order of the configuration's fields.
#[derive(Debug)]
pub(super) struct Changed<'a> {
    /// Its row's place among the rows.
    pub index: usize,
    /// Whose settings.
    pub member: &'a Id,
    /// What holds afterwards; `None` where nothing changes.
    pub values: Vec<Option<SettingRef<'a>>>,
}

impl<'a> Changed<'a> {
    /// As a new row: the defaults where nothing changes.
    pub fn filled(&self, table: &'a PreferenceTable) -> Vec<SettingRef<'a>> {
        let of_default = |setting: &'a Setting| match setting {
            Setting::Bool(value) => SettingRef::Bool(*value),
            Setting::Int(value) => SettingRef::Int(*value),
            Setting::Text(text) => SettingRef::Text(text),
        };
        let values = self.values.iter().zip(&table.fields);
        values.map(|(value, field)| value.unwrap_or_else(|| of_default(&field.default))).collect()
    }
}

/// What rows change; and those that can never be stored.
pub(super) fn changes<'a>(table: &PreferenceTable, rows: &[&'a SettingsRow]) -> (Vec<Changed<'a>>, Vec<Unstorable>) {
    let (mut changes, mut dead) = (Vec::with_capacity(rows.len()), Vec::new());
    for (index, row) in rows.iter().enumerate() {
        match unfit(table, &row.settings) {
            None => {
                let values = table.fields.iter().map(|field| row.settings.get(&field.name)).collect();
                changes.push(Changed { index, member: &row.member, values });
            }
            Some(reason) => dead.push((index, reason)),
        }
    }
    (changes, dead)
}

/// Why settings do not fit the fields that are configured now.
fn unfit(table: &PreferenceTable, settings: &Settings) -> Option<String> {
    settings.iter().find_map(|(name, value)| match table.field(name) {
        None => Some(format!("{name}: has no column")),
        Some(field) if value.to_setting().setting_type() != field.field_type => {
            Some(format!("{name}: is no {}", field.field_type.as_str()))
        }
        Some(_) => None,
    })
}

/// A value as text for a column of this form.
pub(super) fn as_text(form: FieldForm, value: SettingRef<'_>) -> String {
    match (form, value) {
        (FieldForm::Boolean, SettingRef::Bool(value)) => value.to_string(),
        (_, SettingRef::Bool(value)) => u8::from(value).to_string(),
        (_, SettingRef::Int(value)) => value.to_string(),
        (_, SettingRef::Text(text)) => text.to_owned(),
    }
}

/// What was read of a field: a number where the type is no text. Longer texts than a setting may be are none.
pub(super) fn from_column(setting_type: SettingType, number: Option<i64>, text: Option<String>) -> Option<Setting> {
    match setting_type {
        SettingType::Bool => number.map(|number| Setting::Bool(number != 0)),
        SettingType::Int => number.map(Setting::Int),
        SettingType::Text => {
            text.filter(|text| text.len() <= SETTING_TEXT_BYTES_MAX).map(|text| Setting::Text(text.into()))
        }
    }
}

/// Packs what was read of a row, in the order of the configuration's fields.
pub(super) fn packed(table: &PreferenceTable, values: &[Option<Setting>]) -> Settings {
    let fields = table.fields.iter().zip(values);
    Settings::of(fields.filter_map(|(field, value)| Some((field.name.as_str(), value.as_ref()?))))
}

/// The settings of each member, in order; `None` for those that are not `there`.
pub(super) fn in_order(
    members: &[Id],
    found: &HashMap<Id, Settings>,
    there: Option<&HashSet<Id>>,
) -> Vec<Option<Settings>> {
    let one = |member: &Id| {
        let exists = there.is_none_or(|there| there.contains(member));
        exists.then(|| found.get(member).cloned().unwrap_or_default())
    };
    members.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::config::PreferenceConfig;
    use weir_core::model::Origin;

    #[test]
    fn a_row_changes_what_it_names_and_a_new_one_has_the_defaults() {
        let table = PreferenceConfig::demo().table;
        let row = |name: &str, value: Setting| SettingsRow {
            origin: Origin::default(),
            member: Id::Int(7),
            settings: Settings::of([(name, &value)]),
        };
        let good = row("social", Setting::Bool(false));
        let (unknown, wrong) = (row("colour", Setting::Int(1)), row("enabled", Setting::Int(1)));
        let (changed, dead) = changes(&table, &[&unknown, &good, &wrong]);
        assert_eq!(dead, [(0, "colour: has no column".to_owned()), (2, "enabled: is no bool".to_owned())]);
        assert_eq!(changed[0].values.iter().flatten().count(), 1);
        let filled: Vec<String> =
            changed[0].filled(&table).into_iter().map(|value| as_text(FieldForm::Integer, value)).collect();
        assert_eq!(filled, ["1", "0", "1", "0", "0", "0", ""]);
    }

    #[test]
    fn who_is_not_there_has_no_settings() {
        let (one, two) = (Id::Int(1), Id::Int(2));
        let there = HashSet::from([one.clone()]);
        let found = in_order(&[one.clone(), two.clone()], &HashMap::new(), Some(&there));
        assert_eq!(found, [Some(Settings::default()), None]);
        assert_eq!(in_order(&[two], &HashMap::new(), None), [Some(Settings::default())]);
    }
}
