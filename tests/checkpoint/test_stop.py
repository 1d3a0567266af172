"""The first signal asks, the second Ctrl-C aborts, and old handlers come back."""

from __future__ import annotations

import signal
import threading

import pytest

from cupel.checkpoint.stop import ASKS_TO_STOP, StopRequest


def send(number: signal.Signals) -> None:
    """Send a signal to this thread and see its handler run.

    One sent to the process may be taken by any of its threads, and the main thread, in which
    handlers run, hears of that a little later.
    """
    signal.raise_signal(number)


@pytest.mark.parametrize("number", ASKS_TO_STOP)
def test_the_first_signal_raises_the_flag_and_nothing_else(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.name is None
        send(number)
        assert stop.name == number.name


def test_the_second_ctrl_c_aborts() -> None:
    with StopRequest() as stop:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.name == "SIGINT"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_no_other_signal_aborts_or_makes_a_ctrl_c_forgotten(number: signal.Signals) -> None:
    with StopRequest() as stop:
        send(number)
        send(number)
        send(signal.SIGINT)
        send(number)
        assert stop.name == number.name
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_old_handlers_come_back_after_a_failure_too() -> None:
    before = [signal.getsignal(number) for number in ASKS_TO_STOP]
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in ASKS_TO_STOP] == before
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_outside_the_main_thread_no_handler_is_touched() -> None:
    before = [signal.getsignal(number) for number in ASKS_TO_STOP]
    found: list[object] = []

    def inside() -> None:
        with StopRequest() as stop:
            found.append(stop.name)
            found.append([signal.getsignal(number) for number in ASKS_TO_STOP])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [None, before]
