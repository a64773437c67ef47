//! A job's events as the chunks of a streamed answer. No ids, no event names, no `retry:`: several of
//! OpenAI's clients break on them. Ends with `[DONE]`, after an error too.

use axum::body::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::request::Answer;
use super::wire::{
    ChatChunk, ChatLogprobs, ChunkChoice, Completion, CompletionChoice, CompletionLogprobs, Delta,
    ErrorBody, ErrorObject, FinishReason, Usage,
};
use super::{Endpoint, Head};
use crate::delivery::Event;
use crate::delivery::event::{End, Failure, StopReason, Token, TokenLogprob};
use crate::http::stream::Form;

/// The stream of one answer.
pub struct Chunks {
    head: Head,
    answer: Answer,
    /// Where the next token begins in the text, characters.
    offset: usize,
}

/// What one chunk says.
#[derive(Default)]
struct Piece<'a> {
    first: bool,
    text: Option<&'a str>,
    logprobs: &'a [TokenLogprob],
    reason: Option<FinishReason>,
    narration: Option<&'a RawValue>,
}

impl Chunks {
    /// The form of one answer's stream.
    pub fn new(head: Head, answer: Answer) -> Self {
        Chunks { head, answer, offset: 0 }
    }

    fn chunk(&mut self, piece: Piece<'_>) -> Vec<u8> {
        // Where usage is to come, every chunk before it says that it has none.
        let usage = self.answer.usage.then_some(None);
        let told = !piece.logprobs.is_empty();
        match self.head.endpoint {
            Endpoint::Chat => {
                let delta = Delta { role: piece.first.then_some("assistant"), content: piece.text };
                let logprobs = told.then(|| {
                    let mut logprobs = ChatLogprobs::default();
                    logprobs.extend(piece.logprobs);
                    logprobs
                });
                let choice = ChunkChoice { index: 0, delta, logprobs, finish_reason: piece.reason };
                self.chat(vec![choice], usage, piece.narration)
            }
            Endpoint::Completions => {
                let logprobs = told.then(|| {
                    let mut logprobs = CompletionLogprobs::default();
                    self.offset = logprobs.extend(piece.logprobs, self.offset);
                    logprobs
                });
                let choice = CompletionChoice {
                    text: piece.text.unwrap_or(""),
                    index: 0,
                    logprobs,
                    finish_reason: piece.reason,
                };
                self.text(vec![choice], usage, piece.narration)
            }
        }
    }

    fn chat(
        &self,
        choices: Vec<ChunkChoice<'_>>,
        usage: Option<Option<Usage>>,
        narration: Option<&RawValue>,
    ) -> Vec<u8> {
        let Head { id, model, created, .. } = &self.head;
        let object = "chat.completion.chunk";
        block(&ChatChunk { id, object, created: *created, model, choices, usage, narration })
    }

    fn text(
        &self,
        choices: Vec<CompletionChoice<'_>>,
        usage: Option<Option<Usage>>,
        narration: Option<&RawValue>,
    ) -> Vec<u8> {
        let Head { id, model, created, .. } = &self.head;
        let object = "text_completion";
        block(&Completion { id, object, created: *created, model, choices, usage, narration })
    }

    fn end(&mut self, end: &End) -> Vec<u8> {
        let reason = Some(finish_reason(end.stop_reason));
        let mut bytes = self.chunk(Piece { reason, ..Piece::default() });
        if self.answer.usage {
            let usage = Some(Some(usage(&self.head, end.tokens_out)));
            bytes.extend(match self.head.endpoint {
                Endpoint::Chat => self.chat(Vec::new(), usage, None),
                Endpoint::Completions => self.text(Vec::new(), usage, None),
            });
        }
        bytes.extend_from_slice(DONE);
        bytes
    }
}

const DONE: &[u8] = b"data: [DONE]\n\n";

fn block(chunk: &impl Serialize) -> Vec<u8> {
    let mut bytes = b"data: ".to_vec();
    if let Err(error) = serde_json::to_writer(&mut bytes, chunk) {
        tracing::error!(%error, "a chunk could not be written as JSON");
    }
    bytes.extend_from_slice(b"\n\n");
    bytes
}

fn broken(failure: &Failure) -> Vec<u8> {
    let code = failure.code.name();
    let (message, kind) = (failure.message.as_str(), "server_error");
    let error = ErrorObject { message, r#type: kind, param: None, code: Some(code) };
    let mut bytes = block(&ErrorBody { error, narration: None });
    bytes.extend_from_slice(DONE);
    bytes
}

/// Why a text ended, in OpenAI's words.
pub const fn finish_reason(reason: StopReason) -> FinishReason {
    match reason {
        StopReason::MaxTokens => FinishReason::Length,
        StopReason::StopSequence | StopReason::Eos => FinishReason::Stop,
    }
}

/// Tokens counted.
pub const fn usage(head: &Head, completion_tokens: u32) -> Usage {
    let prompt_tokens = head.prompt_tokens;
    let total_tokens = prompt_tokens.saturating_add(completion_tokens);
    Usage { prompt_tokens, completion_tokens, total_tokens }
}

impl Form for Chunks {
    fn event(&mut self, _: usize, event: &Event) -> Option<Bytes> {
        let bytes = match event {
            // Something goes out right after the headers, whatever the queue is like.
            Event::Started(_) => {
                self.chunk(Piece { first: true, text: Some(""), ..Piece::default() })
            }
            Event::Token(Token { t, logprobs, .. }) => {
                self.chunk(Piece { text: Some(t), logprobs, ..Piece::default() })
            }
            Event::Narration(json) if self.answer.narration => {
                let narration = serde_json::from_str::<&RawValue>(json).ok();
                self.chunk(Piece { narration, ..Piece::default() })
            }
            Event::Narration(_) | Event::Metrics(_) => return None,
            Event::End(end) => self.end(end),
            Event::Error(failure) => broken(failure),
        };
        Some(Bytes::from(bytes))
    }

    fn ping(&self) -> &'static [u8] {
        b": ping\n\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::event::{Code, Metrics};

    fn head(endpoint: Endpoint) -> Head {
        let (id, model) = ("id".to_owned(), "m".to_owned());
        Head { endpoint, id, created: 7, model, prompt_tokens: 3 }
    }

    fn answer(usage: bool, narration: bool) -> Answer {
        Answer { model: "m".into(), stream: true, usage, narration, logprobs: false }
    }

    fn check(form: &mut Chunks, event: &Event, expected: Option<&str>) {
        let bytes = form.event(9, event).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(bytes.as_deref(), expected);
    }

    fn end() -> Event {
        Event::End(End {
            tokens_out: 2,
            decode_time_ms: 1.0,
            stop_reason: StopReason::MaxTokens,
            stop_sequence_matched: None,
        })
    }

    #[test]
    fn chunks_are_whole_and_as_clients_bear_them() {
        let mut form = Chunks::new(head(Endpoint::Chat), answer(false, false));
        let token = Event::Token(Token { t: "a\n".into(), i: 0, logprobs: Vec::new() });
        check(
            &mut form,
            &token,
            Some(
                "data: {\"id\":\"id\",\"object\":\"chat.completion.chunk\",\"created\":7,\
                 \"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\n\"},\
                 \"logprobs\":null,\"finish_reason\":null}]}\n\n",
            ),
        );
        // What this form does not show is silence, and the sign of life a whole comment block.
        check(&mut form, &Event::Narration("{}".into()), None);
        let metrics = Metrics { tokens_per_sec: 1.0, resident_bytes: 1 };
        check(&mut form, &Event::Metrics(metrics), None);
        assert_eq!(form.ping(), b": ping\n\n");
        let failure = Failure { code: Code::Timeout, message: "late".into(), retriable: true };
        check(
            &mut form,
            &Event::Error(failure),
            Some(
                "data: {\"error\":{\"message\":\"late\",\"type\":\"server_error\",\"param\":null,\
                 \"code\":\"TIMEOUT\"}}\n\ndata: [DONE]\n\n",
            ),
        );
    }

    #[test]
    fn the_end_says_why_then_counts_then_is_done() {
        let mut form = Chunks::new(head(Endpoint::Completions), answer(true, false));
        let bytes = form.event(9, &end()).expect("the end is shown");
        let text = String::from_utf8_lossy(&bytes);
        let blocks: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(blocks.len(), 3, "{text}");
        assert!(blocks[0].contains("\"finish_reason\":\"length\"}],\"usage\":null"), "{text}");
        let usage = "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\
            \"total_tokens\":5}";
        assert!(blocks[1].contains(usage), "{text}");
        assert_eq!(blocks[2], "data: [DONE]");
    }
}
