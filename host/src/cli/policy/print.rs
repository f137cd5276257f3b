//! A host's answers about policy modules, as words and tables for people.
//!
//! Answers come from another process, names and reasons in them from modules: nothing in them is trusted to be free of what a
//! terminal would obey. Tables fit 120 columns.

mod table;
mod text;

use crate::operators::{
    Audit, Commanded, Event, Milliseconds, ModuleRecord, PolicyDiff, PolicyList, PolicySet, ServingSet, Trial,
    TrialReport, Uploaded,
};
use table::{Column, table};
use text::{clean, clean_or_none, clean_value, micros, milliseconds, percent, short, timestamp, titled};

/// Digits of a digest that name a module to people.
const DIGEST_DIGITS: usize = 12;
/// Events in a list.
const EVENTS_MAX: usize = 5;
/// Phases of an upload, in order.
const PHASES: [&str; 5] = ["validate", "compile", "start", "vectors", "swap"];

/// An uploaded module: what it is, what was checked, how long that took, and what is live now or to do next.
pub(super) fn pushed(answer: &Uploaded) -> String {
    let state = if answer.known { "was known already" } else { "good, and kept" };
    let mut lines = vec![format!("{}: {state}", titled(answer))];
    lines.push(format!("  digest  {}", clean(&answer.digest)));
    if let Some(checks) = &answer.checks {
        lines.push(format!("  checks  compile ms {:?}, vectors {}", checks.compile_ms, checks.vectors));
    }
    lines.extend(times(&answer.milliseconds).map(|times| format!("  time    {times}")));
    match &answer.active {
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
pub(super) fn commanded(answer: &Commanded) -> String {
    let mut lines = vec!["live now:".to_owned()];
    lines.extend(serving(&answer.set.active));
    lines.extend(around(&answer.set));
    lines.extend(times(&answer.milliseconds).map(|times| format!("done in {times}")));
    joined(lines)
}

/// What holds after a module was removed.
pub(super) fn deleted(answer: &Commanded) -> String {
    format!("removed\n{}", commanded(answer))
}

/// What serves, what is being tried, the registry as a table, files that were refused, and the last events.
pub(super) fn list(answer: &PolicyList) -> String {
    let mut lines = vec!["live:".to_owned()];
    lines.extend(serving(&answer.set.active));
    lines.extend(around(&answer.set));
    lines.push(String::new());
    if answer.modules.is_empty() {
        lines.push("the registry is empty: weir policy push FILE".into());
    } else {
        lines.push(registry(answer));
    }
    lines.extend(answer.modules.iter().filter_map(failed));
    for file in answer.watched.iter().filter(|file| file.state == "refused") {
        lines.push(format!("{}: refused: {}", clean(&file.file), clean_or_none(file.reason.as_ref())));
    }
    if !answer.events.is_empty() {
        lines.extend([String::new(), "last events:".into()]);
        lines.extend(answer.events.iter().take(EVENTS_MAX).map(event));
    }
    joined(lines)
}

/// What shadow and canary have shown.
pub(super) fn diff(answer: &PolicyDiff) -> String {
    let mut lines = Vec::new();
    for (role, of_what, report) in [("shadow", "batches", &answer.shadow), ("canary", "targets", &answer.canary)] {
        lines.extend(report.iter().flat_map(|report| tried(role, of_what, report)));
    }
    if lines.is_empty() {
        lines.push("nothing was tried since the host started: weir policy shadow MODULE, or canary MODULE".into());
    }
    joined(lines)
}

/// Who did what.
pub(super) fn audit(answer: &Audit) -> String {
    if answer.audit.is_empty() {
        return "nothing was done yet".into();
    }
    let columns = [
        Column::new("at", 20),
        Column::new("by", 24),
        Column::new("what", 12),
        Column::new("module", 32),
        Column::new("outcome", 24),
    ];
    let rows = answer.audit.iter().map(|line| {
        let module = clean_or_none(line.module.as_ref());
        vec![timestamp(line.at_ms), clean(&line.by), clean(&line.what), module, clean(&line.outcome)]
    });
    table(&columns, rows.collect())
}

fn joined(lines: Vec<String>) -> String {
    lines.join("\n")
}

/// One line for each interface of a set.
fn serving(active: &ServingSet) -> Vec<String> {
    if active.is_empty() {
        return vec!["  the host did not say".into()];
    }
    let lines = active.iter().map(|(interface, module)| {
        let since = prefixed(" since ", timestamp(module.since_ms));
        let by = prefixed(" by ", clean_or_none(module.by.as_ref()));
        let unfit = prefixed(": NOT LOADED, its kinds fall back: ", clean_or_none(module.unfit.as_ref()));
        format!("  {interface}: {}{since}{by}{unfit}", titled(module))
    });
    lines.collect()
}

/// A text behind what introduces it; nothing where there is none.
fn prefixed(before: &str, text: String) -> String {
    if text.is_empty() { text } else { format!("{before}{text}") }
}

/// What stands around the live set: what is tried, what a rollback brings back, until when it is watched.
fn around(set: &PolicySet) -> Vec<String> {
    let mut lines = Vec::new();
    for (role, of_what, trial) in [("canary", "targets", &set.canary), ("shadow", "batches", &set.shadow)] {
        if let Some(trial) = trial {
            let (share, since) = (percent(trial.share), timestamp(trial.since_ms));
            lines.push(format!("{role}: {}, {share} of the {of_what}, since {since}", titled(trial)));
        }
    }
    if let Some(previous) = &set.previous {
        let names: Vec<String> =
            previous.iter().map(|(interface, module)| format!("{interface}: {}", titled(module))).collect();
        lines.push(format!("a rollback brings back {}", names.join(", ")));
    }
    for breaker in &set.breakers {
        lines.push(format!(
            "not called ({}): {}.{} of {}, by {}, since {}, tried again in {} ms: {}",
            clean(&breaker.state),
            clean(&breaker.interface),
            clean(&breaker.function),
            clean(&breaker.kind),
            titled(breaker),
            timestamp(breaker.since_ms),
            breaker.retry_in_ms,
            clean(&breaker.reason)
        ));
    }
    if let Some(probation) = &set.probation {
        lines.push(format!("rolled back by itself if it fails until {}", timestamp(probation.until_ms)));
    }
    if let Some(unsaved) = &set.unsaved {
        lines.push(format!(
            "NOT WRITTEN DOWN: after a restart the set before serves; tried again every second: {}",
            clean(unsaved)
        ));
    }
    lines
}

fn registry(answer: &PolicyList) -> String {
    let role = |module: &ModuleRecord, role: &str, trial: &Option<Trial>| {
        let trial = trial.as_ref().filter(|trial| trial.digest == module.digest)?;
        Some(format!("{role} {}", percent(trial.share)))
    };
    let rows = answer.modules.iter().map(|module| {
        let mut serves: Vec<String> = module.serves.iter().map(|interface| clean(interface)).collect();
        serves.extend(role(module, "canary", &answer.set.canary));
        serves.extend(role(module, "shadow", &answer.set.shadow));
        vec![
            if serves.is_empty() { "-".into() } else { serves.join(", ") },
            clean(&module.name),
            clean_or_none(module.version.as_ref()),
            short(module),
            timestamp(module.uploaded_at_ms.unwrap_or_default()),
            health(module).into(),
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

fn health(module: &ModuleRecord) -> &'static str {
    let upload = module.upload.as_ref();
    match module.healthy {
        _ if upload.is_some_and(|upload| upload.unfit.is_some()) => "does not fit",
        _ if upload.is_some_and(|upload| upload.condemned.is_some()) => "rolled back",
        Some(true) => "good",
        Some(false) => "failing",
        // It serves nothing, so nothing is known.
        None => "-",
    }
}

/// How a module failed, if it did.
fn failed(module: &ModuleRecord) -> Option<String> {
    let last = module.last_failure.as_ref().map(|last| clean(last)).filter(|last| !last.is_empty())?;
    let (title, condemned) = (titled(module), module.upload.as_ref().and_then(|upload| upload.condemned.as_ref()));
    Some(match condemned {
        Some(condemned) => format!("{title}: rolled back by itself at {}: {last}", timestamp(condemned.at_ms)),
        None => format!("{title}: {} failures, the last: {last}", module.failures.unwrap_or_default()),
    })
}

fn event(event: &Event) -> String {
    let by = prefixed(" by ", clean(&event.by));
    let reason = prefixed(": ", clean_or_none(event.reason.as_ref()));
    format!("  {} {} {}{by}{reason}", timestamp(event.at_ms), clean(&event.what), clean(&event.module))
}

/// One report of a shadow or canary.
fn tried(role: &str, of_what: &str, report: &TrialReport) -> Vec<String> {
    let ended = prefixed(", ended: ", clean_or_none(report.ended.as_ref()));
    let failures = report.failures.iter().filter(|(_, count)| **count > 0);
    let failures: Vec<String> = failures.map(|(cause, count)| format!("{cause} {count}")).collect();
    let mut lines = vec![
        format!(
            "{role}: {}, {} of the {of_what}, since {}{ended}",
            titled(&report.module),
            percent(report.share),
            timestamp(report.since_ms)
        ),
        format!("  batches    {}, {} skipped", report.batches, report.skipped),
        format!("  decisions  {}, {} differ", report.decisions, report.differing),
        format!("  failures   {}", if failures.is_empty() { "none".into() } else { failures.join(", ") }),
        format!("  a call     live       {}", micros(report.live_micros.as_ref())),
        format!("             candidate  {}", micros(report.candidate_micros.as_ref())),
    ];
    for sample in &report.samples {
        lines.push(format!("  {} {}, {} times", clean(&sample.interface), clean(&sample.kind), sample.times));
        for (part, value) in [("input", &sample.input), ("live", &sample.live), ("candidate", &sample.candidate)] {
            lines.push(format!("    {part:<9}  {}", clean_value(value)));
        }
    }
    lines
}

/// The phases in their order, then the others, then the whole.
fn times(given: &Milliseconds) -> Option<String> {
    let other = |name: &&String| !PHASES.contains(&name.as_str()) && *name != "total";
    let names = PHASES.into_iter().chain(given.keys().filter(other).map(String::as_str));
    let time = |name: &str| Some(format!("{name} {}", milliseconds(*given.get(name)?)));
    let parts: Vec<String> = names.filter_map(time).collect();
    let total = given.get("total").copied().map(milliseconds);
    match (total, parts.is_empty()) {
        (Some(total), true) => Some(total),
        (Some(total), false) => Some(format!("{total} ({})", parts.join(", "))),
        (None, true) => None,
        (None, false) => Some(parts.join(", ")),
    }
}
