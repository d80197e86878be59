"""Requirements on the policy, and its result as recorded in baselines/."""


def test_steady_meets_its_requirements(backtest_regression):
    result = backtest_regression("experiments/steady.toml")
    assert result.metrics["liquidations"] == 0
    assert result.metrics["ruined"] == 0
    assert result.metrics["max_drawdown"] <= 0.25
