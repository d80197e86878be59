"""The agents of a simulated market: value funds, a bank with a fund, or policies of this library.

Pass one to :func:`backtest.simulate_market`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from backtest.account import Account
from backtest.base import (
    Duration,
    Flag,
    Number,
    ParameterError,
    Value,
    Whole,
    check_range,
    repr_plain,
)
from backtest.base.fields import NOT_NEGATIVE, POSITIVE
from backtest.crowd.impact import Impact, SquareRoot, check_impact
from backtest.policy import Policy
from backtest.venue import Venue

__all__ = ["LeverageCycle", "Policies", "Thurner"]

UNIT = Number(0.0, 1.0)
BELOW_ONE = Number(0.0, 1.0, open_low=True, open_high=True)


@dataclass(frozen=True, eq=False, repr=False)
class Thurner(Value):
    """Value funds that borrow up to a leverage cap, beside noise traders.

    Parameters
    ----------
    cap : float
        The largest leverage, notional over wealth; 0 for a market without funds.
    funds : int
        The number of funds; their aggression rises in equal steps.
    beta_low, beta_high : float
        The aggression of the first and the last fund: leverage per unit of mispricing.
    wealth : float
        The wealth with which a fund starts.
    shares, value : float
        The number of shares N, and their fundamental value V.
    rho, sigma : float
        Persistence and noise of the log of the money of the noise traders.
    smoothing, flow, benchmark : float
        Investors move ``flow`` times the smoothed return over the benchmark in or out, per step.
    death : float
        A fund with less than this share of its first wealth closes.
    away : int
        The steps until a new fund replaces it.
    interval : str
        The length of a bar of the market that is made.

    Notes
    -----
    A fund demands ``min(beta (V - p), cap) W / p`` shares while p < V, where its wealth W is valued
    at p itself; noise traders demand ``xi / p``. The price at which demand equals N is a root of a
    quadratic between two known prices. Where several clear, the nearest to the last price is taken,
    and counted. Source: Thurner, Farmer and Geanakoplos (2012), Leverage Causes Fat Tails and
    Clustered Volatility, Quantitative Finance 12(5).
    """

    cap: Annotated[float, NOT_NEGATIVE] = 10.0
    funds: Annotated[int, Whole(1)] = 10
    beta_low: Annotated[float, POSITIVE] = 5.0
    beta_high: Annotated[float, POSITIVE] = 50.0
    wealth: Annotated[float, POSITIVE] = 2.0
    shares: Annotated[float, POSITIVE] = 1_000.0
    value: Annotated[float, POSITIVE] = 1.0
    rho: Annotated[float, Number(0.0, 1.0, open_high=True)] = 0.99
    sigma: Annotated[float, NOT_NEGATIVE] = 0.035
    smoothing: Annotated[float, UNIT] = 0.1
    flow: Annotated[float, NOT_NEGATIVE] = 0.15
    benchmark: Annotated[float, Number()] = 0.005
    death: Annotated[float, UNIT] = 0.1
    away: Annotated[int, Whole(0)] = 100
    interval: Annotated[str, Duration()] = "1d"


@dataclass(frozen=True, eq=False, repr=False)
class LeverageCycle(Value):
    """A bank that aims at a leverage by value at risk, and a fund that trusts fundamental value.

    Parameters
    ----------
    equity : float
        What the bank's equity returns to: its size relative to the fund.
    alpha, power, offset : float
        The bank's target leverage is ``alpha (sigma^2 + offset)^power``; Basel II has a power of
        -0.5, constant leverage 0.
    delta : float
        The memory of the perceived variance sigma^2, per year.
    theta : float
        How fast the bank goes to its target, per year.
    eta : float
        How fast dividends and issues bring the equity back, per year.
    rho : float
        How fast the fund's weight follows mispricing, per year.
    value : float
        The fundamental value.
    bank_weight, fund_weight : float
        The share of the bank's assets in the risky one, and of the fund's at the start.
    tau : float
        The step, in years; also the horizon of value at risk.
    noise : bool
        Whether the fund's weight has noise with clustered volatility (GARCH).
    a_0, a_1, b_1 : float
        Its parameters.
    interval : str
        The length of a bar of the market that is made. A step stands for ``tau`` years; its bar is
        shorter, so that thousands of years fit into the calendar.

    Notes
    -----
    The steps are those of Aymanns, Caccioli, Farmer and Tan (2016), Taming the Basel Leverage
    Cycle, Journal of Financial Stability 27; the earlier form is Aymanns and Farmer (2015), The
    Dynamics of the Leverage Cycle, Journal of Economic Dynamics and Control 50. Small banks are
    stable; over a critical leverage, which falls as the bank grows, prices rise slowly for years
    and then crash; far over it nothing clears.
    """

    equity: Annotated[float, POSITIVE] = 2.27
    alpha: Annotated[float, POSITIVE] = 0.01
    power: Annotated[float, Number(-2.0, 2.0)] = -0.5
    offset: Annotated[float, POSITIVE] = 1e-6
    delta: Annotated[float, POSITIVE] = 0.5
    theta: Annotated[float, POSITIVE] = 10.0
    eta: Annotated[float, NOT_NEGATIVE] = 10.0
    rho: Annotated[float, NOT_NEGATIVE] = 0.1
    value: Annotated[float, POSITIVE] = 25.0
    bank_weight: Annotated[float, BELOW_ONE] = 0.3
    fund_weight: Annotated[float, BELOW_ONE] = 0.5
    tau: Annotated[float, POSITIVE] = 0.1
    noise: Annotated[bool, Flag()] = True
    a_0: Annotated[float, POSITIVE] = 1e-3
    a_1: Annotated[float, UNIT] = 0.016
    b_1: Annotated[float, Number(0.0, 1.0, open_high=True)] = 0.874
    interval: Annotated[str, Duration()] = "1d"

    def _check_rules(self) -> None:
        if not self.a_1 + self.b_1 < 1.0:
            raise ParameterError(
                f"a_1 + b_1 must be under 1, or the noise has no variance, got "
                f"{self.a_1 + self.b_1:g}",
                where="LeverageCycle.a_1",
                cure="lower a_1 or b_1",
            )

    @property
    def target(self) -> float:
        """The bank's leverage at the fixed point, where nothing moves."""
        return float(self.alpha * self.offset**self.power)


@dataclass(frozen=True)
class Policies:
    """Policies of this library that trade in one market and move its price.

    Parameters
    ----------
    mix : mapping of Policy to float
        The share of the open interest that runs each policy; the shares sum to 1 at most.
    open_interest : float
        The notional of all leveraged accounts as a multiple of a day's volume.
    impact : SquareRoot or Linear
        How their flow moves the price.
    recovery : str or None
        The half-life of the impact; None: it stays.
    venue : Venue, optional
        The newest terms of the preset binance-usdm BTCUSDT by default.
    account : Account, optional
        The account of each policy; ``bt.Account()`` by default.
    interval : str
        The length of a bar.
    """

    mix: Mapping[Policy, float]
    open_interest: float = 0.5
    impact: Impact = field(default_factory=lambda: SquareRoot(1.0))
    recovery: str | None = "2h"
    venue: Venue | None = None
    account: Account | None = None
    interval: str = "1h"

    def __post_init__(self) -> None:
        where = "bt.agents.Policies"
        if not isinstance(self.mix, Mapping) or not self.mix:
            raise ParameterError(
                f"mix must map policies to shares, got {repr_plain(self.mix):.60}",
                where=where,
                cure="pass {VolTarget(): 0.5, Constant(leverage=3.0): 0.5}, for example",
            )
        for policy, share in self.mix.items():
            if not isinstance(policy, Policy):
                raise ParameterError(
                    f"mix must hold policies, got {repr_plain(policy)}",
                    where=where,
                    cure="pass instances of classes derived from bt.Policy",
                )
            check_range("share", share, where=f"{where}, {policy!r}", low=0.0, high=1.0)
        total = math.fsum(self.mix.values())
        if total > 1.0 + 1e-9:
            raise ParameterError(
                f"the shares must sum to 1 at most, got {total:g}",
                where=where,
                cure="lower some of them; the rest of the open interest does not trade",
            )
        check_range("open_interest", self.open_interest, where=where, low=0.0)
        check_impact(self.impact, where=where)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for manifests."""
        return {
            "mix": {repr(policy): float(share) for policy, share in self.mix.items()},
            "open_interest": float(self.open_interest),
            "impact": self.impact.to_dict() | {"law": type(self.impact).__name__},
            "recovery": self.recovery,
            "interval": self.interval,
        }
