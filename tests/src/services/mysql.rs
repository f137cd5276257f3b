//! A MySQL server, which `tests/servers` has fetched.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{Connection, MySqlConnection};
use tempfile::TempDir;

use super::{
    Account, Process, START_TIMEOUT, fetched, find_fetched, free_port, hand_over, run_to_end, temporary_directory,
};
use crate::certificates::Pair;

/// How the server is configured.
#[derive(Debug, Clone, Default)]
pub struct MySqlOptions {
    /// Whether it has a binary log, as it has by default.
    pub binary_log: bool,
    /// This certificate, in place of the one that it makes itself. Connections in plain are taken as well.
    pub certificate: Option<Pair>,
    /// Further settings, `--name=value`.
    pub settings: Vec<String>,
}

/// A MySQL of our own: user `weir` with all rights and no password, TCP on loopback and a socket.
#[derive(Debug)]
pub struct MySql {
    process: Option<Process>,
    account: Option<Account>,
    port: u16,
    directory: TempDir,
    databases: AtomicU32,
    options: MySqlOptions,
}

impl MySql {
    /// Creates the data directory, starts the server and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(MySqlOptions::default())
    }

    /// As [`MySql::start`], configured so.
    pub fn start_with(options: MySqlOptions) -> Self {
        let directory = temporary_directory("mysql");
        let account = account();
        copy(template(), &directory.path().join("data"), account);
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
        let mut mysql = Self { process: None, account, port: free_port(), directory, databases, options };
        mysql.restart();
        mysql
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// URL of `database`.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://weir@127.0.0.1:{}/{database}?ssl-mode=DISABLED", self.port)
    }

    /// Creates an empty database, as the server does without being told more (`utf8mb4_0900_ai_ci`), and answers its URL.
    pub async fn create_database(&self) -> String {
        let name = format!("weir_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run(&format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// Runs a statement as the user with all rights.
    pub async fn run(&self, statement: &str) {
        let mut connection = MySqlConnection::connect(&self.url("mysql")).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
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

    /// Starts it again with this certificate in place of its own.
    pub fn certify(&mut self, pair: &Pair) {
        self.options.certificate = Some(pair.clone());
        self.restart();
    }

    /// The certificate of the authority that the server has made itself.
    pub fn own_ca(&self) -> PathBuf {
        self.directory.path().join("data/ca.pem")
    }

    /// Starts it again with these settings in place of its own.
    pub fn restart_with(&mut self, settings: Vec<String>) {
        self.options.settings = settings;
        // A storage that takes no writes cannot recover from a kill.
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(START_TIMEOUT);
        }
        self.restart();
    }

    /// Starts it again, on the same port and directory; ends it first when it still runs. Waits for the recovery.
    pub fn restart(&mut self) {
        self.kill();
        // The lock of a socket outlives a server that was killed.
        let _ = fs::remove_file(self.directory.path().join("socket.lock"));
        let mut command = server(self.account, self.directory.path());
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        command
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--mysqlx=OFF"])
            .args(["--innodb-buffer-pool-size=64M", "--secure-file-priv=NULL"])
            .args(&self.options.settings)
            .arg(format!("--port={}", self.port))
            .arg(format!("--socket={}", path("socket")))
            .arg(format!("--pid-file={}", path("pid")))
            .arg(format!("--tmpdir={}", self.directory.path().display()));
        if !self.options.settings.iter().any(|setting| setting.contains("read-only")) {
            command.arg(format!("--init-file={}", path("init.sql")));
        }
        if !self.options.binary_log {
            command.arg("--skip-log-bin");
        }
        if let Some(pair) = &self.options.certificate {
            let [certificate, key, ca] = hand_over(pair, self.account, self.directory.path());
            command.args([format!("--ssl-cert={certificate}"), format!("--ssl-key={key}"), format!("--ssl-ca={ca}")]);
        }
        let log = self.directory.path().join("mysql.log");
        let mut process = Process::spawn("mysqld", command, &log, &log, Some(self.directory.path()));
        let port = self.port;
        process.wait_ready(|| answers(port));
        self.process = Some(process);
    }

    /// Stops it in its tracks (SIGSTOP).
    pub fn stop_signal(&self) {
        self.process.as_ref().expect("a running mysqld").signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.process.as_ref().expect("a running mysqld").signal(Signal::CONT);
    }
}

fn account() -> Option<Account> {
    Account::first_of(&["mysql", "nobody"])
}

/// The server on `directory`/data, with what belongs to it where it was unpacked.
fn server(account: Option<Account>, directory: &Path) -> Command {
    let mut command = Command::new(find_fetched("mysql", "mysqld"));
    Account::apply(account, directory, &mut command);
    let usr = fetched("mysql").join("usr");
    command
        .arg("--no-defaults")
        .arg(format!("--basedir={}", usr.display()))
        .arg(format!("--plugin-dir={}", usr.join("lib/mysql/plugin").display()))
        .arg(format!("--lc-messages-dir={}", usr.join("share/mysql").display()))
        .arg(format!("--datadir={}", directory.join("data").display()))
        .arg("--innodb-redo-log-capacity=16M");
    command
}

/// A data directory as a new server has it. Made once by each test executable: it takes seconds.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let directory = temporary_directory("mysql-template");
        let mut command = server(account(), directory.path());
        command.args(["--initialize-insecure", "--innodb-flush-method=nosync", "--innodb-buffer-pool-size=32M"]);
        run_to_end(command);
        // A server's own number, which a copy must not share.
        let _ = fs::remove_file(directory.path().join("data/auto.cnf"));
        super::remove_at_exit(directory.keep()).join("data")
    })
}

/// Copies a directory; what it holds belongs to `account`.
fn copy(from: &Path, to: &Path, account: Option<Account>) {
    fs::create_dir_all(to).unwrap();
    if let Some(account) = account {
        account.own(to);
    }
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target, account);
        } else {
            fs::copy(&path, &target).unwrap();
            if let Some(account) = account {
                account.own(&target);
            }
        }
    }
}

/// Whether a MySQL on `port` greets with protocol 10.
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
