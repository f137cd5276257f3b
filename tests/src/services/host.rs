//! The `weir` binary itself, as a child process.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal};
use weir::config::Config;

use super::{Process, START_TIMEOUT, free_port, wait_until};

/// How long a host may take to drain and end. Generous: it only decides when a hang is a failure.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What a host is started with.
#[derive(Debug, Clone)]
pub enum HostConfig {
    /// No configuration file: the embedded demo.
    Demo,
    /// This text as the configuration file.
    Text(String),
}

impl HostConfig {
    /// These settings, written as TOML.
    pub fn of(config: &Config) -> Self {
        Self::Text(toml::to_string(config).expect("a configuration is TOML"))
    }
}

/// A host that refused to start, or a command that ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// A running host. Its ports stay the same when it is started again.
#[derive(Debug)]
pub struct Host {
    process: Option<Process>,
    config: HostConfig,
    directory: PathBuf,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    public: SocketAddr,
    admin: SocketAddr,
    starts: u32,
    /// The file that says by how much its wall clock is off, where that can be set.
    wall_clock: Option<PathBuf>,
}

/// The `weir` binary that belongs to this test executable, or that of the profile `WEIR_PROFILE`. `cargo test` does not build it: panics when it is missing
/// or older than the sources, so that no test proves anything about another binary.
pub fn weir_binary() -> PathBuf {
    static CHECKED: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let test = std::env::current_exe().expect("the path of this executable");
        let target = test.ancestors().nth(3).expect("target/<profile>/deps/<test>");
        let own = || test.ancestors().nth(2).and_then(Path::file_name).map(std::ffi::OsStr::to_owned);
        let profile = target.join(std::env::var_os("WEIR_PROFILE").or_else(own).expect("a profile"));
        let binary = profile.join("weir");
        let hint = "run `cargo build --workspace` first, or use tests/run";
        assert!(binary.is_file(), "{} is missing: {hint}", binary.display());
        let built = binary.metadata().and_then(|found| found.modified()).expect("the time of the binary");
        let newest = newest_source(&profile.join("weir.d"));
        assert!(newest <= built, "{} is older than its sources: {hint}", binary.display());
        binary
    };
    CHECKED.get_or_init(find).clone()
}

/// When the youngest of the sources was changed that the binary was made of, as cargo's dependency file lists them.
fn newest_source(dependencies: &Path) -> SystemTime {
    let text = fs::read_to_string(dependencies).unwrap_or_else(|error| panic!("{}: {error}", dependencies.display()));
    let sources = text.split_once(": ").map_or("", |(_, sources)| sources);
    let changed = |source: &str| fs::metadata(source).and_then(|found| found.modified()).ok();
    sources.split_whitespace().filter_map(changed).max().expect("the sources of the binary")
}

/// Runs the `weir` binary to its end in `directory`.
pub fn weir(directory: &Path, arguments: &[&str]) -> Ended {
    let output = Command::new(weir_binary())
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the weir binary runs");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Host {
    /// Starts a host whose working directory is `directory`, and waits until `/livez` answers 200. Panics with the
    /// host's log when it does not come up.
    pub fn start(config: HostConfig, directory: &Path) -> Self {
        let mut host = Self::prepare(config, directory, free_port(), free_port());
        host.restart();
        host
    }

    /// The same with a wall clock of its own: see [`Host::set_clock`].
    pub fn start_with_clock(config: HostConfig, directory: &Path) -> Self {
        let mut host = Self::prepare(config, directory, free_port(), free_port());
        host.wall_clock = Some(directory.join("wall-clock"));
        host.set_clock(0);
        host.restart();
        host
    }

    /// Sets its wall clock: so many seconds ahead of the machine's, or behind. Its monotonic clock stays as it is.
    pub fn set_clock(&self, ahead_s: i64) {
        let file = self.wall_clock.as_ref().expect("a host that was started with a clock of its own");
        // In one step: the library reads it at each look at the clock.
        let beside = file.with_extension("new");
        fs::write(&beside, format!("{ahead_s:+}")).and_then(|()| fs::rename(&beside, file)).expect("the clock's file");
    }

    /// The same on ports that the host itself picks.
    pub fn start_on_picked_ports(config: HostConfig, directory: &Path) -> Self {
        let mut host = Self::prepare(config, directory, 0, 0);
        host.restart();
        host
    }

    /// Starts a host that is expected to refuse, and waits for its end. Panics when it starts instead.
    pub fn start_refused(config: HostConfig, directory: &Path) -> Ended {
        let mut host = Self::prepare(config, directory, 0, 0);
        let mut process = host.spawn();
        let ended = wait_until(START_TIMEOUT, || process.ended().is_some() || host.printed_addresses().is_some());
        let status = process.ended();
        process.kill();
        assert!(ended && status.is_some(), "the host started, but should have refused\n{}", process.log_tail());
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        Ended { code: status.and_then(|s| s.code()), stdout: read(host.stdout_path()), stderr: read(host.log_path()) }
    }

    fn prepare(config: HostConfig, directory: &Path, port: u16, admin_port: u16) -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            process: None,
            config,
            directory: directory.to_owned(),
            listen: loopback(port),
            admin_listen: loopback(admin_port),
            public: loopback(port),
            admin: loopback(admin_port),
            starts: 0,
            wall_clock: None,
        }
    }

    /// The configuration file that it was started with; `None` for the demo.
    pub fn config_path(&self) -> Option<PathBuf> {
        match self.config {
            HostConfig::Demo => None,
            HostConfig::Text(_) => Some(self.directory.join(format!("weir-{}.toml", self.listen.port()))),
        }
    }

    fn stdout_path(&self) -> PathBuf {
        self.directory.join(format!("host-{}-{}.out", self.listen.port(), self.starts))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join(format!("host-{}.log", self.listen.port()))
    }

    fn spawn(&mut self) -> Process {
        self.starts += 1;
        let mut command = Command::new(weir_binary());
        command.current_dir(&self.directory).arg("serve");
        if let (HostConfig::Text(text), Some(path)) = (&self.config, self.config_path()) {
            fs::write(&path, text).expect("the configuration file");
            command.arg("--config").arg(path);
        }
        command
            .args(["--listen", &self.listen.to_string(), "--admin-listen", &self.admin_listen.to_string()])
            .env("WEIR_LOG", std::env::var("WEIR_LOG").unwrap_or_else(|_| "info".into()));
        if let Some(file) = &self.wall_clock {
            command.env("LD_PRELOAD", fake_time()).env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        Process::spawn("weir", command, &self.stdout_path(), &self.log_path(), None)
    }

    /// The addresses that it printed, when it has printed both.
    fn printed_addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let text = fs::read_to_string(self.stdout_path()).ok()?;
        // Only whole lines: the last may be half written.
        let whole = &text[..text.rfind('\n')? + 1];
        let find = |before: &str| {
            let line = whole.lines().find_map(|line| line.split_once(before))?.1;
            line.split(|c: char| c.is_whitespace() || c == '/').next()?.parse().ok()
        };
        Some((find("listening on http://")?, find("operators on http://")?))
    }

    /// Starts it again with the same configuration and directory; ends it first when it still runs.
    pub fn restart(&mut self) {
        self.restart_unready();
        self.wait_alive();
    }

    /// Starts it again, and waits only until it has printed its addresses.
    fn restart_unready(&mut self) {
        self.kill();
        let mut process = self.spawn();
        let mut printed = None;
        process.wait_ready(|| {
            printed = self.printed_addresses();
            printed.is_some()
        });
        (self.public, self.admin) = printed.expect("addresses");
        self.process = Some(process);
    }

    /// Waits until `/livez` answers 200.
    pub fn wait_alive(&mut self) {
        self.wait_for("/livez");
    }

    /// Waits until `/readyz` answers 200.
    pub fn wait_ready(&mut self) {
        self.wait_for("/readyz");
    }

    fn wait_for(&mut self, path: &str) {
        let admin = self.admin;
        let process = self.process.as_mut().expect("a running host");
        process.wait_ready(|| get(admin, path).is_some_and(|(status, _)| status == 200));
    }

    /// Address of the public listener.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Address of the operators' listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its working directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it printed to standard output since its last start.
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.stdout_path()).unwrap_or_default()
    }

    /// What it logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Whether the process was started and not ended by us.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.request_stop();
        let mut process = self.process.take().expect("a running host");
        process.wait(STOP_TIMEOUT)
    }

    /// Only asks it to stop (SIGTERM).
    pub fn request_stop(&self) {
        self.process.as_ref().expect("a running host").signal(Signal::TERM);
    }

    /// Stops it in its tracks (SIGSTOP).
    pub fn pause(&self) {
        self.process.as_ref().expect("a running host").signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.as_ref().expect("a running host").signal(Signal::CONT);
    }

    /// How many child processes it has.
    pub fn children(&self) -> usize {
        super::children_of(self.process.as_ref().expect("a running host").pid()).len()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.process.as_ref().expect("a running host").pid()
    }

    /// Its resident memory, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let pid = self.process.as_ref().expect("a running host").pid();
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number of kB") * 1024
    }
}

/// The library that gives a process a wall clock of its own (Debian: package `faketime`).
fn fake_time() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    let found = libraries.map(|path| path.join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    found.expect("libfaketime.so.1: apt-get install faketime, or use tests/run")
}

/// A plain GET on a connection of its own; `None` when there was no whole answer. For polling from blocking code.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}
