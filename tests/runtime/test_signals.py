import os
import signal

import pytest

from distpre.runtime.signals import Stop, exit_status


@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)], ids=lambda x: str(int(x))
)
def test_signal_asks_for_a_stop_with_its_exit_status(number, status):
    with Stop() as stop:
        assert stop() is None
        os.kill(os.getpid(), number)
        assert exit_status({"status": "stopped", "reason": stop()}) == status


def test_second_interrupt_raises():
    with Stop(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_after_usr1_still_asks():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == "interrupt"


def test_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_ends_with_zero():
    assert exit_status({"status": "finished"}) == 0
