// Which runs are selected, by key and in the order of selecting: their colours go by it. Pure.

export const MOST_SELECTED = 50; // as many as can be compared

export function toggled(selected: readonly string[], key: string): string[] {
  if (selected.includes(key)) return selected.filter((other) => other !== key);
  return selected.length < MOST_SELECTED ? [...selected, key] : [...selected];
}

/** All rows from one place to another besides what is selected; what is not loaded is left out. */
export function extended(
  selected: readonly string[],
  from: number,
  to: number,
  keyAt: (place: number) => string | null,
): string[] {
  const found = [...selected];
  const known = new Set(selected);
  const way = from <= to ? 1 : -1;
  for (let place = from; ; place += way) {
    const key = keyAt(place);
    if (found.length >= MOST_SELECTED) break;
    if (key !== null && !known.has(key)) {
      known.add(key);
      found.push(key);
    }
    if (place === to) break;
  }
  return found;
}

/** A list of names for the address: with commas between, in JSON where a name holds one. */
export function listed(names: readonly string[]): string {
  const plain = names.every((name) => name && !name.includes(",") && !name.startsWith("["));
  return plain ? names.join(",") : JSON.stringify(names);
}

export function unlisted(text: string | null): string[] {
  if (!text) return [];
  if (!text.startsWith("[")) return text.split(",").filter(Boolean);
  try {
    const found: unknown = JSON.parse(text);
    return Array.isArray(found) ? found.filter((one) => typeof one === "string") : [];
  } catch {
    return []; // somebody has cut the address
  }
}

/** What a click on a head makes of the order: the least first, the greatest first, as it came. */
export function nextSort(sort: string, column: string): string {
  if (sort === column) return `-${column}`;
  return sort === `-${column}` ? "" : column;
}
