"""How commands end: full and closed outputs, Ctrl-C at any moment, arguments that are no text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backtest.cli import printing
from tests.kit import call

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
    assert done.stderr.endswith("cannot write the output: No space left on device\n")


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_in_silence(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = start("results", "list", "--json", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_path_too_long_for_the_system_is_refused(capsys):
    """Before: a traceback of OSError with 5,000 letters."""
    code, out, err = call(capsys, "run", "--no-save", "--data", "a" * 5_000)
    assert (code, out) == (2, "")
    assert "refused aaaaa" in err
    assert len(err) < 2_000


def test_messages_hold_no_control_codes_and_no_endless_lines(capsys):
    code, _, err = call(capsys, "run", "\x1b[2J\x07" + "x" * 3_000)
    assert code == 2
    assert "\x1b" not in err
    assert "\x07" not in err
    assert max(map(len, err.splitlines())) <= printing.LONGEST_MESSAGE
