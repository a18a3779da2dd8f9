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

  function framed(holder, label, below) {
    const svg = element(holder, "svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", class: "square", role: "img", "aria-label": label });
    holder.append(Object.assign(document.createElement("p"), { className: "faint small", textContent: below }));
    return svg;
  }

  const short = (value) => String(Number(value.toPrecision(3)));

  for (const holder of document.querySelectorAll("[data-scatter]")) {
    const { target, value } = held.predicted;
    const low = Math.min(...target, ...value), high = Math.max(...target, ...value);
    const place = (v) => (100 * (v - low)) / (high - low || 1);
    const svg = framed(holder, "predicted against true", `true value across, predicted upwards, both from ${short(low)} to ${short(high)}; on the line they agree`);
    element(svg, "line", { x1: 0, y1: 100, x2: 100, y2: 0, class: "agree" });
    target.forEach((v, i) => element(svg, "line", { x1: place(v), x2: place(v), y1: 100 - place(value[i]), y2: 100 - place(value[i]), class: "dot" }));
  }
  for (const holder of document.querySelectorAll("[data-bars]")) {
    const { counts, edges } = held.residuals;
    const most = Math.max(...counts, 1), width = 100 / counts.length;
    const svg = framed(holder, "residuals", `from ${short(edges[0])} to ${short(edges.at(-1))}; the highest bar holds ${most} samples`);
    counts.forEach((count, i) => element(svg, "rect", { x: i * width, y: 100 - (98 * count) / most, width: width * 0.92, height: (98 * count) / most }));
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
