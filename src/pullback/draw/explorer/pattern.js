// The pattern of the Jacobian: which output touches which input, and the colors that cover it.

import { groupColor } from "./colors.js";
import { count, subscript } from "./numbers.js";
import { element } from "./page.js";

const LARGEST = 420;
const STRIP = 10;

export function patternPanel(model) {
  const { structure } = model;
  const { rows, columns } = structure;
  const scale = Math.max(1, Math.min(14, Math.floor(LARGEST / Math.max(rows, columns))));
  const shrink = Math.max(1, Math.ceil(Math.max(rows, columns) / LARGEST));
  const width = Math.ceil(columns / shrink) * scale;
  const height = Math.ceil(rows / shrink) * scale;
  const readout = element("p", { class: "pbx-readout", "aria-live": "off" });
  const at = { row: 0, column: 0 };
  const canvas = element("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "heatmap",
    "aria-label": `pattern of the Jacobian, ${rows} by ${columns}: arrow keys walk over it`,
    width: width + STRIP,
    height: height + STRIP,
    style: `width:${width + STRIP}px;height:${height + STRIP}px`,
    onpointermove: (event) => {
      const box = canvas.getBoundingClientRect();
      const ratio = (width + STRIP) / box.width;
      at.column = Math.floor((((event.clientX - box.left) * ratio - STRIP) / scale) * shrink);
      at.row = Math.floor((((event.clientY - box.top) * ratio - STRIP) / scale) * shrink);
      readout.setAttribute("aria-live", "off");
      show();
    },
    onpointerleave: () => {
      readout.textContent = "";
      model.point(null);
    },
    onkeydown: (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      at.row = Math.max(0, Math.min(rows - 1, at.row + step[0]));
      at.column = Math.max(0, Math.min(columns - 1, at.column + step[1]));
      readout.setAttribute("aria-live", "polite");
      show();
    },
  });
  const name = (side, position) => {
    const place = structure.place(side, position);
    const tensor = (side === "output" ? model.outputs : model.leaves)[place.at];
    return { place, text: `${tensor.name}${subscript(tensor.shape, place.flat)}` };
  };
  const show = () => {
    const { row, column } = at;
    if (row < 0 || column < 0 || row >= rows || column >= columns) return;
    const [out, leaf] = [name("output", row), name("leaf", column)];
    const filled = isFilled(structure, row, column);
    const color = structure.by === "rows" ? structure.colors[row] : structure.colors[column];
    const product = structure.by !== "none" && color >= 0 ? `; it comes from product ${color + 1}` : "";
    readout.textContent = filled
      ? `${out.text} may depend on ${leaf.text}${product}`
      : `${out.text} does not depend on ${leaf.text}`;
    model.point(structure.by === "columns" ? leaf.place : out.place);
  };
  paint(canvas, structure, { scale, shrink });
  const products = structure.products === 1 ? "1 product" : `${count(structure.products)} products`;
  return element(
    "figure",
    { class: "pbx-heatmap" },
    element(
      "figcaption",
      {},
      `J: ${count(rows)} × ${count(columns)}, ${count(structure.indices.length)} entries, ${products}`,
    ),
    element("div", { class: "pbx-scroll" }, canvas),
    readout,
    element("p", { class: "pbx-soft" }, colorsTold(structure)),
  );
}

function colorsTold(structure) {
  if (structure.by === "none") return structure.reason;
  const side = structure.by === "rows" ? "Rows" : "Columns";
  return `${side} of one color share a product, for none of them meet in one entry. ${structure.reason}.`;
}

function isFilled(structure, row, column) {
  for (let k = structure.starts[row]; k < structure.starts[row + 1]; k++) {
    if (structure.indices[k] === column) return true;
  }
  return false;
}

function paint(canvas, structure, { scale, shrink }) {
  const context = canvas.getContext("2d");
  const spot = (position) => STRIP + Math.floor(position / shrink) * scale;
  const size = Math.max(1, scale - (scale > 4 ? 1 : 0));
  for (let row = 0; row < structure.rows; row++) {
    for (let k = structure.starts[row]; k < structure.starts[row + 1]; k++) {
      const column = structure.indices[k];
      const color = structure.by === "rows" ? structure.colors[row] : structure.colors[column];
      context.fillStyle = structure.by === "none" ? "#7a828e" : groupColor(color);
      context.fillRect(spot(column), spot(row), size, size);
    }
  }
  structure.colors.forEach((color, position) => {
    context.fillStyle = groupColor(color);
    if (structure.by === "rows") context.fillRect(0, spot(position), STRIP - 3, size);
    if (structure.by === "columns") context.fillRect(spot(position), 0, size, STRIP - 3);
  });
}
