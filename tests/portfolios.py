"""Random portfolios, and compiled twins of their rules."""

from collections.abc import Iterator

import numpy as np

import backtest as bt
from backtest.venue.portfolio_kernels import Holdings, PortfolioRules
from backtest.venue.requirement import read_rules
from backtest.venue.requirement_rule import pack_holdings
from tests.scenes import venue_of


def make_portfolios(
    count: int = 25,
) -> Iterator[tuple[PortfolioRules, Holdings, float, np.random.Generator]]:
    """Yield rules, holdings, cash and a generator: brackets and scenarios, some of them failing."""
    rng = np.random.default_rng(11)
    venues = bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"]) | {"PLAIN": venue_of()}
    rules = {name: read_rules(venue) for name, venue in venues.items()}
    coin = bt.Collateral(
        "BTC", 1.0, prices=1.0, tiers=[(0, 1e4, 1), (1e4, 4e4, 0.9)], cancels_risk="coins"
    )
    moves = [(-0.3, 0.2), (-0.1, 1.0), (-0.05, 1.0), (0.05, 1.0), (0.1, 1.0), (0.3, 0.2)]
    scenarios = bt.ScenarioMargin(
        moves=moves,
        groups={"coins": ["BTCUSDT", "ETHUSDT"]},
        minimum=0.004,
        contingency=0.002,
        pair_contingency=0.003,
        level=1.05,
        initial=(1.2, 0.003),
    )
    offsets = scenarios.override(across="same row", offset=0.6, pair_contingency=0.0)
    for rule in (bt.Brackets(), bt.Brackets(level=1.05), scenarios, offsets):
        assets = () if isinstance(rule, bt.Brackets) else (coin,)
        packed = rule.pack(rules, assets)
        for _ in range(count):
            signs = rng.choice([-1.0, 0.0, 1.0], 3, p=[0.4, 0.2, 0.4])
            quantities = signs * np.array([1.0, 20.0, 500.0]) * np.exp(rng.normal(size=3))
            values = np.array([60_000.0, 3_000.0, 100.0]) * np.exp(0.1 * rng.normal(size=3))
            amounts = [rng.uniform(-0.1, 0.5)] if assets else []
            held = pack_holdings(quantities, values, None, amounts, [60_000.0] if assets else [])
            gross = float(np.abs(quantities * values).sum())
            cash = rng.uniform(0.02, 0.3) * gross - float((quantities * values).sum())
            yield packed, held, cash, rng
