// The answer of a study: each arm's value, its difference to the baseline as an interval, the verdict.

import { number } from "../core/format.ts";
import { absent, answer, declared, finite, place, plain, signed, stretch } from "../core/study.ts";
import type { ArmsComparison, ArmValue, Difference } from "../types/studies.ts";

const WIDTH = 220;
const HEIGHT = 30;

export function Answer(props: { found: ArmsComparison }) {
  const { found } = props;
  return (
    <section class="panel stack" aria-label="Comparison">
      <p class="answer">{answer(found)}</p>
      <p class="soft">
        {declared(found)}{" "}
        {found.finished < found.planned &&
          `${found.finished} of ${found.planned} runs are finished; this comparison may change.`}
      </p>
      {found.problem && <p class="notice warn">{found.problem}</p>}
      <Table found={found} />
      <Unequal found={found} />
      <Without found={found} />
    </section>
  );
}

/** A row for each comparison; where there is one point, the baseline has a row, too. */
function Table(props: { found: ArmsComparison }) {
  const { found } = props;
  const across = stretch(found.differences, found.margin);
  const level = plain(Math.round(found.confidence * 1000) / 10);
  const several = found.points.length > 1;
  const rows = found.arms.filter((one) => !several || one.arm !== found.baseline);
  const value = (arm: string, point: string) => found.arms.find((one) => one.arm === arm && one.point === point);
  return (
    <div class="scroll verdicts-box">
      <table class="verdicts">
        <thead>
          <tr>
            <th scope="col">{several ? "Arm and point" : "Arm"}</th>
            <th scope="col" class="number">
              {found.metric} ({level} % interval)
            </th>
            {several && (
              <th scope="col" class="number">
                of {found.baseline}, the baseline
              </th>
            )}
            <th scope="col" class="number">Difference</th>
            <th scope="col">
              <Ruler across={across} />
            </th>
            <th scope="col">Verdict</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((one) => (
            <Row key={`${one.arm} ${one.point}`} value={one} found={found} across={across}
              base={several ? value(found.baseline, one.point) : undefined}
              difference={found.differences.find((d) => d.arm === one.arm && d.point === one.point)} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row(props: {
  value: ArmValue;
  base: ArmValue | undefined;
  difference: Difference | undefined;
  found: ArmsComparison;
  across: [number, number];
}) {
  const { value, base, difference, found } = props;
  return (
    <tr>
      <th scope="row">
        {value.arm}
        {value.arm === found.baseline && <span class="faint"> baseline</span>}
        {value.point && <small>{value.point.replaceAll(",", ", ")}</small>}
      </th>
      <td class="number" data-label={found.metric}>
        <Value of={value} />
      </td>
      {base && (
        <td class="number" data-label={found.baseline}>
          <Value of={base} />
        </td>
      )}
      {difference ? (
        <>
          <td class="number" data-label="Difference">
            {difference.mean === null ? "—" : signed(difference.mean)}{" "}
            {difference.low !== null && (
              <span class="soft nowrap">
                [{signed(difference.low)}, {signed(difference.high)}]
              </span>
            )}
            <small>
              n = {difference.n} {difference.n === 1 ? "pair" : "pairs"}; {absent(difference, found.baseline)}
            </small>
          </td>
          <td class="interval-cell">
            <Interval one={difference} margin={found.margin} across={props.across} />
          </td>
          <td data-label="Verdict">
            <span class={`verdict ${difference.verdict ?? "none"}`}>{difference.verdict ?? "no verdict"}</span>
            <small>{difference.reason}</small>
          </td>
        </>
      ) : (
        <td colSpan={3} class="faint">
          {value.arm === found.baseline ? "the others are held against it" : "not compared"}
        </td>
      )}
    </tr>
  );
}

function Value(props: { of: ArmValue }) {
  const { of } = props;
  const [mean, low] = [finite(of.mean), finite(of.low)];
  return (
    <>
      {mean === null ? "—" : number(mean)}
      {mean !== null && low !== null && <span class="soft"> ± {number(mean - low, 2)}</span>}
      <small>
        {of.n} of {of.planned} seeds{gaps(of) && `; ${gaps(of)}`}
      </small>
    </>
  );
}

function gaps(value: ArmValue): string {
  const parts = [];
  if (value.missing.length) parts.push(`missing ${value.missing.join(", ")}`);
  if (value.diverged.length) parts.push(`diverged ${value.diverged.join(", ")}`);
  return parts.join("; ");
}

/** What the axis of all the small plots is. */
function Ruler(props: { across: [number, number] }) {
  const zero = place(0, props.across, WIDTH);
  return (
    <svg class="interval" viewBox={`0 0 ${WIDTH} 16`} width={WIDTH} height="16" role="img"
      aria-label="Differences; the line is zero">
      <text x={Math.max(4, Math.min(WIDTH - 4, zero))} y="12" text-anchor="middle">
        0
      </text>
      {zero > 60 && <text x="0" y="12">{signed(props.across[0])}</text>}
      {zero < WIDTH - 60 && (
        <text x={WIDTH} y="12" text-anchor="end">
          {signed(props.across[1])}
        </text>
      )}
    </svg>
  );
}

function Interval(props: { one: Difference; margin: number | null; across: [number, number] }) {
  const { one, margin, across } = props;
  const x = (value: number) => place(value, across, WIDTH);
  const [low, high, mean] = [one.low, one.high, one.mean].map(finite) as (number | null)[];
  const label =
    mean === null || mean === undefined
      ? "no difference"
      : `difference ${signed(mean)}${low !== null && low !== undefined ? `, from ${signed(low)} to ${signed(high!)}` : ", without an interval"}` +
        (margin === null ? "" : `; the margin is ±${plain(margin)}`);
  return (
    <svg class={`interval ${one.verdict ?? "none"}`} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH}
      height={HEIGHT} role="img" aria-label={label}>
      {margin !== null && (
        <rect class="margin" x={x(-margin)} y="0" width={x(margin) - x(-margin)} height={HEIGHT} />
      )}
      <line class="zero" x1={x(0)} x2={x(0)} y1="0" y2={HEIGHT} />
      {Object.entries(one.differences).map(([seed, value]) => {
        const known = finite(value);
        if (known === null || known < across[0] || known > across[1]) return null;
        return (
          <circle key={seed} class="seed" cx={x(known)} cy={HEIGHT - 6} r="2">
            <title>{`seed ${seed}: ${signed(known)}`}</title>
          </circle>
        );
      })}
      {low !== null && low !== undefined && (
        <path class="range" d={`M${x(low)} 6v8m0-4H${x(high!)}m0-4v8`} />
      )}
      {mean !== null && mean !== undefined && <circle class="mean" cx={x(mean)} cy="10" r="4" />}
    </svg>
  );
}

function Unequal(props: { found: ArmsComparison }) {
  const { unequal, baseline } = props.found;
  if (!unequal.length) return <p class="soft">Equal between arms: everything that is compared.</p>;
  return (
    <details>
      <summary>
        {unequal.length} {unequal.length === 1 ? "thing is" : "things are"} not equal to {baseline}
      </summary>
      <div class="scroll">
        <table class="plain-table">
          <thead>
            <tr>
              <th scope="col">Arm</th>
              <th scope="col">What</th>
              <th scope="col">{baseline}</th>
              <th scope="col">The arm</th>
            </tr>
          </thead>
          <tbody>
            {unequal.map((one) => (
              <tr key={`${one.arm} ${one.name}`}>
                <td>{one.arm}</td>
                <td>{one.name}</td>
                <td>{one.baseline}</td>
                <td class="differs">{one.value}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

function Without(props: { found: ArmsComparison }) {
  const { without } = props.found;
  if (!without.length) return null;
  const shown = without.slice(0, 100);
  return (
    <details>
      <summary>
        {without.length} {without.length === 1 ? "run has" : "runs have"} no value, or one with a remark
      </summary>
      <ul class="without">
        {shown.map((one) => (
          <li key={one.run}>
            <span class="mono">{[one.arm, one.point, `s${one.seed}`].filter(Boolean).join(" ")}</span>:{" "}
            {one.status}
            {one.reason ? `: ${one.reason}` : ""}
          </li>
        ))}
        {without.length > shown.length && <li class="soft">and {without.length - shown.length} more</li>}
      </ul>
    </details>
  );
}
