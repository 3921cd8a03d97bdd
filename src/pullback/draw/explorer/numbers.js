// Numbers as the reader sees them, and as they travel.

const ARRAYS = { f8: Float64Array, f4: Float32Array, i4: Int32Array };

/** The typed array behind {type, data}; null for null. */
export function decode(packed) {
  if (!packed) return null;
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return new ARRAYS[packed.type](bytes.buffer);
}

// Line feeds and tabs stay; what turns the direction of the text after it would turn numbers as well.
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** A document whose names are no commands to the browser. */
export function printable(value) {
  if (typeof value === "string") return value.replace(OBEYED, "\ufffd");
  if (Array.isArray(value)) return value.map(printable);
  if (value === null || typeof value !== "object" || "data" in value) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, printable(inner)]));
}

/** Four significant digits; whole numbers below a million exactly. */
export function number(x) {
  if (Number.isNaN(x)) return "nan";
  if (!Number.isFinite(x)) return x > 0 ? "inf" : "-inf";
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return String(x === 0 ? 0 : x);
  const size = Math.abs(x);
  const [mantissa, exponent] = fourDigits(x);
  if (size >= 1e-4 && size < 9999.5) return String(Number(`${mantissa}e${exponent}`));
  return `${Number(mantissa)}e${exponent}`;
}

/** Rounded half to even, as Python and C round: toExponential alone rounds a half up. */
function fourDigits(x) {
  const [digits, exponent] = x.toExponential(60).split("e");
  const tie = /^(-?\d\.\d\d[02468])50*$/.exec(digits);
  const [mantissa, rounded] = tie ? [tie[1], exponent] : x.toExponential(3).split("e");
  return [mantissa, Number(rounded)];
}

export function count(n) {
  return n.toLocaleString("en-US");
}

export function nonfiniteText(many) {
  return many === 1 ? "1 entry not finite" : `${count(many)} entries not finite`;
}

/** A shape as Python writes a tuple. */
export function shapeText(shape) {
  return shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
}

export function sizeOf(shape) {
  return shape.reduce((product, length) => product * length, 1);
}

/** [i, j, ...] of a flat position, as a subscript; nothing for a single number. */
export function subscript(shape, flat) {
  const places = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    places.unshift(flat % shape[axis]);
    flat = Math.floor(flat / shape[axis]);
  }
  return places.length ? `[${places.join(", ")}]` : "";
}

/** How a tensor lies on paper: rows and columns of its entries, in C order. */
export function matrixOf(shape) {
  const size = sizeOf(shape);
  if (shape.length === 0) return { rows: 1, columns: 1 };
  const columns = shape[shape.length - 1];
  return { rows: columns ? size / columns : 0, columns };
}

/** A number of a document: what is not finite is written as Python writes it. */
export function scalar(written) {
  return { inf: Infinity, "-inf": -Infinity, nan: NaN }[written] ?? Number(written);
}

/** The 2-norm; squares that leave the range of a float are scaled first. */
export function lengthOf(values) {
  let sum = 0;
  let largest = 0;
  for (const x of values) {
    sum += x * x;
    largest = Math.max(largest, Math.abs(x));
  }
  if (largest === 0 || (sum > 1e-280 && sum < 1e280)) return Math.sqrt(sum);
  if (!(largest < Infinity)) return largest;
  let scaled = 0;
  for (const x of values) scaled += (x / largest) ** 2;
  return largest * Math.sqrt(scaled);
}

/** As a record measures: min and max are nan where an entry is. */
export function statsOf(values) {
  let [min, max] = values.length ? [Infinity, -Infinity] : [0, 0];
  let zeros = 0;
  let nonfinite = 0;
  for (const x of values) {
    min = Math.min(min, x);
    max = Math.max(max, x);
    if (x === 0) zeros++;
    if (!Number.isFinite(x)) nonfinite++;
  }
  zeros = values.length ? zeros / values.length : 0;
  return { stats: { norm: lengthOf(values), min, max, zeros }, nonfinite };
}
