//! Everything that the self-check can say, and everything that it can tell an operator to run, on tables of that shape and on
//! each engine: what is found, that nothing else is, that running what is printed makes it go away, and that weir then works.
//!
//! The cases are data. `every_finding_and_every_remedy_has_been_run` goes through all names of problems and of remedies: one
//! that no case has, on an engine that is not said to be spared, fails it.

mod others;
mod rows;
mod server;
mod toggles;

use std::collections::BTreeSet;

use weir::config::{CountTable, CounterConfig, CounterTable, KindTable, SqlConfig, ToggleTable};
use weir::model::{Action, Id, IdType};
use weir::sql::{Advice, Finding, Problem, Row};

use crate::fixture::{Engine, Fixture, change};

/// The engines.
pub const ENGINES: [Engine; 4] = [Engine::Sqlite, Engine::Postgres, Engine::MariaDb, Engine::MySql];

/// A problem and what is said to do about it.
pub type Said = (Problem, Advice);

/// A table of some shape on one engine.
pub struct Shape {
    /// Makes it.
    pub setup: String,
    /// What weir is told of it.
    pub table: KindTable,
    /// Further settings.
    pub settings: fn(&mut SqlConfig),
    /// What is said at first, and what is left after each time that all that is printed was run; at last nothing.
    pub rounds: Vec<Vec<Said>>,
    /// What is said by a word of these.
    pub says: Vec<&'static str>,
    /// What an operator does besides after the first round, where a person must decide.
    pub then: &'static str,
    /// What is written into the configuration where that is the remedy, after which nothing is said.
    pub obey: Option<fn(&mut KindTable, &mut SqlConfig)>,
    /// Queries, and the numbers that they answer after all that is printed was run.
    pub proofs: Vec<(&'static str, i64)>,
    /// Rows that weir then stores, all of them.
    pub rows: Vec<Row>,
}

impl Shape {
    /// Tables about which the self-check says this, once.
    pub fn new(setup: impl Into<String>, table: KindTable, says: &[Said]) -> Self {
        let rounds = if says.is_empty() { vec![] } else { vec![says.to_vec()] };
        Self {
            setup: setup.into(),
            table,
            settings: |_| {},
            rounds,
            says: vec![],
            then: "",
            obey: None,
            proofs: vec![],
            rows: vec![],
        }
    }

    /// The problem names this.
    pub fn says(mut self, words: &[&'static str]) -> Self {
        self.says.extend(words);
        self
    }

    /// Afterwards a query answers this number.
    pub fn proof(mut self, query: &'static str, number: i64) -> Self {
        self.proofs.push((query, number));
        self
    }

    /// Afterwards weir stores these.
    pub fn stores(mut self, rows: Vec<Row>) -> Self {
        self.rows = rows;
        self
    }

    /// In the configuration this mends it.
    pub fn obey(mut self, change: fn(&mut KindTable, &mut SqlConfig)) -> Self {
        self.obey = Some(change);
        self
    }
}

/// A case: its name, and its shape on an engine, if it can be there.
pub type Case = (&'static str, fn(Engine) -> Option<Shape>);

fn cases() -> Vec<Case> {
    [toggles::CASES, toggles::ROWS, others::CASES].concat()
}

/// Who else brings a problem about and runs its remedy: file below `tests/tests`, and test.
const ELSEWHERE: &[(Problem, &[Engine], &str, &str)] = &[
    (Problem::PowerLoss, &[Engine::Postgres], "sql_conformance/remedies/server.rs", "postgres_settings_are_mended"),
    (Problem::PowerLoss, &[Engine::MariaDb], "sql_conformance/remedies/server.rs", "mariadb_settings_are_mended"),
    (Problem::PowerLoss, &[Engine::MySql], "sql_conformance/remedies/server.rs", "mysql_settings_are_mended"),
    (Problem::CrashLoss, &[Engine::MariaDb], "sql_conformance/remedies/server.rs", "mariadb_settings_are_mended"),
    (Problem::CrashLoss, &[Engine::MySql], "sql_conformance/remedies/server.rs", "mysql_settings_are_mended"),
    (Problem::BinaryLog, &[Engine::MariaDb], "sql_conformance/remedies/server.rs", "mariadb_settings_are_mended"),
    (Problem::BinaryLog, &[Engine::MySql], "sql_conformance/remedies/server.rs", "mysql_settings_are_mended"),
    (Problem::ReadOnly, &[Engine::MariaDb], "sql_conformance/remedies/server.rs", "mariadb_settings_are_mended"),
    (Problem::ReadOnly, &[Engine::MySql], "sql_conformance/remedies/server.rs", "mysql_settings_are_mended"),
    (Problem::ReadOnly, &[Engine::Postgres], "sql_conformance/remedies/server.rs", "postgres_settings_are_mended"),
    (Problem::SessionSettings, &[Engine::Postgres], "poolers.rs", "a_pooler_that_would_break_something_is_named"),
    (Problem::Encoding, &[Engine::Postgres], "sql_conformance/remedies/server.rs", "postgres_settings_are_mended"),
    (Problem::JournalMode, &[Engine::Sqlite], "sql_conformance/remedies/server.rs", "a_database_in_memory_is_named"),
    (Problem::NoRight, &[Engine::Postgres], "sql_conformance/selfcheck_kinds.rs", "postgres_tells_missing_rights"),
    (Problem::Statement, &ENGINES, "sql_conformance/granted.rs", "mistakes_are_told_from_outages"),
    (Problem::ForeignJournal, &ENGINES, "rewind/custody.rs", "a_journal_of_another_database_is_adopted_or_given_up"),
    (Problem::Partitions, &ENGINES, "cli.rs", "check_says_what_is_wrong_with_the_store"),
    (
        Problem::UnknownJournal,
        &ENGINES,
        "rewind/custody.rs",
        "a_directory_of_format_3_is_taken_over_with_what_waits_in_it",
    ),
    (
        Problem::OrphanKind,
        &ENGINES,
        "rewind/custody.rs",
        "a_kind_that_nobody_flushes_is_refused_and_each_way_out_works",
    ),
    (
        Problem::OtherStore,
        &ENGINES,
        "rewind/custody.rs",
        "a_store_that_was_exchanged_is_missed_while_changes_wait_in_it",
    ),
    (Problem::EmptiedStore, &ENGINES, "cli.rs", "check_says_what_is_wrong_with_the_store"),
];

/// Remedies whose statements are run by tests of their own.
const RUN_ELSEWHERE: &[(Advice, &[Engine], &str, &str)] = &[
    (Advice::SetServer, &[Engine::Postgres], "sql_conformance/remedies/server.rs", "postgres_settings_are_mended"),
    (Advice::SetServer, &[Engine::MariaDb], "sql_conformance/remedies/server.rs", "mariadb_settings_are_mended"),
    (Advice::SetServer, &[Engine::MySql], "sql_conformance/remedies/server.rs", "mysql_settings_are_mended"),
    (Advice::Grant, &[Engine::Postgres], "sql_conformance/selfcheck_kinds.rs", "postgres_tells_missing_rights"),
];

const SQLITE: &[Engine] = &[Engine::Sqlite];
const POSTGRES: &[Engine] = &[Engine::Postgres];
const MYSQLS: &[Engine] = &[Engine::MariaDb, Engine::MySql];
const NOT_SQLITE: &[Engine] = &[Engine::Postgres, Engine::MariaDb, Engine::MySql];
const NOT_POSTGRES: &[Engine] = &[Engine::Sqlite, Engine::MariaDb, Engine::MySql];
const NOT_MYSQLS: &[Engine] = &[Engine::Sqlite, Engine::Postgres];

/// Problems that cannot be brought about on an engine, and why.
const NEVER: &[(Problem, &[Engine], &str)] = &[
    (Problem::OldServer, POSTGRES, "needs PostgreSQL 11"),
    (Problem::OldServer, NOT_POSTGRES, "the engine is not asked for its version"),
    (Problem::PowerLoss, SQLITE, "weir sets it on each connection"),
    (Problem::CrashLoss, NOT_MYSQLS, "weir sets it on each connection"),
    (Problem::Encoding, NOT_POSTGRES, "connections have an encoding of their own"),
    (Problem::ReadOnly, SQLITE, "a file that cannot be written is an error when it is opened"),
    (Problem::SessionSettings, NOT_POSTGRES, "needs a proxy that drops what sessions set"),
    (Problem::BinaryLog, NOT_MYSQLS, "the engine has none"),
    (Problem::JournalMode, NOT_SQLITE, "the engine has none"),
    (Problem::ForeignKeysOff, &ENGINES, "weir sets it on each connection"),
    (Problem::NotTransactional, NOT_MYSQLS, "all tables are"),
    (Problem::DeferredForeignKey, NOT_SQLITE, "weir has them checked at once"),
    (Problem::NoRight, NOT_POSTGRES, "the engine's catalogue does not tell"),
    (Problem::BitColumn, NOT_MYSQLS, "the engine's own booleans are used"),
    (Problem::ShortText, SQLITE, "text has no length"),
    (Problem::NarrowInteger, SQLITE, "all integers have 64 bits"),
    (Problem::TrailingSpaces, NOT_MYSQLS, "the engine compares them"),
    (Problem::PartitionedOtherwise, SQLITE, "the engine has no partitions"),
    (Problem::SkippingTrigger, MYSQLS, "a trigger cannot discard a row without an error"),
    (Problem::Scan, &ENGINES, "types that fit can use the key; see the plans in host/sql/src/access.rs"),
];

/// Remedies that an engine does not have.
const NO_REMEDY: &[(Advice, &[Engine], &str)] = &[
    (Advice::SetServer, SQLITE, "the engine has no server"),
    (Advice::ChangeEngine, NOT_MYSQLS, "all tables are transactional"),
    (Advice::Grant, NOT_POSTGRES, "the engine's catalogue does not tell rights"),
    (Advice::WidenInteger, SQLITE, "all integers have 64 bits"),
    (Advice::WidenText, SQLITE, "text has no length"),
    (Advice::MakeBoolean, NOT_MYSQLS, "the engine's own booleans are used"),
    (Advice::Collate, SQLITE, "the engine does not change columns"),
    (Advice::DefaultTime, SQLITE, "the engine does not change columns"),
    (Advice::LetNull, SQLITE, "the engine does not change columns"),
];

fn said(findings: &[Finding]) -> Vec<Said> {
    let mut said: Vec<Said> = findings.iter().map(|finding| (finding.name, finding.advice)).collect();
    said.sort_unstable();
    said
}

fn sorted(said: &[Said]) -> Vec<Said> {
    let mut said = said.to_vec();
    said.sort_unstable();
    said
}

/// Runs one case: finds what it must find, runs what is printed until nothing is left, and lets weir write.
async fn run_case(name: &'static str, engine: Engine, shape: Shape, in_batches: bool) {
    let fixture = Fixture::new(engine).await;
    fixture.run(&shape.setup).await;
    let sql = fixture.with(shape.settings).await;
    let place = format!("{name} on {engine:?}{}", if in_batches { ", in batches" } else { "" });
    for (number, round) in shape.rounds.iter().enumerate() {
        let findings = sql.check_table(&shape.table).await.unwrap();
        assert_eq!(said(&findings), sorted(round), "{place}, round {number}: {findings:#?}");
        let text: String = findings.iter().map(|finding| format!("{} {}\n", finding.problem, finding.remedy)).collect();
        if number == 0 {
            for word in &shape.says {
                assert!(text.contains(word), "{place}: nobody says {word:?}:\n{text}");
            }
        }
        for finding in &findings {
            assert!(!finding.remedy.is_empty(), "{place}: {finding:?}");
            assert_eq!(finding.statements.is_empty(), finding.advice == Advice::Decide, "{place}: {finding:?}");
            fixture.mend(finding, in_batches).await;
        }
        if number == 0 && !shape.then.is_empty() {
            fixture.run(shape.then).await;
        }
    }
    let (mut table, mut settings) = (shape.table.clone(), crate::fixture::settings(&fixture.url));
    (shape.settings)(&mut settings);
    if let Some(obey) = shape.obey {
        obey(&mut table, &mut settings);
    }
    let sql = weir::sql::open(&settings).await.unwrap();
    let decides = shape.rounds.iter().flatten().any(|(_, advice)| *advice == Advice::Decide);
    if !decides || shape.obey.is_some() || !shape.then.is_empty() {
        assert_eq!(sql.check_table(&table).await.unwrap(), vec![], "{place}: afterwards");
    }
    for (query, number) in &shape.proofs {
        assert_eq!(fixture.number(query).await, *number, "{place}: {query}");
    }
    if !shape.rows.is_empty() {
        let applied = fixture.store(&table, &shape.rows).await;
        assert_eq!(applied.dead, vec![], "{place}: weir stores all");
        assert_eq!(sql.check_table(&table).await.unwrap(), vec![], "{place}: after weir has written");
    }
}

/// Runs all cases that an engine has, and says of all that fail.
async fn run_all(engine: Engine) {
    let mut failed = Vec::new();
    for (name, shape) in cases() {
        for in_batches in [false, true] {
            let Some(shape) = shape(engine) else { continue };
            let fills = |(_, advice): &Said| matches!(advice, Advice::AddCount | Advice::FillCounts);
            if in_batches && !shape.rounds.iter().flatten().any(fills) {
                continue;
            }
            if tokio::spawn(run_case(name, engine, shape, in_batches)).await.is_err() {
                failed.push(name);
            }
        }
    }
    assert_eq!(failed, Vec::<&str>::new(), "cases that failed on {engine:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sqlite_is_told_to_run_mends() {
    run_all(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_is_told_to_run_mends() {
    run_all(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mariadb_is_told_to_run_mends() {
    run_all(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mysql_is_told_to_run_mends() {
    run_all(Engine::MySql).await;
}

/// Where a test stands that is named, which must be there.
fn in_file(file: &str, test: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.contains(&format!("fn {test}(")), "{file} has no test {test}");
    format!("{file}: {test}")
}

/// The list of all that the self-check can print, with the test that ran it; printed with `--nocapture`.
#[test]
fn every_finding_and_every_remedy_has_been_run() {
    let (mut lines, mut missing) = (Vec::new(), Vec::new());
    for engine in ENGINES {
        let shapes: Vec<(&str, Shape)> =
            cases().into_iter().filter_map(|(name, shape)| Some((name, shape(engine)?))).collect();
        let with = |is_it: &dyn Fn(&Said) -> bool| {
            let has = |shape: &Shape| shape.rounds.iter().flatten().any(is_it);
            shapes.iter().filter(|(_, shape)| has(shape)).map(|(name, _)| *name).collect::<BTreeSet<&str>>()
        };
        for problem in Problem::ALL {
            let mut ran: Vec<String> =
                with(&|(of, _)| of == problem).iter().map(|name| format!("case {name}")).collect();
            let elsewhere = ELSEWHERE.iter().filter(|(of, engines, ..)| of == problem && engines.contains(&engine));
            ran.extend(elsewhere.map(|(_, _, file, test)| in_file(file, test)));
            let never = NEVER.iter().find(|(of, engines, _)| of == problem && engines.contains(&engine));
            match (ran.is_empty(), never) {
                (true, None) => missing.push(format!("problem {problem:?} on {engine:?}: no case brings it about")),
                (true, Some((_, _, why))) => lines.push(format!("| {problem:?} | {engine:?} | never: {why} |")),
                (false, Some(_)) => {
                    missing.push(format!("problem {problem:?} on {engine:?}: said never to be, and is"))
                }
                (false, None) => lines.push(format!("| {problem:?} | {engine:?} | {} |", ran.join(", "))),
            }
        }
        for advice in Advice::ALL.iter().filter(|advice| **advice != Advice::Decide) {
            let mut ran: Vec<String> =
                with(&|(_, of)| of == advice).iter().map(|name| format!("case {name}")).collect();
            let elsewhere = RUN_ELSEWHERE.iter().filter(|(of, engines, ..)| of == advice && engines.contains(&engine));
            ran.extend(elsewhere.map(|(_, _, file, test)| in_file(file, test)));
            let never = NO_REMEDY.iter().find(|(of, engines, _)| of == advice && engines.contains(&engine));
            match (ran.is_empty(), never) {
                (true, None) => missing.push(format!("remedy {advice:?} on {engine:?}: no case runs it")),
                (true, Some((_, _, why))) => lines.push(format!("| remedy {advice:?} | {engine:?} | none: {why} |")),
                (false, Some(_)) => {
                    missing.push(format!("remedy {advice:?} on {engine:?}: said not to be, and is run"))
                }
                (false, None) => lines.push(format!("| remedy {advice:?} | {engine:?} | {} |", ran.join(", "))),
            }
        }
    }
    lines.sort();
    println!("{}", lines.join("\n"));
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// `feed_like` and `feed` with integers.
pub fn likes() -> ToggleTable {
    crate::fixture::table(IdType::Integer)
}

/// As [`likes`], changed.
pub fn likes_with(alter: impl FnOnce(&mut ToggleTable)) -> KindTable {
    let mut table = likes();
    alter(&mut table);
    KindTable::Toggle(table)
}

/// The table of the targets of [`likes`], to be changed.
pub fn targets(table: &mut ToggleTable) -> &mut CountTable {
    table.targets.as_mut().unwrap()
}

/// `video`, counted.
pub fn views(alter: impl FnOnce(&mut CounterTable)) -> KindTable {
    let mut table = CounterConfig::demo().table;
    alter(&mut table);
    KindTable::Counter(table)
}

/// Likes of weir's, among them one that is there, and one that goes.
pub fn some_likes() -> Vec<Row> {
    let row = |target: i64, actor: i64, action| Row::Toggle(change(Id::Int(target), Id::Int(actor), action));
    vec![row(1, 71, Action::Add), row(2, 71, Action::Add), row(2, 1, Action::Remove), row(3, 72, Action::Add)]
}

/// `feed` with 1, 2 and 3.
pub const FEED: &str = "CREATE TABLE feed (id BIGINT NOT NULL PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
    INSERT INTO feed (id) VALUES (1), (2), (3);";
/// `feed_like`, empty.
pub const FEED_LIKE: &str = "CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL,
    created_at BIGINT NOT NULL, PRIMARY KEY (feed_id, user_id));";
/// Whether counts are the numbers of rows: how many are not.
pub const WRONG_COUNTS: &str =
    "SELECT count(*) FROM feed WHERE like_count <> (SELECT count(*) FROM feed_like WHERE feed_id = feed.id)";
