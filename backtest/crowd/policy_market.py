"""The market that a mix of policies makes; see :class:`backtest.crowd.agents.Policies`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import ParameterError, Place
from backtest.crowd.agents import Policies
from backtest.crowd.clearing_account import PRESET, WHERE
from backtest.crowd.crowding import find_accounts, find_decay
from backtest.crowd.impact import measure_volume
from backtest.crowd.impacted_market import Crowded, solve_market
from backtest.crowd.simulated_market import SimulatedMarket, record_simulation
from backtest.engine import run
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.market import Market
from backtest.venue import Venue


def simulate_policies(
    agents: Policies,
    steps: int,
    seed: int,
    is_compiled: bool,
    progress: Callable[[int, int], None] | None,
) -> SimulatedMarket:
    """Simulate the market that policies make out of ``Market.sample``.

    Raises
    ------
    ParameterError
        If no prices are those that the policies' flows make.
    """
    base = Market.sample(bars=steps, seed=seed, interval=agents.interval)
    venue = Venue.preset(*PRESET) if agents.venue is None else agents.venue
    account = Account() if agents.account is None else agents.account
    terms: dict[str, Any] = {"venue": venue, "account": account, "compile": is_compiled}
    money = agents.open_interest * measure_volume(base, venue.contract)
    on_round = None if progress is None else lambda done: progress(done, 0)
    with warnings.catch_warnings():
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        crowds = [
            Crowded(policy, find_accounts(run(base, policy, **terms), share * money))
            for policy, share in agents.mix.items()
        ]
        curve = agents.impact.curve(market=base, contract=venue.contract)
        decay = find_decay(agents.recovery, base.interval)
        solved = solve_market(base, crowds, curve, decay, terms, on_round)
    if not solved.found.clears:
        raise ParameterError(
            "the prices and the orders of the policies do not converge: after "
            f"{solved.found.rounds} rounds, prices still change by {solved.found.last_change:.2g}",
            where=Place("agents", of=WHERE),
            cure="lower open_interest or the shares: this crowd is unstable",
        )
    market = solved.market
    columns = ("open", "high", "low", "close", "volume")
    bars = pd.DataFrame({name: getattr(market, name) for name in columns},
                        index=market.times)  # fmt: skip
    names = [repr(policy) for policy in agents.mix]
    paths = {
        name: result.bars["leverage"].to_numpy(dtype=np.float64)
        for name, result in zip(names, solved.results, strict=True)
    }
    counts = {
        "margin_calls": float(sum(r.metrics["margin_calls"] for r in solved.results)),
        "deaths": float(sum(r.metrics["ruined"] for r in solved.results)),
    }
    text = f"bt.agents.Policies({dict(agents.mix)!r})"
    described = {
        "agents": {"name": "Policies", "text": text, **agents.to_dict()},
        "seed": seed,
        "steps": steps,
        "venue": venue.to_dict(),
        "account": account.to_dict(),
    }
    return record_simulation(bars, paths, described, counts)
