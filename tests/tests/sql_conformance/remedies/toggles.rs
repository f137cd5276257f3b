//! Tables of toggles: columns, types, keys.

use weir::model::IdType;
use weir::sql::{Advice, Problem};

use super::{Case, FEED, FEED_LIKE, Said, Shape, WRONG_COUNTS, likes_with, some_likes, targets};
use crate::fixture::Engine;

pub use super::rows::CASES as ROWS;

/// The cases of this file.
pub const CASES: &[Case] = &[
    ("likes that fit", |_| {
        let likes =
            FEED_LIKE.replace("PRIMARY", "note VARCHAR(9), FOREIGN KEY (feed_id) REFERENCES feed (id), PRIMARY");
        let setup = format!(
            "{FEED} {likes} INSERT INTO feed_like (feed_id, user_id, created_at) VALUES (2, 1, 1);
             UPDATE feed SET like_count = 1 WHERE id = 2"
        );
        Some(Shape::new(setup, likes_with(|_| {}), &[]).stores(some_likes()).proof(WRONG_COUNTS, 0))
    }),
    ("likes whose names are spelt otherwise", |engine| {
        // Names of the others are case-sensitive here.
        let setup = format!("{FEED} {}", FEED_LIKE.replace("feed_like", "Feed_Like"));
        (engine == Engine::Sqlite).then(|| Shape::new(setup, likes_with(|_| {}), &[]).stores(some_likes()))
    }),
    ("partitioned by hash of the target", |engine| {
        let setup = match engine {
            Engine::Sqlite => return None,
            Engine::Postgres => format!(
                "{FEED} {}; CREATE TABLE feed_like_0 PARTITION OF feed_like FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE feed_like_1 PARTITION OF feed_like FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
                FEED_LIKE.replace("user_id));", "user_id)) PARTITION BY HASH (feed_id)")
            ),
            Engine::MariaDb | Engine::MySql => format!(
                "{FEED} {}",
                FEED_LIKE.replace("user_id));", "user_id)) PARTITION BY HASH (feed_id) PARTITIONS 4;")
            ),
        };
        Some(Shape::new(setup, likes_with(|_| {}), &[]).stores(some_likes()).proof(WRONG_COUNTS, 0))
    }),
    ("partitioned by ranges of the target", |engine| {
        let setup = match engine {
            Engine::Sqlite => return None,
            Engine::Postgres => format!(
                "{FEED} {}; CREATE TABLE feed_like_0 PARTITION OF feed_like FOR VALUES FROM (1) TO (3);
                 CREATE TABLE feed_like_1 PARTITION OF feed_like FOR VALUES FROM (3) TO (100);",
                FEED_LIKE.replace("user_id));", "user_id)) PARTITION BY RANGE (feed_id)")
            ),
            Engine::MariaDb | Engine::MySql => format!(
                "{FEED} {}",
                FEED_LIKE.replace(
                    "user_id));",
                    "user_id)) PARTITION BY RANGE (feed_id)
                     (PARTITION a VALUES LESS THAN (3), PARTITION b VALUES LESS THAN MAXVALUE);"
                )
            ),
        };
        Some(Shape::new(setup, likes_with(|_| {}), &[]).stores(some_likes()).proof(WRONG_COUNTS, 0))
    }),
    ("partitioned by lists in which the sample has no place", |engine| {
        let setup = match engine {
            Engine::Sqlite => return None,
            Engine::Postgres => format!(
                "{FEED} {}; CREATE TABLE feed_like_0 PARTITION OF feed_like FOR VALUES IN (2, 3);",
                FEED_LIKE.replace("user_id));", "user_id)) PARTITION BY LIST (feed_id)")
            ),
            Engine::MariaDb | Engine::MySql => format!(
                "{FEED} {}",
                FEED_LIKE.replace(
                    "user_id));",
                    "user_id)) PARTITION BY LIST (feed_id) (PARTITION a VALUES IN (2), PARTITION b VALUES IN (3));"
                )
            ),
        };
        Some(Shape::new(setup, likes_with(|_| {}), &[]))
    }),
    ("no tables", |_| {
        let says: &[Said] = &[(Problem::NoTable, Advice::CreateTable), (Problem::NoTable, Advice::CreateTable)];
        Some(
            Shape::new("SELECT 1", likes_with(|_| {}), says).says(&["feed_like does not exist", "feed does not exist"]),
        )
    }),
    ("a view", |_| {
        let setup = format!("{FEED} {FEED_LIKE} CREATE VIEW recent AS SELECT * FROM feed_like");
        let says = &[(Problem::NotATable, Advice::Decide)];
        let table = likes_with(|table| table.name = "recent".into());
        Some(Shape::new(setup, table, says).says(&["recent is not a table"]).obey(|table, _| {
            let weir::config::KindTable::Toggle(table) = table else { return };
            table.name = "feed_like".into();
        }))
    }),
    ("a table of another engine", |engine| {
        let setup = format!("{FEED} {}", FEED_LIKE.replace("user_id));", "user_id)) ENGINE = MyISAM;"));
        let says = &[(Problem::NotTransactional, Advice::ChangeEngine)];
        engine.is_mysql().then(|| Shape::new(setup, likes_with(|_| {}), says).stores(some_likes()))
    }),
    ("a foreign key that is checked late", |engine| {
        let late = ", FOREIGN KEY (feed_id) REFERENCES feed (id) DEFERRABLE INITIALLY DEFERRED);";
        let setup = format!("{FEED} {}", FEED_LIKE.replace("user_id));", &format!("user_id){late}")));
        let says = &[(Problem::DeferredForeignKey, Advice::Decide)];
        (engine == Engine::Sqlite).then(|| Shape::new(setup, likes_with(|_| {}), says))
    }),
    ("ids of another type", |engine| {
        let serial = match engine {
            Engine::Sqlite => "INTEGER PRIMARY KEY",
            Engine::Postgres => "BIGSERIAL PRIMARY KEY",
            Engine::MariaDb | Engine::MySql => "BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY",
        };
        let setup = format!("{} {FEED_LIKE}", FEED.replace("BIGINT NOT NULL PRIMARY KEY", serial));
        let says = &[(Problem::IdType, Advice::Decide), (Problem::IdType, Advice::Decide)];
        let table = likes_with(|table| table.target_type = IdType::Uuid);
        Some(
            Shape::new(setup, table, says)
                .says(&["feed.id is ", "feed_like.feed_id is ", "target_type = \"integer\""])
                .obey(|table, _| {
                    let weir::config::KindTable::Toggle(table) = table else { return };
                    table.target_type = IdType::Integer;
                })
                .stores(some_likes()),
        )
    }),
    ("no such id column", |_| {
        let table = likes_with(|table| table.actor_column = "member_id".into());
        let says: &[Said] = &[(Problem::NoIdColumn, Advice::Decide), (Problem::NotFilled, Advice::Decide)];
        Some(Shape::new(format!("{FEED} {FEED_LIKE}"), table, says).says(&["no column member_id"]).obey(|table, _| {
            let weir::config::KindTable::Toggle(table) = table else { return };
            table.actor_column = "user_id".into();
        }))
    }),
    ("no time column where there are likes", |_| {
        let table = likes_with(|table| table.created_at_column = Some("liked_at".into()));
        let likes = FEED_LIKE.replace("\n    created_at BIGINT NOT NULL,", "");
        let setup = format!(
            "{FEED} {likes} INSERT INTO feed_like VALUES (2, 1), (3, 1); UPDATE feed SET like_count = 1 WHERE id > 1"
        );
        Some(
            Shape::new(setup, table, &[(Problem::NoTimeColumn, Advice::AddTime)])
                // Nobody knows when they were.
                .proof("SELECT count(*) FROM feed_like WHERE liked_at IS NULL", 2)
                .stores(some_likes()),
        )
    }),
    ("a column that holds no time", |_| {
        let setup = format!("{FEED} {}", FEED_LIKE.replace("created_at BIGINT", "created_at BOOLEAN"));
        Some(Shape::new(setup, likes_with(|_| {}), &[(Problem::TimeType, Advice::Decide)]))
    }),
    ("a count that is no number", |_| {
        let setup =
            format!("{} {FEED_LIKE}", FEED.replace("like_count BIGINT NOT NULL DEFAULT 0", "like_count VARCHAR(20)"));
        Some(
            Shape::new(setup, likes_with(|_| {}), &[(Problem::NumberType, Advice::Decide)])
                .says(&["feed.like_count is "]),
        )
    }),
    ("a count that the database computes", |engine| {
        let computed = match engine {
            Engine::Postgres => "like_count BIGINT GENERATED ALWAYS AS (id * 0) STORED",
            _ => "like_count BIGINT GENERATED ALWAYS AS (id * 0) VIRTUAL",
        };
        let setup = format!("{} {FEED_LIKE}", FEED.replace("like_count BIGINT NOT NULL DEFAULT 0", computed));
        let says = &[(Problem::Computed, Advice::Decide)];
        Some(Shape::new(setup, likes_with(|_| {}), says).says(&["feed.like_count is computed"]).obey(|table, _| {
            let weir::config::KindTable::Toggle(table) = table else { return };
            targets(table).count_column = None;
        }))
    }),
    ("a column that nobody fills", |_| {
        let setup = format!("{FEED} {}", FEED_LIKE.replace("PRIMARY KEY", "source VARCHAR(9) NOT NULL, PRIMARY KEY"));
        Some(
            Shape::new(setup, likes_with(|_| {}), &[(Problem::NotFilled, Advice::Decide)])
                .says(&["feed_like.source is NOT NULL", "give feed_like.source a DEFAULT"]),
        )
    }),
    ("a time that nobody fills", |engine| {
        let time = match engine {
            Engine::Sqlite => "DATETIME",
            Engine::Postgres => "TIMESTAMPTZ",
            Engine::MariaDb | Engine::MySql => "DATETIME(3)",
        };
        let setup = format!("{FEED} {}", FEED_LIKE.replace("created_at BIGINT", &format!("created_at {time}")));
        let remedy = if engine == Engine::Sqlite { Advice::Decide } else { Advice::DefaultTime };
        let table = likes_with(|table| table.created_at_column = None);
        let shape = Shape::new(setup, table, &[(Problem::TimeNotFilled, remedy)])
            .says(&["created_at_column = \"created_at\""])
            .stores(some_likes());
        if engine != Engine::Sqlite {
            return Some(shape.proof("SELECT count(*) FROM feed_like WHERE created_at IS NULL", 0));
        }
        Some(shape.obey(|table, _| {
            let weir::config::KindTable::Toggle(table) = table else { return };
            table.created_at_column = Some("created_at".into());
        }))
    }),
    ("no unique keys", |_| {
        let setup = format!(
            "{} {}",
            FEED.replace(" PRIMARY KEY", ""),
            FEED_LIKE.replace(", PRIMARY KEY (feed_id, user_id)", "")
        );
        let says = &[(Problem::NoUniqueKey, Advice::AddUniqueKey), (Problem::NoUniqueKey, Advice::AddUniqueKey)];
        Some(Shape::new(setup, likes_with(|_| {}), says).stores(some_likes()).proof(WRONG_COUNTS, 0))
    }),
    ("no unique key on texts", |engine| {
        let text = match engine {
            Engine::MariaDb | Engine::MySql => "TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            _ => "TEXT",
        };
        let setup = format!(
            "CREATE TABLE feed_like (feed_id {text} NOT NULL, user_id {text} NOT NULL, created_at BIGINT NOT NULL)"
        );
        let table = likes_with(|table| {
            (table.target_type, table.actor_type, table.targets) = (IdType::Text, IdType::Text, None);
        });
        Some(Shape::new(setup, table, &[(Problem::NoUniqueKey, Advice::AddUniqueKey)]))
    }),
    ("pairs that are there twice", |_| {
        let likes = FEED_LIKE.replace(", PRIMARY KEY (feed_id, user_id)", "");
        let setup = format!(
            "{FEED} {likes} INSERT INTO feed_like VALUES (2, 1, 5), (2, 1, 6), (3, 1, 7);
            UPDATE feed SET like_count = 1 WHERE id > 1"
        );
        let twice: [Said; 2] =
            [(Problem::Duplicates, Advice::ListDuplicates), (Problem::CountsDiffer, Advice::FillCounts)];
        let mut shape = Shape::new(setup, likes_with(|_| {}), &twice).says(&["(2, 1) 2 times"]).stores(some_likes());
        // Whoever fills counts first fills in what is there twice; so once more.
        shape.then = "DELETE FROM feed_like WHERE created_at = 6";
        shape
            .rounds
            .push(vec![(Problem::NoUniqueKey, Advice::AddUniqueKey), (Problem::CountsDiffer, Advice::FillCounts)]);
        Some(shape.proof(WRONG_COUNTS, 0))
    }),
    ("partitioned by the time", |engine| {
        let by = match engine {
            Engine::Sqlite => return None,
            Engine::Postgres => ") PARTITION BY RANGE (created_at);",
            Engine::MariaDb | Engine::MySql => {
                ") PARTITION BY RANGE (created_at) (PARTITION a VALUES LESS THAN MAXVALUE);"
            }
        };
        let likes = FEED_LIKE.replace("(feed_id, user_id));", &format!("(feed_id, user_id, created_at){by}"));
        let says = &[(Problem::PartitionedOtherwise, Advice::Decide)];
        Some(Shape::new(format!("{FEED} {likes}"), likes_with(|_| {}), says).says(&["partitioned by created_at"]))
    }),
    ("short texts", |engine| {
        let text = match engine {
            Engine::Sqlite => return None,
            Engine::Postgres => "VARCHAR(36)",
            Engine::MariaDb | Engine::MySql => "VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
        };
        let setup = format!(
            "CREATE TABLE feed_like (feed_id {text} NOT NULL, user_id {text} NOT NULL DEFAULT 'x', created_at BIGINT NOT NULL,
             PRIMARY KEY (feed_id, user_id)); INSERT INTO feed_like VALUES ('a', 'b', 1)"
        );
        let table = likes_with(|table| {
            (table.target_type, table.actor_type, table.targets) = (IdType::Text, IdType::Text, None);
        });
        let says = &[(Problem::ShortText, Advice::WidenText), (Problem::ShortText, Advice::WidenText)];
        Some(
            Shape::new(setup, table, says)
                .proof("SELECT count(*) FROM feed_like WHERE feed_id = 'a' AND user_id = 'b'", 1),
        )
    }),
    ("narrow integers", |engine| {
        let id = match engine {
            Engine::Sqlite => return None,
            Engine::Postgres => "SERIAL PRIMARY KEY",
            Engine::MariaDb | Engine::MySql => "INT NOT NULL AUTO_INCREMENT PRIMARY KEY COMMENT 'it''s'",
        };
        let feed = FEED.replace("BIGINT NOT NULL PRIMARY KEY", id).replace("like_count BIGINT", "like_count SMALLINT");
        let likes = FEED_LIKE.replace("feed_id BIGINT", "feed_id INT").replace("user_id BIGINT", "user_id INT");
        let setup = format!(
            "{feed} {likes} INSERT INTO feed_like VALUES (2, 21474837, 1); UPDATE feed SET like_count = 1 WHERE id = 2"
        );
        let says = [(Problem::NarrowInteger, Advice::WidenInteger); 3];
        let mut shape = Shape::new(setup, likes_with(|_| {}), &says)
            .says(&["feed.like_count is smallint", "ends at 32767", "ends at 2147483647", "21474837 now, 1.0 %"])
            .stores(some_likes());
        // Wider than the key of the targets: that of the likes can now run out alone.
        shape.rounds.push(vec![(Problem::NarrowInteger, Advice::WidenInteger)]);
        Some(match engine {
            Engine::MariaDb | Engine::MySql => shape.proof(
                "SELECT count(*) FROM information_schema.columns WHERE table_schema = database() AND table_name = 'feed'
                 AND column_name = 'id' AND column_comment = 'it''s' AND extra = 'auto_increment'",
                1,
            ),
            _ => shape.proof("SELECT count(*) FROM pg_sequences WHERE max_value > 2147483647 AND sequencename = 'feed_id_seq'", 1),
        })
    }),
    ("narrow integers that cannot be changed alone", |engine| {
        let setup = match engine {
            Engine::Sqlite => return None,
            Engine::Postgres => format!(
                "{FEED} {}; CREATE TABLE feed_like_0 PARTITION OF feed_like FOR VALUES WITH (MODULUS 1, REMAINDER 0);",
                FEED_LIKE
                    .replace("feed_id BIGINT", "feed_id INT")
                    .replace("user_id));", "user_id)) PARTITION BY HASH (feed_id)")
            ),
            Engine::MariaDb | Engine::MySql => format!(
                "CREATE TABLE member (id INT NOT NULL PRIMARY KEY); {FEED} {}",
                FEED_LIKE
                    .replace("user_id BIGINT", "user_id INT")
                    .replace("PRIMARY KEY (", "FOREIGN KEY (user_id) REFERENCES member (id), PRIMARY KEY (")
            ),
        };
        Some(Shape::new(setup, likes_with(|_| {}), &[(Problem::NarrowInteger, Advice::Decide)]))
    }),
    ("texts that are compared loosely", |engine| {
        let (bad, before) = match engine {
            Engine::Sqlite => ("TEXT COLLATE NOCASE", ""),
            Engine::Postgres => (
                "TEXT COLLATE weir_loose",
                "CREATE COLLATION weir_loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);",
            ),
            Engine::MariaDb | Engine::MySql => ("VARCHAR(191) CHARACTER SET utf8mb4", ""),
        };
        let setup = format!(
            "{before} CREATE TABLE feed_like (feed_id {bad} NOT NULL, user_id {bad} NOT NULL, created_at BIGINT NOT NULL,
             PRIMARY KEY (feed_id, user_id))"
        );
        let table = likes_with(|table| {
            (table.target_type, table.actor_type, table.targets) = (IdType::Text, IdType::Text, None);
        });
        let remedy = if engine == Engine::Sqlite { Advice::Decide } else { Advice::Collate };
        Some(Shape::new(setup, table, &[(Problem::Collation, remedy), (Problem::Collation, remedy)]))
    }),
    ("texts in a foreign key that are compared loosely", |engine| {
        let text = "VARCHAR(191) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci";
        let setup = format!(
            "CREATE TABLE feed (id {text} NOT NULL PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id {text} NOT NULL, user_id BIGINT NOT NULL, created_at BIGINT NOT NULL,
             PRIMARY KEY (feed_id, user_id), CONSTRAINT of_feed FOREIGN KEY (feed_id) REFERENCES feed (id))"
        );
        let says = &[(Problem::Collation, Advice::Decide), (Problem::Collation, Advice::Decide)];
        let table = likes_with(|table| table.target_type = IdType::Text);
        engine.is_mysql().then(|| Shape::new(setup, table, says).says(&["foreign key of_feed"]))
    }),
    ("texts whose trailing spaces do not count", |engine| {
        let text = "VARCHAR(191) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
        let setup = format!(
            "CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id {text} NOT NULL DEFAULT 'x' COMMENT 'who',
             created_at BIGINT NOT NULL, PRIMARY KEY (feed_id, user_id))"
        );
        let table = likes_with(|table| (table.actor_type, table.targets) = (IdType::Text, None));
        let says = &[(Problem::TrailingSpaces, Advice::Collate)];
        engine.is_mysql().then(|| {
            Shape::new(setup, table, says).proof(
                "SELECT count(*) FROM information_schema.columns WHERE table_schema = database() AND column_name = 'user_id'
                 AND column_comment = 'who' AND column_default IN ('x', '''x''') AND is_nullable = 'NO'",
                1,
            )
        })
    }),
];
