"""The account of a policy among the agents of a simulated market."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import ParameterError, Place
from backtest.crowd.agents import Policies, Thurner
from backtest.crowd.crowding import find_accounts, find_decay
from backtest.crowd.impact import measure_volume
from backtest.crowd.impacted_market import Crowded, find_unchanged, solve_market
from backtest.crowd.simulated_market import SimulatedMarket, record_simulation
from backtest.engine import run
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.market import Market
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.crowd.agents import LeverageCycle
    from backtest.policy import Policy


WHERE = "bt.simulate_market"
PRESET = ("binance-usdm", "BTCUSDT", "latest")
MOST_HELD = 0.5
"""The share of the market that an account may hold, long or short."""


class Member(NamedTuple):
    policy: Policy
    venue: Venue
    account: Account


def choose_terms(
    agents: Thurner | LeverageCycle, policy: Policy, venue: Venue | None, account: Account | None
) -> Member:
    if venue is None:
        steps = {"lot": 0.0, "min_notional": 0.0, "tick": 1e-6}
        venue = Venue.preset(*PRESET).override(contract=steps)
    if venue.contract.kind != "linear":
        raise ParameterError(
            f"an account among agents trades linear contracts, got {venue.contract.kind!r}",
            where=Place("venue", of=WHERE),
            cure="pass a venue with Contract(kind='linear')",
        )
    if account is None:
        wealth = agents.wealth if isinstance(agents, Thurner) else 0.1 * agents.equity
        account = Account(capital=wealth, fill="next_close")
    if account.fill != "next_close":
        raise ParameterError(
            "orders of an account among agents fill at the prices that clear, fill='next_close', "
            f"got {account.fill!r}",
            where=Place("account", of=WHERE),
            cure="pass bt.Account(capital=..., fill='next_close')",
        )
    return Member(policy, venue, account)


def simulate_with(
    simulate: Callable[[FloatArray, Mapping[str, FloatArray]], SimulatedMarket],
    member: Member,
    shares: float,
    steps: int,
    is_compiled: bool,
    progress: Callable[[int, int], None] | None,
) -> SimulatedMarket:
    leverage = np.zeros(steps)

    def hold(held: FloatArray) -> FloatArray:
        market = simulate(held, {}).market
        result = run(market, member.policy, venue=member.venue, account=member.account,
                     compile=is_compiled)  # fmt: skip
        after = np.zeros(steps)
        position = result.of_positions("quantity")[:, 0] * member.venue.contract.size
        after[-len(position) :] = position
        leverage[-len(position) :] = result.bars["leverage"]
        return after

    def is_small(held: FloatArray) -> bool:
        return bool(np.max(np.abs(held)) < MOST_HELD * shares)

    with warnings.catch_warnings():
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        found = find_unchanged(
            hold, np.zeros(steps), is_small, progress and (lambda done: progress(done, 0)),
            is_damped=False,  # a holding moves its own and later prices: each round solves more
        )  # fmt: skip
    if not found.clears:
        raise ParameterError(
            "the prices of the agents and the orders of the account do not converge: after "
            f"{found.rounds} rounds, holdings still change by {found.last_change:.2g} shares of "
            f"{shares:g}",
            where=Place("policy", of=WHERE),
            cure="lower the account's capital or its leverage: it is too large for this market",
        )
    return simulate(found.values, {repr(member.policy): leverage})


def simulate_policies(
    agents: Policies,
    steps: int,
    seed: int,
    is_compiled: bool,
    progress: Callable[[int, int], None] | None,
) -> SimulatedMarket:
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
