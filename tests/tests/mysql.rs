//! What is MySQL's own: its default way to take a password, over a socket and over plain TCP; words that it reserves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use weir::config::{Config, TlsMode};
use weir_tests::certificates::Certificates;
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::services::host::weir;
use weir_tests::services::{Host, HostConfig, MySql};
use weir_tests::stand::{Setup, SqlServer, Stand};

/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// A stand with a user `secure`, whose password is `secret`, with the server's default plugin.
async fn stand() -> Stand {
    let stand = Stand::start(Setup::EmbeddedMySql, 3).await;
    for place in ["127.0.0.1", "localhost"] {
        server(&stand).run(&format!("CREATE USER secure@'{place}' IDENTIFIED BY 'secret'")).await;
        server(&stand).run(&format!("GRANT ALL ON `weir\\_%`.* TO secure@'{place}'")).await;
    }
    let plugin = "SELECT COUNT(*) FROM mysql.user WHERE user = 'secure' AND plugin = 'caching_sha2_password'";
    assert_eq!(stand.database.integer(plugin).await, 2);
    stand
}

fn server(stand: &Stand) -> &MySql {
    let SqlServer::MySql(server) = &stand.sql else { panic!("a stand with MySQL") };
    server
}

/// A host whose user is `secure`, at this place of the URL and with this query.
fn config(stand: &Stand, place: &str, query: &str) -> Config {
    let database = stand.database_url.rsplit('/').next().unwrap().split('?').next().unwrap();
    let mut config = stand.config();
    config.sql.url = format!("mysql://secure:secret@{place}/{database}?{query}");
    config
}

/// What `weir check` says, which must fail.
fn check(stand: &Stand, config: &Config) -> String {
    let HostConfig::Text(text) = HostConfig::of(config) else { panic!("a configuration is text") };
    let file = stand.directory.path().join("checked.toml");
    std::fs::write(&file, text).unwrap();
    let ended = weir(stand.directory.path(), &["check", "--config", file.to_str().unwrap()]);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    format!("{}{}", ended.stdout, ended.stderr)
}

async fn likes(host: &Host, database: &Database, actor: i64) {
    assert_eq!(Client::new(host.public()).like(1, actor).await, (true, actor));
    Client::new(host.admin()).wait_drained(LIMIT).await;
    assert!(database.likes().await.contains(&(1, actor)));
    database.assert_counts_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_taken_over_a_socket() {
    let mut stand = stand().await;
    let socket = server(&stand).socket();
    let host = stand.host(&config(&stand, "localhost", &format!("socket={}", socket.display())));
    likes(&host, &stand.database, 1).await;
    // A server that was started again has forgotten whose password it has seen.
    stand.sql.restart();
    let mut client = Client::new(host.admin());
    while client.get("/readyz").await.text().contains("away") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    likes(&host, &stand.database, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_taken_over_tls() {
    let mut stand = stand().await;
    let certificates = Certificates::new();
    let SqlServer::MySql(server) = &mut stand.sql else { panic!("a stand with MySQL") };
    // What it makes itself is for no name.
    let (own_ca, port) = (server.own_ca(), server.port());
    let mut config = config(&stand, &format!("127.0.0.1:{port}"), "");
    (config.sql.tls, config.sql.tls_ca_file) = (Some(TlsMode::Required), Some(own_ca));
    let said = check(&stand, &config);
    assert!(said.contains("the server's certificate"), "{said}");
    println!(
        "tls mysql, its own certificate: {}",
        said.lines().find(|line| line.contains("certificate")).unwrap().trim()
    );

    config.sql.tls_verify_name = false;
    let host = stand.host(&config);
    likes(&host, &stand.database, 1).await;
    drop(host);
    config.sql.tls_verify_name = true;

    let SqlServer::MySql(server) = &mut stand.sql else { panic!("a stand with MySQL") };
    server.certify(&certificates.server);
    config.sql.tls_ca_file = Some(certificates.ca.clone());
    let host = stand.host(&config);
    likes(&host, &stand.database, 2).await;
    let version = "SELECT COUNT(*) FROM performance_schema.status_by_thread AS s
        JOIN performance_schema.threads AS t ON t.thread_id = s.thread_id
        WHERE t.processlist_user = 'secure' AND s.variable_name = 'Ssl_version' AND s.variable_value LIKE 'TLSv1%'";
    assert!(stand.database.integer(version).await > 0, "the host's sessions are encrypted");
    println!("tls mysql: caching_sha2_password over TLS, a like is answered 200 and is in SQL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_does_not_go_over_plain_tcp_and_that_is_said() {
    let stand = stand().await;
    let place = format!("127.0.0.1:{}", server(&stand).port());
    let said = check(&stand, &config(&stand, &place, ""));
    assert!(said.contains(&format!("{place}: MySQL wants")) && said.contains("use TLS or a socket"), "{said}");
    println!("tls mysql, without: {}", said.lines().find(|line| line.contains("use TLS")).unwrap().trim());
    assert!(!said.contains("secret@") && !said.contains("mysql-rsa"), "{said}");
}

/// Names that MySQL 8 and 9 reserve and that older servers, and MariaDB, do not: whatever tables are called, weir quotes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_columns_may_have_reserved_names() {
    let stand = Stand::start(Setup::EmbeddedMySql, 1).await;
    let script = "CREATE TABLE `groups` (`rank` BIGINT NOT NULL PRIMARY KEY, `rows` BIGINT NOT NULL DEFAULT 0);
        CREATE TABLE `window` (`lateral` BIGINT NOT NULL, `system` BIGINT NOT NULL, `of` DATETIME(3) NOT NULL,
            PRIMARY KEY (`lateral`, `system`));
        INSERT INTO `groups` (`rank`) VALUES (1), (2);
        CREATE TABLE `manual` (`parallel` CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
            `qualify` BIGINT NOT NULL, `tablesample` VARCHAR(20) NOT NULL, `empty` DATETIME(3) NOT NULL);
        CREATE TABLE `cume_dist` (`library` BIGINT NOT NULL PRIMARY KEY, `external` BIGINT NOT NULL DEFAULT 0);";
    stand.database.script(script).await;
    let mut config = stand.full_config();
    let toggle = &mut config.toggles[0].table;
    (toggle.name, toggle.target_column, toggle.actor_column) = ("window".into(), "lateral".into(), "system".into());
    toggle.created_at_column = Some("of".into());
    let targets = toggle.targets.as_mut().unwrap();
    (targets.name, targets.key_column, targets.count_column) = ("groups".into(), "rank".into(), Some("rows".into()));
    let counter = &mut config.counters[0].table;
    (counter.name, counter.key_column, counter.count_column) =
        ("cume_dist".into(), "library".into(), "external".into());
    stand.database.script("INSERT INTO `cume_dist` (`library`) VALUES (1)").await;
    let ingest = &mut config.ingests[0];
    ingest.schema = None;
    (ingest.table.name, ingest.table.id_column) = ("manual".into(), "parallel".into());
    (ingest.table.actor_column, ingest.table.created_at_column) = (Some("qualify".into()), Some("empty".into()));
    ingest.table.columns = [("title".to_owned(), "tablesample".to_owned())].into();
    ingest.table.children.clear();
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    assert_eq!(client.like(1, 7).await, (true, 1));
    assert_eq!(client.like(2, 7).await, (true, 1));
    assert_eq!(client.like(2, 7).await, (false, 0));
    let headers = [("content-type", "application/json"), ("x-actor-id", "7")];
    assert_eq!(client.request("POST", "/v1/counters/video-view/1", &headers, "{}").await.unwrap().status, 200);
    let created = client.request("POST", "/v1/ingest/playlist", &headers, "{\"title\":\"t\"}").await.unwrap();
    assert_eq!(created.status, 202, "{}", created.text());
    Client::new(host.admin()).wait_drained(LIMIT).await;
    let rows =
        "SELECT `rank`, `rows`, (SELECT COUNT(*) FROM `window` WHERE `lateral` = `rank`) FROM `groups` ORDER BY 1";
    assert_eq!(stand.database.integers(rows).await, [[1, 1, 1], [2, 0, 0]]);
    assert_eq!(stand.database.integer("SELECT `external` FROM `cume_dist`").await, 1);
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM `manual` WHERE `tablesample` = 't'").await, 1);
    assert_eq!(stand.database.dead_letters().await, 0);
}
