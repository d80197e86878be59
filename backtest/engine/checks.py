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
    """Return what is wrong with the names of a table, in words; empty if nothing is.

    ``known`` are the names that it may have, ``names`` those that it must have.
    """
    listed = [*table]
    unknown = [name for name in listed if name not in known]
    if unknown:
        texts = [f"{name!r}{core.did_you_mean(str(name), known)}" for name in unknown]
        return f"an unknown {', '.join(texts)}"

    missing = [name for name in names if name not in listed]
    if missing:
        return f"none for {', '.join(missing)}"
    return ""


def give_each(value: object, markets: Markets, *, one: str) -> dict[str, Any]:
    """Return a value by instrument, of one for all or of a table of all."""
    table = value if isinstance(value, Mapping) else dict.fromkeys(markets.names, value)
    misfit = find_misfit(table, markets.names, [*markets.last_opens])
    if misfit:
        raise core.ParameterError(
            f"{one} must be one for all, or one for each of {', '.join(markets.names)}, got "
            f"{misfit}"
        )
    return {name: table[name] for name in markets.names}


def read_venues(venue: object, markets: Markets) -> dict[str, Venue]:
    """Return the venue of each instrument; raises ParameterError where one is none."""
    venues = give_each(venue, markets, one="venue")
    for name, of_instrument in venues.items():
        if isinstance(of_instrument, Venue):
            continue
        which = "venue"
        if len(venues) > 1:
            which = f"venue of {name}"
        raise core.ParameterError(f"{which} must be a Venue, got {core.repr_plain(of_instrument)}")
    return venues


# Whether markets, venues and account fit each other.


def check_run(markets: Markets, venues: Mapping[str, Venue], account: Account) -> None:
    """Raise for the first fault of a run: of markets, venues, account, margin or options."""
    names = [*markets.names]
    settled = check_settlement(markets, venues)
    check_collateral(account.collateral, markets.names, settled)
    for fault in find_faults_of_venues(markets, venues, account):
        raise core.ParameterError(fault)

    accounts = {name: account.for_instrument(name) for name in names}
    for name in names:
        check_setting(accounts[name], venues[name], name)
    for fault in find_faults_of_margin(markets, venues, accounts, account):
        raise core.ParameterError(fault)
    check_options(markets, venues, accounts, account)
    account.requirement.resolve(names).check_names(names, account.collateral)


def find_faults_of_venues(
    markets: Markets, venues: Mapping[str, Venue], account: Account
) -> Iterator[str]:
    """Yield the faults of venues beside the markets and the account, a sentence each."""
    yield from find_different_fields(markets.names, venues)
    yield from find_misnamed(markets, venues, account)
    for name, venue in venues.items():
        if account.fill == "limit" and venue.fees.maker_share > 0.0:
            yield (
                f"maker_share of {name} must be 0 with fill='limit', where each order is all maker "
                f"or all taker, got {venue.fees.maker_share:g}"
            )

        expires = venue.contract.expires
        last_open = int(markets[name].time[-1])
        if expires is not None and last_open >= core.to_nanoseconds(expires):
            yield (
                f"the last bar of {markets[name].instrument or 'the market'} must open before its "
                f"contract expires at {expires} UTC, got {core.format_time(last_open)}; cut it: "
                f"market.between(end={expires!r})"
            )


def find_different_fields(names: Sequence[str], venues: Mapping[str, Venue]) -> Iterator[str]:
    """Yield a fault for each field in which the venues of an account differ, but must not.

    Such a field, like the interest on cash, holds for the whole account.
    """
    first = names[0]
    for name in names[1:]:
        for field in (*ACCOUNT_FIELDS, "liquidation.order"):
            of_first = attrgetter(field)(venues[first])
            of_other = attrgetter(field)(venues[name])
            if not is_equal(of_first, of_other):
                yield (
                    f"{field} must be the same for all venues of an account, got "
                    f"{core.repr_given(of_first)} for {first} and {core.repr_given(of_other)} for "
                    f"{name}; give both the same: venue.override({{{field!r}: ...}})"
                )


def find_misnamed(markets: Markets, venues: Mapping[str, Venue], account: Account) -> Iterator[str]:
    """Yield a fault for each table by instrument that does not name the instruments of the markets.

    The order of liquidation may leave instruments out, and may name those that were cut from the
    markets. A setting of the account must name each instrument, and no other.
    """
    names = markets.names
    known = [*markets.last_opens]
    order = venues[names[0]].liquidation.order
    if order is not None and not isinstance(order, str):
        misfit = find_misfit(order, (), known)
        if misfit:
            yield f"order must name instruments of the markets, {', '.join(known)}, got {misfit}"

    for field in BY_INSTRUMENT:
        value = getattr(account, field)
        if not isinstance(value, core.FrozenTable):
            continue
        misfit = find_misfit(value, names, names)
        if misfit:
            listed = ", ".join(names)
            yield f"{field} must be one value for all, or one for each of {listed}, got {misfit}"


def find_faults_of_margin(
    markets: Markets,
    venues: Mapping[str, Venue],
    accounts: Mapping[str, Account],
    account: Account,
) -> Iterator[str]:
    """Yield the faults of margin that span instruments, a sentence each.

    ``accounts`` are the terms of the account for each instrument.
    """
    cross = [name for name, own in accounts.items() if own.margin == "cross"]
    for name in cross[1:]:
        mode_of_first = venues[cross[0]].liquidation.mode
        mode = venues[name].liquidation.mode
        if mode != mode_of_first:
            yield (
                f"liquidation.mode of cross positions must be the same, got {mode_of_first!r} for "
                f"{cross[0]} and {mode!r} for {name}"
            )

    spot_legs = [name for name in markets.names if venues[name].contract.is_spot]
    for name, venue in venues.items():
        health = venue.liquidation.full_below_health
        if not health > 0.0:
            continue
        if not isinstance(account.requirement, Brackets):
            yield (
                f"full_below_health of {name} must be 0 with {type(account.requirement).__name__}, "
                f"which requires no margin per position, unlike bt.Brackets(), got {health:g}"
            )
        if spot_legs:
            yield (
                f"full_below_health of {name} must be 0 beside the spot leg {spot_legs[0]}, got "
                f"{health:g}"
            )
    for name in spot_legs:
        yield from find_faults_of_spot(name, markets[name], accounts[name], account)


def find_faults_of_spot(name: str, market: Market, own: Account, account: Account) -> Iterator[str]:
    """Yield what forbids a spot leg: isolated margin, or its coin as collateral too."""
    if own.margin == "isolated":
        yield (
            f"margin of the spot leg {name} must be 'cross': a coin that is paid has no "
            "margin, got 'isolated'"
        )

    coins = {find_coin(name), find_coin(market.instrument)} - {""}
    for asset in account.collateral:
        prices = asset.prices
        is_its_market = prices is market or (isinstance(prices, str) and prices == name)
        if is_its_market or asset.name in coins:
            yield (
                f"a coin must be a spot leg or collateral, got {asset.name!r} as both; hold "
                f"the coins only as {name}, or give {name} a margined contract"
            )


def is_equal(first: object, second: object) -> bool:
    """Return whether two values are equal, also if they are series."""
    if is_series(first) and is_series(second):
        return first.equals(second)
    if is_series(first) or is_series(second):
        return False
    return first == second


def check_settlement(markets: Markets, venues: Mapping[str, Venue]) -> str:
    """Return the currency in which all contracts settle; ParameterError if they have several.

    Contracts, the names of instruments and ``Markets.currency`` say it, and must agree.
    """
    contracts = {name: venues[name].contract for name in markets.names}
    instruments = {name: (market.instrument,) for name, market in markets.items()}
    currencies_of_names = set()
    for name, market in markets.items():
        currencies_of_names.add(find_currency(market.instrument) or find_currency(name))

    # The currency of the markets is told as a fact, unless all names say the same: then a contract
    # that contradicts its own name is found.
    currency = ""
    if markets.currency and currencies_of_names - {""} != {markets.currency}:
        currency = markets.currency
    return agree_settlement(contracts, said=instruments, given=currency)


# What a run warns of.


def warn_of_band(account: Account, markets: Markets, targets: np.ndarray) -> None:
    """Warn if the no-trade band of an instrument is so wide that it suppresses most trades.

    That is, wider than half the median size of its target. ``targets`` are signed leverages of the
    account's equity, of shape (n_bars, n).
    """
    for i, name in enumerate(markets.names):
        sizes = np.abs(targets[:, i])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0.0)]
        median = float(np.median(sizes)) if len(sizes) else np.inf
        band = account.for_instrument(name).band
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
    """Silence what each run of a policy warns of, unless this is the first."""
    silenced = () if is_first else (*OF_EACH_RUN, core.VenueDateWarning)
    with warnings.catch_warnings():
        for category in silenced:
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
    """Yield a warning for each fee or yearly rate that is so high that its unit may be wrong."""
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
    """Warn of high rates, presets of other dates, thin bars and missing mark prices.

    ``venue`` is one for all instruments, or has one by name; ``first`` is the first bar of the run.
    """
    markets = as_markets(market)
    warn_of_rates(markets, venue)
    labels = label_names(markets)
    warn_of_dates(markets, venue, labels, start=int(markets.time[first]))
    for name, label in labels.items():
        warn_of_thin_bars(markets[name], label)
    warn_of_last_prices(markets, venue, labels)


def warn_of_dates(markets: Markets, venue: Any, labels: Mapping[str, str], start: int) -> None:
    """Warn where a preset is not of the dates of a run, once for instruments alike."""
    for misfit in list_misfits(markets, venue, labels, start):
        core.warn_caller(
            f"{misfit}; a preset without @DATE uses at each bar the table in force, where "
            "there is one; venue.override(brackets=...) uses your own",
            core.VenueDateWarning,
        )


def list_misfits(
    markets: Markets, venue: Any, labels: Mapping[str, str], start: int
) -> Iterator[str]:
    """Yield a sentence for each preset whose figures are of other dates than the run.

    The run begins at ``start``, ns. ``venue`` is one for all instruments or has one by name.
    Instruments with the same sentence share it: it begins with their ``labels``, which are "" where
    there is one instrument. Prices that are made up have no dates to compare.
    """
    names_by_misfit: dict[str, list[str]] = {}
    for name, market in markets.items():
        if market.synthetic:
            continue
        begin = max(start, int(market.time[0]))
        end = int(market.time[-1]) + market.interval
        misfit = core.pick_value(venue, name).describe_misfit(begin, end)
        if misfit:
            names_by_misfit.setdefault(misfit, []).append(labels[name])

    for misfit, names in names_by_misfit.items():
        text = misfit
        if names != [""]:
            text = f"{', '.join(names)}: {misfit}"
        yield text


def warn_of_thin_bars(market: Market, label: str) -> None:
    """Warn of longer bars, at whose closes policies decide, with many shorter bars missing."""
    clock = m.describe_clock(market)
    if "thin_bars" not in clock:
        return
    bars = f"{clock['thin_bars']:,} bars of {clock['decision_interval']}"
    if label:
        bars = f"{bars} of {label}"
    core.warn_caller(
        f"{bars} at whose "
        "closes policies decide have under 90 % of their shorter bars, the first at "
        f"{clock['first_thin']} UTC"
    )


def warn_of_last_prices(markets: Markets, venue: Any, labels: Mapping[str, str]) -> None:
    """Warn of perpetuals without mark prices."""
    lacking = []
    for name, market in markets.items():
        is_spot = core.pick_value(venue, name).contract.is_spot
        if not (market.has_mark or market.sessions or is_spot):
            lacking.append(labels[name] or "the market")
    if not lacking:
        return

    verb = "has" if len(lacking) == 1 else "have"
    core.warn_caller(
        f"{', '.join(lacking)} {verb} no mark prices: "
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
