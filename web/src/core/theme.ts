// Light or dark: as the system, unless chosen here. Colours and line styles of curves.

import { computed, effect, signal } from "@preact/signals";

export type Theme = "light" | "dark";
const KEPT = "cupel-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const system = signal<Theme>(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => {
  system.value = dark.matches ? "dark" : "light";
});

const kept = (): Theme | null => {
  try {
    const found = localStorage.getItem(KEPT);
    return found === "light" || found === "dark" ? found : null;
  } catch {
    return null; // storage is forbidden
  }
};

/** What was chosen; null follows the system. */
export const chosen = signal<Theme | null>(kept());
export const theme = computed<Theme>(() => chosen.value ?? system.value);

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  try {
    if (chosen.value) localStorage.setItem(KEPT, chosen.value);
    else localStorage.removeItem(KEPT);
  } catch {
    // it is chosen for this page only
  }
});

// After Okabe and Ito (2008), for colour-blind eyes; each has 3:1 against its background.
// Their sky blue is too near to blue on a thin line: black or white stands for it.
const COLOURS: Record<Theme, string[]> = {
  light: ["#0b6fb3", "#c2570c", "#00805c", "#a64d84", "#8a6d00", "#2b2f36", "#6b4fb3", "#8190a0"],
  dark: ["#56b4e9", "#f0a04b", "#33c79a", "#e08cc0", "#e6cf4a", "#f2f4f7", "#b9a3f2", "#85919e"],
};
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];

/** Colour and dashes of the n-th curve: all eight colours are drawn solid before one is dashed. */
export function stroke(n: number): { colour: string; dash: number[] } {
  const colours = COLOURS[theme.value];
  return {
    colour: colours[n % colours.length]!,
    dash: DASHES[Math.floor(n / colours.length) % DASHES.length]!,
  };
}
