// What the layers do over training, on the live page and in reports: lines by layer, and histograms as ridges by epoch.
"use strict";
const RavineLayers = (() => {
  const { draw, shown } = RavineCharts;
  const SVG = "http://www.w3.org/2000/svg";
  const LINES = 6; // of the layers, evenly spaced by depth
  const KINDS = { activations: "outputs", gradients: "gradients", weights: "weights" };
  const UP = 3; // a ridge is as high as so many of the distances between ridges

  function evenly(all, most) {
    if (all.length <= most) return all;
    return Array.from({ length: most }, (_, i) => all[Math.round((i * (all.length - 1)) / (most - 1))]);
  }

  // in a list of layers the name is a number, which says little
  function titled(name, kind) {
    return /^[\d.]+$/.test(name) && kind ? `${name} ${kind}` : name;
  }

  function lines(holder, records, key, options) {
    const layers = evenly(records.at(-1).layers, LINES);
    const x = records.map((record) => record[options.x]);
    const series = layers.map(({ name, kind }, i) => ({ name: titled(name, kind), x, y: records.map((record) => record.layers.find((layer) => layer.name === name)?.[key] ?? null), colour: `--c${i}`, dash: [[], [7, 4], [2, 3]][i % 3] }));
    if (options.usual) series.push({ name: `${options.usual}, a usual size`, x: [x[0], x.at(-1)], y: [options.usual, options.usual], colour: "--faint", width: 1, dash: [2, 4] });
    draw(holder, series, { scale: "auto", height: 240, ...options });
  }

  function element(parent, name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  }

  function make(name, className, text = "") {
    return Object.assign(document.createElement(name), { className, textContent: text });
  }

  // one layer: a ridge for each record, the first at the top; heights are roots of densities, so that tails are seen
  function ridges(name, found, what) {
    const low = Math.min(...found.map((one) => one.low)), high = Math.max(...found.map((one) => one.high));
    const across = (value) => (100 * (value - low)) / (high - low || 1);
    const base = (i) => UP + i;
    const box = make("figure", "ridges");
    const svg = element(document.createElement("div"), "svg", { viewBox: `0 0 100 ${found.length + UP}`, preserveAspectRatio: "none", role: "img", "aria-label": `${what} of ${name} from ${found[0].at} to ${found.at(-1).at}: at first between ${shown(found[0].low)} and ${shown(found[0].high)}, at the end between ${shown(found.at(-1).low)} and ${shown(found.at(-1).high)}` });
    if (low < 0 && high > 0) element(svg, "line", { x1: across(0), x2: across(0), y1: 0, y2: found.length + UP, class: "zero" });
    found.forEach((one, i) => {
      const most = Math.max(...one.counts, 1), width = (one.high - one.low) / one.counts.length;
      const points = one.counts.map((count, k) => `${across(one.low + (k + 0.5) * width).toFixed(2)},${(base(i) - UP * Math.sqrt(count / most) * 0.95).toFixed(3)}`);
      const ends = [across(one.low), across(one.high)].map((place) => `${place.toFixed(2)},${base(i)}`);
      const path = element(svg, "polygon", { points: [ends[0], ...points, ends[1]].join(" "), style: `--age: ${Math.round(25 + (75 * (i + 1)) / found.length)}%` });
      element(path, "title", {}).textContent = `${one.at}: ${shown(one.low)} to ${shown(one.high)}`;
    });
    const ages = make("div", "ages");
    ages.append(make("span", "", found[0].at), make("span", "", found.at(-1).at));
    const axis = make("div", "axis");
    const zero = low < 0 && high > 0 && across(0) > 25 && across(0) < 75 ? make("span", "", "0") : null;
    if (zero) zero.style.left = `${across(0)}%`;
    axis.append(make("span", "", shown(low)), ...(zero ? [zero] : []), make("span", "", shown(high)));
    box.append(make("figcaption", "", name), svg.parentNode, ages, axis);
    return box;
  }

  function at(record, x) {
    return x === "step" || record.epoch < 0.5 ? `step ${record.step.toLocaleString("en")}` : `epoch ${Number(record.epoch.toPrecision(3))}`;
  }

  function histograms(holder, records, kind, x) {
    const layers = records.at(-1).layers.filter((layer) => layer[kind]);
    holder.replaceChildren(...layers.map(({ name, kind: type }) => {
      const found = records.flatMap((record) => {
        const layer = record.layers.find((one) => one.name === name);
        return layer?.[kind] ? [{ ...layer[kind], at: at(record, x) }] : [];
      });
      return ridges(titled(name, type), found, KINDS[kind]);
    }));
    if (!layers.length) holder.append(make("p", "faint small", "Outputs could not be looked at: the model is not called with a batch."));
  }

  function across(records) {
    return records.at(-1).epoch < 3 ? "step" : "epoch";
  }

  // records: [{step, epoch, layers: [{name, weights, gradients, activations, gradient_norm, update_ratio}]}]
  function all(holder, records) {
    holder.hidden = !records?.length;
    if (holder.hidden) return;
    const x = across(records);
    if (!holder.firstChild) {
      const charts = make("div", "figures"), tools = make("fieldset", "tools small kinds"), grid = make("div", "ridge-grid");
      for (const title of ["Gradient norm by layer", "Update beside the weights (ratio of norms)"]) {
        const figure = make("figure", "");
        figure.append(make("figcaption", "", title), make("div", ""));
        charts.append(figure);
      }
      tools.append(make("legend", "hidden", "histograms of"));
      for (const [kind, word] of Object.entries(KINDS)) {
        const label = make("label", ""), input = Object.assign(document.createElement("input"), { type: "radio", name: "layer-kind", value: kind, checked: kind === "activations" });
        input.addEventListener("change", () => { holder.ravineKind = kind; all(holder, holder.ravineRecords); });
        label.append(input, ` ${word}`);
        tools.append(label);
      }
      tools.append(make("span", "faint", "Histograms by layer: the first at the top, the latest in front; the height is the root of the density."));
      holder.append(charts, tools, grid);
    }
    holder.ravineRecords = records;
    const [charts, , grid] = holder.children;
    const [norms, ratios] = [...charts.children].map((figure) => figure.children[1]);
    lines(norms, records, "gradient_norm", { title: "gradient norm", x });
    lines(ratios, records, "update_ratio", { title: "update / weights", x, usual: 0.001 });
    histograms(grid, records, holder.ravineKind ?? "activations", x);
  }
  return { all, lines, across };
})();
