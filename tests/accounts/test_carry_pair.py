"""Closed form of several accounts: a carry pair whose accounts cannot help each other.

Capital C: spot worth (1 - a) C, unlevered, and the same quantity short with margin a C, never
changed, without costs or funding. The short account fails where a C - q (S - S0) = m q S, at
b = -ln((1 - a) (1 + m)) over the log price. Without drift of the log price, seen at closes,
P(liquidated by T) = 2 Phi(-(b + .5826 sigma sqrt(dt)) / (sigma sqrt(T))): Broadie, Glasserman and
Kou (1997), A Continuity Correction for Discrete Barrier Options, Mathematical Finance 7(4).
"""

import math
from statistics import NormalDist

import numpy as np
import pytest

import backtest as bt
from backtest.risk import path_models as models
from tests import scenes
from tests.accounts.desk import move, run
from tests.kit import make_venue
from tests.risk.accounts import Hold, still_market

RATE = 0.004
YEARS = 0.5
HOURS = 4380
PATHS = 4000
SHARES = (0.2, 0.35, 0.5)
CLOSED = {
    (0.2, 0.5): 0.530, (0.2, 0.9): 0.724, (0.35, 0.5): 0.224, (0.35, 0.9): 0.497,
    (0.5, 0.5): 0.050, (0.5, 0.9): 0.275,
}  # fmt: skip


class FlatGBM(models.GBM):
    """Bars that reach no further than their open and close."""

    def walk(self, draws, per_year):
        """Return moves of no drift of the log price, and the extremes of their ends."""
        moves = self.volatility / math.sqrt(per_year) * draws.joint_normals()
        return moves, np.maximum(moves, 0.0), np.minimum(moves, 0.0)


def barrier(share):
    return -math.log((1.0 - share) * (1.0 + RATE))


def probability(share, sigma):
    """Return the closed form."""
    corrected = barrier(share) + 0.5826 * sigma * math.sqrt(YEARS / HOURS)
    return 2.0 * NormalDist().cdf(-corrected / (sigma * math.sqrt(YEARS)))


@pytest.mark.parametrize(("case", "known"), CLOSED.items())
def test_the_closed_form_is_the_published_one(case, known):
    assert probability(*case) == pytest.approx(known, abs=6e-4)
    assert barrier(0.2) == pytest.approx(0.2192, abs=5e-5)


def test_the_short_account_of_the_pair_fails_at_its_barrier():
    """With a = .2: a rise by exp(.2191) is lived, one by exp(.2193) is not; the spot has it all."""
    short_venue = make_venue(maintenance_rate=RATE, max_leverage=200)
    for rise, dead in ((0.2191, 0), (0.2193, 1)):
        market = scenes.market_of(*move(100.0, 100.0, 100.0 * math.exp(rise)))
        spot_venue = scenes.venue_of(brackets=[scenes.bracket(leverage=1.0, rate=1e-6)])
        spot = bt.Backtest(market, venue=spot_venue, account=scenes.account_of(capital=800.0))
        perp = bt.Backtest(
            market, venue=short_venue, account=scenes.account_of(capital=200.0), signal=-1.0
        )
        policies = {"spot": Hold(1.0), "perp": Hold(4.0)}

        book = run({"spot": spot, "perp": perp}, policies, transfer=bt.Never())

        assert book.metrics["liquidations"] == dead
        assert book.liquidated_with_money_elsewhere == 0  # the spot is bought with all it has
        assert book.results["spot"].metrics["final_equity"] == pytest.approx(800 * math.exp(rise))


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.5, 0.9])
def test_simulated_pairs_are_liquidated_as_often_as_the_closed_form_says(sigma):
    """Within three standard errors on 4,000 paths of half a year of hours."""
    model = FlatGBM(volatility=sigma)
    horizon = f"{HOURS}h"
    paths = bt.simulate_paths(still_market(), model, paths=PATHS, horizon=horizon, seed=3)
    venue = make_venue(maintenance_rate=RATE, max_leverage=200)

    for share in SHARES:
        account = bt.Account(capital=1000.0 * share, max_leverage=200)
        test = bt.Backtest(still_market(), venue=venue, account=account, signal=-1.0)
        policy = Hold((1.0 - share) / share)

        risk = test.liquidation_risk(policy, paths=paths, horizons=(horizon,))

        found = float(risk.table["p_liquidation"].iloc[0])
        wanted = probability(share, sigma)
        error = math.sqrt(wanted * (1.0 - wanted) / PATHS)
        assert abs(found - wanted) <= 3.0 * error, (share, found, wanted, error)
