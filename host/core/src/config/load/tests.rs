//! Mistakes with their places, several files, the environment, files with secrets.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::config::{DurabilityLevel, StoreType};

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What is wrong, a line each, without the directory.
    fn wrong(&self, sources: &Sources) -> Vec<String> {
        let said = sources.load().unwrap_err().to_string();
        let said = said.replace(&format!("{}/", self.directory.path().display()), "");
        let mut lines: Vec<String> = said.lines().map(ToOwned::to_owned).collect();
        if lines.len() > 1 {
            let head = lines.remove(0);
            assert_eq!(head, format!("{} mistakes in the configuration", lines.len()));
        }
        lines
    }
}

fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

const KIND: &str = "[[toggle]]\nkind = \"feed-like\"\n[toggle.table]\nname = \"feed_like\"\ntarget_column = \"feed_id\"\n\
                    actor_column = \"user_id\"\ntarget_type = \"integer\"\nactor_type = \"integer\"\n";

#[test]
fn everything_wrong_is_said_at_once_each_with_its_place() {
    let files = Files::new();
    let text = "[http]\nlisten_adress = \"127.0.0.1:1\"\nrequests_max = \"many\"\n\n[store]\ntype = \"redsi\"\npartitions = 70000\n\n\
                [flush]\nlease_ms = 1\n\n[admin]\n  listen = \"nowhere\"\n\n[sql]\nurl = \"${NOWHERE}\"\n\n\
                [[toggle]]\nkind = \"feed-like\"\n[toggle.table]\nname = \"feed like\"\ntarget_column = \"feed_id\"\n\
                actor_column = \"user_id\"\ntarget_type = \"integer\"\n";
    let path = files.write("weir.toml", text);
    assert_eq!(
        files.wrong(&Sources::files([path])),
        [
            "weir.toml:2:1: http.listen_adress: there is no such setting; did you mean listen?",
            "weir.toml:3:16: http.requests_max: must be a whole number, is the text \"many\"",
            "weir.toml:6:8: store.type: \"redsi\" is none of embedded, redis, redis-cluster; did you mean redis?",
            "weir.toml:7:14: store.partitions: must be from 0 to 65535, is 70000",
            "weir.toml:10:12: flush.lease_ms: must be at least 100, is 1",
            "weir.toml:13:12: admin.listen: \"nowhere\" is no address: write 127.0.0.1:8080, [::1]:8080, localhost:8080 or :8080",
            "weir.toml:16:7: sql.url: the variable NOWHERE is not set: set it, or write ${NOWHERE:-default}",
            "weir.toml:20:9: toggle[0].table.actor_type: is missing: write one of integer, uuid, text",
        ]
    );
}

#[test]
fn checks_of_kinds_have_places_too() {
    let files = Files::new();
    let broken = KIND.replace("\"feed_like\"", "\"feed like\"").replace("\"user_id\"", "\"user id\"");
    let path = files.write("weir.toml", &format!("{broken}{KIND}"));
    let wrong = files.wrong(&Sources::files([path]));
    assert_eq!(wrong.len(), 3, "{wrong:#?}");
    assert!(
        wrong[0].starts_with("weir.toml:4:8: toggle[0].table.name: \"feed like\" is not a plain SQL name"),
        "{wrong:?}"
    );
    assert!(wrong[1].starts_with("weir.toml:6:16: toggle[0].table.actor_column: "), "{wrong:?}");
    assert_eq!(wrong[2], "weir.toml:10:8: toggle[1].kind: \"feed-like\" is configured twice");
}

#[test]
fn broken_text_is_said_with_all_else_that_is_sure() {
    let files = Files::new();
    let path = files.write("weir.toml", "[http]\nlisten = \n[store]\ntype = \"redis\"\nurll = \"x\"\n");
    let wrong = files.wrong(&Sources::files([path]));
    assert!(wrong[0].starts_with("weir.toml:2:"), "{wrong:?}");
    assert!(
        wrong.iter().any(|line| line == "weir.toml:5:1: store.urll: there is no such setting; did you mean url?"),
        "{wrong:?}"
    );
    let nowhere = files.directory.path().join("nowhere.toml");
    assert_eq!(
        files.wrong(&Sources::files([nowhere])),
        ["nowhere.toml: cannot be read: No such file or directory (os error 2)"]
    );
}

#[test]
fn later_files_override_and_kinds_of_one_name_are_one() {
    let files = Files::new();
    files.write(
        "10-base.toml",
        &format!("[http]\nrequests_max = 1\ntargets_max = 7\n{KIND}[toggle.settings]\nlimit-burst = \"5\"\n"),
    );
    files.write(
        "20-more.toml",
        &format!(
            "[http]\nrequests_max = 2\n[[toggle]]\nkind = \"feed-like\"\ndurability = \"stored\"\n{}",
            KIND.replace("feed-like", "other")
        ),
    );
    files.write("ignored.txt", "nonsense");
    files.write("..hidden.toml", "nonsense");
    let loaded = Sources::files([files.directory.path()]).load().unwrap();
    let config = &loaded.config;
    assert_eq!((config.http.requests_max, config.http.targets_max), (2, 7));
    let kinds: Vec<(&str, DurabilityLevel)> =
        config.toggles.iter().map(|kind| (kind.kind.as_str(), kind.durability)).collect();
    assert_eq!(kinds, [("feed-like", DurabilityLevel::Stored), ("other", DurabilityLevel::Journaled)]);
    assert_eq!(config.toggles[0].settings["limit-burst"], "5");
    // The other way round.
    let last = files.write("last.toml", "[http]\nrequests_max = 3\nlistn = 1\n");
    assert_eq!(
        files.wrong(&Sources::files([files.directory.path().join("20-more.toml"), last])),
        [
            "20-more.toml:3:1: toggle[0].table: is missing (The user's tables)",
            "last.toml:3:1: http.listn: there is no such setting; did you mean listen?"
        ]
    );
    let empty = tempfile::tempdir().unwrap();
    let said = Sources::files([empty.path()]).load().unwrap_err().to_string();
    assert!(said.ends_with("holds no file that ends in .toml"), "{said}");
}

#[test]
fn texts_and_numbers_may_come_from_the_environment() {
    let files = Files::new();
    let path = files.write(
        "weir.toml",
        "[sql]\nurl = \"postgres://app:${PASSWORD}@${HOST:-db}/shop\"\nconnections_max = \"${N}\"\n[log]\nlevel = \"${LEVEL:-info}\"\n",
    );
    let given = variables(&[("PASSWORD", "s3\"]c\nret"), ("N", "5")]);
    let loaded = Sources::files([&path]).with_variables(given).load().unwrap();
    assert_eq!(loaded.config.sql.url, "postgres://app:s3\"]c\nret@db/shop");
    assert_eq!(loaded.config.sql.connections_max, 5);
    let wrong = files.wrong(&Sources::files([path]).with_variables(variables(&[
        ("PASSWORD", "s3cret"),
        ("N", "s3cret"),
        ("LEVEL", "s3cret"),
    ])));
    assert_eq!(
        wrong,
        [
            "weir.toml:3:19: sql.connections_max: must be a whole number, is the text \"${N}\"",
            "weir.toml:5:9: log.level: \"${LEVEL}\" is none: write error, warn, info, debug or trace",
        ]
    );
}

#[test]
fn variables_come_after_files() {
    let files = Files::new();
    let path = files.write("weir.toml", &format!("[http]\nrequests_max = 1\n[sql]\nurl = \"sqlite://a.db\"\n{KIND}"));
    let secret = files.write("url", "postgres://app:s3cret@db/shop\n");
    let given = variables(&[
        ("WEIR_HTTP__REQUESTS_MAX", "17"),
        ("WEIR_HTTP__LISTEN", "localhost:99"),
        ("WEIR_HTTP__TRUSTED_PROXIES", "[\"loopback\"]"),
        ("WEIR_AUTH__TRUSTED_HEADER_FROM", "any"),
        ("WEIR_STORE__TYPE", "redis"),
        ("WEIR_SQL__URL_FILE", secret.to_str().unwrap()),
        ("WEIR_TOGGLE__FEED_LIKE__DURABILITY", "stored"),
        ("WEIR_TOGGLE__0__SETTINGS__LIMIT_BURST", "7"),
        ("WEIR_TOGGLE__1__KIND", "second"),
        (
            "WEIR_TOGGLE__1__TABLE",
            "{ name = \"t\", target_column = \"a\", actor_column = \"b\", target_type = \"text\", actor_type = \"uuid\" }",
        ),
        ("WEIR_LOG", "debug"),
        ("WEIR_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_CRASH_KILLS", "5"),
    ]);
    let loaded = Sources::files([path]).with_variables(given).load().unwrap();
    let config = &loaded.config;
    assert_eq!((config.http.requests_max, config.http.listen.to_string().as_str()), (17, "127.0.0.1:99"));
    assert!(!config.http.trusted_proxies.is_empty() && config.store.store_type == StoreType::Redis);
    assert_eq!(config.sql.url, "postgres://app:s3cret@db/shop");
    assert_eq!(
        (config.toggles[0].durability, config.toggles[0].settings["limit-burst"].as_str()),
        (DurabilityLevel::Stored, "7")
    );
    assert_eq!((config.toggles.len(), config.toggles[1].kind.as_str()), (2, "second"));
    assert_eq!(loaded.warnings, ["the variable WEIR_CRASH_KILLS is no setting of weir: it is not looked at"]);
}

#[test]
fn a_variable_that_is_no_setting_is_said() {
    let wrong = |list: &[(&str, &str)]| Files::new().wrong(&Sources::default().with_variables(variables(list)));
    assert_eq!(
        wrong(&[
            ("WEIR_STORE__URRL", "x"),
            ("WEIR_SQL_URL", "y"),
            ("WEIR_HTTP__REQUESTS_MAX", "s"),
            ("WEIR_TOGGLE__NONE__DURABILITY", "stored")
        ]),
        [
            "environment WEIR_SQL_URL: there is no such setting; did you mean WEIR_SQL__URL?",
            "environment WEIR_STORE__URRL: there is no setting URRL; did you mean URL?",
            "environment WEIR_TOGGLE__NONE__DURABILITY: there is no element NONE: write its kind or its place from 0; 0 makes a new one \
             (there is none yet)",
            "environment WEIR_HTTP__REQUESTS_MAX: http.requests_max: must be a whole number, is the text \"s\"",
        ]
    );
}

#[test]
fn a_setting_and_its_file_are_one() {
    let files = Files::new();
    let held = files.write("held", "redis://:s3cret@cache:6379\n");
    let base =
        files.write("base.toml", "[store]\nurl = \"redis://127.0.0.1:1\"\n[admin]\ntoken = \"0123456789abcdef\"\n");
    let over = files.write("over.toml", &format!("[store]\nurl_file = {held:?}\n[admin]\ntoken_file = {held:?}\n"));
    let config = Sources::files([&base, &over]).with_secrets().load().unwrap().config;
    assert_eq!(config.store.url, "redis://:s3cret@cache:6379");
    assert_eq!(config.admin.read_token().unwrap().as_deref(), Some("redis://:s3cret@cache:6379"));
    let back = Sources::files([&over, &base]).load().unwrap().config;
    assert_eq!(
        (back.store.url.as_str(), back.store.url_file, back.admin.token_file),
        ("redis://127.0.0.1:1", None, None)
    );
    let both = files.write("both.toml", "[store]\nurl = \"redis://x\"\nurl_file = \"held\"\n[sql]\nurl_file = \"/nowhere\"\n[admin]\ntoken_file = \"/nowhere\"\n");
    assert_eq!(
        files.wrong(&Sources::files([both]).with_secrets()),
        [
            "both.toml:3:1: store.url_file: give url or url_file, not both",
            "both.toml:5:12: sql.url_file: cannot read /nowhere: No such file or directory (os error 2)",
            "both.toml:7:14: admin.token_file: cannot read /nowhere: No such file or directory (os error 2)",
        ]
    );
}

#[test]
fn a_secret_is_in_no_message_and_not_shown() {
    let files = Files::new();
    let held = files.write("held", "postgres://app:s3cret-a@db/shop");
    let text = format!(
        "[sql]\nurl_file = {held:?}\n[store]\nurl = \"redis://:s3cret-b@cache\"\n[admin]\ntoken = \"s3cret-c-0123456789\"\n\
         [auth.jwt]\nalgorithm = \"HS256\"\nkey = \"s3cret-d-0123456789\"\n{KIND}[toggle.settings]\napi-token = \"s3cret-e\"\nplain = \"seen\"\n"
    );
    let path = files.write("weir.toml", &text);
    let shown = Sources::files([&path]).load().unwrap().to_text();
    assert!(!shown.contains("s3cret"), "{shown}");
    for line in [
        "url = \"postgres://app:***@db/shop\"",
        "url = \"redis://:***@cache\"",
        "token = \"***\"",
        "api-token = \"***\"",
        "plain = \"seen\"",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(shown.contains(&format!("held by {}", held.display())) && shown.contains("weir.toml:4:7"), "{shown}");
    // Each of them where it does not belong.
    let wrong = text
        .replace("token = \"s3cret-c-0123456789\"", "token = \"s3cret-c\"")
        .replace("algorithm = \"HS256\"", "algorithm = \"${A}\"");
    let wrong =
        files.write("wrong.toml", &wrong.replace("[store]\n", "[store]\ntype = \"${A}\"\npartitions = \"${A}\"\n"));
    let said = files.wrong(&Sources::files([wrong]).with_variables(variables(&[("A", "s3cret-f")])).with_secrets());
    assert!(said.len() >= 4 && !said.join("\n").contains("s3cret"), "{said:#?}");
}

/// A value of what may stand there, as a variable.
fn example(of: &Value) -> String {
    if let Some(word) = schema::words(of).first() {
        return (*word).to_owned();
    }
    for (of_type, text) in
        [("boolean", "true"), ("integer", "12345"), ("number", "0.5"), ("string", "a text"), ("array", "[]")]
    {
        if schema::admits(of, of_type) {
            return text.to_owned();
        }
    }
    "{}".to_owned()
}

/// All settings below, with the variables that set them.
fn settings<'a>(prefix: &str, path: &str, of: &'a Value, found: &mut Vec<(String, String, &'a Value)>) {
    for (name, of) in schema::properties(of).into_iter().flatten() {
        let between = if prefix == "WEIR" { "_" } else { "__" };
        let variable = format!("{prefix}{between}{}", name.to_ascii_uppercase().replace('-', "_"));
        let path = join(path, name);
        match (schema::properties(of), schema::is_tables(of)) {
            (Some(_), _) => settings(&variable, &path, of, found),
            (None, true) => {
                settings(&format!("{variable}__0"), &format!("{path}[0]"), schema::items(of).unwrap(), found)
            }
            (None, false) => match schema::values(of) {
                Some(values) => found.push((format!("{variable}__A_NAME"), format!("{path}.a_name"), values)),
                None => found.push((variable, path, of)),
            },
        }
    }
}

#[test]
fn every_setting_can_be_set_by_a_variable() {
    let mut all = Vec::new();
    settings("WEIR", "", schema::schema(), &mut all);
    assert!(all.len() > 200, "the walk is blind: {}", all.len());
    for (variable, path, of) in all {
        let environment = BTreeMap::from([(variable.clone(), example(of))]);
        let (mut root, mut mistakes) = (Node::table(Origin::Default), Vec::new());
        let said = environment::lay(&mut root, &environment, &mut mistakes);
        assert!(said.is_empty() && mistakes.is_empty(), "{variable}: {said:?} {mistakes:?}");
        walk::check(&mut root, schema::schema(), "", &mut mistakes);
        // Alone it may lack its neighbours; of itself nothing is said.
        let own: Vec<&Mistake> = mistakes.iter().filter(|mistake| !mistake.reason.starts_with("is missing")).collect();
        assert!(own.is_empty(), "{variable} = {}: {own:?}", example(of));
        let path = path.replace("settings.a_name", "settings.a-name");
        let node = found(&root, &path);
        assert_eq!(node.written.as_deref(), Some(path.as_str()), "{variable}");
        assert_eq!(node.node.origin, Origin::Environment(variable));
        assert!(
            schema::admits(of, node.node.type_name()) || !schema::words(of).is_empty() || of.get("type").is_none(),
            "{path}"
        );
    }
}

#[test]
fn the_demo_is_changed_by_variables_or_replaced() {
    let demo = || Sources::built_in(Config::demo("data".as_ref()));
    let changed = demo().with_variables(variables(&[
        ("WEIR_HTTP__REQUESTS_MAX", "9"),
        ("WEIR_TOGGLE__FEED_LIKE__DURABILITY", "stored"),
    ]));
    let config = changed.load().unwrap().config;
    assert_eq!(
        (config.http.requests_max, config.toggles.len(), config.toggles[0].durability),
        (9, 2, DurabilityLevel::Stored)
    );
    let of = |name: &str| Sources::default().with_variables(variables(&[(name, "x")])).names_own();
    assert!(of("WEIR_SQL__URL") && of("WEIR_TOGGLE__0__KIND") && of("WEIR_STORE__TYPE"));
    assert!(!of("WEIR_HTTP__LISTEN") && !of("WEIR_LOG") && !of("WEIR_SQL") && !of("OTHER_SQL__URL"));
}
