// The list of runs and their curves. Asks for what has changed every other second; runs that are chosen are drawn.

import { draw, shown, swatch } from "./chart.js";

const COLOURS = Array.from({ length: 8 }, (_, i) => `var(--c${i})`);
const PERIOD = 2000;
const $ = (id) => document.getElementById(id);

const state = { runs: [], chosen: [], touched: false, sort: { key: "created", down: true }, charts: ["loss", null], curves: new Map() };

const COLUMNS = [
  { key: "name", title: "run", of: (run) => run.name },
  { key: "state", title: "state", of: (run) => run.state },
  { key: "result", title: "result", number: true, of: (run) => run.headline?.value },
  { key: "loss", title: "val loss", number: true, of: (run) => run.best.val_loss },
  { key: "epochs", title: "epochs", number: true, of: (run) => run.epochs },
  { key: "members", title: "members", number: true, of: (run) => run.members },
  { key: "model", title: "model", of: (run) => run.recipe["model.kind"] },
  { key: "optimizer", title: "optimizer", of: (run) => run.recipe["optimizer.kind"] },
  { key: "lr", title: "lr", number: true, of: (run) => run.recipe["optimizer.lr"] },
  { key: "batch", title: "batch", number: true, of: (run) => run.recipe["data.batch"] },
  { key: "seconds", title: "time", number: true, of: (run) => run.seconds },
  { key: "findings", title: "findings", number: true, of: (run) => run.findings || null },
  { key: "created", title: "begun", of: (run) => run.created },
];

const TEXT = {
  epochs: (run) => (run.total_epochs ? `${shortNumber(run.epochs)} / ${shortNumber(run.total_epochs)}` : shortNumber(run.epochs)),
  seconds: (run) => run.time,
  created: (run) => run.created.slice(5, 16).replace("T", " "),
  loss: (run) => shown(run.best.val_loss),
  result: (run) => run.headline?.text ?? "–",
  lr: (run) => (run.recipe["optimizer.lr"] === "varies" ? "varies" : String(run.recipe["optimizer.lr"] ?? "–")),
};

function title(what) {
  return state.runs.find((run) => run.measures[what])?.measures[what].title ?? what;
}

function shortNumber(value) {
  return String(Number(Number(value).toPrecision(4)));
}

// --- the list ---------------------------------------------------------------------------------------------------------

function matches(run) {
  const text = [run.id, run.name, run.state, run.headline?.text, ...Object.entries(run.recipe).map(([path, value]) => `${path}=${value}`)];
  const all = text.join(" ").toLowerCase();
  return $("filter").value.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

function ordered(runs) {
  const { of } = COLUMNS.find((column) => column.key === state.sort.key);
  const missing = (value) => value === null || value === undefined;
  return [...runs].sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return state.sort.down ? -order : order;
  });
}

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawHead() {
  const cells = COLUMNS.map((column) => {
    const button = make("button", { type: "button", textContent: column.title });
    button.addEventListener("click", () => {
      state.sort = { key: column.key, down: state.sort.key === column.key ? !state.sort.down : Boolean(column.number) };
      drawList();
    });
    const head = make("th", { className: column.number ? "number" : "" }, button);
    const way = state.sort.down ? "descending" : "ascending";
    head.setAttribute("aria-sort", state.sort.key === column.key ? way : "none");
    return head;
  });
  document.querySelector("#runs thead").replaceChildren(make("tr", {}, make("th"), ...cells));
}

function cell(run, column) {
  if (column.key === "name") {
    const report = make("a", { href: `report?run=${encodeURIComponent(run.id)}`, textContent: "report" });
    return make("td", { className: "name" }, run.name, make("small", {}, `${run.id} · `, report));
  }
  if (column.key === "state") return make("td", { className: "state-cell" }, make("span", { className: `state ${run.state}`, textContent: run.state }));
  const text = TEXT[column.key]?.(run) ?? String(column.of(run) ?? "–");
  const made = make("td", { className: column.number ? "number" : "" }, text);
  if (column.key === "epochs" && run.state === "running" && run.total_epochs) {
    made.append(make("progress", { value: run.epochs, max: run.total_epochs }));
  }
  return made;
}

function drawList() {
  drawHead();
  const seen = ordered(state.runs.filter(matches));
  const rows = seen.map((run) => {
    const box = make("input", { type: "checkbox", checked: state.chosen.includes(run.id), ariaLabel: `draw ${run.name}` });
    box.addEventListener("change", () => choose(run.id));
    const first = make("td", { className: "swatches" }, box, swatch(look(run.id)));
    const row = make("tr", { className: box.checked ? "chosen" : "", title: run.sentences.join(" ") });
    row.append(first, ...COLUMNS.map((column) => cell(run, column)));
    row.addEventListener("click", (event) => event.target.closest("a, input") || choose(run.id));
    return row;
  });
  document.querySelector("#runs tbody").replaceChildren(...rows);
  $("count").textContent = `${seen.length} of ${state.runs.length} runs`;
  $("empty").hidden = state.runs.length > 0;
}

function choose(id) {
  state.touched = true;
  state.chosen = state.chosen.includes(id) ? state.chosen.filter((other) => other !== id) : [...state.chosen, id];
  remember();
  drawList();
  refreshCurves();
}

// What is looked at stands in the address, so that it can be kept and passed on.
function remember() {
  const view = new URLSearchParams([...state.chosen.map((id) => ["run", id]), ...state.charts.filter(Boolean).map((metric) => ["show", metric]), ["x", $("x").value]]);
  history.replaceState(null, "", `#${view}`);
}

function recall() {
  const view = new URLSearchParams(location.hash.slice(1));
  state.chosen = view.getAll("run");
  state.touched = state.chosen.length > 0;
  state.charts = state.charts.map((metric, i) => view.getAll("show")[i] ?? metric);
  $("x").value = view.get("x") ?? "epoch";
}

// --- the curves -------------------------------------------------------------------------------------------------------

function look(id) {
  const place = Math.max(0, state.chosen.indexOf(id));
  return { colour: COLOURS[place % COLOURS.length], dash: ["", "7 4", "2 3"][Math.floor(place / COLOURS.length) % 3], width: 2 };
}

function options() {
  const known = state.chosen.flatMap((id) => state.runs.find((run) => run.id === id)?.curves ?? []);
  return [...new Set(known)];
}

function pickMetrics() {
  const known = options();
  const judged = state.runs.find((run) => run.id === state.chosen[0])?.judged_by;
  const wanted = ["loss", judged && judged !== "loss" ? judged : "step_loss"];
  state.charts = state.charts.map((metric, i) => (known.includes(metric) ? metric : known.includes(wanted[i]) ? wanted[i] : known[i] ?? known[0]));
}

function styled(run, one) {
  const base = look(run.id);
  const scale = one.percent ? (value) => (value === null ? null : 100 * value) : (value) => value;
  const several = state.chosen.length > 1;
  const thin = one.split === "train" && one.metric !== "step_loss";
  const name = [several ? run.id : "", one.label, { val: several ? "" : "validation", train: "training" }[one.split] ?? ""];
  const alone = !several && run.members > 1 && run.members <= 8;
  const colour = alone ? COLOURS[Number(one.label.split(" ")[1]) % COLOURS.length] : !several && thin ? COLOURS[1] : base.colour;
  return {
    ...one, colour, width: thin ? 1.1 : base.width, dash: thin ? "5 3" : base.dash, thin,
    name: name.filter(Boolean).join(", "), y: one.y.map(scale), low: one.low?.map(scale), high: one.high?.map(scale),
  };
}

function chartOf(index) {
  let holder = $("charts").children[index];
  if (holder) return holder;
  const select = make("select", { ariaLabel: "what is drawn" });
  select.addEventListener("change", () => { state.charts[index] = select.value; remember(); refreshCurves(); });
  holder = make("div", { className: "chart" }, select, make("div"));
  $("charts").append(holder);
  return holder;
}

function drawCharts() {
  const known = options();
  state.charts.forEach((metric, i) => {
    const holder = chartOf(i);
    const [select, place] = holder.children;
    if ([...select.options].map((option) => option.value).join() !== known.join()) {
      select.replaceChildren(...known.map((what) => make("option", { value: what, textContent: title(what) })));
    }
    select.value = metric ?? "";
    select.hidden = !known.length;
    const runs = state.chosen.map((id) => state.runs.find((run) => run.id === id)).filter(Boolean);
    const found = runs.flatMap((run) => (state.curves.get(`${run.id} ${metric}`) ?? []).map((one) => styled(run, one)));
    const series = found.filter((one) => !one.thin || $("training").checked || found.every((other) => other.thin));
    const x = metric === "step_loss" ? "step" : $("x").value;
    draw(place, series, { x, scale: $("scale").value, title: title(metric ?? ""), nothing: runs.length ? "nothing measured yet" : "choose runs below" });
  });
  drawLegend();
}

function drawLegend() {
  const runs = state.chosen.map((id) => state.runs.find((run) => run.id === id)).filter(Boolean);
  const entries = runs.map((run) => make("span", { title: run.id }, ...(runs.length > 1 || run.members < 2 || run.members > 8 ? [swatch(look(run.id))] : []), `${run.name} · ${run.id}`));
  $("legend").replaceChildren(...entries);
}

// --- asking -----------------------------------------------------------------------------------------------------------

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

async function refreshCurves(onlyRunning = false) {
  pickMetrics();
  const jobs = state.chosen.flatMap((id) => {
    const run = state.runs.find((one) => one.id === id);
    return run ? [...new Set(state.charts)].filter((metric) => run.curves.includes(metric)).map((metric) => [run, metric]) : [];
  });
  await Promise.all(jobs.map(async ([run, metric]) => {
    const key = `${run.id} ${metric}`;
    if (onlyRunning && run.state !== "running" && state.curves.has(key) && !run.changed) return;
    const query = new URLSearchParams({ run: run.id, metric, x: $("x").value });
    try { state.curves.set(key, (await ask(`api/curves?${query}`)).series); } catch { state.curves.delete(key); }
  }));
  drawCharts();
}

async function refresh() {
  try {
    const answer = await ask("api/runs");
    const before = new Map(state.runs.map((run) => [run.id, run]));
    state.runs = answer.runs.map((run) => ({ ...run, changed: before.get(run.id)?.state !== run.state || before.get(run.id)?.steps !== run.steps }));
    state.chosen = state.chosen.filter((id) => state.runs.some((run) => run.id === id));
    if (!state.touched) state.chosen = state.runs.filter((run) => run.state === "running").map((run) => run.id).slice(0, 8);
    if (!state.touched && !state.chosen.length) state.chosen = state.runs.slice(0, 1).map((run) => run.id);
    const running = state.runs.filter((run) => run.state === "running").length;
    $("where").textContent = answer.directory;
    $("pulse").textContent = running ? `${running} running, live` : "";
    drawList();
    await refreshCurves(true);
  } catch {
    $("pulse").textContent = "the server does not answer";
  }
  setTimeout(refresh, document.hidden ? 5 * PERIOD : PERIOD);
}

for (const id of ["scale", "training"]) $(id).addEventListener("change", drawCharts);
$("x").addEventListener("change", () => { remember(); refreshCurves(); });
$("filter").addEventListener("input", drawList);
$("none").addEventListener("click", () => { state.touched = true; state.chosen = []; remember(); drawList(); refreshCurves(); });
recall();
refresh();
