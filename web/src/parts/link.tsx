import type { ComponentChildren } from "preact";
import { go } from "../core/url.ts";

type Plain = {
  class?: string;
  title?: string;
  role?: "row" | "gridcell" | "link" | "button";
  tabIndex?: number;
  "aria-label"?: string;
  "aria-current"?: "page" | undefined;
};

/** A link within the page: the address bar follows, other ways to click stay the browser's.
 *
 *  One to "" leads nowhere, yet. */
export function Link(props: { to: string; children: ComponentChildren } & Plain) {
  const { to, children, ...rest } = props;
  return (
    <a
      href={to || undefined}
      {...(rest as object)}
      onClick={(event) => {
        if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        if (to) go(to);
      }}
    >
      {children}
    </a>
  );
}
