// Small parts that every page uses.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

/** Shapes and words for the states of runs: never colour alone. */
const LOOKS: Record<string, string> = {
  running: "live",
  live: "live",
  finished: "done",
  done: "done",
  accepted: "done",
  failed: "bad",
  crashed: "bad",
  damaged: "bad",
  diverged: "bad",
  silent: "warn",
  interrupted: "warn",
  held: "warn",
  waiting: "open",
  queued: "open",
  missing: "open",
  planned: "open",
};

export function Status(props: { of: string; text?: string; title?: string }) {
  return (
    <span class={`pill ${LOOKS[props.of] ?? "open"}`} title={props.title}>
      {props.text ?? props.of}
    </span>
  );
}

export function Loading(props: { what: string }) {
  return (
    <p class="loading" role="status">
      {props.what} …
    </p>
  );
}

export function Problem(props: { text: string; again?: () => void }) {
  return (
    <div class="notice bad row" role="alert">
      <span class="grow">{props.text}</span>
      {props.again && (
        <button type="button" onClick={props.again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Nothing there: what would be, and what to type for it. */
export function Empty(props: { text: string; type?: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p>{props.text}</p>
      {props.type && <code>{props.type}</code>}
      {props.children}
    </div>
  );
}

/** One of a few, as buttons that belong together. */
export function Choice<T extends string>(props: {
  label: string;
  options: readonly (readonly [value: T, text: string])[];
  value: T;
  onChange: (value: T) => void;
}) {
  return (
    <div class="segments" role="group" aria-label={props.label}>
      {props.options.map(([value, text]) => (
        <button
          type="button"
          key={value}
          aria-pressed={value === props.value}
          onClick={() => props.onChange(value)}
        >
          {text}
        </button>
      ))}
    </div>
  );
}

export function Fact(props: { name: string; title?: string; children: ComponentChildren }) {
  return (
    <div title={props.title}>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

/** A button that opens a small list; Escape, a click elsewhere, or a choice closes it. */
export function Menu(props: { text: string; label?: string; class?: string; children: ComponentChildren }) {
  const menu = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const away = (event: Event) => {
      if (menu.current?.open && !menu.current.contains(event.target as Node)) menu.current.open = false;
    };
    addEventListener("pointerdown", away);
    return () => removeEventListener("pointerdown", away);
  }, []);
  return (
    <details
      class={`menu ${props.class ?? ""}`}
      ref={menu}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !menu.current?.open) return;
        menu.current.open = false;
        menu.current.querySelector("summary")?.focus();
        event.stopPropagation();
      }}
    >
      <summary class="button" aria-label={props.label}>
        {props.text}
      </summary>
      <div
        class="popover stack"
        onClick={(event) => {
          if ((event.target as Element).closest("a, button") && menu.current) menu.current.open = false;
        }}
      >
        {props.children}
      </div>
    </details>
  );
}

/** Calls back when an element comes into view or leaves it, with so many pixels around. */
export function useSeen(onChange: (seen: boolean) => void, room = 300) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (!element.current) return undefined;
    // What is in view from the first need not wait two frames to be told so.
    const { top, bottom, width } = element.current.getBoundingClientRect();
    if (width > 0 && bottom > -room && top < innerHeight + room) onChange(true);
    const observer = new IntersectionObserver(
      (entries) => onChange(entries[entries.length - 1]!.isIntersecting),
      { rootMargin: `${room}px` },
    );
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return element;
}

/** A link within the page. */
export { Link } from "./link.tsx";
