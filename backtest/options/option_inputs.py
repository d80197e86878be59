"""What options are worth at each bar: values, quotes and expiries of contracts as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest import margin as m
from backtest.account import OptionFeed, make_option_feed
from backtest.core.code_names import pd
from backtest.core.units import DAY, HOUR
from backtest.market import Markets, Panel
from backtest.options import pricing
from backtest.options.chain import Chain
from backtest.options.option_listing import find_expiry
from backtest.options.option_schedule import write_targets
from backtest.options.surfaces import YEAR, Surfaces
from backtest.venue import Option, OptionCosts, Venue, require_costs


def find_settlement(
    markets: Markets, venue: Venue, option: Option, owner: str
) -> tuple[int, bool, float]:
    """Return the bar of an expiry, whether it is inside it, and the price at which it settles."""
    expiry, time = find_expiry(option), markets.time
    jitter = core.parse_duration(venue.funding_jitter)
    listed, gone = markets.spans[markets.names.index(owner)].tolist()
    bar = int(np.searchsorted(time, expiry - jitter))
    is_at_open = bar < len(time) and int(time[bar]) <= expiry + jitter
    is_inside = not is_at_open and bar > 0 and expiry < int(time[bar - 1]) + markets.interval
    bar = bar - 1 if is_inside else bar
    if gone < len(time) and bar >= gone:
        raise core.DataError(
            f"an option must expire in the data of its underlying, got {option.name!r}, which "
            f"expires at {option.expiry}, after the last bar of {owner}, "
            f"{core.format_time(int(time[gone - 1]))} UTC"
        )
    if not listed <= bar < gone:
        return -1, False, float("nan")
    if is_inside and option.settlement_price is None and markets.interval > HOUR:
        raise core.DataError(
            "an option that expires inside a bar of over an hour needs a settlement_price, got "
            f"none for {option.name!r}, which expires at {option.expiry} in the bar of "
            f"{core.format_duration(markets.interval)} from {core.format_time(int(time[bar]))} UTC"
        )
    costs = require_costs(venue.option_costs, owner)
    return bar, is_inside, find_price(markets, costs, option, owner, bar)


def find_price(markets: Markets, costs: OptionCosts, option: Option, owner: str, bar: int) -> float:
    if option.settlement_price is not None:
        return option.settlement_price
    market, expiry = markets[owner], find_expiry(option)
    if costs.delivery_window is not None:
        length = core.parse_duration(costs.delivery_window)
        closes = market.time + market.interval
        known: core.FloatArray = market.mark_close[(closes > expiry - length) & (closes <= expiry)]
        if market.interval < length and len(known):
            return float(np.mean(known))
    return float(market.mark_open[bar - int(markets.spans[markets.names.index(owner), 0])])


LAST = np.iinfo(np.int64).max


def read_own_rows(chain: Chain, option: Option) -> pd.DataFrame:
    rows = list_implied(chain, option)
    is_own = (rows["strike"] == option.strike) & (rows["expiry"] == find_expiry(option))
    own = rows[is_own & (rows["is_call"] == (option.kind == "call"))]
    return own[~own.index.duplicated(keep="last")]


def list_implied(chain: Chain, option: Option) -> pd.DataFrame:
    """Return the quotes of an underlying, of the only one whatever its name; kept in the chain."""
    kept: dict[str, pd.DataFrame] = chain.__dict__.setdefault("_implied_rows", {})
    underlying = str(option.underlying)
    if underlying not in kept:
        rows = chain.implied()
        if len(chain.underlyings) > 1:
            rows = rows[rows["underlying"] == underlying]
        times, expiries = (pd.DatetimeIndex(rows[x]).as_unit("ns").asi8 for x in ("time", "expiry"))
        kept[underlying] = (
            rows[["strike", "bid", "ask", "mark"]]
            .assign(
                expiry=expiries,
                is_call=rows["kind"] == "call",
                volatility=rows["iv"].where(rows["iv"] >= 0.0, rows["mark_iv"]),
                half_spread=0.5 * (rows["ask_iv"] - rows["bid_iv"]),
                half_price=0.5 * (rows["ask"] - rows["bid"]),
            )
            .set_axis(times)
        )
    return kept[underlying]


def find_nearest(rows: pd.DataFrame, option: Option, end: int) -> pd.DataFrame:
    """Return, of each time before an end, the quoted row that is nearest to a contract.

    First the nearest expiry counts, then the nearest strike, the lower one, and the call.
    """
    found = rows[(rows["half_spread"] >= 0.0) & (rows.index < end)]
    found = found.assign(
        far=(found["expiry"] - find_expiry(option)).abs(),
        away=np.abs(np.log(float(option.strike or 1.0) / found["strike"])),
        is_put=~found["is_call"],
    )
    for name in ("far", "away", "strike", "is_put"):
        found = found[found[name] == found.groupby(level=0)[name].transform("min")]
    return found[~found.index.duplicated()]


class Instant(NamedTuple):
    """Opens or closes of all bars, the last ns known there, and the mark prices (n, n_bars)."""

    name: str
    time: core.IntArray
    known: core.IntArray
    marks: core.FloatArray


def read_option_feed(
    markets: Markets, venues: Mapping[str, Venue], panel: Panel, first: int = 0
) -> OptionFeed:
    """Return what options are worth, from the bar before ``first``, at which the account begins."""
    listing = markets.listing
    if listing is None or not listing.options:
        return make_option_feed(0, 1)
    feed = make_option_feed(len(listing.options), markets.n_bars)
    closes = markets.time + markets.interval
    instants = (
        Instant("open", markets.time, markets.time, panel.mark_open),
        Instant("close", closes, closes - 1, panel.mark_close),
    )
    for k, (name, option) in enumerate(listing.options.items()):
        owner = listing.underlyings[name]
        write_terms(feed, k, markets, venues[owner], option, owner)
        for at in instants:
            write_values(feed, k, listing.surfaces[owner], at, first - 1)
        if owner in listing.chains:
            age = listing.quote_age or markets.interval
            write_rows(feed, k, listing.chains[owner], option, age, instants)
        old = np.flatnonzero(feed.ages[:, k] > listing.max_age / DAY)
        if len(old):
            t = int(old[0])
            raise core.DataError(
                f"the last surface of {owner!r} must be at most {listing.max_age / DAY:g} "
                f"days old while {name!r} is listed, got {feed.ages[t, k]:.4g} days at the "
                f"close of {core.format_time(int(markets.time[t]))} UTC; give later surfaces, end "
                "the markets earlier, or give a larger max_age"
            )
        feed.are_listed[:, k] = np.isfinite(feed.volatilities_open[:, k])
    keys = list(zip(feed.instruments.tolist(), feed.expiry_times.tolist(), strict=True))
    feed.expiries[:] = m.number_each(keys)
    feed.pairs[:] = m.number_each(list(zip(keys, feed.strikes.tolist(), strict=True)))
    write_targets(feed, markets)
    return feed


def write_terms(
    feed: OptionFeed, k: int, markets: Markets, venue: Venue, option: Option, owner: str
) -> None:
    costs = require_costs(venue.option_costs, owner)
    bar, is_inside, spot = find_settlement(markets, venue, option, owner)
    terms: dict[str, Any] = {
        "signs": option.sign,
        "strikes": option.strike,
        "sizes": option.size,
        "are_coin": option.is_coin,
        "instruments": markets.names.index(owner),
        "expiry_times": find_expiry(option),
        "expiry_bars": bar,
        "are_inside": is_inside,
        "expiry_spots": spot,
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


def write_values(feed: OptionFeed, k: int, surfaces: Surfaces, at: Instant, first: int) -> None:
    spots, expiry = at.marks[feed.instruments[k]], int(feed.expiry_times[k])
    rows = surfaces.locate(at.known)
    here = np.flatnonzero((rows >= 0) & (at.known < expiry) & np.isfinite(spots))
    here = here[here >= first]
    times, rows = at.time[here], rows[here]
    found = surfaces.value(feed.strikes[k], expiry, times, spots[here], rows)
    getattr(feed, f"years_{at.name}")[here, k] = (expiry - times) / YEAR
    getattr(feed, f"bases_{at.name}")[here, k] = found[0]
    getattr(feed, f"volatilities_{at.name}")[here, k] = found[1]
    if at.name == "close":
        feed.ages[here, k] = surfaces.find_ages(times, rows)


def write_rows(
    feed: OptionFeed, k: int, chain: Chain, option: Option, age: int, instants: Sequence[Instant]
) -> None:
    own = read_own_rows(chain, option)
    for at in instants:
        here = np.flatnonzero(np.isfinite(getattr(feed, f"years_{at.name}")[:, k]))
        found = own.reindex(at.known[here], method="ffill", tolerance=age)
        getattr(feed, f"marks_{at.name}")[here, k] = found["mark"]
        is_known = found["volatility"].notna().to_numpy()
        getattr(feed, f"volatilities_{at.name}")[here[is_known], k] = found["volatility"][is_known]
        if at.name == "open":
            feed.has_quotes[here, k] = found["strike"].notna()
            feed.bids[here, k], feed.asks[here, k] = found["bid"], found["ask"]
    known, priced = own[own["half_spread"] >= 0.0], own[own["half_price"] >= 0.0]
    others = find_nearest(list_implied(chain, option), option, min([LAST, *known.index[:1]]))
    before = others[others.index < min([LAST, *priced.index[:1]])]
    opens = instants[0].time
    halves = pd.concat([others, known]).reindex(opens, method="ffill")["half_spread"].to_numpy()
    np.copyto(feed.half_spreads[:, k], halves, where=np.isfinite(halves))
    prices = pd.concat([before, priced]).reindex(opens, method="ffill")
    feed.half_prices[:, k] = prices["half_price"]


class CloseQuotes(NamedTuple):
    """What is known of the contracts at each close, (n_bars, K)."""

    forwards: core.FloatArray
    marks: core.FloatArray
    bids: core.FloatArray
    asks: core.FloatArray
    deltas: core.FloatArray


def read_close_quotes(markets: Markets, feed: OptionFeed) -> CloseQuotes:
    listing: Any = markets.listing
    found = CloseQuotes(*np.full((5, markets.n_bars, len(listing.options)), np.nan))
    age, known = listing.quote_age or markets.interval, markets.time + markets.interval - 1
    spots = markets.panel().mark_close
    for k, (name, option) in enumerate(listing.options.items()):
        found.forwards[:, k] = spots[feed.instruments[k]] * feed.bases_close[:, k]
        for values, quoted in zip(found[1:], quote_at_model(feed, k, found.forwards), strict=True):
            values[:, k] = quoted
        chain = listing.chains.get(listing.underlyings[name])
        if chain is not None:
            rows, own = read_own_rows(chain, option), feed.marks_close[:, k]
            last = rows.reindex(known, method="ffill", tolerance=age)
            found.marks[:, k] = np.where(np.isfinite(own), own, found.marks[:, k])
            found.bids[:, k], found.asks[:, k] = last["bid"], last["ask"]
    return found


def quote_at_model(
    feed: OptionFeed, k: int, forwards: core.FloatArray
) -> tuple[core.FloatArray, ...]:
    """Return marks, bids, asks and deltas of a contract, (n_bars,), at its model price and spread.

    ``forwards`` is (n_bars, K).
    """
    volatilities, halves = feed.volatilities_close[:, k], np.nan_to_num(feed.half_spreads[:, k])
    ticks, is_coin = np.where(halves > 0.0, feed.ticks[k], 0.0), bool(feed.are_coin[k])
    place = np.broadcast_arrays(
        feed.signs[k], forwards[:, k], feed.strikes[k], feed.years_close[:, k], feed.rates[k]
    )

    def price(volatility: core.FloatArray) -> core.FloatArray:
        terms = pricing.Terms((*place[:4], volatility, place[4]), is_coin)
        return np.asarray(pricing.evaluate(pricing.PRICE, terms))

    quotes = [price(volatilities)]
    for side in (-1.0, 1.0):
        away = side * (price(np.maximum(volatilities + side * halves, 0.0)) - quotes[0])
        quotes.append(np.maximum(quotes[0] + side * np.maximum(away, ticks), 0.0))
    terms = pricing.Terms((*place[:4], volatilities, place[4]))
    return (*quotes, pricing.evaluate(pricing.GREEKS, terms)[0])
