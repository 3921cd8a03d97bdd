// One diverging palette: blue below zero, orange above, the page itself at zero.

const BELOW = [31, 95, 168];
const ABOVE = [191, 84, 9];
const FAINTEST = 0.07;
const WHITE_TEXT_FROM = 0.6;

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

export function needsWhite(value, limit) {
  return Number.isFinite(value) && strength(value, limit) >= WHITE_TEXT_FROM;
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
