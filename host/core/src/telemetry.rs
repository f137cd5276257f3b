//! Metric names, with units, in one table; tracing set-up.
//!
//! May use nothing of the host. A metric's name occurs nowhere else in it: modules use these constants.
//!
//! - [`tally`]: counters and times of what every request does.
//! - [`request`]: the request that is being answered, for log lines. `format`: lines that say it.
//! - [`lines`]: a file of lines, written without blocking the caller.

mod format;
pub mod lines;
pub mod request;
pub mod tally;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use tracing_subscriber::EnvFilter;

use format::Tagged;

/// Requests answered, by `method`, `route`, `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "weir_http_requests_total";
/// Time from the request's head to the answer, by `route`.
pub const HTTP_REQUEST_SECONDS: &str = "weir_http_request_seconds";
/// Open connections of the public listener.
pub const HTTP_CONNECTIONS: &str = "weir_http_connections";
/// Requests refused because a bound was reached, by `limit`.
pub const SHED_TOTAL: &str = "weir_shed_total";
/// Connections that could not be accepted, by `cause`.
pub const ACCEPT_FAILURES_TOTAL: &str = "weir_accept_failures_total";
/// Reloads of the configuration, by `outcome`.
pub const RELOADS_TOTAL: &str = "weir_reloads_total";
/// How often the machine's clock was set while the host ran.
pub const CLOCK_STEPS_TOTAL: &str = "weir_clock_steps_total";
/// Operations in one batch, by `kind`.
pub const BATCH_ITEMS: &str = "weir_batch_items";
/// Time of one policy call, by `interface`, `role` (`live`, `canary`, `shadow`).
pub const POLICY_CALL_SECONDS: &str = "weir_policy_call_seconds";
/// Failed policy calls, by `interface`, `role`, `cause` (`trap`, `deadline`, `contract`, `instantiate`, `busy`, `unfit`).
pub const POLICY_FAILURES_TOTAL: &str = "weir_policy_failures_total";
/// Batches that something else decided because the live module failed, by `kind`, `to` (`previous`, `built-in`, `deny`).
pub const POLICY_FALLBACKS_TOTAL: &str = "weir_policy_fallbacks_total";
/// Changes of the active set, by `event` (`activated`, `rolled-back`, `rolled-back-by-itself`, `canary-rolled-back`, …).
pub const POLICY_EVENTS_TOTAL: &str = "weir_policy_events_total";
/// Breakers that are not closed, by interface, function and kind.
pub const POLICY_BREAKERS_OPEN: &str = "weir_policy_breakers_open";
/// Gauge: 1 while the module that was active for an interface does not fit this weir, so that what its kinds say of failures
/// answers, by `interface`.
pub const POLICY_UNFIT: &str = "weir_policy_unfit";
/// Gauge: 1 while a change of the active set is in force and cannot be written down.
pub const POLICY_UNSAVED: &str = "weir_policy_unsaved";
/// Log lines of policy modules, by `level`; `dropped` counts those over the rate.
pub const POLICY_LOG_LINES_TOTAL: &str = "weir_policy_log_lines_total";
/// Time of one store call, by `operation`.
pub const STORE_CALL_SECONDS: &str = "weir_store_call_seconds";
/// Failed store calls, by `operation`, `cause`.
pub const STORE_FAILURES_TOTAL: &str = "weir_store_failures_total";
/// Calls of a Redis Cluster that were sent again because a node had not run them, by `cause` (`moved`, `asked`,
/// `on-the-way`, `away`).
pub const STORE_RESENT_TOTAL: &str = "weir_store_resent_total";
/// Gauge: memory of the embedded store's state.
pub const STORE_MEMORY_BYTES: &str = "weir_store_memory_bytes";
/// 1 while the embedded store refuses writes after a failure of the disk.
pub const STORE_REFUSING: &str = "weir_store_refusing";
/// Outcomes of toggles, by `kind`, `outcome`.
pub const TOGGLES_TOTAL: &str = "weir_toggles_total";
/// Outcomes of hits on counters, by `kind`, `outcome`.
pub const COUNTS_TOTAL: &str = "weir_counts_total";
/// Outcomes of creates, in documents, by `kind`, `outcome`.
pub const DOCUMENTS_TOTAL: &str = "weir_documents_total";
/// Outcomes of changes of settings, by `kind`, `outcome`.
pub const SETTINGS_TOTAL: &str = "weir_settings_total";
/// Members that were looked up, as often as they were asked for, by `kind`, `outcome` (`enabled`, `disabled`, `missing`, `failed`).
pub const PREFERENCE_MEMBERS_TOTAL: &str = "weir_preference_members_total";
/// Members that look-ups fetched from the store, by `kind`: what is shared is fetched once.
pub const PREFERENCE_FETCHES_TOTAL: &str = "weir_preference_fetches_total";
/// Time of one look-up, or of one part of a streamed one, by `kind`.
pub const PREFERENCE_LOOKUP_SECONDS: &str = "weir_preference_lookup_seconds";
/// Time in the rules for one chunk of a look-up, by `kind`.
pub const PREFERENCE_RULE_SECONDS: &str = "weir_preference_rule_seconds";
/// Targets and pairs read from SQL because the store did not know them, by `kind`, `what`.
pub const HYDRATED_TOTAL: &str = "weir_hydrated_total";
/// Changes in the journal, not yet in SQL, by `kind`.
pub const BACKLOG_ENTRIES: &str = "weir_backlog_entries";
/// Their size, by `kind`.
pub const BACKLOG_BYTES: &str = "weir_backlog_bytes";
/// Age of the oldest, by `kind`.
pub const BACKLOG_OLDEST_SECONDS: &str = "weir_backlog_oldest_seconds";
/// Gauge: unacknowledged holes in the journal, by `kind`.
pub const JOURNAL_HOLES: &str = "weir_journal_holes";
/// Accepted changes (of a counter: increments) that the journal has lost before they were in SQL, by `kind`.
pub const JOURNAL_LOST_CHANGES_TOTAL: &str = "weir_journal_lost_changes_total";
/// Time of one flush, by `kind`.
pub const FLUSH_SECONDS: &str = "weir_flush_seconds";
/// Changes taken from the journal by committed flushes, by `kind`.
pub const FLUSH_CHANGES_TOTAL: &str = "weir_flush_changes_total";
/// Rows changed in SQL by committed flushes, by `kind`, `action`.
pub const FLUSH_ROWS_TOTAL: &str = "weir_flush_rows_total";
/// Statements of committed flushes, by `kind`.
pub const FLUSH_STATEMENTS_TOTAL: &str = "weir_flush_statements_total";
/// Flushes that did not commit, by `kind`, `cause` (`fenced`, `transient`, `locked`, `unknown`, `permanent`).
pub const FLUSH_FAILURES_TOTAL: &str = "weir_flush_failures_total";
/// Flushes that were due by `flush.age_ms_max` although the rules had not planned them, by `kind`.
pub const FLUSH_OVERDUE_TOTAL: &str = "weir_flush_overdue_total";
/// Flushes that met a row that another session had locked for longer than `sql.lock_timeout_ms`, by `kind`.
pub const FLUSH_LOCK_TIMEOUTS_TOTAL: &str = "weir_flush_lock_timeouts_total";
/// Gauge: targets that wait for a lock while everything else is flushed, by `kind`.
pub const FLUSH_SET_ASIDE_TARGETS: &str = "weir_flush_set_aside_targets";
/// Requests refused because SQL could never take them, by `kind`: a value that does not fit its column, a missing parent.
pub const UNFIT_TOTAL: &str = "weir_unfit_total";
/// Rows that were looked up because a foreign key leads to them, by `kind`, `outcome` (`present`, `missing`, `skipped`: SQL did
/// not say it in time, and the request was accepted without).
pub const PARENT_CHECKS_TOTAL: &str = "weir_parent_checks_total";
/// Rows moved to the dead letters, by `kind`.
pub const DEAD_LETTERS_TOTAL: &str = "weir_dead_letters_total";
/// Current size of the adaptive flush batch, by `kind`.
pub const FLUSH_BATCH_CHANGES: &str = "weir_flush_batch_changes";
/// 1 while this host holds the lease to flush the kind, by `kind`.
pub const FLUSH_LEASE: &str = "weir_flush_lease";
/// Gauge: people who wait, over all queues of a kind, by `kind`; the host that keeps a queue's clock reports it. A
/// queue has no metric of its own, because there may be any number of them: `GET /v1/rooms/{kind}/{queue}` returns it.
pub const ROOM_WAITING: &str = "weir_room_waiting";
/// Gauge: people who are in, by `kind`.
pub const ROOM_ACTIVE: &str = "weir_room_active";
/// Gauge: people let in per second, mean over a minute, by `kind`.
pub const ROOM_ADMITTED_PER_SECOND: &str = "weir_room_admitted_per_second";
/// What became of people, by `kind`, `what` (`admitted`, `completed`, `expired`, `no-show`, `abandoned`, `left`).
pub const ROOM_PEOPLE_TOTAL: &str = "weir_room_people_total";
/// Joins answered with a place, by `kind`.
pub const ROOM_JOINS_TOTAL: &str = "weir_room_joins_total";
/// Polls, by `kind`.
pub const ROOM_POLLS_TOTAL: &str = "weir_room_polls_total";
/// Difference between the admission time estimated at the join and the actual one, by `kind`.
pub const ROOM_ETA_ERROR_SECONDS: &str = "weir_room_eta_error_seconds";
/// Gauge: memory of a cache's entries, by `cache` (`reads`, `upstream`).
pub const CACHE_BYTES: &str = "weir_cache_bytes";
/// Entries evicted for room, by `cache`.
pub const CACHE_EVICTIONS_TOTAL: &str = "weir_cache_evictions_total";
/// Answers of cached reads, by `read` (an upstream's is `upstream:NAME`), `how` (`hit`, `stale`, `collapsed`, `miss`,
/// `bypass`, `error`).
pub const READS_TOTAL: &str = "weir_reads_total";
/// Time of the reads at the origin, by `read`.
pub const READ_ORIGIN_SECONDS: &str = "weir_read_origin_seconds";
/// Time that origins did not have to work because the cache answered, by `read`: hits times the median cost.
pub const READ_SAVED_SECONDS_TOTAL: &str = "weir_read_saved_seconds_total";
/// Looks at the cache that hosts share, by `read`, `how` (`hit`, `miss`, `kept`, `too-large`, `failed`).
pub const READ_SHARED_TOTAL: &str = "weir_read_shared_total";
/// Bytes answered from the cache, by `read`.
pub const READ_HIT_BYTES_TOTAL: &str = "weir_read_hit_bytes_total";

/// Lines of the access log that were dropped because too many waited, or the file could not be written.
pub const ACCESS_LOG_DROPPED_TOTAL: &str = "weir_access_log_dropped_total";
/// Reads of the keys of tokens at `auth.jwt.jwks_url`, by `outcome` (`done`, `failed`).
pub const JWKS_FETCHES_TOTAL: &str = "weir_jwks_fetches_total";
/// Gauge: keys of tokens in the last good set.
pub const JWKS_KEYS: &str = "weir_jwks_keys";
/// Gauge: when the keys of tokens were last read well, in Unix seconds; 0: never.
pub const JWKS_READ_TIMESTAMP_SECONDS: &str = "weir_jwks_read_timestamp_seconds";
/// Tokens that were not judged because their key was not known and could not be asked for, by `cause` (`away`, `cooldown`).
pub const JWKS_UNDECIDED_TOTAL: &str = "weir_jwks_undecided_total";

/// The metrics that write themselves, in Prometheus' text format.
pub fn write_own() -> String {
    let mut text = tally::write_timers(HTTP_REQUEST_SECONDS, "Time to the answer");
    text.push_str(&tally::write_seconds(READ_SAVED_SECONDS_TOTAL, "Time that the cache saved the origin"));
    text
}

/// Registers help texts and units. Call once, after the recorder is installed.
pub fn describe() {
    describe_listeners();
    describe_policies();
    describe_stores();
    describe_capabilities();
    describe_write_behind();
    describe_reads();
}

/// Connections, requests, and who asks.
fn describe_listeners() {
    describe_counter!(HTTP_REQUESTS_TOTAL, "Requests answered");
    describe_gauge!(HTTP_CONNECTIONS, "Open connections of the public listener");
    describe_counter!(ACCEPT_FAILURES_TOTAL, "Connections that could not be accepted, such as for want of files");
    describe_counter!(RELOADS_TOTAL, "Reloads of the configuration (SIGHUP)");
    describe_counter!(CLOCK_STEPS_TOTAL, "How often the machine's clock was set, by a second or more");
    describe_counter!(SHED_TOTAL, "Requests refused because a bound was reached");
    describe_counter!(ACCESS_LOG_DROPPED_TOTAL, "Lines of the access log that were dropped");
    describe_counter!(JWKS_FETCHES_TOTAL, "Reads of the published keys of tokens");
    describe_gauge!(JWKS_KEYS, "Published keys of tokens that are in use");
    describe_gauge!(
        JWKS_READ_TIMESTAMP_SECONDS,
        Unit::Seconds,
        "When the published keys were last read well, in Unix time"
    );
    describe_counter!(JWKS_UNDECIDED_TOTAL, "Tokens that were answered 503 because their key could not be asked for");
}

/// Policy modules.
fn describe_policies() {
    describe_histogram!(POLICY_CALL_SECONDS, Unit::Seconds, "Time of one policy call");
    describe_counter!(POLICY_FAILURES_TOTAL, "Failed policy calls");
    describe_counter!(POLICY_FALLBACKS_TOTAL, "Batches decided by something else because the live module failed");
    describe_counter!(POLICY_EVENTS_TOTAL, "Changes of the active set of policy modules");
    describe_gauge!(
        POLICY_BREAKERS_OPEN,
        "Breakers of loaded policy modules that are not closed: calls are not made, what stands in answers"
    );
    describe_gauge!(POLICY_UNFIT, "1 while the module that was active for an interface does not fit this weir");
    describe_gauge!(POLICY_UNSAVED, "1 while a change of the active set of policy modules cannot be written down");
    describe_counter!(POLICY_LOG_LINES_TOTAL, "Log lines of policy modules");
}

/// The store.
fn describe_stores() {
    describe_histogram!(STORE_CALL_SECONDS, Unit::Seconds, "Time of one store call");
    describe_counter!(STORE_FAILURES_TOTAL, "Failed store calls");
    describe_counter!(STORE_RESENT_TOTAL, "Calls sent again because a node of the Redis Cluster had not run them");
    describe_gauge!(STORE_REFUSING, "1 while the embedded store refuses writes after a failure of the disk");
    describe_gauge!(STORE_MEMORY_BYTES, Unit::Bytes, "State of targets that the embedded store keeps in memory");
}

/// What requests are about.
fn describe_capabilities() {
    describe_histogram!(BATCH_ITEMS, "Operations in one batch");
    describe_counter!(TOGGLES_TOTAL, "Outcomes of toggles");
    describe_counter!(COUNTS_TOTAL, "Outcomes of hits on counters");
    describe_counter!(DOCUMENTS_TOTAL, "Outcomes of creates, in documents");
    describe_counter!(SETTINGS_TOTAL, "Outcomes of changes of settings");
    describe_counter!(PREFERENCE_MEMBERS_TOTAL, "Members that were looked up");
    describe_counter!(PREFERENCE_FETCHES_TOTAL, "Members that look-ups fetched from the store");
    describe_histogram!(PREFERENCE_LOOKUP_SECONDS, Unit::Seconds, "Time of one look-up");
    describe_histogram!(PREFERENCE_RULE_SECONDS, Unit::Seconds, "Time in the rules for one chunk of a look-up");
    describe_gauge!(ROOM_WAITING, "People who wait");
    describe_gauge!(ROOM_ACTIVE, "People who are in");
    describe_gauge!(ROOM_ADMITTED_PER_SECOND, "People let in per second, mean over a minute");
    describe_counter!(ROOM_PEOPLE_TOTAL, "What became of people in waiting rooms");
    describe_counter!(ROOM_JOINS_TOTAL, "Joins answered with a place");
    describe_counter!(ROOM_POLLS_TOTAL, "Polls of waiting rooms");
    describe_histogram!(
        ROOM_ETA_ERROR_SECONDS,
        Unit::Seconds,
        "When somebody was told to be let in against when it was so"
    );
}

/// The way from the journal to SQL.
fn describe_write_behind() {
    describe_counter!(HYDRATED_TOTAL, "Targets and pairs read from SQL");
    describe_gauge!(BACKLOG_ENTRIES, "Changes in the journal, not yet in SQL");
    describe_gauge!(BACKLOG_BYTES, Unit::Bytes, "Size of the changes not yet in SQL");
    describe_gauge!(BACKLOG_OLDEST_SECONDS, Unit::Seconds, "Age of the oldest change not yet in SQL");
    describe_gauge!(JOURNAL_HOLES, "Holes in the journal that nobody has acknowledged");
    describe_counter!(JOURNAL_LOST_CHANGES_TOTAL, "Accepted changes that the journal lost before they were in SQL");
    describe_histogram!(FLUSH_SECONDS, Unit::Seconds, "Time of one flush");
    describe_counter!(FLUSH_CHANGES_TOTAL, "Changes committed to SQL");
    describe_counter!(FLUSH_ROWS_TOTAL, "Rows changed in SQL");
    describe_counter!(FLUSH_STATEMENTS_TOTAL, "Statements that committed flushes sent");
    describe_counter!(
        FLUSH_OVERDUE_TOTAL,
        "Flushes that flush.age_ms_max asked for because the rules had planned none"
    );
    describe_counter!(FLUSH_LOCK_TIMEOUTS_TOTAL, "Flushes that met a lock of another session");
    describe_gauge!(FLUSH_SET_ASIDE_TARGETS, "Targets that wait for a lock of another session");
    describe_counter!(FLUSH_FAILURES_TOTAL, "Flushes that did not commit");
    describe_counter!(UNFIT_TOTAL, "Requests refused because SQL could never take them");
    describe_counter!(PARENT_CHECKS_TOTAL, "Look-ups of rows that foreign keys lead to");
    describe_counter!(DEAD_LETTERS_TOTAL, "Rows moved to the dead letters");
    describe_gauge!(FLUSH_BATCH_CHANGES, "Size of the adaptive flush batch");
    describe_gauge!(FLUSH_LEASE, "1 while this host flushes the kind");
}

/// Cached reads.
fn describe_reads() {
    describe_gauge!(CACHE_BYTES, Unit::Bytes, "Memory of a cache's entries");
    describe_counter!(CACHE_EVICTIONS_TOTAL, "Entries of a cache dropped for room");
    describe_counter!(READS_TOTAL, "Answers of cached reads");
    describe_histogram!(READ_ORIGIN_SECONDS, Unit::Seconds, "Time of reads at the origin");
    describe_counter!(READ_SHARED_TOTAL, "Looks at the cache that hosts share");
    describe_counter!(READ_HIT_BYTES_TOTAL, "Bytes answered from the cache");
}

/// Makes the counters of failures exist at 0, so that the first failure is a change that an alert can see.
pub fn begin_at_zero(kinds: &[&str]) {
    for limit in ["batch.queue_max", "journal.backlog", "http.header_bytes_max", "http.uri_bytes_max", "requests_max"] {
        counter!(SHED_TOTAL, "limit" => limit).absolute(0);
    }
    for cause in ["unavailable", "unknown", "refused", "damaged", "misconfigured"] {
        counter!(STORE_FAILURES_TOTAL, "operation" => "toggle", "cause" => cause).absolute(0);
    }
    for kind in kinds {
        counter!(DEAD_LETTERS_TOTAL, "kind" => (*kind).to_owned()).absolute(0);
        counter!(UNFIT_TOTAL, "kind" => (*kind).to_owned()).absolute(0);
        counter!(JOURNAL_LOST_CHANGES_TOTAL, "kind" => (*kind).to_owned()).absolute(0);
        for to in ["previous", "built-in", "deny"] {
            counter!(POLICY_FALLBACKS_TOTAL, "kind" => (*kind).to_owned(), "to" => to).absolute(0);
        }
        counter!(FLUSH_LOCK_TIMEOUTS_TOTAL, "kind" => (*kind).to_owned()).absolute(0);
        counter!(FLUSH_OVERDUE_TOTAL, "kind" => (*kind).to_owned()).absolute(0);
        for cause in ["fenced", "transient", "locked", "unknown", "permanent", "store"] {
            counter!(FLUSH_FAILURES_TOTAL, "kind" => (*kind).to_owned(), "cause" => cause).absolute(0);
        }
    }
    for event in [
        "activated",
        "rolled-back",
        "rolled-back-by-itself",
        "canary-rolled-back",
        "breaker-opened",
        "breaker-closed",
        "unfit",
        "not-restored",
    ] {
        counter!(POLICY_EVENTS_TOTAL, "event" => event).absolute(0);
    }
    for interface in ["toggle", "flush"] {
        for cause in ["trap", "deadline", "contract", "instantiate", "busy"] {
            counter!(POLICY_FAILURES_TOTAL, "interface" => interface, "role" => "live", "cause" => cause).absolute(0);
        }
    }
}

/// Sends log lines to standard error: `WEIR_LOG` filters them (default `info`); `json` for machines.
/// Returns quietly when a subscriber is installed already, as in tests.
pub fn init_tracing(json: bool) {
    use tracing_subscriber::fmt;
    let builder = fmt().with_env_filter(filter("info")).with_target(false).with_writer(std::io::stderr);
    let colours = takes_colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR"));
    let builder = builder.with_ansi(colours);
    let set: SetFilter = if json {
        let inner = fmt::format().json().with_target(false);
        let builder = builder.json().event_format(Tagged { inner, is_json: true }).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        Box::new(move |filter| handle.reload(filter).is_ok())
    } else {
        let inner = fmt::format().with_target(false).with_ansi(colours);
        let builder = builder.event_format(Tagged { inner, is_json: false }).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        Box::new(move |filter| handle.reload(filter).is_ok())
    };
    let _ = SET_FILTER.set(set);
}

/// Colour codes are for eyes: none go into files and pipes, nor where `NO_COLOR` is set (to anything but nothing).
fn takes_colours(is_terminal: bool, no_color: Option<OsString>) -> bool {
    is_terminal && no_color.is_none_or(|value| value.is_empty())
}

type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// How the running subscriber takes another filter.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// `WEIR_LOG`, where it is set and can be read; else `level`.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(level))
}

/// From now on what is logged is at least of this level, unless `WEIR_LOG` says otherwise.
pub fn set_log_level(level: &str) {
    if let Some(set) = SET_FILTER.get() {
        set(filter(level));
    }
}

#[cfg(test)]
mod tests {
    use super::takes_colours;

    #[test]
    fn colours_are_for_terminals() {
        assert!(takes_colours(true, None) && takes_colours(true, Some("".into())));
        assert!(!takes_colours(false, None) && !takes_colours(true, Some("1".into())));
    }

    /// A metric without its help text is found here, not by an operator.
    #[test]
    fn every_metric_is_described() {
        let source = include_str!("telemetry.rs");
        let (names, rest) = source.split_once("/// The metrics that write themselves").unwrap();
        let own = rest.split_once("/// Registers help texts").unwrap();
        let described: String = own.0.chars().chain(own.1.chars()).filter(|c| !c.is_whitespace()).collect();
        let constants: Vec<&str> = names
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": &str = \"weir_"))
            .map(|(constant, _)| constant)
            .collect();
        assert!(constants.len() > 50, "{constants:?}");
        for constant in constants {
            let is_described = described.contains(&format!("!({constant},"))
                || described.contains(&format!("write_timers({constant},"))
                || described.contains(&format!("write_seconds({constant},"));
            assert!(is_described, "{constant} has no help text");
        }
    }
}
