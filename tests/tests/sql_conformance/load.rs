//! Reading the user's tables in bulk.

use weir::config::KindTable;
use weir::model::{Id, Member};
use weir::sql::{TargetRow, TargetState};

use crate::fixture::{Engine, Fixture, Toggles as _};

/// Rows (target, 1..=count), each added a second after the one before.
async fn likes(fixture: &Fixture, target: i64, count: i64) {
    let rows: Vec<String> = (1..=count).map(|n| format!("({target}, {n}, {})", n * 1_000)).collect();
    for part in rows.chunks(500) {
        fixture.run(&format!("INSERT INTO feed_like VALUES {}", part.join(","))).await;
    }
    fixture.run(&format!("UPDATE feed SET like_count = {count} WHERE id = {target}")).await;
}

fn states(rows: Vec<TargetRow>, targets: &[Id]) -> Vec<TargetState> {
    assert_eq!(rows.iter().map(|row| &row.target).collect::<Vec<_>>(), targets.iter().collect::<Vec<_>>());
    rows.into_iter()
        .map(|row| match row.state {
            TargetState::Whole(mut members) => {
                members.sort();
                TargetState::Whole(members)
            }
            other => other,
        })
        .collect()
}

fn whole(count: i64) -> TargetState {
    TargetState::Whole((1..=count).map(|n| (Id::Int(n), u64::try_from(n).unwrap() * 1_000)).collect())
}

fn ids(numbers: &[i64]) -> Vec<Id> {
    numbers.iter().copied().map(Id::Int).collect()
}

pub async fn whole_huge_and_missing_targets(fixture: &Fixture) {
    let table = fixture.tables(6, "").await;
    for (target, count) in [(1, 3), (2, 101), (3, 100), (5, 1)] {
        likes(fixture, target, count).await;
    }
    // Drifted: more rows than the count says. It is never loaded whole.
    likes(fixture, 6, 150).await;
    fixture.run("UPDATE feed SET like_count = 7 WHERE id = 6").await;
    let targets = ids(&[4, 99, 2, 1, 3, 5, 1, -5, 6]);
    let loaded = states(fixture.sql.load_targets(&table, &targets, 100).await.unwrap(), &targets);
    let missing = TargetState::Missing;
    let expected = vec![
        whole(0),
        missing.clone(),
        TargetState::Huge(101),
        whole(3),
        whole(100),
        whole(1),
        whole(3),
        missing,
        TargetState::Huge(7),
    ];
    assert_eq!(loaded, expected);
    assert_eq!(fixture.sql.load_targets(&table, &[], 100).await.unwrap(), vec![]);
}

pub async fn huge_without_a_count_column(fixture: &Fixture) {
    let mut table = fixture.tables(3, "").await;
    table.targets.as_mut().unwrap().count_column = None;
    likes(fixture, 1, 250).await;
    likes(fixture, 2, 7).await;
    let targets = ids(&[1, 2, 3, 4]);
    let loaded = states(fixture.sql.load_targets(&table, &targets, 100).await.unwrap(), &targets);
    assert_eq!(loaded, vec![TargetState::Huge(250), whole(7), whole(0), TargetState::Missing]);
}

pub async fn without_a_table_of_targets(fixture: &Fixture) {
    let mut table = fixture.tables(1, "").await;
    table.targets = None;
    table.created_at_column = None;
    // Without a created-at column in the configuration, weir does not write it either.
    fixture
        .run("DROP TABLE feed_like; CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL)")
        .await;
    fixture.run("CREATE UNIQUE INDEX pair ON feed_like (user_id, feed_id)").await;
    assert!(fixture.sql.check_toggle(&table).await.unwrap().iter().all(|finding| finding.warning));
    let from = fixture.claim(0).await;
    let rows = [crate::fixture::add(7, 1), crate::fixture::add(7, 2)];
    assert_eq!(fixture.flush(&table, from, &rows).await.inserted, 2);
    let targets = ids(&[7, 8]);
    let loaded = states(fixture.sql.load_targets(&table, &targets, 100).await.unwrap(), &targets);
    let expected = vec![TargetState::Whole(vec![(Id::Int(1), 0), (Id::Int(2), 0)]), TargetState::Whole(vec![])];
    assert_eq!(loaded, expected);
    let members = fixture.sql.load_members(&table, &Id::Int(7), None, 10).await.unwrap();
    assert_eq!(members.iter().map(|member| member.actor.clone()).collect::<Vec<_>>(), ids(&[2, 1]));
}

pub async fn pairs_are_found_in_order(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    likes(fixture, 1, 10).await;
    likes(fixture, 2, 2).await;
    let pairs: Vec<(Id, Id)> = [(1, 10), (2, 10), (9, 1), (2, 2), (1, 1), (1, 10)]
        .into_iter()
        .map(|(target, actor)| (Id::Int(target), Id::Int(actor)))
        .collect();
    let found = fixture.sql.load_pairs(&table, &pairs).await.unwrap();
    assert_eq!(found, vec![Some(10_000), None, None, Some(2_000), Some(1_000), Some(10_000)]);
    let many: Vec<(Id, Id)> = (0..3_000).map(|n| (Id::Int(1), Id::Int(n))).collect();
    let found = fixture.sql.load_pairs(&table, &many).await.unwrap();
    assert_eq!((found.len(), found.iter().flatten().count()), (3_000, 10));
    assert_eq!(fixture.sql.load_pairs(&table, &[]).await.unwrap(), vec![]);
}

pub async fn members_are_paged_newest_first_with_ties(fixture: &Fixture) {
    let table = fixture.tables(2, "").await;
    // Seven times with four members each: every page border falls among equals.
    let rows: Vec<String> = (0..28).map(|n| format!("(1, {n}, {})", 1_000 + n / 4)).collect();
    fixture.run(&format!("INSERT INTO feed_like VALUES {}, (2, 99, 5)", rows.join(","))).await;
    let mut expected: Vec<Member> =
        (0..28).map(|n| Member { actor: Id::Int(n), since_ms: 1_000 + n as u64 / 4 }).collect();
    expected.sort_by_key(|member| std::cmp::Reverse((member.since_ms, member.actor.to_string())));
    let mut paged: Vec<Member> = Vec::new();
    loop {
        let page = fixture.sql.load_members(&table, &Id::Int(1), paged.last(), 5).await.unwrap();
        assert!(page.len() <= 5);
        let end = page.is_empty();
        paged.extend(page);
        if end {
            break;
        }
    }
    assert_eq!(paged, expected);
    assert_eq!(fixture.sql.load_members(&table, &Id::Int(3), None, 5).await.unwrap(), vec![]);
}

pub async fn members_are_paged_by_native_times_and_none(fixture: &Fixture) {
    let table = fixture.tables(2, "").await;
    // Three rows within each millisecond where the column can tell; the last rows have no time at all.
    let (column, digits) = match fixture.engine {
        Engine::Sqlite => ("DATETIME", 3),
        Engine::Postgres => ("TIMESTAMPTZ", 6),
        Engine::MariaDb | Engine::MySql => ("DATETIME(6)", 6),
    };
    fixture.run("DROP TABLE feed_like").await;
    fixture
        .run(&format!(
            "CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL, created_at {column},
                PRIMARY KEY (feed_id, user_id))"
        ))
        .await;
    let zone = if fixture.engine == Engine::Postgres { "+00" } else { "" };
    let row = |n: i64| match n {
        24.. => format!("(1, {n}, NULL)"),
        _ => {
            let fraction = format!("{:03}{:03}", 400 + n / 3, (n * 389) % 1_000);
            format!("(1, {n}, '2024-05-01 12:14:56.{}{zone}')", &fraction[..digits])
        }
    };
    let rows: Vec<String> = (0..30).map(row).collect();
    fixture.run(&format!("INSERT INTO feed_like VALUES {}", rows.join(","))).await;
    let since_ms = |n: i64| if n >= 24 { 0 } else { 1_714_565_696_400 + u64::try_from(n / 3).unwrap() };
    let mut expected: Vec<Member> = (0..30).map(|n| Member { actor: Id::Int(n), since_ms: since_ms(n) }).collect();
    expected.sort_by_key(|member| std::cmp::Reverse((member.since_ms, member.actor.to_string())));
    for limit in [1, 4, 7, 30] {
        let mut paged: Vec<Member> = Vec::new();
        loop {
            let page = fixture.sql.load_members(&table, &Id::Int(1), paged.last(), limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, expected, "pages of {limit}");
    }
    assert_eq!(fixture.sql.load_members(&table, &Id::Int(1), None, 0).await.unwrap(), vec![]);
}

pub async fn explain_tells_row_count_and_rows(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    likes(fixture, 1, 3).await;
    likes(fixture, 2, 120).await;
    let kind = KindTable::Toggle(table.clone());
    let explain =
        async |target, actor| fixture.sql.explain(&kind, &Id::Int(target), Some(&Id::Int(actor))).await.unwrap();
    let there = explain(1, 2).await;
    assert_eq!(
        (&there["row"]["created_at_ms"], &there["count"], &there["rows"]),
        (&2_000.into(), &3.into(), &3.into())
    );
    let absent = explain(1, 9).await;
    assert!(absent["row"].is_null() && absent["rows"] == 3);
    let huge = explain(2, 1).await;
    assert!(huge["rows"].is_null() && huge["count"] == 120);
    assert!(explain(9, 1).await["count"].is_null());
}

pub async fn a_huge_target_is_recognised_by_its_count_column(fixture: &Fixture) {
    let mut table = fixture.tables(3, "").await;
    table.huge_rows_min = 10_000;
    fixture
        .run(match fixture.engine {
            Engine::Postgres => "INSERT INTO feed_like SELECT 1, n, n FROM generate_series(1, 1000000) AS n",
            Engine::MariaDb => "INSERT INTO feed_like SELECT 1, seq, seq FROM seq_1_to_1000000",
            Engine::MySql => {
                "SET SESSION cte_max_recursion_depth = 1000000; INSERT INTO feed_like
                 WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000000) SELECT 1, n, n FROM s"
            }
            Engine::Sqlite => {
                "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000000)
                 INSERT INTO feed_like SELECT 1, n, n FROM s"
            }
        })
        .await;
    // One more than there are: the answer shows that nobody counted a million rows.
    fixture.run("UPDATE feed SET like_count = 1000001 WHERE id = 1").await;
    let loaded = fixture.sql.load_targets(&table, &ids(&[1, 2]), 10_000).await.unwrap();
    assert_eq!(loaded[0].state, TargetState::Huge(1_000_001));
    assert_eq!(loaded[1].state, whole(0));
    // Without the count column it is still bounded reading, and an exact count.
    table.targets.as_mut().unwrap().count_column = None;
    let loaded = fixture.sql.load_targets(&table, &ids(&[1]), 10_000).await.unwrap();
    assert_eq!(loaded[0].state, TargetState::Huge(1_000_000));
    let found = fixture.sql.load_pairs(&table, &[(Id::Int(1), Id::Int(999_999))]).await.unwrap();
    assert_eq!(found, vec![Some(999_999)]);
    let before = Member { actor: Id::Int(500_001), since_ms: 500_001 };
    let page = fixture.sql.load_members(&table, &Id::Int(1), Some(&before), 2).await.unwrap();
    assert_eq!(page.iter().map(|member| member.since_ms).collect::<Vec<_>>(), vec![500_000, 499_999]);
}
