//! What operators count on: signals, a reload, and probes that answer while something runs out.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};
use weir_tests::services::host::get;

use super::*;

/// Connections that have sent half a head.
fn half_open(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let open = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a").unwrap();
        stream
    };
    (0..count).map(|_| open()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_heads_and_a_want_of_files_keep_nobody_out() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedSqlite, 3).await;
    let mut config = stand.config();
    config.http.connections_max = 64;
    let mut host = stand.host(&config);
    // More than either listener has places for; each is younger than its time for a head.
    let held: Vec<TcpStream> = [host.admin(), host.public()].into_iter().flat_map(|to| half_open(to, 70)).collect();
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(host.admin(), path).map(|(status, _)| status), Some(200), "{path} behind half heads");
    }
    assert_eq!(Client::new(host.public()).like(1, 1).await, (true, 1), "a client behind half heads");
    drop(held);
    host.terminate();

    // Not one file more for this process.
    let host = stand.host(&stand.config());
    let files = std::fs::read_dir(format!("/proc/{}/fd", host.pid().as_raw_nonzero())).unwrap();
    let open: Vec<u64> = files.flatten().filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    let highest = *open.iter().max().unwrap();
    let limit = Rlimit { current: Some(highest + 1), maximum: Some(highest + 1) };
    prlimit(Some(host.pid()), Resource::Nofile, limit).unwrap();
    // Those below the highest that it had open before and has closed are soon taken.
    let held = half_open(host.public(), highest as usize + 1 - open.len() + 30);
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(host.admin(), path).map(|(status, _)| status), Some(200), "{path} without files");
    }
    let (_, metrics) = get(host.admin(), "/metrics").unwrap();
    assert!(metrics.contains("weir_accept_failures_total{cause=\"process-files\"}"), "{metrics}");
    assert!(host.log().contains("cannot accept a connection"), "it is said");
    assert_eq!(Client::new(host.public()).like(2, 1).await, (true, 1), "a client without files");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_reloads_all_or_nothing_and_no_signal_but_a_stop_ends_the_host() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedSqlite, 3).await;
    let token_file = stand.directory.path().join("admin-token");
    std::fs::write(&token_file, "the-first-token-is-long-enough").unwrap();
    let mut config = stand.config();
    config.admin.token_file = Some(token_file.clone());
    let mut host = stand.host(&config);
    let tell = |signal| kill_process(host.pid(), signal).unwrap();
    let rewrite = |config: &Config| {
        std::fs::write(host.config_path().unwrap(), toml::to_string(config).unwrap()).unwrap();
    };
    let mut admin = Client::new(host.admin());
    let mut takes = async |token: &str| {
        let bearer = format!("Bearer {token}");
        admin.request("GET", "/admin/v1/flush", &[("authorization", &bearer)], "").await.unwrap().status == 200
    };
    let said = async |what: &str| until(what, || async { host.log().contains(what) }).await;
    assert!(takes("the-first-token-is-long-enough").await);

    // A file that the configuration names, a limit, and what only a restart changes.
    std::fs::write(&token_file, "the-second-token-is-long-enough").unwrap();
    config.http.body_bytes_max = 10;
    config.http.connections_max += 1;
    rewrite(&config);
    tell(Signal::HUP);
    said("restart weir for what changed in http.connections_max").await;
    assert!(host.log().contains("http.body_bytes_max, what ") && host.log().contains("admin-token holds"));
    assert!(takes("the-second-token-is-long-enough").await && !takes("the-first-token-is-long-enough").await);
    let mut client = Client::new(host.public());
    let (json, actor) = (("content-type", "application/json"), ("x-actor-id", "1"));
    let large = client.request("PUT", "/v1/toggles/feed-like/1", &[json, actor], "{\"a\": \"0123456789\"}").await;
    assert_eq!(large.unwrap().status, 413, "the new limit holds");

    // One thing that is wrong, and nothing changes.
    std::fs::write(&token_file, "short").unwrap();
    config.http.body_bytes_max = 65_536;
    rewrite(&config);
    tell(Signal::HUP);
    said("the configuration is not reloaded: all stays as it was").await;
    assert!(host.log().contains("admin.token_file: must hold at least 16 characters"), "{}", host.log());
    assert!(takes("the-second-token-is-long-enough").await);
    let large = client.request("PUT", "/v1/toggles/feed-like/1", &[json, actor], "{\"a\": \"0123456789\"}").await;
    assert_eq!(large.unwrap().status, 413, "the old limit holds");

    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        tell(signal);
        said(&format!("{name} means nothing here")).await;
    }
    tell(Signal::PIPE);
    assert_eq!(client.like(1, 1).await, (true, 1));
    assert!(host.terminate().success(), "SIGTERM drains and ends it");
    assert_eq!(stand.database.likes().await, [(1, 1)].into());
}
