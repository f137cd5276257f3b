//! A host's answers about policy modules, as words and tables for people.
//!
//! Answers come from another process, names and reasons in them from modules: nothing in them is trusted to be there,
//! or to be free of what a terminal would obey. Tables fit 120 columns.

mod table;
mod text;

use serde_json::Value;

use table::{Column, table};
use text::{clean, list_of, map_of, micros, milliseconds, number, percent, short, stamp, text, titled};

/// Digits of a digest that name a module to people.
const DIGEST_DIGITS: usize = 12;
/// Events in a list.
const EVENTS_MAX: usize = 5;
/// Phases of an upload, in order.
const PHASES: [&str; 5] = ["validate", "compile", "start", "vectors", "swap"];

/// An uploaded module: what it is, what was checked, how long that took, and what is live now or to do next.
pub(super) fn pushed(answer: &Value) -> String {
    let known = answer.get("known").and_then(Value::as_bool).unwrap_or_default();
    let mut lines = vec![format!("{}: {}", titled(answer), if known { "was known already" } else { "good, and kept" })];
    lines.push(format!("  digest  {}", text(answer, "digest")));
    let checks: Vec<String> =
        map_of(answer, "checks").map(|(name, value)| format!("{} {}", name.replace('_', " "), clean(value))).collect();
    if !checks.is_empty() {
        lines.push(format!("  checks  {}", checks.join(", ")));
    }
    lines.extend(times(answer).map(|times| format!("  time    {times}")));
    match answer.get("active").filter(|active| active.is_object()) {
        Some(active) => {
            lines.push("live now:".into());
            lines.extend(serving(active));
        }
        None => {
            let module = short(answer);
            lines.push(format!(
                "next: weir policy shadow {module}, or canary {module} --share 0.05, or activate {module}"
            ));
        }
    }
    joined(lines)
}

/// What holds after a command.
pub(super) fn commanded(answer: &Value) -> String {
    let mut lines = vec!["live now:".to_owned()];
    lines.extend(serving(answer.get("active").unwrap_or(&Value::Null)));
    lines.extend(around(answer));
    lines.extend(times(answer).map(|times| format!("done in {times}")));
    joined(lines)
}

/// What holds after a module was removed.
pub(super) fn deleted(answer: &Value) -> String {
    format!("removed\n{}", commanded(answer))
}

/// What serves, what is being tried, the registry as a table, files that were refused, and the last events.
pub(super) fn list(answer: &Value) -> String {
    let mut lines = vec!["live:".to_owned()];
    lines.extend(serving(answer.get("active").unwrap_or(&Value::Null)));
    lines.extend(around(answer));
    lines.push(String::new());
    let modules = list_of(answer, "modules");
    if modules.is_empty() {
        lines.push("the registry is empty: weir policy push FILE".into());
    } else {
        lines.push(registry(answer, modules));
    }
    lines.extend(modules.iter().filter(|module| !text(module, "last_failure").is_empty()).map(|module| {
        let (title, last) = (titled(module), text(module, "last_failure"));
        match module.get("condemned").filter(|condemned| condemned.is_object()) {
            Some(condemned) => format!("{title}: rolled back by itself at {}: {last}", stamp(condemned, "at_ms")),
            None => format!("{title}: {} failures, the last: {last}", number(module, "failures")),
        }
    }));
    for file in list_of(answer, "watched").iter().filter(|file| text(file, "state") == "refused") {
        lines.push(format!("{}: refused: {}", text(file, "file"), text(file, "reason")));
    }
    let events = list_of(answer, "events");
    if !events.is_empty() {
        lines.extend([String::new(), "last events:".into()]);
        lines.extend(events.iter().take(EVENTS_MAX).map(event));
    }
    joined(lines)
}

/// What shadow and canary have shown.
pub(super) fn diff(answer: &Value) -> String {
    let mut lines = Vec::new();
    for (role, of_what) in [("shadow", "batches"), ("canary", "targets")] {
        if let Some(report) = answer.get(role).filter(|report| report.is_object()) {
            lines.extend(tried(role, of_what, report));
        }
    }
    if lines.is_empty() {
        lines.push("nothing was tried since the host started: weir policy shadow MODULE, or canary MODULE".into());
    }
    joined(lines)
}

/// Who did what.
pub(super) fn audit(answer: &Value) -> String {
    let lines = list_of(answer, "audit");
    if lines.is_empty() {
        return "nothing was done yet".into();
    }
    let columns = [
        Column::new("at", 20),
        Column::new("by", 24),
        Column::new("what", 12),
        Column::new("module", 32),
        Column::new("outcome", 24),
    ];
    let rows = lines.iter().map(|line| {
        vec![stamp(line, "at_ms"), text(line, "by"), text(line, "what"), text(line, "module"), text(line, "outcome")]
    });
    table(&columns, rows.collect())
}

fn joined(lines: Vec<String>) -> String {
    lines.join("\n")
}

/// One line for each interface of a set.
fn serving(active: &Value) -> Vec<String> {
    let lines: Vec<String> = active
        .as_object()
        .into_iter()
        .flatten()
        .map(|(interface, module)| {
            let since = stamp(module, "since_ms");
            let by = text(module, "by");
            let since = if since.is_empty() { since } else { format!(" since {since}") };
            let by = if by.is_empty() { by } else { format!(" by {by}") };
            let unfit = text(module, "unfit");
            let unfit = if unfit.is_empty() { unfit } else { format!(": NOT LOADED, its kinds fall back: {unfit}") };
            format!("  {interface}: {}{since}{by}{unfit}", titled(module))
        })
        .collect();
    if lines.is_empty() { vec!["  the host did not say".into()] } else { lines }
}

/// What stands around the live set: what is tried, what a rollback brings back, until when it is watched.
fn around(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (role, of_what) in [("canary", "targets"), ("shadow", "batches")] {
        if let Some(module) = answer.get(role).filter(|module| module.is_object()) {
            let (share, since) = (percent(module, "share"), stamp(module, "since_ms"));
            lines.push(format!("{role}: {}, {share} of the {of_what}, since {since}", titled(module)));
        }
    }
    if let Some(previous) = answer.get("previous").and_then(Value::as_object) {
        let names: Vec<String> =
            previous.iter().map(|(interface, module)| format!("{interface}: {}", titled(module))).collect();
        lines.push(format!("a rollback brings back {}", names.join(", ")));
    }
    for breaker in list_of(answer, "breakers") {
        lines.push(format!(
            "not called ({}): {}.{} of {}, by {}, since {}, tried again in {} ms: {}",
            text(breaker, "state"),
            text(breaker, "interface"),
            text(breaker, "function"),
            text(breaker, "kind"),
            titled(breaker),
            stamp(breaker, "since_ms"),
            number(breaker, "retry_in_ms"),
            text(breaker, "reason")
        ));
    }
    if let Some(probation) = answer.get("probation").filter(|probation| probation.is_object()) {
        lines.push(format!("rolled back by itself if it fails until {}", stamp(probation, "until_ms")));
    }
    if answer.get("durable").and_then(Value::as_bool) == Some(false) {
        lines.push(format!(
            "NOT WRITTEN DOWN: after a restart the set before serves; tried again every second: {}",
            text(answer, "unsaved")
        ));
    }
    lines
}

fn registry(answer: &Value, modules: &[Value]) -> String {
    let role = |module: &Value, role: &str| {
        let tried = answer.get(role).filter(|tried| tried.is_object())?;
        (text(tried, "digest") == text(module, "digest")).then(|| format!("{role} {}", percent(tried, "share")))
    };
    let rows = modules.iter().map(|module| {
        let mut serves: Vec<String> = list_of(module, "serves").iter().map(clean).collect();
        serves.extend(role(module, "canary"));
        serves.extend(role(module, "shadow"));
        let rolled_back = module.get("condemned").is_some_and(Value::is_object);
        let health = match module.get("healthy").and_then(Value::as_bool) {
            _ if !text(module, "unfit").is_empty() => "does not fit",
            _ if rolled_back => "rolled back",
            Some(true) => "good",
            Some(false) => "failing",
            // It serves nothing, so nothing is known.
            None => "-",
        };
        vec![
            if serves.is_empty() { "-".into() } else { serves.join(", ") },
            text(module, "name"),
            text(module, "version"),
            short(module),
            stamp(module, "uploaded_at_ms"),
            health.into(),
        ]
    });
    let columns = [
        Column::new("serves", 24),
        Column::new("name", 26),
        Column::new("version", 16),
        Column::new("digest", DIGEST_DIGITS),
        Column::new("uploaded", 20),
        Column::new("health", 12),
    ];
    table(&columns, rows.collect())
}

fn event(event: &Value) -> String {
    let (by, reason) = (text(event, "by"), text(event, "reason"));
    let by = if by.is_empty() { by } else { format!(" by {by}") };
    let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
    format!("  {} {} {}{by}{reason}", stamp(event, "at_ms"), text(event, "what"), text(event, "module"))
}

/// One report of a shadow or canary.
fn tried(role: &str, of_what: &str, report: &Value) -> Vec<String> {
    let module = report.get("module").unwrap_or(&Value::Null);
    let ended = text(report, "ended");
    let ended = if ended.is_empty() { ended } else { format!(", ended: {ended}") };
    let failures: Vec<String> = map_of(report, "failures")
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(cause, count)| format!("{} {}", cause, clean(count)))
        .collect();
    let mut lines = vec![
        format!(
            "{role}: {}, {} of the {of_what}, since {}{ended}",
            titled(module),
            percent(report, "share"),
            stamp(report, "since_ms")
        ),
        format!("  batches    {}, {} skipped", number(report, "batches"), number(report, "skipped")),
        format!("  decisions  {}, {} differ", number(report, "decisions"), number(report, "differing")),
        format!("  failures   {}", if failures.is_empty() { "none".into() } else { failures.join(", ") }),
        format!("  a call     live       {}", micros(report.get("live_micros"))),
        format!("             candidate  {}", micros(report.get("candidate_micros"))),
    ];
    for sample in list_of(report, "samples") {
        lines.push(format!(
            "  {} {}, {} times",
            text(sample, "interface"),
            text(sample, "kind"),
            number(sample, "times")
        ));
        for part in ["input", "live", "candidate"] {
            lines.push(format!("    {part:<9}  {}", clean(sample.get(part).unwrap_or(&Value::Null))));
        }
    }
    lines
}

/// The phases in their order, then the others, then the whole.
fn times(answer: &Value) -> Option<String> {
    let given = answer.get("milliseconds")?.as_object()?;
    let other = |name: &&String| !PHASES.contains(&name.as_str()) && *name != "total";
    let names = PHASES
        .into_iter()
        .filter(|name| given.contains_key(*name))
        .chain(given.keys().filter(other).map(String::as_str));
    let parts: Vec<String> = names.map(|name| format!("{name} {}", milliseconds(&given[name]))).collect();
    let total = given.get("total").map(milliseconds);
    match (total, parts.is_empty()) {
        (Some(total), true) => Some(total),
        (Some(total), false) => Some(format!("{total} ({})", parts.join(", "))),
        (None, true) => None,
        (None, false) => Some(parts.join(", ")),
    }
}
