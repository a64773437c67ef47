//! Every bound of the worker in one place, unit last in each name, checked against each other below.
//! A queue, buffer, loop or read without a bound here is a mistake. Holds no logic.

// Narration -------------------------------------------------------------------------------------

/// Longest `human` text of a narration, characters.
pub const HUMAN_CHARS_MAX: usize = 100;
/// Longest `cute` text of a narration, characters.
pub const CUTE_CHARS_MAX: usize = 150;
/// Longest `story` text of a narration, characters.
pub const STORY_CHARS_MAX: usize = 200;
/// Longest text field inside a fact, and longest `target`, characters.
pub const FACT_CHARS_MAX: usize = 1_024;
/// Violations told of one request; more are summed up in a last one.
pub const VIOLATIONS_MAX: usize = 32;
/// Shortest time between two progress narrations of loading, ms.
pub const LOAD_PROGRESS_MS_MIN: u64 = 500;

// Filters ---------------------------------------------------------------------------------------

/// Filters in one chain.
pub const FILTERS_MAX: usize = 16;
/// Largest component file, bytes: guests that bring a language's runtime are large.
pub const FILTER_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest `filters.toml`, bytes.
pub const MANIFEST_BYTES_MAX: u64 = 256 * 1024;
/// Instances of filters at one time: of all jobs, through all chains. One of several memories counts as
/// as many.
pub const FILTER_INSTANCES_MAX: u32 = 4_096;
/// Instances beyond that for trials, so that a full house does not refuse a filter.
pub const FILTER_INSTANCES_SPARE: u32 = 32;
/// Time that one call into a filter may take unless the manifest says otherwise, ms.
pub const FILTER_CALL_MS: u64 = 10;
/// Longest time that a manifest can grant a call, ms.
pub const FILTER_CALL_MS_MAX: u64 = 1_000;
/// Time that instantiating, describing and configuring may take, ms.
pub const FILTER_START_MS: u64 = 250;
/// Memory that one filter instance may hold unless the manifest says otherwise, MiB.
pub const FILTER_MEMORY_MIB: u64 = 32;
/// Most memory that a manifest can grant an instance, MiB.
pub const FILTER_MEMORY_MIB_MAX: u64 = 128;
/// Elements of all tables together that one filter instance may hold.
pub const FILTER_TABLE_MAX: usize = 20_000;
/// Memories of one filter instance; guests of several modules share one.
pub const FILTER_MEMORIES_MAX: u32 = 2;
/// Tables of one filter instance.
pub const FILTER_TABLES_MAX: u32 = 8;
/// Core instances that one filter instance is linked of.
pub const FILTER_CORE_INSTANCES_MAX: u32 = 64;
/// What the host keeps for one instance beside its memories and tables, bytes.
pub const FILTER_STATE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Handles of WASI's stand-ins that one instance may hold.
pub const FILTER_HANDLES_MAX: u32 = 1_024;
/// Random bytes that one call to WASI gives, bytes.
pub const FILTER_RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that a guest is told it may write to its stderr or stdout at once.
pub const FILTER_WRITE_BYTES_MAX: u64 = 4 * 1024;
/// What one call may return or pass to an import, bytes (strings and lists, lifted).
pub const FILTER_RETURN_BYTES_MAX: usize = 1024 * 1024;
/// Generated text that a filter may take in without giving any out, bytes.
pub const FILTER_TEXT_HELD_BYTES_MAX: usize = 64 * 1024;
/// Differences of a shadow filter that are kept to be looked at.
pub const SHADOW_SAMPLES_MAX: usize = 16;
/// Failures in a row after which a filter is quarantined.
pub const FILTER_FAILURES_MAX: u32 = 3;
/// Length of a line that a filter logs, characters.
pub const FILTER_LOG_CHARS_MAX: usize = 512;
/// What of its stderr a failing filter's reason repeats, characters.
pub const FILTER_COMPLAINT_CHARS_MAX: usize = 300;
/// Lines that one instance may log.
pub const FILTER_LOG_LINES_MAX: u32 = 100;
/// Period of the epoch ticker: the resolution of every time limit on filters, ms.
pub const EPOCH_TICK_MS: u64 = 1;
/// Memory that compiling one filter may take, bytes.
pub const COMPILE_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// CPU time that compiling one filter may take, s.
pub const COMPILE_CPU_S: u64 = 120;
/// Time that compiling one filter may take, ms.
pub const COMPILE_MS: u64 = 180_000;
/// Compiled code of one filter, bytes.
pub const COMPILED_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Compiled filters kept on disk.
pub const COMPILED_FILES_MAX: usize = 64;
/// Components kept in memory that served lately.
pub const COMPONENTS_RECENT_MAX: usize = 8;
/// Links followed on the way to one file.
pub const LINKS_MAX: usize = 16;
/// Quiet time before a reload where nobody was seen to close what they wrote, ms.
pub const RELOAD_QUIET_MS: u64 = 500;
/// Quiet time after a file event before a reload, ms.
pub const RELOAD_DEBOUNCE_MS: u64 = 50;
/// Period of the poll that finds changes where no file events come, ms.
pub const RELOAD_POLL_MS: u64 = 2_000;

/// Time that a worker has to say what its chain is, ms.
pub const LIST_MS_MAX: u64 = 10_000;
/// What it says, bytes.
pub const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

// Delivery --------------------------------------------------------------------------------------

/// Threads that run filters.
pub const LANES: usize = 2;
/// Narrations waiting in one lane; more are counted as lost.
pub const LANE_FACTS_MAX: usize = 4_096;
/// Lines waiting for stdout; more are counted as lost.
pub const STDOUT_LINES_MAX: usize = 4_096;
/// Time that the last lines have to get out when the worker ends, ms.
pub const STDOUT_FLUSH_MS: u64 = 1_000;
/// Facts waiting to be recorded; more are counted as lost.
pub const RECORD_FACTS_MAX: usize = 4_096;
/// Longest line of a recording, bytes.
pub const RECORD_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Size at which a recording is set aside and a new one begun, bytes.
pub const RECORD_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Frames of one job besides its tokens and its progress narrations.
pub const FRAMES_BESIDE_TOKENS_MAX: usize = 4_096;
/// Time that an answer waits for its narration to be worded, ms.
pub const REPLY_NARRATION_MS: u64 = 250;

// Jobs ------------------------------------------------------------------------------------------

/// Ends of jobs over which their rate is measured.
pub const ENDS_MEASURED_MAX: usize = 16;
/// Longest wait that a refused request is told of, s.
pub const RETRY_AFTER_S_MAX: u64 = 60;
/// Jobs waiting for the engine unless configured otherwise.
pub const QUEUE_JOBS: usize = 64;
/// Most jobs that a configuration can let wait.
pub const QUEUE_JOBS_MAX: usize = 4_096;
/// Finished jobs kept for late readers.
pub const FINISHED_JOBS_MAX: usize = 256;
/// Time that a finished job is kept, s.
pub const FINISHED_JOB_S: u64 = 300;
/// Bytes of all finished jobs' logs together.
pub const FINISHED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Deadline of a job that names none, ms.
pub const JOB_TIMEOUT_MS: u64 = 600_000;
/// Longest deadline a request can ask for, ms.
pub const JOB_TIMEOUT_MS_MAX: u64 = 3_600_000;

// Requests --------------------------------------------------------------------------------------

/// Length of a prompt, or of all messages together, characters.
pub const PROMPT_CHARS_MAX: usize = 32_768;
/// Messages of one chat.
pub const MESSAGES_MAX: usize = 512;
/// Tokens that one request may generate.
pub const OUTPUT_TOKENS_MAX: u32 = 4_096;
/// Tokens of a `/v1/completions` that names no number: OpenAI's own default.
pub const COMPLETION_TOKENS: u32 = 16;
/// Tokens that a chat which names no number may generate at least, where its context has them.
pub const OPEN_TOKENS_MIN: u32 = 256;
/// Likeliest tokens told beside each of a `/v1/completions`: OpenAI's own bound.
pub const COMPLETION_LOGPROBS_MAX: u32 = 5;
/// Length of a model's name, as it is shown and as a request names it, characters.
pub const MODEL_NAME_CHARS_MAX: usize = 256;
/// Entries of a request's `metadata`.
pub const METADATA_MAX: usize = 16;
/// Names that a configuration can give the model besides its own.
pub const MODEL_ALIASES_MAX: usize = 32;
/// Tokens between two progress narrations unless asked otherwise.
pub const PROGRESS_EVERY_TOKENS: u32 = 10;
/// Stop strings of one request.
pub const STOP_STRINGS_MAX: usize = 4;
/// Length of a stop string, characters.
pub const STOP_CHARS_MAX: usize = 32;
/// Alternatives told of with each token's log probability.
pub const LOGPROBS_MAX: u32 = 20;
/// Tokens whose logits one request may bias.
pub const LOGIT_BIAS_MAX: usize = 1_024;
/// What a request may add to a logit, or take from it.
pub const LOGIT_BIAS_ABS_MAX: f32 = 100.0;
/// JSON schema of a request, bytes as written without white space.
pub const GRAMMAR_BYTES_MAX: usize = 64 * 1024;
/// Time that compiling a schema may take, ms.
pub const GRAMMAR_MS_MAX: u64 = 2_000;
/// Schemas compiled at one time, those given up on included.
pub const GRAMMAR_COMPILES_MAX: usize = 4;
/// Stack of the thread that compiles a schema, bytes; touched only as far as used.
pub const GRAMMAR_STACK_BYTES: usize = 16 * 1024 * 1024;
/// Work for building the lexer of a schema, nodes (about 50,000 a ms).
pub const GRAMMAR_COMPILE_FUEL: u64 = 1_000_000;
/// Work for finding the tokens that may come next, lexer nodes (about 14,000 a ms).
pub const GRAMMAR_STEP_FUEL: u64 = 100_000;
/// Work for finding the tokens that may come next, parser items (about 20,000 a ms).
pub const GRAMMAR_STEP_ITEMS_MAX: usize = 50_000;
/// States of a schema's lexer (1 to 2 KiB each).
pub const GRAMMAR_STATES_MAX: usize = 20_000;
/// Symbols of a schema's grammar.
pub const GRAMMAR_SYMBOLS_MAX: usize = 200_000;
/// Why a schema can't be honoured, characters.
pub const REASON_CHARS_MAX: usize = 200;
/// Length of a job id, bytes.
pub const JOB_ID_BYTES_MAX: usize = 256;
/// Length of a correlation id, bytes.
pub const CORRELATION_ID_BYTES_MAX: usize = 128;
/// Body of a request, bytes: the longest prompt with every character escaped, and the rest.
pub const BODY_BYTES_MAX: usize = PROMPT_CHARS_MAX * 12 + 64 * 1024;

// HTTP ------------------------------------------------------------------------------------------

/// Open connections.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Time in which a request's headers have to arrive, ms.
pub const HEADERS_MS_MAX: u64 = 10_000;
/// Time in which a request's body has to arrive, ms.
pub const BODY_MS_MAX: u64 = 10_000;
/// Bytes of a request's path and query.
pub const URI_BYTES_MAX: usize = 8_192;
/// Bytes of a request's headers.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// Time after which a client is let go that reads nothing, unless configured otherwise, ms.
pub const READER_STALL_MS: u64 = 15_000;
/// Shortest such time that a configuration can set, ms.
pub const READER_STALL_MS_MIN: u64 = 1_000;
/// Longest such time that a configuration can set, ms.
pub const READER_STALL_MS_MAX: u64 = 600_000;
/// What the system may hold of an answer for a client that does not read, bytes; it takes twice that.
pub const SEND_BUFFER_BYTES: u32 = 128 * 1024;
/// Connections that wait to be accepted.
pub const BACKLOG_MAX: u32 = 1_024;
/// Violations that an answer names; more are summed up in a last one.
pub const VIOLATIONS_SHOWN_MAX: usize = 256;
/// Time between two sortings of what was measured, ms.
pub const METRICS_TIDY_MS: u64 = 5_000;
/// Silence on a stream after which a sign of life is sent unless configured otherwise, ms.
pub const KEEP_ALIVE_MS: u64 = 10_000;
/// Shortest such time that a configuration can set, ms.
pub const KEEP_ALIVE_MS_MIN: u64 = 100;
/// Longest such time that a configuration can set, ms.
pub const KEEP_ALIVE_MS_MAX: u64 = 300_000;
/// What a stream tells a browser about reconnecting, ms.
pub const RETRY_MS: u64 = 1_000;

// Engine ----------------------------------------------------------------------------------------

/// GGUF: metadata entries.
pub const GGUF_ENTRIES_MAX: u64 = 4_096;
/// GGUF: tensors.
pub const GGUF_TENSORS_MAX: u64 = 16_384;
/// GGUF: bytes of a metadata key (the format's own bound).
pub const GGUF_KEY_BYTES_MAX: u64 = 65_535;
/// GGUF: bytes of a tensor's name (the format allows 64).
pub const GGUF_TENSOR_NAME_BYTES_MAX: u64 = 256;
/// GGUF: alignment that a file may ask for, bytes.
pub const GGUF_ALIGNMENT_BYTES_MAX: u64 = 4_096;
/// Piece of a model file's text that an error repeats, characters.
pub const SHOWN_CHARS_MAX: usize = 64;
/// GGUF: dimensions of a tensor.
pub const GGUF_DIMENSIONS_MAX: u32 = 4;
/// GGUF: bytes of one string.
pub const GGUF_STRING_BYTES_MAX: u64 = 1024 * 1024;
/// GGUF: elements of one array.
pub const GGUF_ARRAY_MAX: u64 = 2 * 1024 * 1024;
/// GGUF: bytes of the whole header.
pub const GGUF_HEADER_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// safetensors: bytes of the header.
pub const SAFETENSORS_HEADER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// safetensors: bytes of an index of files.
pub const SAFETENSORS_INDEX_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files that the weights of one model may lie in.
pub const MODEL_SHARDS_MAX: usize = 512;
/// Bytes of a folder's `config.json`, and of the other small files beside it.
pub const CONFIG_JSON_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a folder's `tokenizer.json`.
pub const TOKENIZER_JSON_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What is read of a tensor at one time while it is packed, bytes; at least a row.
pub const LOAD_SLAB_BYTES: u64 = 4 * 1024 * 1024;
/// Tokens that one block of the KV cache holds.
pub const KV_BLOCK_TOKENS: usize = 32;
/// Layers of a model.
pub const MODEL_LAYERS_MAX: usize = 512;
/// Numbers that stand for a token between a model's layers.
pub const MODEL_WIDTH_MAX: usize = 64 * 1024;
/// Numbers in the middle of a feed-forward part.
pub const MODEL_FEED_FORWARD_MAX: usize = 512 * 1024;
/// Heads of a model.
pub const MODEL_HEADS_MAX: usize = 1_024;
/// Numbers of one head.
pub const MODEL_HEAD_WIDTH_MAX: usize = 1_024;
/// Tokens that a model may know.
pub const MODEL_VOCABULARY_MAX: usize = 2 * 1024 * 1024;
/// Numbers of one vector of a model: of a norm, of what is added to a product.
pub const MODEL_VECTOR_MAX: usize = MODEL_FEED_FORWARD_MAX * 2;
/// Longest sequence that a model may be made for, tokens.
pub const CONTEXT_TOKENS_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a chat template's source.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// Nesting of a chat template's source: brackets, blocks and operators in a row.
pub const TEMPLATE_DEPTH_MAX: usize = 64;
/// Instructions that rendering a chat template may take.
pub const TEMPLATE_FUEL: u64 = 300_000;
/// Bytes that a rendered chat may have.
pub const TEMPLATE_OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Stack of the thread that compiles or renders a chat template, bytes; touched only as far as used.
pub const TEMPLATE_STACK_BYTES: usize = 16 * 1024 * 1024;
/// Tokens of one tag of a chat template: bounds the depth of an expression, whose operators nest.
pub const TEMPLATE_TAG_TOKENS_MAX: usize = 1_024;
/// Additions in one tag of a chat template: each may join two values of the largest size.
pub const TEMPLATE_TAG_ADDITIONS_MAX: usize = 64;
/// Parts that a value of a chat template may have, however deep; the longest chat has 2,561.
pub const TEMPLATE_NODES_MAX: usize = 4_096;
/// Levels of lists in lists, or maps, in a value of a chat template.
pub const TEMPLATE_LEVELS_MAX: usize = 16;
/// Indentation that a chat template may ask for, characters.
pub const TEMPLATE_INDENT_MAX: usize = 16;
/// Length of a date's format in a chat template, bytes.
pub const TEMPLATE_DATE_FORMAT_BYTES_MAX: usize = 64;
/// Time that rendering a chat template may take, ms: comparing large values costs next to no fuel.
pub const TEMPLATE_MS_MAX: u64 = 2_000;
/// Requests computed at one time unless configured otherwise.
pub const SLOTS: usize = 8;
/// Most such requests that a configuration can ask for.
pub const SLOTS_MAX: usize = 256;
/// Memory for keys and values unless configured otherwise, MiB.
pub const KV_MIB: u64 = 512;
/// Most such memory that a configuration can ask for, MiB.
pub const KV_MIB_MAX: u64 = 1024 * 1024;
/// Tokens of prompts that one step computes, as long as it is not known how fast that is.
pub const PREFILL_CHUNK_TOKENS: usize = 32;
/// Fewest that it computes however slow the machine is.
pub const PREFILL_CHUNK_TOKENS_MIN: usize = 16;
/// Most that it computes however fast the machine is.
pub const PREFILL_CHUNK_TOKENS_MAX: usize = 512;
/// Time that a step with prompts may take while nobody decodes, ms: newcomers and cancellations wait.
pub const PREFILL_ALONE_MS: u64 = 80;
/// Time that it may take while others decode, ms: their next token waits.
pub const PREFILL_BESIDE_MS: u64 = 15;

/// Shortest time between two progress narrations of one prompt, ms.
pub const PREFILL_PROGRESS_MS_MIN: u64 = 500;
/// Time that one step may take before the worker counts as stalled unless configured otherwise, ms.
pub const STALL_MS: u64 = 30_000;
/// Longest such time that a configuration can set, ms.
pub const STALL_MS_MAX: u64 = 600_000;

// Hub -------------------------------------------------------------------------------------------

/// Time in which a connection to a hub has to stand, ms.
pub const HUB_CONNECT_MS: u64 = 10_000;
/// Silence after which a download counts as broken off, ms.
pub const HUB_READ_MS: u64 = 30_000;
/// Bytes of a repository's listing.
pub const HUB_LISTING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Files in a repository's listing.
pub const HUB_FILES_MAX: usize = 16_384;
/// Bytes of a file's path in a repository.
pub const HUB_FILE_NAME_BYTES_MAX: usize = 512;
/// Tries of one download; each continues where the last broke off.
pub const HUB_TRIES_MAX: u32 = 5;
/// First wait between two tries of a download; doubles each time, ms.
pub const HUB_BACKOFF_MS: u64 = 250;

// Worker ----------------------------------------------------------------------------------------

/// Time that running jobs have to finish at shutdown unless configured otherwise, ms.
pub const GRACE_MS: u64 = 30_000;
/// Time that the engine has after the grace to end what it runs, before it is ended without it, ms.
pub const LAST_STEP_MS: u64 = 500;
/// Time that the last metrics have to reach their collector when the worker ends, ms.
pub const OTLP_FLUSH_MS: u64 = 1_000;
/// Tries of the ready call.
pub const CALLBACK_TRIES_MAX: u32 = 5;
/// Time that one try of the ready call may take, ms.
pub const CALLBACK_TRY_MS: u64 = 5_000;
/// First wait between two tries of the ready call; doubles each time, ms.
pub const CALLBACK_BACKOFF_MS: u64 = 250;
/// Time between two heartbeats unless configured otherwise, s.
pub const HEARTBEAT_S: u64 = 30;
/// Longest such time that a configuration can set, s.
pub const HEARTBEAT_S_MAX: u64 = 3_600;
/// Period of the look whether the parent process is still there, ms.
pub const PARENT_POLL_MS: u64 = 250;
/// Port unless configured otherwise.
pub const PORT: u16 = 8_080;
/// Bytes of a configuration file.
pub const CONFIG_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a file with a token.
pub const TOKEN_FILE_BYTES_MAX: u64 = 4_096;
/// Longest name of a worker, bytes.
pub const WORKER_ID_BYTES_MAX: usize = 128;

const _: () = {
    assert!(FILTER_CALL_MS <= FILTER_CALL_MS_MAX && FILTER_CALL_MS >= EPOCH_TICK_MS);
    assert!(FILTER_MEMORY_MIB <= FILTER_MEMORY_MIB_MAX);
    // Each lane may go beyond the bound by the one that it makes while the other looks.
    assert!(FILTER_INSTANCES_SPARE as usize > (LANES + 2) * FILTER_MEMORIES_MAX as usize);
    assert!(RELOAD_DEBOUNCE_MS < RELOAD_QUIET_MS && RELOAD_QUIET_MS < RELOAD_POLL_MS);
    assert!(COMPILE_CPU_S * 1_000 < COMPILE_MS && COMPILED_BYTES_MAX > FILTER_FILE_BYTES_MAX);
    assert!(QUEUE_JOBS <= QUEUE_JOBS_MAX);
    assert!(JOB_TIMEOUT_MS <= JOB_TIMEOUT_MS_MAX);
    assert!(SLOTS <= SLOTS_MAX && KV_MIB <= KV_MIB_MAX);
    assert!(HEARTBEAT_S <= HEARTBEAT_S_MAX && CALLBACK_TRY_MS < HEARTBEAT_S * 1_000);
    assert!(URI_BYTES_MAX < HEADER_BYTES_MAX);
    assert!(RECORD_FILE_BYTES_MAX >= RECORD_LINE_BYTES_MAX as u64);
    assert!(KEEP_ALIVE_MS_MIN <= KEEP_ALIVE_MS && KEEP_ALIVE_MS <= KEEP_ALIVE_MS_MAX);
    assert!(READER_STALL_MS_MIN <= READER_STALL_MS && READER_STALL_MS <= READER_STALL_MS_MAX);
    assert!(VIOLATIONS_MAX <= VIOLATIONS_SHOWN_MAX);
    assert!(BODY_BYTES_MAX >= PROMPT_CHARS_MAX * 12);
    assert!(FILTER_RETURN_BYTES_MAX >= FACT_CHARS_MAX * VIOLATIONS_MAX * 4);
    assert!(STOP_CHARS_MAX <= PROMPT_CHARS_MAX && PREFILL_CHUNK_TOKENS_MIN > 0);
    assert!(PREFILL_CHUNK_TOKENS_MIN <= PREFILL_CHUNK_TOKENS);
    assert!(PREFILL_CHUNK_TOKENS <= PREFILL_CHUNK_TOKENS_MAX);
    assert!(GGUF_STRING_BYTES_MAX <= GGUF_HEADER_BYTES_MAX);
    assert!(TEMPLATE_OUTPUT_BYTES_MAX >= PROMPT_CHARS_MAX * 4);
};
