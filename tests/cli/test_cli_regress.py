"""``backtest regress``: exit codes, what is told where, and what is refused."""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli.regress import run_experiment
from backtest.regress import report_skipped, save_baseline, take_baseline
from backtest.regress.verdict import combine_exit_codes
from tests.commands import call
from tests.fast_cases import every_nth

ROOT = Path(__file__).parents[2]
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
EXPERIMENT = """
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
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Forty days in bars of four hours, and a policy that reads what lies beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within a second here
    bt.Market.sample(bars=24 * DAYS).resample("4h").save("data")
    (tmp_path / "mine.py").write_text(POLICY)
    (tmp_path / "held_beside.py").write_text("LEVEL = 2.0\n")
    (tmp_path / "calm.toml").write_text(EXPERIMENT)
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
    assert (code, err) == (0, "")
    assert "calm: same: every bar is the same" in out
    assert "bit by bit" in out


def test_a_comment_in_the_policy_is_told_and_rewrites_nothing(capsys):
    record(capsys)
    change("mine.py", "return LEVEL", "return LEVEL  # turns of equity")
    code, out, _ = check(capsys, "--update", "--reason", "no need")
    assert code == 0
    assert "calm: same" in out
    assert "policy changed policy.file_hash: " in out
    assert not json.loads(Path("baselines/calm.json").read_text())["history"]


@pytest.mark.slow
def test_what_no_hash_holds_is_said_where_nothing_else_changed(capsys):
    change("mine.py", "from held_beside import LEVEL", "from pathlib import Path")
    change("mine.py", "return LEVEL", 'return float(Path("level.txt").read_text())')
    Path("level.txt").write_text("2.0")
    record(capsys)
    Path("level.txt").write_text("2.02")
    code, out, _ = check(capsys)
    assert code == 1
    assert "no recorded fact" in out


BROKEN = {
    "data missing": lambda: Path("data/bars.parquet").unlink(),
    "mark prices missing": lambda: Path("data/mark.parquet").unlink(),
    "policy missing": lambda: Path("mine.py").unlink(),
    "policy raises": lambda: change("mine.py", "return LEVEL", "return 1 / 0"),
    "experiment broken": lambda: Path("calm.toml").write_text("[polcy]\n"),
    "baseline truncated": lambda: Path("baselines/calm.json").write_text("{"),
    "bars gone": lambda: next(Path("baselines").glob("calm.*.parquet")).unlink(),
}


@pytest.mark.parametrize("what", every_nth(BROKEN, 4))
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
    assert "2 baselines: 1 same, 1 not measured" in out


def record_of_a_test():
    """Write the baseline that the pytest fixture would."""
    result = run_experiment(Path("calm.toml"))
    return save_baseline(take_baseline(result, "test_held"), Path("baselines"))


@pytest.mark.slow
def test_baselines_of_tests_in_the_same_folder_are_skipped_and_said_to_be(capsys):
    record(capsys)
    record_of_a_test()
    code, out, _ = check(capsys, "--junit", "out.xml", "--summary", "out.md")
    assert code == 0
    assert "test_held: skipped: a test made its result: pytest checks it" in out
    assert "2 baselines: 1 same, 1 skipped" in out
    suite = ET.parse("out.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("skipped"), suite.get("errors")) == ("2", "1", "0")
    assert "| test\\_held | **skipped** |" in Path("out.md").read_text()
    told = json.loads(check(capsys, "--json")[1])
    assert (told["exit"], [each["status"] for each in told["baselines"]]) == (
        0,
        ["same", "skipped"],
    )
    change("calm.toml", "0.0005", "0.0006")
    assert check(capsys)[0] == 1
    Path("calm.toml").unlink()
    assert check(capsys)[0] == 2


def test_a_baseline_of_a_test_that_is_asked_for_or_stands_alone_is_not_measured(capsys):
    record(capsys)
    path = record_of_a_test()
    code, out, _ = check(capsys, "baselines/calm.json", str(path))
    assert code == 2
    assert "test_held: not measured" in out
    Path("baselines/calm.json").unlink()
    assert check(capsys)[0] == 2
    assert combine_exit_codes([report_skipped("a"), report_skipped("b")]) == 2


def test_nothing_is_written_unless_every_experiment_runs(capsys, folder):
    (folder / "broken.toml").write_text("[polcy]\n")
    assert call(capsys, "regress", "record", "calm.toml", "broken.toml")[0] == 2
    assert not Path("baselines").exists()


@pytest.mark.slow
def test_tolerances_are_recorded_and_hold(capsys):
    record(capsys, "--mode", "tolerance", "--tolerance", "*=any", "--tolerance", "sharpe=0.5")
    kept = json.loads(Path("baselines/calm.json").read_text())["metrics"]
    assert kept["sharpe"]["tolerance"] == {"absolute": 0.5}
    assert kept["fees"]["tolerance"] == "any"
    change("calm.toml", "0.0005", "0.00052")
    assert check(capsys)[0] == 0
    assert check(capsys, "--mode", "exact")[0] == 1


@pytest.mark.slow
def test_an_update_keeps_the_reason_and_the_old_values(capsys):
    record(capsys)
    before = json.loads(Path("baselines/calm.json").read_text())
    change("calm.toml", "0.0005", "0.0006")
    code, out, _ = check(capsys, "--update", "--reason", "the venue raised its fee")
    assert code == 0
    assert "calm: rewritten: the venue raised its fee (moved: worse in" in " ".join(out.split())
    after = json.loads(Path("baselines/calm.json").read_text())
    (entry,) = after["history"]
    assert entry["reason"] == "the venue raised its fee"
    assert entry["changed"] == ["venue.fees.taker: 0.0005 -> 0.0006"]
    assert entry["metrics"]["fees"] == before["metrics"]["fees"]["value"]
    assert check(capsys)[0] == 0
    assert len(list(Path("baselines").iterdir())) == 2


@pytest.mark.slow
def test_junit_counts_failures_and_errors(capsys, folder):
    for name in ("bold", "cold"):
        (folder / f"{name}.toml").write_text(EXPERIMENT)
    record(capsys, "bold.toml", "cold.toml")
    change("calm.toml", "0.0005", "0.0006")
    Path("bold.toml").unlink()
    assert check(capsys, "--junit", "out/regress.xml")[0] == 2  # what is not measured outweighs it
    suite = ET.parse("out/regress.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    cases = {case.get("name"): case for case in suite}
    assert cases["calm"].find("failure").get("type") == "moved"
    assert "fees" in cases["calm"].find("failure").text
    assert cases["bold"].find("error").get("type") == "not measured"
    assert cases["cold"].find("system-out") is not None


@pytest.mark.slow
def test_the_step_summary_is_added_to_and_another_file_is_written_anew(capsys, monkeypatch):
    record(capsys)
    change("calm.toml", "0.0005", "0.0006")
    Path("step.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "step.md")
    check(capsys)
    text = Path("step.md").read_text()
    assert text.startswith("before\n## Regression gate: 1 baseline: 1 moved\n")
    assert "| calm | **moved** |" in text
    assert "| measure | baseline | now | change | tolerance |" in text
    for _ in range(2):
        check(capsys, "--summary", "own.md")
    assert Path("own.md").read_text().count("## Regression gate") == 1
    assert Path("step.md").read_text() == text
