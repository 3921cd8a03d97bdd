// A tensor as a colored matrix: a table of numbers where it is small, a canvas where it is not.

import { limitOf, needsWhite, rgba, shade } from "./colors.js";
import { matrixOf, number, shapeText, subscript } from "./numbers.js";
import { element } from "./page.js";

export const TABLE_CELLS = 400;
const TABLE_COLUMNS = 24;
const CANVAS_PIXELS = 320;

/**
 * options: name, shape, title, label (of the grid), cells (the most that a table has),
 * onpoint(flat | null), and for one to be edited:
 * onedit(flat, weight), onbrush(flat, first), onrow(row).
 * The result: {element, update(values, {limit, dim, note}), mark(set of flats)}.
 */
export function heatmap(options) {
  const { rows, columns } = matrixOf(options.shape);
  const small = rows * columns <= (options.cells ?? TABLE_CELLS) && columns <= TABLE_COLUMNS;
  return small ? new Table(options, rows, columns) : new Canvas(options, rows, columns);
}

class Heatmap {
  constructor(options, rows, columns) {
    Object.assign(this, { options, rows, columns, at: 0, values: null, limit: 1 });
    this.caption = element("figcaption", {}, options.title);
    this.readout = element("p", { class: "pbx-readout", "aria-live": "off" });
    this.sampling = "";
    this.element = element("figure", { class: "pbx-heatmap" }, this.caption);
  }

  get size() {
    return this.rows * this.columns;
  }

  say(flat) {
    const { name, shape } = this.options;
    const value = this.values ? number(this.values[flat]) : "not kept";
    this.readout.textContent = `${name}${subscript(shape, flat)} = ${value}`;
  }

  complain(text) {
    this.readout.setAttribute("aria-live", "polite");
    this.readout.textContent = text;
  }

  /** Only what the keys reach is read aloud: a pointer crosses many entries. */
  point(flat, { aloud = false } = {}) {
    this.readout.setAttribute("aria-live", aloud ? "polite" : "off");
    this.options.onpoint?.(flat);
    if (flat === null) this.readout.textContent = "";
    else this.say(flat);
  }

  /** The first entry of a stroke. */
  brush(flat) {
    this.brushing = true;
    addEventListener("pointerup", () => (this.brushing = false), { once: true });
    this.options.onbrush(flat, true);
  }

  /** On with a stroke that began here, while its button is held. */
  stroke(event, flat) {
    this.brushing &&= (event.buttons & 1) === 1;
    if (this.brushing) this.options.onbrush(flat, false);
  }

  /** Arrow keys, Home and End move; the rest is up to the kind. */
  moved(event) {
    const steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.columns,
      ArrowDown: this.columns,
      Home: -(this.at % this.columns),
      End: this.columns - 1 - (this.at % this.columns),
    };
    if (!(event.key in steps)) return false;
    event.preventDefault();
    const to = this.at + steps[event.key];
    if (to >= 0 && to < this.size) this.at = to;
    return true;
  }

  update(values, { limit, dim = false, note = "" } = {}) {
    this.values = values;
    this.limit = limit ?? limitOf(values);
    this.element.classList.toggle("pbx-dim", dim);
    this.element.classList.toggle("pbx-empty", !values);
    this.caption.replaceChildren(this.options.title);
    for (const text of [this.sampling, note]) {
      if (text) this.caption.append(element("small", {}, ` ${text}`));
    }
    this.paint();
  }
}

class Table extends Heatmap {
  constructor(options, rows, columns) {
    super(options, rows, columns);
    this.cells = [];
    this.handles = [];
    const body = element("tbody");
    for (let row = 0; row < rows; row++) body.append(this._row(row));
    this.table = element(
      "table",
      {
        role: "grid",
        "aria-label": options.label ?? `${options.name} ${shapeText(options.shape)}`,
        "aria-readonly": options.onedit ? null : "true",
        onkeydown: (event) => this._key(event),
        onpointerdown: (event) => this._down(event),
        onpointerover: (event) => this._over(event),
        onpointerleave: () => this.point(null),
        onfocusout: () => this.options.onpoint?.(null),
      },
      body,
    );
    this.table.classList.toggle("pbx-editable", Boolean(options.onedit));
    this.element.append(element("div", { class: "pbx-scroll" }, this.table), this.readout);
    if (this.cells.length) this.cells[0].tabIndex = 0;
  }

  _row(row) {
    const made = element("tr", { role: "row" });
    const { onrow, shape } = this.options;
    if (onrow && this.rows > 1) {
      const label = subscript(shape.slice(0, -1), row);
      const handle = element("button", {
        type: "button",
        class: "pbx-row",
        tabindex: -1,
        title: `give row ${label} the brush's weight`,
        onclick: () => onrow(row),
      }, label);
      this.handles.push(handle);
      made.append(element("th", { role: "rowheader", scope: "row" }, handle));
    }
    for (let column = 0; column < this.columns; column++) {
      const flat = row * this.columns + column;
      const cell = element("td", { role: "gridcell", "data-flat": flat });
      cell.tabIndex = -1;
      cell.addEventListener("focus", () => this._focused(flat));
      this.cells.push(cell);
      made.append(cell);
    }
    return made;
  }

  _focused(flat) {
    this.cells[this.at].tabIndex = -1;
    this.at = flat;
    this.cells[flat].tabIndex = 0;
    this.point(flat);
  }

  _flat(event) {
    const cell = event.target.closest?.("td");
    return cell ? Number(cell.dataset.flat) : null;
  }

  _down(event) {
    const flat = this._flat(event);
    if (flat === null || !this.options.onbrush || event.button !== 0) return;
    if (event.target.tagName === "INPUT") return;
    event.preventDefault();
    event.target.releasePointerCapture?.(event.pointerId);
    this.brush(flat);
    this.cells[flat].focus({ preventScroll: true });
  }

  _over(event) {
    const flat = this._flat(event);
    if (flat === null) return;
    this.point(flat);
    this.stroke(event, flat);
  }

  _key(event) {
    const handle = this.handles.indexOf(event.target);
    if (handle >= 0) this._keyOnHandle(event, handle);
    if (event.target.tagName !== "TD") return;
    if (event.key === "ArrowLeft" && this.at % this.columns === 0 && this.handles.length) {
      event.preventDefault();
      this.handles[this.at / this.columns].focus();
    } else if (this.moved(event)) {
      this.cells[this.at].focus();
    } else if (this.options.onedit && event.key === " ") {
      event.preventDefault();
      this.options.onbrush(this.at, true);
    } else if (this.options.onedit && (event.key === "Enter" || /^[-+.\d]$/.test(event.key))) {
      event.preventDefault();
      const shown = number(this.values[this.at]);
      if (event.key === "Enter") this._type(shown, shown);
      else this._type(event.key);
    }
  }

  _keyOnHandle(event, row) {
    const to = {
      ArrowUp: this.handles[row - 1],
      ArrowDown: this.handles[row + 1],
      ArrowRight: this.cells[row * this.columns],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    to.focus();
  }

  /** A field over the cell's number, which keeps its place; Enter takes it, Escape leaves it. */
  _type(text, kept = null) {
    const flat = this.at;
    const cell = this.cells[flat];
    const { name, shape, onedit } = this.options;
    const field = element("input", {
      value: text,
      inputmode: "decimal",
      "aria-label": `weight of ${name}${subscript(shape, flat)}`,
    });
    const finish = (take, stay = true) => {
      if (this.typing !== field) return;
      this.typing = null;
      const given = field.value.trim();
      // The number as it was shown is rounded: left as it is, it is no edit.
      const changed = take && given !== "" && given !== kept;
      this.paint();
      if (stay) cell.focus();
      if (!changed) return;
      const weight = Number(given);
      if (Number.isFinite(weight)) onedit(flat, weight);
      else this.complain(`"${given}" is no finite number: ${name}${subscript(shape, flat)} stays`);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") finish(event.key === "Enter");
      event.stopPropagation();
    });
    field.addEventListener("blur", () => finish(true, false));
    cell.append(field);
    this.typing = field;
    field.focus();
    if (kept === null) field.setSelectionRange(text.length, text.length);
    else field.select();
  }

  paint() {
    const { name, shape } = this.options;
    this.cells.forEach((cell, flat) => {
      const value = this.values ? this.values[flat] : NaN;
      const text = this.values ? number(value) : "·";
      const typing = this.typing?.parentElement === cell;
      if (!typing && (cell.textContent !== text || cell.firstElementChild)) cell.textContent = text;
      cell.style.backgroundImage = this.values ? shade(value, this.limit) : "";
      cell.classList.toggle("pbx-on-dark", Boolean(this.values) && needsWhite(value, this.limit));
      cell.setAttribute("aria-label", `${name}${subscript(shape, flat)} is ${text}`);
    });
  }

  mark(flats) {
    this.cells.forEach((cell, flat) => {
      cell.classList.toggle("pbx-touched", Boolean(flats?.has(flat)));
    });
  }
}

class Canvas extends Heatmap {
  constructor(options, rows, columns) {
    super(options, rows, columns);
    this.cell = Math.max(1, Math.min(24, Math.floor(CANVAS_PIXELS / Math.max(rows, columns, 1))));
    this.stride = Math.max(1, Math.ceil(Math.max(rows, columns) / (2 * CANVAS_PIXELS)));
    if (this.stride > 1) this.sampling = `one entry drawn for ${this.stride} × ${this.stride}`;
    this.width = Math.ceil(columns / this.stride) * this.cell;
    this.height = Math.ceil(rows / this.stride) * this.cell;
    const label = options.label ?? `${options.name} ${shapeText(options.shape)}`;
    this.canvas = element("canvas", {
      role: "application",
      "aria-roledescription": "heatmap",
      tabindex: 0,
      "aria-label": `${label}: arrow keys read it${options.onbrush ? ", Space gives the brush's weight" : ""}`,
      width: this.width,
      height: this.height,
      style: `width:${this.width}px;height:${this.height}px`,
      onkeydown: (event) => this._key(event),
      onpointermove: (event) => this._move(event),
      onpointerdown: (event) => this._down(event),
      onpointerleave: () => this.point(null),
    });
    this.canvas.classList.toggle("pbx-editable", Boolean(options.onbrush));
    this.element.append(element("div", { class: "pbx-scroll" }, this.canvas), this.readout);
  }

  _flat(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * (this.width / this.cell));
    const row = Math.floor(((event.clientY - box.top) / box.height) * (this.height / this.cell));
    const flat = row * this.stride * this.columns + column * this.stride;
    return flat >= 0 && flat < this.size ? flat : null;
  }

  _move(event) {
    const flat = this._flat(event);
    this.point(flat);
    if (flat !== null) this.stroke(event, flat);
  }

  _down(event) {
    const flat = this._flat(event);
    if (flat !== null && event.button === 0 && this.options.onbrush) this.brush(flat);
  }

  _key(event) {
    if (this.moved(event)) this.point(this.at, { aloud: true });
    else if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      this.options.onbrush?.(this.at, true);
      this.point(this.at, { aloud: true });
    }
  }

  paint() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    for (let row = 0; row < this.rows && this.values; row += this.stride) {
      for (let column = 0; column < this.columns; column += this.stride) {
        const value = this.values[row * this.columns + column];
        if (value === 0) continue;
        context.fillStyle = Number.isFinite(value) ? rgba(value, this.limit) : "#888";
        this._fill(context, row, column);
      }
    }
    this.mark(this.marked);
  }

  mark(flats) {
    const before = this.marked;
    this.marked = flats;
    if (before?.size && before !== flats) return this.paint();
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#0a9c6a";
    for (const flat of flats ?? []) {
      this._fill(context, Math.floor(flat / this.columns), flat % this.columns);
    }
  }

  _fill(context, row, column) {
    const { cell, stride } = this;
    context.fillRect(Math.floor(column / stride) * cell, Math.floor(row / stride) * cell, cell, cell);
  }
}
