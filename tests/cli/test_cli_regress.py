"""``backtest regress``: exit codes, what is told where, and what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest

import backtest as bt
from backtest.baselines import report_failure, write_markdown
from backtest.core.errors import DataError
from tests.kit import ask_test, call

DAYS = 40
"""Of bars of four hours: 240."""
POLICY = '''
import backtest as bt
from held_beside import LEVEL


class Mine(bt.Policy):
    """Hold some."""

    def leverage(self, bar, account):
        return LEVEL
'''
HOSTILE = [
    "<script>alert(1)</script>", "a|b`c", "../../x", "\u202eabc", "\x00\x1b[31m", "x" * 10_000,
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Forty days in bars of four hours, and a policy that reads what lies beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within a second here
    bt.Market.sample(bars=24 * DAYS).resample("4h").save("data")
    (tmp_path / "mine.py").write_text(POLICY)
    (tmp_path / "held_beside.py").write_text("LEVEL = 2.0\n")
    (tmp_path / "calm.toml").write_text("""
[data]
path = "data"
[policy]
name = "mine.py:Mine"
[venue.fees]
taker = 0.0005
[account]
band = 0.05
[run]
compile = false
""")
    return tmp_path


def change(path, old, new):
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def record(capsys, *arguments):
    code, out, err = call(capsys, "regress", "record", "calm.toml", *arguments)
    assert code == 0, err
    return out


def check(capsys, *arguments):
    return call(capsys, "regress", "check", *arguments)


def test_the_unchanged_experiment_is_the_same(capsys):
    assert "calm: recorded, 240 bars: baselines/calm.json" in record(capsys)
    code, out, err = check(capsys)
    assert code == 0
    assert err == ""
    assert "calm: same: every bar is the same" in out
    assert "bit by bit" in out
    assert "1 baseline: 1 same, 0 moved, 0 not measured" in out  # the line of docs/regression.md


BROKEN = {
    "data missing": lambda: Path("data/bars.parquet").unlink(),
    "mark prices missing": lambda: Path("data/mark.parquet").unlink(),
    "policy missing": lambda: Path("mine.py").unlink(),
    "policy raises": lambda: change("mine.py", "return LEVEL", "return 1 / 0"),
    "experiment broken": lambda: Path("calm.toml").write_text("[polcy]\n"),
    "baseline truncated": lambda: Path("baselines/calm.json").write_text("{"),
    "bars gone": lambda: next(Path("baselines").glob("calm.*.parquet")).unlink(),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_measured_is_2_and_the_others_are_still_checked(what, capsys, folder):
    (folder / "other.toml").write_text(
        '[data]\nto = 2023-01-05\n[policy]\nname = "constant"\n[run]\ncompile = false\n'
    )
    record(capsys, "other.toml")
    BROKEN[what]()

    code, out, _ = check(capsys)
    assert code == 2
    assert "calm: not measured: " in out
    assert "other: same" in out
    assert "2 baselines: 1 same, 0 moved, 1 not measured" in out


def test_nothing_is_written_unless_every_experiment_runs(capsys, folder):
    (folder / "broken.toml").write_text("[polcy]\n")
    assert call(capsys, "regress", "record", "calm.toml", "broken.toml")[0] == 2
    assert not Path("baselines").exists()


@pytest.mark.slow
def test_an_update_rewrites_what_moved(capsys):
    record(capsys)
    change("calm.toml", "0.0005", "0.0006")

    code, out, _ = check(capsys, "--update", "--reason", "the venue raised its fee")
    assert code == 0
    assert "calm: rewritten: the venue raised its fee (moved: worse in" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80

    assert check(capsys)[0] == 0
    assert len(list(Path("baselines").iterdir())) == 2


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_text(name):
    text = write_markdown([report_failure(name, DataError(f"{name} ]]> &amp; \n# x"))])
    inside = text.partition("<pre>\n")[2]
    assert inside.endswith("\n</pre>\n</details>\n")
    assert "<" not in inside.removesuffix("</pre>\n</details>\n")


EXITS = {
    "observe": "    def observe(self, market):\n        sys.exit(0)\n",
    "leverage": "    def leverage(self, bar, account):\n        raise SystemExit\n",
    "start": (
        "    def start(self):\n        sys.exit(0)\n\n"
        "    def leverage(self, bar, account, memory):\n        return 1.0, memory\n"
    ),
    "class": "    sys.exit(0)\n",
}


@pytest.mark.parametrize("place", EXITS)
def test_a_policy_that_exits_is_one_that_raises(folder, capsys, place):
    """An exit code of 0 from inside a policy is no pass."""
    record(capsys)
    (folder / "mine.py").write_text("import sys\n" + POLICY + EXITS[place])
    assert call(capsys, "regress", "check")[0] == 2

    code, _, err = call(capsys, "run", "calm.toml", "--no-save")
    assert code == 2
    assert "Traceback" not in err
    assert "SystemExit" in err


RAISED = {
    "file": 'raise BaseException("stop")\n',
    "generator": "raise GeneratorExit\n",
    "observe": POLICY + '    def observe(self, market):\n        raise BaseException("stop")\n',
    "leverage": POLICY.replace("return LEVEL", 'raise BaseException("stop")'),
    "start": POLICY + EXITS["start"].replace("sys.exit(0)", 'raise BaseException("stop")'),
}


@pytest.mark.parametrize("place", RAISED)
def test_what_no_handler_of_exceptions_catches_is_2(folder, capsys, place):
    record(capsys)
    (folder / "mine.py").write_text(RAISED[place])

    code, out, _ = check(capsys)
    assert code == 2
    assert "calm: not measured: a run must end, raised" in out

    code, _, err = call(capsys, "run", "calm.toml", "--no-save")
    assert code == 2
    assert err.startswith("error: a policy must return, it raised")
    assert "Traceback" not in err


ENDS = {
    # what it does at its import, the exit code, whether there is a verdict
    "a function at the end": ("import atexit, os\natexit.register(os._exit, 0)\n", 1, True),
    "a finalizer": (
        "import weakref, os\nclass K: pass\nk = K()\nweakref.finalize(k, os._exit, 0)\n", 1, True),
    "a thread without an end": (
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\n", 1, True),
    "another folder": ("import os\nos.chdir('/')\n", 1, True),
    "an output that is closed": ("import sys\nsys.stdout.close()\n", 1, True),
    "the end of the program": ("import sys\nsys.exit(0)\n", 2, True),
    "the end of the process": ("import os\nos._exit(0)\n", 0, False),
}  # fmt: skip


@pytest.mark.parametrize(
    "way", [name if k == 0 else pytest.param(name, marks=pytest.mark.slow)
            for k, name in enumerate(ENDS)]
)  # fmt: skip
def test_no_end_of_the_process_passes_a_moved_baseline(folder, capsys, way):
    """The line of the example's workflow wants exit code 0 and this text; what an earlier check
    wrote does not stand for it."""
    record(capsys)
    code, wanted, has_verdict = ENDS[way]
    (folder / "mine.py").write_text(code + POLICY)
    (folder / "held_beside.py").write_text("LEVEL = 5.0\n")
    (folder / "verdict.md").write_text("1 same, 0 moved, 0 not measured")

    words = [sys.executable, "-m", "backtest", "regress", "check", "--summary", "verdict.md"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)

    verdict = (folder / "verdict.md").read_text()
    assert done.returncode == wanted, done.stderr
    assert "0 moved, 0 not measured" not in verdict
    assert verdict.startswith("## Regression gate: 1 baseline: 0 same, ") == has_verdict


def test_a_policy_that_exits_is_a_failed_row():
    class Leaver(bt.Policy):
        level: Annotated[float, bt.Range(0.1, 9.0)] = 1.0

        def leverage(self, bar, account):
            if self.level > 1.5:
                sys.exit(0)
            return self.level

    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    market = bt.Market.sample(bars=48)
    terms = {"venue": venue, "account": bt.Account(), "compile": False}
    with pytest.warns(UserWarning, match="Leaver.leverage raised SystemExit"):
        found = ask_test("sweep", market, Leaver, {"level": [1.0, 2.0]}, **terms)

    assert [*found.table["ruined"].isna()] == [False, True]
