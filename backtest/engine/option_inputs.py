"""The options of a run as arrays: what values them at open and close of each bar, and orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.account import OptionFeed, make_option_feed
from backtest.base import DataError, FloatArray, IntArray, compile_module, format_time
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine import quote_kernels
from backtest.engine.option_expiries import Expiry, find_settlement
from backtest.engine.option_quotes import QuoteRows, read_quote_rows
from backtest.market import Markets, Panel
from backtest.options import Surfaces, find_expiry
from backtest.venue import Option, OptionCosts, Venue, number_each, require_costs

YEAR = YEAR_DAYS * DAY


class Instant(NamedTuple):
    name: str
    time: IntArray
    marks: FloatArray
    side: Any


class Contract(NamedTuple):
    name: str
    option: Option
    costs: OptionCosts
    instrument: int
    owner: str
    expiry: int
    surfaces: Surfaces


def read_option_feed(markets: Markets, venues: Mapping[str, Venue], panel: Panel) -> OptionFeed:
    listing = markets.listing
    if listing is None or not listing.options:
        return make_option_feed(0, 1)
    feed = make_option_feed(len(listing.options), markets.n_bars)
    instants = list_instants(markets, panel)
    for k, each in enumerate(list_contracts(markets, venues)):
        settled = find_settlement(markets, venues[each.owner], each.option, each.owner)
        write_terms(feed, k, each)
        write_expiry(feed, k, settled)
        for instant in instants:
            write_values(feed, k, each, instant)
        write_rows(feed, k, markets, each, instants)
        check_ages(feed, k, markets, each)
        feed.are_listed[:, k] = np.isfinite(feed.volatilities_open[:, k])
    number_contracts(feed)
    write_targets(feed, markets)
    return feed


def list_instants(markets: Markets, panel: Panel) -> tuple[Instant, Instant]:
    """Return opens and closes of all bars, with the mark prices (n, n_bars) there."""
    return (
        Instant("open", markets.time, panel.mark_open, "right"),
        Instant("close", markets.time + markets.interval, panel.mark_close, "left"),
    )


def list_contracts(markets: Markets, venues: Mapping[str, Venue]) -> list[Contract]:
    listing: Any = markets.listing
    return [
        Contract(
            name=name,
            option=option,
            costs=require_costs(venues[owner].option_costs, owner),
            instrument=markets.names.index(owner),
            owner=owner,
            expiry=find_expiry(option),
            surfaces=listing.surfaces[owner],
        )
        for name, option in listing.options.items()
        for owner in [listing.underlyings[name]]
    ]


def write_terms(feed: OptionFeed, k: int, contract: Contract) -> None:
    option, costs = contract.option, contract.costs
    terms: dict[str, Any] = {
        "signs": option.sign,
        "strikes": option.strike,
        "sizes": option.size,
        "are_coin": option.is_coin,
        "instruments": contract.instrument,
        "expiry_times": contract.expiry,
        "rates": 0.0,  # surfaces are fitted to undiscounted prices on the forward
        "fee_rates": costs.fee,
        "fee_caps": costs.fee_cap,
        "delivery_rates": costs.delivery_fee,
        "delivery_caps": costs.delivery_cap,
        "ticks": costs.tick,
    }
    for name, value in terms.items():
        getattr(feed, name)[k] = value
    spread = option.spread if option.spread is not None else costs.spread
    feed.half_spreads[:, k] = np.nan if spread is None else 0.5 * spread


def write_expiry(feed: OptionFeed, k: int, expiry: Expiry) -> None:
    feed.expiry_bars[k] = expiry.bar
    feed.are_inside[k] = 1 if expiry.is_inside else 0
    feed.expiry_spots[k] = expiry.price


def number_contracts(feed: OptionFeed) -> None:
    keys = list(zip(feed.instruments.tolist(), feed.expiry_times.tolist(), strict=True))
    feed.expiries[:] = number_each(keys)
    feed.pairs[:] = number_each(list(zip(keys, feed.strikes.tolist(), strict=True)))


# ------------------------------------------------------------------------- values by surface


def write_values(feed: OptionFeed, k: int, contract: Contract, at: Instant) -> None:
    spots = at.marks[contract.instrument]
    left = (contract.expiry - at.time) / YEAR
    rows = contract.surfaces.locate(at.time, at.side)
    is_alive = left > 0.0 if at.name == "open" else left >= 0.0
    here = np.flatnonzero((rows >= 0) & is_alive & np.isfinite(spots))
    found = contract.surfaces.value(
        feed.strikes[k], contract.expiry, at.time[here], spots[here], rows[here]
    )
    getattr(feed, f"years_{at.name}")[here, k] = left[here]
    getattr(feed, f"bases_{at.name}")[here, k] = found[0]
    getattr(feed, f"volatilities_{at.name}")[here, k] = found[1]
    if at.name == "close":
        feed.ages[here, k] = contract.surfaces.find_ages(at.time[here], rows[here])


def check_ages(feed: OptionFeed, k: int, markets: Markets, contract: Contract) -> None:
    listing: Any = markets.listing
    old = np.flatnonzero(feed.ages[:, k] > listing.max_age / DAY)
    if len(old):
        t = int(old[0])
        raise DataError(
            f"the last surface of {contract.owner!r} must be at most "
            f"{listing.max_age / DAY:g} days old while {contract.name!r} is listed, got "
            f"{feed.ages[t, k]:.4g} days at the close of {format_time(int(markets.time[t]))} UTC; "
            "give later surfaces, end the markets earlier, or give a larger max_age"
        )


# ---------------------------------------------------------------------------- values by quotes


def write_rows(
    feed: OptionFeed, k: int, markets: Markets, contract: Contract, instants: Sequence[Instant]
) -> None:
    listing: Any = markets.listing
    chain = listing.chains.get(contract.owner)
    if chain is None:
        return
    rows = read_quote_rows(chain, contract.option)
    age = listing.quote_age or markets.interval
    for at in instants:
        found = rows.find(at.time, at.side, age)
        is_known = (found >= 0) & np.isfinite(getattr(feed, f"years_{at.name}")[:, k])
        here = np.flatnonzero(is_known & np.isfinite(rows.pick("mark", found)))
        getattr(feed, f"marks_{at.name}")[here, k] = rows.mark[found[here]]
        own = np.flatnonzero(is_known & np.isfinite(rows.pick("volatility", found)))
        getattr(feed, f"volatilities_{at.name}")[own, k] = rows.volatility[found[own]]
        if at.name == "open":
            write_quotes(feed, k, rows, found, is_known)
    halves = rows.find_half_spreads(markets.time)
    feed.half_spreads[:, k] = np.where(np.isfinite(halves), halves, feed.half_spreads[:, k])
    feed.half_prices[:, k] = rows.find_half_prices(markets.time)


def write_quotes(feed: OptionFeed, k: int, rows: QuoteRows, found: IntArray, is_known: Any) -> None:
    here = np.flatnonzero(is_known)
    feed.has_quotes[here, k] = 1
    feed.bids[here, k] = rows.bid[found[here]]
    feed.asks[here, k] = rows.ask[found[here]]


class CloseQuotes(NamedTuple):
    """What is known of the contracts at each close, (n_bars, K)."""

    forwards: FloatArray
    marks: FloatArray
    bids: FloatArray
    asks: FloatArray
    deltas: FloatArray


def read_close_quotes(markets: Markets, feed: OptionFeed) -> CloseQuotes:
    listing: Any = markets.listing
    found = CloseQuotes(*np.full((5, markets.n_bars, len(listing.options)), np.nan))
    age, closes = listing.quote_age or markets.interval, markets.time + markets.interval
    spots = markets.panel().mark_close
    for k, (name, option) in enumerate(listing.options.items()):
        forwards = spots[feed.instruments[k]] * feed.bases_close[:, k]
        years, volatilities = feed.years_close[:, k], feed.volatilities_close[:, k]
        found.forwards[:, k] = forwards
        here = np.flatnonzero(np.isfinite(forwards + years + volatilities))
        halves, same = np.nan_to_num(feed.half_spreads[here, k]), np.ones(len(here))
        quotes = np.empty((4, len(here)))
        compile_module(quote_kernels).fill_quotes(
            option.sign * same, forwards[here], feed.strikes[k] * same, years[here],
            volatilities[here], halves, np.where(halves > 0.0, feed.ticks[k], 0.0),
            option.is_coin, quotes,
        )  # fmt: skip
        for values, quoted in zip(found[1:], quotes, strict=True):
            values[here, k] = quoted
        chain = listing.chains.get(listing.underlyings[name])
        if chain is not None:
            own, rows = feed.marks_close[:, k], read_quote_rows(chain, option)
            found.marks[:, k] = np.where(np.isfinite(own), own, found.marks[:, k])
            last = rows.find(closes, "left", age)
            found.bids[:, k], found.asks[:, k] = rows.pick("bid", last), rows.pick("ask", last)
    return found


# ---------------------------------------------------------------------------------- orders


def write_targets(feed: OptionFeed, markets: Markets) -> None:
    listing: Any = markets.listing
    if listing.quantities is None:
        return
    names, length = [*listing.options], markets.decide or markets.interval
    stamps = np.asarray(listing.quantities.index.as_unit("ns").asi8)
    bars = np.searchsorted(markets.time, stamps + length)
    inside = (stamps >= markets.start) & (bars < markets.n_bars)
    for name in listing.quantities.columns:
        k = names.index(name)
        values = listing.quantities[name].to_numpy(dtype=np.float64)
        alive = inside & (markets.time[np.minimum(bars, markets.n_bars - 1)] < feed.expiry_times[k])
        feed.targets[bars[alive], k] = values[alive]
        for t in np.flatnonzero(np.isfinite(feed.targets[:, k]))[:1]:
            check_order(feed, markets, k, int(t))


def check_order(feed: OptionFeed, markets: Markets, k: int, t: int) -> None:
    if feed.are_listed[t, k] and np.isnan(feed.half_spreads[t, k]):
        raise DataError(
            "an option that is traded needs a spread in volatility, got none for "
            f"{[*markets.options][k]!r} at the open of {format_time(int(markets.time[t]))} UTC; "
            "give a spread of 0.02 for two points to bt.OptionCosts or bt.Option, or chains with "
            "quotes"
        )
