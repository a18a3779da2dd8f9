// The form that /schema asks for. What comes from the run or the server is written as text, never as HTML.
const form = document.getElementById("form");
const answer = document.getElementById("answer");

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function ask(body, type) {
  answer.replaceChildren(make("p", { className: "faint", textContent: "…" }));
  try {
    const reply = await fetch("predict", { method: "POST", headers: { "Content-Type": type }, body });
    show(await reply.json());
  } catch (error) {
    show({ error: String(error) });
  }
}

function show(found) {
  answer.replaceChildren();
  if (found.error) {
    answer.append(make("p", { className: "error", textContent: found.error }));
    return;
  }
  if (found.continuation !== undefined) answer.append(make("pre", { textContent: found.continuation }));
  (found.predictions ?? []).slice(0, 20).forEach((value, row) => {
    answer.append(make("h2", {}, ...named(value)));
    const each = found.probabilities?.[row];
    if (each && !Array.isArray(each)) answer.append(bars(each));
  });
  for (const text of found.warnings ?? []) answer.append(make("p", { className: "faint", textContent: text }));
}

// An answer: a class, or numbers with the names of what they are.
function named(value) {
  const targets = schema.answer.targets ?? [];
  return [value].flat().flatMap((each, place) => {
    const text = typeof each === "number" ? String(Number(each.toPrecision(6))) : String(each);
    const note = targets[place] ? make("small", { textContent: `${targets[place]} ` }) : "";
    return [place ? ", " : "", note, text];
  });
}

function bars(each) {
  const table = make("table");
  const rows = Object.entries(each).sort((a, b) => b[1] - a[1]).slice(0, 10);
  for (const [name, share] of rows) {
    const meter = make("meter", { min: 0, max: 1, value: share });
    const cells = [make("td", { textContent: name }), make("td", { textContent: share.toFixed(4) }), make("td", {}, meter)];
    table.append(make("tr", {}, ...cells));
  }
  return table;
}

function picture() {
  const image = make("img", { alt: "", hidden: true });
  const file = make("input", { type: "file", accept: "image/*", hidden: true });
  const text = make("span", { textContent: "Drop a picture here, or click to choose one" });
  const drop = make("div", { id: "drop", tabIndex: 0, role: "button" }, text, image, file);
  const take = (chosen) => {
    if (!chosen) return;
    if (image.src) URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(chosen);
    image.hidden = false;
    ask(chosen, "application/octet-stream");
  };
  drop.addEventListener("click", () => file.click());
  drop.addEventListener("keydown", (event) => { if (event.key === "Enter") file.click(); });
  file.addEventListener("change", () => take(file.files[0]));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  form.append(drop);
}

function row(schema) {
  const columns = schema.request.properties.rows.items.properties;
  const inputs = {};
  for (const [name, column] of Object.entries(columns)) {
    const input = make("input", { name, autocomplete: "off" });
    if (column.examples?.length) {
      const list = make("datalist", { id: `of-${Object.keys(inputs).length}` });
      list.append(...column.examples.map((value) => make("option", { value })));
      input.setAttribute("list", list.id);
      form.append(list);
    }
    inputs[name] = input;
    const note = make("small", { textContent: column.description ?? "" });
    form.append(make("label", {}, make("span", {}, name, note), input));
  }
  submit(() => {
    const filled = Object.entries(inputs).map(([name, input]) => [name, input.value === "" ? null : input.value]);
    return { rows: [Object.fromEntries(filled)] };
  });
}

function text(key, schema) {
  const area = make("textarea", { name: key });
  area.setAttribute("aria-label", key);
  form.append(area);
  submit(() => ({ [key]: key === "text" ? area.value : JSON.parse(area.value) }));
  if (key === "x") form.append(make("pre", { className: "faint", textContent: JSON.stringify(schema.request.properties.x) }));
}

function submit(body) {
  form.append(make("button", { textContent: "Predict" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      ask(JSON.stringify(body()), "application/json");
    } catch (error) {
      show({ error: String(error) });
    }
  });
}

const schema = await (await fetch("schema")).json();
document.title = `${schema.name}: predict`;
document.getElementById("name").textContent = schema.name;
if (schema.form === "table") row(schema);
else if (schema.form === "image") picture();
else text("text" in schema.request.properties ? "text" : "x", schema);
