// The list of runs and studies and their curves. What changes is sent by the server; runs that are chosen are drawn.
"use strict";
const COLOURS = Array.from({ length: 8 }, (_, i) => `--c${i}`);
const $ = (id) => document.getElementById(id);
const { draw, DASHES, shown, swatch, css } = RavineCharts;

const state = { runs: [], studies: [], damaged: [], chosen: [], touched: false, sort: { key: "created", down: true }, charts: ["loss", null], curves: new Map() };

const COLUMNS = [
  { key: "name", title: "run", of: (run) => run.name },
  { key: "state", title: "state", of: (run) => run.state },
  { key: "result", title: "result", number: true, of: (run) => run.headline?.value },
  { key: "loss", title: "val loss", number: true, of: (run) => run.best.val_loss },
  { key: "epochs", title: "epochs", number: true, of: (run) => run.epochs },
  { key: "seconds", title: "time", number: true, of: (run) => run.seconds },
  { key: "findings", title: "findings", number: true, of: (run) => run.findings || null },
  { key: "members", title: "members", number: true, minor: true, of: (run) => run.members },
  { key: "model", title: "model", minor: true, of: (run) => run.recipe["model.kind"] },
  { key: "optimizer", title: "optimizer", minor: true, of: (run) => run.recipe["optimizer.kind"] },
  { key: "lr", title: "lr", number: true, minor: true, of: (run) => run.recipe["optimizer.lr"] },
  { key: "created", title: "begun", minor: true, of: (run) => run.created },
];

const TEXT = {
  epochs: (run) => (run.total_epochs ? `${short(run.epochs)} / ${short(run.total_epochs)}` : short(run.epochs)),
  seconds: (run) => (run.left ? `${run.time}, ${run.left} left` : run.time),
  created: (run) => run.created.slice(5, 16).replace("T", " "),
  loss: (run) => shown(run.best.val_loss),
  result: (run) => run.headline?.text ?? "–",
  lr: (run) => String(run.recipe["optimizer.lr"] ?? "–"),
};

const short = (value) => String(Number(Number(value).toPrecision(4)));
const runOf = (id) => state.runs.find((run) => run.id === id);
const title = (what) => state.runs.find((run) => run.measures[what])?.measures[what].title ?? what ?? "";

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
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

function drawHead() {
  const row = document.querySelector("#runs thead tr");
  const focus = document.activeElement?.closest?.("#runs th")?.cellIndex;
  const cells = COLUMNS.map((column) => {
    const button = make("button", { type: "button", textContent: column.title });
    button.addEventListener("click", () => {
      state.sort = { key: column.key, down: state.sort.key === column.key ? !state.sort.down : Boolean(column.number) };
      drawList();
    });
    const head = make("th", { className: `${column.number ? "number" : ""} ${column.minor ? "minor" : ""}`, scope: "col" }, button);
    head.setAttribute("aria-sort", state.sort.key === column.key ? (state.sort.down ? "descending" : "ascending") : "none");
    return head;
  });
  const made = make("tr", {}, make("td", {}), ...cells);
  if (row) row.replaceWith(made);
  else document.querySelector("#runs thead").append(made);
  if (focus !== undefined) made.cells[focus]?.querySelector("button")?.focus();
}

function cell(run, column) {
  const minor = column.minor ? " minor" : "";
  if (column.key === "name") {
    const report = make("a", { href: `report?run=${encodeURIComponent(run.id)}`, textContent: "report" });
    return make("td", { className: "name" }, run.name, make("small", {}, `${run.id} · `, report));
  }
  if (column.key === "state") return make("td", { className: "state-cell" }, make("span", { className: `state ${run.state}`, textContent: run.state }));
  const text = TEXT[column.key]?.(run) ?? String(column.of(run) ?? "–");
  const made = make("td", { className: (column.number ? "number" : "") + minor }, text);
  if (column.key !== "result") made.dataset.label = column.title;
  if (column.key === "epochs" && run.state === "running" && run.total_epochs) {
    made.append(make("progress", { value: run.epochs, max: run.total_epochs, ariaLabel: "epochs done" }));
  }
  return made;
}

function drawList() {
  drawHead();
  const focus = document.activeElement?.dataset?.run;
  const seen = ordered(state.runs.filter(matches));
  const rows = seen.map((run) => {
    const box = make("input", { type: "checkbox", checked: state.chosen.includes(run.id), ariaLabel: `draw ${run.name} ${run.id}` });
    box.dataset.run = run.id;
    box.addEventListener("change", () => choose(run.id));
    const first = make("td", { className: "swatches" }, box, swatch(css(look(run.id).colour), look(run.id).dash));
    const row = make("tr", { className: box.checked ? "chosen" : "", title: run.sentences.join(" ") });
    row.append(first, ...COLUMNS.map((column) => cell(run, column)));
    row.addEventListener("click", (event) => event.target.closest("a, input") || choose(run.id));
    return row;
  });
  document.querySelector("#runs tbody").replaceChildren(...rows);
  if (focus) document.querySelector(`#runs input[data-run="${CSS.escape(focus)}"]`)?.focus();
  $("count").textContent = `${seen.length} of ${state.runs.length} runs`;
  $("empty").hidden = state.runs.length > 0;
  $("damaged").replaceChildren(...state.damaged.map((one) => make("p", {}, `${one.id} cannot be read: ${one.why}`)));
  drawStudies();
}

function drawStudies() {
  $("studies-section").hidden = !state.studies.length;
  const rows = state.studies.map((study) => {
    const inner = state.runs.filter((run) => run.study === study.id);
    const compare = make("button", { type: "button", textContent: "draw its runs" });
    compare.addEventListener("click", () => { state.touched = true; state.chosen = inner.map((run) => run.id).slice(0, 16); remember(); drawList(); refreshCurves(); });
    const name = make("td", { className: "name" }, study.name, make("small", {}, make("br"), study.id));
    const runs = make("td", { className: "number" }, String(study.members));
    runs.dataset.label = "runs";
    const report = make("td", {}, ...(study.report ? [make("a", { href: `study?id=${encodeURIComponent(study.id)}`, textContent: "report" }), " · "] : []), ...(inner.length ? [compare] : []));
    return make("tr", {}, name, make("td", {}, make("span", { className: `state ${study.state}`, textContent: study.state })), runs, make("td", {}, study.created.slice(5, 16).replace("T", " ")), report);
  });
  document.querySelector("#studies tbody").replaceChildren(...rows);
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
  return { colour: COLOURS[place % COLOURS.length], dash: DASHES[(place + Math.floor(place / COLOURS.length)) % DASHES.length], width: 2 };
}

function options() {
  return [...new Set(state.chosen.flatMap((id) => runOf(id)?.curves ?? []))];
}

function pickMetrics() {
  const known = options();
  const judged = runOf(state.chosen[0])?.judged_by;
  const wanted = ["loss", judged && judged !== "loss" ? judged : "step_loss"];
  state.charts = state.charts.map((metric, i) => (known.includes(metric) ? metric : known.includes(wanted[i]) ? wanted[i] : known[i] ?? known[0]));
}

function styled(run, one) {
  const base = look(run.id);
  const several = state.chosen.length > 1;
  const thin = one.split === "train" && one.metric !== "step_loss";
  const name = [several ? run.name : "", several ? run.id : "", one.label, { val: several ? "" : "validation", train: "training" }[one.split] ?? ""];
  const alone = !several && run.members > 1 && run.members <= 8;
  const member = Number(one.label.split(" ")[1]);
  const colour = alone ? COLOURS[member % COLOURS.length] : !several && thin ? COLOURS[1] : base.colour;
  const band = several && thin ? { low: undefined, high: undefined } : {}; // bands above bands hide each other
  return { ...one, ...band, colour, width: thin ? 1.1 : base.width, dash: thin ? [5, 3] : alone ? DASHES[member % DASHES.length] : base.dash, thin, name: name.filter(Boolean).join(" ") };
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
  state.charts.forEach((_, i) => chartOf(i)); // all first: the width of one follows from their number
  state.charts.forEach((metric, i) => {
    const [select, place] = chartOf(i).children;
    if ([...select.options].map((option) => option.value).join() !== known.join()) {
      select.replaceChildren(...known.map((what) => make("option", { value: what, textContent: title(what) })));
    }
    select.value = metric ?? "";
    select.hidden = !known.length;
    const runs = state.chosen.map(runOf).filter(Boolean);
    const found = runs.flatMap((run) => (state.curves.get(`${run.id} ${metric}`) ?? []).map((one) => styled(run, one)));
    const series = found.filter((one) => !one.thin || $("training").checked || found.every((other) => other.thin));
    const x = metric === "step_loss" ? "step" : $("x").value;
    draw(place, series, { x, scale: $("scale").value, smooth: Number($("smooth").value), title: title(metric), nothing: runs.length ? "nothing measured yet" : "choose runs below" });
  });
}

// --- the run that is looked at ----------------------------------------------------------------------------------------

async function look_at() {
  const run = runOf(state.chosen[0]);
  $("looked-at").hidden = !run;
  if (!run) return;
  const found = await ask(`api/run?${new URLSearchParams({ run: run.id })}`);
  $("run-title").textContent = run.name;
  const left = run.left ? ` About ${run.left} left.` : "";
  $("run-now").textContent = run.sentences.join(" ") + left;
  $("run-progress").replaceChildren(...(run.state === "running" && run.total_epochs ? [make("progress", { value: run.epochs, max: run.total_epochs, ariaLabel: "epochs done" })] : []));
  const controls = run.state === "running" && found.may_ask;
  $("controls").hidden = !controls;
  const set = found.events.filter((event) => event.kind === "set").at(-1);
  if (document.activeElement !== $("rate") && !$("rate").dataset.touched) $("rate").value = set ? set.text.match(/is ([\d.e+-]+)/)?.[1] ?? found.rate : found.rate;
  $("findings").replaceChildren(...found.findings.map((finding) => {
    const remedy = finding.remedies?.[0];
    return make("article", { className: "finding" }, make("strong", {}, finding.cause ?? ""), " ", make("code", {}, finding.code), ...(remedy ? [make("p", {}, `What to do: ${remedy.why ?? ""} ${Object.entries(remedy.edits ?? {}).map(([path, value]) => `${path}=${typeof value === "object" ? JSON.stringify(value) : value}`).join(" ")}`)] : []), make("p", { className: "faint" }, finding.evidence ?? ""));
  }));
  $("happened").hidden = !found.events.length;
  $("happened").querySelector("ul").replaceChildren(...found.events.map((event) => make("li", {}, `step ${event.step.toLocaleString("en")}${event.member === null ? "" : `, member ${event.member}`}: ${event.text}`)));
  state.layers = found.layers;
  drawLayers(found.layers);
  $("samples-shown").hidden = !found.samples.records.length;
  RavineSamples.all($("samples"), { ...found.samples, id: run.id });
}

function drawLayers(records) {
  $("layers-shown").hidden = !records?.length;
  if ($("layers-shown").open) RavineLayers.all($("layers"), records);
}

async function act(kind, value = null) {
  const run = runOf(state.chosen[0]);
  const body = JSON.stringify({ run: run.id, kind, value });
  const answer = await fetch("api/act", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  const text = { stop: "It stops at its next block; ravine resume continues it.", snapshot: "A snapshot is written at the next block.", set: "The rate changes at the next block." };
  $("answer").textContent = answer.ok ? text[kind] : (await answer.json()).error;
}

$("controls").addEventListener("submit", (event) => { event.preventDefault(); delete $("rate").dataset.touched; act("set", Number($("rate").value)); });
$("rate").addEventListener("input", () => { $("rate").dataset.touched = "yes"; });
$("snapshot").addEventListener("click", () => act("snapshot"));
$("stop").addEventListener("click", () => act("stop"));

// --- asking -----------------------------------------------------------------------------------------------------------

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

async function refreshCurves(changed = null) {
  pickMetrics();
  const before = new Set(state.curves.keys());
  const jobs = state.chosen.flatMap((id) => {
    const run = runOf(id);
    return run ? [...new Set(state.charts)].filter((metric) => run.curves.includes(metric)).map((metric) => [run, metric]) : [];
  });
  await Promise.all(jobs.map(async ([run, metric]) => {
    const key = `${run.id} ${metric}`;
    if (changed && !changed.has(run.id) && state.curves.has(key)) return;
    const query = new URLSearchParams({ run: run.id, metric, x: $("x").value });
    try { state.curves.set(key, (await ask(`api/curves?${query}`)).series); } catch { state.curves.delete(key); }
    if (jobs.length > 1 && !before.has(key)) drawCharts(); // the first that is there need not wait for the others
  }));
  drawCharts();
  await look_at().catch(() => {});
}

async function take(answer) {
  const before = new Map(state.runs.map((run) => [run.id, JSON.stringify(run)]));
  const changed = new Set(answer.runs.filter((run) => before.get(run.id) !== JSON.stringify(run)).map((run) => run.id));
  Object.assign(state, { runs: answer.runs, studies: answer.studies, damaged: answer.damaged });
  const chosen = state.chosen.join();
  state.chosen = state.chosen.filter((id) => runOf(id));
  if (!state.touched) state.chosen = state.runs.filter((run) => run.state === "running").map((run) => run.id).slice(0, 8);
  if (!state.touched && !state.chosen.length) state.chosen = state.runs.slice(0, 1).map((run) => run.id);
  const running = state.runs.filter((run) => run.state === "running").length;
  $("where").textContent = answer.directory;
  $("pulse").textContent = running ? `${running} running, live` : "";
  drawList();
  if ((chosen !== state.chosen.join() || state.chosen.some((id) => changed.has(id)))) await refreshCurves(changed);
}

function listen() {
  const source = new EventSource("api/events");
  let busy = false, last = null;
  source.onmessage = async (event) => {
    last = event.data;
    if (busy) return;
    busy = true;
    while (last !== null) { const now = last; last = null; await take(JSON.parse(now)); }
    busy = false;
  };
  source.onerror = () => { $("pulse").textContent = "the server does not answer"; };
}

for (const id of ["scale", "training"]) $(id).addEventListener("change", drawCharts);
$("smooth").addEventListener("input", () => { $("smooth-value").textContent = $("smooth").value; drawCharts(); });
$("x").addEventListener("change", () => { remember(); refreshCurves(); });
$("filter").addEventListener("input", drawList);
$("layers-shown").addEventListener("toggle", () => drawLayers(state.layers));
$("none").addEventListener("click", () => { state.touched = true; state.chosen = []; remember(); drawList(); refreshCurves(); });
// the token comes with the address that the server printed; a cookie holds it from then on
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname + location.hash);
recall();
listen();
