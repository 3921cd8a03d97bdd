// Boxes in layers by longest path, after Sugiyama, Tagawa & Toda (1981): the order within a layer by
// barycenters, ties by the order of execution; places by least squares. No chance is involved.

export const BOX = { width: 176, height: 44, gap: 22, layer: 92 };
const THREAD = 14;
const SWEEPS = 8;
// An arrow over more layers than this takes the straight way: its thread would widen the drawing.
const LONG = 12;

/**
 * Places {x, y} of box centers, and for each arrow the points it runs through. Arrows over
 * several layers pass each of them as a thread of their own, so that no box lies on them.
 */
export function placed(boxes, arrows) {
  const rank = ranks(boxes.length, arrows);
  const items = boxes.map((_, k) => ({ rank: rank[k], width: BOX.width, weight: 1, up: [], down: [] }));
  const routes = arrows.map(({ from, to }) => thread(items, from, to));
  const layers = [];
  items.forEach((item, k) => (layers[item.rank] ??= []).push(k));
  weigh(items, layers);
  for (let sweep = 0; sweep < SWEEPS; sweep++) order(items, layers, sweep % 2 === 0);
  settle(items, layers);
  const point = (k) => ({ x: items[k].x, y: items[k].rank * BOX.layer });
  return {
    places: boxes.map((_, k) => point(k)),
    routes: routes.map((route) => route.map(point)),
    layers: layers.map((layer) => layer.filter((k) => k < boxes.length)),
  };
}

function ranks(size, arrows) {
  const waiting = new Array(size).fill(0);
  const next = Array.from({ length: size }, () => []);
  for (const { from, to } of arrows) {
    waiting[to]++;
    next[from].push(to);
  }
  const rank = new Array(size).fill(0);
  const ready = waiting.flatMap((n, k) => (n ? [] : [k]));
  for (let at = 0; at < ready.length; at++) {
    for (const to of next[ready[at]]) {
      rank[to] = Math.max(rank[to], rank[ready[at]] + 1);
      if (--waiting[to] === 0) ready.push(to);
    }
  }
  return rank;
}

function thread(items, from, to) {
  const route = [from];
  if (items[to].rank - items[from].rank > LONG) return [from, to];
  for (let rank = items[from].rank + 1; rank < items[to].rank; rank++) {
    items.push({ rank, width: THREAD, weight: 1, up: [], down: [] });
    route.push(items.length - 1);
  }
  route.push(to);
  for (let k = 1; k < route.length; k++) {
    items[route[k - 1]].down.push(route[k]);
    items[route[k]].up.push(route[k - 1]);
  }
  return route;
}

/** The longer the way on from an item, the more it keeps its place: a chain's spine stays straight. */
function weigh(items, layers) {
  const height = new Array(items.length).fill(1);
  for (const layer of layers.slice().reverse()) {
    for (const k of layer) {
      for (const other of items[k].down) height[k] = Math.max(height[k], height[other] + 1);
      items[k].weight = items[k].width === THREAD ? 1 : height[k] ** 3;
    }
  }
}

function order(items, layers, downward) {
  const place = new Array(items.length);
  for (const layer of layers) layer.forEach((k, at) => (place[k] = at));
  const sequence = downward ? layers : layers.slice().reverse();
  for (const layer of sequence) {
    const weight = new Map(
      layer.map((k) => {
        const near = downward ? items[k].up : items[k].down;
        const sum = near.reduce((total, other) => total + place[other], 0);
        return [k, near.length ? sum / near.length : place[k]];
      }),
    );
    layer.sort((a, b) => weight.get(a) - weight.get(b) || place[a] - place[b]);
    layer.forEach((k, at) => (place[k] = at));
  }
}

function settle(items, layers) {
  for (const layer of layers) {
    const spots = offsets(items, layer);
    const middle = spots.at(-1) / 2;
    layer.forEach((k, at) => (items[k].x = spots[at] - middle));
  }
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const downward = sweep % 2 === 0;
    for (const layer of downward ? layers : layers.slice().reverse()) {
      const wanted = layer.map((k) => {
        const near = downward ? items[k].up : items[k].down;
        if (!near.length) return items[k].x;
        let [sum, weight] = [0, 0];
        for (const other of near) {
          sum += items[other].x * items[other].weight;
          weight += items[other].weight;
        }
        return sum / weight;
      });
      const spots = offsets(items, layer);
      const weights = layer.map((k) => items[k].weight);
      const moved = increasing(wanted.map((x, at) => x - spots[at]), weights);
      layer.forEach((k, at) => (items[k].x = moved[at] + spots[at]));
    }
  }
}

/** Centers of a layer's items, as tight as they may lie. */
function offsets(items, layer) {
  const spots = [];
  let right = 0;
  layer.forEach((k, at) => {
    const half = items[k].width / 2;
    spots.push(at ? right + BOX.gap + half : 0);
    right = spots.at(-1) + half;
  });
  return spots;
}

/** The nearest sequence that never falls, in weighted least squares: pool what violates (Ayer et al., 1955). */
function increasing(wanted, weights) {
  const pools = [];
  wanted.forEach((x, at) => {
    pools.push({ sum: x * weights[at], weight: weights[at], size: 1 });
    while (pools.length > 1) {
      const [before, last] = pools.slice(-2);
      if (before.sum / before.weight <= last.sum / last.weight) break;
      pools.pop();
      before.sum += last.sum;
      before.weight += last.weight;
      before.size += last.size;
    }
  });
  return pools.flatMap(({ sum, weight, size }) => new Array(size).fill(sum / weight));
}
