// Numbers, times and sizes as people read them. Pure functions; tests in web/test/format.test.ts.

export type Told = number | string | boolean | null | undefined;

const MINUS = "−";

/** A number in about five digits; the words that JSON has for what is not finite as signs. */
export function number(value: Told, digits = 5): string {
  if (value === null || value === undefined || value === "") return "—";
  if (value === "NaN" || Number.isNaN(value)) return "NaN";
  if (value === "Infinity" || value === Infinity) return "∞";
  if (value === "-Infinity" || value === -Infinity) return `${MINUS}∞`;
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return grouped(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) {
    return value.toExponential(Math.max(0, digits - 2)).replace("e+", "e").replaceAll("-", MINUS);
  }
  const places = Math.max(0, Math.min(8, digits - 1 - Math.floor(Math.log10(size || 1))));
  return value.toFixed(places).replace("-", MINUS);
}

/** A whole number with commas. (toLocaleString takes fifty times as long, and 0.1 s at first.) */
export function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",").replace("-", MINUS);
}

/** 1,234,567 as 1.23 M. */
export function short(value: number): string {
  for (const [size, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (Math.abs(value) >= size) return `${(value / size).toPrecision(3)} ${name}`;
  }
  return number(value, 3);
}

/** Seconds as "1 h 02 min", "3 min 20 s", "4.2 s". */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "—";
  const s = Math.max(0, seconds);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  if (s < 3599.5) return `${Math.floor(s / 60)} min ${two(Math.floor(s % 60))} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86_400)} d ${two(Math.floor((s % 86_400) / 3600))} h`;
}

/** How long ago, in one unit. */
export function ago(seconds: number): string {
  if (seconds < 1.5) return "now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** Unix seconds as local date and time. */
export function time(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "—";
  const at = new Date(seconds * 1000);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Bytes in units of 1,024. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = count;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${unit ? size.toPrecision(3) : size} ${units[unit]}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
