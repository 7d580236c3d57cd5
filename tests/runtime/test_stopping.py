"""Signals are held back until the step is done, and obeyed at once the second time."""

import os
import signal
import threading

import pytest

from clsp.runtime import stopping
from clsp.runtime.stopping import stoppable


def test_a_signal_is_noted_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stoppable() as stop:
        assert stop.number == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_second_signal_ends_at_once(monkeypatch):
    monkeypatch.setattr(stopping, "ECHO", 0)
    with pytest.raises(SystemExit) as ended, stoppable():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM


def test_the_same_wish_on_two_ways_is_one():
    """A terminal signals a job and its parents, which pass it on."""
    with stoppable() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGINT


def test_a_process_that_works_for_another_is_ended_by_that_one_alone(monkeypatch):
    monkeypatch.setattr(stopping, "ECHO", 0)
    with stoppable(lambda: False) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM


def test_a_process_whose_job_is_gone_ends_without_another_word(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with stoppable(lambda: True):
        os.kill(os.getpid(), signal.SIGINT)
    assert codes == [128 + signal.SIGINT]


def test_outside_the_main_thread_nothing_changes():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with stoppable() as stop:
            seen.append((stop.number, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, before)]
