// What the network answers for a few validation images over training, on the live page and in reports.
"use strict";
const RavineSamples = (() => {
  function make(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function at(record) {
    return `epoch ${Number(Number(record.epoch).toPrecision(4))}, step ${record.step.toLocaleString("en")}`;
  }

  function one(sample, picture) {
    const known = sample.sure !== undefined; // a class, not a number
    const right = known && sample.answer === sample.truth;
    const answer = right ? `✓ ${sample.answer}` : known ? `✗ ${sample.answer}` : sample.answer;
    const words = known ? `${sample.truth}, answered ${sample.answer}` : `${sample.truth}, predicted ${sample.answer}`;
    const bar = make("span", { className: "sure" });
    bar.style.setProperty("--part", `${100 * (sample.sure ?? 0)}%`);
    return make("li", { className: known ? (right ? "right" : "wrong") : "" },
      make("img", { src: picture, alt: words }),
      make("span", { className: "truth", textContent: sample.truth }),
      make("b", { textContent: answer }),
      ...(known ? [bar, make("span", { className: "faint", textContent: `${Math.round(100 * sample.sure)} %` })] : []));
  }

  function draw(holder) {
    const { records, pictures } = holder.ravineSamples;
    const [tools, list] = holder.children;
    const range = tools.querySelector("input"), record = records[Number(range.value)];
    const right = record.samples.filter((sample) => sample.answer === sample.truth).length;
    const classes = record.samples.some((sample) => sample.sure !== undefined);
    tools.querySelector("output").textContent = `${at(record)}${classes ? `: ${right} of ${record.samples.length} right` : ""}`;
    list.replaceChildren(...record.samples.map((sample, i) => one(sample, pictures[i])));
  }

  // found: {pictures: [data URL], records: [{step, epoch, samples: [{truth, answer, sure}]}]}; the newest is shown, until another is chosen
  function all(holder, found) {
    holder.hidden = !found?.records.length;
    if (holder.hidden) return;
    if (!holder.firstChild) {
      const range = make("input", { type: "range", min: 0, step: 1, ariaLabel: "which evaluation" });
      range.addEventListener("input", () => { holder.ravineChosen = Number(range.value) < Number(range.max); draw(holder); });
      holder.append(make("p", { className: "tools small" }, make("label", {}, "from first to latest ", range), make("output", { className: "faint" })), make("ul", { className: "answers" }));
    }
    const range = holder.querySelector("input"), last = found.records.length - 1;
    range.max = last;
    if (!holder.ravineChosen || holder.ravineSamples?.id !== found.id) { range.value = last; holder.ravineChosen = false; }
    holder.ravineSamples = found;
    draw(holder);
  }
  return { all };
})();
