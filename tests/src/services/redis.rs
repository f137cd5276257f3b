//! A `redis-server`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::{Process, find_binary, find_fetched, free_port, temporary_directory};
use crate::certificates::Pair;

/// How long one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// When Redis calls fdatasync on its append-only file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppendFsync {
    /// Before each answer.
    #[default]
    Always,
    /// Once a second.
    EverySec,
    /// There is no append-only file: a killed Redis starts empty.
    Off,
}

/// Which server it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedisRelease {
    /// Redis, as the machine's distribution has it.
    #[default]
    Installed,
    /// Redis 8, which `tests/servers` has fetched.
    Redis8,
    /// Valkey, which `tests/servers` has fetched.
    Valkey,
}

impl RedisRelease {
    fn program(self) -> PathBuf {
        match self {
            Self::Installed => find_binary("redis-server"),
            Self::Redis8 => find_fetched("redis-8", "redis-server"),
            Self::Valkey => find_fetched("valkey", "valkey-server"),
        }
    }
}

/// How the Redis is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// The append-only file.
    pub append_fsync: AppendFsync,
    /// `maxmemory-policy`; weir accepts only `noeviction`.
    pub maxmemory_policy: &'static str,
    /// `maxmemory`, such as `64mb`; `0` is without a limit.
    pub maxmemory: &'static str,
    /// TLS on a port of its own, with this certificate.
    pub certificate: Option<Pair>,
    /// Whether clients need a certificate of the same authority there.
    pub wants_client_certificate: bool,
    /// More settings, such as `["--cluster-enabled", "yes"]`.
    pub more: Vec<String>,
    /// Which server.
    pub release: RedisRelease,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            append_fsync: AppendFsync::Always,
            maxmemory_policy: "noeviction",
            maxmemory: "0",
            certificate: None,
            wants_client_certificate: false,
            more: Vec::new(),
            release: RedisRelease::Installed,
        }
    }
}

/// A Redis of our own.
#[derive(Debug)]
pub struct Redis {
    process: Option<Process>,
    options: RedisOptions,
    port: u16,
    tls_port: u16,
    directory: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start(options: RedisOptions) -> Self {
        let mut redis = Self::prepare(options);
        redis.restart();
        redis
    }

    /// One that does not run yet.
    pub(super) fn prepare(options: RedisOptions) -> Self {
        Self {
            process: None,
            options,
            port: free_port(),
            tls_port: free_port(),
            directory: temporary_directory("redis"),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of database 0.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Whether it listens there, in plain or encrypted.
    pub fn has_port(&self, port: u16) -> bool {
        [self.port, self.tls_port].contains(&port)
    }

    /// URL of database 0 over TLS.
    pub fn tls_url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.tls_port)
    }

    /// Starts it again with this certificate.
    pub fn present(&mut self, pair: &Pair) {
        self.options.certificate = Some(pair.clone());
        self.restart();
    }

    /// URL of database `number`, 0 to 15, for tests that share one server.
    pub fn url_of_database(&self, number: u8) -> String {
        format!("{}/{number}", self.url())
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.process.as_ref().expect("a running redis-server").pid()
    }

    /// Whether the process runs (it may be stopped by a signal).
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again, on the same port and directory; ends it first when it still runs.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// As [`Redis::restart`], but does not wait until it answers.
    pub(super) fn spawn(&mut self) {
        self.kill();
        let mut command = Command::new(self.options.release.program());
        let (append_only, append_fsync) = match self.options.append_fsync {
            AppendFsync::Always => ("yes", "always"),
            AppendFsync::EverySec => ("yes", "everysec"),
            AppendFsync::Off => ("no", "everysec"),
        };
        command
            .current_dir(self.directory.path())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
            .args(["--appendonly", append_only, "--appendfsync", append_fsync])
            .args(["--maxmemory", self.options.maxmemory, "--maxmemory-policy", self.options.maxmemory_policy])
            // What the machine is set to may be a locale that a fetched server has no files of.
            .env("LC_ALL", "C")
            .args(&self.options.more);
        if let Some(pair) = &self.options.certificate {
            let wants = if self.options.wants_client_certificate { "yes" } else { "no" };
            command.args(["--tls-port", &self.tls_port.to_string(), "--tls-auth-clients", wants]);
            command.arg("--tls-cert-file").arg(&pair.certificate).arg("--tls-key-file").arg(&pair.key);
            command.arg("--tls-ca-cert-file").arg(&pair.ca);
        }
        let log = self.directory.path().join("redis.log");
        self.process = Some(Process::spawn("redis-server", command, &log, &log, Some(self.directory.path())));
    }

    /// Waits until it answers.
    pub(super) fn wait_ready(&mut self) {
        let port = self.port;
        self.process.as_mut().expect("a running redis-server").wait_ready(|| answers(port));
    }

    /// Stops it in its tracks (SIGSTOP): connections stay open, nothing answers.
    pub fn stop_signal(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running redis-server").signal(signal);
    }

    /// Runs one command, such as `["FLUSHALL"]`, in database 0.
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// As [`Redis::command`], where it may fail.
    pub fn try_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(COMMAND_TIMEOUT)?;
        connection.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }
}

/// Whether a Redis on `port` answers PING with PONG, not with LOADING.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    ask().unwrap_or(false)
}
