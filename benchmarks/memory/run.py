"""`make bench-memory`: memories in closed chunk form, beside titans-pytorch and token by token.

titans-pytorch runs in a virtual environment of its own (.bench/peers), with cupel's sources beside
it: in one process, on the same weights and inputs, by turns, one thread, CPU seconds. Before
anything is timed both must give the same numbers in float64. Its modes: `paper` is the paper's rule
(chunk_size=1, batch_size=chunk); `chunk gates` has one gate a chunk; `default` takes every gradient
at the first weights, which is another rule. Ours has gates a token beside all of them. `--write`
keeps the numbers in measured.json and the tables in docs/benchmarks.md.
"""

from __future__ import annotations

import os

# Before torch comes in: one thread, and none that spins.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import argparse
import datetime
import itertools
import json
import platform
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory_tables import tables

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOME = ROOT / ".bench" / "peers" / "titans-pytorch"
PINS = ("titans-pytorch==0.5.5", "torch==2.13.0", "pydantic", "msgspec")
MEASURED = HERE / "measured.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- memories -->", "<!-- end of memories -->"
ALL = ["paper", "chunk gates", "default"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=7, help="turns of each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--write", action="store_true", help="keep the numbers, and show them in docs"
    )
    given = parser.parse_args()
    found = measure(given.turns)
    if given.write:
        MEASURED.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(with_tables(PAGE.read_text(), found))
    print(json.dumps(found, indent=1) if given.json else "\n".join(tables(found)))


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with the tables of a measurement between its two marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}", *tables(found), f"\n{END}{after}"])


def measure(turns: int) -> dict[str, Any]:
    """Everything, with progress on stderr."""
    python = _peer()
    machine = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
    }
    found: dict[str, Any] = {"peer": PINS[0], "torch": PINS[1], "turns": turns}
    found["same"] = {}
    for depth, length in ((1, 256), (2, 256), (1, 100)):
        _say(f"the same numbers, depth {depth}, {length} tokens")
        size = ("--depth", depth, "--length", length, "--width", 16, "--chunk", 16)
        found["same"][f"{depth}, {length}"] = _child(python, "same", *size)
    found["time"] = {}
    for depth in (1, 2):
        for name, extra in (("forward", ()), ("both", ("--backward",))):
            _say(f"depth {depth}, {name}")
            found["time"][f"{depth} {name}"] = _child(
                python, "time", "--depth", depth, "--turns", turns, *extra, "--against", *ALL
            )
    found["growth"] = {}
    for length in (1024, 4096):
        _say(f"{length} tokens")
        found["growth"][str(length)] = _child(
            python, "time", "--length", length, "--turns", turns, "--backward"
        )["cupel"]["ms"]
    found["memory"] = {}
    for depth in (1, 2):
        for name in ("cupel", "paper", "chunk gates"):
            _say(f"memory, depth {depth}, {name}")
            told = _child(python, "memory", "--depth", depth, "--backward", "--against", name)
            found["memory"][f"{depth} {name}"] = told["mb"]
    _say("oracles")
    found["oracles"] = oracles()
    found["machine"] = {**machine, "load_average_after": os.getloadavg()[0]}
    return found


def oracles() -> dict[str, dict[str, float]]:
    """CPU ms of MIRAS' and Hope's rules at 1,024 tokens: in chunks, and token by token."""
    import torch
    from torch.nn import functional as F

    from cupel.models.memory import bias, retention
    from cupel.models.memory.chunk import Gates, Rule, begin, run
    from cupel.models.memory.net import Net
    from cupel.models.memory.oracles import sequential

    torch.set_num_threads(1)
    mlp, plain = Net("gelu", residual=True, norm=True), Net()
    rules = {
        "moneta": (Rule(mlp, bias.Lp(3.0), retention.LqPaper(4.0)), 2),
        "yaad": (Rule(mlp, bias.HuberMixture(), retention.L2Retention()), 2),
        "memora": (Rule(mlp, bias.L2(), retention.KLRetention()), 2),
        "hope's delta rule": (
            Rule(plain, bias.L2(), retention.L2Retention(), erase="one", read="before"), 1,
        ),
    }  # fmt: skip
    length, width, found = 1024, 64, {}
    made = torch.Generator().manual_seed(1)
    q, k = (F.normalize(torch.randn(1, length, width, generator=made), dim=-1) for _ in range(2))
    v = torch.randn(1, length, width, generator=made)
    one = torch.ones(1, length)
    token = Gates((0.99 * one).log(), 0.05 * one, None, one)
    wide = one.unsqueeze(-1).expand(-1, -1, width)
    channel = Gates((0.99 * wide).log(), 0.05 * wide, None, one)  # as MIRAS has them
    for name, (rule, depth) in rules.items():
        sizes = [width, *[2 * width] * (depth - 1), width]
        weights = [torch.rand(1, i, o, generator=made) / i for i, o in itertools.pairwise(sizes)]
        fast = begin(rule, weights)
        alone = fast._replace(
            weights=[w[0] for w in fast.weights], anchor=[w[0] for w in fast.anchor],
            dual=None if fast.dual is None else [w[0] for w in fast.dual],
        )  # fmt: skip
        gates = channel if depth > 1 else token
        own = Gates(*(None if gate is None else gate[0] for gate in gates))

        def chunked(rule=rule, fast=fast, gates=gates) -> None:  # type: ignore[no-untyped-def]
            run(rule, q, k, v, gates, fast)

        def slowly(rule=rule, alone=alone, own=own) -> None:  # type: ignore[no-untyped-def]
            sequential(rule, q[0], k[0], v[0], own, alone)

        with torch.no_grad():
            found[name] = {"chunk": _best(chunked, 5), "sequential": _best(slowly, 2)}
    with torch.no_grad():
        chunked, slowly = _hope(k, v)
        found["hope, all memories"] = {"chunk": _best(chunked, 5), "sequential": _best(slowly, 2)}
    return found


def _hope(q: Any, x: Any) -> tuple[Callable[[], None], Callable[[], None]]:
    """Self-modifying memories (each of k, v, alpha and eta its own) in chunks, and one by one.

    Of two layers, with the chunks of `hope-full`: 16 tokens, 64 of the memories besides the main.
    """
    import torch

    from cupel.models.memory.hope import how as how_of
    from cupel.models.memory.oracles_hope import Memory, self_modifying
    from cupel.models.memory.selfmod import modify, start
    from cupel.models.memory.settings import HopeSettings

    how = how_of(HopeSettings())
    made = torch.Generator().manual_seed(2)
    width = x.shape[-1]
    shapes = [(width, 2 * width), (2 * width, width)]
    main = [torch.randn(1, *one, generator=made) / one[0] ** 0.5 for one in shapes]
    others = [
        torch.randn(1, len(how.names), *one, generator=made) / one[0] ** 0.5 for one in shapes
    ]
    out = {name: torch.randn(1, width, generator=made) / width for name in ("alpha", "eta")}

    def chunked() -> None:
        def readout(name: str, said: Any) -> Any:
            return torch.einsum("ntd,nd->nt", said, out[name])

        modify(how, x, {"q": q}, readout, start(how, main, others))

    def slowly() -> None:
        def readout(name: str, said: Any) -> Any:
            return said @ out[name][0]

        memories = {"main": Memory([weight[0] for weight in main])}
        memories |= {
            name: Memory([weight[0, n] for weight in others]) for n, name in enumerate(how.names)
        }
        self_modifying(how, x[0], {"q": q[0]}, readout, memories)

    return chunked, slowly


def _best(call: Callable[[], None], times: int) -> float:
    call()
    taken = []
    for _ in range(times):
        begun = time.process_time()
        call()
        taken.append(1e3 * (time.process_time() - begun))
    return sorted(taken)[len(taken) // 2]


def _peer() -> str:
    """titans-pytorch's python, its environment made once."""
    python, done = HOME / "bin" / "python", HOME / "pins.txt"
    if not done.exists() or done.read_text() != "\n".join(PINS):
        _say(f"making an environment for {PINS[0]} (a minute, once)")
        shutil.rmtree(HOME, ignore_errors=True)
        venv.create(HOME, with_pip=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *PINS], check=True)
        done.write_text("\n".join(PINS))
    return str(python)


def _child(python: str, *arguments: Any) -> Any:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [python, str(HERE / "beside.py"), *map(str, arguments)]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"beside.py failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def _say(text: str) -> None:
    print(f"bench-memory: {text} …", file=sys.stderr)


if __name__ == "__main__":
    main()
