// Nodes put together by the user's call or by module. What is left is a graph without cycles.

export const GROUPINGS = ["node", "call", "module"];

/**
 * Boxes {key, label, members} and arrows {from, to, edges} between them. A group is connected; one
 * that lies on a cycle of groups (a loop's line that ran again on its own result) is taken apart.
 */
export function grouped(nodes, grouping, opened) {
  const keys = nodes.map((node, i) => keyOf(node, grouping, i));
  const parent = nodes.map((_, i) => i);
  const root = (i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  const together = (i, j) => keys[i] === keys[j] && keys[i] !== null;
  nodes.forEach((node, i) => {
    for (const edge of node.edges) {
      if (together(i, edge.to)) {
        const [a, b] = [root(i), root(edge.to)];
        parent[Math.max(a, b)] = Math.min(a, b);
      }
    }
  });
  let group = nodes.map((_, i) => root(i));
  for (let again = true; again; ) {
    const apart = onCycles(nodes, group);
    again = apart.size > 0;
    group = group.map((g, i) => (apart.has(g) ? i : g));
  }
  group = group.map((g, i) => (opened.has(g) ? i : g));
  return collected(nodes, group, grouping);
}

function keyOf(node, grouping) {
  const { call, leaf } = node;
  if (grouping === "node" || !call || leaf !== null) return null;
  if (grouping === "module") return call.module || null;
  return `${call.file}:${call.line}:${call.code}`;
}

function collected(nodes, group, grouping) {
  const boxes = new Map();
  group.forEach((g, i) => {
    if (!boxes.has(g)) boxes.set(g, { key: g, members: [], label: "" });
    boxes.get(g).members.push(i);
  });
  const order = [...boxes.values()];
  const index = new Map(order.map((box, k) => [box.key, k]));
  const arrows = new Map();
  nodes.forEach((node, i) => {
    node.edges.forEach((edge, k) => {
      const [from, to] = [index.get(group[i]), index.get(group[edge.to])];
      if (from === to) return;
      const key = `${from}>${to}`;
      if (!arrows.has(key)) arrows.set(key, { from, to, edges: [] });
      arrows.get(key).edges.push([i, k]);
    });
  });
  for (const box of order) box.label = labelOf(box, nodes, grouping);
  return { boxes: order, arrows: [...arrows.values()], boxOf: group.map((g) => index.get(g)) };
}

function labelOf(box, nodes, grouping) {
  const node = nodes[box.members[0]];
  if (node.leaf !== null && !node.edges.length) return node.leaf;
  if (box.members.length === 1) return node.name;
  return grouping === "module" ? node.call.module : node.call.code || node.call.function;
}

/** The groups of more than one node that lie on a cycle (Tarjan's components, without recursion). */
function onCycles(nodes, group) {
  const next = new Map();
  nodes.forEach((node, i) => {
    if (!next.has(group[i])) next.set(group[i], new Set());
    for (const edge of node.edges) {
      if (group[edge.to] !== group[i]) next.get(group[i]).add(group[edge.to]);
    }
  });
  const sizes = new Map();
  for (const g of group) sizes.set(g, (sizes.get(g) ?? 0) + 1);
  const number = new Map();
  const low = new Map();
  const stack = [];
  const inside = new Set();
  const found = new Set();
  for (const start of next.keys()) {
    if (number.has(start)) continue;
    const walk = [[start, next.get(start).values()]];
    number.set(start, number.size);
    low.set(start, number.get(start));
    stack.push(start);
    inside.add(start);
    while (walk.length) {
      const [at, rest] = walk.at(-1);
      const step = rest.next();
      if (!step.done) {
        const to = step.value;
        if (!number.has(to)) {
          number.set(to, number.size);
          low.set(to, number.get(to));
          stack.push(to);
          inside.add(to);
          walk.push([to, next.get(to).values()]);
        } else if (inside.has(to)) {
          low.set(at, Math.min(low.get(at), number.get(to)));
        }
        continue;
      }
      walk.pop();
      if (walk.length) {
        const [up] = walk.at(-1);
        low.set(up, Math.min(low.get(up), low.get(at)));
      }
      if (low.get(at) !== number.get(at)) continue;
      const component = [];
      let member;
      do {
        member = stack.pop();
        inside.delete(member);
        component.push(member);
      } while (member !== at);
      if (component.length > 1) {
        for (const g of component) if (sizes.get(g) > 1) found.add(g);
      }
    }
  }
  return found;
}
