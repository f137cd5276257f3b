//! Tables of toggles whose rows are not what weir takes them for, and counts that are not the numbers of rows.

use weir::config::KindTable;
use weir::model::IdType;
use weir::sql::{Advice, Problem};

use super::{Case, FEED, FEED_LIKE, Shape, WRONG_COUNTS, likes_with, some_likes, targets};
use crate::fixture::Engine;

/// The cases of this file.
pub const CASES: &[Case] = &[
    ("likes of articles and of comments", |_| {
        let setup = "CREATE TABLE likes (likeable_type VARCHAR(40) NOT NULL, likeable_id BIGINT NOT NULL,
                user_id BIGINT NOT NULL, created_at BIGINT NOT NULL, UNIQUE (likeable_type, likeable_id, user_id));
            INSERT INTO likes VALUES ('Article', 5, 1, 1), ('Comment', 5, 1, 1)";
        let table = likes_with(|table| {
            (table.name, table.target_column, table.targets) = ("likes".into(), "likeable_id".into(), None);
        });
        let says = &[(Problem::RowsDiffer, Advice::Decide)];
        Some(Shape::new(setup, table, says).says(&["by likeable_type", "would forbid rows that are good"]))
    }),
    ("likes of articles by default", |_| {
        let likes = FEED_LIKE.replace("PRIMARY", "feed_type VARCHAR(40) DEFAULT 'Article', PRIMARY");
        let says = &[(Problem::RowsDiffer, Advice::Decide)];
        let shape = Shape::new(format!("{FEED} {likes}"), likes_with(|_| {}), says);
        Some(shape.says(&["sql.acknowledged = [\"feed_like.feed_type\"]"]).stores(some_likes()).obey(|_, settings| {
            settings.acknowledged = vec!["feed_like.feed_type".into()];
        }))
    }),
    ("reactions", |_| {
        let likes = FEED_LIKE.replace(
            "PRIMARY KEY (feed_id, user_id)",
            "emoji VARCHAR(9) NOT NULL, PRIMARY KEY (feed_id, user_id, emoji)",
        );
        let says = &[(Problem::RowsDiffer, Advice::Decide)];
        Some(Shape::new(format!("{FEED} {likes}"), likes_with(|_| {}), says).says(&["by emoji", "holds it"]))
    }),
    ("tenants in the key", |_| {
        let likes = FEED_LIKE.replace("PRIMARY KEY (", "tenant_id BIGINT NOT NULL, PRIMARY KEY (tenant_id, ");
        let says = &[(Problem::RowsDiffer, Advice::Decide)];
        Some(Shape::new(format!("{FEED} {likes}"), likes_with(|_| {}), says).says(&["by tenant_id"]))
    }),
    ("likes that are deleted softly", |_| {
        let likes = FEED_LIKE.replace("PRIMARY", "deleted_at BIGINT, status VARCHAR(9) DEFAULT 'on', PRIMARY");
        let says = &[(Problem::RowState, Advice::Decide), (Problem::RowState, Advice::Decide)];
        let shape = Shape::new(format!("{FEED} {likes}"), likes_with(|_| {}), says).stores(some_likes());
        Some(shape.says(&["feed_like.deleted_at", "feed_like.status", "need not count"]).obey(|_, settings| {
            settings.acknowledged = vec!["feed_like.deleted_at".into(), "feed_like.status".into()];
        }))
    }),
    ("a key that deleted likes are not in", |engine| {
        let likes = FEED_LIKE.replace("PRIMARY KEY (feed_id, user_id)", "deleted_at BIGINT");
        let setup =
            format!("{FEED} {likes} CREATE UNIQUE INDEX live ON feed_like (feed_id, user_id) WHERE deleted_at IS NULL");
        let says = &[(Problem::RowState, Advice::Decide), (Problem::OtherKey, Advice::Decide)];
        (!engine.is_mysql()).then(|| Shape::new(setup, likes_with(|_| {}), says))
    }),
    ("targets that are deleted softly", |_| {
        let feed = FEED.replace("DEFAULT 0)", "DEFAULT 0, deleted_at BIGINT, status VARCHAR(9))");
        let says = &[(Problem::StateIgnored, Advice::Decide)];
        let shape = Shape::new(format!("{feed} {FEED_LIKE}"), likes_with(|_| {}), says).stores(some_likes());
        Some(
            shape.says(&["feed.deleted_at"]).obey(|_, settings| settings.acknowledged = vec!["feed.deleted_at".into()]),
        )
    }),
    ("another unique key", |_| {
        let setup = format!("{FEED} {}", FEED_LIKE.replace("PRIMARY", "UNIQUE (user_id), PRIMARY"));
        let mut shape = Shape::new(setup, likes_with(|_| {}), &[(Problem::OtherKey, Advice::Decide)]);
        shape = shape.says(&["(user_id)"]);
        Some(shape)
    }),
    ("a trigger that discards", |engine| {
        let trigger = match engine {
            Engine::MariaDb | Engine::MySql => return None,
            Engine::Sqlite => {
                "CREATE TRIGGER odd BEFORE INSERT ON feed_like WHEN NEW.user_id = 5 BEGIN SELECT RAISE(IGNORE); END"
            }
            Engine::Postgres => {
                "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                 CREATE TRIGGER odd BEFORE INSERT ON feed_like FOR EACH ROW WHEN (NEW.user_id = 5) EXECUTE FUNCTION odd()"
            }
        };
        let setup = format!("{FEED} {FEED_LIKE} {trigger}");
        Some(
            Shape::new(setup, likes_with(|_| {}), &[(Problem::SkippingTrigger, Advice::Decide)])
                .says(&["odd on feed_like"]),
        )
    }),
    ("a trigger that counts", |engine| {
        let setup = format!(
            "{FEED} {FEED_LIKE} {}",
            counting(engine, "UPDATE feed SET like_count = like_count + 1 WHERE id = NEW.feed_id")
        );
        let says = &[(Problem::CountingTrigger, Advice::DropTrigger)];
        let shape = Shape::new(setup, likes_with(|_| {}), says).says(&["bump on feed_like sets feed.like_count"]);
        Some(shape.stores(some_likes()).proof(WRONG_COUNTS, 0))
    }),
    ("a trigger that counts alone", |engine| {
        let setup = format!(
            "{FEED} {FEED_LIKE} {}",
            counting(engine, "UPDATE feed SET like_count = like_count + 1 WHERE id = NEW.feed_id")
        );
        let table = likes_with(|table| targets(table).count_column = None);
        Some(Shape::new(setup, table, &[]).stores(some_likes()))
    }),
    ("a trigger that looks at the count", |engine| {
        let looks = "INSERT INTO hot SELECT id FROM feed WHERE id = NEW.feed_id AND like_count = 100";
        let setup = format!("{FEED} {FEED_LIKE} CREATE TABLE hot (id BIGINT); {}", counting(engine, looks));
        let mut shape = Shape::new(setup, likes_with(|_| {}), &[]);
        shape.settings = |settings| settings.acknowledged = vec!["feed_like.bump".into()];
        Some(shape.stores(some_likes()).proof(WRONG_COUNTS, 0))
    }),
    ("a trigger that does something else", |engine| {
        let setup = format!(
            "{FEED} {FEED_LIKE} CREATE TABLE log (id BIGINT); {}",
            counting(engine, "INSERT INTO log VALUES (NEW.feed_id)")
        );
        Some(Shape::new(setup, likes_with(|_| {}), &[]).stores(some_likes()).proof("SELECT count(*) FROM log", 0))
    }),
    ("a rule that counts", |engine| {
        let rule = "CREATE RULE bump AS ON INSERT TO feed_like DO ALSO
            UPDATE feed SET like_count = like_count + 1 WHERE id = NEW.feed_id";
        let says = &[(Problem::CountingTrigger, Advice::DropTrigger)];
        let setup = format!("{FEED} {FEED_LIKE} {rule}");
        (engine == Engine::Postgres).then(|| Shape::new(setup, likes_with(|_| {}), says).proof(WRONG_COUNTS, 0))
    }),
    ("no count column where there are likes", |_| {
        let feed = FEED.replace(", like_count BIGINT NOT NULL DEFAULT 0", "");
        let setup = format!("{feed} {FEED_LIKE} {FIVE_LIKES}");
        let shape = Shape::new(setup, likes_with(|_| {}), &[(Problem::NoCountColumn, Advice::AddCount)]);
        Some(
            shape
                .says(&["fill it from the rows", "until it changes no row"])
                .proof(WRONG_COUNTS, 0)
                .proof("SELECT count(*) FROM feed WHERE id = 3 AND like_count = 5", 1)
                .stores(some_likes()),
        )
    }),
    ("counts that are not the rows", |_| {
        let setup = format!(
            "{FEED} {FEED_LIKE} {FIVE_LIKES} INSERT INTO feed_like VALUES (1, 1, 1), (2, 9, 1);
             UPDATE feed SET like_count = CASE id WHEN 1 THEN 51 WHEN 2 THEN 0 ELSE 1 END"
        );
        let shape = Shape::new(setup, likes_with(|_| {}), &[(Problem::CountsDiffer, Advice::FillCounts)]);
        Some(
            shape
                .says(&["3 of the 3 targets", "1 has 51, and its rows are 1", "3 has 1, and its rows are 5"])
                .proof(WRONG_COUNTS, 0)
                .stores(some_likes()),
        )
    }),
    ("counts of ids in bytes that are not the rows", |engine| {
        let id = match engine {
            Engine::Sqlite => "BLOB",
            Engine::Postgres => "UUID",
            Engine::MariaDb | Engine::MySql => "BINARY(16)",
        };
        let value = match engine {
            Engine::Postgres => "'00000000-0000-0000-0000-000000000005'",
            _ => "x'00000000000000000000000000000005'",
        };
        let setup = format!(
            "CREATE TABLE feed (id {id} NOT NULL PRIMARY KEY, like_count BIGINT);
             CREATE TABLE feed_like (feed_id {id} NOT NULL, user_id BIGINT NOT NULL, created_at BIGINT NOT NULL,
                PRIMARY KEY (feed_id, user_id));
             INSERT INTO feed (id) VALUES ({value}); INSERT INTO feed_like VALUES ({value}, 1, 1), ({value}, 2, 1)"
        );
        let table = likes_with(|table| table.target_type = IdType::Uuid);
        let shape = Shape::new(setup, table, &[(Problem::CountsDiffer, Advice::FillCounts)]);
        Some(shape.says(&["0005 has 0, and its rows are 2"]).proof("SELECT count(*) FROM feed WHERE like_count = 2", 1))
    }),
    ("counts that cannot be compared in time", |engine| {
        let numbers = match engine {
            Engine::Sqlite => {
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40000)
                 INSERT INTO feed_like SELECT 1 + n % 200, n, 1 FROM n;"
            }
            Engine::Postgres => "INSERT INTO feed_like SELECT 1 + n % 200, n, 1 FROM generate_series(1, 40000) AS n;",
            Engine::MariaDb => "INSERT INTO feed_like SELECT 1 + seq % 200, seq, 1 FROM seq_1_to_40000;",
            Engine::MySql => {
                "SET SESSION cte_max_recursion_depth = 40000; INSERT INTO feed_like WITH RECURSIVE s (n) AS
                 (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 40000) SELECT 1 + n % 200, n, 1 FROM s;"
            }
        };
        // Without an index that begins with the target, each one reads all rows.
        let likes = FEED_LIKE.replace("(feed_id, user_id)", "(user_id, feed_id)");
        let setup = format!(
            "{} {likes} {numbers} INSERT INTO feed SELECT DISTINCT feed_id, 200 FROM feed_like",
            FEED.split(';').next().unwrap().to_owned() + ";"
        );
        let mut shape = Shape::new(setup, likes_with(|_| {}), &[(Problem::CountsUnknown, Advice::CompareCounts)]);
        shape.settings = |settings| settings.check_timeout_ms = 1;
        Some(shape.says(&["could not be seen within sql.check_timeout_ms"]).obey(|_: &mut KindTable, settings| {
            settings.check_timeout_ms = 60_000;
        }))
    }),
];

const FIVE_LIKES: &str = "INSERT INTO feed_like VALUES (3, 1, 1), (3, 2, 1), (3, 3, 1), (3, 4, 1), (3, 5, 1);";

/// A trigger `bump` after each insert into `feed_like`.
fn counting(engine: Engine, statement: &str) -> String {
    match engine {
        Engine::Sqlite => format!("CREATE TRIGGER bump AFTER INSERT ON feed_like BEGIN {statement}; END"),
        Engine::Postgres => format!(
            "CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NULL; END $$;
             CREATE TRIGGER bump AFTER INSERT ON feed_like FOR EACH ROW EXECUTE FUNCTION bump()"
        ),
        Engine::MariaDb | Engine::MySql => {
            format!("CREATE TRIGGER bump AFTER INSERT ON feed_like FOR EACH ROW {statement}")
        }
    }
}
