//! Server-sent events: what our frames become on the other side, read as the WHATWG's standard says
//! (HTML, 9.2.6). Whatever an event holds, one frame is one event.

use serde_json::Value;

use crate::delivery::event::{Code, End, Failure, Started, StopReason, Token};
use crate::delivery::{Event, frame};
use crate::narration::{Context, Narration, wire};

/// The text of each kind of event: its frame is one event, with its id and name, and what it says is
/// the text (made safe, where it is narrated).
pub fn sse(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text).into_owned();
    let (event, said, place) = event(*kind, &text);
    let name = event.name();
    for id in [1, 2] {
        let mut stream = frame::PING.to_vec();
        stream.extend_from_slice(&frame::frame(id, &event));
        let heard = hear(&stream);
        let [one] = heard.as_slice() else { panic!("{} events of one frame", heard.len()) };
        assert_eq!((one.name.as_str(), one.id.as_str()), (name, id.to_string().as_str()));
        let data: Value = serde_json::from_str(&one.data).expect("every frame holds JSON");
        assert_eq!(data["type"], name);
        assert_eq!(data.pointer(place).and_then(Value::as_str), Some(said.as_str()));
    }
}

/// An event of the text, what it has to say, and where in its JSON.
fn event(kind: u8, text: &str) -> (Event, String, &'static str) {
    let said = text.to_owned();
    match kind % 5 {
        0 => {
            let token = Token { t: said.clone(), i: u32::from(kind), logprobs: Vec::new() };
            (Event::Token(token), said, "/t")
        }
        1 => {
            let failure = Failure { code: Code::Timeout, message: said.clone(), retriable: true };
            (Event::Error(failure), said, "/message")
        }
        2 => {
            let end = End {
                tokens_out: 1,
                decode_time_ms: 0.5,
                stop_reason: StopReason::StopSequence,
                stop_sequence_matched: Some(said.clone()),
            };
            (Event::End(end), said, "/stop_sequence_matched")
        }
        3 => {
            let started = Started {
                job_id: "job".into(),
                model: said.clone(),
                started_at: wire::timestamp(0),
                seed: 7,
            };
            (Event::Started(Box::new(started)), said, "/model")
        }
        _ => {
            let mut narration = Narration::sample();
            narration.human = said;
            let line = wire::line(&Context::sample(), &narration);
            let safe = crate::narration::clean::line(text, crate::limits::HUMAN_CHARS_MAX);
            (Event::Narration(wire::event(&line).into()), safe.into_owned(), "/human")
        }
    }
}

/// One event as a client dispatches it.
#[derive(Default)]
struct Heard {
    name: String,
    id: String,
    data: String,
}

/// Every event in the stream.
fn hear(stream: &[u8]) -> Vec<Heard> {
    let text = String::from_utf8(stream.to_vec()).expect("frames are UTF-8");
    let (mut heard, mut now, mut last_id) = (Vec::new(), Heard::default(), String::new());
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                now.data.push_str(value);
                now.data.push('\n');
            }
            "event" => value.clone_into(&mut now.name),
            "id" if !value.contains('\0') => value.clone_into(&mut last_id),
            _ if line.is_empty() => {
                let Heard { name, data, .. } = std::mem::take(&mut now);
                if let Some(data) = data.strip_suffix('\n') {
                    heard.push(Heard { name, id: last_id.clone(), data: data.to_owned() });
                }
            }
            _ => {}
        }
    }
    heard
}
