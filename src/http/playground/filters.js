// Shows the chain of filters: in order, what each did, the last reload and the last refusal. Asks nobody.

const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const clock = (at) => new Date(at).toLocaleTimeString();

/** The chain as `GET /filters` has it; without it, as for who shows no token, the generation alone. */
export function show(generation, chain) {
  const reload = chain?.last_reload;
  const since = reload && generation > 1 ? `reloaded at ${clock(reload.at)}` : "in service";
  $("filters-sum").textContent = `generation ${generation}, ${since}`;
  const list = $("filters-list");
  list.hidden = !chain?.filters.length;
  const lines = (chain?.filters ?? []).map(line);
  // Drawn anew only where something is other, so that nothing moves under whoever reads it.
  const drawn = lines.map((item) => item.outerHTML).join("");
  if (list.innerHTML !== drawn) list.replaceChildren(...lines);
  refusal(chain);
}

function line(filter) {
  const item = part("li");
  const head = part("p", "filter-head");
  const digest = part("code", "digest", filter.digest.slice(0, 12));
  digest.title = `SHA-256 ${filter.digest}`;
  const name = part("strong", "", filter.name);
  name.title = `${filter.filter} ${filter.version}, ${filter.source}`;
  head.append(name, digest, ...marks(filter).map(([text, kind]) => part("span", `mark ${kind}`, text)));
  item.append(head, part("p", "did", did(filter)));
  return item;
}

function did({ calls, failures, busy_us: busy, drops, shadow_differences: differences }) {
  const parts = [`${count(calls)} ${calls === 1 ? "call" : "calls"}`];
  if (calls) parts.push(`${(busy / calls).toFixed(0)} µs each`);
  parts.push(failures ? `${count(failures)} failed` : "none failed");
  if (drops) parts.push(`${count(drops)} dropped`);
  if (differences) parts.push(`${count(differences)} would differ`);
  return parts.join(" · ");
}

function marks(filter) {
  return [
    filter.quarantined && ["quarantined", "bad"],
    filter.shadow && ["shadow", ""],
    filter.redacts && ["redacts", ""],
    filter.text && ["text too", ""],
  ].filter(Boolean);
}

/** What was refused last. It asks for something only as long as nothing newer was put in service. */
function refusal(chain) {
  const { last_rejection: refused, last_reload: reload } = chain ?? {};
  const shown = $("filters-refused");
  shown.hidden = !refused;
  if (!refused) return;
  const open = !reload || Date.parse(refused.at) > Date.parse(reload.at);
  shown.classList.toggle("open", open);
  const named = refused.reason.startsWith(refused.name) ? "" : `${refused.name}: `;
  const text = `Refused at ${clock(refused.at)}: ${named}${refused.reason}`;
  shown.textContent = open ? `${text}. The last good chain serves.` : text;
}

function part(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className.trim();
  made.textContent = text;
  return made;
}
