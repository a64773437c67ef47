// Drops narrations by rule: kinds that nobody reads, below a severity. It words nothing, and never
// drops what is at least as severe as a rule says.

const SEVERITIES = ['debug', 'info', 'warn', 'error'];
const SINKS = ['stdout', 'sse'];

// The worker keeps an instance for each job, so what is kept here belongs to one request.
let rules = [];

/** The rules of a configuration. What is thrown is told to the operator. */
export function read(config) {
  const { drop = [], ...unknown } = JSON.parse(config);
  for (const key in unknown) throw `${key}: there is no such key, only \`drop\``;
  if (!Array.isArray(drop)) throw 'drop: a list of rules is expected';
  return drop.map((rule, at) => {
    const { kinds, below = 'warn', from = SINKS, ...more } = rule;
    for (const key in more) throw `drop[${at}].${key}: known are kinds, below, from`;
    if (!Array.isArray(kinds)) throw `drop[${at}].kinds: a list of kinds is expected`;
    if (!SEVERITIES.includes(below)) throw `drop[${at}].below: one of ${SEVERITIES.join(', ')}`;
    for (const sink of from) if (!SINKS.includes(sink)) throw `drop[${at}].from: no sink ${sink}`;
    return { kinds: new Set(kinds), below: SEVERITIES.indexOf(below), from };
  });
}

export const filter = {
  /** Called once, when the filter is loaded. */
  describe() {
    return {
      name: 'drop-by-rule',
      version: '0.1.0',
      kinds: undefined, // all of them: the rules say which
      redacts: false,
      configSchema: JSON.stringify({
        type: 'object',
        additionalProperties: false,
        properties: {
          drop: {
            type: 'array',
            description: 'rules; a narration that fits one of them is dropped',
            items: {
              type: 'object',
              additionalProperties: false,
              required: ['kinds'],
              properties: {
                kinds: { type: 'array', items: { type: 'string' } },
                below: { enum: SEVERITIES, default: 'warn' },
                from: { type: 'array', items: { enum: SINKS }, default: SINKS },
              },
            },
          },
        },
      }),
    };
  },

  /** Called once an instance, with `[filter.config]` as JSON. What is thrown refuses it. */
  configure(config) {
    rules = read(config);
  },

  /** Called for every fact, in order. */
  narrate(context, narration) {
    for (const rule of rules) {
      if (!rule.kinds.has(context.kind)) continue;
      if (SEVERITIES.indexOf(context.severity) >= rule.below) continue;
      for (const sink of rule.from) narration.sinks[sink] = false;
    }
    return narration;
  },
};
