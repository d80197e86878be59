"""simulate_market(): a market in which leveraged agents make the price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import (
    AccountingError,
    ParameterError,
    Place,
    Range,
    checked,
    compile_module,
    parse_duration,
    record_making,
    repr_plain,
    to_plain,
)
from backtest.base.units import DAY
from backtest.crowd import bank_fund_kernels, value_fund_kernels
from backtest.crowd.agents import LeverageCycle, Policies, Thurner
from backtest.crowd.bank_fund_stability import list_cycle_terms, start_cycle
from backtest.crowd.simulated_market import SimulatedMarket, build_simulation

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.base import FloatArray
    from backtest.policy import Policy
    from backtest.venue import Venue

WHERE = "bt.simulate_market"
MOST_STEPS = 10_000_000
SPAN_DAYS = 80_000
"""About 220 years: times in nanoseconds from 1970 on end in 2262."""


@record_making
@checked
def simulate_market(
    agents: Thurner | LeverageCycle | Policies,
    *,
    steps: int = 50_000,
    seed: int = 0,
    policy: Policy | None = None,
    venue: Venue | None = None,
    account: Account | None = None,
    compile: bool = True,  # noqa: A002 - the word users know
    progress: Callable[[int, int], None] | None = None,
) -> SimulatedMarket:
    """Simulate a market of leveraged agents, with an account of your own among them.

    Parameters
    ----------
    agents : Thurner, LeverageCycle or Policies
        Who trades; see :mod:`backtest.crowd.agents`.
    steps : int
        The number of steps, one bar each, at least 100.
    seed : int
        The seed of the noise.
    policy : Policy, optional
        The policy of one more account, whose orders clear with those of Thurner or LeverageCycle.
        It lives by the rules of :func:`backtest.run`: the same run in the market made gives its
        account. What it holds is missing from what the agents share. Policies take it in their mix.
    venue : Venue, optional
        Of that account, with a linear contract; the newest terms of the preset binance-usdm BTCUSDT
        without steps of quantity by default.
    account : Account, optional
        Of that account, in the money of the agents, with ``fill="next_close"``: orders fill at the
        next price that clears. By default it starts with the wealth of a fund, or a tenth of the
        equity of the bank.
    compile : bool
        False runs the agents in plain Python; the numbers are the same bits.
    progress : callable, optional
        Called with rounds done and 0, for Policies and with ``policy``.

    Returns
    -------
    SimulatedMarket

    Raises
    ------
    ParameterError
        If an argument is out of its range, or the agents break down: no price clears, the bank
        fails, or no prices are those that agents and policies make together.
    """
    n = int(
        Range(100, MOST_STEPS).check("steps", steps, where=Place("steps", of=WHERE), whole=True)
    )
    start = int(Range(0, 2**63 - 1).check("seed", seed, where=Place("seed", of=WHERE), whole=True))
    if isinstance(agents, Policies):
        if policy is not None:
            raise ParameterError(
                f"policy joins Thurner or LeverageCycle, got {repr_plain(agents):.60}",
                where=Place("policy", of=WHERE),
                cure="add it to the mix: bt.agents.Policies({policy: share, ...})",
            )
        refuse_terms(venue=venue, account=account)
        from backtest.crowd.clearing_account import simulate_policies  # noqa: PLC0415 - bt.run

        return simulate_policies(agents, n, start, compile, progress)
    if not isinstance(agents, Thurner | LeverageCycle):
        raise ParameterError(
            f"agents must be of bt.agents, got {repr_plain(agents)}",
            where=Place("agents", of=WHERE),
            cure="pass bt.agents.Thurner(cap=10), for example",
        )
    interval = find_interval(agents, n)
    noise = np.random.default_rng(start).standard_normal(n)
    described = {"agents": describe_agents(agents), "seed": start, "steps": n}

    def simulate(held: FloatArray, leverage: Mapping[str, FloatArray]) -> SimulatedMarket:
        if isinstance(agents, Thurner):
            return simulate_funds(agents, noise, held, leverage, interval, described, compile)
        return simulate_cycle(agents, noise, held, leverage, interval, described, compile)

    if policy is None:
        refuse_terms(venue=venue, account=account)
        return simulate(np.zeros(n), {})
    from backtest.crowd import clearing_account as among  # noqa: PLC0415 - bt.run

    member = among.choose_terms(agents, policy, venue, account)
    described |= {
        "policy": repr(policy),
        "venue": member.venue.to_dict(),
        "account": member.account.to_dict(),
    }
    shares = agents.shares if isinstance(agents, Thurner) else 1.0
    return among.simulate_with(simulate, member, shares, n, compile, progress)


def refuse_terms(**terms: Any) -> None:
    for name, value in terms.items():
        if value is not None:
            raise ParameterError(
                f"{name} is that of the account of policy=, got none",
                where=Place(name, of=WHERE),
                cure=f"pass policy= too, or drop {name}=; Policies have terms of their own",
            )


def describe_agents(agents: Thurner | LeverageCycle) -> dict[str, Any]:
    name = type(agents).__name__
    described: dict[str, Any] = to_plain(
        {"name": name, "text": f"bt.agents.{agents!r}", **agents.to_dict()}
    )
    return described


def find_interval(agents: Thurner | LeverageCycle, n: int) -> str:
    interval = agents.interval
    length = parse_duration(interval, where=Place("agents", of=WHERE))
    if n * length > SPAN_DAYS * DAY:
        raise ParameterError(
            f"the bars must span {SPAN_DAYS:,} days at most, got {n * length // DAY:,}",
            where=Place("steps", of=WHERE),
            cure="simulate fewer steps, or shorter ones: interval='1h'",
        )
    return interval


def find_kernel(module: Any, name: str, is_compiled: bool) -> Callable[..., None]:
    kernel: Callable[..., None] = getattr(compile_module(module) if is_compiled else module, name)
    return kernel


def simulate_funds(
    agents: Thurner,
    noise: FloatArray,
    held: FloatArray,
    more: Mapping[str, FloatArray],
    interval: str,
    described: dict[str, Any],
    is_compiled: bool,
) -> SimulatedMarket:
    n, k = len(noise), agents.funds
    beta = np.linspace(agents.beta_low, agents.beta_high, k)
    terms = np.array(
        [
            agents.value, agents.shares, agents.rho, agents.sigma, agents.wealth, agents.smoothing,
            agents.flow, agents.benchmark, agents.death, float(agents.away),
        ]
    )  # fmt: skip
    counts = np.zeros(4, dtype=np.int64)
    volume, leverage, price = np.zeros(n), np.full((n, k), np.nan), np.zeros(n)
    state, edges = np.zeros((5, k)), np.zeros(2 * k + 1)
    trade = find_kernel(value_fund_kernels, "trade_funds", is_compiled)
    trade(noise, beta, agents.cap, terms, state, edges, counts, volume, leverage, price, held)
    if counts[value_fund_kernels.FAILED]:
        raise AccountingError(
            f"a price must clear in every step, none did in {counts[value_fund_kernels.FAILED]}",
            where=WHERE,
            cure="this is a defect of the package: report it with the agents and the seed",
        )
    names = [f"fund_{row + 1}" for row in range(k)]
    found = {
        "margin_calls": float(counts[value_fund_kernels.CALLS]),
        "deaths": float(counts[value_fund_kernels.DEATHS]),
        "several_prices": float(counts[value_fund_kernels.SEVERAL]),
    }
    paths = dict(zip(names, leverage.T, strict=True)) | dict(more)
    return build_simulation(
        price, agents.value, volume, paths, interval, described, found, agents.value
    )


def simulate_cycle(
    agents: LeverageCycle,
    noise: FloatArray,
    held: FloatArray,
    more: Mapping[str, FloatArray],
    interval: str,
    described: dict[str, Any],
    is_compiled: bool,
) -> SimulatedMarket:
    n = len(noise)
    terms, state = list_cycle_terms(agents), start_cycle(agents)
    failed = np.zeros(1, dtype=np.int64)
    leverage, target, price = np.zeros(n), np.zeros(n), np.zeros(n)
    cycle = find_kernel(bank_fund_kernels, "cycle_steps", is_compiled)
    cycle(noise, terms, state, failed, leverage, target, price, held)
    if failed[0]:
        raise ParameterError(
            "bank equity and price must be positive, and shares below 1, got others in step "
            f"{failed[0]} of {n}",
            where=f"{WHERE}, {agents!r}",
            cure="lower alpha or equity: the market is unstable from the start",
        )
    calls = float(np.sum(leverage[:-1] > target[1:]))
    paths = {"bank": leverage, **more}
    return build_simulation(
        price, agents.value, np.zeros(n), paths, interval, described, {"margin_calls": calls}
    )
