// What is seen without a token: where it is to be found, and a field for it.

import { useSignal } from "@preact/signals";
import { unlock } from "../core/session.ts";

export function Unlock() {
  const error = useSignal("");
  const typed = useSignal("");
  return (
    <form
      class="panel stack"
      onSubmit={async (event) => {
        event.preventDefault();
        error.value = (await unlock(typed.value)) ? "" : "This is not the token of this server.";
      }}
    >
      <h1>This dashboard is locked</h1>
      <p>
        Open the whole address that the command printed, from <code>http://</code> to the end of the
        part behind <code>#t=</code>; or paste that address or its token here. Type{" "}
        <code>cupel dashboard --status</code> to see it again.
      </p>
      <label class="stack">
        Token or address
        <input
          type="text"
          autocomplete="off"
          spellcheck={false}
          value={typed.value}
          onInput={(event) => {
            typed.value = event.currentTarget.value;
          }}
        />
      </label>
      {error.value && (
        <p class="notice bad" role="alert">
          {error.value}
        </p>
      )}
      <div>
        <button type="submit">Open</button>
      </div>
    </form>
  );
}
