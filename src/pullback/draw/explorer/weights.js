// The reader's own cotangent: cells, rows, a brush, presets, sliders, normalizing.

import { limitOf } from "./colors.js";
import { heatmap } from "./heatmap.js";
import { lengthOf, matrixOf, number, shapeText, subscript } from "./numbers.js";
import { button, element, tell } from "./page.js";

const SLIDERS = 12;

/** Panels of every output: its values, and v to be edited where it can be. */
export function weightsPanel(model) {
  const brush = new Brush();
  const panels = model.outputs.map((output, k) => new OutputPanel(model, output, k, brush));
  const tools = model.editing === "cells" ? [brush.element, toolbar(model, brush)] : [];
  const rows = model.editing === "weights" ? [basisSliders(model)] : [];
  const holder = element("div", {}, ...tools, ...rows, ...panels.map((panel) => panel.element));
  return { element: holder, update: () => panels.forEach((panel) => panel.update()) };
}

class Brush {
  constructor() {
    this.field = element("input", {
      type: "number",
      step: "any",
      value: "1",
      "aria-label": "weight of the brush",
      oninput: () => (this.slider.value = this.field.value),
    });
    this.slider = element("input", {
      type: "range",
      min: -2,
      max: 2,
      step: 0.1,
      value: 1,
      "aria-label": "weight of the brush, by slider",
      oninput: () => (this.field.value = this.slider.value),
    });
    this.element = element(
      "p",
      { class: "pbx-brush" },
      element("label", {}, "Brush ", this.field),
      this.slider,
      element("small", {}, "click or drag over v; type in a cell; a row's handle, left of its cells, fills the row"),
    );
  }

  get weight() {
    const weight = Number(this.field.value);
    return Number.isFinite(weight) ? weight : 0;
  }
}

const PRESETS = {
  "all ones": (v) => v.fill(1),
  mean: (v) => v.fill(1 / v.length),
  "first row": (v, columns) => v.fill(0).fill(1, 0, columns),
  "last row": (v, columns) => v.fill(0).fill(1, v.length - columns),
  "one entry": (v) => {
    v.fill(0);
    v[0] = 1;
  },
  "± random": (v) => v.forEach((_, k) => (v[k] = Math.random() * 2 - 1)),
  zeros: (v) => v.fill(0),
};

const SCALES = {
  "sum to 1": (v) => v.reduce((total, x) => total + x, 0),
  "length 1": lengthOf,
  "largest 1": (v) => limitOf(v),
};

function toolbar(model) {
  const each = (work) =>
    model.edit(() => {
      model.outputs.forEach((output, k) => work(model.cotangent(k), matrixOf(output.shape).columns));
    });
  const presets = Object.entries(PRESETS).map(([name, work]) => button(name, () => each(work)));
  const scales = Object.entries(SCALES).map(([name, sizeOf]) => scaleButton(model, name, sizeOf));
  return element(
    "div",
    { class: "pbx-tools" },
    element("div", { role: "group", "aria-label": "presets" }, "Presets ", ...presets),
    element("div", { role: "group", "aria-label": "normalize" }, "Normalize ", ...scales),
    backButtons(model),
  );
}

/** It cannot be used where there is nothing to divide by: a sum of 0, or its rounding. */
function scaleButton(model, name, sizeOf) {
  const scaled = button(name, () => {
    const size = sizeOf(model.v);
    model.edit((v) => v.forEach((x, k) => (v[k] = x / size)));
  });
  const update = () => {
    const size = Math.abs(sizeOf(model.v));
    scaled.disabled = !(size > 1e-12 * lengthOf(model.v) && size < Infinity);
  };
  model.addEventListener("change", update);
  update();
  return scaled;
}

function backButtons(model) {
  const undo = button("undo", () => model.undo(), { disabled: true });
  const reset = button("as recorded", () => model.reset(), { disabled: true });
  model.addEventListener("change", () => {
    undo.disabled = !model.canUndo;
    reset.disabled = !model.edited;
  });
  return element("div", { role: "group", "aria-label": "take back" }, undo, reset);
}

/** Where only some cotangents were asked for: a slider for each of them. */
function basisSliders(model) {
  const rows = model.names.map((name, row) => slider(`weight of ${name}`, name, {
    get: () => model.weights[row],
    set: (weight, remember) => model.weigh(row, weight, { remember }),
    model,
  }));
  const note = `The page knows the answers to these cotangents and their combinations: ${model.document.basis.reason}.`;
  return element("div", { class: "pbx-tools" }, element("p", {}, note), ...rows, backButtons(model));
}

function slider(label, text, { get, set, model }) {
  const shown = element("span", { class: "pbx-weight" });
  let first = true; // of one pull, which undo takes back as a whole
  const range = element("input", {
    type: "range",
    min: -2,
    max: 2,
    step: 0.1,
    "aria-label": label,
    oninput: () => {
      set(Number(range.value), first);
      first = false;
    },
    onchange: () => (first = true),
  });
  const update = () => {
    const value = get();
    shown.textContent = value === null ? "mixed" : number(value);
    range.setAttribute("aria-valuetext", shown.textContent);
    if (value !== null && document.activeElement !== range) range.value = value;
  };
  range.value = get() ?? 0;
  model.addEventListener("change", update);
  update();
  return element("label", { class: "pbx-slider" }, element("span", {}, text), range, shown);
}

class OutputPanel {
  constructor(model, output, k, brush) {
    Object.assign(this, { model, output, k });
    const { columns } = matrixOf(output.shape);
    const point = (flat) => model.point(flat === null ? null : { side: "output", at: k, flat });
    const cells = model.editing === "cells";
    const set = (from, to, weight, remember = true) =>
      model.edit(() => model.cotangent(k).fill(weight, from, to), { remember });
    const edits = cells && {
      onedit: (flat, weight) => set(flat, flat + 1, weight),
      onbrush: (flat, first) => set(flat, flat + 1, brush.weight, first),
      onrow: (row) => set(row * columns, (row + 1) * columns, brush.weight),
    };
    this.v = heatmap({
      name: "v",
      shape: output.shape,
      title: `v for ${output.name} ${shapeText(output.shape)}`,
      label: `the cotangent of ${output.name}`,
      onpoint: point,
      ...edits,
    });
    this.values = heatmap({
      name: output.name,
      shape: output.shape,
      title: `${output.name} ${shapeText(output.shape)}`,
      onpoint: point,
    });
    this.meaning = element("p", { class: "pbx-meaning", "aria-live": "polite" });
    this.element = element(
      "div",
      { class: "pbx-pair" },
      element("div", {}, this.v.element, cells ? rowSliders(model, output, k, set) : null, this.meaning),
      this.values.element,
    );
    model.addEventListener("point", () => this._mark());
  }

  update() {
    const v = this.model.cotangent(this.k);
    this.v.update(v, { note: v ? "" : "too large to be kept" });
    const values = this.model.values[this.k];
    this.values.update(values, { note: values ? "" : "too large to be kept" });
    tell(this.meaning, v ? meaning(v, this.output) : "");
  }

  _mark() {
    const touched = this.model.touched();
    const flats = touched?.side === "output" ? touched.entries.get(this.k) : null;
    this.v.mark(flats);
    this.values.mark(flats);
  }
}

function rowSliders(model, output, k, set) {
  const { rows, columns } = matrixOf(output.shape);
  if (rows < 2 || rows > SLIDERS) return null;
  const lines = Array.from({ length: rows }, (_, row) => {
    const label = subscript(output.shape.slice(0, -1), row);
    return slider(`weight of row ${label}`, `row ${label}`, {
      model,
      get: () => {
        const part = model.cotangent(k).subarray(row * columns, (row + 1) * columns);
        return part.every((x) => x === part[0]) ? part[0] : null;
      },
      set: (weight, remember) => set(row * columns, (row + 1) * columns, weight, remember),
    });
  });
  return element("details", { class: "pbx-rows" }, element("summary", {}, "row by row"), ...lines);
}

/** What this v asks for, in words. */
export function meaning(v, { name, shape }) {
  const first = v[0];
  const weights = [...v.keys()].filter((k) => v[k] !== 0);
  if (!v.length) return "v has no entries: every gradient is 0.";
  if (!weights.length) return "v is all zeros: every gradient is 0.";
  if (!shape.length) {
    const times = first === 1 ? "" : `${number(first)} times `;
    return `v is ${number(first)}: ${times}the gradient of ${name} itself.`;
  }
  if (v.every((x) => x === first)) {
    if (first === 1) return `v is all ones: the gradient of ${name}.sum().`;
    const close = Math.abs(first * v.length - 1) < 1e-6;
    return close ? `v is all 1/${v.length}: the gradient of ${name}.mean().` : `v is all ${number(first)}: ${number(first)} times the gradient of ${name}.sum().`;
  }
  if (weights.length === 1) {
    const times = v[weights[0]] === 1 ? "" : `${number(v[weights[0]])} times `;
    return `v picks one entry: ${times}the gradient of ${name}${subscript(shape, weights[0])}, one row of the Jacobian.`;
  }
  const sum = v.reduce((total, x) => total + x, 0);
  return `v weighs ${weights.length} of ${v.length} entries; its weights sum to ${number(sum)}.`;
}
