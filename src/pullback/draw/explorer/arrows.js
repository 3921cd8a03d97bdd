// Arrows of the backward graph: curves along the points that the layout gave them.

import { BOX } from "./layout.js";
import { svg } from "./page.js";

// A straight way over many layers passes behind boxes: it is drawn faintly.
const FAINT_FROM = 4 * BOX.layer;

export function arrow(route) {
  const long = route.length === 2 && route[1].y - route[0].y > FAINT_FROM;
  return svg("path", {
    d: pathOf(route),
    class: long ? "pbx-long" : null,
    "marker-end": "url(#pbx-tip)",
  });
}

/** The tip of every arrow, defined once in a drawing. */
export function marker() {
  const tip = svg("path", { d: "M0 0 L8 4 L0 8 z" });
  const attributes = {
    id: "pbx-tip",
    viewBox: "0 0 8 8",
    refX: 8,
    refY: 4,
    markerWidth: 7,
    markerHeight: 7,
    orient: "auto",
  };
  return svg("defs", {}, svg("marker", attributes, tip));
}

function pathOf(route) {
  const half = BOX.height / 2;
  const points = route.map(({ x, y }, k) => ({
    x,
    y: k === 0 ? y + half : k === route.length - 1 ? y - half : y,
  }));
  let path = `M${points[0].x} ${points[0].y}`;
  for (let k = 1; k < points.length; k++) {
    const [a, b] = [points[k - 1], points[k]];
    const middle = (a.y + b.y) / 2;
    path += ` C${a.x} ${middle} ${b.x} ${middle} ${b.x} ${b.y}`;
  }
  return path;
}

/** The rectangle around a route. */
export function spanOf(route) {
  const xs = route.map((point) => point.x);
  const ys = route.map((point) => point.y);
  return {
    left: Math.min(...xs),
    right: Math.max(...xs),
    top: Math.min(...ys),
    bottom: Math.max(...ys),
  };
}
