//! What is measured: the bare handler, hosts, nginx; and what their processes cost.

use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::Pid;
use tempfile::TempDir;
use tokio::net::TcpListener;
use weir::config::{BuiltinRules, Config, StoreConfig, StoreType};

use super::load::Way;
use crate::database::Database;
use crate::kinds::{self, Kind};
use crate::services::{
    Host, HostConfig, Process, Redis, children_of, find_binary, free_port, host, temporary_directory,
};
use crate::stand::add_targets;

/// First argument of the bench executable when it is to be the bare server.
const BARE_SERVER: &str = "bare-server";
/// As long as what weir answers.
const BARE_REPLY: &str =
    r#"{"liked":true,"likeCount":1,"message":"Liked","timestamp":"2026-01-01T00:00:00.000Z","durability":"journaled"}"#;

/// CPU time and memory of processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// User and system time, in microseconds.
    pub cpu_us: f64,
    /// Greatest resident memory, in bytes.
    pub rss_bytes_peak: f64,
}

/// What the processes have cost until now.
pub fn cost(pids: &[Pid]) -> Cost {
    let mut sum = Cost::default();
    for pid in pids {
        let path = |file: &str| format!("/proc/{}/{file}", pid.as_raw_nonzero());
        let stat = fs::read_to_string(path("stat")).expect("a running process");
        let after_name = &stat[stat.rfind(')').expect("a name") + 2..];
        let fields: Vec<&str> = after_name.split(' ').collect();
        let ticks = |index: usize| fields[index].parse::<f64>().expect("ticks");
        // Fields 14 and 15 of proc(5), in hundredths of a second.
        sum.cpu_us += (ticks(11) + ticks(12)) * 1e6 / rustix::param::clock_ticks_per_second() as f64;
        let status = fs::read_to_string(path("status")).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        sum.rss_bytes_peak += line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("kB") * 1_024.0;
    }
    sum
}

/// A hyper handler that answers a fixed reply: what HTTP alone costs on this machine.
#[derive(Debug)]
pub struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    /// Starts this executable once more. Its `main` must call [`Bare::serve_if_asked`] first.
    pub fn start() -> Self {
        Self::start_with(BARE_REPLY, &[])
    }

    /// The same, with another answer.
    pub fn start_with(body: &str, headers: &[(String, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the path of this executable"))
            .arg(BARE_SERVER)
            .arg(body)
            .args(headers.iter().flat_map(|(name, value)| [name, value]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bare server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its address");
        Self { child, address: line.trim().parse().expect("its address") }
    }

    /// Where and how it is asked.
    pub fn way(&self) -> Way {
        Way { address: self.address, method: "POST", prefix: "/v1/toggles/feed-like".into(), actor_in_path: false }
    }

    /// Its process.
    pub fn pids(&self) -> Vec<Pid> {
        vec![Pid::from_child(&self.child)]
    }

    /// Is the bare server, for ever, when the first argument says so.
    pub fn serve_if_asked() {
        if std::env::args().nth(1).is_some_and(|argument| argument == BARE_SERVER) {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            let mut answer = std::env::args().skip(2).map(|argument| &*argument.leak());
            let body: &'static str = answer.next().expect("a body");
            let headers: Vec<&'static str> = answer.collect();
            runtime.block_on(bare_server(body, headers.leak()));
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn bare_server(body: &'static str, headers: &'static [&'static str]) {
    // Ends with the benchmark that started it, however that ends.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("prctl");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    let names = headers.iter().step_by(2).map(|name| HeaderName::from_static(name));
    let values = headers.iter().skip(1).step_by(2).map(|value| HeaderValue::from_static(value));
    let headers: &'static [(HeaderName, HeaderValue)] = names.zip(values).collect::<Vec<_>>().leak();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        tokio::spawn(async move {
            let answer = service_fn(|_| async {
                let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
                response.headers_mut().reserve(headers.len());
                response.headers_mut().extend(headers.iter().cloned());
                Ok::<_, Infallible>(response)
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// nginx + Lua on a Redis, doing the same by other ways.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
    _directory: TempDir,
}

impl Nginx {
    /// Starts two workers.
    pub fn start(redis: &Redis) -> Self {
        let (directory, port) = (temporary_directory("nginx"), free_port());
        fs::create_dir(directory.path().join("logs")).expect("a directory");
        let template = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/nginx.conf"));
        let text = template
            .expect("nginx.conf")
            .replace("@DIR@", &directory.path().display().to_string())
            .replace("@PORT@", &port.to_string())
            .replace("@REDIS_PORT@", &redis.port().to_string());
        let file = directory.path().join("nginx.conf");
        fs::write(&file, text).expect("nginx.conf");
        let mut command = Command::new(find_binary("nginx"));
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
        command.arg("-e").arg(directory.path().join("logs/error.log"));
        let log = directory.path().join("logs/start.log");
        let mut process = Process::spawn("nginx", command, &log, &log, None);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        process.wait_ready(|| host::get(address, "/ready").is_some());
        Self { process, address, _directory: directory }
    }

    /// Where and how `/script` or `/common` is asked.
    pub fn way(&self, location: &str) -> Way {
        Way { address: self.address, method: "POST", prefix: location.into(), actor_in_path: true }
    }

    /// Master and workers.
    pub fn pids(&self) -> Vec<Pid> {
        let mut pids = children_of(self.process.pid());
        pids.push(self.process.pid());
        pids
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A killed master leaves its workers behind.
        let workers = children_of(self.process.pid());
        self.process.kill();
        for worker in workers {
            let _ = rustix::process::kill_process(worker, rustix::process::Signal::KILL);
        }
    }
}

/// What a measured host stands on.
#[derive(Debug, Clone, Copy)]
pub struct HostOptions<'a> {
    /// Its Redis; embedded without.
    pub redis: Option<&'a Redis>,
    /// The authority of that Redis, which is reached over TLS then.
    pub tls_ca: Option<&'a Path>,
    /// Its database; a SQLite file in its directory without.
    pub sql_url: Option<&'a str>,
    /// Component, or rules compiled into the host.
    pub rules: BuiltinRules,
    /// Whether it writes behind while it is measured.
    pub flushes: bool,
}

/// A host with kind `feed-like`, without its rate limit, on targets 1 to `targets` that nobody likes.
pub async fn start_host(directory: &Path, targets: u64, options: HostOptions<'_>) -> Host {
    let url = options.sql_url.map_or_else(|| kinds::sqlite_in(directory), str::to_owned);
    let mut config = kinds::config(directory, &url, &[Kind::FeedLike]);
    if let Some(redis) = options.redis {
        let url = if options.tls_ca.is_some() { redis.tls_url() } else { redis.url() };
        let tls_ca_file = options.tls_ca.map(Path::to_owned);
        config.store = StoreConfig { store_type: StoreType::Redis, url, tls_ca_file, ..StoreConfig::default() };
    }
    config.policy.builtin = options.rules;
    config.toggles[0].settings.insert("limit-burst".into(), "0".into());
    if !options.flushes {
        hold_back(&mut config);
    }
    let database = Database::connect(&url).await;
    Kind::FeedLike.create_tables(&database).await;
    add_targets(&database, i64::try_from(targets).expect("targets")).await;
    let mut host = Host::start(HostConfig::of(&config), directory);
    host.wait_ready();
    host
}

/// The journal fills and nothing is written behind: for measuring one half alone.
pub fn hold_back(config: &mut Config) {
    for toggle in &mut config.toggles {
        for name in ["flush-entries", "flush-age-ms"] {
            toggle.settings.insert(name.into(), "4000000000".into());
        }
    }
    config.journal.backlog_entries_max = u64::from(u32::MAX);
    config.journal.backlog_bytes_max = 64 << 30;
}

/// Where and how a host is asked.
pub fn way(host: &Host) -> Way {
    Way { address: host.public(), method: "POST", prefix: "/v1/toggles/feed-like".into(), actor_in_path: false }
}
