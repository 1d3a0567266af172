// All studies: what each asks, how far it is, and what came out where it is done.

import { useSignal } from "@preact/signals";
import type { PageProps } from "../app.tsx";
import { ago, grouped, time } from "../core/format.ts";
import { connection, useFetched, useLive } from "../core/live.ts";
import { answer, words } from "../core/study.ts";
import { split, to } from "../core/url.ts";
import { Empty, Link, Loading, Problem, useSeen } from "../parts/parts.tsx";
import { Done, Progress, useSeldom } from "../parts/study.tsx";
import type { ArmsComparison, QueueState, StudyRow } from "../types/studies.ts";

export default function StudiesPage(_: PageProps) {
  // What is open is told live; when that changes, the list is fetched anew.
  const live = useLive<QueueState>({ kind: "queue" });
  const open = live.data.value;
  const sign = open ? JSON.stringify([open.studies.map((one) => [one.key, one.counts]), open.settled]) : "";
  const version = useSeldom(sign, 2_000);
  const list = useFetched<StudyRow[]>("/api/v1/studies", version);
  const typed = useSignal("");
  if (list.error.value) return <Problem text={list.error.value} again={() => location.reload()} />;
  const rows = list.data.value;
  if (!rows) return <Loading what="Reading the studies" />;
  if (!rows.length) {
    return <Empty text="There is no study yet. A recipe with a section study makes one." type="cupel study run quickstart" />;
  }
  const wanted = typed.value.toLowerCase();
  const shown = rows.filter((one) => `${one.key} ${one.question}`.toLowerCase().includes(wanted));
  return (
    <div class="stack">
      <div class="row">
        <h1 class="grow">Studies</h1>
        <input type="search" class="narrow" placeholder="Name or question" aria-label="Search studies"
          value={typed.value} onInput={(event) => { typed.value = event.currentTarget.value; }} />
      </div>
      {!shown.length && <Empty text={`No study has “${typed.value}” in its name or question.`} />}
      <ul class="stack studies-list">
        {shown.map((one) => (
          <li key={one.key}>
            <Study row={one} />
          </li>
        ))}
      </ul>
    </div>
  );
}

function Study(props: { row: StudyRow }) {
  const { row } = props;
  const now = Date.now() / 1000 + connection.ahead;
  if (row.problem) {
    return (
      <article class="panel stack">
        <h2>{row.key}</h2>
        <p class="notice bad">{row.problem}</p>
      </article>
    );
  }
  return (
    <article class="panel study-card">
      <div class="stack">
        <p class="faint">
          {row.project} · {row.name}
        </p>
        <h2>
          <Link to={to.study(row.key)}>{row.question}</Link>
        </h2>
        <p class="soft">
          {row.arms.length} arms, {grouped(row.cells)} cells, {grouped(row.runs)} runs · {row.metric} ·{" "}
          {row.newest === null ? `planned ${time(row.created)}` : `last sign ${ago(now - row.newest)}`}
        </p>
      </div>
      <div class="stack">
        <Progress counts={row.counts} total={row.runs} steps={row.steps} of={row.of_steps} small />
        {(row.counts.finished ?? 0) < row.runs && <p class="soft">{words(row.counts)}</p>}
        <p>
          <Done eta={row.eta} unknown="" over={row.over} />
          {row.alerts > 0 && <span class="pill warn"> {row.alerts} alert{row.alerts === 1 ? "" : "s"}</span>}
        </p>
        {row.over && (row.counts.finished ?? 0) > 0 && <Verdict of={row} />}
      </div>
    </article>
  );
}

/** What came out; asked for when it comes into view, since comparing reads every record once. */
function Verdict(props: { of: StudyRow }) {
  const [project, name] = split(props.of.key).map(encodeURIComponent) as [string, string];
  const seen = useSignal(false);
  const element = useSeen((now) => {
    seen.value ||= now;
  }, 50);
  const address = `/api/v1/studies/${name}/comparison?project=${project}`;
  const found = useFetched<ArmsComparison>(seen.value ? address : null);
  return (
    <div ref={element} class="answer small">
      {found.data.value ? answer(found.data.value) : found.error.value ? found.error.value : <span class="faint">Comparing …</span>}
    </div>
  );
}
