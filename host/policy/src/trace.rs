//! Lifetime of a call: why it failed, in words: what the guest said, where it was, what it had written before.

use wasmtime::{FrameInfo, WasmBacktrace};

use super::said::{Words, clip};

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 2_000;
/// Frames that a reason names.
const FRAMES_NAMED_MAX: usize = 5;
/// How the frames begin that every panic has, and that say nothing of the module.
const RUNTIME: [&str; 10] =
    ["std::", "core::", "alloc::", "<alloc::", "<core::", "<std::", "rust_", "__rust", "__rdl", "abort"];

/// Why a call or a start failed, on one line: the guest's message, what wasmtime says, the frames as far as they have names,
/// and the lines that the guest wrote before.
pub(super) fn explain(error: &wasmtime::Error, words: &Words) -> String {
    let cause = cause(error);
    let mut reason = if words.message.is_empty() { cause } else { format!("{} ({cause})", words.message) };
    let frames = frames(error);
    if !frames.is_empty() {
        reason.push_str(&format!("; at {}", frames.join(", ")));
    }
    if !words.before.is_empty() {
        let earlier = if words.earlier == 0 { String::new() } else { format!("{} lines, then ", words.earlier) };
        reason.push_str(&format!("; before that it wrote {earlier}{}", words.before));
    }
    clip(&reason, REASON_BYTES_MAX)
}

/// What wasmtime says, without the backtrace.
fn cause(error: &wasmtime::Error) -> String {
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string);
    let parts = error.chain().map(ToString::to_string).filter(|part| Some(part) != backtrace.as_ref());
    parts.collect::<Vec<_>>().join(": ")
}

/// The innermost frames of the module's own code, each with file and line where debug information has them.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let named = backtrace.frames().iter().flat_map(places);
    let own = named.filter(|place| !RUNTIME.iter().any(|runtime| place.starts_with(runtime)));
    own.take(FRAMES_NAMED_MAX).collect()
}

/// A frame, and what was inlined into it; nothing where it has no name.
fn places(frame: &FrameInfo) -> Vec<String> {
    let readable = |name: &str| format!("{:#}", rustc_demangle::demangle(name));
    let inlined = frame.symbols().iter().map(|symbol| {
        let name = symbol.name().or(frame.func_name()).map_or_else(|| "a function".to_owned(), readable);
        match (symbol.file(), symbol.line()) {
            (Some(file), Some(line)) => format!("{name} ({file}:{line})"),
            _ => name,
        }
    });
    let places: Vec<String> = inlined.collect();
    if places.is_empty() { frame.func_name().map(readable).into_iter().collect() } else { places }
}
