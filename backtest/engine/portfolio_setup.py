"""What a run of several positions needs, checked and read from its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from backtest.account import Account
from backtest.base.errors import ParameterError
from backtest.base.phrases import Argument, Phrase
from backtest.base.units import FloatArray, TimeLike
from backtest.engine.benchmark import Benchmark, BenchmarkLike, read_benchmark
from backtest.engine.cut_terms import cut_account
from backtest.engine.portfolio_checks import check_portfolio, read_venues
from backtest.engine.portfolio_inputs import read_book_inputs
from backtest.engine.portfolio_policies import Panelist, assign_policies, seat
from backtest.engine.resumed_markets import find_start_bar, join_resumed
from backtest.engine.run_record import RunRecord
from backtest.market.markets import Markets
from backtest.market.weight_frame import read_weights
from backtest.policy import Policy, sets_margin
from backtest.venue import Venue


class Setup(NamedTuple):
    """A run before its loop: everything that its parameters decide.

    ``given`` is the signal as it was given. With ``is_of_fast_loop``, the loop of one position
    runs: ``inputs`` are its :class:`Inputs`, and ``signal`` has shape (n_bars,) or (1,).
    """

    markets: Markets
    policies: dict[str, Policy]
    overlay: Policy | None
    venues: dict[str, Venue]
    account: Account
    signal: FloatArray
    panelists: list[Panelist]
    inputs: Any
    first: int
    periods: float
    sampling: str
    resume: RunRecord | None = None
    benchmark: Benchmark | None = None
    given: Any = None
    is_of_fast_loop: bool = False
    started: int = 0


def set_up(
    markets: Markets,
    policy: Policy | Mapping[str, Policy],
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    signal: Any,
    overlay: Policy | None,
    sampling: str,
    periods: float,
    start: TimeLike | None,
    panelists: list[Panelist] | None = None,
    resume: RunRecord | None = None,
    benchmark: BenchmarkLike = None,
) -> Setup:
    """Check and read everything that a run needs; ``panelists`` are its policies if known."""
    policies, above = assign_policies(policy, markets, overlay)
    venues, account = check_panel(markets, account, venue)
    check_margin_policies(policies, account)
    if resume is None:
        first = find_start_bar(markets, start)
    else:
        markets, first = join_resumed(resume, markets)
    weights = read_weights(signal, markets, where="bt.run", first=first)
    compared = None if benchmark is None else read_benchmark(benchmark, markets, venues, first)
    panelists = panelists or seat(policies, above, markets, weights)
    inputs = read_book_inputs(
        markets,
        venues,
        account,
        signal=weights,
        sampling=sampling,
        first=first,
        started=int(markets.time[first]) if resume is None else resume.started,
    )
    return Setup(
        markets=markets,
        policies=policies,
        overlay=above,
        venues=venues,
        account=account,
        signal=weights,
        panelists=panelists,
        inputs=inputs,
        first=first,
        periods=periods,
        sampling=sampling,
        resume=resume,
        benchmark=compared,
        given=signal,
        started=inputs.started,
    )


def seat_again(
    markets: Markets,
    policy: Policy | Mapping[str, Policy],
    overlay: Policy | None,
    signal: Any,
    start: TimeLike | None,
) -> list[Panelist]:
    """Return the policies of a run that was made before; their columns are not checked again."""
    policies, above = assign_policies(policy, markets, overlay)
    weights = read_weights(signal, markets, where="bt.run", first=find_start_bar(markets, start))
    return seat(policies, above, markets, weights, is_checked=False)


def set_up_like(
    other: Setup, venue: Venue | Mapping[str, Venue], account: Account, panelists: list[Panelist]
) -> Setup:
    """Return another account's run on the same markets with the same signal; arrays are shared.

    ``panelists`` are its policies with their columns.
    """
    venues, account = check_panel(other.markets, account, venue)
    check_margin_policies(other.policies, account)
    inputs = read_book_inputs(
        other.markets,
        venues,
        account,
        signal=other.signal,
        sampling=other.sampling,
        first=other.first,
        started=int(other.markets.time[other.first]),
        like=other.inputs,
    )
    names = other.markets.names
    policies = {name: each.policy for name, each in zip(names, panelists, strict=False)}
    return other._replace(
        policies=policies, venues=venues, account=account, panelists=panelists, inputs=inputs
    )


def check_panel(
    markets: Markets, account: Account, venue: Venue | Mapping[str, Venue]
) -> tuple[dict[str, Venue], Account]:
    """Return the venue of each instrument, and the account with its requirement, both checked."""
    venues = read_venues(venue, markets)
    account = cut_account(account, markets)
    account = replace(account, requirement=account.requirement.resolve(markets.names))
    check_portfolio(markets, venues, account)
    return venues, account


def check_margin_policies(policies: Mapping[str, Policy], account: Account) -> None:
    """Refuse policies that move the margin of a position that has none of its own."""
    for name, policy in policies.items():
        if sets_margin(policy) and account.for_instrument(name).margin != "isolated":
            raise ParameterError(
                f"a policy with venue_leverage needs isolated margin: in cross margin all money "
                f"backs the position already, {type(policy).__name__} defines it and got 'cross'",
                where=f"Account.margin, {name}",
                cure=Phrase(
                    "give {} and a {} to begin with",
                    Argument("margin", "isolated"),
                    Argument("venue_leverage", 5),
                ),
            )


def set_up_again(
    setup: Setup, markets: Markets, weights: FloatArray, *, first: int, started: int
) -> Setup:
    """Return the setup of the same account on other markets, from another bar.

    ``weights`` (n, n_bars) are the signal. Columns are not checked for looking ahead again.
    """
    inputs = read_book_inputs(
        markets,
        setup.venues,
        setup.account,
        signal=weights,
        sampling="1d",
        first=first,
        started=started,
    )
    panelists = seat(setup.policies, setup.overlay, markets, weights, is_checked=False)
    return setup._replace(
        markets=markets,
        signal=weights,
        panelists=panelists,
        inputs=inputs,
        first=first,
        benchmark=None,
    )
