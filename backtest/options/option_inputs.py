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


class Settlement(NamedTuple):
    """The bar of an expiry (-1: none of the data), whether it is inside it, and its price."""

    bar: int
    is_inside: bool
    spot: float


NO_SETTLEMENT = Settlement(-1, is_inside=False, spot=float("nan"))


def find_settlement(
    markets: Markets,
    venue: Venue,
    option: Option,
    owner: str,
) -> Settlement:
    """Return where an option expires in the bars, and the price at which it settles.

    ``owner`` names its underlying, and ``venue`` is the venue of that. Raises DataError if the
    underlying ends before, or the price is needed and not known. An option that expires after all
    bars is not settled.
    """
    opens = markets.time
    jitter = core.parse_duration(venue.funding_jitter)
    bar, is_inside = locate_expiry(markets, find_expiry(option), jitter)

    # The underlying has bars from ``first`` on, before ``stop``. It may end before the markets do:
    # a later expiry would leave the option without a price.
    first, stop = markets.spans[markets.names.index(owner)].tolist()
    ends_early = stop < len(opens)
    if ends_early and bar >= stop:
        last_open = core.format_time(int(opens[stop - 1]))
        raise core.DataError(
            f"an option must expire in the data of its underlying, got {option.name!r}, which "
            f"expires at {option.expiry}, after the last bar of {owner}, {last_open} UTC"
        )
    if not first <= bar < stop:
        return NO_SETTLEMENT

    # In a long bar neither its open nor its close is near the price at the expiry.
    has_no_price = option.settlement_price is None
    if is_inside and has_no_price and markets.interval > HOUR:
        length = core.format_duration(markets.interval)
        open_of_bar = core.format_time(int(opens[bar]))
        raise core.DataError(
            "an option that expires inside a bar of over an hour needs a settlement_price, got "
            f"none for {option.name!r}, which expires at {option.expiry} in the bar of "
            f"{length} from {open_of_bar} UTC"
        )

    costs = require_costs(venue.option_costs, owner)
    price = find_price(markets, costs, option, owner, bar)
    return Settlement(bar, is_inside, price)


def locate_expiry(
    markets: Markets,
    expiry: int,
    jitter: int,
) -> tuple[int, bool]:
    """Return the bar of an expiry, and whether it is inside the bar, not at its open.

    An expiry up to ``jitter`` ns from the open of a bar is at that open. One that no bar covers
    has the bar after it, which is ``n_bars`` after the last.
    """
    time = markets.time
    bar = int(np.searchsorted(time, expiry - jitter))
    if bar < len(time) and int(time[bar]) <= expiry + jitter:
        return bar, False

    # Between two opens, it is inside the bar before, unless that has closed: a gap in the data.
    if bar > 0 and expiry < int(time[bar - 1]) + markets.interval:
        return bar - 1, True
    return bar, False


def find_price(
    markets: Markets,
    costs: OptionCosts,
    option: Option,
    owner: str,
    bar: int,
) -> float:
    """Return the price of the underlying at which an option settles.

    It is the option's own if there is one, else the mean of the marks of the venue's delivery
    window, else the mark at the open of the bar of the expiry. ``owner`` names the underlying, and
    ``bar`` is the bar of the expiry among those of all markets.
    """
    if option.settlement_price is not None:
        return option.settlement_price

    # The delivery window: a time before the expiry over which the venue averages.
    market = markets[owner]
    if costs.delivery_window is not None:
        length = core.parse_duration(costs.delivery_window)
        expiry = find_expiry(option)
        closes = market.time + market.interval
        begin = expiry - length
        in_window = (closes > begin) & (closes <= expiry)
        marks: core.FloatArray = market.mark_close[in_window]

        # Bars as long as the window have one close in it, which is no average.
        if market.interval < length and len(marks):
            return float(np.mean(marks))

    # The underlying may begin later than other markets do.
    place = markets.names.index(owner)
    first_bar = int(markets.spans[place, 0])
    return float(market.mark_open[bar - first_bar])


LAST = np.iinfo(np.int64).max
"""A time after all others, in ns."""


def read_own_rows(chain: Chain, option: Option) -> pd.DataFrame:
    """Return the quotes of one contract by time."""
    rows = list_implied(chain, option)
    is_strike = rows["strike"] == option.strike
    is_expiry = rows["expiry"] == find_expiry(option)
    is_kind = rows["is_call"] == (option.kind == "call")
    own_rows = rows[is_strike & is_expiry & is_kind]
    return own_rows[~own_rows.index.duplicated(keep="last")]


def list_implied(chain: Chain, option: Option) -> pd.DataFrame:
    """Return the quotes of the underlying of an option, by time.

    A chain of one underlying has the quotes, whatever its name. They are kept in the chain, which
    every option of a market asks for them.
    """
    by_underlying: dict[str, pd.DataFrame] = chain.__dict__.setdefault("_implied_rows", {})
    underlying = str(option.underlying)
    if underlying in by_underlying:
        return by_underlying[underlying]

    rows = chain.implied()
    if len(chain.underlyings) > 1:
        rows = rows[rows["underlying"] == underlying]

    # Where bid and ask imply no volatility, that of the mark stands in.
    iv = rows["iv"]
    expiries = pd.DatetimeIndex(rows["expiry"]).as_unit("ns").asi8
    quotes = rows[["strike", "bid", "ask", "mark"]].assign(
        expiry=expiries,
        is_call=rows["kind"] == "call",
        volatility=iv.where(iv >= 0.0, rows["mark_iv"]),
        half_spread=0.5 * (rows["ask_iv"] - rows["bid_iv"]),
        half_price=0.5 * (rows["ask"] - rows["bid"]),
    )
    times = pd.DatetimeIndex(rows["time"]).as_unit("ns").asi8
    by_underlying[underlying] = quotes.set_axis(times)
    return by_underlying[underlying]


def find_nearest(rows: pd.DataFrame, option: Option, end: int) -> pd.DataFrame:
    """Return, of each time before an end, the row with a spread that is nearest to a contract.

    ``rows`` are those of :func:`list_implied`, ``end`` is in ns. First the nearest expiry counts,
    then the nearest strike by ratio, the lower one, and the call.
    """
    has_spread = rows["half_spread"] >= 0.0
    quoted = rows[has_spread & (rows.index < end)]
    strike = float(option.strike or 1.0)
    nearest = quoted.assign(
        time_off=(quoted["expiry"] - find_expiry(option)).abs(),
        strike_off=np.abs(np.log(strike / quoted["strike"])),
        is_put=~quoted["is_call"],
    )

    # At each time the rows with the least of the first column are left, of these those with the
    # least of the second, and so on.
    for name in ("time_off", "strike_off", "strike", "is_put"):
        least = nearest.groupby(level=0)[name].transform("min")
        nearest = nearest[nearest[name] == least]
    return nearest[~nearest.index.duplicated()]


class Instant(NamedTuple):
    """Opens or closes of all bars, the last ns known there, and the mark prices (n, n_bars)."""

    name: str
    time: core.IntArray
    known: core.IntArray
    marks: core.FloatArray


def read_option_feed(
    markets: Markets,
    venues: Mapping[str, Venue],
    panel: Panel,
    first: int = 0,
) -> OptionFeed:
    """Return what the listed options are worth at each open and close, a column for each option.

    Values begin with the bar before ``first``, at whose close the account begins. Raises DataError
    if an option expires after its underlying, or the surfaces of one are too old.
    """
    listing = markets.listing
    if listing is None or not listing.options:
        return make_option_feed(0, 1)

    feed = make_option_feed(len(listing.options), markets.n_bars)
    instants = list_instants(markets, panel)
    for k, name in enumerate(listing.options):
        write_option(
            feed,
            k,
            name,
            markets,
            venues,
            instants,
            first_bar=first - 1,
        )

    number_expiries(feed)
    write_targets(feed, markets)
    return feed


def list_instants(markets: Markets, panel: Panel) -> tuple[Instant, Instant]:
    """Return the opens and the closes of all bars.

    A quote that is stamped at an open is known there; one that is stamped at a close is not.
    """
    closes = markets.time + markets.interval
    return (
        Instant("open", markets.time, known=markets.time, marks=panel.mark_open),
        Instant("close", closes, known=closes - 1, marks=panel.mark_close),
    )


def write_option(
    feed: OptionFeed,
    k: int,
    name: str,
    markets: Markets,
    venues: Mapping[str, Venue],
    instants: Sequence[Instant],
    *,
    first_bar: int,
) -> None:
    """Write the columns of option k into the feed, from ``first_bar`` on.

    Terms come first, as values need their expiry. Then come the values of surfaces at opens and
    closes, which quotes of a chain replace where there are any. What is known by then decides
    whether the option is listed.
    """
    listing: Any = markets.listing
    option = listing.options[name]
    owner = listing.underlyings[name]

    # Strike, expiry, costs and the usual spread.
    write_terms(feed, k, markets, venues[owner], option, owner)

    # Years to expiry, bases, volatilities and their ages, by the model.
    for instant in instants:
        write_values(feed, k, listing.surfaces[owner], instant, first_bar)

    # Marks, bids, asks, volatilities and spreads, as quoted.
    if owner in listing.chains:
        age = listing.quote_age or markets.interval
        write_rows(feed, k, listing.chains[owner], option, age, instants)

    check_ages(feed, k, markets, name)
    feed.are_listed[:, k] = np.isfinite(feed.volatilities_open[:, k])


def number_expiries(feed: OptionFeed) -> None:
    """Write a number for each expiry of an instrument, and one for each strike of an expiry."""
    instruments = feed.instruments.tolist()
    times = feed.expiry_times.tolist()
    expiries = list(zip(instruments, times, strict=True))
    strikes = list(zip(expiries, feed.strikes.tolist(), strict=True))
    feed.expiries[:] = m.number_each(expiries)
    feed.pairs[:] = m.number_each(strikes)


def check_ages(feed: OptionFeed, k: int, markets: Markets, name: str) -> None:
    """Require that the surfaces in force are young enough while option k is listed."""
    listing: Any = markets.listing
    max_days = listing.max_age / DAY
    old = np.flatnonzero(feed.ages[:, k] > max_days)
    if len(old):
        t = int(old[0])
        raise core.DataError(
            f"the last surface of {listing.underlyings[name]!r} must be at most {max_days:g} "
            f"days old while {name!r} is listed, got {feed.ages[t, k]:.4g} days at the "
            f"close of {core.format_time(int(markets.time[t]))} UTC; give later surfaces, end "
            "the markets earlier, or give a larger max_age"
        )


def write_terms(
    feed: OptionFeed,
    k: int,
    markets: Markets,
    venue: Venue,
    option: Option,
    owner: str,
) -> None:
    """Write what does not change with time into the columns of option k: terms, costs, expiry.

    ``owner`` names its underlying, and ``venue`` is the venue of that.
    """
    costs = require_costs(venue.option_costs, owner)
    settlement = find_settlement(markets, venue, option, owner)
    terms: dict[str, Any] = {
        "signs": option.sign,
        "strikes": option.strike,
        "sizes": option.size,
        "are_coin": option.is_coin,
        "instruments": markets.names.index(owner),
        "expiry_times": find_expiry(option),
        "expiry_bars": settlement.bar,
        "are_inside": settlement.is_inside,
        "expiry_spots": settlement.spot,
        "rates": 0.0,  # surfaces are fitted to undiscounted prices on the forward
        "fee_rates": costs.fee,
        "fee_caps": costs.fee_cap,
        "delivery_rates": costs.delivery_fee,
        "delivery_caps": costs.delivery_cap,
        "ticks": costs.tick,
    }
    for name, value in terms.items():
        getattr(feed, name)[k] = value

    # The usual spread, in volatility. Quotes of a chain may replace it later.
    spread = option.spread
    if spread is None:
        spread = costs.spread
    feed.half_spreads[:, k] = np.nan if spread is None else 0.5 * spread


def write_values(
    feed: OptionFeed,
    k: int,
    surfaces: Surfaces,
    instant: Instant,
    first: int,
) -> None:
    """Write what surfaces say of option k at opens or closes, from bar ``first`` to its expiry.

    These are years to expiry, forward over spot, volatility and, at closes, the days since the
    surface. Where there is no surface yet, or no price of the underlying, the feed stays NaN. The
    terms of the option must be in the feed.
    """
    spots = instant.marks[feed.instruments[k]]
    expiry = int(feed.expiry_times[k])

    # The number of the surface in force at each bar; -1 before the first one.
    surface_rows = surfaces.locate(instant.known)
    is_alive = instant.known < expiry
    is_valued = is_alive & (surface_rows >= 0) & np.isfinite(spots)
    bars = np.flatnonzero(is_valued)
    bars = bars[bars >= first]

    times = instant.time[bars]
    rows = surface_rows[bars]
    bases, volatilities = surfaces.value(
        feed.strikes[k],
        expiry,
        times,
        spots[bars],
        rows,
    )
    pick(feed, "years", instant)[bars, k] = (expiry - times) / YEAR
    pick(feed, "bases", instant)[bars, k] = bases
    pick(feed, "volatilities", instant)[bars, k] = volatilities
    if instant.name == "close":
        feed.ages[bars, k] = surfaces.find_ages(times, rows)


def pick(feed: OptionFeed, name: str, instant: Instant) -> core.FloatArray:
    """Return the array (n_bars, K) of a feed at opens or closes, such as ``years_open``."""
    values: core.FloatArray = getattr(feed, f"{name}_{instant.name}")
    return values


def write_rows(
    feed: OptionFeed,
    k: int,
    chain: Chain,
    option: Option,
    age: int,
    instants: Sequence[Instant],
) -> None:
    """Write what a chain quotes of option k over what surfaces say; quotes hold for ``age`` ns.

    Only bars in which surfaces value the option, which :func:`write_values` has found, get quotes.
    ``instants`` are the opens and the closes.
    """
    own_rows = read_own_rows(chain, option)
    for instant in instants:
        years = pick(feed, "years", instant)[:, k]
        here = np.flatnonzero(np.isfinite(years))

        # The last quote at or before what is known at each instant, if it is young enough.
        known = instant.known[here]
        quotes = own_rows.reindex(known, method="ffill", tolerance=age)
        pick(feed, "marks", instant)[here, k] = quotes["mark"]

        # A quote without a volatility leaves that of the surface.
        has_volatility = quotes["volatility"].notna().to_numpy()
        volatilities = pick(feed, "volatilities", instant)
        volatilities[here[has_volatility], k] = quotes["volatility"][has_volatility]

        # Orders fill at opens, so bids and asks are needed there alone.
        if instant.name == "open":
            feed.has_quotes[here, k] = quotes["strike"].notna()
            feed.bids[here, k] = quotes["bid"]
            feed.asks[here, k] = quotes["ask"]

    opens = instants[0].time
    write_spreads(feed, k, chain, option, opens)


def write_spreads(
    feed: OptionFeed,
    k: int,
    chain: Chain,
    option: Option,
    opens: core.IntArray,
) -> None:
    """Write half the spread of option k at each open, as last quoted, into two columns.

    ``half_spreads`` are in volatility and ``half_prices`` in price. Until the contract itself has a
    spread, that of the nearest quoted contract stands in; before any quote, ``half_spreads`` keeps
    the usual spread that :func:`write_terms` wrote, and ``half_prices`` is NaN.
    """
    own_rows = read_own_rows(chain, option)
    with_spread = own_rows[own_rows["half_spread"] >= 0.0]
    with_price = own_rows[own_rows["half_price"] >= 0.0]

    # Other contracts stand in before the first own spread: at all times, if there is none.
    first_spread: Any = LAST
    if len(with_spread):
        first_spread = with_spread.index[0]
    rows = list_implied(chain, option)
    stand_ins = find_nearest(rows, option, first_spread)

    # In volatility: the last one at each open, where there is one.
    spreads = pd.concat([stand_ins, with_spread]).reindex(opens, method="ffill")
    half_spreads = spreads["half_spread"].to_numpy()
    is_known = np.isfinite(half_spreads)
    np.copyto(feed.half_spreads[:, k], half_spreads, where=is_known)

    # In price, where the contract may have a spread of its own earlier: a quote has a price even
    # if it implies no volatility.
    if len(with_price):
        stand_ins = stand_ins[stand_ins.index < with_price.index[0]]
    prices = pd.concat([stand_ins, with_price]).reindex(opens, method="ffill")
    feed.half_prices[:, k] = prices["half_price"]


class CloseQuotes(NamedTuple):
    """What is known of the contracts at each close, (n_bars, K)."""

    forwards: core.FloatArray
    marks: core.FloatArray
    bids: core.FloatArray
    asks: core.FloatArray
    deltas: core.FloatArray


def read_close_quotes(markets: Markets, feed: OptionFeed) -> CloseQuotes:
    """Return what is known of each option at each close, arrays of shape (n_bars, n_options).

    Quotes of a chain are written over those of the model, which are at the volatility of the feed.
    """
    listing: Any = markets.listing
    shape = (markets.n_bars, len(listing.options))
    quotes = CloseQuotes._make(np.full(shape, np.nan) for _ in CloseQuotes._fields)
    spots = markets.panel().mark_close

    for k, (name, option) in enumerate(listing.options.items()):
        spot = spots[feed.instruments[k]]
        quotes.forwards[:, k] = spot * feed.bases_close[:, k]
        write_model_quotes(quotes, feed, k)
        chain = listing.chains.get(listing.underlyings[name])
        if chain is not None:
            last = read_last_quotes(markets, chain, option)
            write_chain_quotes(quotes, feed, k, last)
    return quotes


def read_last_quotes(
    markets: Markets,
    chain: Chain,
    option: Option,
) -> pd.DataFrame:
    """Return the last quote of an option before each close, NaN where that is too old."""
    listing: Any = markets.listing
    before_close = markets.time + markets.interval - 1
    age = listing.quote_age or markets.interval
    own_rows = read_own_rows(chain, option)
    return own_rows.reindex(before_close, method="ffill", tolerance=age)


def write_chain_quotes(
    quotes: CloseQuotes,
    feed: OptionFeed,
    k: int,
    last: pd.DataFrame,
) -> None:
    """Write the last quotes of a chain over those of the model.

    Marks are those that the feed has at closes; where it has none, that of the model stays. A bid
    or an ask that the chain lacks is missing: nobody trades at it.
    """
    marks = feed.marks_close[:, k]
    is_known = np.isfinite(marks)
    np.copyto(quotes.marks[:, k], marks, where=is_known)
    quotes.bids[:, k] = last["bid"]
    quotes.asks[:, k] = last["ask"]


def write_model_quotes(quotes: CloseQuotes, feed: OptionFeed, k: int) -> None:
    """Write mark, bid, ask and delta of option k at its model price and spread.

    The spread is in volatility, at least one tick of the price on each side.
    """
    sign, forward, strike, years, rate = np.broadcast_arrays(
        feed.signs[k],
        quotes.forwards[:, k],
        feed.strikes[k],
        feed.years_close[:, k],
        feed.rates[k],
    )

    def evaluate(
        formula: pricing.Formula,
        volatility: core.FloatArray,
        is_coin: bool,
    ) -> Any:
        """Return a formula of the option at each close, (n_bars,), at some volatilities."""
        numbers = (sign, forward, strike, years, volatility, rate)
        return pricing.evaluate(formula, pricing.Terms(numbers, is_coin))

    # The mark, and the prices at half a spread of volatility under and over that of the mark.
    is_coin = bool(feed.are_coin[k])
    volatilities = feed.volatilities_close[:, k]
    half_spreads = np.nan_to_num(feed.half_spreads[:, k])
    marks = evaluate(pricing.PRICE, volatilities, is_coin)
    volatilities_low = np.maximum(volatilities - half_spreads, 0.0)
    volatilities_high = np.maximum(volatilities + half_spreads, 0.0)
    low = evaluate(pricing.PRICE, volatilities_low, is_coin)
    high = evaluate(pricing.PRICE, volatilities_high, is_coin)

    # At least one tick on each side of the mark where there is a spread, and no price under 0.
    ticks = np.where(half_spreads > 0.0, feed.ticks[k], 0.0)
    down = np.maximum(marks - low, ticks)
    up = np.maximum(high - marks, ticks)
    quotes.marks[:, k] = marks
    quotes.bids[:, k] = np.maximum(marks - down, 0.0)
    quotes.asks[:, k] = np.maximum(marks + up, 0.0)

    # A hedge trades the underlying, so it needs the delta in cash, also of options in coins.
    greeks = evaluate(pricing.GREEKS, volatilities, is_coin=False)
    quotes.deltas[:, k] = greeks[0]
