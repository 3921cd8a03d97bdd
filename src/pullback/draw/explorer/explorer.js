// The explorer of a record: everything on the page follows one model.

import { limitOf } from "./colors.js";
import { GraphView } from "./graph.js";
import { heatmap, TABLE_CELLS } from "./heatmap.js";
import { Model } from "./model.js";
import { NodePanel } from "./node.js";
import { decode, nonfiniteText, number, printable, shapeText, sizeOf } from "./numbers.js";
import { button, element, section, tell } from "./page.js";
import { patternPanel } from "./pattern.js";
import { player } from "./player.js";
import { weightsPanel } from "./weights.js";

const LEAF_ENTRIES = 65536;
const DRAWN_LEAVES = 24;
// Many leaves are shown small: their numbers are under the pointer.
const MANY_LEAVES = 6;
const SMALL_CELLS = 32;

/**
 * Show `document` inside `host`. options: ask(v) answers for cotangents that the page cannot follow.
 * Returns the model, for programs that drive the page.
 */
export function mount(host, document_, options = {}) {
  const ask = options.ask ?? (options.live ? asker(options.live) : null);
  const model = new Model(printable(document_), ask);
  const root = element("div", { class: "pbx" });
  const weights = weightsPanel(model);
  const leaves = leafPanels(model);
  const node = new NodePanel(model, (i) => graph.pick(i, { reveal: true }));
  const graph = new GraphView(model, (i, box) => node.show(i, box));
  const trouble = element("p", { class: "pbx-trouble", role: "alert" });
  root.append(
    header(root, model),
    element(
      "div",
      { class: "pbx-columns" },
      section("Weigh the outputs", "weigh", editNote(model), weights.element),
      section("What arrives at the leaves", "leaves", leaves.element),
    ),
    trouble,
    section(
      "The pass",
      "pass",
      player(model, (step) => step > 0 && graph.pick(step - 1, { aloud: false })),
      element("div", { class: "pbx-graph" }, graph.element, node.element),
    ),
    ...(model.structure
      ? [section("Which output touches which input", "pattern", patternPanel(model))]
      : []),
  );
  const update = () => {
    weights.update();
    leaves.update();
    tell(trouble, model.trouble ? `No answer for this v: ${model.trouble}` : "");
  };
  model.addEventListener("change", update);
  model.addEventListener("step", leaves.update);
  host.replaceChildren(root);
  update();
  return model;
}

function header(root, model) {
  const themes = ["auto", "light", "dark"];
  const theme = button("theme: auto", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    root.dataset.theme = next;
    document.documentElement.dataset.pbxTheme = next;
    theme.textContent = `theme: ${next}`;
  });
  return element(
    "header",
    {},
    element("h1", {}, `Backward of ${model.document.title}`),
    element("div", { class: "pbx-bar" }, theme),
    ...model.document.summary.map((line) => element("p", {}, line)),
  );
}

function editNote(model) {
  const { reason } = model.document.basis;
  if (model.editing === "cells" && model.ask && (model.kind === "none" || reason)) {
    const text = "Change v, and torch computes what the page does not hold by itself.";
    return element("p", { class: "pbx-soft" }, text);
  }
  if (model.editing === "cells") {
    const partly = reason ? ` Here ${reason}.` : "";
    return element(
      "p",
      { class: "pbx-soft" },
      `Backward is linear in v: change it, and every gradient on the page follows exactly.${partly}`,
    );
  }
  if (model.editing === "weights") return element("span");
  return element("p", { class: "pbx-soft" }, `v stands as it was recorded: ${reason || "it was too large to be kept"}.`);
}

function leafPanels(model) {
  const shown = model.leaves.slice(0, DRAWN_LEAVES).map((leaf, at) => new LeafPanel(model, leaf, at));
  const rest = model.leaves.length - shown.length;
  const more = rest > 0 ? element("p", {}, `${rest} more leaves: find them in the graph below.`) : null;
  const holder = element("div", { class: "pbx-leaves" }, ...shown.map((panel) => panel.element), more);
  if (!shown.length) holder.append(element("p", {}, "No leaf was asked for or reached."));
  return { element: holder, update: () => shown.forEach((panel) => panel.update()) };
}

class LeafPanel {
  constructor(model, leaf, at) {
    Object.assign(this, { model, leaf, at });
    const quantity = model.quantity(leaf.deposit);
    const size = sizeOf(leaf.shape);
    const known = quantity && model.mayKnow(leaf.deposit);
    this.facts = element("p", { class: "pbx-facts" });
    this.map = known && size > 0 && size <= LEAF_ENTRIES
      ? heatmap({
          name: `${leaf.name}.grad`,
          shape: leaf.shape,
          title: `deposit on ${leaf.name} ${shapeText(leaf.shape)}`,
          cells: model.leaves.length > MANY_LEAVES ? SMALL_CELLS : TABLE_CELLS,
          onpoint: (flat) => model.point(flat === null ? null : { side: "leaf", at, flat }),
        })
      : null;
    const title = this.map ? null : element("h3", {}, `${leaf.name} ${shapeText(leaf.shape)}`);
    this.element = element("div", { class: "pbx-leaf" }, title, this.map?.element, this.facts);
    model.addEventListener("point", () => this._mark());
  }

  update() {
    const { model, leaf } = this;
    const quantity = model.quantity(leaf.deposit);
    if (!quantity) {
      this.facts.textContent = leaf.node === null
        ? "not reached: no deposit, its .grad stays as it is"
        : "reached, but no gradient is defined here: no deposit, which is not a zero";
      return;
    }
    const { values, stats, current, nonfinite } = quantity;
    const ran = leaf.node === null || model.hasRun(leaf.node);
    if (this.drawn?.values === values && this.drawn.ran === ran && this.drawn.current === current) return;
    this.drawn = { values, ran, current };
    const note = !ran ? "not yet written" : current ? "" : "as recorded";
    this.map?.update(ran ? values : new Float64Array(sizeOf(leaf.shape)), {
      limit: limitOf(values),
      dim: !current || !ran,
      note,
    });
    const sum = values ? values.reduce((total, x) => total + x, 0) : null;
    this.facts.textContent = !ran
      ? "its node has not run yet"
      : `norm ${number(stats.norm)}, from ${number(stats.min)} to ${number(stats.max)}${sum === null ? "" : `, sum ${number(sum)}`}`;
    if (nonfinite && ran) this.facts.append(`; ${nonfiniteText(nonfinite)}`);
  }

  _mark() {
    const touched = this.model.touched();
    this.map?.mark(touched?.side === "leaf" ? touched.entries.get(this.at) : null);
  }
}

/** The answers of a live process at `url`. */
function asker({ url }) {
  return async (cotangents) => {
    const body = JSON.stringify({ v: cotangents.map((part) => [...part]) });
    const sent = fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const response = await sent.catch(() => {
      throw new Error("the process that served this page does not answer.");
    });
    const told = await response.text();
    if (!response.ok) throw new Error(refusal(told));
    const { values } = JSON.parse(told);
    return new Map(Object.entries(values).map(([n, packed]) => [Number(n), decode(packed)]));
  };
}

function refusal(told) {
  try {
    return JSON.parse(told).error;
  } catch {
    return told;
  }
}
