// The token comes behind the # of the address, which no server and no log sees, and becomes a cookie.

import { effect } from "@preact/signals";
import { connection, unlocked } from "./live.ts";

effect(() => {
  if (connection.link.value.state === "locked") unlocked.value = "no";
});

/** Exchange a token, or an address that holds one, for the cookie; whether it was the right one. */
export async function unlock(text: string): Promise<boolean> {
  const token = /#t=([\w-]+)/.exec(text)?.[1] ?? text.trim();
  const answer = await fetch("/api/v1/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (answer.ok) begin();
  return answer.ok;
}

/** At the start: the token of the address, or the cookie of an earlier time. */
export async function enter(): Promise<void> {
  const found = /^#t=([\w-]+)/.exec(location.hash)?.[1];
  if (found) {
    history.replaceState(null, "", location.pathname + location.search);
    if (await unlock(found).catch(() => false)) return;
  }
  // The socket is tried at once; whether the cookie holds is asked beside it.
  start();
  const answer = await fetch("/api/v1/session").catch(() => null);
  if (answer?.status === 401) {
    connection.lock();
  } else {
    unlocked.value = "yes";
  }
}

let begun = false;

function begin(): void {
  unlocked.value = "yes";
  if (connection.link.value.state === "locked") connection.link.value = { state: "connecting" };
  start();
}

function start(): void {
  if (begun) connection.wake();
  else {
    connection.start();
    readAhead();
  }
  begun = true;
}

/** Have the server read what this page shows first, while the page's parts are on their way. */
function readAhead(): void {
  const given = new URLSearchParams(location.search);
  // Only where charts are shown, and the first of them is not chosen by a name.
  if (given.get("metric") || (given.get("tab") ?? given.get("view") ?? "charts") !== "charts") return;
  const one = /^\/run\/([^/]+\/[^/]+)/.exec(location.pathname)?.[1];
  const keys = one ? new URLSearchParams(`run=${one}`).getAll("run") : given.getAll("run");
  if (!keys.length) return;
  const asked = new URLSearchParams(keys.map((key) => ["run", key]));
  fetch(`/api/v1/ahead?${asked}`).catch(() => {}); // of what fails the chart will tell
}
