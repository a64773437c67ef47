// Tokens a second over time, as a small SVG line. Given points, draws them; keeps nothing.

const SVG = "http://www.w3.org/2000/svg";
const [LEFT, RIGHT, TOP, BOTTOM] = [30, 6, 8, 18];

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** A round step that cuts `span` into about `parts`. */
function step(span, parts) {
  const raw = span / parts;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
}

const short = (n) => String(Number(n.toFixed(2)));

/** Draws `points` (`{at, rate}`, seconds and tokens/s) into `svg`. */
export function draw(svg, points) {
  const [width, height] = [svg.clientWidth || 320, svg.clientHeight || 110];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const until = Math.max(0.2, ...points.map((point) => point.at));
  const most = Math.max(1, ...points.map((point) => point.rate)) * 1.2;
  const x = (at) => LEFT + (at / until) * (width - LEFT - RIGHT);
  const y = (rate) => height - BOTTOM - (rate / most) * (height - TOP - BOTTOM);
  for (let rate = 0, by = step(most, 3); rate <= most; rate += by) {
    add(svg, "line", { x1: LEFT, x2: width - RIGHT, y1: y(rate), y2: y(rate), class: "grid" });
    add(svg, "text", { x: LEFT - 5, y: y(rate) + 3.5, "text-anchor": "end" }, short(rate));
  }
  for (let at = 0, by = step(until, 4); at <= until; at += by) {
    const anchor = at === 0 ? "start" : at > until * 0.95 ? "end" : "middle";
    add(svg, "text", { x: x(at), y: height - 4, "text-anchor": anchor }, `${short(at)} s`);
  }
  svg.setAttribute("aria-label", describe(points));
  if (!points.length) return;
  const line = points.map((point) => `${x(point.at).toFixed(1)} ${y(point.rate).toFixed(1)}`);
  const [first, last] = [x(points[0].at), x(points.at(-1).at)];
  if (points.length > 1) {
    add(svg, "path", { class: "area", d: `M${first} ${y(0)}L${line.join("L")}L${last} ${y(0)}Z` });
    add(svg, "path", { class: "line", d: `M${line.join("L")}` });
  }
  add(svg, "circle", { class: "now", cx: last, cy: y(points.at(-1).rate), r: 3 });
}

function describe(points) {
  if (!points.length) return "Tokens per second: nothing yet";
  const rates = points.map((point) => point.rate);
  const [least, most] = [Math.min(...rates), Math.max(...rates)].map((rate) => rate.toFixed(1));
  return `Tokens per second: now ${rates.at(-1).toFixed(1)}, between ${least} and ${most} so far`;
}
