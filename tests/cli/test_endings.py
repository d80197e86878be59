"""How commands end: full and closed outputs, Ctrl-C at any moment, arguments that are no text."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backtest.base import early_interrupt
from backtest.cli import printing
from tests.commands import call

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "backtest")


def start(*words, **how):
    """Start the command as a process of its own."""
    return subprocess.run(
        [*COMMAND, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, **how
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [("results", "list", "--json"), ("venues", "--help")])
def test_a_full_output_is_one_line_and_no_success(tmp_path, words):
    """Before: a traceback of OSError, and of `--help` exit code 0."""
    with Path("/dev/full").open("w") as full:
        done = start(*words, stdout=full)
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_in_silence(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = start("results", "list", "--json", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
def test_a_command_without_an_output_ends_well():
    """As with ``>&-``: nothing is there to be written to."""
    code = (
        "import sys; sys.stdout = None; import backtest.cli as c; sys.exit(c.main(['--version']))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


WHILE_IT_LOADS = """
import builtins, os, signal, sys
found = builtins.__import__
def load(name, *rest, **named):
    if name == {module!r}:
        builtins.__import__ = found
        os.kill(os.getpid(), signal.SIGINT)
    return found(name, *rest, **named)
builtins.__import__ = load
sys.argv, sys.orig_argv = ["bin/backtest", "venues"], ["python", "bin/backtest", "venues"]
from backtest.cli import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["numpy", "typer.core"])
def test_ctrl_c_while_modules_load_ends_without_a_traceback(module):
    """Before: a traceback of KeyboardInterrupt from the depths of an import."""
    code = WHILE_IT_LOADS.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_program_that_imports_the_library_keeps_its_ctrl_c():
    assert signal.getsignal(signal.SIGINT) is not early_interrupt.exit_at_once


@pytest.mark.parametrize(("argv", "all_words", "is_ours"), [
    (["/usr/bin/backtest", "run"], ["python", "/usr/bin/backtest", "run"], True),
    (["-m", "run"], ["python", "-m", "backtest", "run"], True),
    (["-m", "run"], ["python", "-m", "pytest", "backtest"], False),
    (["mine.py"], ["python", "mine.py"], False),
    (["/usr/bin/backtest"], ["python", "-c", "spawn_main()", "--multiprocessing-fork"], False),
    ([], ["python"], False),
])  # fmt: skip
def test_only_the_command_itself_answers_ctrl_c_early(monkeypatch, argv, all_words, is_ours):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", all_words)
    assert early_interrupt.is_command() is is_ours


def test_a_ctrl_c_outside_of_any_command_is_told(monkeypatch, capsys):
    def interrupt(given):
        raise KeyboardInterrupt

    monkeypatch.setattr("backtest.cli.app.call_command", interrupt)
    assert call(capsys, "venues") == (130, "", "interrupted\n")


def test_a_path_too_long_for_the_system_is_refused(capsys):
    """Before: a traceback of OSError with 5,000 letters."""
    code, out, err = call(capsys, "run", "--no-save", "--data", "a" * 5_000)
    assert (code, out) == (2, "")
    assert "File name too long" in err
    assert len(err) < 2_000


def test_messages_hold_no_control_codes_and_no_endless_lines(capsys):
    code, _, err = call(capsys, "run", "\x1b[2J\x07" + "x" * 3_000)
    assert code == 2
    assert "\x1b" not in err
    assert "\x07" not in err
    assert max(map(len, err.splitlines())) <= printing.LONGEST_MESSAGE
    assert printing.make_printable("tab\tand no-break\xa0space") == "tab\tand no-break\xa0space"
