//! Poolers and proxies before a server: PgBouncer, MySQL Router, HAProxy, which `tests/servers` has fetched.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{Account, Process, fetched, find_fetched, free_port, temporary_directory};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolerType {
    /// PgBouncer that pools transactions, with fewer connections to the server than a host has to it. Whether it follows
    /// prepared statements from one of them to another.
    PgBouncer {
        /// See there.
        follows_statements: bool,
        /// Start-up parameters that it does not know are dropped, not refused.
        ignores_parameters: bool,
    },
    /// MySQL Router, which gives each session a connection to the server. It can share them, and then refuses to pass several
    /// statements in one message.
    MySqlRouter,
    /// HAProxy, which passes bytes on.
    HaProxy,
}

/// A pooler of our own. Its port stays the same when it is started again.
#[derive(Debug)]
pub struct Pooler {
    process: Option<Process>,
    kind: PoolerType,
    server: u16,
    port: u16,
    directory: TempDir,
}

impl Pooler {
    /// Starts one before the server on this port of the loopback interface, and waits until it answers.
    pub fn start(kind: PoolerType, server: u16) -> Self {
        let mut pooler =
            Self { process: None, kind, server, port: free_port(), directory: temporary_directory("pooler") };
        pooler.restart();
        pooler
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server, through this.
    pub fn before(&self, url: &str) -> String {
        url.replace(&format!(":{}", self.server), &format!(":{}", self.port))
    }

    /// Ends it with SIGKILL; all connections break.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again; ends it first when it still runs.
    pub fn restart(&mut self) {
        self.kill();
        let config = self.directory.path().join("pooler.conf");
        fs::write(&config, self.config()).expect("the pooler's configuration");
        let (name, mut command) = self.command(&config);
        // PgBouncer insists on not being root.
        Account::apply(Account::first_of(&["postgres", "nobody"]), self.directory.path(), &mut command);
        let log = self.directory.path().join("pooler.log");
        let mut process = Process::spawn(name, command, &log, &log, Some(self.directory.path()));
        let port = self.port;
        process.wait_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        self.process = Some(process);
    }

    fn command(&self, config: &PathBuf) -> (&'static str, Command) {
        let (name, program, option) = match self.kind {
            PoolerType::PgBouncer { .. } => ("pgbouncer", find_fetched("pgbouncer", "pgbouncer"), None),
            PoolerType::MySqlRouter => ("mysqlrouter", find_fetched("mysql-router", "mysqlrouter"), Some("-c")),
            PoolerType::HaProxy => ("haproxy", find_fetched("haproxy", "haproxy"), Some("-f")),
        };
        let mut command = Command::new(program);
        command.args(option).arg(config);
        (name, command)
    }

    fn config(&self) -> String {
        let (server, port) = (self.server, self.port);
        match self.kind {
            PoolerType::PgBouncer { follows_statements, ignores_parameters } => format!(
                "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
                 pool_mode = transaction\ndefault_pool_size = 4\nquery_wait_timeout = 60\nmax_client_conn = 100\n\
                 server_login_retry = 1\nserver_idle_timeout = 2\n\
                 max_prepared_statements = {}\n{}",
                if follows_statements { 200 } else { 0 },
                if ignores_parameters { "ignore_startup_parameters = extra_float_digits\n" } else { "" },
            ),
            PoolerType::MySqlRouter => {
                let directory = self.directory.path().display();
                let plugins = fetched("mysql-router").join("usr/lib/mysqlrouter/plugin");
                format!(
                    "[DEFAULT]\nlogging_folder={directory}\nruntime_folder={directory}\ndata_folder={directory}\n\
                     config_folder={directory}\nplugin_folder={}\n[logger]\nlevel=WARNING\n\
                     [routing:weir]\nbind_address=127.0.0.1\nbind_port={port}\ndestinations=127.0.0.1:{server}\n\
                     routing_strategy=first-available\nprotocol=classic\nclient_ssl_mode=DISABLED\n\
                     server_ssl_mode=DISABLED\n",
                    plugins.display()
                )
            }
            PoolerType::HaProxy => format!(
                "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
                 frontend weir\n    bind 127.0.0.1:{port}\n    default_backend servers\n\
                 backend servers\n    server one 127.0.0.1:{server}\n"
            ),
        }
    }
}
