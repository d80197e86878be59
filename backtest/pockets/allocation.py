"""Allocation: one capital divided into pockets, separate accounts with their own policies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backtest.account import Account
from backtest.base import (
    Choice,
    Either,
    Number,
    ParameterError,
    Phrase,
    Place,
    TimeLike,
    parse_duration,
    repr_plain,
    utc_index,
)
from backtest.engine import Progress, check_settlement, read_venues
from backtest.market import Market, Markets, as_markets
from backtest.options import refuse_options
from backtest.pockets.allocation_result import AllocationResult
from backtest.pockets.allocation_run import run_pockets
from backtest.pockets.live_pockets import PocketRun
from backtest.pockets.transfers import RULES
from backtest.policy import Policy
from backtest.venue import Venue

WHERE = "bt.Allocation"
SHARE = Number(0, 1, open_low=True)


@dataclass(frozen=True)
class Pocket:
    """A part of the capital: its policy and its share, and what it trades.

    Parameters
    ----------
    policy : Policy, or mapping of instruments to policies
        Decides the leverage of the pocket's own account.
    share : float
        Of the capital, over 0 and up to 1.
    instrument : str or sequence of str, optional
        What it trades of several markets: one, some as one account with several positions, or all
        of them by default.
    signal : optional
        Its direction or weights, as in :func:`backtest.run`; by default that of the allocation.
    overlay : Policy, optional
        The leverage of a pocket with several positions, as in :func:`backtest.run`.
    """

    policy: Policy | Mapping[str, Policy]
    share: float
    instrument: str | Sequence[str] | None = None
    signal: Any = None
    overlay: Policy | None = None

    def __post_init__(self) -> None:
        given = self.policy.values() if isinstance(self.policy, Mapping) else [self.policy]
        if not given or not all(isinstance(each, Policy) for each in given):
            raise ParameterError(
                f"policy must be a Policy, or one by instrument, got {repr_plain(self.policy)}",
                where="bt.Pocket, policy",
                cure="pass an instance of a class derived from bt.Policy",
            )
        SHARE.check("share", self.share, where="bt.Pocket, share")


@dataclass(frozen=True, init=False)
class Allocation:
    """Division of one capital into named pockets, with the rule of transfers between them.

    Parameters
    ----------
    pockets : mapping of str to Pocket or (policy, share)
        The shares add up to 1.
    rebalance : str
        The time between transfers, ``"30d"`` by default. A transfer is decided at a close and made
        at the next open.
    transfer : str
        ``"to-target"``: every pocket back to its share of the whole. ``"losses-only"``: pockets
        that have less than their share of the first capital get it back from those that have
        more. ``"none"``.

    Raises
    ------
    ParameterError
        If there are no pockets, shares do not add up to 1, or a setting is not allowed.

    Examples
    --------
    >>> from backtest.strategies import Constant
    >>> plan = Allocation({"core": (Constant(1.0), 0.7), "bold": (Constant(3.0), 0.3)})
    >>> plan.rebalance, plan.transfer, plan.pockets["bold"].share
    ('30d', 'to-target', 0.3)
    """

    pockets: Mapping[str, Pocket]
    rebalance: str
    transfer: str

    def __init__(
        self,
        pockets: Mapping[str, Pocket | tuple[Policy, float]],
        *,
        rebalance: str = "30d",
        transfer: str = "to-target",
    ) -> None:
        if not isinstance(pockets, Mapping) or not pockets:
            raise ParameterError(
                f"pockets must be a mapping with one or more entries, got {repr_plain(pockets)}",
                where=WHERE,
                cure='give {"core": (policy, 0.6), "bold": (other, 0.4)}',
            )
        found = {str(name): read_pocket(str(name), each) for name, each in pockets.items()}
        total = math.fsum(each.share for each in found.values())
        if not abs(total - 1.0) <= 1e-9:
            raise ParameterError(
                f"the shares of pockets must add up to 1, got {total:.12g}",
                where=Place("pockets", of=WHERE),
                cure="change a share, or add a pocket that holds cash: Constant(0)",
            )
        parse_duration(rebalance, where=Place("rebalance", of=WHERE))
        Choice(*RULES).check("transfer", transfer, where=Place("transfer", of=WHERE))
        object.__setattr__(self, "pockets", found)
        object.__setattr__(self, "rebalance", rebalance)
        object.__setattr__(self, "transfer", transfer)

    def run(
        self,
        market: Market | Markets,
        *,
        venue: Venue | Mapping[str, Venue],
        account: Account,
        signal: Any = None,
        sampling: str = "1d",
        calendar: str = "365",
        compile: bool = True,  # noqa: A002 - the word of bt.run
        start: TimeLike | None = None,
        progress: Progress | None = None,
    ) -> AllocationResult:
        """Run all pockets on a market, or each on its market.

        Parameters
        ----------
        market : Market or Markets
            Of several instruments, a pocket names its own, or trades all; all pockets have the
            same bars.
        venue : Venue or mapping of names to venues
            The rules of each instrument.
        account : Account
            Its capital is that of the whole; each pocket has an account of these settings with
            its share of the capital, without flows and reserve.
        signal, sampling, calendar, compile, start
            As in :func:`backtest.run`.
        progress : callable, optional
            Called with transfers done and transfers in all.

        Returns
        -------
        AllocationResult

        Raises
        ------
        ParameterError
            If an argument is not allowed, or the markets of pockets have other bars, or their
            venues settle in different currencies.
        """
        check_account(account)
        markets: Markets = as_markets(market, where=f"{WHERE}.run, market")
        refuse_options(markets, "pockets", where=f"{WHERE}.run, market")
        terms = {"sampling": sampling, "calendar": calendar, "compile": compile, "start": start}
        runs: dict[str, PocketRun] = {}
        traded: dict[str, Any] = {}
        for name, each in self.pockets.items():
            own, names = find_market(name, each, markets), list_instruments(each, markets)
            found = find_venue(name, names, own, venue)
            runs[name] = PocketRun(
                policy=each.policy,
                share=each.share,
                market=own,
                venue=found,
                signal=signal if each.signal is None else each.signal,
                overlay=each.overlay,
            )
            traded |= {k: found[k] if isinstance(found, Mapping) else found for k in names}
        check_bars(runs)
        if len(markets) > 1:
            chosen = markets.select(*traded)
            check_settlement(chosen, read_venues(traded, chosen))
        return run_pockets(
            runs, account, self.rebalance, self.transfer, terms=terms, progress=progress
        )


def read_pocket(name: str, given: Any) -> Pocket:
    """Return a pocket, from itself or from (policy, share)."""
    if isinstance(given, Pocket):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return Pocket(*given)
    raise ParameterError(
        f"a pocket must be a bt.Pocket or (policy, share), got {given!r:.60}",
        where=f"{WHERE}, pocket {name}",
        cure="give (policy, 0.5)",
    )


def check_account(account: Account) -> None:
    """Require an account that can be divided."""
    if not isinstance(account, Account):
        raise ParameterError(
            f"account must be an Account, got {repr_plain(account)}",
            where=f"{WHERE}.run, account",
            cure="pass bt.Account(...)",
        )
    if account.collateral:
        raise ParameterError(
            "collateral must be left out: pockets divide money, which it is not",
            where=f"{WHERE}.run, Account.collateral",
            cure="run the account that holds it by itself",
        )
    for field, is_given in (("flows", account.flows is not None), ("reserve", account.reserve > 0)):
        if is_given:
            raise ParameterError(
                f"{field} must be left out: transfers between pockets take its place",
                where=f"{WHERE}.run, Account.{field}",
                cure=f"leave {field} out",
            )


def find_market(name: str, pocket: Pocket, market: Markets) -> Market | Markets:
    """Return the market that a pocket trades, or its markets."""
    names = list_instruments(pocket, market)
    unknown = [each for each in names if each not in market]
    if unknown:
        raise ParameterError(
            f"instrument must be one of the markets, or some of them, got {unknown[0]!r}",
            where=f"{WHERE}, pocket {name}",
            cure=Phrase(
                f"give {{}}, one or more of {', '.join(market)}",
                Either(
                    "bt.Pocket(policy, share, instrument=...)",
                    f"instrument in [allocation.pockets.{name}] of an experiment file",
                ),
            ),
        )
    is_one = len(names) == 1 and pocket.overlay is None and isinstance(pocket.policy, Policy)
    return market[names[0]] if is_one else market.select(*names)


def list_instruments(pocket: Pocket, market: Markets) -> list[str]:
    """Return the instruments that a pocket trades."""
    chosen = pocket.instrument
    return [chosen] if isinstance(chosen, str) else [*(chosen or market)]


def find_venue(name: str, instruments: Sequence[str], own: Market | Markets, venue: Any) -> Any:
    """Return the venue of a pocket, of several instruments by name."""
    if not isinstance(venue, Mapping):
        return venue
    for wanted in instruments:
        if wanted not in venue:
            raise ParameterError(
                f"each instrument must have a venue, {wanted!r} has none",
                where=f"{WHERE}.run, venue of pocket {name}",
                cure="give one venue for all, or one for each instrument",
            )
    found = {each: venue[each] for each in instruments}
    return found if isinstance(own, Markets) else found[instruments[0]]


def check_bars(runs: Mapping[str, PocketRun]) -> None:
    """Require the same bars of all pockets."""
    names = list(runs)
    first = runs[names[0]].market
    for name in names[1:]:
        other = runs[name].market
        if other.time.shape != first.time.shape or (other.time != first.time).any():
            raise ParameterError(
                f"the markets of pockets must have the same bars, those of {names[0]!r} are "
                f"{first.n_bars} from {utc_index(first.time)[0]}, of {name!r} {other.n_bars} from "
                f"{utc_index(other.time)[0]}",
                where=f"{WHERE}.run, market",
                cure="cut them to the time that they share: markets.between(start, end)",
            )
