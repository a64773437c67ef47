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
