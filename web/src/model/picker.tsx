// A list of runs to choose one from.

import { useFetched } from "../core/live.ts";
import type { Table } from "../types/runs.ts";

const MOST = 200;

export function RunPicker(props: { label: string; value: string; without?: string; onChange: (key: string) => void }) {
  const { data, error } = useFetched<Table>(`/api/v1/runs?limit=${MOST}`);
  const runs = (data.value?.rows ?? []).filter((run) => run.key !== props.without);
  const left = (data.value?.matched ?? 0) - (data.value?.rows.length ?? 0);
  const known = !props.value || runs.some((run) => run.key === props.value);
  return (
    <select class="run-picker" aria-label={props.label} value={props.value} disabled={error.value !== null}
      title={error.value ?? undefined} onChange={(event) => { if (event.currentTarget.value) props.onChange(event.currentTarget.value); }}>
      <option value="">{error.value ? "the runs could not be read" : props.label}</option>
      {!known && <option value={props.value}>{props.value}</option>}
      {runs.map((run) => (
        <option value={run.key} key={run.key}>
          {run.name && run.name !== run.id ? `${run.name} · ${run.key}` : run.key}
        </option>
      ))}
      {left > 0 && <option disabled>and {left} older runs, which an address can name</option>}
    </select>
  );
}
