//! `weir init`: a commented configuration to start from.

use std::path::Path;

use super::Failure;

/// The commented configuration.
pub const TEMPLATE: &str = include_str!("weir.toml");

/// Writes [`TEMPLATE`] to `file`; refuses to overwrite without `force`.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn run(file: &Path, force: bool) -> Result<(), Failure> {
    if file.exists() && !force {
        return Err(Failure::no(format!("{} exists; --force overwrites it", file.display())));
    }
    std::fs::write(file, TEMPLATE)
        .map_err(|error| Failure::unavailable(format!("cannot write {}: {error}", file.display())))?;
    println!("wrote {0}: name your tables in it, then `weir check --config {0}`", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, CounterConfig, IngestConfig, PreferenceConfig, SharedCacheConfig, StoreType};

    #[test]
    fn the_template_is_a_valid_configuration_with_the_documented_defaults() {
        let config: Config = toml::from_str(TEMPLATE).unwrap();
        config.validate().unwrap();
        assert_eq!(config.http, Config::default().http);
        assert_eq!(config.flush, Config::default().flush);
        assert_eq!(config.journal, Config::default().journal);
        assert_eq!(config.policy, Config::default().policy);
    }

    #[test]
    fn every_commented_setting_is_one_that_exists() {
        let settings = TEMPLATE.lines().map(|line| {
            let setting = line.strip_prefix("# ").filter(|rest| {
                rest.split_once(" = ")
                    .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            });
            setting.unwrap_or(line).to_owned() + "\n"
        });
        // The alternatives for URL and identity exclude each other; the rest must parse and be what is in force.
        let all: String = settings.filter(|line| !line.starts_with("token") && !line.starts_with("url_file")).collect();
        let config: Config = toml::from_str(&all).unwrap_or_else(|error| panic!("{error}\n{all}"));
        assert_eq!(config.batch, Config::default().batch);
        assert_eq!(config.policy, Config::default().policy);
        assert_eq!(config.http, Config::default().http);
        assert_eq!(config.flush, Config::default().flush);
        assert_eq!(config.start, Config::default().start);
    }

    #[test]
    fn the_example_of_a_grant_is_valid_and_shows_the_defaults() {
        let lines = TEMPLATE.lines().skip_while(|line| !line.starts_with("#[[policy.grant]]"));
        let lines = lines.take_while(|line| !line.starts_with("[batch]"));
        let text: String = lines.filter_map(|line| Some(line.strip_prefix('#')?.to_owned() + "\n")).collect();
        // Prose begins with a space, settings do not.
        let settings: String =
            text.lines().filter(|line| !line.starts_with(' ')).map(|line| format!("{line}\n")).collect();
        let config: Config = toml::from_str(&settings).unwrap_or_else(|error| panic!("{error}\n{settings}"));
        config.validate().unwrap();
        let (grant, shown) = (&config.policy.grants[0], &config.policy.statements[0]);
        assert!(grant.redis && grant.sql == [shown.name.clone()]);
        let name_and_text = "name = \"tier-of\"\nsql = \"SELECT 1\"";
        let default: crate::config::StatementConfig = toml::from_str(name_and_text).unwrap();
        assert_eq!(
            (shown.write, shown.rows_max, shown.timeout_ms),
            (default.write, default.rows_max, default.timeout_ms)
        );
    }

    #[test]
    fn the_examples_of_kinds_are_valid_and_show_the_defaults() {
        let lines = TEMPLATE.lines().skip_while(|line| !line.starts_with("#[[counter]]"));
        let text = lines.filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
        let text: String = text.map(|line| format!("{line}\n")).collect();
        let mut config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        // A cache that hosts share needs it.
        config.store.store_type = StoreType::Redis;
        config.validate().unwrap();
        let shared = config.cache.shared.clone().unwrap();
        assert_eq!(toml::from_str::<SharedCacheConfig>(&format!("url = {:?}", shared.url)).unwrap(), shared);
        let (counter, ingest) = (&config.counters[0], &config.ingests[0]);
        let defaults = CounterConfig { settings: counter.settings.clone(), ..CounterConfig::demo() };
        assert_eq!(
            (counter.by_max, counter.actor, counter.unique_pairs_max),
            (defaults.by_max, defaults.actor, defaults.unique_pairs_max)
        );
        for (key, value) in &counter.settings {
            let default = CounterConfig::demo().policy_settings().get(key).cloned();
            assert!(default.is_none_or(|default| default == *value), "{key}");
        }
        let demo = IngestConfig::demo();
        assert_eq!(
            (ingest.documents_max, ingest.document_bytes_max, ingest.body_bytes_max),
            (demo.documents_max, demo.document_bytes_max, demo.body_bytes_max)
        );
        assert_eq!(ingest.settings, demo.policy_settings());
        let (preference, demo) = (&config.preferences[0], PreferenceConfig::demo());
        let defaults = PreferenceConfig {
            table: preference.table.clone(),
            topics: preference.topics.clone(),
            settings: preference.settings.clone(),
            ..demo.clone()
        };
        assert_eq!(*preference, defaults);
        for (key, value) in &preference.settings {
            assert_eq!(demo.policy_settings().get(key), Some(value), "{key}");
        }
    }
}
