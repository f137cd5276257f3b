//! Lifetime of a call: what the guest wrote in it, kept until the call has ended, so that an operator sees it beside a failure.
//!
//! Lines come from the import `log`, and from standard output and standard error where a runtime of a language has them.

use std::collections::VecDeque;

/// Lines of one call that are kept: the last ones.
const LINES_MAX: usize = 16;
/// Bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 400;

/// A standard stream of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// What it prints.
    Output,
    /// What its runtime says of it, such as the text of a panic or of an exception.
    Error,
}

impl Stream {
    /// How much a line of it matters.
    pub(super) fn level(self) -> tracing::Level {
        match self {
            Self::Output => tracing::Level::INFO,
            Self::Error => tracing::Level::WARN,
        }
    }
}

/// What one instance has written in the present call.
#[derive(Debug, Default)]
pub(super) struct Said {
    lines: VecDeque<(tracing::Level, String)>,
    /// Lines before these.
    earlier: usize,
    /// Bytes of the streams that are no whole line yet.
    open: [Vec<u8>; 2],
}

impl Said {
    /// Begins a call.
    pub(super) fn clear(&mut self) {
        if !self.lines.is_empty() {
            self.lines.clear();
        }
        self.earlier = 0;
        self.open.iter_mut().for_each(Vec::clear);
    }

    /// A line of the import `log`.
    pub(super) fn line(&mut self, level: tracing::Level, text: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.earlier += 1;
        }
        self.lines.push_back((level, clip(text, LINE_BYTES_MAX)));
    }

    /// Bytes of a standard stream: the lines that they end.
    pub(super) fn bytes(&mut self, stream: Stream, bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[stream as usize];
            // What is longer than a line may be is dropped, not kept.
            let room = LINE_BYTES_MAX.saturating_sub(open.len());
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            open.extend_from_slice(&text[..text.len().min(room)]);
            if part.ends_with(b"\n") {
                whole.extend(self.close(stream));
            }
        }
        whole
    }

    fn close(&mut self, stream: Stream) -> Option<String> {
        let bytes = std::mem::take(&mut self.open[stream as usize]);
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if text.is_empty() {
            return None;
        }
        self.line(stream.level(), &text);
        Some(text)
    }

    /// All of it, oldest first, in words; empty where it said nothing. The last line is what a panic said last.
    pub(super) fn take(&mut self) -> Words {
        for stream in [Stream::Output, Stream::Error] {
            self.close(stream);
        }
        let lines: Vec<(tracing::Level, String)> = self.lines.drain(..).collect();
        let serious = |line: &&(tracing::Level, String)| line.0 <= tracing::Level::WARN;
        // A runtime says more than one line of an error: the first of those at the end is the message.
        let tail = lines.iter().rev().take_while(serious).count();
        let (before, message) = lines.split_at(lines.len() - tail);
        let before = before.iter().map(|(level, text)| format!("{}: {text}", level.as_str().to_lowercase()));
        Words {
            message: message.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" | "),
            before: before.collect::<Vec<_>>().join(" | "),
            earlier: std::mem::take(&mut self.earlier),
        }
    }
}

/// What a guest said in a call that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Its last lines of the levels `error` and `warn`: the text of a panic, an exception with its stack.
    pub(super) message: String,
    /// The lines before, each with its level.
    pub(super) before: String,
    /// How many there were before those.
    pub(super) earlier: usize,
}

/// At most `bytes_max` bytes of `text` on one line, without control characters: what came out of a module reaches a log, a
/// terminal and the audit trail only like this.
pub(super) fn clip(text: &str, bytes_max: usize) -> String {
    let kept = &text[..text.floor_char_boundary(bytes_max)];
    let printable = |c: char| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    let mut clipped: String = kept.chars().map(printable).collect();
    if kept.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_what_was_said_last_and_the_lines_before_it_are_kept() {
        let mut said = Said::default();
        said.line(tracing::Level::INFO, "looking up 7");
        said.line(tracing::Level::ERROR, "panicked at src/lib.rs:3:5:\nno tier");
        let words = said.take();
        assert_eq!(words.message, "panicked at src/lib.rs:3:5: no tier");
        assert_eq!((words.before.as_str(), words.earlier), ("info: looking up 7", 0));
        assert_eq!(said.take(), Words::default());
    }

    #[test]
    fn streams_are_cut_into_lines_and_bounded() {
        let mut said = Said::default();
        assert_eq!(said.bytes(Stream::Error, b"TypeError: no"), Vec::<String>::new());
        assert_eq!(said.bytes(Stream::Error, b" tier\n    at decide (policy.js:3)"), ["TypeError: no tier"]);
        assert_eq!(said.bytes(Stream::Output, &[b'x'; 5_000]), Vec::<String>::new());
        let words = said.take();
        assert_eq!(words.message, "    at decide (policy.js:3)");
        assert_eq!(words.before.len(), "warn: TypeError: no tier | info: ".len() + LINE_BYTES_MAX);
        for line in 0..100 {
            said.line(tracing::Level::DEBUG, &line.to_string());
        }
        let words = said.take();
        assert_eq!((words.message.as_str(), words.earlier), ("", 84));
        assert!(words.before.starts_with("debug: 84 | ") && words.before.ends_with("debug: 99"));
    }

    #[test]
    fn what_a_module_says_is_one_bounded_line() {
        assert_eq!(clip("a\nb\u{1b}[31m", 100), "a b\u{fffd}[31m");
        assert_eq!(clip(&"é".repeat(600), 1_001), format!("{}…", "é".repeat(500)));
    }
}
