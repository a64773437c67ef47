//! The same by OpenTelemetry's names for generative AI, sent to a collector by OTLP over HTTP where one
//! is named. Names, attributes and buckets are those of the semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/>). A collector that does not
//! answer costs nobody anything. Never logs the URL's path or query.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use opentelemetry::metrics::{Histogram, Meter, MeterProvider as _};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};

use super::{Operation, Outcome, Served};
use crate::error::{Error, Kind, Result};

const REQUEST_DURATION: &str = "gen_ai.server.request.duration";
const TIME_TO_FIRST_TOKEN: &str = "gen_ai.server.time_to_first_token";
const TIME_PER_OUTPUT_TOKEN: &str = "gen_ai.server.time_per_output_token";
/// The conventions' one name for tokens; they have none of a server's.
const TOKEN_USAGE: &str = "gen_ai.client.token.usage";

const DURATION_S: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKEN_S: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_TOKEN_S: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Where the figures go, and whose they are.
pub struct Collector<'a> {
    /// The collector's URL for metrics.
    pub url: &'a str,
    /// What of it may be said: scheme, host and port.
    pub shown: String,
    /// Name of this worker.
    pub worker_id: &'a str,
}

/// What is recorded into, once a process.
static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
/// The attributes that all figures of this worker have.
static SERVER: OnceLock<[KeyValue; 5]> = OnceLock::new();

struct Instruments {
    duration: Histogram<f64>,
    first_token: Histogram<f64>,
    per_token: Histogram<f64>,
    tokens: Histogram<u64>,
}

impl Instruments {
    fn new(meter: &Meter) -> Self {
        let seconds = |name, about, steps: &[f64]| {
            let histogram = meter.f64_histogram(name).with_description(about).with_unit("s");
            histogram.with_boundaries(steps.to_vec()).build()
        };
        Instruments {
            duration: seconds(
                REQUEST_DURATION,
                "From the acceptance of a request to its end.",
                &DURATION_S,
            ),
            first_token: seconds(
                TIME_TO_FIRST_TOKEN,
                "From the acceptance of a request to its first token.",
                &FIRST_TOKEN_S,
            ),
            per_token: seconds(
                TIME_PER_OUTPUT_TOKEN,
                "Time per token after the first one, by request.",
                &PER_TOKEN_S,
            ),
            tokens: meter
                .u64_histogram(TOKEN_USAGE)
                .with_description("Tokens of a request's prompt and answer.")
                .with_unit("{token}")
                .with_boundaries(TOKENS.to_vec())
                .build(),
        }
    }
}

/// Says which model is served, and where: what is measured from now on is of it.
pub fn serves(model: &str, address: SocketAddr) {
    let _ = SERVER.set([
        KeyValue::new("gen_ai.provider.name", "rbees-workerd"),
        KeyValue::new("gen_ai.request.model", model.to_owned()),
        KeyValue::new("gen_ai.response.model", model.to_owned()),
        KeyValue::new("server.address", address.ip().to_string()),
        KeyValue::new("server.port", i64::from(address.port())),
    ]);
}

/// A job has ended.
pub(super) fn record(outcome: Outcome, served: &Served) {
    let (Some(to), Some(server)) = (INSTRUMENTS.get(), SERVER.get()) else { return };
    let operation = match served.operation {
        Operation::Chat => "chat",
        Operation::TextCompletion => "text_completion",
    };
    let mut all = server.to_vec();
    all.push(KeyValue::new("gen_ai.operation.name", operation));
    let with = |more: KeyValue| [&all[..], &[more]].concat();
    for (kind, tokens) in [("input", served.tokens_in), ("output", served.tokens_out)] {
        to.tokens.record(u64::from(tokens), &with(KeyValue::new("gen_ai.token.type", kind)));
    }
    if outcome != Outcome::Completed {
        let failed = with(KeyValue::new("error.type", outcome.label()));
        return to.duration.record(served.took.as_secs_f64(), &failed);
    }
    to.duration.record(served.took.as_secs_f64(), &all);
    if let Some(first) = served.first_token {
        to.first_token.record(first.as_secs_f64(), &all);
    }
    if let Some(later) = served.tokens_out.checked_sub(1).filter(|later| *later > 0) {
        to.per_token.record(served.decode.as_secs_f64() / f64::from(later), &all);
    }
}

/// Sends what is measured now and then, on a thread of its own.
pub struct Push(SdkMeterProvider);

/// Starts to send, once a process. How often, how long one try may take and which headers go with it
/// is said by OpenTelemetry's own environment variables.
///
/// # Errors
/// [`Kind::Config`] where those variables ask for what this worker can't do.
pub fn start(collector: &Collector<'_>) -> Result<Push> {
    let exporter =
        MetricExporter::builder().with_http().with_endpoint(collector.url).build().map_err(
            |error| {
                let what = "--otlp-endpoint, or an OTEL_EXPORTER_OTLP_ variable, can't be used";
                Error::new(Kind::Config, what).because(error)
            },
        )?;
    let exporter =
        Announced { exporter, shown: collector.shown.clone(), fails: AtomicBool::new(false) };
    let provider = SdkMeterProvider::builder()
        .with_resource(resource(collector.worker_id))
        .with_periodic_exporter(exporter)
        .build();
    let _ = INSTRUMENTS.set(Instruments::new(&provider.meter("rbees-workerd")));
    Ok(Push(provider))
}

/// Whose figures these are. The environment's name of the service wins.
fn resource(worker_id: &str) -> Resource {
    let name = Resource::builder().build().get(&Key::from_static_str("service.name"));
    let name = name.map(|name| name.to_string()).filter(|name| !name.starts_with("unknown_"));
    Resource::builder()
        .with_service_name(name.unwrap_or_else(|| "rbees-workerd".to_owned()))
        .with_attributes([
            KeyValue::new("service.instance.id", worker_id.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}

impl Push {
    /// Sends what was measured last, and ends; the receiver hears when that is done. Waits for nobody.
    pub fn finish(self) -> Receiver<()> {
        let (done, ended) = sync_channel(1);
        let last = thread::Builder::new().name("otlp-last".into()).spawn(move || {
            let _ = self.0.shutdown(); // a failure was logged where it happened
            let _ = done.send(());
        });
        if let Err(error) = last {
            tracing::warn!(%error, "what was measured last can't be sent");
        }
        ended
    }
}

/// An exporter whose failures are logged: the first of each row, and when it works again.
struct Announced {
    exporter: MetricExporter,
    shown: String,
    fails: AtomicBool,
}

impl PushMetricExporter for Announced {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        let failed_before = self.fails.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => {
                let collector = &self.shown;
                tracing::warn!(collector, %error, "the collector does not take what is measured");
            }
            Ok(()) if failed_before => {
                tracing::warn!(
                    collector = self.shown,
                    "the collector takes what is measured again"
                );
            }
            _ => {}
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
