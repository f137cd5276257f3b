//! Rows that another session has locked, and rows that a trigger discards.

use super::*;

/// The application locks a row of `feed` and one of `video`. Everything else reaches SQL meanwhile, through a crash of the
/// host too, and what waits comes afterwards: in order, once.
async fn one_locked_row(setup: Setup) {
    const TARGETS: i64 = 40;
    let stand = Stand::start(setup, TARGETS).await;
    let mut host = stand.host(&stand.full_config());
    let mut client = Client::new(host.public());
    let feed = Database::hold(&stand.database_url, "SELECT id FROM feed WHERE id = 7 FOR UPDATE").await;
    let video = Database::hold(&stand.database_url, "SELECT id FROM video WHERE id = 3 FOR UPDATE").await;
    let mut expected = std::collections::BTreeSet::new();
    for target in 1..=TARGETS {
        for actor in 1..=3 {
            assert_eq!(client.like(target, actor).await, (true, actor));
            expected.insert((target, actor));
        }
        assert_eq!(hit(&mut client, target, 2).await, 2);
    }
    let others = |expected: &std::collections::BTreeSet<(i64, i64)>| {
        expected.iter().copied().filter(|(target, _)| *target != 7).collect::<std::collections::BTreeSet<_>>()
    };
    until("the other likes reach SQL", || async { stand.database.likes().await == others(&expected) }).await;
    let seen = "SELECT COUNT(*) FROM video WHERE view_count = 2";
    until("the other counts reach SQL", || async { stand.database.integer(seen).await == TARGETS - 1 }).await;
    stand.database.assert_counts_equal_rows().await;

    // It is told, and nobody says that SQL is away.
    let mut admin = Client::new(host.admin());
    for kind in ["kind=\"feed-like\"", "kind=\"video-view\""] {
        assert_eq!(admin.metric("weir_flush_set_aside_targets", &[kind]).await, Some(1.0), "{kind}");
    }
    assert_eq!(admin.get("/readyz").await.status, 200);
    let status = admin.get("/admin/v1/flush").await.text();
    assert!(status.contains("\"targets\":[\"7\"]") && status.contains("\"targets\":[\"3\"]"), "{status}");
    assert!(status.contains("\"held_by\":[\"session "), "{status}");
    let log = host.log();
    for part in ["another session has locked a row", "feed_like, feed", "held_by", "session "] {
        assert!(log.contains(part), "{part} is not in the log: {log}");
    }
    assert!(!log.contains("SQL is not available"), "{log}");

    // On top of what waits: off, and on again in another order.
    assert_eq!(client.like(7, 2).await, (false, 2));
    expected.remove(&(7, 2));
    host.kill();
    host.restart();
    host.wait_ready();
    (client, admin) = (Client::new(host.public()), Client::new(host.admin()));
    for target in 1..=TARGETS {
        // Cold in memory, partly in SQL, partly in the journal: nothing is added twice.
        assert_eq!(hit(&mut client, target, 1).await, 3, "video {target}");
        assert_eq!(client.like(target, 4).await, (true, if target == 7 { 3 } else { 4 }), "post {target}");
        expected.insert((target, 4));
    }
    assert_eq!(client.like(7, 3).await, (false, 2));
    expected.remove(&(7, 3));
    until("the other likes reach SQL", || async { stand.database.likes().await == others(&expected) }).await;
    let seen = "SELECT COUNT(*) FROM video WHERE view_count = 3";
    until("the other counts reach SQL", || async { stand.database.integer(seen).await == TARGETS - 1 }).await;

    feed.release().await;
    video.release().await;
    admin.wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, expected, "{}", setup.name());
    stand.database.assert_counts_equal_rows().await;
    assert_eq!(stand.database.integer(seen).await, TARGETS);
    assert_eq!(stand.database.dead_letters().await, 0);
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM weir_aside").await, 0);
    until("the gauge falls", || async {
        Client::new(host.admin()).metric("weir_flush_set_aside_targets", &["kind=\"feed-like\""]).await == Some(0.0)
    })
    .await;
    assert!(host.log().contains("the locks are gone"), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_keeps_back_its_own_target_alone() {
    let _turn = TURN.lock().await;
    for setup in [Setup::EmbeddedPostgres, Setup::RedisMariaDb, Setup::EmbeddedMariaDb, Setup::RedisMySql] {
        one_locked_row(setup).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likes_that_a_trigger_discards_are_told() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedPostgres, 3).await;
    stand
        .database
        .script(
            "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN IF NEW.user_id % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER skip_even BEFORE INSERT ON feed_like FOR EACH ROW EXECUTE FUNCTION skip()",
        )
        .await;
    let host = stand.host(&stand.config());
    let mut client = Client::new(host.public());
    let mut receipts = Vec::new();
    for actor in 1..=20 {
        let reply = client.toggle("POST", 1 + actor % 3, actor, None).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        receipts.push((actor, reply.header("weir-receipt").to_owned()));
    }
    Client::new(host.admin()).wait_drained(LIMIT).await;
    let likes = stand.database.likes().await;
    assert_eq!(likes, (1..=20).filter(|actor| actor % 2 == 1).map(|actor| (1 + actor % 3, actor)).collect());
    stand.database.assert_counts_equal_rows().await;
    assert_eq!(stand.database.dead_letters().await, 10);
    for (actor, receipt) in receipts {
        let path = format!("/v1/toggles/feed-like/{}/status?position={receipt}", 1 + actor % 3);
        let actor_text = actor.to_string();
        let reply = client.request("GET", &path, &[("x-actor-id", actor_text.as_str())], "").await.unwrap();
        let level = if actor % 2 == 1 { "stored" } else { "dead-letter" };
        assert_eq!(reply.json()["durability"], level, "{}", reply.text());
    }
    assert!(host.log().contains("skip_even on feed_like may discard what weir writes"), "{}", host.log());
    assert!(host.log().contains("a trigger or rule of the database discarded it"), "{}", host.log());
}
