"""Default of a venue, against 1 - exp(-hazard years) and a simulation."""

import math

import numpy as np
import pytest

import backtest as bt
from backtest.crowd.counterparty import combine_losses


@pytest.mark.parametrize("hazard", [0.0, 0.01, 0.3])
def test_the_probability_of_default_is_that_of_a_constant_hazard(hazard):
    venue = bt.Counterparty(hazard=hazard, recovery=0.25)
    found = venue.losses(1_000.0, horizons=["365d", "730d"])
    for horizon, years in (("365d", 1.0), ("730d", 2.0)):
        chance = 1.0 - math.exp(-hazard * years)
        row = found.loc[horizon]
        assert row["probability"] == pytest.approx(chance, rel=1e-12)
        assert row["expected_loss"] == pytest.approx(750.0 * chance)
        assert row["deviation"] == pytest.approx(750.0 * math.sqrt(chance * (1.0 - chance)))
        assert row["loss_99"] == (750.0 if chance > 0.01 else 0.0)
        assert row["loss_95"] == (750.0 if chance > 0.05 else 0.0)


def test_simulated_defaults_lose_the_same():
    rng = np.random.default_rng(0)
    times = rng.exponential(1.0 / 0.2, 200_000)
    lost = np.where(times < 0.5, 700.0, 0.0)
    found = bt.Counterparty(hazard=0.2, recovery=0.3).losses(1_000.0, horizons=["4380h"])
    assert found["expected_loss"].iloc[0] == pytest.approx(lost.mean(), rel=0.02)
    assert found["deviation"].iloc[0] == pytest.approx(lost.std(), rel=0.02)


def test_money_over_the_cap_is_safe():
    venue = bt.Counterparty(hazard=0.1, recovery=0.0)
    assert venue.losses(1_000.0, cap=200.0, horizons=["30d"])["loss_at_default"].tolist() == (
        pytest.approx([200.0])
    )
    most = venue.largest_balance(5.0, "365d")
    assert venue.losses(most, horizons=["365d"])["expected_loss"].iloc[0] == pytest.approx(5.0)
    assert bt.Counterparty(hazard=0.1, recovery=1.0).largest_balance(5.0) == math.inf


def test_two_venues_by_hand():
    # p = 0.1 and 0.2; losses 100 and 50: 0 (0.72), 50 (0.18), 100 (0.08), 150 (0.02)
    venues = {
        "one": bt.Counterparty(hazard=-math.log(0.9), recovery=0.0),
        "two": bt.Counterparty(hazard=-math.log(0.8), recovery=0.5),
    }
    row = combine_losses(venues, {"one": 100.0, "two": 100.0}, horizons=["365d"]).loc["365d"]
    assert row["probability"] == pytest.approx(0.28)
    assert row["expected_loss"] == pytest.approx(0.18 * 50.0 + 0.08 * 100.0 + 0.02 * 150.0)
    assert (row["loss_95"], row["loss_99"]) == (100.0, 150.0)
    capped = combine_losses(
        venues, {"one": 100.0, "two": 100.0}, horizons=["365d"], cap={"one": 10.0}
    )
    assert capped.loc["365d", "loss_99"] == pytest.approx(60.0)


@pytest.mark.parametrize("make", [
    lambda: bt.Counterparty(hazard=-0.1, recovery=0.5),
    lambda: bt.Counterparty(hazard=math.nan, recovery=0.5),
    lambda: bt.Counterparty(hazard=0.1, recovery=1.5),
    lambda: bt.Counterparty(hazard=0.1, recovery=math.nan),
    lambda: bt.Counterparty(hazard=0.1, recovery=0.5).losses(-1.0),
    lambda: bt.Counterparty(hazard=0.1, recovery=0.5).losses(math.nan),
    lambda: bt.Counterparty(hazard=0.1, recovery=0.5).losses(1.0, cap=math.nan),
    lambda: bt.Counterparty(hazard=0.1, recovery=0.5).losses(1.0, horizons=["a year"]),
    lambda: bt.Counterparty(hazard=0.1, recovery=0.5).default_probability(math.nan),
    lambda: combine_losses({}, {}),
])  # fmt: skip
def test_bad_counterparties_are_refused(make):
    with pytest.raises(bt.ParameterError) as caught:
        make()
    assert "cure" in str(caught.value)
