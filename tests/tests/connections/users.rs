//! Users who may do little: of Redis no settings and no keys but those of the namespace; of SQL what `weir check` prints, and
//! nothing else.

use weir::config::Config;
use weir_tests::client::Client;
use weir_tests::services::host::weir;
use weir_tests::stand::{Setup, Stand};

use crate::{LIMIT, TURN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_user_of_one_namespace_without_settings_is_enough() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::RedisPostgres, 5).await;
    let redis = stand.redis.as_ref().unwrap();
    let mut config = stand.full_config();
    config.store.namespace = Some("shop".to_owned().try_into().unwrap());
    redis.command::<()>(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">word",
        "~weir:shop:*",
        "resetchannels",
        "+@all",
        "-@dangerous",
        "-@admin",
        "+info",
    ]);
    config.store.url = redis.url().replace("redis://", "redis://app:word@");
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    assert_eq!(client.like(1, 7).await, (true, 1));
    assert_eq!(client.like(1, 7).await, (false, 0));
    assert_eq!(client.like(2, 7).await, (true, 1));
    let seen = client.request("POST", "/v1/counters/video-view/1", &[("X-Actor-Id", "7")], "").await.unwrap();
    assert_eq!(seen.status, 200, "{}", seen.text());
    Client::new(host.admin()).wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, [(2, 7)].into());
    assert_eq!(stand.database.integer("SELECT view_count FROM video WHERE id = 1").await, 1);

    let ready = Client::new(host.admin()).get("/readyz").await;
    println!("acl readyz: {}", ready.text());
    assert!(ready.status == 200 && ready.text().contains("is unknown, because this user may not run CONFIG GET"));
    let path = host.config_path().unwrap();
    let checked = weir(stand.directory.path(), &["check", "--config", path.to_str().unwrap()]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains("may not run CONFIG GET"), "{}", checked.stdout);
    let strangers: Vec<String> = redis.command(&["KEYS", "*"]);
    assert!(strangers.iter().all(|key| key.starts_with("weir:shop:")), "{strangers:?}");
}

/// The rights that `weir check` prints for an administrator, for the user `few` instead.
fn printed_grants(stand: &Stand, config: &Config) -> Vec<String> {
    let file = stand.directory.path().join("administrator.toml");
    std::fs::write(&file, toml::to_string(config).unwrap()).unwrap();
    let checked = weir(stand.directory.path(), &["check", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let lines = checked.stdout.lines().filter_map(|line| line.strip_prefix("needs: "));
    lines.map(|line| line.replace("\"postgres\"", "\"few\"").replace("'weir'@", "'few'@")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_users_with_the_printed_rights_and_no_others_are_enough() {
    let _turn = TURN.lock().await;
    let mysql = "CREATE USER few@'127.0.0.1'";
    let setups = [
        (Setup::EmbeddedPostgres, "CREATE ROLE few LOGIN"),
        (Setup::EmbeddedMariaDb, mysql),
        (Setup::EmbeddedMySql, mysql),
    ];
    for (setup, user) in setups {
        let stand = Stand::start(setup, 5).await;
        let mut config = stand.full_config();
        let grants = printed_grants(&stand, &config);
        println!("grants {}: {}", setup.name(), grants.join("; "));
        assert!(grants.iter().any(|grant| grant.contains("feed_like") && grant.contains("DELETE")), "{grants:?}");
        stand.database.script(user).await;
        for grant in &grants {
            stand.database.script(grant).await;
        }
        config.sql.url = stand.database_url.replace("postgres@", "few@").replace("weir@", "few@");
        let host = stand.host(&config);
        let mut client = Client::new(host.public());
        assert_eq!(client.like(1, 7).await, (true, 1));
        assert_eq!(client.like(2, 7).await, (true, 1));
        Client::new(host.admin()).wait_drained(LIMIT).await;
        assert_eq!(client.like(2, 7).await, (false, 0));
        let actor = [("content-type", "application/json"), ("x-actor-id", "7")];
        for (method, path, body) in [
            ("POST", "/v1/counters/video-view/1", ""),
            ("POST", "/v1/ingest/playlist", r#"{"title":"a","tracks":[{"title":"b","seconds":3}]}"#),
            ("PUT", "/v1/preferences/notification/7", r#"{"social":false}"#),
        ] {
            let reply = client.request(method, path, &actor, body).await.unwrap();
            assert!((200..300).contains(&reply.status), "{} {method} {path}: {}", setup.name(), reply.text());
        }
        Client::new(host.admin()).wait_drained(LIMIT).await;
        assert_eq!(stand.database.likes().await, [(1, 7)].into(), "{}", setup.name());
        assert_eq!(stand.database.integer("SELECT view_count FROM video WHERE id = 1").await, 1);
        for table in ["playlist", "playlist_track", "notification_setting"] {
            assert_eq!(stand.database.integer(&format!("SELECT COUNT(*) FROM {table}")).await, 1, "{table}");
        }
        stand.database.assert_counts_equal_rows().await;
        assert_eq!(stand.database.dead_letters().await, 0);
        // And no more than that.
        let (own, other) = (host.log(), stand.database.integer("SELECT COUNT(*) FROM weir_checkpoint").await);
        assert!(other > 0 && !own.contains("denied"), "{own}");
    }
}
