// The pass in time: play, step and scrub through the nodes in the order in which they ran.

import { button, element } from "./page.js";

const PAUSES = { slow: 1200, medium: 500, fast: 120 };

export function player(model, onstep) {
  const last = model.nodes.length;
  let timer = null;
  const slider = element("input", {
    type: "range",
    min: 0,
    max: last,
    value: last,
    "aria-label": "how many nodes have run",
    oninput: () => go(Number(slider.value)),
  });
  const speed = element(
    "select",
    { "aria-label": "speed" },
    ...Object.keys(PAUSES).map((name) => element("option", { value: name, selected: name === "medium" }, name)),
  );
  const told = element("span", { class: "pbx-told", "aria-live": "polite" });
  const play = button("play", () => (timer ? stop() : start()), { class: "pbx-button pbx-play" });
  const go = (step) => {
    stop();
    model.setStep(step);
    onstep(model.step);
  };
  const start = () => {
    if (model.step >= last) model.setStep(0);
    play.textContent = "pause";
    told.setAttribute("aria-live", "off"); // a step follows the other faster than they can be read
    const next = () => {
      if (model.step + 1 >= last) stop();
      else timer = setTimeout(next, PAUSES[speed.value]);
      model.setStep(model.step + 1);
      onstep(model.step);
    };
    timer = setTimeout(next, 0);
  };
  const stop = () => {
    clearTimeout(timer);
    timer = null;
    play.textContent = "play";
    told.setAttribute("aria-live", "polite");
  };
  const tell = () => {
    slider.value = model.step;
    const node = model.nodes[model.step - 1];
    told.textContent = node
      ? `${model.step} of ${last}: ${node.leaf !== null && !node.edges.length ? node.leaf : node.name}`
      : `0 of ${last}: the cotangent is given`;
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  model.addEventListener("step", tell);
  told.textContent = `${last} of ${last}: done`;
  return element(
    "div",
    { class: "pbx-bar pbx-player", role: "group", "aria-label": "the pass in time" },
    button("|◀", () => go(0), { "aria-label": "to the start" }),
    button("◀", () => go(model.step - 1), { "aria-label": "one node back" }),
    play,
    button("▶", () => go(model.step + 1), { "aria-label": "one node on" }),
    button("▶|", () => go(last), { "aria-label": "to the end" }),
    slider,
    speed,
    told,
  );
}
