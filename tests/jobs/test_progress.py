"""How far a run has come, from the end of its newest metrics."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.jobs.progress import Progress, progress
from cupel.record.codec import encode_line
from cupel.record.layout import metrics_name, session_dir
from cupel.record.session import Session


def begun(root: Path) -> Session:
    return Session.start(root=root, project="p", name="n", config={}, identity="i", run_id="run")


def test_without_a_record_nothing_has_been_done(tmp_path: Path) -> None:
    assert progress(tmp_path / "absent") == Progress()


@given(
    logged=st.lists(
        st.dictionaries(
            st.sampled_from(["loss", "val_loss", "lr"]), st.floats(allow_nan=False), min_size=1
        ),
        max_size=30,
    )
)
@pytest.mark.slow
def test_it_is_the_last_value_of_each(logged: list[dict[str, float]]) -> None:
    expected: dict[str, float] = {}
    for metrics in logged:
        expected |= metrics
    lines = [
        encode_line({"_step": step, **metrics}) for step, metrics in enumerate(logged, start=1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        session = session_dir(Path(folder), 1)
        session.mkdir(parents=True)
        (session / metrics_name()).write_bytes(b"".join(lines))
        found = progress(Path(folder))
    assert found.step == len(logged)
    assert (found.loss, found.val_loss) == (expected.get("loss"), expected.get("val_loss"))


def test_of_a_long_file_only_the_end_is_read(tmp_path: Path) -> None:
    session = begun(tmp_path)
    session.log({"val_loss": 1.0}, step=0)
    for step in range(1, 3000):
        session.log({"loss": float(step), "more": [0.123456789] * 10}, step=step)
    session.finish("interrupted")
    found = progress(session.run_dir)
    assert (found.step, found.loss, found.val_loss) == (2999, 2999.0, None)


def test_damaged_and_unfinished_lines_are_passed_over(tmp_path: Path) -> None:
    session = begun(tmp_path)
    session.log({"loss": 2.0}, step=7)
    session.finish("interrupted")
    with (session.dir / "metrics.r0.000.jsonl").open("ab") as file:
        file.write(b'not json\n{"_step": 8, "loss": 1')
    assert (progress(session.run_dir).step, progress(session.run_dir).loss) == (7, 2.0)


def test_a_loss_that_is_not_a_number_is_shown_as_such(tmp_path: Path) -> None:
    session = begun(tmp_path)
    session.log({"loss": math.nan}, step=1)
    session.finish("failed")
    found = progress(session.run_dir).loss
    assert found is not None
    assert math.isnan(found)


def test_a_session_that_went_back_to_a_checkpoint_counts_from_there(tmp_path: Path) -> None:
    first = begun(tmp_path)
    first.begin_at(0)
    first.log({"loss": 2.0}, step=17)
    first.finish("interrupted")
    second = Session.resume(first.run_dir)
    assert progress(first.run_dir).step == 17, "it has not said yet where it goes on"
    second.begin_at(10)
    assert progress(first.run_dir).step == 10
    second.log({"loss": 1.5}, step=11)
    assert progress(first.run_dir) == progress(second.run_dir)
    assert progress(first.run_dir).step == 11
    second.finish("interrupted")
