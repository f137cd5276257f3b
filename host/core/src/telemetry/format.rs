//! Log lines that name their request, whichever module writes them.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::request;

/// Adds the ids of the request under way to what `inner` writes.
pub(super) struct Tagged<F> {
    pub(super) inner: F,
    /// Lines are JSON objects.
    pub(super) is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Tagged<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some((id, trace)) = request::with_current(|tag| (tag.id(), tag.trace_id())) else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&tagged(line, self.is_json, (&id, &trace)))
    }
}

/// A line with the ids of its request: both hold nothing that needs escaping.
fn tagged(mut line: String, is_json: bool, (id, trace): (&str, &str)) -> String {
    if line.ends_with('\n') {
        line.pop();
    }
    if is_json && line.ends_with('}') {
        line.pop();
        let comma = if line.ends_with('{') { "" } else { "," };
        return format!("{line}{comma}\"request\":\"{id}\",\"trace\":\"{trace}\"}}\n");
    }
    format!("{line} request={id} trace={trace}\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use hyper::header::{HeaderMap, HeaderName};
    use tracing_subscriber::fmt;

    use super::*;
    use crate::telemetry::request::Tag;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(is_json: bool) -> (String, String) {
        let sink = Sink::default();
        let make = {
            let sink = sink.clone();
            move || sink.clone()
        };
        let _guard = if is_json {
            let inner = fmt::format().json();
            let fields = fmt::format::JsonFields::new();
            let builder = fmt().with_writer(make).with_ansi(false).fmt_fields(fields);
            tracing::subscriber::set_default(builder.event_format(Tagged { inner, is_json }).finish())
        } else {
            let inner = fmt::format().with_target(false);
            let builder = fmt().with_writer(make).with_ansi(false);
            tracing::subscriber::set_default(builder.event_format(Tagged { inner, is_json }).finish())
        };
        let tag = Tag::of(&HeaderMap::new(), &HeaderName::from_static("x-request-id"), false, false);
        let deeper = async { tracing::warn!(cause = "a \"b\"", "deep down") };
        let logged = request::scope(Some(tag.clone()), deeper, |()| {});
        futures_util::FutureExt::now_or_never(logged).unwrap();
        tracing::info!("of no request");
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        (text, tag.id())
    }

    #[test]
    fn a_line_says_of_which_request_it_is() {
        let (text, id) = written(false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("deep down") && lines[0].ends_with(&format!(" request={id} trace={id}")), "{text}");
        assert!(lines.len() == 2 && !lines[1].contains("request="), "{text}");
    }

    #[test]
    fn a_line_of_json_stays_json() {
        let (text, id) = written(true);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["request"], &lines[0]["trace"]), (&id.clone().into(), &id.into()));
        assert_eq!(lines[0]["fields"]["cause"], "a \"b\"");
        assert!(lines[1].get("request").is_none());
    }
}
