"""A user's file: type checkers know every method of a test, and editors complete them."""

import re
import subprocess
import sys
from pathlib import Path

import jedi
import pytest

ROOT = Path(__file__).parents[2]
BEGIN = """from typing import assert_type

import backtest as bt
from backtest.account.money import Ledger, Money
from backtest.results.tally import Tally
from backtest.strategies import Constant, VolTarget

market = bt.Market.sample()
account = bt.Account(capital=10_000.0)
test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=account)
result = test.run(VolTarget())
"""
RIGHT = """assert_type(test, bt.Backtest)
assert_type(result, bt.Result)
assert_type(test.sweep(Constant, {"leverage": [1.0, 2.0]}), bt.Sweep)
assert_type(test.tune(VolTarget), bt.Study)
assert_type(test.walk_forward(VolTarget), bt.WalkForward)
assert_type(test.compare({"a": Constant(1.0), "b": Constant(2.0)}), bt.Comparison)
assert_type(test.liquidation_risk(Constant(2.0)), bt.LiquidationRisk)
assert_type(bt.stress(result), bt.Stress)
assert_type(test.replace(start="2023-01-01"), bt.Backtest)
assert_type(bt.Backtest.load("x.toml"), bt.Backtest)
assert_type(bt.Backtest.of(result), bt.Backtest)
assert_type(bt.run(market, VolTarget(), venue="binance-usdm:BTCUSDT", account=account), bt.Result)
assert_type(bt.timing_test(result), bt.TimingTest)
money = Money(fees=1.0)
money.fees += Ledger().fees + Tally().money.fees + money.conversion
"""
WRONG = """test.runn(VolTarget())
test.run(VolTarget(), resme=1)
test.run(VolTarget(), compile="later")
bt.runn(market)
bt.run(market, VolTarget(), venu="x", account=account)
bt.run(market, VolTarget(), account=account)
test.sweep(VolTarget, {"target": [1.0]}, metrics="most")
test.tune(VolTarget, sampler="tpe")
bt.Backtest(market, venue="x", account=account, overlai=None)
"""
MISSPELT = """money.fess = 3.0
print(Ledger().conversion)
Tally().money.fess = 1.0
Tally().peek = 1.0
"""


def find_error_lines(folder: Path, text: str, *checker: str) -> list[str]:
    """Return the lines of a file in which a type checker finds errors."""
    file = folder / "user.py"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", *checker, str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    numbers = re.findall(r"user\.py:(\d+)(?::\d+)?(?: -)?:? error", done.stdout)
    lines = text.splitlines()
    return [lines[number - 1] for number in sorted({int(number) for number in numbers})]


MYPY = ("mypy", "--strict", "--no-error-summary")
PYRIGHT = ("basedpyright", "--level", "error")


@pytest.mark.parametrize(("checker", "wrong"), [
    pytest.param(MYPY, WRONG + MISSPELT, id="mypy"),
    pytest.param(PYRIGHT, WRONG, id="basedpyright", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_type_checker_knows_what_methods_return_and_finds_mistakes(checker, wrong, tmp_path):
    """Thirteen exact types and right names; each mistake is an error on its line.

    Fields of structs are known to mypy alone.
    """
    text = BEGIN + RIGHT + wrong
    assert find_error_lines(tmp_path, text, *checker) == wrong.splitlines()


def complete(code: str) -> set[str]:
    script = jedi.Script(BEGIN + code, project=jedi.Project(ROOT), path=ROOT / "user.py")
    return {completion.name for completion in script.complete()}


def test_an_editor_completes_methods_of_a_test_and_of_a_result():
    assert {"run", "sweep", "tune", "walk_forward", "decide", "of", "load"} <= complete("test.")
    assert {"metrics", "save", "trades", "attribution"} <= complete("result.")
    assert "venue=" in complete("bt.run(market, VolTarget(), ven")
