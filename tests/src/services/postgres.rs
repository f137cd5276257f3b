//! A PostgreSQL cluster.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::{
    Account, Process, Release, START_TIMEOUT, find_binary, find_fetched, free_port, hand_over, run_to_end,
    temporary_directory, wait_until,
};
use crate::certificates::Pair;

/// How the cluster is configured.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether a commit waits for the disk.
    pub fsync: bool,
    /// Further settings, `name=value`.
    pub settings: Vec<String>,
    /// Whose programs.
    pub release: Release,
    /// TLS, with this certificate. Connections in plain are taken as well.
    pub certificate: Option<Pair>,
    /// Lines of `pg_hba.conf`, in place of those that let everybody on this machine in.
    pub hba: Option<String>,
    /// A standby of the server at this URL, whose data it begins with.
    pub primary: Option<String>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            fsync: true,
            settings: Vec::new(),
            release: Release::Installed,
            certificate: None,
            hba: None,
            primary: None,
        }
    }
}

/// A PostgreSQL of our own: superuser `postgres`, no password, TCP on loopback only.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    options: PostgresOptions,
    account: Option<Account>,
    port: u16,
    directory: TempDir,
    databases: AtomicU32,
}

impl Postgres {
    /// Creates a cluster with the default settings, starts it and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(PostgresOptions::default())
    }

    /// Creates a cluster, starts it and waits until it answers.
    pub fn start_with(options: PostgresOptions) -> Self {
        let directory = temporary_directory("postgres");
        let account = Account::first_of(&["postgres", "nobody"]);
        let data = directory.path().join("data");
        if let Some(primary) = &options.primary {
            let mut command = Command::new(program(options.release, "pg_basebackup"));
            Account::apply(account, directory.path(), &mut command);
            command.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", primary, "--pgdata"]);
            command.arg(&data);
            run_to_end(command);
        } else {
            let mut command = Command::new(program(options.release, "initdb"));
            Account::apply(account, directory.path(), &mut command);
            command
                .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres"])
                .arg(&data);
            run_to_end(command);
        }
        if let Some(hba) = &options.hba {
            fs::write(data.join("pg_hba.conf"), hba).expect("pg_hba.conf");
        }
        let databases = AtomicU32::new(0);
        let mut postgres = Self { process: None, options, account, port: free_port(), directory, databases };
        postgres.restart();
        postgres
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of `database`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database and answers its URL.
    pub async fn create_database(&self) -> String {
        let name = format!("weir_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    /// Whether the server runs (it may be stopped by a signal).
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends the postmaster and every process of the cluster with SIGKILL.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Each backend is the leader of a group of its own. The postmaster is stopped first, so that it starts no
        // further one meanwhile.
        process.signal(Signal::STOP);
        let backends = super::children_of(process.pid());
        for backend in &backends {
            let _ = kill_process(*backend, Signal::KILL);
        }
        process.kill();
        let gone = wait_until(START_TIMEOUT, || backends.iter().all(|backend| super::is_gone(*backend)));
        assert!(gone, "killed PostgreSQL backends are still there");
        // All is gone; a new process with the old number must not be taken for the old postmaster.
        let _ = fs::remove_file(self.directory.path().join("data/postmaster.pid"));
    }

    /// Starts it again, on the same port and directory; ends it first when it still runs. Waits for the recovery.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(program(self.options.release, "postgres"));
        Account::apply(self.account, self.directory.path(), &mut command);
        command.arg("-D").arg(self.directory.path().join("data"));
        let fsync = if self.options.fsync { "fsync=on" } else { "fsync=off" };
        let port = format!("port={}", self.port);
        let settings = [
            port.as_str(),
            fsync,
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=100",
            "shared_buffers=32MB",
            "dynamic_shared_memory_type=mmap",
        ];
        if let Some(pair) = &self.options.certificate {
            let [certificate, key, ca] = hand_over(pair, self.account, self.directory.path());
            for (name, path) in [("ssl_cert_file", certificate), ("ssl_key_file", key), ("ssl_ca_file", ca)] {
                command.args(["-c", &format!("{name}={path}")]);
            }
            command.args(["-c", "ssl=on"]);
        }
        for setting in settings.into_iter().chain(self.options.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let log = self.directory.path().join("postgres.log");
        let mut process = Process::spawn("postgres", command, &log, &log, Some(self.directory.path()));
        let port = self.port;
        process.wait_ready(|| answers(port));
        self.process = Some(process);
    }

    /// Starts it again with this certificate; without one, without TLS.
    pub fn present(&mut self, pair: Option<&Pair>) {
        self.options.certificate = pair.cloned();
        self.restart();
    }

    /// Stops the postmaster and every backend in its tracks (SIGSTOP).
    pub fn stop_signal(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on (SIGCONT).
    pub fn cont(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let process = self.process.as_ref().expect("a running postgres");
        process.signal(signal);
        for backend in super::children_of(process.pid()) {
            let _ = kill_process(backend, signal);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(process) = &self.process
        {
            eprintln!("{}", process.log_tail());
        }
        self.kill();
    }
}

fn program(release: Release, name: &str) -> PathBuf {
    match release {
        Release::Installed => find_binary(name),
        Release::Current => find_fetched("postgresql", name),
    }
}

/// Whether a PostgreSQL on `port` takes sessions: it asks for authentication instead of sending an error.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        // StartupMessage of protocol 3.0.
        let mut message = vec![0, 3, 0, 0];
        message.extend(b"user\0postgres\0database\0postgres\0\0");
        let length = u32::try_from(message.len() + 4).unwrap();
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&message)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"R")
    };
    ask().unwrap_or(false)
}
