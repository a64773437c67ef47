//! async-openai: a streamed chat.

use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::traits::RequestOptionsBuilder;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs,
};
use futures::StreamExt;
use matrix_clients::{Case, Found};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut found = Found::default();
    if let Err(error) = chat(&Case::from_command_line(), &mut found).await {
        found.note("error", error.to_string());
        found.note("raised", "OpenAIError");
    }
    found.print("async-openai");
}

async fn chat(case: &Case, found: &mut Found) -> Result<(), OpenAIError> {
    let config = OpenAIConfig::new().with_api_base(format!("{}/v1", case.url)).with_api_key("none");
    let client = async_openai::Client::with_config(config);
    let model = client.models().list().await?.data.remove(0).id;
    let message = ChatCompletionRequestUserMessage::from(case.prompt.as_str());
    #[allow(deprecated)] // as the matrix asks every client
    let request = CreateChatCompletionRequestArgs::default()
        .model(model)
        .messages([message.into()])
        .max_tokens(case.tokens)
        .temperature(0.0)
        .stream(true)
        .build()?;
    let chat = client.chat();
    let chat = if case.name == "narration" { chat.header("x-narration", "sse")? } else { chat };
    let mut stream = chat.create_stream(request).await?;
    while let Some(chunk) = stream.next().await {
        for choice in chunk?.choices {
            found.text.push_str(choice.delta.content.as_deref().unwrap_or_default());
            if let Some(reason) = choice.finish_reason {
                found.note("finish", serde_json::to_value(reason).expect("it is a word"));
            }
        }
    }
    Ok(())
}
