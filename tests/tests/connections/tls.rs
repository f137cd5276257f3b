//! Certificates that hold and that do not, servers in plain, certificates of our own: PostgreSQL, MariaDB, Redis, origins.

use std::path::{Path, PathBuf};

use weir::config::{Config, Namespace, SqlConfig, StoreConfig, StoreType, TlsMode, UpstreamConfig};
use weir_tests::certificates::{Certificates, Pair};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds;
use weir_tests::origin::{Origin, ok};
use weir_tests::services::host::weir;
use weir_tests::services::{
    ClusterOptions, Host, HostConfig, MariaDb, Postgres, PostgresOptions, Redis, RedisCluster, RedisOptions,
    temporary_directory,
};
use weir_tests::stand::{Setup, SqlServer, Stand, add_targets, create_more_tables, create_tables};

use crate::{LIMIT, TURN, until};

/// Why a server's certificate, or a server, will not do; what must be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    UnknownCa,
    Expired,
    WrongName,
    Plain,
}

const FAULTS: [Fault; 4] = [Fault::UnknownCa, Fault::Expired, Fault::WrongName, Fault::Plain];

impl Fault {
    /// The server's certificate.
    fn pair(self, certificates: &Certificates) -> Option<&Pair> {
        match self {
            Self::UnknownCa => Some(&certificates.server),
            Self::Expired => Some(&certificates.expired),
            Self::WrongName => Some(&certificates.wrong_name),
            Self::Plain => None,
        }
    }

    /// The authority that is trusted.
    fn ca(self, certificates: &Certificates) -> &Path {
        if self == Self::UnknownCa { &certificates.other_ca } else { &certificates.ca }
    }

    /// What is said; `host` is the name in the URL.
    fn cause(self, host: &str) -> String {
        match self {
            Self::UnknownCa => "issued by an authority that is not trusted (unknown CA)".into(),
            Self::Expired => "the server's certificate expired on Sat, 03 Feb 2001".into(),
            Self::WrongName => format!("the server's certificate is for db.example, not for {host} (wrong name)"),
            Self::Plain => "the server does not speak TLS, and TLS is required".into(),
        }
    }

    /// What to do, where the settings are those of `place`.
    fn remedy(self, place: &str) -> String {
        match self {
            Self::UnknownCa => format!("{place}.tls_ca_file"),
            Self::Expired => "renew it".into(),
            Self::WrongName => format!("{place}.tls_verify_name = false"),
            Self::Plain => format!("{place}.tls = \"off\""),
        }
    }

    /// Looks at what was said, and prints it.
    fn assert_told(self, server: &str, (place, address): (&str, &str), said: &str) {
        println!("tls {server} {self:?}: {said}");
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        for part in [self.cause(host), self.remedy(place), address.to_owned()] {
            assert!(said.contains(&part), "{server} {self:?}: {part:?} is not in {said:?}");
        }
    }
}

fn sql_config(url: &str, ca: &Path) -> SqlConfig {
    let tls_ca_file = Some(ca.to_owned());
    SqlConfig { url: url.into(), tls: Some(TlsMode::Required), tls_ca_file, ..SqlConfig::default() }
}

async fn ask_sql(config: &SqlConfig) -> Result<(), String> {
    let sql = weir::sql::open(config).await.map_err(|error| error.to_string())?;
    sql.ping().await.map_err(|error| error.to_string())
}

fn store_config(url: String, ca: &Path) -> StoreConfig {
    StoreConfig {
        store_type: StoreType::Redis,
        url,
        namespace: Some(Namespace::try_from("test".to_owned()).unwrap()),
        tls_ca_file: Some(ca.to_owned()),
        ..StoreConfig::default()
    }
}

async fn ask_store(config: &StoreConfig) -> Result<(), String> {
    weir::store::inspect(config).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_and_mariadb_say_which_certificate_does_not_hold() {
    let _turn = TURN.lock().await;
    let certificates = Certificates::new();
    let mut postgres = Postgres::start();
    let mut mariadb = MariaDb::start();
    for fault in FAULTS {
        let (pair, ca) = (fault.pair(&certificates), fault.ca(&certificates));
        postgres.present(pair);
        mariadb.present(pair);
        for (server, url, port) in
            [("postgres", postgres.url("postgres"), postgres.port()), ("mariadb", mariadb.url("mysql"), mariadb.port())]
        {
            let said = ask_sql(&sql_config(&url, ca)).await.unwrap_err();
            fault.assert_told(server, ("sql", &format!("127.0.0.1:{port}")), &said);
        }
        if fault == Fault::WrongName {
            for url in [postgres.url("postgres"), mariadb.url("mysql")] {
                let config = SqlConfig { tls_verify_name: false, ..sql_config(&url, ca) };
                assert_eq!(ask_sql(&config).await, Ok(()), "the chain holds, and no name is asked for");
                let other = SqlConfig { tls_verify_name: false, ..sql_config(&url, &certificates.other_ca) };
                assert!(ask_sql(&other).await.unwrap_err().contains("unknown CA"), "{url}: the chain is asked for");
            }
        }
    }
    postgres.present(Some(&certificates.server));
    mariadb.present(Some(&certificates.server));
    for url in [postgres.url("postgres"), mariadb.url("mysql")] {
        assert_eq!(ask_sql(&sql_config(&url, &certificates.ca)).await, Ok(()));
        let missing = ask_sql(&sql_config(&url, Path::new("/nowhere/ca.pem"))).await.unwrap_err();
        assert!(missing.contains("sql.tls_ca_file") && missing.contains("/nowhere/ca.pem"), "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_origins_say_which_certificate_does_not_hold() {
    let _turn = TURN.lock().await;
    let certificates = Certificates::new();
    let mut redis = Redis::start(RedisOptions::default());
    for fault in FAULTS {
        let ca = fault.ca(&certificates);
        if let Some(pair) = fault.pair(&certificates) {
            redis.present(pair);
        }
        let url = if fault == Fault::Plain { redis.url().replace("redis:", "rediss:") } else { redis.tls_url() };
        let said = ask_store(&store_config(url.clone(), ca)).await.unwrap_err();
        fault.assert_told("redis", ("store", url.strip_prefix("rediss://").unwrap()), &said);

        let origin = match fault.pair(&certificates) {
            Some(pair) => Origin::start_with(ok("", "x"), pair).await,
            None => Origin::start(ok("", "x")).await,
        };
        let mut config = UpstreamConfig::new("shop", "/shop/", &format!("https://{}", origin.address));
        config.tls_ca_file = Some(ca.to_owned());
        let said = weir::upstream::try_encrypting(&config).await.unwrap_err();
        fault.assert_told("upstream", ("upstream", &origin.address.to_string()), &said);
        if fault == Fault::WrongName {
            let any = StoreConfig { tls_verify_name: false, ..store_config(url.clone(), ca) };
            assert_eq!(ask_store(&any).await, Ok(()), "the chain holds, and no name is asked for");
            let named = StoreConfig { tls_server_name: Some("db.example".into()), ..store_config(url, ca) };
            assert_eq!(ask_store(&named).await, Ok(()), "it is for the name that is asked for");
            config.tls_server_name = Some("db.example".into());
            assert_eq!(weir::upstream::try_encrypting(&config).await, Ok(Some(())));
        }
    }
    redis.present(&certificates.server);
    assert_eq!(ask_store(&store_config(redis.tls_url(), &certificates.ca)).await, Ok(()));
}

/// Redis, SQL and nothing else, all of them with the certificate of a server; Redis and PostgreSQL want one of ours.
async fn stand(setup: Setup, certificates: &Certificates) -> Stand {
    let (sql, database_url) = match setup {
        Setup::RedisPostgres => {
            let server = Postgres::start_with(PostgresOptions {
                certificate: Some(certificates.server.clone()),
                hba: Some(
                    concat!(
                        "host all postgres 127.0.0.1/32 trust\n",
                        "hostssl all app 127.0.0.1/32 trust clientcert=verify-ca\n",
                    )
                    .into(),
                ),
                ..PostgresOptions::default()
            });
            let url = server.create_database().await;
            (SqlServer::Postgres(server), url)
        }
        _ => {
            let server = MariaDb::start_with_certificate(&certificates.server);
            let url = server.create_database().await;
            (SqlServer::MariaDb(server), url)
        }
    };
    let redis = Redis::start(RedisOptions {
        certificate: Some(certificates.server.clone()),
        wants_client_certificate: true,
        ..RedisOptions::default()
    });
    let database = Database::connect(&database_url).await;
    match setup {
        Setup::RedisPostgres => database.script("CREATE ROLE app LOGIN SUPERUSER").await,
        // Not the one that may come in plain.
        _ => database.script("CREATE USER tls@'127.0.0.1' REQUIRE X509; GRANT ALL ON *.* TO tls@'127.0.0.1'").await,
    }
    create_tables(&database, "").await;
    add_targets(&database, 5).await;
    create_more_tables(&database, 5).await;
    let directory = temporary_directory("tls");
    Stand { setup, redis: Some(redis), sql, database_url, database, directory }
}

fn config(stand: &Stand, certificates: &Certificates, ca: &Path) -> Config {
    let mut config = stand.config();
    let some = |path: &PathBuf| Some(path.clone());
    config.store.url = stand.redis.as_ref().unwrap().tls_url();
    config.store.tls_ca_file = Some(ca.to_owned());
    config.store.tls_client_certificate_file = some(&certificates.client.certificate);
    config.store.tls_client_key_file = some(&certificates.client.key);
    config.sql.url = stand.database_url.replace("postgres@", "app@").replace("weir@", "tls@");
    config.sql.tls = Some(TlsMode::Required);
    config.sql.tls_ca_file = Some(ca.to_owned());
    config.sql.tls_client_certificate_file = some(&certificates.client.certificate);
    config.sql.tls_client_key_file = some(&certificates.client.key);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_like_goes_encrypted_all_the_way() {
    let _turn = TURN.lock().await;
    let certificates = Certificates::new();
    for setup in [Setup::RedisPostgres, Setup::RedisMariaDb] {
        let stand = stand(setup, &certificates).await;
        let origin =
            Origin::start_with(ok("Cache-Control: max-age=60\r\n", "from the shop"), &certificates.server).await;
        let mut config = config(&stand, &certificates, &certificates.ca);
        let mut shop = UpstreamConfig::new("shop", "/shop/", &format!("https://{}", origin.address));
        shop.tls_ca_file = Some(certificates.ca.clone());
        config.upstreams.push(shop);
        let host = stand.host(&config);
        let mut client = Client::new(host.public());
        assert_eq!(client.like(1, 7).await, (true, 1));
        let page = client.get("/shop/a").await;
        assert_eq!((page.status, page.text().as_str()), (200, "from the shop"), "{}", page.text());
        Client::new(host.admin()).wait_drained(LIMIT).await;
        assert_eq!(stand.database.likes().await, [(1, 7)].into(), "{}", setup.name());
        if setup == Setup::RedisPostgres {
            let encrypted = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                             WHERE usename = 'app'";
            let counts = &stand.database.integers(encrypted).await[0];
            assert!(counts[1] > 0 && counts[0] == counts[1], "{counts:?}");
        }
        let checked =
            weir(stand.directory.path(), &["check", "--config", host.config_path().unwrap().to_str().unwrap()]);
        assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
        assert!(checked.stdout.contains("upstream: shop: https://"), "{}", checked.stdout);

        // Without a certificate of our own.
        let mut bare = config.clone();
        (bare.store.tls_client_certificate_file, bare.store.tls_client_key_file) = (None, None);
        bare.store.namespace = Some(Namespace::try_from("test".to_owned()).unwrap());
        let said = ask_store(&bare.store).await.unwrap_err();
        println!("tls redis without a client certificate: {said}");
        assert!(
            said.contains("the server refuses our certificate, or that we have none (CertificateRequired)"),
            "{said}"
        );
        (bare.sql.tls_client_certificate_file, bare.sql.tls_client_key_file) = (None, None);
        let said = ask_sql(&bare.sql).await.unwrap_err();
        println!("tls {} without a client certificate: {said}", setup.name());
        assert!(said.contains("certificate") || said.contains("Access denied"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_readyz_say_what_is_wrong_with_a_certificate() {
    let _turn = TURN.lock().await;
    let certificates = Certificates::new();
    let mut stand = stand(Setup::RedisPostgres, &certificates).await;
    let origin = Origin::start_with(ok("", "x"), &certificates.expired).await;
    let mut config = config(&stand, &certificates, &certificates.ca);
    let mut shop = UpstreamConfig::new("shop", "/shop/", &format!("https://{}", origin.address));
    shop.tls_ca_file = Some(certificates.ca.clone());
    config.upstreams.push(shop);
    config.sql.tls_ca_file = Some(certificates.other_ca.clone());
    let mut host = Host::start(HostConfig::of(&config), stand.directory.path());
    let path = host.config_path().unwrap().to_str().unwrap().to_owned();
    let ready = async |host: &Host| Client::new(host.admin()).get("/readyz").await.text();

    let said = ready(&host).await;
    assert!(said.contains("(unknown CA)") && said.contains("sql.tls_ca_file"), "{said}");
    let answer = Client::new(host.public()).get("/shop/a").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let said = ready(&host).await;
    assert!(said.contains("upstream:shop") && said.contains("expired on Sat, 03 Feb 2001"), "{said}");
    let checked = weir(stand.directory.path(), &["check", "--config", &path]);
    assert_ne!(checked.code, Some(0), "{}", checked.stdout);
    let all = format!("{}{}", checked.stdout, checked.stderr);
    assert!(all.contains("(unknown CA)") && all.contains("expired on"), "{all}");
    println!("tls check: {}", all.lines().filter(|line| line.contains("certificate")).collect::<Vec<_>>().join(" | "));

    // What is wrong with a certificate is found again without a restart of the host.
    host.kill();
    config.sql.tls_ca_file = Some(certificates.ca.clone());
    let mut host = stand.host(&config);
    let mut client = Client::new(host.public());
    assert_eq!(client.like(1, 1).await, (true, 1));
    stand.redis().present(&certificates.expired);
    until("the store's certificate is told", || async {
        let reply = Client::new(host.admin()).get("/readyz").await;
        reply.status == 503 && reply.text().contains("the server's certificate expired")
    })
    .await;
    stand.redis().present(&certificates.server);
    until("the store is found again", || async {
        Client::new(host.public()).toggle("PUT", 1, 2, None).await.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    Client::new(host.admin()).wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, [(1, 1), (1, 2)].into());
    host.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_a_cluster_are_reached_encrypted() {
    let _turn = TURN.lock().await;
    let certificates = Certificates::new();
    let options = ClusterOptions { certificate: Some(certificates.server.clone()), ..ClusterOptions::default() };
    let cluster = RedisCluster::start(&options);
    let stand = Stand::start(Setup::EmbeddedSqlite, 20).await;
    let mut config = stand.config();
    (config.store.store_type, config.store.url) = (StoreType::RedisCluster, cluster.tls_url());
    config.store.tls_ca_file = Some(certificates.ca.clone());
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    for target in 1..=20 {
        assert_eq!(client.like(target, 7).await, (true, 1));
    }
    Client::new(host.admin()).wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, (1..=20).map(|target| (target, 7)).collect());
    // Nobody was asked in plain: the ports that nodes named to each other's clients are those of TLS.
    let ready = Client::new(host.admin()).get("/readyz").await;
    let port = cluster.tls_url().rsplit_once(':').unwrap().1.to_owned();
    assert!(ready.status == 200 && ready.text().contains(&port), "{}", ready.text());

    config.store.tls_ca_file = Some(certificates.other_ca.clone());
    config.store.namespace = Some(Namespace::try_from("test".to_owned()).unwrap());
    let said = ask_store(&config.store).await.unwrap_err();
    println!("tls cluster UnknownCa: {said}");
    assert!(said.contains("(unknown CA)"), "{said}");
}

#[test]
fn what_would_leave_the_machine_in_plain_is_refused_at_the_start() {
    let directory = temporary_directory("plain");
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = kinds::config(directory.path(), &kinds::sqlite_in(directory.path()), &[]);
        change(&mut config);
        let ended = Host::start_refused(HostConfig::of(&config), directory.path());
        format!("{}{}", ended.stdout, ended.stderr)
    };
    let said = refused(&|config| {
        (config.store.store_type, config.store.url) = (StoreType::Redis, "redis://10.0.0.7:6379".into());
    });
    assert!(said.contains("write rediss://, or store.tls = \"off\""), "{said}");
    let said = refused(&|config| config.sql.url = "postgres://app@db.example/shop?sslmode=prefer".into());
    assert!(said.contains("only if whoever answers wants to"), "{said}");
    let said = refused(&|config| config.upstreams.push(UpstreamConfig::new("shop", "/shop/", "http://10.0.0.7:80")));
    assert!(said.contains("write https://, or upstream[0].tls = \"off\""), "{said}");
}
