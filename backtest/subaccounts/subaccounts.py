"""One capital divided into subaccounts, separate accounts with their own policies."""

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
    list_values,
    parse_duration,
    pick_value,
    repr_plain,
    utc_index,
)
from backtest.engine import Progress, check_settlement, read_venues
from backtest.market import Market, Markets, as_given, as_markets
from backtest.options import refuse_options
from backtest.policy import Policy
from backtest.subaccounts.subaccounts_result import SubaccountsResult
from backtest.subaccounts.subaccounts_run import RULES, SubaccountRun, run_subaccounts
from backtest.venue import Venue

WHERE = "bt.Subaccounts"
SHARE = Number(0, 1, open_low=True)


@dataclass(frozen=True)
class Subaccount:
    """A part of the capital: its policy and its share, and what it trades.

    Parameters
    ----------
    policy : Policy, or mapping of instruments to policies
        Decides the leverage of the subaccount's own account.
    share : float
        Of the capital, over 0 and up to 1.
    instrument : str or sequence of str, optional
        What it trades of several markets: one, some as one account with several positions, or all
        of them by default.
    signal : optional
        Its direction or weights, as in :func:`backtest.run`; by default that of the allocation.
    overlay : Policy, optional
        The leverage of a subaccount with several positions, as in :func:`backtest.run`.
    """

    policy: Policy | Mapping[str, Policy]
    share: float
    instrument: str | Sequence[str] | None = None
    signal: Any = None
    overlay: Policy | None = None

    def __post_init__(self) -> None:
        given = list_values(self.policy)
        if not given or not all(isinstance(each, Policy) for each in given):
            raise ParameterError(
                f"policy must be a Policy, or one by instrument, got {repr_plain(self.policy)}",
                where="bt.Subaccount, policy",
                cure="pass an instance of a class derived from bt.Policy",
            )
        SHARE.check("share", self.share, where="bt.Subaccount, share")


@dataclass(frozen=True, init=False)
class Subaccounts:
    """Division of one capital into named subaccounts, with the rule of transfers between them.

    Parameters
    ----------
    subaccounts : mapping of str to Subaccount or (policy, share)
        The shares add up to 1.
    rebalance : str
        The time between transfers, ``"30d"`` by default. A transfer is decided at a close and made
        at the next open.
    transfer : str
        ``"to-target"``: every subaccount back to its share of the whole. ``"losses-only"``: those
        that have less than their share of the first capital get it back from those that have more.
        ``"none"``.

    Raises
    ------
    ParameterError
        If there are no subaccounts, shares do not add up to 1, or a setting is not allowed.

    Examples
    --------
    >>> from backtest.strategies import Constant
    >>> plan = Subaccounts({"core": (Constant(1.0), 0.7), "bold": (Constant(3.0), 0.3)})
    >>> plan.rebalance, plan.transfer, plan.subaccounts["bold"].share
    ('30d', 'to-target', 0.3)
    """

    subaccounts: Mapping[str, Subaccount]
    rebalance: str
    transfer: str

    def __init__(
        self,
        subaccounts: Mapping[str, Subaccount | tuple[Policy, float]],
        *,
        rebalance: str = "30d",
        transfer: str = "to-target",
    ) -> None:
        if not isinstance(subaccounts, Mapping) or not subaccounts:
            raise ParameterError(
                "subaccounts must be a mapping with one or more entries, "
                f"got {repr_plain(subaccounts)}",
                where=WHERE,
                cure='give {"core": (policy, 0.6), "bold": (other, 0.4)}',
            )
        found = {str(name): read_subaccount(str(name), each) for name, each in subaccounts.items()}
        total = math.fsum(each.share for each in found.values())
        if not abs(total - 1.0) <= 1e-9:
            raise ParameterError(
                f"the shares of subaccounts must add up to 1, got {total:.12g}",
                where=Place("subaccounts", of=WHERE),
                cure="change a share, or add a subaccount that holds cash: Constant(0)",
            )
        parse_duration(rebalance, where=Place("rebalance", of=WHERE))
        Choice(*RULES).check("transfer", transfer, where=Place("transfer", of=WHERE))
        object.__setattr__(self, "subaccounts", found)
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
    ) -> SubaccountsResult:
        """Run all subaccounts on a market, or each on its market.

        Parameters
        ----------
        market : Market or Markets
            Of several instruments, a subaccount names its own, or trades all; all of them have the
            same bars.
        venue : Venue or mapping of names to venues
            The rules of each instrument.
        account : Account
            Its capital is that of the whole; each subaccount has an account of these settings with
            its share of the capital, without flows and reserve.
        signal, sampling, calendar, compile, start
            As in :func:`backtest.run`.
        progress : callable, optional
            Called with transfers done and transfers in all.

        Returns
        -------
        SubaccountsResult

        Raises
        ------
        ParameterError
            If an argument is not allowed, or the markets of subaccounts have other bars, or their
            venues settle in different currencies.
        """
        check_account(account)
        markets: Markets = as_markets(market, where=f"{WHERE}.run, market")
        refuse_options(markets, "subaccounts", where=f"{WHERE}.run, market")
        terms = {"sampling": sampling, "calendar": calendar, "compile": compile, "start": start}
        runs: dict[str, SubaccountRun] = {}
        traded: dict[str, Any] = {}
        for name, each in self.subaccounts.items():
            own, names = find_market(name, each, markets), list_instruments(each, markets)
            found = find_venue(name, names, own, venue)
            runs[name] = SubaccountRun(
                policy=each.policy,
                share=each.share,
                market=own,
                venue=found,
                signal=signal if each.signal is None else each.signal,
                overlay=each.overlay,
            )
            traded |= {k: pick_value(found, k) for k in names}
        check_bars(runs)
        if len(markets) > 1:
            chosen = markets.select(*traded)
            check_settlement(chosen, read_venues(traded, chosen))
        return run_subaccounts(
            runs, account, self.rebalance, self.transfer, terms=terms, progress=progress
        )


def read_subaccount(name: str, given: Any) -> Subaccount:
    if isinstance(given, Subaccount):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return Subaccount(*given)
    raise ParameterError(
        f"a subaccount must be a bt.Subaccount or (policy, share), got {given!r:.60}",
        where=f"{WHERE}, subaccount {name}",
        cure="give (policy, 0.5)",
    )


def check_account(account: Account) -> None:
    if not isinstance(account, Account):
        raise ParameterError(
            f"account must be an Account, got {repr_plain(account)}",
            where=f"{WHERE}.run, account",
            cure="pass bt.Account(...)",
        )
    if account.collateral:
        raise ParameterError(
            "collateral must be left out: subaccounts divide money, which it is not",
            where=f"{WHERE}.run, Account.collateral",
            cure="run the account that holds it by itself",
        )
    for field, is_given in (("flows", account.flows is not None), ("reserve", account.reserve > 0)):
        if is_given:
            raise ParameterError(
                f"{field} must be left out: transfers between subaccounts take its place",
                where=f"{WHERE}.run, Account.{field}",
                cure=f"leave {field} out",
            )


def find_market(name: str, subaccount: Subaccount, market: Markets) -> Market | Markets:
    names = list_instruments(subaccount, market)
    unknown = [each for each in names if each not in market]
    if unknown:
        raise ParameterError(
            f"instrument must be one of the markets, or some of them, got {unknown[0]!r}",
            where=f"{WHERE}, subaccount {name}",
            cure=Phrase(
                f"give {{}}, one or more of {', '.join(market)}",
                Either(
                    "bt.Subaccount(policy, share, instrument=...)",
                    f"instrument in [allocation.pockets.{name}] of an experiment file",
                ),
            ),
        )
    is_one = (
        len(names) == 1 and subaccount.overlay is None and isinstance(subaccount.policy, Policy)
    )
    return market[names[0]] if is_one else market.select(*names)


def list_instruments(subaccount: Subaccount, market: Markets) -> list[str]:
    chosen = subaccount.instrument
    return [chosen] if isinstance(chosen, str) else [*(chosen or market)]


def find_venue(name: str, instruments: Sequence[str], own: Market | Markets, venue: Any) -> Any:
    if not isinstance(venue, Mapping):
        return venue
    for wanted in instruments:
        if wanted not in venue:
            raise ParameterError(
                f"each instrument must have a venue, {wanted!r} has none",
                where=f"{WHERE}.run, venue of subaccount {name}",
                cure="give one venue for all, or one for each instrument",
            )
    found = {each: venue[each] for each in instruments}
    return as_given(found, own)


def check_bars(runs: Mapping[str, SubaccountRun]) -> None:
    names = list(runs)
    first = runs[names[0]].market
    for name in names[1:]:
        other = runs[name].market
        if other.time.shape != first.time.shape or (other.time != first.time).any():
            raise ParameterError(
                f"the markets of subaccounts must have the same bars, those of {names[0]!r} are "
                f"{first.n_bars} from {utc_index(first.time)[0]}, of {name!r} {other.n_bars} from "
                f"{utc_index(other.time)[0]}",
                where=f"{WHERE}.run, market",
                cure="cut them to the time that they share: markets.between(start, end)",
            )
