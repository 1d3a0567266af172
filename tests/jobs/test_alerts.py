"""Alerts are raised once, cleared once, do not flap, and outlive a restart."""

from __future__ import annotations

import json
import math
import resource
import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import UsageError
from cupel.jobs.alerts import (
    HISTORY,
    STATE,
    Alert,
    RunningRun,
    Snapshot,
    Thresholds,
    Watch,
    free_part,
    unix_time,
)
from cupel.jobs.eta import Eta
from cupel.studies.settings import AlertSettings

T = 1_800_000_000.0
DEADLINE = "2027-02-01T08:00"
HOUR = 3600.0


def of(alerts: list[Alert]) -> list[tuple[str, bool]]:
    return [(alert.key, alert.raised) for alert in alerts]


def run(
    name: str = "r", *, step: int = 5, stepped: float = T, seen: float = T, loss: float = 1.0
) -> RunningRun:
    return RunningRun(name, step, stepped, seen, loss)


def failing(failed: int, ended: int, *, diverged: int = 0) -> Snapshot:
    return Snapshot(T, ended=ended, failed=failed, diverged=diverged)


def quiet(watch: Watch, *snapshots: Snapshot) -> None:
    for snapshot in snapshots:
        assert watch.check(snapshot) == []


def test_thresholds_are_the_settings_of_a_recipe() -> None:
    declared = AlertSettings()
    mine = {one.name for one in fields(Thresholds)}
    assert mine == set(AlertSettings.model_fields) - {"webhook", "command"}
    assert asdict(Thresholds()) == declared.model_dump(include=mine)


def test_an_undisturbed_study_raises_nothing() -> None:
    now = Snapshot(
        T, ended=20, failed=1, diverged=9, running=[run()], open=4, claimable=4, free=1,
        disk_free=0.5, eta=Eta(T + 9, T + 8, T + 10),
    )  # fmt: skip
    quiet(Watch(Thresholds(deadline=DEADLINE)), now, Snapshot(T))


def test_failures_count_from_ten_ended_runs_on_and_say_how_many_of_how_many() -> None:
    watch = Watch(Thresholds())
    quiet(watch, failing(9, 9), failing(1, 10))
    (alert,) = watch.check(failing(2, 10, diverged=3))
    assert (alert.key, alert.raised, alert.severity) == ("failures", True, "error")
    assert alert.text == (
        "2 of 10 ended runs failed (20 %; the limit is 10 %); 3 diverged, which is no failure"
    )


def test_failures_are_cleared_only_well_below_the_limit() -> None:
    watch = Watch(Thresholds())
    assert of(watch.check(failing(11, 100))) == [("failures", True)]
    quiet(watch, failing(12, 101), failing(10, 100), failing(11, 101), failing(8, 100))
    (alert,) = watch.check(failing(7, 100))
    assert (alert.raised, alert.text) == (
        False, "7 of 100 ended runs failed (7 %; the limit is 10 %)"
    )  # fmt: skip
    quiet(watch, failing(7, 100))


def test_diverged_runs_are_no_failures() -> None:
    quiet(Watch(Thresholds()), failing(0, 50, diverged=50))


def test_a_run_without_a_new_step_is_named_once_and_cleared_by_a_step() -> None:
    watch = Watch(Thresholds())
    quiet(watch, Snapshot(T + 600, running=[run(seen=T + 600)]))
    assert watch.check(Snapshot(T + 660, running=[run(seen=T + 660)])) == [
        Alert(
            "no-progress/r", True, "r has made no step for 11 min, since step 5", "warning", T + 660
        )
    ]
    quiet(watch, Snapshot(T + 700, running=[run(seen=T + 700)]))
    stepped = run(step=6, stepped=T + 710, seen=T + 710)
    assert watch.check(Snapshot(T + 720, running=[stepped])) == [
        Alert("no-progress/r", False, "r goes on, at step 6", "warning", T + 720)
    ]


def test_each_running_run_is_watched_on_its_own() -> None:
    watch = Watch(Thresholds())
    at = T + 1000
    runs = [run("a", seen=at), run("b", seen=at, stepped=at), run("c", seen=T, stepped=at)]
    assert of(watch.check(Snapshot(at, running=runs))) == [
        ("no-progress/a", True), ("silent/c", True)
    ]  # fmt: skip
    quiet(watch, Snapshot(at + 1, running=runs))


def test_a_slow_run_does_not_flap_but_is_raised_anew_after_twice_the_time() -> None:
    watch = Watch(Thresholds())
    told = []
    step_s = 15 * 60.0
    for minute in range(600):
        t = T + 60 * minute
        steps = int((t - T) // step_s)
        told += watch.check(
            Snapshot(t, running=[run(step=steps, stepped=T + steps * step_s, seen=t)])
        )
    assert of(told) == [("no-progress/r", True), ("no-progress/r", False)]


def test_patience_grows_to_sixteen_times_and_no_further() -> None:
    watch, waits = Watch(Thresholds()), []
    t = T
    for _ in range(7):
        begun = t
        while not watch.check(Snapshot(t, running=[run(stepped=begun, seen=t)])):
            t += 30
        waits.append(round((t - begun) / 600))
        t += 30
        assert of(watch.check(Snapshot(t, running=[run(stepped=t, seen=t)])))
    assert waits == [1, 2, 4, 8, 16, 16, 16]


def test_a_silent_run_is_cleared_by_a_sign_of_life() -> None:
    watch = Watch(Thresholds())
    quiet(watch, Snapshot(T + 60, running=[run()]))
    (raised,) = watch.check(Snapshot(T + 61, running=[run()]))
    assert (raised.key, raised.text) == ("silent/r", "r has given no sign of life for 61 s")
    quiet(watch, Snapshot(T + 70, running=[run()]))
    (cleared,) = watch.check(Snapshot(T + 80, running=[run(seen=T + 79)]))
    assert (cleared.key, cleared.raised) == ("silent/r", False)


def test_what_was_raised_about_a_run_is_cleared_when_nobody_trains_it_any_more() -> None:
    watch = Watch(Thresholds())
    late = Snapshot(T + 700, running=[run(loss=math.nan)])
    assert len(watch.check(late)) == 3
    cleared = watch.check(Snapshot(T + 701))
    assert {alert.key for alert in cleared} == {"no-progress/r", "silent/r", "non-finite/r"}
    assert {(alert.raised, alert.text) for alert in cleared} == {
        (False, "r is not running any more")
    }
    assert len(watch.check(late)) == 3, "patience ends with the run"


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_raised_until_it_was_finite_for_ten_steps(
    loss: float,
) -> None:
    def at(step: int, loss: float) -> Snapshot:
        return Snapshot(T, running=[run(step=step, loss=loss)])

    watch = Watch(Thresholds())
    (alert,) = watch.check(at(5, loss))
    assert alert.key == "non-finite/r"
    assert alert.text == f"the loss of r is {loss} at step 5, and it is running on"
    quiet(watch, at(6, 1.0), at(9, loss), at(10, 1.0), at(15, 1.0), at(18, 1.0))
    assert of(watch.check(at(19, 1.0))) == [("non-finite/r", False)]


def test_a_run_without_a_loss_yet_is_not_judged() -> None:
    quiet(Watch(Thresholds()), Snapshot(T, running=[replace(run(), loss=None)]))


def starving(t: float, *, free: int = 2, claimable: int = 0, left: int = 3) -> Snapshot:
    return Snapshot(T + t, free=free, claimable=claimable, open=left)


def test_workers_that_wait_for_ten_minutes_while_runs_are_open_are_told_of() -> None:
    watch = Watch(Thresholds())
    quiet(watch, starving(0), starving(599))
    (alert,) = watch.check(starving(600))
    assert alert.text == "3 runs are open, but none could be claimed for 10 min (2 free)"
    assert of(watch.check(starving(601, claimable=1))) == [("starved", False)]


@pytest.mark.parametrize("between", [{"free": 0}, {"claimable": 1}, {"left": 0}])
def test_the_time_of_waiting_begins_anew_when_it_is_interrupted(between: dict[str, int]) -> None:
    watch = Watch(Thresholds())
    quiet(watch, starving(0), starving(300, **between), starving(301), starving(900))
    assert of(watch.check(starving(901))) == [("starved", True)]


def test_the_disk_is_cleared_only_above_the_limit_by_a_fifth() -> None:
    watch = Watch(Thresholds())
    parts = [0.11, 0.099, 0.05, 0.101, 0.119, 0.12, 0.11, 0.09]
    told = [of(watch.check(Snapshot(T, disk_free=part))) for part in parts]
    up, down, nothing = [("disk", True)], [("disk", False)], []
    assert told == [nothing, up, nothing, nothing, nothing, down, nothing, up]
    quiet(watch, Snapshot(T))


def test_the_free_part_is_that_of_the_disk(tmp_path: Path) -> None:
    part = free_part(tmp_path)
    assert part is not None
    assert 0 < part < 1
    assert free_part(tmp_path / "absent") is None


END = unix_time(DEADLINE)


def expected(at: float, low: float, high: float, *, t: float = END - 10 * HOUR) -> Snapshot:
    """With an ETA, as hours after the deadline."""
    return Snapshot(t, open=3, eta=Eta(END + at * HOUR, END + low * HOUR, END + high * HOUR))


def test_a_deadline_is_first_unlikely_and_then_impossible_and_each_is_told_once() -> None:
    watch = Watch(Thresholds(deadline=DEADLINE))
    quiet(watch, expected(-1, -2, 3))
    (warned,) = watch.check(expected(1, -1, 3))
    assert (warned.severity, warned.text) == (
        "warning",
        "it will probably not be done in time: 2027-02-01 09:00 UTC, 2027-02-01 07:00 UTC at the "
        "earliest; the deadline is 2027-02-01 08:00 UTC",
    )
    quiet(watch, expected(2, -0.5, 3))
    (certain,) = watch.check(expected(3, 1, 5))
    assert (certain.key, certain.raised, certain.severity) == ("deadline", True, "error")
    assert certain.text.startswith("it will not be done in time")
    quiet(watch, expected(2, -1, 5), expected(-0.5, -1, 5), expected(3, 1, 5))
    (over,) = watch.check(expected(-2, -3, 5))
    assert (over.raised, over.text.partition(":")[0]) == (
        False,
        "it is expected to be done in time",
    )


def test_without_an_eta_only_a_deadline_that_has_passed_is_told() -> None:
    watch = Watch(Thresholds(deadline=DEADLINE))
    quiet(watch, Snapshot(END - 1, open=3))
    (alert,) = watch.check(Snapshot(END + 1, running=[run(stepped=END, seen=END)]))
    assert (alert.key, alert.severity) == ("deadline", "error")
    assert of(watch.check(Snapshot(END + 2))) == [("deadline", False)]


def test_a_deadline_that_was_taken_away_is_over(tmp_path: Path) -> None:
    watch = Watch(Thresholds(deadline=DEADLINE), tmp_path)
    assert of(watch.check(expected(3, 1, 5))) == [("deadline", True)]
    assert watch.save() == ""
    assert of(Watch.load(tmp_path, Thresholds()).check(Snapshot(T))) == [("deadline", False)]


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01T08:00", "", "8:00"])
def test_a_deadline_that_is_no_time_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"'.*' is no time; type it as 2026-12-01T08:00 \(UTC\)\Z"):
        Watch(Thresholds(deadline=text))


def test_times_are_in_utc_unless_they_say_otherwise() -> None:
    assert unix_time("1970-01-02T00:00") == 86400
    assert unix_time("1970-01-02T00:00+01:00") == 86400 - 3600


def test_of_one_kind_twenty_are_told_at_once_and_the_rest_in_a_line(tmp_path: Path) -> None:
    watch = Watch(Thresholds(), tmp_path)
    runs = [run(f"r{number}") for number in range(51)]
    told = watch.check(Snapshot(T + 100, running=runs, disk_free=0.01))
    assert len(told) == 22
    assert (told[-1].kind, told[-1].text) == ("silent", "and 31 more")
    assert ("disk", True) in of(told)
    assert len(watch.raised) == 52
    cleared = watch.check(Snapshot(T + 101, disk_free=0.01))
    assert (len(cleared), cleared[-1].text, cleared[-1].raised) == (21, "and 31 more", False)
    assert watch.save() == ""
    lines = (tmp_path / HISTORY).read_text().splitlines()
    assert len(lines) == 52 + 51, "the history has them all"


@pytest.mark.parametrize("count, told, last", [(20, 20, "r19 has"), (21, 21, "and 1 more")])
def test_a_line_for_the_rest_is_there_only_when_there_is_a_rest(
    count: int, told: int, last: str
) -> None:
    runs = [run(f"r{number}") for number in range(count)]
    alerts = Watch(Thresholds()).check(Snapshot(T + 100, running=runs))
    assert len(alerts) == told
    assert alerts[-1].text.startswith(last)


def test_each_change_is_a_line_of_the_history(tmp_path: Path) -> None:
    watch = Watch(Thresholds(), tmp_path)
    first = watch.check(Snapshot(T, disk_free=0.01))
    assert watch.save() == ""
    second = watch.check(Snapshot(T + 5, disk_free=0.5))
    assert watch.save() == ""
    lines = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert lines == [asdict(alert) for alert in first + second]
    assert lines[0] == {
        "key": "disk", "raised": True, "severity": "error", "t": T,
        "text": "1 % of the disk is free; the limit is 10 %",
    }  # fmt: skip


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    watch = Watch.load(tmp_path, Thresholds())
    watch.check(Snapshot(T, disk_free=0.9))
    assert watch.save() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_torn_does_not_damage_the_next(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text('{"key": "di')
    watch = Watch(Thresholds(), tmp_path)
    watch.check(Snapshot(T, disk_free=0.01))
    assert watch.save() == ""
    lines = (tmp_path / HISTORY).read_text().split("\n")
    assert (lines[0], json.loads(lines[1])["key"], lines[2]) == ('{"key": "di', "disk", "")


def test_what_the_disk_refuses_is_told_and_written_later(tmp_path: Path) -> None:
    watch = Watch(Thresholds(), tmp_path)
    (tmp_path / HISTORY).mkdir()  # nothing can be appended to a folder
    watch.check(Snapshot(T, disk_free=0.01))
    assert watch.save().startswith(f"cannot keep the alerts in {tmp_path}: ")
    assert not (tmp_path / STATE).exists()
    (tmp_path / HISTORY).rmdir()
    assert watch.save() == ""
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 1
    assert (tmp_path / STATE).exists()


def test_a_disk_that_takes_a_part_of_a_line_gets_the_whole_line_later(tmp_path: Path) -> None:
    watch = Watch(Thresholds(), tmp_path)
    (alert,) = watch.check(Snapshot(T, disk_free=0.01))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # Python ignores its signal
    try:
        problem = watch.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert problem.endswith("the disk took only a part of a line")
    assert watch.save() == ""
    torn, line = (tmp_path / HISTORY).read_text().splitlines()
    assert len(torn) == 10
    assert json.loads(line) == asdict(alert)


GARBAGE = st.binary(max_size=60) | st.sampled_from(
    [
        b"{}",
        b"[]",
        b'{"schema": 2, "raised": {}, "times": {}}',
        b'{"schema": 1, "raised": [], "times": {}}',
        b'{"schema": 1, "raised": {"disk": 5}, "times": {}}',
        b'{"schema": 1, "raised": {"disk": {"severity": "loud", "text": "", "t": 1}}, "times": {}}',
        b'{"schema": 1, "raised": {"disk": {"severity": [], "text": "", "t": 1}}, "times": {}}',
        b'{"schema": 1, "raised": {}, "times": {"disk": "Infinity"}}',
        b'{"schema": 1, "raised": {}, "times": {"disk": "many"}}',
        b'{"schema": 1, "raised": {}, "times": 3}',
        b'{"schema": 1, "raised": {}}',
    ]
)


@given(GARBAGE)
@settings(deadline=None)  # it waits for the disk
@pytest.mark.slow
def test_a_damaged_file_is_told_and_the_alerts_begin_anew(garbage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / STATE).write_bytes(garbage)
        watch = Watch.load(Path(folder), Thresholds())
        assert watch.problem.endswith("; the alerts begin anew")
        assert str(Path(folder) / STATE) in watch.problem
        assert "\n" not in watch.problem
        assert of(watch.check(Snapshot(T, disk_free=0.01))) == [("disk", True)]
        assert watch.save() == ""
        again = Watch.load(Path(folder), Thresholds())
    assert (again.problem, of(again.raised)) == ("", [("disk", True)])


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir()
    assert "begin anew" in Watch.load(tmp_path, Thresholds()).problem


def test_where_nothing_was_saved_there_is_no_problem(tmp_path: Path) -> None:
    watch = Watch.load(tmp_path, Thresholds())
    assert (watch.problem, watch.raised) == ("", [])


def test_what_a_later_version_raised_is_left_alone(tmp_path: Path) -> None:
    raised = {"severity": "error", "text": "x", "t": 1.0, "mark": 0}
    content = {"schema": 1, "raised": {"gremlins": raised, "disk": raised}, "times": {}}
    (tmp_path / STATE).write_text(json.dumps(content))
    watch = Watch.load(tmp_path, Thresholds())
    assert (watch.problem, of(watch.raised)) == ("", [("disk", True)])


LATER = st.floats(0, 3000)
RUNS = st.lists(
    st.builds(
        lambda name, step, stepped, seen, loss: (name, step, stepped, seen, loss),
        st.sampled_from("abc"),
        st.integers(0, 50),
        LATER,
        LATER,
        st.sampled_from([1.0, math.nan, math.inf, None]),
    ),
    max_size=3,
    unique_by=lambda found: found[0],
)
SNAPSHOTS = st.lists(
    st.builds(
        lambda wait, ended, failed, runs, left, disk, late: (
            wait, ended, failed, runs, left, disk, late,
        ),
        LATER,
        st.integers(0, 40),
        st.integers(0, 10),
        RUNS,
        st.integers(0, 2),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(-20, 20),
    ),
    max_size=15,
)  # fmt: skip


def as_snapshots(drawn: list[tuple]) -> list[Snapshot]:  # type: ignore[type-arg]
    found, t = [], END - 20_000
    for wait, ended, failed, runs, left, disk, late in drawn:
        t += wait
        running = [RunningRun(n, s, t - stepped, t - seen, x) for n, s, stepped, seen, x in runs]
        at = None if late is None else END + late * HOUR
        eta = None if at is None else Eta(at, at - HOUR, at + HOUR)
        found.append(
            Snapshot(t, ended, min(failed, ended), 0, running, open=left, disk_free=disk, eta=eta)
        )
    return found


@pytest.mark.slow
@given(SNAPSHOTS)
def test_every_alert_is_raised_and_cleared_in_turn(drawn: list[tuple]) -> None:  # type: ignore[type-arg]
    watch = Watch(Thresholds(deadline=DEADLINE))
    up: dict[str, str] = {}
    for snapshot in as_snapshots(drawn):
        for alert in watch.check(snapshot):
            if alert.raised:
                worse = (up.get(alert.key), alert.severity) == ("warning", "error")
                assert alert.key not in up or worse
                up[alert.key] = alert.severity
            else:
                del up[alert.key]
            assert "\n" not in alert.text
        assert {alert.key: alert.severity for alert in watch.raised} == up


@pytest.mark.slow
@given(SNAPSHOTS)
@settings(deadline=None)  # each look waits for the disk
def test_a_restart_between_any_two_looks_changes_nothing(drawn: list[tuple]) -> None:  # type: ignore[type-arg]
    thresholds = Thresholds(deadline=DEADLINE)
    steady = Watch(thresholds)
    with tempfile.TemporaryDirectory() as name:
        folder, told = Path(name), []
        for snapshot in as_snapshots(drawn):
            restarted = Watch.load(folder, thresholds)
            assert restarted.problem == ""
            alerts = restarted.check(snapshot)
            assert alerts == steady.check(snapshot)
            assert restarted.save() == ""
            told += alerts
        history = folder / HISTORY
        lines = history.read_text().splitlines() if history.exists() else []
        assert [json.loads(line) for line in lines] == [asdict(alert) for alert in told]


def test_the_history_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / HISTORY).symlink_to(tmp_path / "elsewhere")
    watch = Watch(Thresholds(), tmp_path)
    watch.check(Snapshot(T, disk_free=0.01))
    assert watch.save() != ""
    assert not (tmp_path / "elsewhere").exists()
