//! Real servers on free loopback ports, each with its data in a temporary directory.
//!
//! A server lives as long as its value. Should the test process die without dropping it (a kept static, `kill -9`,
//! Ctrl-C), a watchdog ends the server and removes its directory. Nothing that was not started here is ever touched.
//!
//! All methods block, and are short; in an asynchronous test use a multi-threaded runtime.

mod browser;
pub mod host;
pub mod mariadb;
pub mod mysql;
pub mod pooler;
pub mod postgres;
pub mod redis;
pub mod redis_cluster;
pub mod sentinel;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::certificates::Pair;

pub use browser::Browser;
pub use host::{Host, HostConfig};
pub use mariadb::MariaDb;
pub use mysql::{MySql, MySqlOptions};
pub use pooler::{Pooler, PoolerType};
pub use postgres::{Postgres, PostgresOptions};
pub use redis::{AppendFsync, Redis, RedisOptions, RedisRelease};
pub use redis_cluster::{ClusterOptions, RedisCluster};
pub use sentinel::Sentinel;

/// How long a server may take to start or to recover. Generous: it only decides when a hang is a failure.
pub const START_TIMEOUT: Duration = Duration::from_secs(90);

/// What to say when a server's binary is missing.
const INSTALL_HINT: &str = "apt-get install postgresql mariadb-server redis-server (or run tests/run, which does it)";

/// Where a server's programs come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Release {
    /// The machine's own distribution has installed it.
    #[default]
    Installed,
    /// `tests/servers` has fetched it: as new as it can be had.
    Current,
}

/// A free port of the loopback address. Below the system's range of ephemeral ports, so that no client's socket takes
/// it while its server is down, and no client connects to itself.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1_000 {
        let port = rand::random_range(12_000..30_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TAKEN.lock().unwrap().insert(port) {
            return port;
        }
    }
    panic!("no free loopback port between 12000 and 30000");
}

/// A directory under the system's temporary directory, removed when dropped.
pub fn temporary_directory(name: &str) -> TempDir {
    tempfile::Builder::new().prefix(&format!("weir-{name}-")).tempdir().expect("a temporary directory")
}

/// Removes a directory when this process ends, in whatever way.
pub(crate) fn remove_at_exit(directory: PathBuf) -> PathBuf {
    let watchdog = Command::new("sh")
        .args(["-c", r#"trap '' INT TERM HUP; read -r _; rm -rf -- "$1""#, "weir-test-watchdog"])
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh");
    // Its pipe closes with this process.
    std::mem::forget(watchdog);
    directory
}

/// Asks `done` every few milliseconds until it says yes; `false` after `timeout`.
pub fn wait_until(timeout: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// The account that a server runs as when the tests run as root, because it insists on not being root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The first of `names` that exists; `None` when we are not root ourselves.
    pub(crate) fn first_of(names: &[&str]) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let find = |name: &str| {
            let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        };
        let account = names.iter().find_map(|name| find(name));
        assert!(account.is_some(), "running as root, and none of the accounts {names:?} exists to run the server as");
        account
    }

    /// Hands a file or a directory to the account.
    pub(crate) fn own(self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).expect("chown of what is temporary");
    }

    /// Hands `directory` to the account and makes `command` run as it.
    pub(crate) fn apply(account: Option<Self>, directory: &Path, command: &mut Command) {
        command.current_dir(directory);
        if let Some(account) = account {
            account.own(directory);
            command.uid(account.uid).gid(account.gid);
        }
    }
}

/// Copies certificate and key to where a server finds them: it may run as somebody else, and insists on a key that nobody else
/// can read. The paths of both, and of the authority.
pub(crate) fn hand_over(pair: &Pair, account: Option<Account>, directory: &Path) -> [String; 3] {
    use std::os::unix::fs::PermissionsExt;
    [("certificate.pem", &pair.certificate), ("certificate.key", &pair.key), ("ca.pem", &pair.ca)].map(
        |(name, from)| {
            let path = directory.join(name);
            fs::copy(from, &path).expect("a copy of a certificate");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the mode of a certificate");
            if let Some(account) = account {
                account.own(&path);
            }
            path.display().to_string()
        },
    )
}

/// Finds a server's binary in `PATH`, the usual directories, or the newest `/usr/lib/postgresql/*/bin`.
pub fn find_binary(name: &str) -> PathBuf {
    let mut directories: Vec<PathBuf> =
        std::env::var_os("PATH").iter().flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>()).collect();
    directories.extend(["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    // Before PATH: `initdb` and `postgres` must be of one version.
    directories.splice(0..0, versions.into_iter().rev().map(|(_, path)| path));
    directories
        .iter()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: {INSTALL_HINT}"))
}

/// The folder into which `tests/servers` has unpacked `server`; panics with what to do when it is not there.
pub fn fetched(server: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this executable");
    let target = test.ancestors().nth(3).expect("target/<profile>/deps/<test>");
    let folder = std::env::var_os("WEIR_SERVERS").map_or_else(|| target.join("servers"), PathBuf::from);
    let folder = folder.join(server);
    // Written last.
    assert!(folder.join("packages").is_file(), "{server} is not in {}: run tests/servers", folder.display());
    folder
}

/// A program of a server that `tests/servers` has fetched.
pub fn find_fetched(server: &str, program: &str) -> PathBuf {
    let usr = fetched(server).join("usr");
    let versions = fs::read_dir(usr.join("lib/postgresql")).into_iter().flatten().flatten();
    let mut directories = vec![usr.join("sbin"), usr.join("bin")];
    directories.extend(versions.map(|entry| entry.path().join("bin")));
    let found = directories.iter().map(|directory| directory.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {program} in {}: run tests/servers --fresh {server}", usr.display()))
}

/// Runs a set-up command to its end; panics with its output when it fails.
pub(crate) fn run_to_end(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A running child process with its log, and the watchdog that outlives a test process which died.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    watchdog: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; standard output goes to `stdout`, standard error to `log` (both appended to).
    pub(crate) fn spawn(
        name: &'static str,
        mut command: Command,
        stdout: &Path,
        log: &Path,
        directory: Option<&Path>,
    ) -> Self {
        let append = |path: &Path| -> File {
            File::options().create(true).append(true).open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
        };
        command.stdin(Stdio::null()).stdout(append(stdout)).stderr(append(log));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        // Reads until the pipe closes, which happens when the test process ends in whatever way.
        let script = r#"trap '' INT TERM HUP; read -r _; kill -9 "$1"; [ -z "$2" ] || rm -rf -- "$2""#;
        let watchdog = Command::new("sh")
            .args(["-c", script, "weir-test-watchdog", &child.id().to_string()])
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        Self { name, child, watchdog, log: log.to_owned() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// The status, when it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Ends it with SIGKILL and waits for its end. Harmless when it has ended.
    pub(crate) fn kill(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end after a request to stop; panics with the log when it does not come.
    pub(crate) fn wait(&mut self, timeout: Duration) -> ExitStatus {
        if !wait_until(timeout, || self.child.try_wait().expect("wait for a child").is_some()) {
            panic!("{} did not end within {timeout:?}\n{}", self.name, self.log_tail());
        }
        let status = self.child.wait().expect("wait for a child");
        self.kill();
        status
    }

    /// Waits for `ready`; panics with the log when it ends or does not get ready.
    pub(crate) fn wait_ready(&mut self, ready: impl FnMut() -> bool) {
        self.wait_ready_within(START_TIMEOUT, ready);
    }

    /// The same, of what is known to be slow.
    pub(crate) fn wait_ready_within(&mut self, timeout: Duration, mut ready: impl FnMut() -> bool) {
        let mut status = None;
        let in_time = wait_until(timeout, || {
            status = self.ended();
            status.is_some() || ready()
        });
        if let Some(status) = status {
            panic!("{} ended at start with {status}\n{}", self.name, self.log_tail());
        }
        assert!(in_time, "{} was not ready within {timeout:?}\n{}", self.name, self.log_tail());
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        format!("--- the last lines of {}'s log\n{}\n---", self.name, tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// Whether a process has ended: it is not there, or only waits to be collected by whoever inherited it.
pub(crate) fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rfind(')').is_none_or(|end| matches!(stat[end + 2..].chars().next(), Some('Z' | 'X') | None))
}

/// Ids of the processes whose parent is `parent`.
pub(crate) fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().get().to_string();
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // pid (name) state parent …; the name may hold spaces and brackets.
            let after_name = &stat[stat.rfind(')')? + 2..];
            (after_name.split(' ').nth(1)? == parent).then(|| Pid::from_raw(pid))?
        })
        .collect()
}
