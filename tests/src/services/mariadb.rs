//! A MariaDB server.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{Connection, MySqlConnection};
use tempfile::TempDir;

use super::{
    Account, Process, Release, fetched, find_binary, find_fetched, free_port, hand_over, run_to_end,
    temporary_directory,
};
use crate::certificates::Pair;

/// A MariaDB of our own: user `weir` with all rights and no password, TCP on loopback only.
#[derive(Debug)]
pub struct MariaDb {
    process: Option<Process>,
    account: Option<Account>,
    port: u16,
    directory: TempDir,
    databases: AtomicU32,
    settings: Vec<String>,
    release: Release,
    certificate: Option<Pair>,
}

impl MariaDb {
    /// Creates the data directory, starts the server and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&["--skip-log-bin"])
    }

    /// As [`MariaDb::start`], of a release, without waiting for the disk.
    pub fn start_quickly(release: Release) -> Self {
        Self::start_of(release, &["--skip-log-bin", "--innodb-flush-method=nosync"], None)
    }

    /// As [`MariaDb::start`], with further settings; without any, the server's own.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_of(Release::Installed, settings, None)
    }

    /// As [`MariaDb::start`], with TLS and this certificate. Connections in plain are taken as well.
    pub fn start_with_certificate(pair: &Pair) -> Self {
        Self::start_of(Release::Installed, &["--skip-log-bin"], Some(pair))
    }

    fn start_of(release: Release, settings: &[&str], pair: Option<&Pair>) -> Self {
        let directory = temporary_directory("mariadb");
        let account = Account::first_of(&["mysql", "nobody"]);
        install(release, account, directory.path());
        fs::write(
            directory.path().join("init.sql"),
            concat!(
                "CREATE USER IF NOT EXISTS weir@'127.0.0.1';\nGRANT ALL ON *.* TO weir@'127.0.0.1' WITH GRANT OPTION;\n",
                // An application's, with no right over the server: it writes nothing while that is read-only.
                "CREATE USER IF NOT EXISTS app@'127.0.0.1';\nGRANT ALL ON `weir\\_%`.* TO app@'127.0.0.1';\n",
            ),
        )
        .unwrap();
        let databases = AtomicU32::new(0);
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut mariadb = Self {
            process: None,
            account,
            port: free_port(),
            directory,
            databases,
            settings,
            release,
            certificate: pair.cloned(),
        };
        mariadb.restart();
        mariadb
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of `database`.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://weir@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database (`utf8mb4`) and answers its URL.
    pub async fn create_database(&self) -> String {
        let name = format!("weir_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = MySqlConnection::connect(&self.url("mysql")).await.unwrap();
        let statement = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    /// Whether the server runs (it may be stopped by a signal).
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again, on the same port and directory; ends it first when it still runs. Waits for the recovery.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(program(self.release, "mariadbd"));
        Account::apply(self.account, self.directory.path(), &mut command);
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        command
            .arg("--no-defaults")
            .args(places(self.release))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
            .args(&self.settings)
            .args(["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=64M"])
            .arg("--innodb-log-file-size=16M")
            .arg(format!("--port={}", self.port))
            .arg(format!("--datadir={}", path("data")))
            .arg(format!("--socket={}", path("socket")))
            .arg(format!("--pid-file={}", path("pid")))
            .arg(format!("--tmpdir={}", self.directory.path().display()))
            .arg(format!("--init-file={}", path("init.sql")));
        match &self.certificate {
            Some(pair) => {
                let [certificate, key, ca] = hand_over(pair, self.account, self.directory.path());
                command.arg(format!("--ssl-cert={certificate}")).arg(format!("--ssl-key={key}"));
                command.arg(format!("--ssl-ca={ca}"));
            }
            // Later versions make themselves a certificate.
            None => drop(command.arg("--skip-ssl")),
        }
        let log = self.directory.path().join("mariadb.log");
        let mut process = Process::spawn("mariadbd", command, &log, &log, Some(self.directory.path()));
        let port = self.port;
        process.wait_ready(|| answers(port));
        self.process = Some(process);
    }

    /// Starts it again with this certificate; without one, without TLS.
    pub fn present(&mut self, pair: Option<&Pair>) {
        self.certificate = pair.cloned();
        self.restart();
    }

    /// Stops it in its tracks (SIGSTOP).
    pub fn stop_signal(&self) {
        self.process.as_ref().expect("a running mariadbd").signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.process.as_ref().expect("a running mariadbd").signal(Signal::CONT);
    }
}

fn program(release: Release, name: &str) -> PathBuf {
    match release {
        Release::Installed => find_binary(name),
        Release::Current => find_fetched("mariadb", name),
    }
}

/// Where a server looks for what belongs to it, when that is not where it was meant to be installed.
fn places(release: Release) -> Option<String> {
    (release == Release::Current).then(|| format!("--basedir={}", fetched("mariadb").join("usr").display()))
}

/// Makes the data directory. One at a time: the bootstrap server takes memory and the kernel's asynchronous I/O, and gives up
/// when many start together.
fn install(release: Release, account: Option<Account>, directory: &Path) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(program(release, "mariadb-install-db"));
    Account::apply(account, directory, &mut command);
    command
        .arg("--no-defaults")
        .args(places(release))
        .args(["--skip-test-db", "--auth-root-authentication-method=normal"])
        .args(["--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0", "--sync-frm=0"])
        .args(["--innodb-use-native-aio=0", "--innodb-buffer-pool-size=16M"])
        .arg(format!("--tmpdir={}", directory.display()))
        .arg(format!("--datadir={}", directory.join("data").display()));
    run_to_end(command);
}

/// Whether a MariaDB on `port` greets with protocol 10.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting)?;
        Ok(greeting[4] == 10)
    };
    ask().unwrap_or(false)
}
