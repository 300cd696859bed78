//! What a running program told of itself: the marks of target `walk`, from this process or from a daemon's log.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Id, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The target of marks.
const TARGET: &str = "walk";

/// A stage that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The source file, as `crates/apiserver/src/serve.rs`.
    pub file: String,
    /// The line in it: two marks of a file are two stages.
    pub line: u64,
    /// What the mark says.
    pub message: String,
    /// The fields of the mark and of the spans around it; empty when there are none.
    pub about: String,
}

impl Mark {
    /// The `resourceVersion` of the object that the mark is about, if it says so.
    pub fn version(&self) -> Option<u64> {
        let (_, version) = self.about.split_once(" version=\"")?;
        version.split('"').next()?.parse().ok()
    }
}

/// Records the marks of this process, from whichever thread.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Mark>>>);

// === impl Recorder ===

impl Recorder {
    /// The marks since the last call.
    pub fn take(&self) -> Vec<Mark> {
        std::mem::take(&mut self.0.lock())
    }
}

/// The text of a span's fields, kept with the span.
struct About(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == TARGET
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut words = Words::default();
        attributes.record(&mut words);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(About(words.about));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(About(about)) = span.extensions().get::<About>() {
                words.about.push_str(about);
            }
        }
        let metadata = event.metadata();
        self.0.lock().push(Mark {
            file: metadata.file().unwrap_or_default().to_owned(),
            line: metadata.line().unwrap_or_default().into(),
            message: words.message,
            about: words.about,
        });
    }
}

#[derive(Default)]
struct Words {
    message: String,
    about: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.about, " {name}={value:?}"),
        };
        written.expect("invariant: text can be written to a String");
    }
}

/// The marks in a daemon's log of `TRIREME_LOG=walk=trace` and `TRIREME_LOG_FORMAT=json`, each with its time.
pub fn of_log(log: &str) -> Vec<(String, Mark)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let marks = lines.filter(|line| line["target"] == TARGET).map(|line| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut fields = line["fields"].clone();
        let message = fields["message"].take();
        let mut about = String::new();
        let spans = line["spans"].as_array().into_iter().flatten();
        for object in spans.chain([&fields]).filter_map(Value::as_object) {
            // `name` is the span's own.
            let known = object
                .iter()
                .filter(|(name, value)| *name != "name" && !value.is_null());
            for (name, value) in known {
                about += &format!(" {name}={value}");
            }
        }
        let mark = Mark {
            file: text(&line["filename"]),
            line: line["line_number"].as_u64().unwrap_or_default(),
            message: text(&message),
            about,
        };
        (text(&line["timestamp"]), mark)
    });
    marks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_the_marks_that_this_process_would_record() {
        let log = concat!(
            "not JSON\n",
            r#"{"timestamp":"1","level":"INFO","fields":{"message":"the node is ready"},"target":"trireme"}"#,
            "\n",
            r#"{"timestamp":"2","fields":{"message":"a seat"},"target":"walk","filename":"f.rs","line_number":7,"spans":[{"uri":"/x","name":"request"}]}"#,
            "\n",
            r#"{"timestamp":"3","fields":{"message":"linked"},"target":"walk","filename":"g.rs","line_number":8}"#,
        );
        let mark = |file: &str, line, message: &str, about: &str| Mark {
            file: file.into(),
            line,
            message: message.into(),
            about: about.into(),
        };
        assert_eq!(
            of_log(log),
            [
                ("2".into(), mark("f.rs", 7, "a seat", " uri=\"/x\"")),
                ("3".into(), mark("g.rs", 8, "linked", ""))
            ]
        );
    }
}
