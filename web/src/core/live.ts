// The page's one connection, and hooks for what it brings.

import { effect, type Signal, signal, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect } from "preact/hooks";
import { Connection } from "./connection.ts";

export const connection = new Connection({
  open: () => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    return new WebSocket(`${scheme}://${location.host}/ws`, "cupel.v1");
  },
  fetch: (address) => fetch(address),
  random: Math.random,
});

/** Whether the page may ask: a token was given, or a cookie holds. */
export const unlocked = signal<"asking" | "yes" | "no">("asking");

// A page's parts may be there before its token has been exchanged.
const told = new Promise<void>((done) => {
  effect(() => {
    if (unlocked.value !== "asking") done();
  });
});

/** The newest state of a run, a study, the table …; null before it has come. */
export function useLive<T>(query: Record<string, unknown> | null): {
  data: Signal<T | null>;
  error: Signal<string | null>;
} {
  const data = useSignal<T | null>(null);
  const error = useSignal<string | null>(null);
  const key = JSON.stringify(query);
  // Asked before the page is painted, not after it.
  useLayoutEffect(() => {
    data.value = null;
    error.value = null;
    if (key === "null") return undefined;
    const sub = connection.subscribe(JSON.parse(key), {
      state: (found: never) => {
        data.value = found as T;
        error.value = null;
      },
      refused: (why) => {
        error.value = why;
      },
    });
    return () => sub.end();
  }, [key]);
  return { data, error };
}

/** JSON of the server, once it is known whether the page may ask; throws an Error of the server's line. */
export async function get<T>(address: string, signal?: AbortSignal): Promise<T> {
  await told;
  const answer = await fetch(address, signal ? { signal } : {});
  // An answer that breaks off is none: it must not pass for an empty one.
  if (answer.ok) return (await answer.json()) as T;
  const body = (await answer.json().catch(() => ({}))) as { error?: string };
  throw new Error(body.error ?? `the server answered ${answer.status}`);
}

/** JSON of the server, anew whenever the address or `version` changes; the last one stays meanwhile. */
export function useFetched<T>(address: string | null, version: unknown = 0) {
  const data = useSignal<T | null>(null);
  const error = useSignal<string | null>(null);
  useEffect(() => {
    if (address === null) return undefined;
    const abort = new AbortController();
    get<T>(address, abort.signal).then(
      (found) => {
        data.value = found;
        error.value = null;
      },
      (why: Error) => {
        if (!abort.signal.aborted) error.value = why.message;
      },
    );
    return () => abort.abort();
  }, [address, version]);
  return { data, error };
}
