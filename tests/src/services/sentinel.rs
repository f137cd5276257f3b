//! A Redis Sentinel: watches a master and its replicas, and makes one of these the master when that is gone or on demand.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{Process, Redis, START_TIMEOUT, find_binary, free_port, temporary_directory, wait_until};

/// What sentinels call the master.
const MASTER: &str = "weir-master";

/// A sentinel of our own; one alone decides.
#[derive(Debug)]
pub struct Sentinel {
    process: Option<Process>,
    port: u16,
    _directory: TempDir,
}

impl Sentinel {
    /// Watches `master`, which is taken for gone after `down_after`.
    pub fn start(master: &Redis, down_after: Duration) -> Self {
        let (directory, port) = (temporary_directory("sentinel"), free_port());
        let configuration = directory.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {MASTER} {}\nsentinel failover-timeout {MASTER} 10000\n",
            directory.path().display(),
            master.port(),
            down_after.as_millis()
        );
        fs::write(&configuration, text).expect("the configuration of a sentinel");
        let mut command = Command::new(find_binary("redis-server"));
        command.current_dir(directory.path()).arg(&configuration).arg("--sentinel");
        let log = directory.path().join("sentinel.log");
        let process = Process::spawn("redis-sentinel", command, &log, &log, Some(directory.path()));
        let mut sentinel = Self { process: Some(process), port, _directory: directory };
        let process = sentinel.process.as_mut().expect("just started");
        process.wait_ready(|| ask::<String>(port, &["PING"]).is_ok());
        sentinel
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of the master that it watches.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{MASTER}", self.port)
    }

    /// The port of the master, as it says.
    pub fn master(&self) -> u16 {
        let words: Vec<String> = self.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        words[1].parse().expect("a port")
    }

    /// Waits until it knows so many replicas: before that it cannot choose one.
    pub fn wait_knows(&self, replicas: usize) {
        let knows = || {
            let fields: Vec<String> = self.command(&["SENTINEL", "MASTER", MASTER]);
            let field = |name: &str| fields.iter().position(|field| field == name).map(|at| fields[at + 1].clone());
            field("num-slaves") == Some(replicas.to_string()) && field("flags").as_deref() == Some("master")
        };
        assert!(wait_until(START_TIMEOUT, knows), "the sentinel does not find {replicas} replicas");
    }

    /// Makes a replica the master while the old one still runs, and serves whoever is connected to it.
    pub fn fail_over(&self) {
        self.command::<()>(&["SENTINEL", "FAILOVER", MASTER]);
    }

    fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        ask(self.port, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}

fn ask<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
    redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
}
