//! Any binary of weir, also an older one, as a host with kind `feed-like`: its configuration is a text of the few settings
//! that all of them know.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use tempfile::TempDir;

use crate::database::Database;
use crate::kinds::{self, Kind};
use crate::services::{Process, Redis, free_port, host, temporary_directory};
use crate::stand::add_targets;

const CONFIG: &str = r#"
[auth]
trusted_header = "X-Actor-Id"
[sql]
url = "@SQL@"
[policy]
registry = "policies"
@POLICY@
[journal]
backlog_entries_max = 4000000000
backlog_bytes_max = 68719476736
[flush]
drain_grace_ms = 600000
[store]
@STORE@
[[toggle]]
kind = "feed-like"
[toggle.table]
name = "feed_like"
target_column = "feed_id"
actor_column = "user_id"
created_at_column = "created_at"
target_type = "integer"
actor_type = "integer"
[toggle.table.targets]
name = "feed"
key_column = "id"
count_column = "like_count"
[toggle.settings]
limit-burst = "0"
@FLUSH@
"#;
/// Nothing is written behind before the end.
const HELD_BACK: &str = "flush-entries = \"4000000000\"\nflush-age-ms = \"4000000000\"";
/// Deadlines for a host that runs at a hundredth of its speed.
const PATIENT: (&str, &str) = (
    "call_deadline_ms = 60000\ncompile_deadline_ms = 600000\n[http]\nheader_timeout_ms = 600000\nidle_timeout_ms = 600000\nrequest_deadline_ms = 60000",
    "response_timeout_ms = 60000",
);

/// How a plain host is to be.
#[derive(Debug, Clone, Copy)]
pub struct PlainOptions<'a> {
    /// Its Redis; embedded without.
    pub redis: Option<&'a Redis>,
    /// Whether it writes behind before it ends.
    pub flushes: bool,
    /// Whether it may be slow.
    pub is_slow: bool,
    /// Targets 1 to this, that nobody likes.
    pub targets: i64,
}

/// How long a start may take. Generous: it only decides when a hang is a failure.
const START_LIMIT: Duration = Duration::from_secs(90);
/// The same, under valgrind.
const SLOW_START_LIMIT: Duration = Duration::from_secs(600);

/// The process, and what it stands on.
pub struct PlainHost {
    pub(crate) process: Process,
    /// Its public listener.
    pub public: SocketAddr,
    /// The operators'.
    pub admin: SocketAddr,
    /// Its database.
    pub database: Database,
    /// Its working directory.
    pub directory: TempDir,
    /// Whether it writes behind before it ends.
    pub flushes: bool,
}

impl PlainHost {
    /// Starts what `command` makes of the working directory, with the arguments of `serve` added, and waits until it is
    /// ready.
    pub async fn start(command: impl FnOnce(&Path) -> Command, options: PlainOptions<'_>) -> Self {
        let directory = temporary_directory("plain");
        let url = kinds::sqlite_in(directory.path());
        let database = Database::connect(&url).await;
        Kind::FeedLike.create_tables(&database).await;
        add_targets(&database, options.targets).await;
        let (policy, response) = if options.is_slow { PATIENT } else { ("", "") };
        let store = match options.redis {
            Some(redis) => format!("type = \"redis\"\nurl = {:?}\n{response}", redis.url()),
            None => "path = \"store\"".to_owned(),
        };
        let text = CONFIG
            .replace("@SQL@", &url)
            .replace("@STORE@", &store)
            .replace("@POLICY@", policy)
            .replace("@FLUSH@", if options.flushes { "" } else { HELD_BACK });
        let config = directory.path().join("weir.toml");
        fs::write(&config, text).expect("the configuration");
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (public, admin) = (address(free_port()), address(free_port()));
        let mut command = command(directory.path());
        command.current_dir(directory.path()).arg("serve").arg("--config").arg(&config);
        command.args(["--listen", &public.to_string(), "--admin-listen", &admin.to_string()]).env("WEIR_LOG", "warn");
        let (log, output) = (directory.path().join("host.log"), directory.path().join("host.out"));
        let mut process = Process::spawn("weir", command, &output, &log, None);
        let limit = if options.is_slow { SLOW_START_LIMIT } else { START_LIMIT };
        process.wait_ready_within(limit, || host::get(admin, "/readyz").is_some_and(|(status, _)| status == 200));
        Self { process, public, admin, database, directory, flushes: options.flushes }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }
}

/// What stands after the name in `/proc/PID/stat`; also of a process that has ended and was not collected yet.
fn stat(pid: Pid) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).expect("a process");
    let after_name = &text[text.rfind(')').expect("a name") + 2..];
    after_name.split(' ').map(str::to_owned).collect()
}

/// The state of a process: `T` is paused, `Z` has ended.
pub fn state_of(pid: Pid) -> char {
    stat(pid)[0].chars().next().expect("a state")
}

/// Page faults that needed no disk: field 10 of proc(5).
pub fn minor_faults(pid: Pid) -> f64 {
    stat(pid)[7].parse().expect("a number")
}
