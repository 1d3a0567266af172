// The page begins here: the line to the server, then the frame.

import { render } from "preact";
import { App, ahead } from "./app.tsx";
import { connection } from "./core/live.ts";
import { enter } from "./core/session.ts";

const hidden = () => connection.pause(document.hidden);
document.addEventListener("visibilitychange", () => {
  hidden();
  if (!document.hidden) connection.wake();
});
addEventListener("online", () => connection.wake());
addEventListener("pageshow", () => connection.wake());

hidden();
ahead();
void enter();
render(<App />, document.getElementById("page")!);
