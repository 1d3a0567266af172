// The address of the page is its state: a link to it restores the view.

import { computed, signal } from "@preact/signals";

const address = signal(location.pathname + location.search);

/** The path of the page, without its query. */
export const path = computed(() => address.value.split("?")[0]!);

/** The query of the page. */
export const query = computed(() => new URLSearchParams(address.value.split("?")[1] ?? ""));

addEventListener("popstate", () => {
  address.value = location.pathname + location.search;
});

/** Go to an address of the page. */
export function go(to: string, how: "push" | "replace" = "push"): void {
  if (to === address.value) return;
  address.value = to;
  try {
    history[how === "push" ? "pushState" : "replaceState"](null, "", to);
  } catch {
    // the browser allows no more changes for now: the view is right, the address follows later
  }
  if (how === "push") scrollTo(0, 0);
}

/** Set some names of the query; null takes one away. */
export function set(values: Record<string, string | null>, how: "push" | "replace" = "replace"): void {
  const next = new URLSearchParams(query.value);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") next.delete(name);
    else next.set(name, value);
  }
  const text = next.toString();
  go(path.value + (text ? `?${text}` : ""), how);
}

/** The address of a run, a study, a model; keys are "<project>/<name>". */
export const to = {
  run: (key: string) => `/run/${both(key)}`,
  model: (key: string) => `/model/${both(key)}`,
  study: (key: string) => `/study/${both(key)}`,
  compare: (keys: string[]) => `/compare?${keys.map((key) => `run=${encodeURIComponent(key)}`).join("&")}`,
};

/** "<project>/<id>" as the REST interface wants it: the id in the path, the project beside it. */
export function rest(key: string, rest = ""): string {
  const [project, id] = split(key);
  const mark = rest.includes("?") ? "&" : "?";
  return `/api/v1/runs/${encodeURIComponent(id)}${rest}${mark}project=${encodeURIComponent(project)}`;
}

export function split(key: string): [project: string, id: string] {
  const at = key.indexOf("/");
  return [key.slice(0, at), key.slice(at + 1)];
}

function both(key: string): string {
  return split(key).map(encodeURIComponent).join("/");
}
