// One run: what is known of a job from its frames so far. Pure: frames in, state out; shows nothing.

/** A run nothing has been heard of yet. */
export const newRun = (id) => ({
  id,
  phase: "sent", // sent, queued, prefill, decode, done, cancelled, failed
  text: "",
  tokens: 0,
  limit: 0,
  rate: undefined,
  rates: [], // {at: seconds since the first token, rate: tokens/s since the point before}
  narrations: [],
  told: 0,
  done: false,
});

/** Takes one frame in. Returns the narration it brought, if it brought one. */
export function apply(run, frame) {
  switch (frame.type) {
    case "started":
      Object.assign(run, { seed: frame.seed, model: frame.model });
      return undefined;
    case "token":
      run.text += frame.t;
      run.tokens = frame.i + 1;
      run.phase = "decode";
      return undefined;
    case "metrics":
      measure(run, frame.tokens_per_sec);
      return undefined;
    case "end":
      Object.assign(run, { phase: "done", tokens: frame.tokens_out, end: frame, done: true });
      return undefined;
    case "error":
      run.phase = frame.code === "CANCELLED" ? "cancelled" : "failed";
      Object.assign(run, { error: frame, done: true });
      return undefined;
    case "narration":
      run.narrations.push(frame);
      learn(run, frame.fact ?? {});
      return frame;
    default:
      return undefined; // a kind of frame that is younger than this page
  }
}

/**
 * The worker measures from its first token on, so a rate and a count give the time: the chart is the
 * same whether the frames come live or are replayed.
 */
function measure(run, rate) {
  run.rate = rate;
  const at = rate > 0 ? (run.tokens - 1) / rate : 0;
  const before = run.mark ?? { at: 0, tokens: 1 };
  if (at - before.at < 0.01 || run.tokens <= before.tokens) return;
  run.rates.push({ at, rate: (run.tokens - before.tokens) / (at - before.at) });
  run.mark = { at, tokens: run.tokens };
}

function learn(run, fact) {
  const [kind] = Object.keys(fact);
  const told = fact[kind];
  if (kind === "request-accepted") run.limit = told.max_tokens;
  else if (kind === "prompt-tokenized") run.prompt = told.tokens;
  else if (kind === "request-queued") {
    run.phase = "queued";
    run.queue = told;
  } else if (kind === "inference-started") {
    Object.assign(run, { phase: "prefill", prompt: told.prompt_tokens, limit: told.max_tokens });
  } else if (kind === "cache-reset") run.prefill = { done: 0, total: told.tokens_to_compute };
  else if (kind === "prefill-progress") {
    run.prefill = { done: told.tokens_done, total: told.tokens_total };
  } else if (kind === "inference-completed") run.first = told.time_to_first_token_ms;
}
