//! Events as the frames of our own streams: server-sent events with ids and names. Each has `data`,
//! then `id`, then `event`, and is written whole. Knows no client and no clock.

use bytes::Bytes;

use super::event::Event;
use crate::limits::RETRY_MS;

/// The sign of life between frames. One newline only: a whole comment block would be taken for an
/// empty event by some clients.
pub const PING: &[u8] = b": ping\n";

/// The event as frame number `id`, counted from 1.
pub fn frame(id: usize, event: &Event) -> Bytes {
    let retry = if id == 1 { format!("retry: {RETRY_MS}\n") } else { String::new() };
    let (json, name) = (event.json(), event.name());
    // `data` first: some clients take an id as read as soon as its line has come.
    Bytes::from(format!("data: {json}\nid: {id}\nevent: {name}\n{retry}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::event::{Code, Failure, Token};

    #[test]
    fn frames_are_whole_and_in_the_order_that_clients_bear() {
        let text =
            frame(1, &Event::Token(Token { t: "a\n\"b".into(), i: 0, logprobs: Vec::new() }));
        assert_eq!(
            text,
            "data: {\"type\":\"token\",\"t\":\"a\\n\\\"b\",\"i\":0}\nid: 1\nevent: token\nretry: 1000\n\n"
        );
        let end =
            Event::Error(Failure { code: Code::VramOom, message: "full".into(), retriable: true });
        let text = String::from_utf8_lossy(&frame(2, &end)).into_owned();
        assert!(text.contains("\"type\":\"error\",\"code\":\"VRAM_OOM\""), "{text}");
        assert!(!text.contains("retry:"), "{text}");
        let told = Event::Narration("{\"type\":\"narration\"}".into());
        assert_eq!(frame(3, &told), "data: {\"type\":\"narration\"}\nid: 3\nevent: narration\n\n");
    }
}
