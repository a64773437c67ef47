//! reqwest with eventsource-stream: the worker's own stream.

use eventsource_stream::Eventsource;
use futures::StreamExt;
use matrix_clients::{Case, Found};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (case, mut found) = (Case::from_command_line(), Found::default());
    let body = json!({"prompt": case.prompt, "max_tokens": case.tokens, "temperature": 0});
    let request = reqwest::Client::new().post(format!("{}/execute", case.url)).json(&body);
    let response = request.send().await.expect("the worker answers");
    if response.status() == 200 {
        let mut events = response.bytes_stream().eventsource();
        let mut number = 0;
        while let Some(event) = events.next().await {
            let event = event.expect("an event");
            number += 1;
            assert_eq!(event.id, number.to_string(), "{event:?}");
            let frame: Value = serde_json::from_str(&event.data).expect("JSON");
            assert_eq!(frame["type"], event.event.as_str());
            take(&mut found, &frame);
        }
    } else {
        found.note("status", response.status().as_u16());
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        found.note("retry_after", after);
    }
    found.print("eventsource-stream");
}

fn take(found: &mut Found, frame: &Value) {
    match frame["type"].as_str() {
        Some("token") => found.text.push_str(frame["t"].as_str().unwrap_or_default()),
        Some("narration") => found.narrations += 1,
        Some("end") => found.note("finish", frame["stop_reason"].clone()),
        Some("error") => found.note("error", frame["code"].clone()),
        _ => {}
    }
}
