// One node under the reader's pointer: what it received, by which formula, what it sent where.

import { heatmap } from "./heatmap.js";
import { count, nonfiniteText, number, shapeText, sizeOf } from "./numbers.js";
import { element } from "./page.js";

const DRAWN = 65536;

/** A panel of one size, whatever it shows: picking a node moves nothing on the page. */
export class NodePanel {
  constructor(model, onwalk) {
    Object.assign(this, { model, onwalk, i: null, maps: [] });
    this.incoming = incomingOf(model);
    this.element = element("aside", { class: "pbx-node", "aria-label": "the node that is picked", tabindex: 0 });
    model.addEventListener("change", () => this._refresh());
    this.show(null);
  }

  show(i, box = null) {
    this.i = i;
    this.maps = [];
    if (i === null) {
      this.element.replaceChildren(
        element("p", { class: "pbx-hint" }, "Pick a node: click it, or walk the graph with the arrow keys."),
      );
      return;
    }
    const many = box && box.members.length > 1;
    this.element.replaceChildren(...(many ? this._group(box) : this._node(i)));
    this._refresh();
  }

  _group(box) {
    return [
      element("h3", {}, box.label),
      element("p", {}, `${count(box.members.length)} nodes; Enter or a double click shows them.`),
      element("ol", {}, ...box.members.slice(0, 200).map((i) => element("li", {}, this._link(i)))),
    ];
  }

  _node(i) {
    const node = this.model.nodes[i];
    const { call } = node;
    const leaf = node.leaf !== null && !node.edges.length;
    return [
      element("h3", {}, leaf ? `${node.leaf} (leaf)` : node.name),
      element("p", { class: "pbx-soft" }, `node ${i} of ${this.model.nodes.length}, in the order of execution`),
      call && element("pre", {}, element("code", {}, call.code || call.function)),
      call && element("p", { class: "pbx-soft" }, place(call)),
      ...this._formula(node),
      element("h4", {}, leaf ? "deposit" : "upstream"),
      ...this._received(i),
      ...this._sources(i),
      ...(leaf ? [] : this._sent(node)),
      ...node.hooks.map((hook) => element("p", {}, `hook: ${hook}`)),
    ].filter(Boolean);
  }

  _formula(node) {
    if (!node.formula.length) return [];
    return [
      element("h4", {}, "formula"),
      element("pre", {}, element("code", {}, node.formula.join("\n"))),
    ];
  }

  _received(i) {
    const slots = this.model.received[i];
    return slots.map((number_, slot) =>
      this._quantity(number_, slots.length > 1 ? `slot ${slot}` : "received"),
    );
  }

  _sources(i) {
    const into = this.incoming[i];
    if (into.length < 2) return [];
    return [
      element("h4", {}, `the sum of ${into.length} contributions`),
      ...into.map(({ from, sent }) =>
        element("div", {}, from === null ? "from v" : this._link(from, "from "), this._quantity(sent, "")),
      ),
    ];
  }

  _sent(node) {
    if (!node.edges.length) return [element("p", {}, "It sent nothing on.")];
    return [
      element("h4", {}, "sent on"),
      ...node.edges.map((edge) =>
        element("div", {}, this._link(edge.to, "to "), this._quantity(edge.sent, "contribution")),
      ),
    ];
  }

  _link(i, before = "") {
    const node = this.model.nodes[i];
    const text = node.leaf !== null && !node.edges.length ? node.leaf : node.name;
    const link = element("button", { type: "button", class: "pbx-link", onclick: () => this.onwalk(i) }, text);
    return element("span", {}, before, link, ` #${i}`);
  }

  _quantity(number_, name) {
    if (number_ === null || number_ === undefined) {
      return element("p", { class: "pbx-soft" }, "nothing: an undefined gradient, which is not a zero");
    }
    const quantity = this.model.quantity(number_);
    const facts = element("p", { class: "pbx-facts" });
    const drawable = sizeOf(quantity.shape) <= DRAWN && sizeOf(quantity.shape) > 0;
    const map = drawable && this.model.mayKnow(number_)
      ? heatmap({ name, shape: quantity.shape, title: name })
      : null;
    this.maps.push({ number_, facts, map });
    return element("div", {}, map?.element, facts);
  }

  _refresh() {
    for (const { number_, facts, map } of this.maps) {
      const { values, stats, shape, current, nonfinite } = this.model.quantity(number_);
      map?.update(values, { dim: !current });
      facts.textContent = `${shapeText(shape)}, norm ${number(stats.norm)}, from ${number(stats.min)} to ${number(stats.max)}`;
      if (nonfinite) facts.append(`; ${nonfiniteText(nonfinite)}`);
      if (!current) facts.append(" (as recorded: the page does not follow v here)");
    }
  }
}

function place(call) {
  const file = call.file.split(/[\\/]/).at(-1);
  const where = file ? `${file}:${call.line}` : "";
  return call.module ? `${where}, in ${call.module}` : where;
}

function incomingOf(model) {
  const into = model.nodes.map(() => []);
  for (const seed of model.document.seeds) into[seed.to].push({ from: null, sent: seed.sent });
  model.nodes.forEach((node, from) => {
    for (const edge of node.edges) into[edge.to].push({ from, sent: edge.sent });
  });
  return into;
}
