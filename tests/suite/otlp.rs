//! Promise: where a collector is named, requests are measured by OpenTelemetry's names and sent there,
//! the last ones at the worker's end; one that does not answer costs nobody anything.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::worker::{BINARY, Worker, folder};

/// A request that a collector was sent: its head, and what it holds.
type Heard = Arc<Mutex<Vec<(String, ExportMetricsServiceRequest)>>>;

/// A collector that takes everything after refusing the first `refuse` requests.
async fn collector(mut refuse: usize) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let heard = Heard::default();
    let sink = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("it is open");
            let (head, body) = read(&mut stream).await;
            let status = if refuse > 0 { 400 } else { 200 };
            refuse = refuse.saturating_sub(1);
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\n\
                 content-length: 0\r\nconnection: close\r\n\r\n"
            );
            let request = ExportMetricsServiceRequest::decode(&*body).expect("protobuf");
            if status == 200 {
                sink.lock().expect("no panic").push((head, request));
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, heard)
}

/// One request: its head, and its body of the length that the head says.
async fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4_096];
        let count = stream.read(&mut piece).await.expect("it can be read");
        assert!(count > 0, "it breaks off");
        text.extend_from_slice(&piece[..count]);
        let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(text[..end].to_vec()).expect("ASCII").to_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        if text.len() >= end + 4 + length {
            return (head, text[end + 4..end + 4 + length].to_vec());
        }
    }
}

/// A worker with the tiny model that exports five times a second.
async fn exporting(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Worker, std::path::PathBuf) {
    let folder = folder();
    let model = folder.join("tiny.gguf");
    std::fs::write(&model, crate::gguf::tiny_llama(7)).expect("a temporary file");
    let mut command = Command::new(BINARY);
    command.args(["serve", "--port", "0", "--worker-id", "bee-1", "--model"]).arg(&model);
    command.args(arguments).envs(environment.iter().copied());
    for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] {
        if !environment.iter().any(|(given, _)| *given == name) {
            command.env_remove(name);
        }
    }
    let worker = Worker::run(&mut command);
    worker.ready().await;
    (worker, folder)
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    all.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
}

/// The points of a histogram in a request, with its unit.
fn points(request: &ExportMetricsServiceRequest, name: &str) -> (String, Vec<HistogramDataPoint>) {
    let scopes = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics);
    let metric = scopes.flat_map(|scope| &scope.metrics).find(|metric| metric.name == name);
    let metric = metric.unwrap_or_else(|| panic!("{name} is missing in {request:?}"));
    match &metric.data {
        Some(Data::Histogram(histogram)) => (metric.unit.clone(), histogram.data_points.clone()),
        other => panic!("{name} is no histogram: {other:?}"),
    }
}

/// The request heard last; the figures in it are of the whole life of the worker.
fn last(heard: &Heard) -> (String, ExportMetricsServiceRequest) {
    heard.lock().expect("no panic").last().cloned().expect("something was sent")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_measured_by_opentelemetrys_names_and_the_last_ones_are_sent_at_the_end() {
    let (url, heard) = collector(0).await;
    // An hour between two exports: whatever comes, comes at the end.
    let (worker, folder) = exporting(
        &["--otlp-endpoint", &url],
        &[
            ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-hive=honey-7"),
        ],
    )
    .await;
    let text =
        json!({"prompt": "hi", "max_tokens": 7, "temperature": 0, "repetition_penalty": 0.1});
    let frames = worker.execute(&text).await;
    let out = frames.last().expect("frames").data["tokens_out"].as_u64().expect("a number");
    let chat = json!({"messages": [{"role": "user", "content": "hum"}], "max_tokens": 2});
    worker.execute(&chat).await;
    let late = json!({"prompt": "hi", "max_tokens": 400, "temperature": 0, "timeout_ms": 1,
        "repetition_penalty": 0.1});
    assert_eq!(worker.execute(&late).await.last().expect("frames").data["code"], "TIMEOUT");
    let port = worker.url("").rsplit(':').next().expect("a port").to_owned();
    assert_eq!(worker.post("/shutdown", &json!({})).await.status(), 202);
    let (status, stderr, _) = worker.ended();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    let (head, request) = last(&heard);
    assert!(head.starts_with("post /v1/metrics http/1.1"), "{head}");
    assert!(head.contains("x-hive: honey-7"), "{head}");
    let resource = request.resource_metrics[0].resource.as_ref().expect("whose they are");
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "rbees-workerd");
    assert_eq!(resource["service.instance.id"], "bee-1");

    let (unit, durations) = points(&request, "gen_ai.server.request.duration");
    assert_eq!(unit, "s");
    let of = |points: &[HistogramDataPoint], wanted: &[(&str, &str)]| -> HistogramDataPoint {
        let is = |point: &&HistogramDataPoint| {
            let found = attributes(&point.attributes);
            wanted.iter().all(|(key, value)| found.get(*key).is_some_and(|v| v == value))
        };
        let found: Vec<_> = points.iter().filter(is).collect();
        assert_eq!(found.len(), 1, "{wanted:?} in {points:?}");
        found[0].clone()
    };
    let good = durations.iter().find(|point| {
        let found = attributes(&point.attributes);
        !found.contains_key("error.type") && found["gen_ai.operation.name"] == "text_completion"
    });
    let good = good.expect("one that ended well");
    let found = attributes(&good.attributes);
    assert_eq!((good.count, found["server.port"].as_str()), (1, port.as_str()));
    assert_eq!(found["gen_ai.provider.name"], "rbees-workerd");
    assert_eq!(found["gen_ai.request.model"], found["gen_ai.response.model"]);
    assert_eq!(
        good.explicit_bounds.first().zip(good.explicit_bounds.last()),
        Some((&0.01, &81.92))
    );
    assert_eq!(of(&durations, &[("error.type", "timeout")]).count, 1);
    assert_eq!(of(&durations, &[("gen_ai.operation.name", "chat")]).count, 1);

    let completion = [("gen_ai.operation.name", "text_completion")];
    let (unit, first) = points(&request, "gen_ai.server.time_to_first_token");
    let first = of(&first, &completion);
    assert_eq!((unit.as_str(), first.count, first.explicit_bounds.len()), ("s", 1, 16));
    let (_, each) = points(&request, "gen_ai.server.time_per_output_token");
    let each = of(&each, &completion);
    assert_eq!((each.count, each.explicit_bounds.len()), (1, 13));
    // First token and all others: no longer than the whole.
    let whole = good.sum.expect("a sum");
    let parts = first.sum.expect("a sum") + each.sum.expect("a sum") * (out - 1) as f64;
    assert!(parts > 0.0 && parts <= whole + 1e-9, "{parts} of {whole}");
    let (unit, tokens) = points(&request, "gen_ai.client.token.usage");
    let output = of(&tokens, &[completion[0], ("gen_ai.token.type", "output")]);
    assert_eq!((unit.as_str(), output.count), ("{token}", 2), "the late one's count too");
    assert!(output.sum >= Some(out as f64), "{output:?}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_is_logged_once_and_told_of_no_secret() {
    let (url, heard) = collector(3).await;
    let (worker, folder) = exporting(
        &[],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), // the other one wins
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &format!("{url}/in?key=honey-42")),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ],
    )
    .await;
    let done = worker.execute(&json!({"prompt": "hi", "max_tokens": 3})).await;
    assert_eq!(done.last().expect("frames").event, "end");
    let until = Instant::now() + Duration::from_secs(120);
    while heard.lock().expect("no panic").is_empty() {
        assert!(Instant::now() < until, "nothing was sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.signal("TERM");
    let (status, stderr, told) = worker.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(last(&heard).0.starts_with("post /in?key=honey-42 http/1.1"), "as it was given");
    let fails = stderr.lines().filter(|line| line.contains("does not take")).count();
    let works = stderr.lines().filter(|line| line.contains("takes what is measured again")).count();
    assert_eq!((fails, works), (1, 1), "{stderr}");
    assert!(!stderr.contains("honey-42") && !format!("{told:?}").contains("honey-42"), "{stderr}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_keeps_no_worker() {
    // It takes connections, and nothing else.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (worker, folder) =
        exporting(&["--otlp-endpoint", &url], &[("OTEL_METRIC_EXPORT_INTERVAL", "50")]).await;
    for _ in 0..5 {
        let done = worker.execute(&json!({"prompt": "hi", "max_tokens": 3})).await;
        assert_eq!(done.last().expect("frames").event, "end");
    }
    let metrics = worker.client.get(worker.url("/metrics")).send().await.expect("it answers");
    assert_eq!(metrics.status(), 200);
    worker.signal("TERM");
    let (status, stderr, _) = worker.ended(); // though its last export never ends
    assert_eq!(status.code(), Some(0), "{stderr}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[test]
fn a_collectors_url_with_a_secret_is_refused_without_repeating_it() {
    for (name, value) in [
        ("RBEES_OTLP_ENDPOINT", "http://bee:honey-42@hive.example"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://bee:honey-42@hive.example"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "hive honey-42"),
    ] {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--model", "none.gguf"]).env(name, value);
        let (status, stderr, _) = Worker::run(&mut command).ended();
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(!stderr.contains("honey-42") && stderr.to_lowercase().contains("otlp"), "{stderr}");
    }
}
