"""The pytest plugin: the fixture holds results to baselines, and costs nothing unused."""

import json
import sys
from pathlib import Path

import pytest

import backtest as bt
import backtest.cli
from backtest_pytest.fixture import Regression  # with it, all that a test inside pytester imports
from tests.kit import run_python

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
TEST = """
import backtest as bt
from backtest.strategies import Constant

LEVERAGE = 2.0
MARKET = bt.Market.sample(bars=24 * 10)
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def run():
    account = bt.Account(band=0.05)
    return bt.run(MARKET, Constant(LEVERAGE), venue=VENUE, account=account, compile=False)
"""
HOLDS = "\n\ndef test_calm(backtest_regression):\n    backtest_regression(run()MORE)\n"
FIRST = ("--backtest-update", "--backtest-reason", "first record")


class Keeper:
    """Keeps what a run inside this process imports: numba cannot be imported a second time.
    pytester forgets all that was imported inside it."""

    def __init__(self):
        self.modules = {}

    def pytest_unconfigure(self, config):
        inside = str(config.rootpath)
        for name, module in sys.modules.items():
            if not str(getattr(module, "__file__", "")).startswith(inside):
                self.modules[name] = module

    def give_back(self):
        for name, module in self.modules.items():
            sys.modules.setdefault(name, module)


@pytest.fixture
def keeper():
    """Asked for before pytester, it ends after it."""
    keeper = Keeper()
    yield keeper
    keeper.give_back()


@pytest.fixture
def project(keeper, pytester, monkeypatch):
    """A project with one test; returns how to write and run it."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def go(*options, test=HOLDS, leverage=2.0, more=""):
        text = TEST.replace("2.0", str(leverage)) + test.replace("MORE", more)
        pytester.path.joinpath("test_it.py").write_text(text)

        flags = ("-p", "backtest_pytest", "-p", "no:cacheprovider", "--import-mode=importlib")
        outcome = pytester.runpytest_inprocess(*flags, *options, plugins=[keeper])
        keeper.give_back()
        return outcome

    return go


def read(pytester, name="test_calm"):
    return json.loads((pytester.path / "baselines" / f"{name}.json").read_text())


@pytest.mark.slow
def test_a_result_is_recorded_held_and_caught(project, pytester):
    missing = project()
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["*a result must have a baseline*", "*pytest --backtest-update*"])
    assert missing.stdout.str().count("--backtest-update") == 1

    project(*FIRST).assert_outcomes(passed=1)
    project().assert_outcomes(passed=1)

    moved = project(leverage=2.02)
    moved.assert_outcomes(failed=1)
    moved.stdout.fnmatch_lines([
        "test_calm: moved: worse in*",
        "*first*bar 0 of 240*target leverage*",
        "*as it should be? pytest --backtest-update*",
    ])  # fmt: skip

    updated = project("--backtest-update", "--backtest-reason", "bolder", leverage=2.02)
    updated.assert_outcomes(passed=1)
    assert [entry["reason"] for entry in read(pytester)["history"]] == ["bolder"]
    project(leverage=2.02).assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_test_says_name_tolerance_mode_and_what_may_be_better(project, pytester):
    more = ", name='held', mode='tolerance', tolerance={'*': 'any', 'mean_leverage': '5%'}"
    project(*FIRST, more=more).assert_outcomes(passed=1)
    assert read(pytester, "held")["mode"] == "tolerance"

    project(leverage=2.02, more=more).assert_outcomes(passed=1)
    project(leverage=2.3, more=more).assert_outcomes(failed=1)

    fees = ", name='held', tolerance={'*': 'any', 'fees': 0}"
    project(leverage=1.9, more=fees).assert_outcomes(failed=1)
    project(leverage=1.9, more=f"{fees}, allow_better=['fees']").assert_outcomes(passed=1)


@pytest.mark.slow
def test_an_experiment_file_is_run_and_checked_by_the_command_too(
    project, pytester, monkeypatch, capsys
):
    monkeypatch.chdir(pytester.path)
    pytester.path.joinpath("calm.toml").write_text(
        '[data]\nto = 2023-01-20\n[policy]\nname = "constant"\n'
    )

    test = "\n\ndef test_it(backtest_regression):\n    r = backtest_regression('calm.toml')\n"
    test += "    assert r.metrics['liquidations'] == 0\n"

    project(*FIRST, test=test).assert_outcomes(passed=1)
    assert read(pytester, "calm")["experiment"] == "../calm.toml"
    assert backtest.cli.main(["regress", "check"]) == 0

    pytester.path.joinpath("calm.toml").unlink()
    gone = project(test=test)
    gone.assert_outcomes(failed=1)
    gone.stdout.fnmatch_lines(["calm: not measured: an experiment must be a TOML file*"])


@pytest.mark.parametrize(
    "options", [("--backtest-update",), (*FIRST[:1], "--backtest-reason", " "), FIRST[1:]]
)
def test_an_update_needs_a_reason_and_a_reason_an_update(options, project):
    outcome = project(*options)

    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["*--backtest-*"])


def test_two_workers_of_xdist_do_not_use_one_baseline(tmp_path):
    """Each worker has its own ``seen``; the folder that they share is of one run of pytest."""

    def make(test: str, run: str = "run") -> Regression:
        shared = tmp_path / "shared" / run
        return Regression(
            root=tmp_path, folder=tmp_path / "baselines", test=test, default_name=test,
            reason=None, seen={}, shared=shared,
        )  # fmt: skip

    path = make("test_a").claim_baseline("same")
    assert make("test_b").claim_baseline("other") != path

    with pytest.raises(bt.ParameterError, match="'same' of test_a is used again in test_b"):
        make("test_b").claim_baseline("same")

    assert make("test_a").claim_baseline("same") == path  # of one test in each worker
    assert make("test_b", run="next run").claim_baseline("same") == path


@pytest.mark.slow
def test_two_tests_with_one_name_are_refused_across_workers_too(project, pytester):
    twice = HOLDS.replace("MORE", ", name='same'")
    twice += twice.replace("calm", "wild").replace("run()", "(lambda: run())()")
    project("-n", "2", *FIRST, test=twice).assert_outcomes(passed=1, failed=1)
    assert read(pytester, "same")["name"] == "same"


def test_the_plugin_imports_nothing_until_it_is_used():
    code = "import sys, backtest_pytest; "
    code += "print([x for x in ('backtest', 'numpy', 'pandas', 'typer') if x in sys.modules])"
    assert run_python(code) == "[]"


@pytest.mark.slow
def test_a_policy_that_skips_its_test_is_not_measured(project, pytester):
    """pytest's skip is no exception that others catch, and a skipped test passes."""
    pytester.path.joinpath("calm.toml").write_text(
        '[data]\nto = 2023-01-20\n[policy]\nname = "mine.py:Mine"\n[run]\ncompile = false\n'
    )
    pytester.path.joinpath("mine.py").write_text(
        "import backtest as bt\nimport pytest\n\n\nclass Mine(bt.Policy):\n"
        "    def observe(self, market):\n        pytest.skip('nothing to see')\n\n"
        "    def leverage(self, bar, account):\n        return 1.0\n"
    )
    test = "\n\ndef test_it(backtest_regression):\n    backtest_regression('calm.toml')\n"

    skipped = project(test=test)
    skipped.assert_outcomes(failed=1)
    skipped.stdout.fnmatch_lines(["calm: not measured: a run must end, raised Skipped*"])
