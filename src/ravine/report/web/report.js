// The figures of a report: the same curves as on the live page, from data that the page holds.
"use strict";
(() => {
  const { draw, DASHES, css } = RavineCharts;
  const held = JSON.parse(document.getElementById("held").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  // as on the live page: validation in the first colour, training thin and dashed where both are drawn
  function looks(lines) {
    const both = new Set(lines.map((one) => one.split)).size > 1, two = both && lines.length === 2, several = lines.length > 9;
    return lines.map((one, i) => {
      const thin = both && one.split === "train", member = Number(/^member (\d+)/.exec(one.name)?.[1] ?? i);
      return { ...one, colour: colour(one, two ? Number(thin) : member), width: several ? 1.2 : thin ? 1.1 : 2, dash: thin ? [5, 3] : two || several ? [] : DASHES[member % DASHES.length] };
    });
  }

  function colour(one, i) {
    // lighter from low to high, so that the order is seen in greyscale too
    if (one.hue !== undefined) return `hsl(${Math.round(260 - 235 * one.hue)} 75% ${Math.round((matchMedia("(prefers-color-scheme: dark)").matches ? 50 : 26) + 27 * one.hue)}%)`;
    return `--c${i % 8}`;
  }

  function curves() {
    for (const holder of document.querySelectorAll("[data-curves]")) {
      const found = held.curves[holder.dataset.curves];
      const several = found.lines.length > 9;
      const lines = looks(found.lines);
      draw(holder, lines, { title: found.title, x: found.x, nothing: "no value was a finite number", scale: document.getElementById("log")?.checked ? "log" : found.scale ?? "auto", smooth: Number(document.getElementById("smooth")?.value ?? 0), height: Number(holder.dataset.height ?? 240) });
      if (several) holder.querySelector(".chart-legend")?.remove();
    }
    const found = held.calibration;
    for (const holder of document.querySelectorAll("[data-chart=calibration]")) {
      draw(holder, [
        { name: "the network", x: found.confidence, y: found.accuracy, percent: true, colour: "--c0" },
        { name: "as sure as it is right", x: [0, 1], y: [0, 1], percent: true, colour: "--c6", dash: [5, 4], width: 1 },
      ], { title: "how often it is right", x: "confidence", scale: "linear", height: 320 });
    }
  }

  function element(parent, name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  }

  // numbers of an axis: about four steps of 1, 2 or 5 times a power of ten
  function ticks(low, high) {
    const rough = (high - low) / 4 || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  }

  function short(value) {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e15)) return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
    return value.toLocaleString("en", size >= 1e4 ? { notation: "compact", maximumSignificantDigits: 3 } : { maximumSignificantDigits: 4 });
  }

  // a picture of 100 by 100 with numbers at its left and below; across and upwards: what is shown from where to where
  function framed(holder, across, upwards) {
    const box = Object.assign(document.createElement("div"), { className: "framed" });
    const svg = element(box, "svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", class: "square", role: "img", "aria-label": `${upwards.name} against ${across.name}` });
    const place = (axis) => (value) => (100 * (value - axis.low)) / (axis.high - axis.low || 1);
    const [x, y] = [place(across), place(upwards)];
    const sides = ["left", "below"].map((side) => Object.assign(document.createElement("div"), { className: side, ariaHidden: "true" }));
    const number = (side, value, at) => sides[side].append(Object.assign(document.createElement("span"), { textContent: short(value), style: at }));
    for (const value of ticks(upwards.low, upwards.high)) {
      element(svg, "line", { x1: 0, x2: 100, y1: 100 - y(value), y2: 100 - y(value), class: "grid" });
      number(0, value, `bottom: ${y(value)}%`);
    }
    for (const value of ticks(across.low, across.high)) {
      element(svg, "line", { x1: x(value), x2: x(value), y1: 0, y2: 100, class: "grid" });
      number(1, value, `left: ${x(value)}%`);
    }
    // as wide as the longest of its numbers, which stand at places of their own
    sides[0].append(Object.assign(document.createElement("i"), { textContent: [...sides[0].children].map((one) => one.textContent).reduce((a, b) => (b.length > a.length ? b : a), "") }));
    const names = ["upwards", "across"].map((way) => Object.assign(document.createElement("div"), { className: way, textContent: (way === "across" ? across : upwards).name }));
    box.append(...sides, ...names);
    holder.append(box);
    return { svg, x, y: (value) => 100 - y(value) };
  }

  for (const holder of document.querySelectorAll("[data-scatter]")) {
    const { target, value } = held.predicted;
    const ends = { low: Math.min(...target, ...value), high: Math.max(...target, ...value) };
    const { svg, x, y } = framed(holder, { name: "true value", ...ends }, { name: "predicted value", ...ends });
    element(svg, "line", { x1: 0, y1: 100, x2: 100, y2: 0, class: "agree" });
    target.forEach((v, i) => element(svg, "line", { x1: x(v), x2: x(v), y1: y(value[i]), y2: y(value[i]), class: "dot" }));
    holder.append(Object.assign(document.createElement("p"), { className: "faint small", textContent: "on the line both agree" }));
  }
  for (const holder of document.querySelectorAll("[data-bars]")) {
    const { counts, edges } = held.residuals;
    const { svg, x, y } = framed(holder, { name: "predicted minus true", low: edges[0], high: edges.at(-1) }, { name: "samples", low: 0, high: 1.04 * Math.max(...counts, 1) });
    counts.forEach((count, i) => element(svg, "rect", { x: x(edges[i]), y: y(count), width: 0.92 * (x(edges[i + 1]) - x(edges[i])), height: 100 - y(count) }));
    element(svg, "line", { x1: x(0), x2: x(0), y1: 0, y2: 100, class: "agree" });
  }

  // parallel coordinates: a line for each member, coloured by its result
  for (const holder of document.querySelectorAll("[data-parallel]")) {
    const { axes, rows } = held.parallel;
    const box = document.createElement("div");
    box.className = "parallel";
    const svg = element(box, "svg", { viewBox: `0 0 ${axes.length - 1} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `parallel coordinates of ${rows.length} runs over ${axes.map((axis) => axis.name).join(", ")}` });
    axes.forEach((_, i) => element(svg, "line", { x1: i, x2: i, y1: 0, y2: 100, class: "axis" }));
    for (const row of rows) {
      const points = row.places.map((place, i) => (place === null ? null : `${i},${98 - 96 * place}`)).filter(Boolean).join(" ");
      const line = element(svg, "polyline", { points, class: "member", stroke: colour({ hue: row.hue }, 0) });
      element(line, "title", {}).textContent = row.label;
    }
    const head = document.createElement("div");
    head.className = "parallel-axes";
    axes.forEach((axis, i) => {
      const text = document.createElement("span");
      text.append(Object.assign(document.createElement("i"), { textContent: String(i + 1) }));
      text.append(Object.assign(document.createElement("b"), { textContent: axis.name.replace(/([._])/g, "$1\u200b") }), Object.assign(document.createElement("span"), { textContent: axis.high }), Object.assign(document.createElement("span"), { textContent: axis.low }));
      head.append(text);
    });
    box.append(head);
    holder.append(box);
  }

  if (held.samples?.records.length) RavineSamples.all(document.getElementById("samples"), held.samples);
  for (const holder of document.querySelectorAll("[data-layers]")) RavineLayers.lines(holder, held.layers, holder.dataset.layers, { title: "gradient norm", x: RavineLayers.across(held.layers), height: 170 });
  if (held.layers?.length) RavineLayers.all(document.getElementById("layers"), held.layers);
  document.getElementById("smooth")?.addEventListener("input", curves);
  document.getElementById("log")?.addEventListener("change", curves);
  curves();
})();
