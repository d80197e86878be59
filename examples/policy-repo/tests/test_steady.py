"""Requirements on the policy, and its result as recorded in baselines/."""

from backtest.regress import assert_policy


def test_steady_meets_its_requirements(backtest_regression):
    result = backtest_regression("experiments/steady.toml")
    assert assert_policy(result).liquidations == 0
    assert assert_policy(result).ruined == 0
    assert assert_policy(result).max_drawdown <= 0.25
