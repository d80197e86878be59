"""What to do after a judgement: a sentence for each outcome, whose commands were tried."""

import math
import shlex

import pandas as pd
import pytest

from backtest.cli import main
from backtest.judgement import rule
from backtest.judgement.next_step import write_next_step

GROWTH = pd.DataFrame({"constant_leverage": [0.5959, math.nan, 0.4445]}, index=["A", "B", "C"])
RISK = "backtest risk --policy constant --set leverage=0.596"
STEPS = {
    rule.NOT_TIMED: "Next: only its size matters; `backtest risk --find-leverage 0.01`, on the "
    "--data of a market, finds the highest leverage at a risk of 1 %.",
    rule.NOT_TESTED: "Next: compare it with other policies, by `backtest compare`.",
    rule.BETTER: "Next: `backtest decide` prints its next order, `backtest shadow` compares a live "
    "account with it.",
    rule.WORSE: f"Next: constant leverage grew more, 0.596 on A, 0.445 on C; `{RISK}`, on the "
    "--data of A, shows its risk.",
    rule.NO_EVIDENCE: f"Next: constant leverage is simpler, 0.596 on A, 0.445 on C; `{RISK}`, on "
    "the --data of A, shows its risk.",
}


def find_limits(*scales: float) -> pd.DataFrame:
    return pd.DataFrame({"largest_scale": scales}, index=["A", "B", "C"][: len(scales)])


@pytest.mark.parametrize("outcome", STEPS)
def test_each_outcome_has_one_step(outcome):
    assert write_next_step(outcome, GROWTH, find_limits(2.0)) == STEPS[outcome]


@pytest.mark.parametrize(
    ("scales", "reduction"),
    [
        # The smallest of the largest scales is survived on every market.
        ((0.52, 0.384, 1.7), "lower its leverage to 0.38 times what it is, as on B"),
        ((math.nan, 0.384), "lower its leverage to 0.38 times what it is, as on B"),
        # An account that was ruined although paths and history from its end on lose none.
        ((1.0, 3.0), "lower its leverage"),
        ((math.nan, math.nan), "lower its leverage"),
    ],
)
def test_an_unsafe_policy_is_reduced_to_what_survives_everywhere(scales, reduction):
    step = write_next_step(rule.UNSAFE, GROWTH, find_limits(*scales))
    assert step == f"Next: {reduction}, and judge it again."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "few"),
    [
        (RISK, "--horizons 3d --paths 500"),
        ("backtest risk --find-leverage 0.01", "--model gbm --evaluations 3 --paths 2000"),
    ],
)
def test_the_commands_of_steps_answer(command, few, capsys):
    few += " --horizon 3d --no-save"
    assert main(shlex.split(f"{command} {few}")[1:]) == 0
    assert "error" not in capsys.readouterr().err
