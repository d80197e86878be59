"""What a run refuses, and what it warns of."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from backtest import core
from backtest import market as m
from backtest.account import Account, check_setting
from backtest.account.account import BY_INSTRUMENT
from backtest.core.code_names import is_series
from backtest.core.units import DAY, YEAR_DAYS
from backtest.margin import Brackets, check_collateral
from backtest.market import Market, Markets, as_markets, find_coin, find_currency, label_names
from backtest.options.option_checks import check_options
from backtest.venue import Venue, agree_settlement
from backtest.venue.venue import ACCOUNT_FIELDS


def find_misfit(table: Iterable[Any], names: Sequence[str], known: Sequence[str]) -> str:
    given = [*table]
    unknown = [
        f"{each!r}{core.did_you_mean(str(each), known)}" for each in given if each not in known
    ]
    if unknown:
        return f"an unknown {', '.join(unknown)}"
    missing = [each for each in names if each not in given]
    return f"none for {', '.join(missing)}" if missing else ""


def give_each(value: object, markets: Markets, *, one: str) -> dict[str, Any]:
    given = value if isinstance(value, Mapping) else dict.fromkeys(markets.names, value)
    found = find_misfit(given, markets.names, [*markets.last_opens])
    if found:
        raise core.ParameterError(
            f"{one} must be one for all, or one for each of {', '.join(markets.names)}, got {found}"
        )
    return {name: given[name] for name in markets.names}


def read_venues(venue: object, markets: Markets) -> dict[str, Venue]:
    venues = give_each(venue, markets, one="venue")
    for name, each in venues.items():
        if not isinstance(each, Venue):
            whose = f" of {name}" * (len(venues) > 1)
            raise core.ParameterError(f"venue{whose} must be a Venue, got {core.repr_plain(each)}")
    return venues


def check_run(markets: Markets, venues: Mapping[str, Venue], account: Account) -> None:
    settled, names = check_settlement(markets, venues), [*markets.names]
    check_collateral(account.collateral, markets.names, settled)
    for fault in find_faults_of_venues(markets, venues, account):
        raise core.ParameterError(fault)
    own = {name: account.for_instrument(name) for name in names}
    for name in names:
        check_setting(own[name], venues[name], name)
    for fault in find_faults_of_margin(markets, venues, own, account):
        raise core.ParameterError(fault)
    check_options(markets, venues, own, account)
    account.requirement.resolve(names).check_names(names, account.collateral)


def find_faults_of_venues(
    markets: Markets, venues: Mapping[str, Venue], account: Account
) -> Iterator[str]:
    names, first, known = markets.names, markets.names[0], [*markets.last_opens]
    for name in names[1:]:
        for field in (*ACCOUNT_FIELDS, "liquidation.order"):
            mine, theirs = (attrgetter(field)(venues[each]) for each in (first, name))
            if not is_equal(mine, theirs):
                yield (
                    f"{field} must be the same for all venues of an account, got "
                    f"{core.repr_given(mine)} for {first} and {core.repr_given(theirs)} for "
                    f"{name}; give both the same: venue.override({{{field!r}: ...}})"
                )
    order = venues[first].liquidation.order
    ordered = () if order is None or isinstance(order, str) else order
    if found := find_misfit(ordered, (), known):
        yield f"order must name instruments of the markets, {', '.join(known)}, got {found}"
    for field in BY_INSTRUMENT:
        value = getattr(account, field)
        found = find_misfit(value, names, names) if isinstance(value, core.FrozenTable) else ""
        if found:
            listed = ", ".join(names)
            yield f"{field} must be one value for all, or one for each of {listed}, got {found}"
    for name, venue in venues.items():
        if account.fill == "limit" and venue.fees.maker_share > 0.0:
            yield (
                f"maker_share of {name} must be 0 with fill='limit', where each order is all maker "
                f"or all taker, got {venue.fees.maker_share:g}"
            )
        text, last = venue.contract.expires, int(markets[name].time[-1])
        if text is not None and last >= core.to_nanoseconds(text):
            yield (
                f"the last bar of {markets[name].instrument or 'the market'} must open before its "
                f"contract expires at {text} UTC, got {core.format_time(last)}; cut it: "
                f"market.between(end={text!r})"
            )


def find_faults_of_margin(
    markets: Markets, venues: Mapping[str, Venue], own: Mapping[str, Account], account: Account
) -> Iterator[str]:
    cross = [name for name, each in own.items() if each.margin == "cross"]
    for name in cross[1:]:
        mine, theirs = (venues[each].liquidation.mode for each in (cross[0], name))
        if mine != theirs:
            yield (
                f"liquidation.mode of cross positions must be the same, got {mine!r} for "
                f"{cross[0]} and {theirs!r} for {name}"
            )
    legs = [name for name in markets.names if venues[name].contract.is_spot]
    for name, venue in venues.items():
        health = venue.liquidation.full_below_health
        if health > 0.0 and not isinstance(account.requirement, Brackets):
            yield (
                f"full_below_health of {name} must be 0 with {type(account.requirement).__name__}, "
                f"which requires no margin per position, unlike bt.Brackets(), got {health:g}"
            )
        if health > 0.0 and legs:
            yield (
                f"full_below_health of {name} must be 0 beside the spot leg {legs[0]}, got "
                f"{health:g}"
            )
    for name in legs:
        if own[name].margin == "isolated":
            yield (
                f"margin of the spot leg {name} must be 'cross': a coin that is paid has no "
                "margin, got 'isolated'"
            )
        for asset in account.collateral:
            market, prices = markets[name], asset.prices
            is_its_market = prices is market or (isinstance(prices, str) and prices == name)
            coins = {find_coin(name), find_coin(market.instrument)} - {""}
            if is_its_market or asset.name in coins:
                yield (
                    f"a coin must be a spot leg or collateral, got {asset.name!r} as both; hold "
                    f"the coins only as {name}, or give {name} a margined contract"
                )


def is_equal(mine: object, theirs: object) -> bool:
    if is_series(mine) and is_series(theirs):
        return mine.equals(theirs)
    return not (is_series(mine) or is_series(theirs)) and mine == theirs


def check_settlement(markets: Markets, venues: Mapping[str, Venue]) -> str:
    contracts = {name: venues[name].contract for name in markets.names}
    said = {name: (market.instrument,) for name, market in markets.items()}
    by_name = {find_currency(m.instrument) or find_currency(name) for name, m in markets.items()}
    is_given = markets.currency and by_name - {""} != {markets.currency}
    given = markets.currency if is_given else ""  # or given as the names say it
    return agree_settlement(contracts, said=said, given=given)


def warn_of_band(account: Account, markets: Markets, targets: np.ndarray) -> None:
    """Warn where the band exceeds half the median |target| of an instrument.

    ``targets`` are signed leverages of the account's equity, of shape (n_bars, n).
    """
    for i, name in enumerate(markets.names):
        asked = np.abs(targets[:, i])
        asked = asked[np.isfinite(asked) & (asked > 0.0)]
        band = account.for_instrument(name).band
        median = float(np.median(asked)) if len(asked) else np.inf
        if band > 0.5 * median:
            core.warn_caller(
                f"the band of {name} is {band:.3g} times the account's equity, more than half "
                f"the median target of {median:.3g}: it suppresses most trades; give "
                f"a smaller band, such as {0.1 * median:.2g}",
                core.BandWarning,
            )


def count_periods(calendar: str, sampling: str, market: Market | Markets, first: int = 0) -> float:
    """Return the number of sampling periods in a year.

    Bars longer than a day are sampled per bar. In a market with sessions they count by calendar
    time, not in sessions: by the mean distance of those from ``first`` on.
    """
    period = max(core.parse_duration(sampling, "sampling"), market.interval)
    if market.sessions and market.interval > DAY:
        counts: Any = m.count_bars_per_year(market.time[first:], market.interval, is_session=True)
        return float(counts[-1])
    days = YEAR_DAYS if period > DAY else float(calendar)
    return days * DAY / period


OF_EACH_RUN = (
    core.LastPriceWarning,
    core.NoFillWarning,
    core.InfiniteLeverageWarning,
    core.BandWarning,
    core.WeightWarning,
    core.OutsideWarning,
)


@contextlib.contextmanager
def warn_once(*, is_first: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        for category in () if is_first else (*OF_EACH_RUN, core.VenueDateWarning):
            warnings.simplefilter("ignore", category)
        yield


YEARLY = ("borrow_rate", "cash_rate", "short_rate", "contract.borrow_rate", "contract.expense")


def warn_of_rates(markets: Markets, venue: Any) -> None:
    """Warn of fees over 1 % of the notional and of rates over 100 % a year, once each."""
    warnings_told: dict[str, None] = {}
    for name, market in markets.items():
        for text in describe_high_rates(core.pick_value(venue, name), market):
            warnings_told[text] = None
    for text in warnings_told:
        core.warn_caller(text, core.HighRateWarning)


def describe_high_rates(venue: Any, market: Market) -> Iterator[str]:
    fees: dict[str, Any] = {"fees.taker": venue.fees.taker, "fees.maker": venue.fees.maker}
    for k, tier in enumerate(venue.fees.tiers):
        fees[f"fees.tiers.{k}.taker"] = tier.taker
        fees[f"fees.tiers.{k}.maker"] = tier.maker
    if venue.option_costs is not None:
        fees["option_costs.fee"] = venue.option_costs.fee
        fees["option_costs.delivery_fee"] = venue.option_costs.delivery_fee
    for field, fee in fees.items():
        yield from core.describe_high_rate(field, find_highest(fee, market), "of the notional")

    for field in YEARLY:
        highest = find_highest(attrgetter(field)(venue), market)
        yield from core.describe_high_rate(field, highest)


def find_highest(rate: Any, market: Market) -> float:
    """Return the highest of a rate, a Series of rates or a column of the bars; NaN if unknown."""
    if isinstance(rate, str):
        rate = market.columns.get(rate)
    if rate is None:
        return math.nan
    return float(np.nanmax(np.asarray(rate, dtype=np.float64)))


def warn_of_market(market: Market | Markets, venue: Any, first: int = 0) -> None:
    markets = as_markets(market)
    warn_of_rates(markets, venue)
    labels, start = label_names(markets), int(markets.time[first])
    misfits: dict[str, list[str]] = {}
    for name, each in markets.items():
        days = max(start, int(each.time[0])), int(each.time[-1]) + each.interval
        misfit = "" if each.synthetic else core.pick_value(venue, name).describe_misfit(*days)
        misfits.setdefault(misfit, []).append(labels[name])
    misfits.pop("", None)
    for misfit, names in misfits.items():
        named = f"{', '.join(names)}: " if names != [""] else ""
        core.warn_caller(
            f"{named}{misfit}; a preset without @DATE uses at each bar the table in force, where "
            "there is one; venue.override(brackets=...) uses your own",
            core.VenueDateWarning,
        )
    for name, label in labels.items():
        found = m.describe_clock(markets[name])
        if "thin_bars" in found:
            whose = f" of {label}" if label else ""
            core.warn_caller(
                f"{found['thin_bars']:,} bars of {found['decision_interval']}{whose} at whose "
                "closes policies decide have under 90 % of their shorter bars, the first at "
                f"{found['first_thin']} UTC"
            )
    lacking = [
        labels[name] or "the market"
        for name, each in markets.items()
        if not (each.has_mark or each.sessions or core.pick_value(venue, name).contract.is_spot)
    ]
    if lacking:
        core.warn_caller(
            f"{', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no mark prices: "
            "liquidations are tested on last prices, which swing "
            "wider than marks; give mark prices: a mark file "
            "in the folder of the data, or bt.Market.from_frames(bars, mark=...)",
            core.LastPriceWarning,
        )


def warn_of_flows(account: Account, markets: Markets, started: int) -> None:
    """Warn of flows after the last open: they are booked at opens."""
    if account.flows is None:
        return
    stamps = core.read_stamps(account.flows.index, name="flows")
    what = "flows lie outside the account's bars and are not booked"
    core.warn_of_outside(what, stamps, started, int(markets.time[-1]) + 1)
