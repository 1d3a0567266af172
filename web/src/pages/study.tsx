// One study: what it asks and what came out, its cells and runs, and its numbers over the grid.

import { ago, grouped, number, time } from "../core/format.ts";
import { connection, useFetched, useLive } from "../core/live.ts";
import { plain } from "../core/study.ts";
import { query, set, to } from "../core/url.ts";
import type { PageProps } from "../app.tsx";
import { Cells, stateOf } from "../parts/cells.tsx";
import { ChartGrid } from "../parts/charts.tsx";
import { GridMap, Pick } from "../parts/grid-map.tsx";
import { Parallel } from "../parts/parallel.tsx";
import { Empty, Link, Loading, Problem } from "../parts/parts.tsx";
import { Alerts, Done, Progress, Steer, useSeldom, useWrites } from "../parts/study.tsx";
import { Answer } from "../parts/verdicts.tsx";
import type { ArmsComparison, CellValues, StudyPlan, StudyState } from "../types/studies.ts";

const TABS = [
  ["", "Cells"],
  ["map", "Heat map"],
  ["lines", "Parallel coordinates"],
  ["curves", "Curves by arm"],
  ["plan", "Plan"],
] as const;
const MOST_CURVES = 200; // runs of one chart

export default function StudyPage({ params }: PageProps) {
  const key = params.join("/");
  const live = useLive<StudyState>({ kind: "study", study: key });
  const state = live.data.value;
  const [project, name] = params.map(encodeURIComponent) as [string, string];
  const address = (rest = "", more = "") => `/api/v1/studies/${name}${rest}?project=${project}${more}`;
  // A plan of 10,000 runs is 2 MB: it is fetched anew when runs have ended, and not for each of them.
  const version = useSeldom(state ? `${state.plan} ${state.ended}` : null, (state?.total ?? 0) > 1000 ? 15_000 : 2_000);
  const plan = useFetched<StudyPlan>(version === null ? null : address(), version);
  const compared = useFetched<ArmsComparison>(version === null ? null : address("/comparison"), version);
  const error = live.error.value ?? plan.error.value;
  if (error) return <Problem text={error} again={() => location.reload()} />;
  if (!state) return <Loading what="Reading the study" />;
  const tab = query.value.get("tab") ?? "";
  const told = plan.data.value;
  return (
    <div class="stack study">
      <Head state={state} plan={told} />
      {compared.error.value && <Problem text={compared.error.value} />}
      {compared.data.value ? (
        <Answer found={compared.data.value} />
      ) : (
        !compared.error.value && <Loading what="Comparing the arms" />
      )}
      <nav class="tabs" aria-label="Parts of the study">
        {TABS.map(([name, text]) => (
          <button type="button" class="plain" key={name} aria-current={tab === name ? "page" : undefined}
            onClick={() => set({ tab: name || null })}>
            {text}
          </button>
        ))}
      </nav>
      {told ? <Part tab={tab} plan={told} state={state} address={address} /> : <Loading what="Reading the plan" />}
    </div>
  );
}

function Head(props: { state: StudyState; plan: StudyPlan | null }) {
  const { state, plan } = props;
  const writes = useWrites();
  const now = Date.now() / 1000 + connection.ahead;
  const [project, name] = state.key.split("/") as [string, string];
  const held = state.counts.held ?? 0;
  const failed = (state.counts.failed ?? 0) + (state.counts.refused ?? 0);
  return (
    <header class="stack">
      <div>
        <p class="faint">
          <Link to="/studies">Studies</Link> · {project} · {name}
        </p>
        <h1>{state.question}</h1>
        {plan?.about && <p class="soft">{plan.about}</p>}
      </div>
      <Progress counts={state.counts} total={state.total} steps={state.steps} of={state.of_steps} />
      <p class="row">
        <Done eta={state.eta} unknown={state.unknown} over={state.over} />
        {state.runs_per_hour > 0 && (
          <span class="soft">
            {number(state.runs_per_hour, 3)} runs an hour · {number(state.steps_per_s, 3)} steps a second
          </span>
        )}
        {state.workers.length > 0 && (
          <span class="soft">
            {state.workers.length} worker{state.workers.length === 1 ? "" : "s"}, {state.slots} at a time
          </span>
        )}
        {state.newest !== null && <span class="soft">last sign {ago(now - state.newest)}</span>}
      </p>
      {state.alerts.length > 0 && <Alerts alerts={state.alerts} />}
      {writes && (
        <p class="row">
          {!state.over && (
            <Steer study={state.key} body={{ what: "hold", all: true, why: "from the dashboard" }}
              sure="Hold all runs of this study? What runs goes on; nothing begins until they are released.">
              Hold all
            </Steer>
          )}
          {held > 0 && (
            <Steer study={state.key} body={{ what: "release", all: true }} sure={`Release ${held} held runs?`}>
              Release held runs
            </Steer>
          )}
          {failed > 0 && (
            <Steer study={state.key} body={{ what: "retry", failed: true }}
              sure={`Try ${failed} failed runs again? Their earlier attempts are forgiven.`}>
              Retry failed runs
            </Steer>
          )}
        </p>
      )}
    </header>
  );
}

function Part(props: {
  tab: string;
  plan: StudyPlan;
  state: StudyState;
  address: (rest?: string, more?: string) => string;
}) {
  const { tab, plan, state } = props;
  if (tab === "map" || tab === "lines") return <OverTheGrid {...props} />;
  if (tab === "curves") return <Curves plan={plan} state={state} />;
  if (tab === "plan") return <Plan plan={plan} />;
  return <Cells plan={plan} state={state} />;
}

function OverTheGrid(props: {
  tab: string;
  plan: StudyPlan;
  state: StudyState;
  address: (rest?: string, more?: string) => string;
}) {
  const { tab, plan, state } = props;
  const metric = query.value.get("of") ?? plan.metric;
  const version = useSeldom(state.ended, 5_000);
  const more = `&metric=${encodeURIComponent(metric)}`;
  const { data, error } = useFetched<CellValues>(props.address("/cells", more), version);
  if (error.value) return <Problem text={error.value} again={() => set({ of: null })} />;
  const found = data.value;
  if (!found) return <Loading what="Reading the runs" />;
  if (!found.metrics.length) return <Empty text="No run is accepted yet. Its numbers appear here when one is." />;
  return (
    <section class="stack" aria-label={tab === "map" ? "Heat map" : "Parallel coordinates"}>
      <Pick label="Metric" name="of" value={found.metric} options={found.metrics}
        onPick={(name) => set({ of: name === plan.metric ? null : name })} />
      {tab === "map" ? <GridMap plan={plan} found={found} /> : <Parallel plan={plan} found={found} />}
    </section>
  );
}

function Curves(props: { plan: StudyPlan; state: StudyState }) {
  const { plan, state } = props;
  const point = query.value.get("point");
  const points = [...new Set(plan.cells.map((cell) => cell.point))];
  const begun = plan.runs
    .map((run, number) => ({ run, number }))
    .filter(({ run, number }) => run.sessions > 0 || ["running", "silent"].includes(stateOf(plan, state, number)))
    .filter(({ run }) => point === null || plan.cells[run.cell]!.point === point);
  const keys = begun.slice(0, MOST_CURVES).map(({ run }) => `${plan.project}/${run.run}`);
  return (
    <section class="stack" aria-label="Curves by arm">
      {points.length > 1 && (
        <Pick label="Point" name="point" value={point ?? "all"} options={["all", ...points]}
          onPick={(name) => set({ point: name === "all" ? null : name })} />
      )}
      {begun.length > keys.length && (
        <p class="notice">
          The first {MOST_CURVES} of {grouped(begun.length)} runs are drawn. Choose a point to see all of its runs.
        </p>
      )}
      {keys.length ? <ChartGrid runs={keys} group="arm" /> : <Empty text="No run has begun." />}
    </section>
  );
}

function Plan(props: { plan: StudyPlan }) {
  const { plan } = props;
  return (
    <section class="stack" aria-label="Plan">
      <p class="soft">
        Frozen {time(plan.created)}
        {plan.parts > 1 ? `, widened ${plan.parts - 1} time${plan.parts === 2 ? "" : "s"} since` : ""}; the
        baseline is {plan.baseline}; seeds {plan.seeds.join(", ")}.
      </p>
      <div class="scroll">
        <table class="plain-table">
          <thead>
            <tr>
              <th scope="col">Arm</th>
              <th scope="col">What it changes</th>
            </tr>
          </thead>
          <tbody>
            {Object.entries(plan.arms).map(([arm, changes]) => (
              <tr key={arm}>
                <th scope="row">{arm}</th>
                <td class="mono">{Object.keys(changes).length ? JSON.stringify(changes) : "nothing"}</td>
              </tr>
            ))}
            {plan.parameters.map((one) => (
              <tr key={one.name}>
                <th scope="row">{one.name}</th>
                <td class="mono">
                  {one.setting}: {one.values.map(plain).join(", ")}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {plan.deviations.length > 0 && (
        <>
          <h3>Deviations, which no cell counts</h3>
          <ul>
            {plan.deviations.map((one) => (
              <li key={one.run}>
                <Link to={to.run(`${plan.project}/${one.run}`)}>{one.run}</Link> of {one.of}: {one.status}
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
