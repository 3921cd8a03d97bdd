// One diverging palette: blue below zero, orange above, the page itself at zero.

const BELOW = [31, 95, 168];
const ABOVE = [191, 84, 9];
const FAINTEST = 0.07;
const PAPER = [253, 253, 251];

/** How strongly a value is colored: 0 only for zero, 1 at the limit. */
export function strength(value, limit) {
  if (value === 0) return 0;
  const share = limit > 0 ? Math.min(1, Math.abs(value) / limit) : 1;
  return Math.max(FAINTEST, share);
}

export function rgba(value, limit) {
  const [r, g, b] = value < 0 ? BELOW : ABOVE;
  return `rgba(${r},${g},${b},${strength(value, limit).toFixed(3)})`;
}

/** The same as an image, to lie over the page's own color; what is not finite is hatched. */
export function shade(value, limit) {
  if (!Number.isFinite(value)) return "repeating-linear-gradient(45deg,#8886 0 4px,#8882 4px 8px)";
  const color = rgba(value, limit);
  return `linear-gradient(${color},${color})`;
}

/**
 * Whether white stands out more than black from the color of a value, on light paper. One of the two
 * has a contrast of 4.58 or more with any color: they are equal at a luminance of 0.179.
 */
export function needsWhite(value, limit) {
  if (!Number.isFinite(value)) return false;
  const share = strength(value, limit);
  const color = value < 0 ? BELOW : ABOVE;
  const lights = color.map((part, k) => light((part * share + PAPER[k] * (1 - share)) / 255));
  return 0.2126 * lights[0] + 0.7152 * lights[1] + 0.0722 * lights[2] < 0.179;
}

/** Linear light of an sRGB channel. */
function light(part) {
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
}

/** The largest finite modulus of some arrays. */
export function limitOf(...arrays) {
  let limit = 0;
  for (const values of arrays) {
    for (const x of values ?? []) {
      const size = Math.abs(x);
      if (size > limit && size < Infinity) limit = size;
    }
  }
  return limit;
}

/** Distinct hues for the colors of a coloring. */
export function groupColor(k) {
  return k < 0 ? "transparent" : `hsl(${(k * 137.508) % 360} 55% 50%)`;
}
