// The cells of a study, arms beside points: each shows its seeds; one that is chosen shows its runs.

import { useSignal } from "@preact/signals";
import { duration, grouped, number } from "../core/format.ts";
import { query, set, to } from "../core/url.ts";
import { called, plain, word } from "../core/study.ts";
import type { CellFact, RunFact, StudyPlan, StudyState } from "../types/studies.ts";
import { Link, Status } from "./parts.tsx";
import { Mark, Marks } from "./study.tsx";

const FIRST = 60; // rows that are drawn at once

/** A run's state now: the plan may be older than what is told live. */
export function stateOf(plan: StudyPlan, state: StudyState, run: number): string {
  const letter = state.plan === plan.state.plan ? state.marks[run] : undefined;
  return (letter && plan.letters[letter]) || plan.runs[run]!.state;
}

export function Cells(props: { plan: StudyPlan; state: StudyState }) {
  const { plan, state } = props;
  const all = useSignal(false);
  const arms = Object.keys(plan.arms);
  const points = [...new Set(plan.cells.map((cell) => cell.point))];
  const at = new Map(plan.cells.map((cell, number) => [`${cell.arm}\n${cell.point}`, number]));
  const chosen = Number(query.value.get("cell") ?? -1);
  const shown = all.value ? points : points.slice(0, FIRST);
  const first = new Map(plan.cells.map((cell) => [cell.point, cell]));
  const open = plan.cells[chosen];
  return (
    <section class="stack" aria-label="Cells">
      <div class="row">
        <h2 class="grow">
          {grouped(plan.cells.length)} cells, {grouped(plan.runs.length)} runs
        </h2>
        <Marks counts={state.counts} />
      </div>
      <div class="scroll sticky-first">
        <table class="cells-grid">
          <thead>
            <tr>
              <th scope="col">{plan.parameters.map((one) => one.name).join(", ") || "point"}</th>
              {arms.map((arm) => (
                <th scope="col" key={arm}>
                  {arm}
                  {arm === plan.baseline && <span class="faint"> baseline</span>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((point) => (
              <tr key={point}>
                <th scope="row">{first.get(point)!.place.map(plain).join(", ") || "all"}</th>
                {arms.map((arm) => {
                  const number = at.get(`${arm}\n${point}`);
                  return (
                    <td key={arm}>
                      {number === undefined ? (
                        <span class="faint">not planned</span>
                      ) : (
                        <Cell plan={plan} state={state} number={number} chosen={number === chosen} />
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {shown.length < points.length && (
        <div>
          <button type="button" onClick={() => { all.value = true; }}>
            Show all {grouped(points.length)} points
          </button>
        </div>
      )}
      {open && <Runs plan={plan} state={state} cell={open} />}
    </section>
  );
}

function Cell(props: { plan: StudyPlan; state: StudyState; number: number; chosen: boolean }) {
  const { plan, state, number: which, chosen } = props;
  const cell = plan.cells[which]!;
  const states = cell.runs.map((run) => stateOf(plan, state, run));
  const accepted = states.filter((one) => one === "finished").length;
  const each = cell.runs.map((run, n) => `seed ${plan.runs[run]!.seed} ${word(states[n]!)}`);
  return (
    <button type="button" class="cell" aria-pressed={chosen}
      aria-label={`${called(cell, plan.parameters)}: ${accepted} of ${states.length} accepted; ${each.join(", ")}`}
      onClick={() => set({ cell: chosen ? null : String(which) })}>
      <span class="seeds">
        {states.map((one, n) => (
          <Mark key={n} state={one} title={each[n]!} />
        ))}
      </span>
      <span class="count">
        {accepted}/{states.length}
      </span>
    </button>
  );
}

function Runs(props: { plan: StudyPlan; state: StudyState; cell: CellFact }) {
  const { plan, state, cell } = props;
  const key = (run: RunFact) => `${plan.project}/${run.run}`;
  const active = new Map(state.active.map((one) => [one.run, one]));
  const begun = cell.runs.map((run) => plan.runs[run]!).filter((run) => run.sessions > 0 || active.has(run.run));
  return (
    <section class="panel stack" aria-label="Runs of the cell" aria-live="polite">
      <div class="row">
        <h3 class="grow">{called(cell, plan.parameters)}</h3>
        {begun.length > 1 && (
          <Link class="button" to={to.compare(begun.map(key))}>
            Compare these
          </Link>
        )}
        <button type="button" onClick={() => set({ cell: null })}>
          Close
        </button>
      </div>
      <div class="scroll">
        <table class="plain-table">
          <thead>
            <tr>
              <th scope="col">Seed</th>
              <th scope="col">State</th>
              <th scope="col" class="number">Step</th>
              <th scope="col" class="number">{plan.metric}</th>
              <th scope="col" class="number">Time</th>
              <th scope="col">Run</th>
            </tr>
          </thead>
          <tbody>
            {cell.runs.map((number_) => {
              const run = plan.runs[number_]!;
              const now = stateOf(plan, state, number_);
              const live = active.get(run.run);
              return (
                <tr key={run.run}>
                  <td class="number">{run.seed}</td>
                  <td>
                    <Status of={now} text={word(now)} />
                    {run.reason && run.reason !== now && <small class="reason">{run.reason}</small>}
                  </td>
                  <td class="number">
                    {grouped(live?.step ?? run.step)}/{grouped(run.steps)}
                  </td>
                  <td class="number">{number(run.value)}</td>
                  <td class="number">
                    {run.sessions ? duration(run.seconds) : "—"}
                    {run.attempts > 1 && <small>{run.attempts} attempts</small>}
                  </td>
                  <td class="run-name">
                    {run.sessions || live ? <Link to={to.run(key(run))}>{run.run}</Link> : <span class="faint">{run.run}</span>}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}
