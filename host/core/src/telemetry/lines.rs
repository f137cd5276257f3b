//! A file of lines that is written by a thread of its own: who has a line never waits for the disk.
//!
//! The queue is bounded; what finds no place in it is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Counter, counter};

use super::ACCESS_LOG_DROPPED_TOTAL;

/// How long the end waits for what is not written yet.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How often it looks.
const CLOSE_LOOK: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// The end of a file, which is made where it is not.
    File(PathBuf),
}

enum Message {
    Line(Vec<u8>),
    /// Look at what was asked for besides.
    Look,
    End,
}

/// The way to the thread that writes.
pub struct Lines {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    reopen: AtomicBool,
    dropped: Counter,
}

impl Lines {
    /// Opens the file, and begins to write.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread be started.
    pub fn open(target: Target, queue_max: usize) -> io::Result<Self> {
        let out = open(&target)?;
        let (queue, waiting) = sync_channel(queue_max);
        let shared = Arc::new(Shared { reopen: AtomicBool::new(false), dropped: counter!(ACCESS_LOG_DROPPED_TOTAL) });
        let writer = Writer { target, out, shared: Arc::clone(&shared), is_failing: false };
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(&waiting))?;
        Ok(Self { queue, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Writes a line, with its end, some time soon; or drops it where too many wait.
    pub fn push(&self, line: Vec<u8>) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.shared.dropped.increment(1);
        }
    }

    /// Opens the file again: somebody has moved it away.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Where the queue is full, the thread looks anyhow.
        let _ = self.queue.try_send(Message::Look);
    }

    /// Writes what waits, and ends. The reader may have stopped reading, so this takes no longer than two seconds.
    pub fn close(&self) {
        let until = Instant::now() + CLOSE_MAX;
        while self.queue.try_send(Message::End).is_err() && Instant::now() < until {
            std::thread::sleep(CLOSE_LOOK);
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(CLOSE_LOOK);
        }
    }
}

struct Writer {
    target: Target,
    out: BufWriter<Box<dyn Write + Send>>,
    shared: Arc<Shared>,
    is_failing: bool,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Message>) {
        while let Ok(message) = waiting.recv() {
            let mut next = Some(message);
            while let Some(message) = next {
                self.look();
                match message {
                    Message::Line(line) => self.write(&line),
                    Message::Look => {}
                    Message::End => return self.flush(),
                }
                next = waiting.try_recv().ok();
            }
            self.flush();
        }
        self.flush();
    }

    /// Opens the file again where that was asked for.
    fn look(&mut self) {
        if !self.shared.reopen.swap(false, Ordering::AcqRel) {
            return;
        }
        self.flush();
        match open(&self.target) {
            Ok(out) => self.out = out,
            Err(error) => {
                tracing::error!(%error, target = ?self.target, "the access log cannot be opened again: the old file is written on")
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        if let Err(error) = self.out.write_all(line) {
            self.fails(&error);
        }
    }

    fn flush(&mut self) {
        match self.out.flush() {
            // A line that is only gathered says nothing of the file.
            Ok(()) => self.is_failing = false,
            Err(error) => self.fails(&error),
        }
    }

    /// Says it once when the file begins to fail.
    fn fails(&mut self, error: &io::Error) {
        self.shared.dropped.increment(1);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(%error, target = ?self.target, "the access log cannot be written: lines are dropped");
        }
    }
}

fn open(target: &Target) -> io::Result<BufWriter<Box<dyn Write + Send>>> {
    let out: Box<dyn Write + Send> = match target {
        Target::Stdout => Box::new(io::stdout()),
        Target::File(path) => {
            let file: File = OpenOptions::new().create(true).append(true).open(path)?;
            Box::new(file)
        }
    };
    Ok(BufWriter::new(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        let lines = Lines::open(Target::File(path.clone()), 100).unwrap();
        lines.push(b"a\n".to_vec());
        while std::fs::read(&path).unwrap() != b"a\n" {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &moved).unwrap();
        lines.reopen();
        lines.push(b"b\n".to_vec());
        lines.close();
        assert_eq!((std::fs::read(&moved).unwrap(), std::fs::read(&path).unwrap()), (b"a\n".to_vec(), b"b\n".to_vec()));
    }

    #[test]
    fn what_finds_no_place_is_dropped_and_nobody_waits() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        // Opened for both, so that opening does not wait; nothing reads.
        let _reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let lines = Lines::open(Target::File(pipe), 4).unwrap();
        for _ in 0..1_000 {
            lines.push(vec![b'x'; 4_096]);
        }
        // All were taken or dropped; the thread waits for the pipe, and is left to it.
        assert!(lines.queue.try_send(Message::Look).is_err(), "the queue is full");
    }
}
