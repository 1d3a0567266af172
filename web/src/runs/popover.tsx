// A button, and what it opens below itself: ended by Escape, or by a click elsewhere.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

export function Popover(props: {
  label: string;
  text: ComponentChildren;
  plain?: boolean;
  onOpen?: () => void;
  children: ComponentChildren;
}) {
  const open = useSignal(false);
  const all = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open.value) return undefined;
    const away = (event: Event) => {
      if (!all.current?.contains(event.target as Node)) open.value = false;
    };
    const key = (event: KeyboardEvent) => {
      if (event.key !== "Escape") return;
      open.value = false;
      button.current?.focus();
    };
    document.addEventListener("pointerdown", away);
    document.addEventListener("keydown", key);
    return () => {
      document.removeEventListener("pointerdown", away);
      document.removeEventListener("keydown", key);
    };
  }, [open.value]);
  return (
    <div class="opens" ref={all}>
      <button
        type="button"
        class={props.plain ? "plain" : ""}
        ref={button}
        aria-expanded={open.value}
        aria-haspopup="dialog"
        onClick={() => {
          open.value = !open.value;
          if (open.value) props.onOpen?.();
        }}
      >
        {props.text}
      </button>
      {open.value && (
        <div class="popover" role="dialog" aria-label={props.label}>
          {props.children}
        </div>
      )}
    </div>
  );
}
