//! What requests may say, as the contract shows it. They are read field by field elsewhere; a test
//! holds both together. Never used to read a request.

use std::collections::BTreeMap;

use utoipa::ToSchema;

use crate::job::OnDisconnect;

/// A request with the fields that choose tokens: the same for every endpoint, but for whether they
/// may be null.
macro_rules! sampled {
    (nullable = $null:tt; $(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        #[derive(ToSchema)]
        $(#[$meta])*
        pub struct $name {
            $($fields)*
            /// 0 always takes the likeliest.
            #[schema(nullable = $null, minimum = 0, maximum = 2, default = 1)]
            pub temperature: Option<f64>,
            /// Smallest set of tokens whose probabilities sum up to this.
            #[schema(nullable = $null, minimum = 0, maximum = 1, default = 1)]
            pub top_p: Option<f64>,
            /// Number of likeliest tokens considered, up to the vocabulary's size; 0: all.
            #[schema(nullable = $null, minimum = 0, default = 0)]
            pub top_k: Option<u32>,
            /// Least probability relative to the likeliest token's.
            #[schema(nullable = $null, minimum = 0, maximum = 1, default = 0)]
            pub min_p: Option<f64>,
            /// Divides the logits of tokens that were there before.
            #[schema(nullable = $null, minimum = 0, maximum = 2, default = 1)]
            pub repetition_penalty: Option<f64>,
        }
    };
}

sampled! {
    nullable = false;
    /// One inference: a `prompt` or `messages`, and how far to go.
    #[serde(deny_unknown_fields)]
    pub struct ExecuteRequest {
        /// Name for the job; made up where none is given. 409 while one of that name is known.
        #[schema(nullable = false, pattern = "^[A-Za-z0-9._:-]{1,256}$")]
        pub job_id: Option<String>,
        /// Text to continue. Either this or `messages`.
        #[schema(nullable = false, min_length = 1, max_length = 32768, example = "The capital of France is")]
        pub prompt: Option<String>,
        /// A conversation, for the model's own chat template. Either this or `prompt`.
        #[schema(nullable = false, min_items = 1, max_items = 512)]
        pub messages: Option<Vec<Message>>,
        /// Tokens that may be generated; with the prompt's they have to fit the context.
        #[schema(minimum = 1, maximum = 4096, example = 6)]
        pub max_tokens: u32,
        /// Strings that end the text; no part of a match is sent.
        #[schema(nullable = false, max_items = 4)]
        pub stop: Option<Vec<StopString>>,
        /// Where the draws start; drawn and told in `started` where it is not given.
        #[schema(nullable = false)]
        pub seed: Option<u64>,
        /// What becomes of the job when its last reader is gone. `cancel` where it is not given.
        #[schema(nullable = false)]
        pub on_disconnect: Option<OnDisconnect>,
        /// Deadline of the whole job, waiting included, ms.
        #[schema(nullable = false, minimum = 1, maximum = 3_600_000)]
        pub timeout_ms: Option<u64>,
        /// Tokens between two progress narrations; 0: none. 10 where it is not given.
        #[schema(nullable = false, maximum = 4096)]
        pub progress_every: Option<u32>,
    }
}

/// A string that ends a text.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 32)]
pub struct StopString(pub String);

/// One message of a conversation. Control marks in it are plain text.
#[derive(ToSchema)]
pub struct Message {
    /// Who speaks; `developer` is the newer name of `system`.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

/// Who speaks.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// Text, or pieces of text.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum Content {
    Whole(String),
    Pieces(Vec<Piece>),
}

/// A piece of text.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    pub r#type: PieceType,
    pub text: String,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PieceType {
    Text,
}

/// Which job to end.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Its name.
    pub job_id: String,
}

sampled! {
    nullable = true;
    /// A chat, as OpenAI's clients ask for it. Fields of theirs that are not listed are refused unless they
    /// ask for nothing; docs/http.md has the list.
    pub struct ChatRequest {
        /// The model's name, as in `/v1/models`.
        pub model: String,
        /// The conversation.
        #[schema(min_items = 1, max_items = 512)]
        pub messages: Vec<Message>,
        /// Tokens that may be generated. Where it is not given: what is left beside the prompt of one
        /// slot's share of the KV cache, which `request-accepted` tells.
        #[schema(minimum = 1, maximum = 4096)]
        pub max_completion_tokens: Option<u32>,
        /// The older name of the same.
        #[schema(minimum = 1, maximum = 4096)]
        pub max_tokens: Option<u32>,
        /// A string that ends the text, or up to four of them.
        pub stop: Option<Texts>,
        /// Where the draws start.
        pub seed: Option<i64>,
        /// Whether the answer comes in chunks.
        pub stream: Option<bool>,
        /// What comes with the chunks.
        pub stream_options: Option<StreamOptions>,
        /// Whether it is told how likely each token was.
        pub logprobs: Option<bool>,
        /// How many likeliest tokens are told beside each.
        #[schema(minimum = 0, maximum = 20)]
        pub top_logprobs: Option<u32>,
        /// Added to the logits of tokens, by their numbers: from -100 to 100.
        pub logit_bias: Option<BTreeMap<String, f32>>,
        /// What the text has to be.
        pub response_format: Option<ResponseFormat>,
        /// Deadline of the whole job, waiting included, ms. Not OpenAI's.
        #[schema(minimum = 1, maximum = 3_600_000)]
        pub timeout_ms: Option<u64>,
    }
}

sampled! {
    nullable = true;
    /// A text completion, as OpenAI's clients ask for it.
    pub struct CompletionRequest {
        /// The model's name, as in `/v1/models`.
        pub model: String,
        /// Text to continue, or a list of one text.
        pub prompt: Texts,
        /// Tokens that may be generated; 16 where it is not given.
        #[schema(minimum = 1, maximum = 4096)]
        pub max_tokens: Option<u32>,
        /// A string that ends the text, or up to four of them.
        pub stop: Option<Texts>,
        /// Where the draws start.
        pub seed: Option<i64>,
        /// Whether the answer comes in chunks.
        pub stream: Option<bool>,
        /// What comes with the chunks.
        pub stream_options: Option<StreamOptions>,
        /// How many likeliest tokens are told beside each, and how likely they were.
        #[schema(minimum = 0, maximum = 5)]
        pub logprobs: Option<u32>,
        /// Added to the logits of tokens, by their numbers: from -100 to 100.
        pub logit_bias: Option<BTreeMap<String, f32>>,
        /// Deadline of the whole job, waiting included, ms. Not OpenAI's.
        #[schema(minimum = 1, maximum = 3_600_000)]
        pub timeout_ms: Option<u64>,
    }
}

/// One text, or several.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum Texts {
    One(String),
    Many(Vec<String>),
}

/// What comes with the chunks.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// A last chunk that counts tokens.
    pub include_usage: Option<bool>,
    /// The request's narrations, in chunks of their own. Not OpenAI's; `X-Narration: sse` asks the same.
    pub include_narration: Option<bool>,
}

/// What a text has to be.
#[derive(ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Anything.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema(SchemaFormat),
}

/// JSON that a schema describes.
#[derive(ToSchema)]
pub struct SchemaFormat {
    pub json_schema: NamedSchema,
}

/// A schema with its name.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedSchema {
    /// A name; changes nothing.
    pub name: String,
    /// A description; changes nothing.
    pub description: Option<String>,
    /// The text is held to the schema either way.
    pub strict: Option<bool>,
    /// A JSON Schema; what of it can't be honoured is refused.
    #[schema(value_type = Object)]
    pub schema: (),
}
