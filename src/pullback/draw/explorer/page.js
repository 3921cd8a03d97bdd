// Elements, without a framework.

const SVG = "http://www.w3.org/2000/svg";

/** element("button", {class: "x", onclick}, "text", child, ...) */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(text, onclick, attributes = {}) {
  return element("button", { type: "button", class: "pbx-button", onclick, ...attributes }, text);
}

export function section(title, id, ...children) {
  const heading = element("h2", { id: `pbx-${id}` }, title);
  return element("section", { "aria-labelledby": `pbx-${id}`, class: `pbx-section-${id}` }, heading, ...children);
}

/** Put a text where it is another: a live region speaks whenever it is written to. */
export function tell(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** Calls of the function it returns are done once, at the next frame. */
export function atNextFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}
