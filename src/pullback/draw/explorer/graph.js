// The backward graph: boxes in layers, drawn where they are in view, with pan, zoom and keys.

import { arrow, marker, spanOf } from "./arrows.js";
import { GROUPINGS, grouped } from "./groups.js";
import { BOX, placed } from "./layout.js";
import { number, shapeText } from "./numbers.js";
import { atNextFrame, button, element, svg } from "./page.js";

const TEXT_FROM = 0.4;
const ZOOM = { least: 0.01, most: 3 };
const MARGIN = 40;

/** onpick(i) is told the node that was picked. */
export class GraphView {
  constructor(model, onpick) {
    Object.assign(this, { model, onpick, grouping: "node", opened: new Set(), picked: null });
    this.view = { x: 0, y: 0, scale: 1 };
    this.boxes = new Map();
    this.lines = new Map();
    this.world = svg("g");
    this.edgeLayer = svg("g", { class: "pbx-edges" });
    this.boxLayer = svg("g");
    this.world.append(this.edgeLayer, this.boxLayer);
    this.canvas = svg(
      "svg",
      {
        class: "pbx-graph-canvas",
        tabindex: 0,
        role: "application",
        "aria-label":
          "backward graph: arrow keys walk along it, Enter opens a group, plus and minus zoom, 0 fits",
        onkeydown: (event) => this._key(event),
        onwheel: (event) => this._wheel(event),
        onpointerdown: (event) => this._drag(event),
      },
      marker(),
      this.world,
    );
    this.said = element("p", { class: "pbx-said", "aria-live": "polite" });
    this.draw = atNextFrame(() => this._draw());
    this.element = element("div", { class: "pbx-graph-box" }, this._tools(), this.canvas, this.said);
    model.addEventListener("change", () => this._repaint());
    model.addEventListener("step", () => this._followStep());
    this._observe();
    this.relayout();
  }

  _observe() {
    let before = 0;
    new ResizeObserver(() => {
      const { width } = this._size();
      if (before === 0 && width > 0) this.fit();
      else this.draw();
      before = width;
    }).observe(this.canvas);
  }

  _tools() {
    const groupings = { node: "every node", call: "by call", module: "by module" };
    const present = (grouping) =>
      grouping === "node" ||
      this.model.nodes.some((n) => n.call && (grouping === "call" || n.call.module));
    const select = element(
      "select",
      {
        "aria-label": "put nodes together",
        onchange: () => {
          this.grouping = select.value;
          this.opened.clear();
          this.relayout();
          this.fit();
        },
      },
      ...GROUPINGS.filter(present).map((name) => element("option", { value: name }, groupings[name])),
    );
    this.search = element("input", {
      type: "search",
      placeholder: "find a node, line or leaf",
      "aria-label": "find a node, a line or a leaf",
      onkeydown: (event) => event.key === "Enter" && this._find(this.search.value),
    });
    return element(
      "div",
      { class: "pbx-bar" },
      element("label", {}, "Show ", select),
      this.search,
      button("fit", () => this.fit(), { "aria-label": "fit the graph into view" }),
      button("+", () => this._zoom(1.3), { "aria-label": "zoom in" }),
      button("−", () => this._zoom(1 / 1.3), { "aria-label": "zoom out" }),
    );
  }

  relayout() {
    const { nodes } = this.model;
    this.graph = grouped(nodes, this.grouping, this.opened);
    const { places, routes, layers } = placed(this.graph.boxes, this.graph.arrows);
    Object.assign(this, { places, layers, routes });
    this.spans = routes.map(spanOf);
    this.boxLayer.replaceChildren();
    this.edgeLayer.replaceChildren();
    this.boxes.clear();
    this.lines.clear();
    this._limit = this._largest();
    this.draw();
  }

  _size() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  /** The norm of what node i received. */
  _norm(i) {
    const slots = this.model.received[i].map((n) => this.model.quantity(n)?.stats.norm ?? 0);
    return slots.reduce((total, norm) => Math.hypot(total, norm), 0);
  }

  _largest() {
    const finite = this.model.nodes.map((_, i) => this._norm(i)).filter(Number.isFinite);
    return Math.max(...finite, 1e-300);
  }

  fit() {
    if (!this.places.length) return;
    const { width, height } = this._size();
    const xs = this.places.map((p) => p.x);
    const ys = this.places.map((p) => p.y);
    const [left, right] = [Math.min(...xs) - BOX.width / 2, Math.max(...xs) + BOX.width / 2];
    const [top, bottom] = [Math.min(...ys) - BOX.height / 2, Math.max(...ys) + BOX.height / 2];
    const scale = Math.min(
      1,
      (width - MARGIN) / Math.max(right - left, 1),
      (height - MARGIN) / Math.max(bottom - top, 1),
    );
    // A long chain would be a hair's breadth wide: begin at its top, large enough to be read.
    const readable = Math.max(scale, Math.min(0.5, (width - MARGIN) / Math.max(right - left, 1)));
    this.view.scale = Math.max(readable, ZOOM.least);
    this.view.x = width / 2 - ((left + right) / 2) * this.view.scale;
    this.view.y = MARGIN / 2 - top * this.view.scale;
    if (readable === scale) this.view.y = height / 2 - ((top + bottom) / 2) * scale;
    this.draw();
  }

  _draw() {
    const { x, y, scale } = this.view;
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    const { width, height } = this._size();
    const window_ = {
      left: (-x - BOX.width * scale) / scale,
      right: (width - x + BOX.width * scale) / scale,
      top: (-y - BOX.layer * scale) / scale,
      bottom: (height - y + BOX.layer * scale) / scale,
    };
    const detailed = scale >= TEXT_FROM;
    if (detailed !== this.detailed) {
      this.detailed = detailed;
      this.canvas.classList.toggle("pbx-far", !detailed);
    }
    this._keep(this.boxes, this.boxLayer, this._boxesIn(window_), (k) => this._box(k));
    this._keep(this.lines, this.edgeLayer, this._linesIn(window_), (k) => this._line(k));
  }

  _boxesIn({ left, right, top, bottom }) {
    const seen = new Set();
    this.places.forEach(({ x, y }, k) => {
      if (x >= left && x <= right && y >= top && y <= bottom) seen.add(k);
    });
    return seen;
  }

  _linesIn({ left, right, top, bottom }) {
    const seen = new Set();
    this.spans.forEach((span, k) => {
      if (span.right >= left && span.left <= right && span.bottom >= top && span.top <= bottom) {
        seen.add(k);
      }
    });
    return seen;
  }

  _keep(kept, layer, wanted, make) {
    for (const [k, drawn] of kept) {
      if (wanted.has(k)) continue;
      drawn.remove();
      kept.delete(k);
    }
    for (const k of wanted) {
      if (kept.has(k)) continue;
      const drawn = make(k);
      kept.set(k, drawn);
      layer.append(drawn);
    }
  }

  _line(k) {
    return arrow(this.routes[k]);
  }

  _box(k) {
    const box = this.graph.boxes[k];
    const { x, y } = this.places[k];
    const node = this.model.nodes[box.members[0]];
    const many = box.members.length > 1;
    const kind = many ? "group" : node.leaf !== null && !node.edges.length ? "leaf" : "node";
    const drawn = svg(
      "g",
      {
        class: `pbx-box pbx-box-${kind}`,
        transform: `translate(${x - BOX.width / 2} ${y - BOX.height / 2})`,
        "data-box": k,
      },
      svg("rect", { width: BOX.width, height: BOX.height, rx: 6 }),
      svg("rect", { class: "pbx-norm", y: BOX.height - 4, height: 4, rx: 2, width: 0 }),
      svg("text", { x: 9, y: 18 }, short(box.label, 22)),
      svg("text", { x: 9, y: 34, class: "pbx-soft" }),
      svg("title", {}, titleOf(box, node)),
    );
    drawn.addEventListener("click", () => this.pick(box.members[0], { box: k }));
    drawn.addEventListener("dblclick", () => this.open(k));
    this._paint(k, drawn);
    return drawn;
  }

  _paint(k, drawn) {
    const box = this.graph.boxes[k];
    const last = box.members.at(-1);
    const ran = box.members.every((i) => this.model.hasRun(i));
    const now = box.members.includes(this.model.step - 1) && this.model.step < this.model.nodes.length;
    drawn.classList.toggle("pbx-waiting", !ran);
    drawn.classList.toggle("pbx-now", now);
    drawn.classList.toggle("pbx-picked", this.picked !== null && box.members.includes(this.picked));
    const size = Math.max(...box.members.map((i) => this._norm(i)));
    const share = Number.isFinite(size) ? Math.max(0.03, 1 + Math.log10(size / this._limit) / 8) : 1;
    drawn.children[1].setAttribute("width", size === 0 ? 0 : Math.min(1, share) * BOX.width);
    drawn.children[3].textContent = short(this._told(box, last), 28);
  }

  _told(box, last) {
    if (box.members.length > 1) return `${box.members.length} nodes`;
    const received = this.model.received[last].find((n) => n !== null && n !== undefined);
    const quantity = this.model.quantity(received);
    if (!quantity) return "received nothing";
    const norm = `norm ${number(quantity.stats.norm)}`;
    return quantity.current ? `${shapeText(quantity.shape)} ${norm}` : `as recorded: ${norm}`;
  }

  _repaint() {
    this._limit = this._largest();
    for (const [k, drawn] of this.boxes) this._paint(k, drawn);
  }

  _followStep() {
    for (const [k, drawn] of this.boxes) this._paint(k, drawn);
    const now = this.model.step - 1;
    if (now >= 0 && this.model.step < this.model.nodes.length) this._reveal(this.graph.boxOf[now]);
  }

  pick(i, { reveal = false, aloud = true } = {}) {
    this.picked = i;
    for (const [k, drawn] of this.boxes) this._paint(k, drawn);
    const k = this.graph.boxOf[i];
    if (reveal) this._reveal(k);
    const box = this.graph.boxes[k];
    this.said.setAttribute("aria-live", aloud ? "polite" : "off");
    this.said.textContent = `${box.label}: ${this._told(box, box.members.at(-1))}`;
    this.onpick(i, box);
  }

  /** Take a group apart, or put the group of an opened node together again. */
  open(k) {
    const box = this.graph.boxes[k];
    if (box.members.length === 1) return;
    this.opened.add(box.key);
    this.relayout();
    this.pick(box.members[0], { reveal: true });
  }

  _reveal(k) {
    const { x, y } = this.places[k];
    const { width, height } = this._size();
    const at = { x: x * this.view.scale + this.view.x, y: y * this.view.scale + this.view.y };
    const half = (BOX.width / 2) * this.view.scale;
    if (at.x < half || at.x > width - half) this.view.x += width / 2 - at.x;
    if (at.y < MARGIN || at.y > height - MARGIN) this.view.y += height / 2 - at.y;
    this.draw();
  }

  _find(text) {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return;
    const told = (n) =>
      [n.name, n.leaf, n.call && `${n.call.code} ${n.call.file}:${n.call.line} ${n.call.module}`]
        .join(" ")
        .toLowerCase();
    const start = this.picked === null ? 0 : this.picked + 1;
    const { nodes } = this.model;
    for (let k = 0; k < nodes.length; k++) {
      const i = (start + k) % nodes.length;
      if (told(nodes[i]).includes(wanted)) return this.pick(i, { reveal: true });
    }
    this.said.setAttribute("aria-live", "polite");
    this.said.textContent = `No node, line or leaf with "${text}".`;
  }

  _zoom(factor, at = null) {
    const { width, height } = this._size();
    const point = at ?? { x: width / 2, y: height / 2 };
    const scale = Math.max(ZOOM.least, Math.min(ZOOM.most, this.view.scale * factor));
    const ratio = scale / this.view.scale;
    this.view.x = point.x - (point.x - this.view.x) * ratio;
    this.view.y = point.y - (point.y - this.view.y) * ratio;
    this.view.scale = scale;
    this.draw();
  }

  _wheel(event) {
    // A plain wheel scrolls the page; with Ctrl, or a pinch, it zooms.
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    this._zoom(Math.exp(-event.deltaY / 300), { x: event.clientX - box.left, y: event.clientY - box.top });
  }

  _drag(event) {
    if (event.button !== 0) return;
    let last = { x: event.clientX, y: event.clientY };
    const move = (now) => {
      this.view.x += now.clientX - last.x;
      this.view.y += now.clientY - last.y;
      last = { x: now.clientX, y: now.clientY };
      this.draw();
    };
    const end = () => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }

  _key(event) {
    const act = {
      "+": () => this._zoom(1.3),
      "=": () => this._zoom(1.3),
      "-": () => this._zoom(1 / 1.3),
      0: () => this.fit(),
      ArrowDown: () => this._walk((k) => this._near(k, "to")),
      ArrowUp: () => this._walk((k) => this._near(k, "from")),
      ArrowLeft: () => this._walk((k) => this._beside(k, -1)),
      ArrowRight: () => this._walk((k) => this._beside(k, 1)),
      Home: () => this.pick(0, { reveal: true }),
      End: () => this.pick(this.model.nodes.length - 1, { reveal: true }),
      Enter: () => this.picked !== null && this.open(this.graph.boxOf[this.picked]),
    }[event.key];
    if (!act || !this.places.length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  _walk(step) {
    const from = this.picked === null ? null : this.graph.boxOf[this.picked];
    const to = from === null ? 0 : step(from);
    if (to !== undefined) this.pick(this.graph.boxes[to].members[0], { reveal: true });
  }

  _near(k, end) {
    const start = end === "to" ? "from" : "to";
    const found = this.graph.arrows.filter((arrow) => arrow[start] === k).map((arrow) => arrow[end]);
    return found.sort((a, b) => this.places[a].x - this.places[b].x)[0];
  }

  _beside(k, step) {
    const layer = this.layers.find((each) => each.includes(k));
    return layer[layer.indexOf(k) + step];
  }
}

function titleOf(box, node) {
  if (box.members.length > 1) return `${box.label} (${box.members.length} nodes; double-click opens)`;
  return node.call ? `${node.name}\n${node.call.code}` : node.name;
}

function short(text, length) {
  const letters = [...text];
  return letters.length > length ? `${letters.slice(0, length - 1).join("")}…` : text;
}
