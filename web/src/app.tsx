// The frame around every page: where to go, how the line is, light or dark.

import { useSignal } from "@preact/signals";
import { type ComponentType, Component, type ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { ago, time } from "./core/format.ts";
import { connection, unlocked } from "./core/live.ts";
import { chosen, theme } from "./core/theme.ts";
import { path } from "./core/url.ts";
import { Unlock } from "./parts/unlock.tsx";
import { Link, Loading, Problem } from "./parts/parts.tsx";

export type PageProps = { params: string[] };
type Page = ComponentType<PageProps>;
type Loader = () => Promise<{ default: Page }>;

const PLACES = [
  ["/", "Runs"],
  ["/studies", "Studies"],
  ["/queue", "Queue"],
] as const;

// Each page is a file of its own that is fetched when it is first gone to.
const ROUTES: readonly (readonly [RegExp, Loader])[] = [
  [/^\/(?:runs)?$/, () => import("./pages/runs.tsx")],
  [/^\/run\/([^/]+)\/([^/]+)$/, () => import("./pages/run.tsx")],
  [/^\/compare$/, () => import("./pages/compare.tsx")],
  [/^\/studies$/, () => import("./pages/studies.tsx")],
  [/^\/study\/([^/]+)\/([^/]+)$/, () => import("./pages/study.tsx")],
  [/^\/queue$/, () => import("./pages/queue.tsx")],
  [/^\/model\/([^/]+)\/([^/]+)$/, () => import("./pages/model.tsx")],
  [/^\/models$/, () => import("./pages/models.tsx")],
];

/** Fetch the page that the address names while the session is being opened. */
export function ahead(): void {
  const load = ROUTES.find(([pattern]) => pattern.test(path.value))?.[1];
  load?.().catch(() => {}); // told of when it is shown
}

export function App() {
  return (
    <>
      <a class="skip" href="#content">
        To the content
      </a>
      <header class="bar">
        <Link to="/" class="mark" aria-label="cupel: all runs">
          <Mark />
          cupel
        </Link>
        <nav class="places grow" aria-label="Places">
          {PLACES.map(([to, name]) => (
            <Link to={to} key={to} aria-current={isAt(to) ? "page" : undefined}>
              {name}
            </Link>
          ))}
        </nav>
        <LinkState />
        <ThemeButton />
      </header>
      <main id="content" tabIndex={-1}>
        <Guarded key={path.value}>{unlocked.value === "no" ? <Unlock /> : <Routed />}</Guarded>
      </main>
    </>
  );
}

function isAt(to: string): boolean {
  const here = path.value;
  if (to === "/") return here === "/" || here.startsWith("/run") || here.startsWith("/compare") || here.startsWith("/model");
  return to === "/studies" ? here.startsWith("/stud") : here.startsWith(to);
}

function Routed() {
  const here = path.value;
  for (const [pattern, load] of ROUTES) {
    const match = pattern.exec(here);
    if (match) {
      const params = decoded(match.slice(1));
      if (params) return <Loaded load={load} params={params} key={here} />;
    }
  }
  return <Problem text={`There is no page ${here}. Go to Runs, Studies or Queue.`} />;
}

function decoded(parts: string[]): string[] | null {
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return null; // a % that is none
  }
}

function Loaded(props: { load: Loader; params: string[] }) {
  const page = useSignal<{ show: Page } | null>(null);
  const error = useSignal(false);
  useEffect(() => {
    props.load().then(
      (found) => {
        page.value = { show: found.default };
      },
      () => {
        error.value = true;
      },
    );
  }, []);
  if (error.value) {
    return (
      <Problem
        text="A part of this page could not be fetched. Is the server still running?"
        again={() => location.reload()}
      />
    );
  }
  if (!page.value) return <Loading what="Fetching the page" />;
  const Show = page.value.show;
  return <Show params={props.params} />;
}

/** A mistake in one page is told, and does not take the frame with it. */
class Guarded extends Component<{ children: ComponentChildren }, { error: string | null }> {
  override state = { error: null };
  static override getDerivedStateFromError(error: Error) {
    return { error: error.message };
  }
  override render() {
    if (this.state.error === null) return this.props.children;
    return (
      <Problem
        text={`This page failed: ${this.state.error}`}
        again={() => location.reload()}
      />
    );
  }
}

/** Whether the server can be reached: in words. Whether a run lives is said with the run. */
function LinkState() {
  const tick = useSignal(0);
  useEffect(() => {
    const timer = setInterval(() => tick.value++, 1000);
    return () => clearInterval(timer);
  }, []);
  void tick.value;
  const link = connection.link.value;
  const heard = connection.heard.value;
  const since = heard ? `last data ${time(heard / 1000).slice(11)}, ${ago((Date.now() - heard) / 1000)}` : "no data yet";
  const [look, text] =
    link.state === "live"
      ? ["live", "Connected"]
      : link.state === "polling"
        ? ["warn", "Polling"]
        : link.state === "locked"
          ? ["bad", "Locked"]
          : link.state === "waiting"
            ? ["bad", `Offline · again in ${Math.max(0, Math.ceil((link.until - Date.now()) / 1000))} s`]
            : ["open", "Connecting"];
  return (
    <button
      type="button"
      class="plain"
      onClick={() => connection.wake()}
      aria-label={`Connection: ${text}; ${since}`}
      title={`${since}. Click to try again now.`}
    >
      <span class={`pill ${look}`} role="status">
        {text}
      </span>
    </button>
  );
}

function ThemeButton() {
  const next = theme.value === "dark" ? "light" : "dark";
  return (
    <button
      type="button"
      class="plain icon"
      aria-label={`Change to the ${next} theme`}
      title={`Change to the ${next} theme`}
      onClick={() => {
        chosen.value = next;
      }}
    >
      <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
        <circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.5" />
        <path d="M8 1.8a6.2 6.2 0 0 1 0 12.4z" fill="currentColor" />
      </svg>
    </button>
  );
}

/** A cupel: the cup in which metal is tested. */
function Mark() {
  return (
    <svg viewBox="0 0 18 18" aria-hidden="true">
      <path d="M2 5h14l-2.4 9.2a1.4 1.4 0 0 1-1.3 1H5.7a1.4 1.4 0 0 1-1.3-1z" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round" />
      <circle cx="9" cy="6.6" r="2.6" fill="var(--warn)" />
    </svg>
  );
}
