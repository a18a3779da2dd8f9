// Curves with uPlot, on the live page and in reports: values under the cursor, zoom, switches, bands, both themes.
"use strict";
const RavineCharts = (() => {
  const HEIGHT = 300;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const all = new Set();

  function shown(value, percent = false) {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    if (percent) return `${(100 * value).toFixed(2)} %`;
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
    return size >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(size >= 10 ? 4 : 3);
  }

  function tick(value, percent) {
    if (value === null) return "";
    if (percent) return `${Number((100 * value).toPrecision(4))} %`;
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return Number(value.toPrecision(4)).toExponential().replace("e+", "e");
    return String(Number(value.toPrecision(5)));
  }

  // lines that differ in colour differ in this too, for those who see no colours, and on paper
  const DASHES = [[], [9, 4], [2, 3], [10, 3, 2, 3], [18, 4], [2, 7], [9, 3, 2, 3, 2, 3], [5, 6]];

  // an exponential running mean whose beginning is not pulled to zero
  function smoothed(y, weight) {
    if (!weight) return y;
    let mean = 0, mass = 0;
    return y.map((value) => {
      if (value === null || value === undefined) return value;
      mean = weight * mean + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return mean / mass;
    });
  }

  function quantile(sorted, q) {
    return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  }

  // The limits hold nearly all that is drawn: one curve that explodes must not flatten the others.
  function limits(series, scale) {
    const values = series.flatMap((one) => [...one.y, ...(one.low ?? []), ...(one.high ?? [])]).filter((v) => v !== null && v !== undefined && isFinite(v));
    const sorted = Float64Array.from(values).sort();
    if (!sorted.length) return { log: false, range: [0, 1] };
    const [low, most, top] = [sorted[0], quantile(sorted, 0.97), sorted[sorted.length - 1]];
    const percent = series[0].percent;
    const log = low > 0 && (scale === "log" || (scale === "auto" && most > 20 * low && !percent));
    const whole = percent && top <= 1 ? 1 : Infinity; // there is nothing above 100 %
    if (log) return { log, range: [nice(low / 1.1, -1), Math.min(nice(Math.min(top, most * 10) * 1.1, 1), whole)] };
    const spread = most - low || Math.abs(low) * 0.1 || 1;
    const high = top > low + 3 * spread ? most + 0.5 * spread : top;
    const margin = 0.05 * (high - low || spread);
    return { log, range: [low >= 0 && low < margin ? 0 : low - margin, high + margin] };
  }

  // the next 1, 2 or 5 times a power of ten below or above
  function nice(value, way) {
    const power = 10 ** Math.floor(Math.log10(value));
    const steps = [1, 2, 5, 10].map((factor) => factor * power);
    return way > 0 ? steps.find((step) => step >= value) : steps.findLast((step) => step <= value);
  }

  function colourOf(one) {
    return one.colour?.startsWith("--") ? css(one.colour) : one.colour ?? css("--c0");
  }

  function table(series, weight) {
    const tables = series.map((one) => {
      const columns = [one.x, smoothed(one.y, weight)];
      if (one.low) columns.push(one.low, one.high);
      return columns;
    });
    return tables.length ? uPlot.join(tables) : [[]];
  }

  function describe(series, options) {
    const lines = [], bands = [];
    for (const one of series) {
      const colour = colourOf(one);
      const own = { label: one.name || options.title, stroke: colour, width: one.width ?? 2, dash: one.dash ?? [], spanGaps: true, points: { show: one.x.length < 2 }, show: one.show ?? true };
      lines.push({ ...own, value: (u, v) => shown(v, one.percent) });
      if (one.low) {
        const edge = { ...own, label: "", width: 0, stroke: "transparent", points: { show: false }, edge: true };
        lines.push({ ...edge }, { ...edge });
        bands.push({ series: [lines.length, lines.length - 1], fill: `color-mix(in srgb, ${colour} 18%, transparent)` });
      }
    }
    return { lines, bands };
  }

  function tip(holder) {
    const box = document.createElement("div");
    box.className = "tip";
    box.hidden = true;
    return {
      hooks: {
        init: (u) => u.over.append(box),
        setCursor: (u) => {
          const { idx, left, top } = u.cursor;
          const found = idx === null || idx === undefined || left < 0 ? [] : u.series.map((one, i) => [one, i]).slice(1).filter(([one]) => one.show && !one.edge)
            .map(([one, i]) => [one, nearest(u.data[i], idx), i]).filter(([, value]) => value !== null);
          box.hidden = !found.length;
          if (!found.length) return;
          const height = u.posToVal(top, "y");
          found.sort((a, b) => Math.abs(a[1] - height) - Math.abs(b[1] - height));
          const head = document.createElement("b");
          head.textContent = `${holder.ravine.x} ${Number(u.data[0][idx].toPrecision(6))}`;
          const rows = found.slice(0, 10).map(([one, value]) => {
            const row = document.createElement("div");
            row.append(swatch(one.stroke?.(u) ?? "", one.dash), Object.assign(document.createElement("span"), { textContent: one.label }), Object.assign(document.createElement("span"), { textContent: one.value(u, value) }));
            return row;
          });
          box.replaceChildren(head, ...rows);
          const right = left + box.offsetWidth + 24 > u.over.clientWidth;
          box.style.left = `${right ? Math.max(0, left - box.offsetWidth - 12) : left + 12}px`;
          box.style.top = `${Math.max(0, Math.min(top, u.over.clientHeight - box.offsetHeight))}px`;
        },
      },
    };
  }

  function nearest(column, idx) {
    for (let away = 0; away < 40; away++) {
      for (const at of [idx - away, idx + away]) if (column[at] !== null && column[at] !== undefined) return column[at];
    }
    return null;
  }

  function swatch(colour, dash) {
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    for (const [key, value] of Object.entries({ class: "swatch", width: 18, height: 6, "aria-hidden": true })) mark.setAttribute(key, value);
    for (const [key, value] of Object.entries({ x1: 0, x2: 18, y1: 3, y2: 3, stroke: colour, "stroke-width": 3, "stroke-dasharray": (dash ?? []).join(" ") })) line.setAttribute(key, value);
    mark.append(line);
    return mark;
  }

  function legend(holder, u) {
    const list = document.createElement("div");
    list.className = "chart-legend";
    const named = u.series.slice(1).filter((one) => !one.edge);
    if (named.length > 1) {
      u.series.forEach((one, i) => {
        if (i === 0 || one.edge) return;
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", String(one.show));
        button.append(swatch(one.stroke?.(u) ?? "", one.dash), one.label);
        button.addEventListener("click", () => {
          u.setSeries(i, { show: !u.series[i].show });
          for (let j = i + 1; u.series[j]?.edge; j++) u.setSeries(j, { show: u.series[i].show });
          button.setAttribute("aria-pressed", String(u.series[i].show));
          holder.ravine.off = new Set(u.series.filter((other) => other.show === false && !other.edge).map((other) => other.label));
        });
        list.append(button);
      });
    }
    return list;
  }

  function keys(holder, event) {
    const u = holder.ravine.plot;
    const data = u?.data[0];
    if (!data?.length) return;
    const at = u.cursor.idx ?? 0;
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    if (event.key in steps) {
      const next = Math.max(0, Math.min(data.length - 1, at + steps[event.key]));
      u.setCursor({ left: u.valToPos(data[next], "x"), top: u.over.clientHeight / 3 });
    } else if (event.key === "+" || event.key === "-") {
      const { min, max } = u.scales.x;
      const middle = data[at], factor = event.key === "+" ? 0.5 : 2;
      u.setScale("x", { min: middle - (middle - min) * factor, max: middle + (max - middle) * factor });
    } else if (event.key === "Escape" || event.key === "0") {
      draw(holder, holder.ravine.series, holder.ravine.options);
    } else return;
    event.preventDefault();
  }

  // of a logarithmic axis the powers of ten are written, and 2 and 5 where there is room
  function sparse(u, splits) {
    const few = Math.log10(u.scales.y.max / u.scales.y.min) < 3;
    return splits.map((value) => {
      const lead = Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9));
      return lead === 1 || (few && (lead === 2 || lead === 5)) ? value : null;
    });
  }

  // epochs and steps are whole numbers, unless one has been zoomed into
  function wholes(u, axis, low, high) {
    const powers = Array.from({ length: 19 }, (_, i) => 10 ** (i - 4)).flatMap((power) => [1, 2, 2.5, 5].map((factor) => factor * power));
    return high - low < 2 ? powers : powers.filter(Number.isInteger);
  }

  // series: {name, x, y, low?, high?, colour, dash, width, percent}; options: {title, x, scale, smooth, nothing, height}
  function draw(holder, series, options) {
    const before = holder.ravine;
    const drawable = series.filter((one) => one.y.some((value) => value !== null && value !== undefined));
    const state = { series, options, x: options.x, off: before?.off ?? new Set() };
    before?.plot?.destroy();
    holder.ravine = state;
    if (!all.has(holder)) watcher.observe(holder);
    all.add(holder);
    holder.replaceChildren();
    holder.classList.add("plot");
    if (!drawable.length) {
      holder.append(Object.assign(document.createElement("p"), { className: "nothing", textContent: options.nothing ?? "nothing measured yet" }));
      return;
    }
    for (const one of drawable) one.show = !state.off.has(one.name || options.title);
    const { log, range } = limits(drawable.filter((one) => one.show).length ? drawable.filter((one) => one.show) : drawable, options.scale ?? "auto");
    const percent = drawable[0].percent;
    const { lines, bands } = describe(drawable, options);
    const axis = { stroke: css("--faint"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid"), width: 1 }, font: `12px ${getComputedStyle(document.body).fontFamily}` };
    const width = Math.max(200, holder.clientWidth || 600);
    state.plot = new uPlot({
      width, height: options.height ?? HEIGHT, bands, plugins: [tip(holder)], legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false, setScale: true }, points: { size: 6 } },
      scales: { x: { time: false }, y: { distr: log ? 3 : 1, range: () => range } },
      axes: [{ ...axis, ...(["epoch", "step"].includes(options.x) ? { incrs: wholes } : {}), values: (u, ticks) => ticks.map((value) => tick(value, false)) }, { ...axis, size: 64, values: (u, ticks) => ticks.map((value) => tick(value, percent)), ...(log ? { filter: sparse } : {}) }],
      series: [{}, ...lines],
    }, table(drawable, options.smooth ?? 0), holder);
    holder.append(legend(holder, state.plot));
    const canvas = holder.querySelector(".u-wrap");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const last = drawable.slice(0, 4).map((one) => `${one.name || options.title} ${shown(one.y.filter((v) => v !== null).at(-1), one.percent)}`);
    canvas.setAttribute("aria-label", `${options.title} against ${options.x}: at the end ${last.join(", ")}`);
    canvas.addEventListener("keydown", (event) => keys(holder, event));
  }

  function resize() {
    for (const holder of all) {
      if (!holder.isConnected) all.delete(holder);
      else if (holder.ravine?.plot && holder.clientWidth && holder.clientWidth !== holder.ravine.plot.width) holder.ravine.plot.setSize({ width: Math.max(200, holder.clientWidth), height: holder.ravine.options.height ?? HEIGHT });
    }
  }
  let waiting = 0;
  const watcher = new ResizeObserver(() => { clearTimeout(waiting); waiting = setTimeout(resize, 60); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const holder of all) if (holder.isConnected && holder.ravine) draw(holder, holder.ravine.series, holder.ravine.options);
  });
  return { draw, DASHES, shown, swatch, css };
})();
