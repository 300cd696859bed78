//! From `tracing` spans to those of OpenTelemetry.
//!
//! A span without a parent begins a trace, or goes on with the one that its field `traceparent` names; there it is decided
//! whether the trace is sampled. Spans of a trace that is not have nothing to remember. Fields that begin with `otel.` are
//! not attributes: `otel.name` and `otel.kind` are the span's, `otel.elapsed_nanos` says how long ago it began, and
//! `otel.link` names a trace that is none of ours.

use std::fmt::{Debug, Write as _};

use base::{Clock, Random};
use rpc::otlp::any_value::Value;
use rpc::otlp::{AnyValue, KeyValue, Link, Span, SpanKind, SpanStatus, SpanStatusCode};
use tokio::sync::mpsc::Sender;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::LookupSpan;

use super::context::Context;

/// Attributes that one span has at most (upstream's SDK: `DefaultAttributeCountLimit`).
const ATTRIBUTES_MAX: usize = 128;
/// The flag of a span that the trace is sampled, and those that say where its parent is.
const FLAG_SAMPLED: u32 = 1;
const FLAG_KNOWS_REMOTE: u32 = 0x100;
const FLAG_REMOTE: u32 = 0x200;
/// The attribute whose value decides whether a span went wrong.
const STATUS_CODE: &str = "http.response.status_code";

/// Collects spans.
pub struct SpanLayer {
    /// The part of new traces that is sampled.
    rate: f64,
    queue: Sender<Span>,
    clock: Clock,
    random: Random,
}

impl SpanLayer {
    /// A layer that samples this part of new traces and hands finished spans to a queue. What the queue has no room for is
    /// lost: requests never wait for a collector.
    pub fn new(rate: f64, queue: Sender<Span>, clock: Clock, random: Random) -> SpanLayer {
        SpanLayer {
            rate,
            queue,
            clock,
            random,
        }
    }

    fn now_nanos(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanosecond()).unwrap_or(0)
    }

    /// The first span of a trace here; `None`: it is not sampled.
    fn begin(&self, fields: &Fields) -> Option<Span> {
        if let Some(parent) = fields.parent {
            return parent.sampled.then(|| Span {
                trace_id: parent.trace.to_vec(),
                parent_span_id: parent.span.to_vec(),
                flags: FLAG_SAMPLED | FLAG_KNOWS_REMOTE | FLAG_REMOTE,
                ..Span::default()
            });
        }
        let trace: [u8; 16] = self.random.bytes();
        let link = |other: Context| Link {
            trace_id: other.trace.to_vec(),
            span_id: other.span.to_vec(),
            flags: u32::from(other.sampled) | FLAG_KNOWS_REMOTE | FLAG_REMOTE,
            ..Link::default()
        };
        is_sampled(trace, self.rate).then(|| Span {
            trace_id: trace.to_vec(),
            links: fields.link.map(link).into_iter().collect(),
            flags: FLAG_SAMPLED | FLAG_KNOWS_REMOTE,
            ..Span::default()
        })
    }
}

/// Every program that is asked the same of one trace says the same (OpenTelemetry: `TraceIDRatioBased`).
fn is_sampled(trace: [u8; 16], rate: f64) -> bool {
    let [.., a, b, c, d, e, f, g, h] = trace;
    let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    number < (rate * 2_f64.powi(63)) as u64
}

impl<S> Layer<S> for SpanLayer
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let begun = match span.parent() {
            Some(parent) => parent.extensions().get::<Span>().map(|parent| Span {
                trace_id: parent.trace_id.clone(),
                parent_span_id: parent.span_id.clone(),
                flags: FLAG_SAMPLED | FLAG_KNOWS_REMOTE,
                ..Span::default()
            }),
            None => self.begin(&fields),
        };
        let Some(mut begun) = begun else { return };
        begun.span_id = self.random.bytes::<8>().to_vec();
        begun.name = fields
            .name
            .take()
            .unwrap_or_else(|| attributes.metadata().name().to_owned());
        begun.kind = fields.kind.unwrap_or(SpanKind::Internal).into();
        begun.start_time_unix_nano = self.now_nanos().saturating_sub(fields.elapsed_nanos);
        fields.add_to(&mut begun);
        span.extensions_mut().insert(begun);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(begun) = span.extensions_mut().get_mut::<Span>() {
            let mut fields = Fields::default();
            values.record(&mut fields);
            fields.add_to(begun);
        }
    }

    fn on_close(&self, id: Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(mut done) = span.extensions_mut().remove::<Span>() else {
            return;
        };
        done.end_time_unix_nano = self.now_nanos();
        // A collector that is gone, or too slow: the span is lost.
        let _ = self.queue.try_send(done);
    }
}

/// What the fields of a span say.
#[derive(Default)]
struct Fields {
    name: Option<String>,
    kind: Option<SpanKind>,
    elapsed_nanos: u64,
    parent: Option<Context>,
    link: Option<Context>,
    attributes: Vec<KeyValue>,
    failed: bool,
}

impl Fields {
    fn add_to(self, span: &mut Span) {
        for attribute in self.attributes {
            match span.attributes.len() < ATTRIBUTES_MAX {
                true => span.attributes.push(attribute),
                false => span.dropped_attributes_count += 1,
            }
        }
        if self.failed {
            span.status = Some(SpanStatus {
                message: String::new(),
                code: SpanStatusCode::StatusCodeError.into(),
            });
        }
    }

    fn attribute(&mut self, field: &Field, value: Value) {
        self.attributes.push(KeyValue {
            key: field.name().to_owned(),
            value: Some(AnyValue { value: Some(value) }),
        });
    }

    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "otel.name" => self.name = Some(text),
            "otel.kind" if text == "server" => self.kind = Some(SpanKind::Server),
            "otel.kind" if text == "client" => self.kind = Some(SpanKind::Client),
            "traceparent" => self.parent = Context::parse(&text),
            "otel.link" => self.link = Context::parse(&text),
            _ => self.attribute(field, Value::StringValue(text)),
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        // Only what is the server's fault is a failure of its span.
        self.failed |= field.name() == STATUS_CODE && value >= 500;
        self.attribute(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "otel.elapsed_nanos" => self.elapsed_nanos = value,
            _ => self.record_i64(field, i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attribute(field, Value::BoolValue(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attribute(field, Value::DoubleValue(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Writing to a string does not fail; a value that cannot be shown leaves it short.
        let _ = write!(text, "{value:?}");
        self.text(field, text);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, channel};
    use tracing::trace_span;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry::Registry;

    use super::*;

    const CLIENTS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";

    /// The spans that some work leaves behind, by name. The subscriber is this thread's alone.
    fn spans_of(rate: f64, work: impl FnOnce()) -> Vec<Span> {
        let (sender, mut queue): (_, Receiver<Span>) = channel(16);
        let layer = SpanLayer::new(rate, sender, Clock::real(), Random::seeded(1));
        tracing::subscriber::with_default(Registry::default().with(layer), work);
        let mut spans: Vec<Span> = std::iter::from_fn(|| queue.try_recv().ok()).collect();
        spans.sort_by(|a, b| a.name.cmp(&b.name));
        spans
    }

    fn request(header: &str) {
        let root = trace_span!(target: "otel", "request", otel.name = "GET /a", otel.kind = "server",
            otel.elapsed_nanos = 1_000_000_u64, traceparent = header, http.response.status_code = tracing::field::Empty);
        root.in_scope(|| trace_span!(target: "otel", "a stage", count = 3).in_scope(|| ()));
        root.record("http.response.status_code", 503);
    }

    #[test]
    fn a_clients_trace_goes_on() {
        let [root, stage] = &spans_of(0.0, || request(&format!("{CLIENTS}01")))[..] else {
            panic!("not two spans")
        };
        assert_eq!((&*root.name, root.kind()), ("GET /a", SpanKind::Server));
        assert_eq!((root.trace_id[0], root.parent_span_id[7]), (0x4b, 0xb7));
        assert_eq!(
            (&stage.trace_id, &stage.parent_span_id),
            (&root.trace_id, &root.span_id)
        );
        assert!(root.end_time_unix_nano - root.start_time_unix_nano >= 1_000_000);
        assert_eq!(root.status.as_ref().unwrap().code(), SpanStatusCode::StatusCodeError);
        let keys: Vec<&str> = root.attributes.iter().map(|attribute| &*attribute.key).collect();
        assert_eq!(keys, ["http.response.status_code"]);
        assert_eq!(stage.attributes[0].key, "count");
    }

    #[test]
    fn who_is_sampled_is_decided_where_a_trace_begins() {
        // The client says no; nobody says anything, and the rate is none or all.
        for (rate, header, expect) in [
            (1.0, format!("{CLIENTS}00"), 0),
            (0.0, String::new(), 0),
            (1.0, String::new(), 2),
            (1.0, "nonsense".to_owned(), 2),
        ] {
            assert_eq!(spans_of(rate, || request(&header)).len(), expect, "{header}");
        }
        let linked = spans_of(1.0, || {
            drop(trace_span!(target: "otel", "request", otel.link = format!("{CLIENTS}01")));
        });
        let [link] = &linked[0].links[..] else {
            panic!("{linked:?}")
        };
        assert!(link.trace_id[0] == 0x4b && linked[0].parent_span_id.is_empty());
        assert_ne!(link.trace_id, linked[0].trace_id);
    }

    #[test]
    fn a_rate_is_a_part_of_all_traces() {
        let random = Random::seeded(7);
        let sampled = (0..10_000).filter(|_| is_sampled(random.bytes(), 0.25)).count();
        assert!((2_200..2_800).contains(&sampled), "{sampled}");
        assert!(is_sampled([0xff; 16], 1.0) && !is_sampled([0; 16], 0.0));
    }
}
