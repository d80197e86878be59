"""Progress is drawn on a terminal, and on nothing else."""

import io
import sys
import time

from backtest.cli import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_drawn_on_a_terminal_only_and_after_a_while(monkeypatch):
    with progress.show_progress("x") as report:
        assert report is None
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "PATIENCE", 600.0)
    with progress.show_progress("quick") as report:
        report(1, 2)
    assert screen.getvalue() == ""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.show_progress("slow") as report:
        report(1, 2)
        wait_for(screen, "1 bars")
    assert "slow" in screen.getvalue()


def wait_for(screen, text):
    """Wait until the text is drawn, a minute at most."""
    end = time.monotonic() + 60.0
    while text not in screen.getvalue() and time.monotonic() < end:
        time.sleep(0.02)
    assert text in screen.getvalue()
