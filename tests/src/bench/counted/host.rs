//! A host whose instructions or page faults are counted between two marks.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process};

use super::served::COUNTED_HOST;
use crate::bench::plain::{PlainHost, PlainOptions, minor_faults, state_of};
use crate::services::host::weir_binary;
use crate::services::{Redis, find_binary, wait_until};

/// The file that callgrind writes at the end; those of marks have a number behind.
const COUNTED: &str = "counted";
/// How long valgrind may take for anything. Generous: it only decides when a hang is a failure.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);
/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meter {
    /// By callgrind.
    Instructions,
    /// Minor ones, by the kernel.
    PageFaults,
}

/// The process.
pub(super) struct CountedHost {
    meter: Meter,
    host: PlainHost,
    /// Marks until now.
    marks: u32,
    faults: f64,
}

/// A connection with at most one request at a time.
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl CountedHost {
    pub(super) async fn start(meter: Meter, redis: Option<&Redis>, targets: i64) -> Self {
        let command = |directory: &Path| {
            let mut command = match meter {
                Meter::Instructions => {
                    let mut valgrind = Command::new(find_binary("valgrind"));
                    let file = directory.join(COUNTED);
                    // Only what is counted has to be slow: the start compiles the rules.
                    valgrind.args(["--tool=callgrind", "-q", "--instr-atstart=no"]);
                    valgrind.arg(format!("--callgrind-out-file={}", file.display()));
                    valgrind.arg(std::env::current_exe().expect("the path of this executable")).arg(COUNTED_HOST);
                    valgrind
                }
                Meter::PageFaults => {
                    let mut weir = Command::new(weir_binary());
                    // Memory is given back at once, and not by the clock: each buffer that is not reused is counted.
                    weir.env("MIMALLOC_PURGE_DELAY", "0");
                    weir
                }
            };
            // One worker does the same each time; several steal from each other.
            command.env("TOKIO_WORKER_THREADS", "1");
            command
        };
        // Slow with both meters: connections that wait for their turn must stay open.
        let host = PlainHost::start(command, PlainOptions { redis, flushes: false, is_slow: true, targets }).await;
        Self { meter, host, marks: 0, faults: 0.0 }
    }

    /// Counts from now on.
    pub(super) fn begin(&mut self) {
        if self.meter == Meter::Instructions {
            self.tell_valgrind(&["instrumentation", "on"]);
        }
        self.mark();
    }

    fn tell_valgrind(&self, what: &[&str]) {
        let pid = format!("--pid={}", self.host.process.pid().as_raw_nonzero());
        let output = Command::new(find_binary("vgdb")).arg(&pid).args(what).stdin(Stdio::null()).output();
        let output = output.expect("vgdb, which comes with valgrind");
        assert!(output.status.success(), "vgdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(super) fn connect(&self, count: usize) -> Vec<Client> {
        let client = |_| {
            let stream = TcpStream::connect(self.host.public).expect("a connection");
            stream.set_nodelay(true).expect("nodelay");
            stream.set_read_timeout(Some(LIMIT)).expect("a socket");
            Client { stream, buffer: Vec::new() }
        };
        (0..count).map(client).collect()
    }

    /// What was counted since the last mark.
    pub(super) fn mark(&mut self) -> f64 {
        match self.meter {
            Meter::PageFaults => {
                let faults = minor_faults(self.host.process.pid());
                faults - std::mem::replace(&mut self.faults, faults)
            }
            Meter::Instructions => {
                self.tell_valgrind(&["dump"]);
                self.marks += 1;
                let file = self.host.directory.path().join(format!("{COUNTED}.{}", self.marks));
                assert!(wait_until(LIMIT, || total(&file).is_some()), "callgrind wrote no {}", file.display());
                total(&file).unwrap_or_default()
            }
        }
    }

    /// Asks it to stop; what was counted until its end.
    pub(super) fn stop(&mut self) -> f64 {
        let pid = self.host.process.pid();
        self.host.process.signal(Signal::TERM);
        let has_ended = || state_of(pid) == 'Z';
        assert!(wait_until(LIMIT, has_ended), "it did not stop\n{}", self.host.process.log_tail());
        match self.meter {
            // It is not collected yet.
            Meter::PageFaults => minor_faults(pid) - self.faults,
            Meter::Instructions => {
                total(&self.host.directory.path().join(COUNTED)).expect("what callgrind wrote at the end")
            }
        }
    }

    /// Rows in SQL.
    pub(super) async fn rows(&self) -> i64 {
        self.host.database.integer("SELECT COUNT(*) FROM feed_like").await
    }

    /// Requests that are all there when the host looks: one batch.
    pub(super) fn ask_at_once(&self, clients: &mut [Client], mut pair: impl FnMut() -> (i64, i64)) {
        let pid = self.host.process.pid();
        kill_process(pid, Signal::STOP).expect("a running host");
        assert!(wait_until(LIMIT, || state_of(pid) == 'T'), "it does not pause");
        for client in &mut *clients {
            client.send(pair());
        }
        kill_process(pid, Signal::CONT).expect("a running host");
        for client in clients {
            client.receive();
        }
    }
}

impl Client {
    /// Toggles a pair.
    pub(super) fn ask(&mut self, pair: (i64, i64)) {
        self.send(pair);
        self.receive();
    }

    fn send(&mut self, (target, actor): (i64, i64)) {
        let request =
            format!("POST /v1/toggles/feed-like/{target} HTTP/1.1\r\nHost: counted\r\nX-Actor-Id: {actor}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).expect("a running host");
    }

    fn receive(&mut self) {
        self.buffer.clear();
        let mut part = [0; 1_024];
        // Replies are one small object, which is the end of the message.
        while !self.buffer.ends_with(b"}") {
            let read = self.stream.read(&mut part).expect("an answer");
            assert!(read > 0, "the host closed the connection");
            self.buffer.extend_from_slice(&part[..read]);
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.buffer));
    }
}

/// The instructions in a file of callgrind, when it is whole.
fn total(file: &PathBuf) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().rev().take(3).find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}
