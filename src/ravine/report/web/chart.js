// A line chart as SVG: curves with bands, a legend-free plot, a cursor that names every value. No library.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 340, 62, 12, 12, 40];

function element(name, attributes = {}, parent = null, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  parent?.append(made);
  return made;
}

export function shown(value, percent = false) {
  if (value === null || value === undefined) return "–";
  if (percent) return `${value.toFixed(2)} %`;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(size >= 10 ? 4 : 3);
}

function tickText(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-4)) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  return String(Number(value.toPrecision(6)));
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const factors = decades > 3 ? [1] : [1, 2, 5];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of factors) {
      const at = factor * 10 ** power;
      if (at >= low * 0.999 && at <= high * 1.001) found.push(at);
    }
  }
  const every = Math.ceil(found.length / 9);
  return found.filter((_, i) => i % every === 0);
}

function quantile(sorted, q) {
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

// The limits hold nearly all that is drawn: one curve that explodes must not flatten the others.
function limits(values, scale, percent) {
  const sorted = Float64Array.from(values).sort();
  const [low, most, top] = [sorted[0], quantile(sorted, 0.97), sorted[sorted.length - 1]];
  const log = scale === "log" ? low > 0 : scale === "auto" && low > 0 && most > 20 * low && !percent;
  if (log) return { log, low: low / 1.15, high: Math.min(top, most * 10) * 1.15 };
  const spread = most - low || Math.abs(low) * 0.1 || 1;
  const high = top > low + 3 * spread ? most + 0.5 * spread : top;
  const margin = 0.05 * (high - low || spread);
  return { log, low: low >= 0 && low < margin ? 0 : low - margin, high: high + margin };
}

function plot(series, options) {
  const values = series.flatMap((one) => [...one.y, ...(one.low ?? []), ...(one.high ?? [])]).filter((v) => v !== null);
  const xs = series.flatMap((one) => one.x);
  const y = limits(values, options.scale, series[0].percent);
  const right = xs.reduce((a, b) => Math.max(a, b), 0) || 1;
  const warp = y.log ? Math.log : (value) => value;
  const [bottom, top] = [warp(y.low), warp(y.high)];
  return {
    ...y, right,
    toX: (value) => LEFT + (value / right) * (WIDTH - LEFT - RIGHT),
    toY: (value) => HEIGHT - BOTTOM - ((warp(y.log ? Math.max(value, y.low) : value) - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM),
  };
}

function line(one, { toX, toY }, ys = one.y) {
  let path = "", pen = "M";
  ys.forEach((value, i) => {
    if (value === null) { pen = "M"; return; }
    path += `${pen}${toX(one.x[i]).toFixed(1)} ${toY(value).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

function band(one, frame) {
  const there = one.x.map((_, i) => i).filter((i) => one.low[i] !== null && one.high[i] !== null);
  const point = (i, value) => `${frame.toX(one.x[i]).toFixed(1)} ${frame.toY(value).toFixed(1)}`;
  const edge = [...there.map((i) => point(i, one.high[i])), ...there.reverse().map((i) => point(i, one.low[i]))];
  return edge.length ? `M${edge.join("L")}Z` : "";
}

function drawAxes(svg, frame, options) {
  for (const at of frame.log ? logTicks(frame.low, frame.high) : ticks(frame.low, frame.high, 6)) {
    const y = frame.toY(at);
    element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }, svg);
    element("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, svg, tickText(at));
  }
  for (const at of ticks(0, frame.right, 8).filter((at) => options.x === "seconds" || Number.isInteger(at))) {
    element("text", { x: frame.toX(at), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, svg, at.toLocaleString("en"));
  }
  element("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }, svg);
  const below = { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle", class: "label" };
  element("text", below, svg, options.x === "seconds" ? "time in seconds" : options.x);
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  const beside = { x: 0, y: 0, "text-anchor": "middle", class: "label", transform: `translate(13 ${middle}) rotate(-90)` };
  element("text", beside, svg, options.title + (options.percent ? " in %" : ""));
}

function drawSeries(svg, series, frame) {
  const clip = `clip-${Math.random().toString(36).slice(2)}`;
  const box = { x: LEFT, y: TOP - 2, width: WIDTH - LEFT - RIGHT + 3, height: HEIGHT - TOP - BOTTOM + 4 };
  element("rect", box, element("clipPath", { id: clip }, element("defs", {}, svg)));
  const area = element("g", { "clip-path": `url(#${clip})` }, svg);
  for (const one of series) {
    if (one.low) element("path", { d: band(one, frame), fill: one.colour, "fill-opacity": 0.18 }, area);
  }
  for (const one of series) {
    const known = one.y.filter((value) => value !== null).length;
    const style = { fill: "none", stroke: one.colour, "stroke-width": one.width, "stroke-dasharray": one.dash, "stroke-linejoin": "round" };
    if (known > 1) element("path", { d: line(one, frame), ...style }, area);
    else one.y.forEach((v, i) => v !== null && element("circle", { cx: frame.toX(one.x[i]), cy: frame.toY(v), r: 3.5, fill: one.colour }, area));
  }
}

// The value of a curve at the point nearest to x, if the curve reaches there.
function near(one, x, reach) {
  let best = -1;
  one.x.forEach((at, i) => {
    if (one.y[i] !== null && Math.abs(at - x) <= reach && (best < 0 || Math.abs(at - x) < Math.abs(one.x[best] - x))) best = i;
  });
  return best;
}

function follow(holder, svg, series, frame, options) {
  const cursor = element("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" }, svg);
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  holder.append(tip);
  const hide = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * frame.right;
    if (x < 0 || x > frame.right * 1.02) { hide(); return; }
    const found = series.map((one) => [one, near(one, x, frame.right / 30)]).filter(([, i]) => i >= 0);
    if (!found.length) { hide(); return; }
    const at = found[0][0].x[found[0][1]];
    cursor.setAttribute("x1", frame.toX(at));
    cursor.setAttribute("x2", frame.toX(at));
    cursor.setAttribute("visibility", "visible");
    const head = document.createElement("b");
    head.textContent = options.x === "seconds" ? `${at.toFixed(1)} s` : `${options.x} ${at.toLocaleString("en")}`;
    found.sort(([a, i], [b, j]) => b.y[j] - a.y[i]);
    tip.replaceChildren(head, ...found.slice(0, 14).map(([one, i]) => entry(one, shown(one.y[i], one.percent))));
    tip.hidden = false;
    const left = event.clientX - box.left + 24;
    tip.style.left = `${left + tip.offsetWidth > box.width ? left - tip.offsetWidth - 30 : left}px`;
    tip.style.top = `${event.clientY - box.top + 10}px`;
  });
}

function entry(one, value) {
  const row = document.createElement("div");
  const [name, number] = [document.createElement("span"), document.createElement("span")];
  [name.textContent, number.textContent] = [one.name, value];
  row.append(swatch(one), name, number);
  return row;
}

export function swatch(one) {
  const mark = document.createElement("span");
  mark.className = "swatch";
  mark.style.borderTopColor = one.colour;
  mark.style.borderTopStyle = one.dash ? "dashed" : "solid";
  mark.style.borderTopWidth = `${Math.max(1.5, one.width)}px`;
  return mark;
}

export function draw(holder, series, options) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": options.title });
  const drawable = series.filter((one) => one.y.some((value) => value !== null));
  holder.replaceChildren(svg);
  if (!drawable.length) {
    element("text", { class: "nothing", x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, svg, options.nothing);
    return;
  }
  const percent = drawable[0].percent;
  const frame = plot(drawable, options);
  drawAxes(svg, frame, { ...options, percent });
  drawSeries(svg, drawable, frame);
  follow(holder, svg, drawable, frame, options);
}
