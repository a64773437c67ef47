"""Generated from openapi.yaml by `make clients`; not edited by hand."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict


class AcceleratorFact(TypedDict):
    """
    A graphics card is ready to compute.
    """

    ordinal: int
    """
    Which card, counted from 0.
    """
    name: str
    """
    The card's name as its driver gives it.
    """
    memory_bytes: int
    """
    Memory of the card, bytes.
    """


class BindFailedFact(TypedDict):
    """
    The address could not be bound; the worker ends.
    """

    address: str
    """
    Address asked for, `host:port`.
    """
    reason: str
    """
    Why not, and what to do.
    """


class CacheResetFact(TypedDict):
    """
    The KV cache was made ready for a prompt.
    """

    reused_tokens: int
    """
    Tokens of the prompt that were still there from before.
    """
    tokens_to_compute: int
    """
    Tokens of the prompt that have to be computed.
    """


class CallbackAttemptedFact(TypedDict):
    """
    The worker calls its pool manager.
    """

    url: str
    """
    Where it calls.
    """
    attempt: int
    """
    Which try, from 1.
    """
    memory_bytes: int
    """
    Memory of the model that the call announces, bytes.
    """


class CallbackFailedFact(TypedDict):
    """
    A call to the pool manager failed.
    """

    url: str
    """
    Where it called.
    """
    attempt: int
    """
    Which try, from 1.
    """
    status: NotRequired[int | None]
    """
    HTTP status of the answer, where there was one.
    """
    reason: str
    """
    What went wrong.
    """
    retry_in_ms: NotRequired[int | None]
    """
    Time to the next try, ms; none: gave up.
    """


class CancelRequest(TypedDict, closed=True):
    """
    Which job to end.
    """

    job_id: str
    """
    Its name.
    """


CancelledByFact: TypeAlias = Literal['client', 'disconnect', 'deadline', 'shutdown']
"""
Who ended a job before its time.
"""


class ChatMessage(TypedDict):
    """
    The assistant's message.
    """

    role: str
    """
    Always `assistant`.
    """
    content: str
    """
    What it says.
    """
    refusal: NotRequired[str | None]
    """
    Always null.
    """


Code: TypeAlias = Literal['VRAM_OOM', 'CANCELLED', 'TIMEOUT', 'INFERENCE_FAILED', 'SHUTTING_DOWN']
"""
Failures that a client tells apart.
"""


class CompletionLogprobs(TypedDict):
    """
    How likely the tokens of a text were, in lists of equal length.
    """

    tokens: list[str]
    """
    Their texts.
    """
    token_logprobs: list[float]
    """
    Natural logarithms of their probabilities.
    """
    top_logprobs: list[dict[str, float]]
    """
    The likeliest ones in their place, by text.
    """
    text_offset: list[int]
    """
    Where they begin in the text, characters.
    """


class CpuFact(TypedDict):
    """
    The CPU is ready to compute.
    """

    threads: int
    """
    Threads the engine computes with.
    """
    instruction_set: str
    """
    The widest instruction set in use, e.g. `avx512-vnni`, `avx2`, `neon`.
    """


class Decided(TypedDict):
    """
    What became of the narrations of one kind.
    """

    kind: str
    """
    Kind of the fact.
    """
    stdout: int
    """
    Went to stdout.
    """
    sse: int
    """
    Went to the stream of its request.
    """
    dropped: int
    """
    Went nowhere.
    """
    withheld: int
    """
    Was withheld, since a filter failed.
    """


class Delta(TypedDict):
    """
    The addition to a message.
    """

    role: NotRequired[str | None]
    """
    `assistant`, on the first chunk.
    """
    content: NotRequired[str | None]
    """
    Text.
    """


class Difference(TypedDict):
    """
    What a shadow would have changed of one narration.
    """

    sequence: int
    """
    Sequence number of the narration; 0: of generated text.
    """
    kind: str
    """
    Kind of the fact, or `text`.
    """
    changed: list[str]
    """
    What would be other: `fact`, `target`, `sinks`, `human`, `cute`, `story`, `text`.
    """


class ErrorObject(TypedDict):
    """
    What went wrong.
    """

    message: str
    """
    What happened, and what to do.
    """
    type: str
    """
    Which sort of error: `invalid_request_error`, `server_error`, ….
    """
    param: NotRequired[str | None]
    """
    The field to blame, if one is.
    """
    code: NotRequired[str | None]
    """
    Which error: `context_length_exceeded`, `model_not_found`, `CANCELLED`, ….
    """


Fact2 = TypedDict(
    'Fact2',
    {
        'cpu-ready': CpuFact
    },
)


Fact3 = TypedDict(
    'Fact3',
    {
        'cuda-ready': AcceleratorFact
    },
)


Fact4 = TypedDict(
    'Fact4',
    {
        'metal-ready': AcceleratorFact
    },
)


Fact12 = TypedDict(
    'Fact12',
    {
        'callback-attempted': CallbackAttemptedFact
    },
)


Fact13 = TypedDict(
    'Fact13',
    {
        'callback-failed': CallbackFailedFact
    },
)


Fact17 = TypedDict(
    'Fact17',
    {
        'bind-failed': BindFailedFact
    },
)


Fact25 = TypedDict(
    'Fact25',
    {
        'cache-reset': CacheResetFact
    },
)


class Failure(TypedDict):
    """
    How a job ended badly.
    """

    code: Code
    """
    Which failure.
    """
    message: str
    """
    What happened, for the user.
    """
    retriable: bool
    """
    Whether the same request may succeed later.
    """


FailureCodeFact: TypeAlias = Literal['vram-oom', 'inference-failed']
"""
Kinds of failure that a client tells apart.
"""


class FilterLoadedFact(TypedDict):
    """
    A filter was put in service.
    """

    name: str
    """
    Its name.
    """
    digest: str
    """
    SHA-256 of its file, hexadecimal.
    """
    generation: int
    """
    Generation of the chain that it serves in, from 1.
    """
    duration_ms: float
    """
    From reading the file to being in service, ms.
    """


class FilterQuarantinedFact(TypedDict):
    """
    A filter failed too often and is not called again until the next reload.
    """

    name: str
    """
    Its name.
    """
    failures: int
    """
    Failures in a row.
    """
    reason: str
    """
    The last of them.
    """


class FilterRejectedFact(TypedDict):
    """
    A filter, or the chain's description, was refused. What ran before runs on.
    """

    name: str
    """
    Its name.
    """
    path: str
    """
    Path of the file.
    """
    reason: str
    """
    What was expected, what was found, and what to do.
    """


FinishReason: TypeAlias = Literal['stop', 'length']
"""
Why a text ended.
"""


class HeartbeatFailedFact(TypedDict):
    """
    A heartbeat to the pool manager failed. Nothing stops for it.
    """

    url: str
    """
    Where it called.
    """
    reason: str
    """
    What went wrong.
    """


class InferenceCancelledFact(TypedDict):
    """
    A job was ended before its time.
    """

    by: CancelledByFact
    """
    By whom.
    """
    tokens_out: int
    """
    Tokens generated before.
    """


class InferenceFailedFact(TypedDict):
    """
    A job failed. Other jobs are not touched.
    """

    code: FailureCodeFact
    """
    Which kind of failure.
    """
    reason: str
    """
    What happened.
    """
    tokens_out: int
    """
    Tokens generated before.
    """


class InferenceStartedFact(TypedDict):
    """
    The engine took up a job.
    """

    prompt_chars: int
    """
    Length of the prompt, Unicode characters.
    """
    prompt_tokens: int
    """
    Length of the prompt, tokens.
    """
    max_tokens: int
    """
    Tokens it may generate.
    """


class Loading(TypedDict):
    """
    How far loading the model is.
    """

    bytes_done: int
    """
    Bytes read.
    """
    bytes_total: int
    """
    Bytes to read in all.
    """


class Logprob(TypedDict):
    """
    A token, and how likely the model held it. It repeats text, so it has no `Debug`; whoever changes
    the text of a stream has to leave it out.
    """

    text: str
    """
    Its text; what is no character becomes U+FFFD.
    """
    bytes: list[int]
    """
    Its bytes; none for control tokens.
    """
    logprob: float
    """
    Natural logarithm of its probability, before bias, penalty and filters.
    """


class Metrics(TypedDict):
    """
    How a job goes.
    """

    tokens_per_sec: float
    """
    Rate of decoding, tokens a second.
    """
    resident_bytes: int
    """
    Memory of the model and its caches, bytes.
    """


class ModelCard(TypedDict):
    """
    A model.
    """

    id: str
    """
    Its name, for `model` in a request.
    """
    object: str
    """
    Always `model`.
    """
    created: int
    """
    When this worker began, seconds since 1970.
    """
    owned_by: str
    """
    Always `rbees-workerd`.
    """
    context_length: int
    """
    Longest sequence, tokens. Not OpenAI's.
    """


class ModelList(TypedDict):
    """
    The models that can be named in a request.
    """

    object: str
    """
    Always `list`.
    """
    data: list[ModelCard]
    """
    One model, once for each of its names; none while it is loading.
    """


class ModelLoadFailedFact(TypedDict):
    """
    The model could not be loaded; the worker ends.
    """

    path: str
    """
    Path of the file.
    """
    reason: str
    """
    What was wrong, where, and what to do.
    """


class ModelLoadProgressFact(TypedDict):
    """
    Part of the model file has been read.
    """

    bytes_done: int
    """
    Bytes read so far.
    """
    bytes_total: int
    """
    Bytes to read in all.
    """


class ModelLoadStartedFact(TypedDict):
    """
    Loading of the model file began.
    """

    path: str
    """
    Path of the file.
    """
    file_bytes: int
    """
    Size of the file, bytes.
    """


class ModelLoadedFact(TypedDict):
    """
    The model is in memory and can compute.
    """

    architecture: str
    """
    Architecture, e.g. `llama`.
    """
    name: str
    """
    Name that the file gives the model.
    """
    quantization: str
    """
    Quantization that most of the weights have, e.g. `Q4_1`.
    """
    parameters: int
    """
    Weights, counted.
    """
    resident_bytes: int
    """
    Memory that the weights take on the device, bytes.
    """
    vocabulary: int
    """
    Tokens in the vocabulary.
    """
    context_length: int
    """
    Longest sequence, tokens.
    """
    duration_ms: float
    """
    From the start of loading to now, ms.
    """


class NamedSchema(TypedDict, closed=True):
    """
    A schema with its name.
    """

    name: str
    """
    A name; changes nothing.
    """
    description: NotRequired[str | None]
    """
    A description; changes nothing.
    """
    strict: NotRequired[bool | None]
    """
    The text is held to the schema either way.
    """
    schema: dict[str, Any]
    """
    A JSON Schema; what of it can't be honoured is refused.
    """


class NarrationLostFact(TypedDict):
    """
    Narrations could not be delivered. Nothing is lost in silence.
    """

    count: int
    """
    How many.
    """
    sink: str
    """
    Where they were going: `stdout`, `record`, or `pipeline` when there were too many to be worded.
    """


OnDisconnect: TypeAlias = Literal['cancel', 'continue']
"""
What happens to a job whose last reader is gone.
"""


class OtherFact(TypedDict):
    """
    A fact of a kind that is younger than this version.
    """

    name: str
    """
    Its kind, kebab-case.
    """
    json: str
    """
    Its fields as a JSON object.
    """


PieceType: TypeAlias = Literal['text']


class PrefillProgressFact(TypedDict):
    """
    Part of the prompt has been computed.
    """

    tokens_done: int
    """
    Tokens computed so far.
    """
    tokens_total: int
    """
    Tokens to compute in all.
    """


class PromptTokenizedFact(TypedDict):
    """
    The prompt was cut into tokens.
    """

    tokens: int
    """
    How many.
    """
    duration_ms: float
    """
    How long it took, ms.
    """


class ReadyAnnouncedFact(TypedDict):
    """
    The pool manager has taken the ready call.
    """

    url: str
    """
    Where it was called.
    """


class Rejection(TypedDict):
    """
    A filter, or the manifest, that was refused.
    """

    name: str
    """
    Its name.
    """
    path: str
    """
    Path of the file.
    """
    reason: str
    """
    What was expected, what was found, and what to do.
    """
    at: str
    """
    When, RFC 3339.
    """


class Reloaded(TypedDict):
    """
    A chain that was put in service.
    """

    generation: int
    """
    Its generation.
    """
    at: str
    """
    When, RFC 3339.
    """
    duration_ms: float
    """
    How long it took to make, ms.
    """


class RequestQueuedFact(TypedDict):
    """
    A job waits for its turn.
    """

    position: int
    """
    Its place in the queue, from 1.
    """
    ahead: int
    """
    Jobs to be served before it, running ones included.
    """


class ResponseFormat1(TypedDict):
    """
    Anything.
    """

    type: Literal['text']


class ResponseFormat2(TypedDict):
    """
    A JSON object.
    """

    type: Literal['json_object']


Role: TypeAlias = Literal['system', 'developer', 'user', 'assistant', 'tool']
"""
Who speaks.
"""


class SamplingFact(TypedDict):
    """
    How tokens are chosen.
    """

    temperature: float
    """
    0: always the likeliest token.
    """
    top_p: float
    """
    Smallest set of tokens whose probabilities sum up to this; 1: all.
    """
    top_k: int
    """
    Number of likeliest tokens considered; 0: all.
    """
    min_p: float
    """
    Least probability relative to the likeliest token's; 0: no bound.
    """
    repetition_penalty: float
    """
    Divides the logits of tokens that were there before; 1: none.
    """
    seed: int
    """
    Seed of the random choice.
    """
    stop_strings: int
    """
    Number of stop strings.
    """


class SchemaFormat(TypedDict):
    """
    JSON that a schema describes.
    """

    json_schema: NamedSchema


class ServerBoundFact(TypedDict):
    """
    The HTTP server listens; the address is the real one.
    """

    address: str
    """
    Address bound, `host:port`.
    """


class ServerStartedFact(TypedDict):
    """
    The HTTP server starts; the address is the one asked for.
    """

    address: str
    """
    Address asked for, `host:port`.
    """


Severity: TypeAlias = Literal['debug', 'info', 'warn', 'error']
"""
How much a narration asks for attention.
"""


class Shutdown(TypedDict):
    """
    The worker will end.
    """

    status: str
    """
    Always `shutting_down`.
    """
    timeout_seconds: int
    """
    What running jobs have to finish, s.
    """


ShutdownCauseFact: TypeAlias = Literal['signal', 'request', 'parent-gone', 'failure']
"""
Why a worker shuts down.
"""


Stage: TypeAlias = Literal['queued', 'running', 'finished']
"""
How far a job is.
"""


class Started(TypedDict):
    """
    The job exists.
    """

    job_id: str
    """
    Name of the job.
    """
    model: str
    """
    Name of the model.
    """
    started_at: str
    """
    When, RFC 3339.
    """
    seed: int
    """
    Seed in use, given or drawn.
    """


class StartupFact(TypedDict):
    """
    The worker process began. Tells what was asked of it, before anything was tried.
    """

    version: str
    """
    Version of the worker.
    """
    pid: int
    """
    Process id.
    """
    address: str
    """
    Address asked for, `host:port`; port 0 asks the system to choose.
    """
    model: str
    """
    Model asked for: the file's name, without its folders.
    """


StopReason: TypeAlias = Literal['MAX_TOKENS', 'STOP_SEQUENCE', 'EOS']
"""
Why a job ended well.
"""


StopReasonFact: TypeAlias = Literal['max-tokens', 'stop-sequence', 'eos']
"""
Why generation ended well.
"""


StopString: TypeAlias = str
"""
A string that ends a text.
"""


class StreamEvent1(Started):
    """
    The job exists.
    """

    type: Literal['started']


class StreamEvent4(Metrics):
    """
    How it goes.
    """

    type: Literal['metrics']


class StreamEvent6(Failure):
    """
    The job did not; nothing follows.
    """

    type: Literal['error']


class StreamOptions(TypedDict, closed=True):
    """
    What comes with the chunks.
    """

    include_usage: NotRequired[bool | None]
    """
    A last chunk that counts tokens.
    """
    include_narration: NotRequired[bool | None]
    """
    The request's narrations, in chunks of their own. Not OpenAI's; `X-Narration: sse` asks the same.
    """


Texts: TypeAlias = str | list[str]
"""
One text, or several.
"""


class TokenLogprob(Logprob):
    """
    A token that was chosen, and the likeliest ones in its place.
    """

    top: list[Logprob]
    """
    The likeliest, likeliest first; as many as the request asked for.
    """


class TokensGeneratedFact(TypedDict):
    """
    Tokens were generated; told every few tokens, as the request asked.
    """

    tokens: int
    """
    Tokens so far.
    """
    tokens_per_second: float
    """
    Rate since the first token, tokens a second.
    """


Told: TypeAlias = dict[str, Any] | list[dict[str, Any]]
"""
A chunk's narration, or the whole answer's.
"""


class TopLogprob(TypedDict):
    """
    A token that might have come.
    """

    token: str
    """
    Its text.
    """
    logprob: float
    """
    Natural logarithm of its probability.
    """
    bytes: list[int]
    """
    Its bytes; none for a control token.
    """


class Usage(TypedDict):
    """
    Tokens counted.
    """

    prompt_tokens: int
    """
    Of the prompt, as the template makes it.
    """
    completion_tokens: int
    """
    Generated.
    """
    total_tokens: int
    """
    Both.
    """


class Violation(TypedDict):
    """
    One thing that a request did wrong.
    """

    field: str
    """
    The field, or the part of the request.
    """
    constraint: str
    """
    Which rule: `type`, `range`, `length`, `required`, `unknown`, ….
    """
    message: str
    """
    What is expected.
    """


class ViolationFact(TypedDict):
    """
    One thing that a request did wrong. Never the value that was sent.
    """

    field: str
    """
    Name of the field, or of the part of the request: `body`, `header`, `path`.
    """
    constraint: str
    """
    What was expected of it.
    """


class WarmupCompletedFact(TypedDict):
    """
    The first computation is done.
    """

    tokens: int
    """
    Tokens it computed.
    """
    duration_ms: float
    """
    How long it took, ms.
    """


class WarmupStartedFact(TypedDict):
    """
    A first computation began, so that the first request does not pay for it.
    """

    tokens: int
    """
    Tokens it computes.
    """


WorkerStateFact: TypeAlias = Literal['loading', 'ready', 'draining', 'stalled', 'failed']
"""
What a worker can say of itself when it is asked whether it is ready.
"""


class ChatLogprob(TypedDict):
    """
    How likely a token was.
    """

    token: str
    """
    Its text.
    """
    logprob: float
    """
    Natural logarithm of its probability.
    """
    bytes: list[int]
    """
    Its bytes; none for a control token.
    """
    top_logprobs: list[TopLogprob]
    """
    The likeliest ones in its place.
    """


class ChatLogprobs(TypedDict):
    """
    How likely the tokens of a message were.
    """

    content: list[ChatLogprob]
    """
    Token by token.
    """
    refusal: NotRequired[list[ChatLogprob] | None]
    """
    Always null.
    """


class ChunkChoice(TypedDict):
    """
    What a chunk adds.
    """

    index: int
    """
    Always 0.
    """
    delta: Delta
    """
    The addition.
    """
    logprobs: NotRequired[ChatLogprobs | None]
    finish_reason: NotRequired[FinishReason | None]


class CompletionChoice(TypedDict):
    """
    What a completion says.
    """

    text: str
    """
    The text, or what a chunk adds to it.
    """
    index: int
    """
    Always 0.
    """
    logprobs: NotRequired[CompletionLogprobs | None]
    finish_reason: NotRequired[FinishReason | None]


class CompletionRequest(TypedDict):
    """
    A text completion, as OpenAI's clients ask for it.
    """

    model: str
    """
    The model's name, as in `/v1/models`.
    """
    prompt: Texts
    """
    Text to continue, or a list of one text.
    """
    max_tokens: NotRequired[int | None]
    """
    Tokens that may be generated; 16 where it is not given.
    """
    stop: NotRequired[Texts | None]
    seed: NotRequired[int | None]
    """
    Where the draws start.
    """
    stream: NotRequired[bool | None]
    """
    Whether the answer comes in chunks.
    """
    stream_options: NotRequired[StreamOptions | None]
    logprobs: NotRequired[int | None]
    """
    How many likeliest tokens are told beside each, and how likely they were.
    """
    logit_bias: NotRequired[dict[str, float]]
    """
    Added to the logits of tokens, by their numbers: from -100 to 100.
    """
    timeout_ms: NotRequired[int | None]
    """
    Deadline of the whole job, waiting included, ms. Not OpenAI's.
    """
    temperature: NotRequired[float | None]
    """
    0 always takes the likeliest.
    """
    top_p: NotRequired[float | None]
    """
    Smallest set of tokens whose probabilities sum up to this.
    """
    top_k: NotRequired[int | None]
    """
    Number of likeliest tokens considered, up to the vocabulary's size; 0: all.
    """
    min_p: NotRequired[float | None]
    """
    Least probability relative to the likeliest token's.
    """
    repetition_penalty: NotRequired[float | None]
    """
    Divides the logits of tokens that were there before.
    """


class Counts(TypedDict):
    """
    The counts of one filter at one moment.
    """

    calls: int
    """
    Calls, failed ones included.
    """
    busy_us: int
    """
    Time spent in them, µs.
    """
    failures: int
    """
    Calls that failed.
    """
    drops: int
    """
    Narrations that it left no sink.
    """
    shadow_differences: int
    """
    Narrations and texts that it would have changed, as a shadow.
    """
    shadow_samples: list[Difference]
    """
    The latest of them, without their texts.
    """


class End(TypedDict):
    """
    How a job ended well. It may repeat a stop string, so it has no `Debug`.
    """

    tokens_out: int
    """
    Tokens generated.
    """
    decode_time_ms: float
    """
    From the first token to the last, ms.
    """
    stop_reason: StopReason
    """
    Why it ended.
    """
    stop_sequence_matched: NotRequired[str]
    """
    The stop string that ended it.
    """


class ErrorBody(TypedDict):
    """
    An error, as OpenAI's clients read it.
    """

    error: ErrorObject
    """
    What went wrong.
    """
    narration: NotRequired[dict[str, Any] | None]
    """
    The narration of it, where filters route it to the user. Not OpenAI's.
    """


class Fact1(TypedDict):
    """
    See [`Startup`].
    """

    startup: StartupFact
    """
    See [`Startup`].
    """


Fact5 = TypedDict(
    'Fact5',
    {
        'model-load-started': ModelLoadStartedFact
    },
)


Fact6 = TypedDict(
    'Fact6',
    {
        'model-load-progress': ModelLoadProgressFact
    },
)


Fact7 = TypedDict(
    'Fact7',
    {
        'model-loaded': ModelLoadedFact
    },
)


Fact8 = TypedDict(
    'Fact8',
    {
        'model-load-failed': ModelLoadFailedFact
    },
)


Fact9 = TypedDict(
    'Fact9',
    {
        'warmup-started': WarmupStartedFact
    },
)


Fact10 = TypedDict(
    'Fact10',
    {
        'warmup-completed': WarmupCompletedFact
    },
)


Fact11 = TypedDict(
    'Fact11',
    {
        'ready-announced': ReadyAnnouncedFact
    },
)


Fact14 = TypedDict(
    'Fact14',
    {
        'heartbeat-failed': HeartbeatFailedFact
    },
)


Fact15 = TypedDict(
    'Fact15',
    {
        'server-started': ServerStartedFact
    },
)


Fact16 = TypedDict(
    'Fact16',
    {
        'server-bound': ServerBoundFact
    },
)


Fact22 = TypedDict(
    'Fact22',
    {
        'request-queued': RequestQueuedFact
    },
)


Fact23 = TypedDict(
    'Fact23',
    {
        'prompt-tokenized': PromptTokenizedFact
    },
)


Fact24 = TypedDict(
    'Fact24',
    {
        'inference-started': InferenceStartedFact
    },
)


Fact26 = TypedDict(
    'Fact26',
    {
        'prefill-progress': PrefillProgressFact
    },
)


Fact27 = TypedDict(
    'Fact27',
    {
        'tokens-generated': TokensGeneratedFact
    },
)


Fact29 = TypedDict(
    'Fact29',
    {
        'inference-failed': InferenceFailedFact
    },
)


Fact30 = TypedDict(
    'Fact30',
    {
        'inference-cancelled': InferenceCancelledFact
    },
)


Fact31 = TypedDict(
    'Fact31',
    {
        'filter-loaded': FilterLoadedFact
    },
)


Fact32 = TypedDict(
    'Fact32',
    {
        'filter-rejected': FilterRejectedFact
    },
)


Fact33 = TypedDict(
    'Fact33',
    {
        'filter-quarantined': FilterQuarantinedFact
    },
)


Fact34 = TypedDict(
    'Fact34',
    {
        'narration-lost': NarrationLostFact
    },
)


class Fact35(TypedDict):
    """
    See [`Other`].
    """

    other: OtherFact
    """
    See [`Other`].
    """


class FilterState(Counts):
    """
    One filter of the chain.
    """

    name: str
    """
    Its name in the chain.
    """
    filter: str
    """
    The name that it gives itself.
    """
    version: str
    """
    Its own version.
    """
    source: str
    """
    Path of its file, or `builtin:` and a name.
    """
    digest: str
    """
    SHA-256 of its file, hexadecimal.
    """
    generation: int
    """
    Generation of the chain since which it serves as it is.
    """
    on_failure: str
    """
    What its failure does: `withhold` or `skip`.
    """
    timeout_ms: int
    """
    Time that a call may take, ms.
    """
    memory_mib: int
    """
    Memory that an instance may hold, MiB.
    """
    redacts: bool
    """
    Whether it says that it takes things out.
    """
    text: bool
    """
    Whether generated text goes through it.
    """
    shadow: bool
    """
    Whether it works on copies.
    """
    quarantined: bool
    """
    Whether it failed too often to be called.
    """


class Health(TypedDict):
    """
    How the worker is, and what it has.
    """

    status: WorkerStateFact
    """
    How it is.
    """
    worker_id: str
    """
    Its name.
    """
    version: str
    """
    Its version.
    """
    uptime_seconds: int
    """
    Age of the process, s.
    """
    active_jobs: int
    """
    Jobs that the engine computes.
    """
    queued_jobs: int
    """
    Jobs that wait for it.
    """
    filter_generation: int
    """
    Which chain of filters is in service; counts reloads.
    """
    resident_bytes: int
    """
    Memory of the model and its caches, bytes.
    """
    model: NotRequired[str]
    """
    Name of the model, as soon as it is loaded, like all that follows.
    """
    architecture: NotRequired[str]
    """
    Its architecture.
    """
    quantization: NotRequired[str]
    """
    Quantization of most weights.
    """
    vocabulary: NotRequired[int]
    """
    Tokens in its vocabulary.
    """
    context_length: NotRequired[int]
    """
    Longest sequence, tokens.
    """
    device: NotRequired[str]
    """
    What computes it.
    """


class HealthCheckedFact(TypedDict):
    """
    Somebody asked for the worker's health, and the answer differs from the last one.
    """

    state: WorkerStateFact
    """
    The state told.
    """


class InferenceCompletedFact(TypedDict):
    """
    A job ended well.
    """

    prompt_tokens: int
    """
    Length of the prompt, tokens.
    """
    tokens_out: int
    """
    Tokens generated.
    """
    time_to_first_token_ms: float
    """
    From the request's acceptance to its first token, ms.
    """
    decode_ms: float
    """
    From the first token to the last, ms.
    """
    tokens_per_second: float
    """
    Rate of decoding, tokens a second.
    """
    stop_reason: StopReasonFact
    """
    Why it ended.
    """


class JobState(TypedDict):
    """
    What is known of a job.
    """

    job_id: str
    """
    Its name.
    """
    state: Stage
    """
    How far it is.
    """
    position: NotRequired[int]
    """
    Its place among those that wait, from 1.
    """
    tokens_out: int
    """
    Tokens generated so far.
    """
    events: int
    """
    Events in its log so far: the number of the last one.
    """
    end: NotRequired[End]
    """
    How it ended well.
    """
    error: NotRequired[Failure]
    """
    How it ended badly.
    """


class Piece(TypedDict, closed=True):
    """
    A piece of text.
    """

    type: PieceType
    text: str


class Problem(TypedDict):
    """
    An error (RFC 9457).
    """

    title: str
    """
    What the status is called.
    """
    status: int
    """
    HTTP status.
    """
    detail: str
    """
    What was expected, and what to do.
    """
    errors: NotRequired[list[Violation]]
    """
    What is wrong with the request, field by field.
    """
    narration: NotRequired[dict[str, Any] | None]
    """
    The narration of the refusal, where filters route it to the user.
    """


class Readiness(TypedDict):
    """
    Whether the worker takes work.
    """

    state: WorkerStateFact
    """
    How it is.
    """
    loading: NotRequired[Loading | None]


class RequestAcceptedFact(TypedDict):
    """
    A request became a job.
    """

    endpoint: str
    """
    Path it came by, e.g. `/execute`.
    """
    max_tokens: int
    """
    Tokens it may generate.
    """
    sampling: SamplingFact
    """
    How its tokens are chosen.
    """


class RequestRejectedFact(TypedDict):
    """
    A request was refused before it became a job.
    """

    status: int
    """
    HTTP status of the answer.
    """
    violations: list[ViolationFact]
    """
    All that was wrong with it.
    """


class ResponseFormat3(SchemaFormat):
    """
    JSON that a schema describes.
    """

    type: Literal['json_schema']


ResponseFormat: TypeAlias = ResponseFormat1 | ResponseFormat2 | ResponseFormat3
"""
What a text has to be.
"""


class ServerShutdownFact(TypedDict):
    """
    The worker stops taking requests and lets the running ones finish.
    """

    cause: ShutdownCauseFact
    """
    Why.
    """
    jobs_in_flight: int
    """
    Requests running or waiting.
    """
    grace_ms: int
    """
    Time they have to finish, ms.
    """


class StreamEvent5(End):
    """
    The job ended well; nothing follows.
    """

    type: Literal['end']


class Token(TypedDict):
    """
    Text that is sure, in whole characters.
    """

    t: str
    """
    The text.
    """
    i: int
    """
    Index of the token that completed it, from 0.
    """
    logprobs: NotRequired[list[TokenLogprob]]
    """
    How likely the tokens were that it is made of, where the request asked.
    """


class ChainState(TypedDict):
    """
    The chain in service.
    """

    generation: int
    """
    Counts the chains of this worker, from 1.
    """
    contract: str
    """
    Version of the contract that the worker speaks.
    """
    folder: NotRequired[str | None]
    """
    The folder that filters are deployed to.
    """
    watching: NotRequired[str | None]
    """
    How changes of the folder are noticed: `events`, or `poll` alone.
    """
    filters: list[FilterState]
    """
    The filters in order.
    """
    last_reload: NotRequired[Reloaded | None]
    last_rejection: NotRequired[Rejection | None]
    decisions: list[Decided]
    """
    What became of narrations so far, by kind.
    """


class ChatChoice(TypedDict):
    """
    What was said.
    """

    index: int
    """
    Always 0.
    """
    message: ChatMessage
    """
    The message.
    """
    logprobs: NotRequired[ChatLogprobs | None]
    finish_reason: FinishReason
    """
    Why it ended.
    """


class ChatChunk(TypedDict):
    """
    One chunk of a streamed chat.
    """

    id: str
    """
    Name of the answer.
    """
    object: str
    """
    Always `chat.completion.chunk`.
    """
    created: int
    """
    Seconds since 1970.
    """
    model: str
    """
    Name of the model.
    """
    choices: list[ChunkChoice]
    """
    One, but for the chunk with `usage`, which has none.
    """
    usage: NotRequired[Usage | None]
    narration: NotRequired[dict[str, Any] | None]
    """
    A narration of this request, where it was asked for. Not OpenAI's.
    """


class ChatCompletion(TypedDict):
    """
    A whole chat answer.
    """

    id: str
    """
    Name of the answer.
    """
    object: str
    """
    Always `chat.completion`.
    """
    created: int
    """
    Seconds since 1970.
    """
    model: str
    """
    Name of the model.
    """
    choices: list[ChatChoice]
    """
    One.
    """
    usage: Usage
    """
    Tokens counted.
    """
    narration: NotRequired[list[dict[str, Any]] | None]
    """
    The narrations of this request, where `X-Narration: sse` asked for them. Not OpenAI's.
    """


class Completion(TypedDict):
    """
    A text completion, whole or a chunk of it.
    """

    id: str
    """
    Name of the answer.
    """
    object: str
    """
    Always `text_completion`.
    """
    created: int
    """
    Seconds since 1970.
    """
    model: str
    """
    Name of the model.
    """
    choices: list[CompletionChoice]
    """
    One, but for the chunk with `usage`, which has none.
    """
    usage: NotRequired[Usage | None]
    narration: NotRequired[Told | None]


Content: TypeAlias = str | list[Piece]
"""
Text, or pieces of text.
"""


Fact18 = TypedDict(
    'Fact18',
    {
        'health-checked': HealthCheckedFact
    },
)


Fact19 = TypedDict(
    'Fact19',
    {
        'server-shutdown': ServerShutdownFact
    },
)


Fact20 = TypedDict(
    'Fact20',
    {
        'request-rejected': RequestRejectedFact
    },
)


Fact21 = TypedDict(
    'Fact21',
    {
        'request-accepted': RequestAcceptedFact
    },
)


Fact28 = TypedDict(
    'Fact28',
    {
        'inference-completed': InferenceCompletedFact
    },
)


Fact: TypeAlias = Fact1 | Fact2 | Fact3 | Fact4 | Fact5 | Fact6 | Fact7 | Fact8 | Fact9 | Fact10 | Fact11 | Fact12 | Fact13 | Fact14 | Fact15 | Fact16 | Fact17 | Fact18 | Fact19 | Fact20 | Fact21 | Fact22 | Fact23 | Fact24 | Fact25 | Fact26 | Fact27 | Fact28 | Fact29 | Fact30 | Fact31 | Fact32 | Fact33 | Fact34 | Fact35
"""
A fact: its kind, and what was measured.
"""


class Message(TypedDict):
    """
    One message of a conversation. Control marks in it are plain text.
    """

    role: Role
    """
    Who speaks; `developer` is the newer name of `system`.
    """
    content: Content
    """
    What is said.
    """


class Narration(TypedDict):
    """
    A narration: what the worker did, as a typed fact, and in words that filters chose.
    """

    v: int
    """
    Version of this record.
    """
    sequence: int
    """
    Counts every fact that this worker told, from 1.
    """
    timestamp: str
    """
    When it happened, RFC 3339 with microseconds.
    """
    worker_id: str
    """
    The worker.
    """
    job_id: NotRequired[str | None]
    """
    The job, on facts of a request that became one.
    """
    correlation_id: NotRequired[str | None]
    """
    The request's correlation id.
    """
    trace_id: NotRequired[str | None]
    """
    The request's W3C trace id, where it came with one.
    """
    severity: Severity
    """
    How much it asks for attention.
    """
    actor: str
    """
    Part of the worker that acts.
    """
    action: str
    """
    What it does.
    """
    target: str
    """
    The thing acted on.
    """
    human: str
    """
    The plain sentence.
    """
    cute: NotRequired[str | None]
    """
    A gentle metaphor.
    """
    story: NotRequired[str | None]
    """
    Attributed speech.
    """
    fact: Fact
    """
    What happened: `{"<kind>": {…}}`.
    """


class StreamEvent2(Narration):
    """
    The worker tells what it does for this request.
    """

    type: Literal['narration']


class StreamEvent3(Token):
    """
    Text that is sure.
    """

    type: Literal['token']


StreamEvent: TypeAlias = StreamEvent1 | StreamEvent2 | StreamEvent3 | StreamEvent4 | StreamEvent5 | StreamEvent6
"""
One event of a job's stream: `started` first, `end` or `error` last, each once. The name in the
stream's `event:` line is the same as `type`; `id:` counts from 1.
"""


class ChatRequest(TypedDict):
    """
    A chat, as OpenAI's clients ask for it. Fields of theirs that are not listed are refused unless they
    ask for nothing; docs/http.md has the list.
    """

    model: str
    """
    The model's name, as in `/v1/models`.
    """
    messages: list[Message]
    """
    The conversation.
    """
    max_completion_tokens: NotRequired[int | None]
    """
    Tokens that may be generated. Where it is not given: what is left beside the prompt of one
    slot's share of the KV cache, which `request-accepted` tells.
    """
    max_tokens: NotRequired[int | None]
    """
    The older name of the same.
    """
    stop: NotRequired[Texts | None]
    seed: NotRequired[int | None]
    """
    Where the draws start.
    """
    stream: NotRequired[bool | None]
    """
    Whether the answer comes in chunks.
    """
    stream_options: NotRequired[StreamOptions | None]
    logprobs: NotRequired[bool | None]
    """
    Whether it is told how likely each token was.
    """
    top_logprobs: NotRequired[int | None]
    """
    How many likeliest tokens are told beside each.
    """
    logit_bias: NotRequired[dict[str, float]]
    """
    Added to the logits of tokens, by their numbers: from -100 to 100.
    """
    response_format: NotRequired[ResponseFormat | None]
    timeout_ms: NotRequired[int | None]
    """
    Deadline of the whole job, waiting included, ms. Not OpenAI's.
    """
    temperature: NotRequired[float | None]
    """
    0 always takes the likeliest.
    """
    top_p: NotRequired[float | None]
    """
    Smallest set of tokens whose probabilities sum up to this.
    """
    top_k: NotRequired[int | None]
    """
    Number of likeliest tokens considered, up to the vocabulary's size; 0: all.
    """
    min_p: NotRequired[float | None]
    """
    Least probability relative to the likeliest token's.
    """
    repetition_penalty: NotRequired[float | None]
    """
    Divides the logits of tokens that were there before.
    """


class ExecuteRequest(TypedDict, closed=True):
    """
    One inference: a `prompt` or `messages`, and how far to go.
    """

    job_id: NotRequired[str]
    """
    Name for the job; made up where none is given. 409 while one of that name is known.
    """
    prompt: NotRequired[str]
    """
    Text to continue. Either this or `messages`.
    """
    messages: NotRequired[list[Message]]
    """
    A conversation, for the model's own chat template. Either this or `prompt`.
    """
    max_tokens: int
    """
    Tokens that may be generated; with the prompt's they have to fit the context.
    """
    stop: NotRequired[list[StopString]]
    """
    Strings that end the text; no part of a match is sent.
    """
    seed: NotRequired[int]
    """
    Where the draws start; drawn and told in `started` where it is not given.
    """
    on_disconnect: NotRequired[OnDisconnect]
    """
    What becomes of the job when its last reader is gone. `cancel` where it is not given.
    """
    timeout_ms: NotRequired[int]
    """
    Deadline of the whole job, waiting included, ms.
    """
    progress_every: NotRequired[int]
    """
    Tokens between two progress narrations; 0: none. 10 where it is not given.
    """
    temperature: NotRequired[float]
    """
    0 always takes the likeliest.
    """
    top_p: NotRequired[float]
    """
    Smallest set of tokens whose probabilities sum up to this.
    """
    top_k: NotRequired[int]
    """
    Number of likeliest tokens considered, up to the vocabulary's size; 0: all.
    """
    min_p: NotRequired[float]
    """
    Least probability relative to the likeliest token's.
    """
    repetition_penalty: NotRequired[float]
    """
    Divides the logits of tokens that were there before.
    """
