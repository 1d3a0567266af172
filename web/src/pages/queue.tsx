// What is being done in all studies: what is open, who works, what runs, what failed.

import type { PageProps } from "../app.tsx";
import { ago, grouped, number } from "../core/format.ts";
import { connection, useLive } from "../core/live.ts";
import { words } from "../core/study.ts";
import { split, to } from "../core/url.ts";
import { Empty, Link, Loading, Problem, Status } from "../parts/parts.tsx";
import { Alerts, Done, Progress, Steer, useWrites } from "../parts/study.tsx";
import type { ActiveRun, Failures, QueueState, WorkerFact } from "../types/studies.ts";

export default function QueuePage(_: PageProps) {
  const { data, error } = useLive<QueueState>({ kind: "queue" });
  const writes = useWrites();
  if (error.value) return <Problem text={error.value} again={() => location.reload()} />;
  const found = data.value;
  if (!found) return <Loading what="Reading the queue" />;
  return (
    <div class="stack queue">
      <h1>Queue</h1>
      {found.alerts.length > 0 && <Alerts alerts={found.alerts} named />}
      <Open found={found} writes={writes} />
      <Running runs={found.active} total={found.active_total} />
      <Workers workers={found.workers} />
      <Failed failures={found.failures} writes={writes} />
      <Held found={found} writes={writes} />
    </div>
  );
}

function Open(props: { found: QueueState; writes: boolean }) {
  const { studies, settled } = props.found;
  return (
    <section class="stack" aria-label="Studies with open work">
      <h2>
        {studies.length} {studies.length === 1 ? "study has" : "studies have"} open work
        {settled ? <span class="soft">, {grouped(settled)} settled</span> : ""}
      </h2>
      {!studies.length && <Empty text="Nothing is left to do." type="cupel study run RECIPE" />}
      {studies.map((one) =>
        one.problem ? (
          <article key={one.key} class="panel stack">
            <h3>{one.key}</h3>
            <p class="notice bad">{one.problem}</p>
          </article>
        ) : (
          <article key={one.key} class="panel study-card">
            <div>
              <h3>
                <Link to={to.study(one.key)}>{one.key}</Link>
              </h3>
              <p class="soft">{one.question}</p>
            </div>
            <div class="stack">
              <Progress counts={one.counts} total={one.total} steps={one.steps} of={one.of_steps} small />
              <p class="soft">{words(one.counts)}</p>
              <p>
                <Done eta={one.eta} unknown={one.unknown} />
              </p>
              {props.writes && (
                <p class="row">
                  <Steer study={one.key} body={{ what: "hold", all: true, why: "from the dashboard" }}
                    sure={`Hold all runs of ${one.key}? What runs goes on; nothing begins until they are released.`}>
                    Hold all
                  </Steer>
                </p>
              )}
            </div>
          </article>
        ),
      )}
    </section>
  );
}

function Running(props: { runs: ActiveRun[]; total: number }) {
  const now = Date.now() / 1000 + connection.ahead;
  return (
    <section class="stack" aria-label="Running attempts">
      <h2>{grouped(props.total)} running</h2>
      {!props.runs.length && <p class="soft">No run of a study is being trained.</p>}
      {props.runs.length > 0 && (
        <div class="scroll sticky-first">
          <table class="plain-table">
            <thead>
              <tr>
                <th scope="col">Run</th>
                <th scope="col">State</th>
                <th scope="col" class="number">Step</th>
                <th scope="col" class="number">Loss</th>
                <th scope="col" class="number">Attempt</th>
                <th scope="col">Last step</th>
                <th scope="col">Study</th>
              </tr>
            </thead>
            <tbody>
              {props.runs.map((one) => (
                <tr key={one.run}>
                  <th scope="row">
                    <Link to={to.run(`${split(one.study)[0]}/${one.run}`)}>
                      {[one.arm, one.point, `s${one.seed}`].filter(Boolean).join(" ")}
                    </Link>
                  </th>
                  <td>
                    <Status of={one.state} />
                  </td>
                  <td class="number">
                    {grouped(one.step)}/{grouped(one.steps)}
                    <meter class="steps" min={0} max={Math.max(1, one.steps)} value={one.step}
                      aria-label={`step ${one.step} of ${one.steps}`} />
                  </td>
                  <td class="number">{number(one.loss)}</td>
                  <td class="number">{one.sessions}</td>
                  <td class="nowrap">{one.stepped === null ? "none yet" : ago(now - one.stepped)}</td>
                  <td>
                    <Link to={to.study(one.study)}>{one.study}</Link>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {props.total > props.runs.length && <p class="soft">and {grouped(props.total - props.runs.length)} more</p>}
    </section>
  );
}

function Workers(props: { workers: WorkerFact[] }) {
  const looks: Record<string, string> = { alive: "live", silent: "silent", dead: "crashed" };
  return (
    <section class="stack" aria-label="Workers">
      <h2>
        {grouped(props.workers.length)} worker{props.workers.length === 1 ? "" : "s"}
      </h2>
      {!props.workers.length && (
        <p class="soft">
          Nobody works on a study. Begin with <code>cupel jobs work STUDY</code>.
        </p>
      )}
      {props.workers.length > 0 && (
        <div class="scroll sticky-first">
          <table class="plain-table">
            <thead>
              <tr>
                <th scope="col">Worker</th>
                <th scope="col">State</th>
                <th scope="col">Host</th>
                <th scope="col" class="number">Process</th>
                <th scope="col" class="number">At a time</th>
                <th scope="col">Trains</th>
                <th scope="col">Study</th>
              </tr>
            </thead>
            <tbody>
              {props.workers.map((one) => (
                <tr key={`${one.study} ${one.worker}`}>
                  <th scope="row">{one.worker}</th>
                  <td>
                    <Status of={looks[one.state] ?? one.state} text={one.state} />
                  </td>
                  <td>{one.host}</td>
                  <td class="number">{one.pid}</td>
                  <td class="number">{one.slots}</td>
                  <td>
                    {one.running.length
                      ? one.running.map((run) => (
                          <div key={run} class="run-name">
                            <Link to={to.run(`${split(one.study)[0]}/${run}`)}>{run}</Link>
                          </div>
                        ))
                      : "nothing"}
                  </td>
                  <td>{one.study}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Failed(props: { failures: Failures[]; writes: boolean }) {
  if (!props.failures.length) return null;
  const count = props.failures.reduce((sum, one) => sum + one.count, 0);
  return (
    <section class="stack" aria-label="Failures">
      <h2>{grouped(count)} failed, or wait for another try</h2>
      {props.failures.map((one) => {
        const studies = [...new Set(one.runs.map((run) => run.study))];
        return (
          <article key={one.kind} class="panel stack">
            <div class="row">
              <Status of="failed" text={`${grouped(one.count)} ${one.kind}`} />
              <p class="grow">
                {one.advice}
                {one.again > 0 && <span class="soft"> ({grouped(one.again)} of them will be tried again)</span>}
              </p>
            </div>
            <details>
              <summary>{one.runs.length < one.count ? `The first ${one.runs.length} runs` : "Which runs"}</summary>
              <ul class="without">
                {one.runs.map((run) => (
                  <li key={run.run}>
                    <Link to={to.run(`${split(run.study)[0]}/${run.run}`)}>{run.run}</Link>: {run.state}
                    {run.reason ? `: ${run.reason}` : ""}
                    {run.attempts > 1 ? ` (${run.attempts} attempts)` : ""}
                  </li>
                ))}
              </ul>
            </details>
            {props.writes && one.kind !== "diverged" && (
              <p class="row">
                {studies.map((study) => {
                  const runs = one.runs.filter((run) => run.study === study && run.state !== "waiting").map((run) => run.run);
                  return runs.length ? (
                    <Steer key={study} study={study} body={{ what: "retry", runs }}
                      sure={`Try ${runs.length} runs of ${study} again? Their earlier attempts are forgiven.`}>
                      Retry {runs.length} of {study}
                    </Steer>
                  ) : null;
                })}
              </p>
            )}
          </article>
        );
      })}
    </section>
  );
}

function Held(props: { found: QueueState; writes: boolean }) {
  const { holds, quarantined } = props.found;
  if (!holds.length && !quarantined.length) return null;
  return (
    <section class="stack" aria-label="Held back">
      <h2>Held back</h2>
      <ul class="stack">
        {holds.map((one) => (
          <li key={`${one.study} ${one.why}`} class="panel row">
            <Status of="held" text={`${grouped(one.count)} held`} />
            <span class="grow">
              <Link to={to.study(one.study)}>{one.study}</Link>: {one.why}
              {one.by_breaker && <span class="soft"> (since others failed alike)</span>}
            </span>
            {props.writes && (
              <Steer study={one.study}
                body={one.count > one.runs.length ? { what: "release", all: true } : { what: "release", runs: one.runs }}
                sure={`Release ${one.count > one.runs.length ? "all held" : one.count} runs of ${one.study}?`}>
                Release
              </Steer>
            )}
          </li>
        ))}
        {quarantined.map((one) => (
          <li key={`${one.study} ${one.host} ${one.device}`} class="panel row">
            <Status of="held" text="quarantine" />
            <span class="grow">
              {[one.host, one.device].filter(Boolean).join(" ")} for {one.study}: {one.why}
            </span>
            {props.writes && (
              <Steer study={one.study} body={{ what: "release", host: one.host }}
                sure={`Let ${one.host} work on ${one.study} again?`}>
                Release the host
              </Steer>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
