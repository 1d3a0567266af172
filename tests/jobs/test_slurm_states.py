"""What Slurm says is read as it is meant, and what cannot be read ends no job.

The recorded lines are of Slurm 22.05.8; the forms of others are written from their manual.
"""

from __future__ import annotations

from signal import SIGKILL, SIGTERM

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cupel.jobs.backend import Ended, Report
from cupel.jobs.slurm_states import (
    _STATES,
    indices_of,
    read_sacct,
    read_scontrol,
    report_of,
    seconds_of,
)

SACCT = """\
1_0|COMPLETED|0:0|0|00:00.031
1_0.batch|FAILED|7:0|0|00:00.031
1_1|FAILED|3:0|0|00:00.031
1_2|FAILED|0:9|0|00:00.030
1_3|OUT_OF_MEMORY|0:125|0|00:00.272
1_4|CANCELLED by 0|0:0|5|00:00.025
1_5|FAILED|75:0|5|00:00.144
1_8|RUNNING|0:0|4|00:00:00
1_[9-10%4]|PENDING|0:0|0|00:00:00
1_11|TIMEOUT|0:0|89|1-00:01:29
12|COMPLETED|0:0|0|00:00.031
"""

SCONTROL = """\
JobId=1 ArrayJobId=1 ArrayTaskId=4,6-9%2 ArrayTaskThrottle=2 JobName=cupel UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 Account=(null) QOS=(null) JobState=PENDING Reason=JobArrayTaskLimit Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=UNLIMITED TimeMin=N/A SubmitTime=2026-11-21T14:38:17 EligibleTime=Unknown AccrueTime=Unknown StartTime=Unknown EndTime=Unknown Deadline=N/A Command=/tmp/q/slurm-1.sh WorkDir=/tmp/JobState=COMPLETED ExitCode=1:0 Power=
JobId=10 ArrayJobId=1 ArrayTaskId=5 ArrayTaskThrottle=4 JobName=cupel UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 Account=root QOS=normal JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=1 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:04 TimeLimit=365-00:00:00 TimeMin=N/A
JobId=9 ArrayJobId=1 ArrayTaskId=3 ArrayTaskThrottle=4 JobName=cupel UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 Account=root QOS=normal JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=75:0 RunTime=00:00:09 TimeLimit=UNLIMITED TimeMin=N/A
JobId=6 ArrayJobId=1 ArrayTaskId=2 ArrayTaskThrottle=4 JobName=cupel UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 Account=root QOS=normal JobState=CANCELLED Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:15 RunTime=1-02:03:04 TimeLimit=UNLIMITED TimeMin=N/A
JobId=5 ArrayJobId=1 ArrayTaskId=1 ArrayTaskThrottle=4 JobName=cupel UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 Account=root QOS=normal JobState=COMPLETING Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:02 TimeLimit=UNLIMITED TimeMin=N/A
JobId=18 JobName=b.sh UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901754 Nice=0 Account=(null) QOS=(null) JobState=FAILED Reason=JobLaunchFailure Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:53 RunTime=00:00:00 TimeLimit=UNLIMITED TimeMin=N/A
"""  # noqa: E501


def ended(word: str, code: str) -> Ended:
    report = report_of(word, code)
    assert report.state == "ended"
    assert report.ended is not None
    return report.ended


def test_the_accounts_are_read_by_task() -> None:
    found = read_sacct(SACCT)
    assert {name: report.state for name, report in found.items()} == {
        **{f"1_{n}": "ended" for n in (0, 1, 2, 3, 4, 5, 11)},
        "1_8": "running",
        "1_9": "pending",
        "1_10": "pending",
    }
    ends = {name: report.ended for name, report in found.items() if report.ended}
    assert ends["1_0"] == Ended(0, "COMPLETED", wall_s=0.0, cpu_s=0.031)
    assert ends["1_1"] == Ended(3, "FAILED", wall_s=0.0, cpu_s=0.031)
    assert ends["1_2"].code == -SIGKILL
    assert ends["1_3"] == Ended(-9, "OUT_OF_MEMORY", oom_kills=1, wall_s=0.0, cpu_s=0.272)
    assert ends["1_4"] == Ended(-SIGTERM, "CANCELLED", wall_s=5.0, cpu_s=0.025)
    assert ends["1_5"].code == 75
    assert ends["1_11"] == Ended(-SIGTERM, "TIMEOUT", wall_s=89.0, cpu_s=86489.0)
    assert found["1_4"].detail == "CANCELLED by 0"


def test_the_controllers_words_are_read_by_task() -> None:
    found = read_scontrol(SCONTROL)
    assert {name: report.state for name, report in found.items()} == {
        **dict.fromkeys(("1_4", "1_6", "1_7", "1_8", "1_9"), "pending"),
        "1_5": "running",
        "1_3": "ended",
        "1_2": "ended",
        "1_1": "running",  # completing: its processes may still live
    }
    assert found["1_4"].detail == "PENDING (JobArrayTaskLimit)"
    assert found["1_3"] == Report(
        "ended", Ended(75, "FAILED", wall_s=9.0), "FAILED (NonZeroExitCode)"
    )
    assert found["1_2"].ended == Ended(-SIGTERM, "CANCELLED", wall_s=93784.0)


@pytest.mark.parametrize(
    "word, code, expected",
    [
        ("COMPLETED", "0:0", Ended(0, "COMPLETED")),
        ("FAILED", "1:0", Ended(1, "FAILED")),
        ("FAILED", "0:0", Ended(1, "FAILED")),
        ("FAILED", "0:53", Ended(-53, "FAILED")),
        ("TIMEOUT", "0:15", Ended(-15, "TIMEOUT")),
        ("TIMEOUT", "75:0", Ended(75, "TIMEOUT")),
        ("PREEMPTED", "0:0", Ended(-15, "PREEMPTED")),
        ("NODE_FAIL", "0:0", Ended(-15, "NODE_FAIL")),
        ("BOOT_FAIL", "0:0", Ended(-15, "BOOT_FAIL")),
        ("DEADLINE", "0:0", Ended(-15, "DEADLINE")),
        ("CANCELLED by 1000", "0:15", Ended(-15, "CANCELLED")),
        ("CANCELLED+", "0:9", Ended(-9, "CANCELLED")),
        ("OUT_OF_MEMORY", "1:0", Ended(1, "OUT_OF_MEMORY", oom_kills=1)),
        ("OUT_OF_MEMORY", "0:9", Ended(-9, "OUT_OF_MEMORY", oom_kills=1)),
        ("OUT_OF_MEMORY", "0:0", Ended(-9, "OUT_OF_MEMORY", oom_kills=1)),
    ],
)
def test_an_end_has_its_state_and_only_success_has_code_0(
    word: str, code: str, expected: Ended
) -> None:
    assert ended(word, code) == expected


@pytest.mark.parametrize("word", ["REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "SPECIAL_EXIT"])
def test_what_will_start_again_is_pending(word: str) -> None:
    assert report_of(word, "0:15").state == "pending"


@pytest.mark.parametrize("word", ["", "REVOKED", "A_STATE_OF_2031", "completed", "COMPLETEDX"])
def test_a_state_that_is_not_known_ends_nothing(word: str) -> None:
    assert report_of(word, "0:0") == Report("unknown", detail=word)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("3", [3]),
        ("3-7%2", [3, 4, 5, 6, 7]),
        ("0-8:4,12", [0, 4, 8, 12]),
        ("4,6-9%2", [4, 6, 7, 8, 9]),
        ("0-2,4,...", [0, 1, 2, 4]),
        ("0-999999999999", []),
        ("5-3", []),
        ("0-9:0", []),
        ("N/A", []),
    ],
)
def test_indices_are_read_and_what_was_cut_off_is_left_out(text: str, expected: list[int]) -> None:
    assert list(indices_of(text)) == expected


@pytest.mark.parametrize(
    "text, seconds",
    [("04", 4), ("03:04.5", 184.5), ("02:03:04", 7384), ("1-00:00:01", 86401), ("INVALID", None)],
)
def test_times_are_read(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


# Lines that resemble what Slurm says, and lines that do not.
WORDS = st.sampled_from(
    [*_STATES, "COMPLETED", "x", "", "|", "1_0", "0:0", "0:", "-1:0", "\0", "["]
)
LINES = st.one_of(
    st.lists(WORDS | st.text(max_size=5), max_size=7).map("|".join),
    st.lists(WORDS, max_size=7).map(lambda words: "ArrayJobId=1 ArrayTaskId=0 " + " ".join(words)),
    st.text(max_size=60),
)


@given(lines=st.lists(LINES, max_size=5))
@example(lines=["1_0|COMPLETED"])
@example(lines=["1_0|COMPLETED|"])
@example(lines=["1_0|COMPLETED||0|0"])
@example(lines=["ArrayJobId=1 ArrayTaskId=0 JobState=COMPLETED"])
@example(lines=["ArrayJobId=1 ArrayTaskId=0 JobState=COMPLETED ExitCode="])
@example(lines=["ArrayJobId=1 ArrayTaskId=0 XJobState=COMPLETED ExitCode=0:0"])
def test_garbage_raises_nothing_and_ends_nothing(lines: list[str]) -> None:
    """An end needs a task's id, a known state and a code, each in its place."""
    text = "\n".join(lines)
    for name, report in {**read_sacct(text), **read_scontrol(text)}.items():
        if report.state == "ended":
            assert any(_tells_an_end(line, name) for line in text.splitlines()), (name, report)


def _tells_an_end(line: str, name: str) -> bool:
    task, state, code = [*line.split("|"), "", "", ""][:3]
    # No line of the controller's can: none of the codes above is one.
    whole = line.count("|") >= 4 and task.strip() == name
    return whole and _STATES.get(state.strip().split()[0]) == "ended" and ":" in code
