// A record and the cotangent that the reader has made of its own.
//
// Backward is linear in v: a quantity is the sum of its answers to the cotangents of a basis, each
// times its weight. Where no answers are known the recorded values stand, and say so.

import { decode, scalar, sizeOf, statsOf } from "./numbers.js";

class Rows {
  constructor(packed) {
    this.starts = decode(packed.starts);
    this.indices = decode(packed.indices);
    this.values = decode(packed.values);
    this.width = packed.width;
  }

  combined(weights) {
    const total = new Float64Array(this.width);
    for (let row = 0; row < weights.length; row++) {
      const weight = weights[row];
      if (weight === 0) continue;
      for (let k = this.starts[row]; k < this.starts[row + 1]; k++) {
        total[this.indices[k]] += weight * this.values[k];
      }
    }
    return total;
  }
}

export class Model extends EventTarget {
  /** `ask(v)` answers for a v that the page cannot follow by itself: a promise of values. */
  constructor(document, ask = null) {
    super();
    this.document = document;
    this.ask = ask;
    this.outputs = document.outputs;
    this.nodes = document.nodes;
    this.leaves = document.leaves;
    // Where torch answers, it answers for any v, not only for the few of a chosen basis.
    this.kind = ask && document.basis.kind === "chosen" ? "none" : document.basis.kind;
    this.names = document.basis.names;
    this.starts = [0];
    for (const output of this.outputs) this.starts.push(this.starts.at(-1) + sizeOf(output.shape));
    this.values = this.outputs.map((output) => decode(output.values));
    this.recorded = this._recordedV();
    this.v = this.recorded?.slice() ?? null;
    this.weights = new Float64Array(this.names.length).fill(1);
    this.vectors = document.basis.vectors ? new Rows(document.basis.vectors) : null;
    if (this.vectors && this.v) this.weights = this._recordedWeights();
    this.responses = new Map();
    for (const [number, rows] of Object.entries(document.responses)) {
      if (this.kind !== "none") this.responses.set(Number(number), new Rows(rows));
    }
    this.held = document.quantities.map((quantity) => decode(quantity.values));
    this.received = this._received();
    this.answered = new Map();
    this.trouble = "";
    this.edited = false;
    this.step = this.nodes.length;
    this.version = 0;
    this._cache = new Map();
    this._history = [];
    this.structure = document.structure ? new Structure(document.structure, this) : null;
  }

  /** By node and slot; a leaf's node receives its deposit, which is followed where it alone is. */
  _received() {
    const received = this.nodes.map(({ upstream }) => upstream);
    for (const { node, deposit } of this.leaves) {
      const last = node !== null && !this.nodes[node].edges.length;
      if (last && deposit !== null) received[node] = [deposit];
    }
    return received;
  }

  _recordedV() {
    const parts = this.outputs.map((output) => decode(output.v));
    if (parts.some((part) => part === null)) return null;
    const v = new Float64Array(this.starts.at(-1));
    parts.forEach((part, k) => v.set(part, this.starts[k]));
    return v;
  }

  _recordedWeights() {
    const { starts, indices } = this.vectors;
    return Float64Array.from(this.names, (_, row) => {
      for (let k = starts[row]; k < starts[row + 1]; k++) if (this.v[indices[k]] !== 0) return 1;
      return 0;
    });
  }

  /** "cells": any entry of v may be edited; "weights": those of the basis; "" : none. */
  get editing() {
    if (!this.v || this.outputs.some(({ dtype }) => dtype.startsWith("complex"))) return "";
    if (this.kind === "elements" || this.ask) return "cells";
    return this.kind === "chosen" ? "weights" : "";
  }

  /** The entries of v for output k: a view, to be changed through `edit`. */
  cotangent(k) {
    return this.v?.subarray(this.starts[k], this.starts[k + 1]) ?? null;
  }

  edit(change, { remember = true } = {}) {
    if (remember) this.remember();
    change(this.v);
    this._changed();
  }

  weigh(row, weight, { remember = true } = {}) {
    if (remember) this.remember();
    this.weights[row] = weight;
    this.v = this.vectors.combined(this.weights);
    this._changed();
  }

  reset() {
    this.remember();
    this.v.set(this.recorded);
    if (this.vectors) this.weights = this._recordedWeights();
    this._changed(false);
  }

  remember() {
    this._history.push([this.v.slice(), this.weights.slice(), this.edited]);
    if (this._history.length > 100) this._history.shift();
  }

  undo() {
    const last = this._history.pop();
    if (!last) return;
    [this.v, this.weights] = [last[0], last[1]];
    this._changed(last[2]);
  }

  get canUndo() {
    return this._history.length > 0;
  }

  _changed(edited = true) {
    this.edited = edited;
    this.trouble = "";
    this.version++;
    this._cache.clear();
    this.answered = new Map();
    this.dispatchEvent(new Event("change"));
    if (this.ask && !this._followsAll) this._askLater();
  }

  get _followsAll() {
    return this.kind === "elements" && this.responses.size === this.held.length;
  }

  /** One question at a time; the newest v waits for the answer to the one before. */
  async _askLater() {
    if (this._asking) return;
    this._asking = true;
    for (let asked = -1; this.edited && asked !== this.version; ) {
      asked = this.version;
      let [values, trouble] = [new Map(), ""];
      try {
        values = await this.ask(this.outputs.map((_, k) => this.cotangent(k)));
      } catch (error) {
        trouble = error.message;
      }
      if (asked !== this.version) continue;
      Object.assign(this, { answered: values, trouble });
      this._cache.clear();
      this.dispatchEvent(new Event("change"));
    }
    this._asking = false;
  }

  /** Whether values of a quantity are there, or may come. */
  mayKnow(number) {
    return Boolean(this.held[number] || this.responses.has(number) || this.ask);
  }

  /**
   * Values (null where unknown), statistics, and whether they belong to the v that is shown or
   * still to the recorded one.
   */
  quantity(number) {
    if (number === null || number === undefined) return null;
    if (!this._cache.has(number)) this._cache.set(number, this._quantity(number));
    return this._cache.get(number);
  }

  _quantity(number) {
    const { shape, dtype, stats, nonfinite } = this.document.quantities[number];
    const told = { shape, dtype };
    const fresh = this.edited ? this._combined(number) : null;
    if (fresh) return { ...told, values: fresh, ...statsOf(fresh), current: true };
    const [norm, min, max, zeros] = stats.map(scalar);
    const values = this.held[number];
    return { ...told, values, stats: { norm, min, max, zeros }, nonfinite, current: !this.edited };
  }

  _combined(number) {
    if (this.answered.has(number)) return this.answered.get(number);
    const rows = this.responses.get(number);
    if (!rows) return null;
    return rows.combined(this.kind === "elements" ? this.v : this.weights);
  }

  setStep(step) {
    this.step = Math.max(0, Math.min(this.nodes.length, step));
    this.dispatchEvent(new Event("step"));
  }

  /** Whether node i has run at the step that is shown. */
  hasRun(i) {
    return i < this.step;
  }

  /** Point at an entry of an output or a leaf, or at nothing: {side, at, flat}. */
  point(entry) {
    this.pointed = entry;
    this.dispatchEvent(new Event("point"));
  }

  /** The entries on the other side that depend on the one pointed at, by tensor. */
  touched() {
    return this.pointed && this.structure ? this.structure.touched(this.pointed) : null;
  }
}

/** The pattern of J: rows are output elements, columns the elements of the leaves reached. */
class Structure {
  constructor(packed, model) {
    [this.rows, this.columns] = packed.shape;
    this.starts = decode(packed.starts);
    this.indices = decode(packed.columns);
    this.by = packed.by;
    this.colors = decode(packed.colors);
    this.products = packed.products;
    this.reason = packed.reason;
    this.outputStarts = model.starts;
    this.reached = packed.leaves;
    this.leafStarts = [0];
    for (const k of this.reached) {
      this.leafStarts.push(this.leafStarts.at(-1) + sizeOf(model.leaves[k].shape));
    }
  }

  /** Which tensor a row or column belongs to, and where in it. */
  place(side, position) {
    const starts = side === "output" ? this.outputStarts : this.leafStarts;
    let k = 0;
    while (k + 2 < starts.length && position >= starts[k + 1]) k++;
    return { side, at: side === "output" ? k : this.reached[k], flat: position - starts[k] };
  }

  position({ side, at, flat }) {
    if (side === "output") return this.outputStarts[at] + flat;
    const k = this.reached.indexOf(at);
    return k < 0 ? -1 : this.leafStarts[k] + flat;
  }

  touched(entry) {
    const position = this.position(entry);
    const other = entry.side === "output" ? "leaf" : "output";
    const found = new Map();
    const add = (at) => {
      const place = this.place(other, at);
      if (!found.has(place.at)) found.set(place.at, new Set());
      found.get(place.at).add(place.flat);
    };
    if (position < 0) return { side: other, entries: found };
    if (entry.side === "output") {
      for (let k = this.starts[position]; k < this.starts[position + 1]; k++) add(this.indices[k]);
    } else {
      for (let row = 0; row < this.rows; row++) {
        for (let k = this.starts[row]; k < this.starts[row + 1]; k++) {
          if (this.indices[k] === position) add(row);
        }
      }
    }
    return { side: other, entries: found };
  }
}
