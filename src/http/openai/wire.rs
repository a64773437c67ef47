//! OpenAI's objects as this worker sends them. Fields that its clients expect are there even where they
//! are null. See <https://platform.openai.com/docs/api-reference/chat>.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::delivery::event::{Logprob, TokenLogprob};

/// The models that can be named in a request.
#[derive(Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// One model, once for each of its names; none while it is loading.
    pub data: Vec<ModelCard>,
}

/// A model.
#[derive(Serialize, ToSchema)]
pub struct ModelCard {
    /// Its name, for `model` in a request.
    pub id: String,
    /// Always `model`.
    #[schema(example = "model")]
    pub object: &'static str,
    /// When this worker began, seconds since 1970.
    pub created: u64,
    /// Always `rbees-workerd`.
    pub owned_by: &'static str,
    /// Longest sequence, tokens. Not OpenAI's.
    pub context_length: u32,
}

/// One chunk of a streamed chat.
#[derive(Serialize, ToSchema)]
pub struct ChatChunk<'a> {
    /// Name of the answer.
    pub id: &'a str,
    /// Always `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: &'a str,
    /// One, but for the chunk with `usage`, which has none.
    pub choices: Vec<ChunkChoice<'a>>,
    /// Tokens counted, on a chunk of its own, where `stream_options.include_usage` asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
    /// A narration of this request, where it was asked for. Not OpenAI's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub narration: Option<&'a RawValue>,
}

/// What a chunk adds.
#[derive(Serialize, ToSchema)]
pub struct ChunkChoice<'a> {
    /// Always 0.
    pub index: u32,
    /// The addition.
    pub delta: Delta<'a>,
    /// How likely its tokens were, where `logprobs` asked.
    pub logprobs: Option<ChatLogprobs>,
    /// On the last chunk: `stop` or `length`.
    pub finish_reason: Option<FinishReason>,
}

/// The addition to a message.
#[derive(Default, Serialize, ToSchema)]
pub struct Delta<'a> {
    /// `assistant`, on the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model was done, or a stop string came.
    Stop,
    /// As many tokens as were allowed.
    Length,
}

/// Tokens counted.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Usage {
    /// Of the prompt, as the template makes it.
    pub prompt_tokens: u32,
    /// Generated.
    pub completion_tokens: u32,
    /// Both.
    pub total_tokens: u32,
}

/// A whole chat answer.
#[derive(Serialize, ToSchema)]
pub struct ChatCompletion<'a> {
    /// Name of the answer.
    pub id: &'a str,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: &'a str,
    /// One.
    pub choices: [ChatChoice; 1],
    /// Tokens counted.
    pub usage: Usage,
    /// The narrations of this request, where `X-Narration: sse` asked for them. Not OpenAI's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub narration: Option<&'a RawValue>,
}

/// What was said.
#[derive(Serialize, ToSchema)]
pub struct ChatChoice {
    /// Always 0.
    pub index: u32,
    /// The message.
    pub message: ChatMessage,
    /// How likely its tokens were, where `logprobs` asked.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// The assistant's message.
#[derive(Serialize, ToSchema)]
pub struct ChatMessage {
    /// Always `assistant`.
    pub role: &'static str,
    /// What it says.
    pub content: String,
    /// Always null.
    #[schema(value_type = Option<String>)]
    pub refusal: Option<()>,
}

/// How likely the tokens of a message were.
#[derive(Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// Token by token.
    pub content: Vec<ChatLogprob>,
    /// Always null.
    #[schema(value_type = Option<Vec<ChatLogprob>>)]
    pub refusal: Option<()>,
}

/// How likely a token was.
#[derive(Serialize, ToSchema)]
pub struct ChatLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Its bytes; none for a control token.
    pub bytes: Vec<u8>,
    /// The likeliest ones in its place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that might have come.
#[derive(Serialize, ToSchema)]
pub struct TopLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Its bytes; none for a control token.
    pub bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// Adds what the delivery tells of some tokens.
    pub fn extend(&mut self, tokens: &[TokenLogprob]) {
        let top = |l: &Logprob| TopLogprob {
            token: l.text.clone(),
            logprob: l.logprob,
            bytes: l.bytes.clone(),
        };
        self.content.extend(tokens.iter().map(|TokenLogprob { chosen, top: others }| {
            ChatLogprob {
                token: chosen.text.clone(),
                logprob: chosen.logprob,
                bytes: chosen.bytes.clone(),
                top_logprobs: others.iter().map(top).collect(),
            }
        }));
    }
}

/// A text completion, whole or a chunk of it.
#[derive(Serialize, ToSchema)]
pub struct Completion<'a> {
    /// Name of the answer.
    pub id: &'a str,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: &'a str,
    /// One, but for the chunk with `usage`, which has none.
    pub choices: Vec<CompletionChoice<'a>>,
    /// Tokens counted: on the whole, or on a chunk of its own where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
    /// A narration, or on the whole all of them, where that was asked for. Not OpenAI's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Told>)]
    pub narration: Option<&'a RawValue>,
}

/// A chunk's narration, or the whole answer's.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the contract's alone: narrations go out as they were written")]
pub enum Told {
    /// On a chunk.
    One(serde_json::Map<String, serde_json::Value>),
    /// On the whole.
    All(Vec<serde_json::Map<String, serde_json::Value>>),
}

/// What a completion says.
#[derive(Serialize, ToSchema)]
pub struct CompletionChoice<'a> {
    /// The text, or what a chunk adds to it.
    pub text: &'a str,
    /// Always 0.
    pub index: u32,
    /// How likely its tokens were, where `logprobs` asked.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended; null on all chunks but the last.
    pub finish_reason: Option<FinishReason>,
}

/// How likely the tokens of a text were, in lists of equal length.
#[derive(Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// Their texts.
    pub tokens: Vec<String>,
    /// Natural logarithms of their probabilities.
    pub token_logprobs: Vec<f64>,
    /// The likeliest ones in their place, by text.
    pub top_logprobs: Vec<BTreeMap<String, f64>>,
    /// Where they begin in the text, characters.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds what the delivery tells of some tokens, the first of which begins at `offset`; returns
    /// where the next one does.
    pub fn extend(&mut self, tokens: &[TokenLogprob], mut offset: usize) -> usize {
        for TokenLogprob { chosen, top } in tokens {
            self.tokens.push(chosen.text.clone());
            self.token_logprobs.push(chosen.logprob);
            self.top_logprobs.push(top.iter().map(|l| (l.text.clone(), l.logprob)).collect());
            self.text_offset.push(offset);
            offset += chosen.text.chars().count();
        }
        offset
    }
}

/// An error, as OpenAI's clients read it.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody<'a> {
    /// What went wrong.
    pub error: ErrorObject<'a>,
    /// The narration of it, where filters route it to the user. Not OpenAI's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub narration: Option<Box<RawValue>>,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
pub struct ErrorObject<'a> {
    /// What happened, and what to do.
    pub message: &'a str,
    /// Which sort of error: `invalid_request_error`, `server_error`, ….
    #[schema(example = "invalid_request_error")]
    pub r#type: &'a str,
    /// The field to blame, if one is.
    #[schema(example = "temperature")]
    pub param: Option<&'a str>,
    /// Which error: `context_length_exceeded`, `model_not_found`, `CANCELLED`, ….
    pub code: Option<&'a str>,
}
