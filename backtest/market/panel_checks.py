"""What markets must have in common to form one panel: names, interval, calendar, currency, bars."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from backtest.base.currency_names import find_currency
from backtest.base.errors import DataError, ParameterError, did_you_mean
from backtest.base.frozen_arrays import freeze
from backtest.base.phrases import Argument, Phrase, Place
from backtest.base.units import IntArray, format_duration, format_time
from backtest.market.market import Market

WHERE = "bt.Markets"


def check_markets(markets: object) -> None:
    """Raise unless the argument maps at least one name to a market."""
    if not isinstance(markets, Mapping):
        raise ParameterError(
            f"markets must be a mapping of names to markets, got {type(markets).__name__}",
            where=WHERE,
            cure='give bt.Markets({"BTCUSDT": market, "ETHUSDT": other})',
        )
    if not markets:
        raise ParameterError(
            "there must be at least one market, got none", where=WHERE, cure="give one"
        )
    for name, market in markets.items():
        _check_entry(name, market)


def _check_entry(name: object, market: object) -> None:
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        raise ParameterError(
            f"the name of a market must be text without spaces around it, got {name!r}",
            where=WHERE,
            cure='name it as the venue does, for example "BTCUSDT"',
        )
    if not isinstance(market, Market):
        raise ParameterError(
            f"{name!r} must be a Market, got {type(market).__name__}",
            where=WHERE,
            cure="make it with Market.load or Market.from_frames, or use Markets.from_frames",
        )


def check_frames(bars: object, **more: object) -> None:
    """Refuse bars, mark or funding that are not mappings of the same names to frames."""
    for key, frames in (("bars", bars), *more.items()):
        if not isinstance(frames, Mapping) and (key == "bars" or frames is not None):
            raise ParameterError(
                f"{key} must be a mapping of names to frames, got {type(frames).__name__}",
                where=Place(key, of="Markets.from_frames"),
                cure=f'give {key}={{"BTCUSDT": frame, "ETHUSDT": other}}',
            )
        unknown = [name for name in frames or () if name not in bars]  # type: ignore[operator]
        if unknown:
            raise ParameterError(
                f"{key} must be of instruments with bars, got one of {unknown[0]!r}"
                + did_you_mean(unknown[0], bars),  # type: ignore[arg-type]
                where=Place(key, of="Markets.from_frames"),
                cure="give its bars too, or leave it out",
            )


def check_known(name: str, names: Collection[str], *, where: str) -> None:
    """Refuse a name that is not one of the panel."""
    if not isinstance(name, str) or name not in names:
        raise ParameterError(
            f"an instrument must be one of the panel, got {name!r}{did_you_mean(name, names)}",
            where=where,
            cure=f"choose among {', '.join(names)}",
        )


def check_replacement(name: str, market: Market, markets: Mapping[str, Market]) -> None:
    """Refuse a market that has other bars than the one of this name."""
    check_known(name, markets, where="Markets.with_markets")
    _check_entry(name, market)
    if not np.array_equal(market.time, markets[name].time):
        raise DataError(
            f"a market must have the bars of the one that it replaces, {name!r} has other times",
            where="Markets.with_markets",
            cure="make a new panel of it with bt.Markets",
        )


def check_same_terms(markets: Mapping[str, Market]) -> None:
    """Refuse markets of several intervals, or some that close and some that never do."""
    lengths = {name: format_duration(market.interval) for name, market in markets.items()}
    if len({*lengths.values()}) > 1:
        raise DataError(
            f"markets must have one interval, got {_list_both(lengths)}",
            where=WHERE,
            cure="load bars of one interval, or use market.resample on the shorter ones",
        )
    calendars = {n: "sessions" if m.sessions else "no sessions" for n, m in markets.items()}
    if len({*calendars.values()}) > 1:
        raise DataError(
            f"markets must have one calendar, got {_list_both(calendars)}",
            where=WHERE,
            cure="load all with sessions=True, or run those that close in an account of their own",
        )


def read_currency(given: object) -> str:
    """Return the settlement currency that a caller gives."""
    if not isinstance(given, str) or not given.strip():
        raise ParameterError(
            f"currency must be text, got {given!r}",
            where=Place("currency", of=WHERE),
            cure='give the currency that all settle in, for example "USDT"',
        )
    return given


def agree_currency(markets: Mapping[str, Market], said: Mapping[str, str]) -> str:
    """Return the settlement currency of markets, empty if unknown.

    ``said`` holds currencies by name that the files say; otherwise the name of the instrument or
    else that of the market counts. A name that says none agrees with all.
    """
    found = {
        name: said.get(name) or find_currency(market.instrument) or find_currency(name)
        for name, market in markets.items()
    }
    known = {name: currency for name, currency in found.items() if currency}
    if len({*known.values()}) > 1:
        raise DataError(
            f"markets must settle in one currency, got {_list_both(known)}",
            where=WHERE,
            cure=Phrase(
                "give instruments of one settlement currency, or {} if the prices of all are in "
                "currencies that you count as one",
                Argument("currency", "USD"),
            ),
        )
    return next(iter(known.values()), "")


def make_clock(markets: Mapping[str, Market]) -> tuple[IntArray, IntArray]:
    """Return the union of the opens, of shape (n_bars,), and the spans, of shape (n, 2).

    Raises DataError if an instrument lacks a bar inside its span, or spans do not overlap.
    """
    times = [market.time for market in markets.values()]
    is_shared = all(np.array_equal(each, times[0]) for each in times[1:])
    time = times[0] if is_shared else np.unique(np.concatenate(times))
    starts = np.searchsorted(time, [market.start for market in markets.values()])
    stops = np.searchsorted(time, [int(m.time[-1]) for m in markets.values()]) + 1
    spans = np.stack([starts, stops], axis=1).astype(np.int64)
    for (name, market), (first, stop) in zip(markets.items(), spans, strict=True):
        _check_whole(name, market, time[first:stop], markets)
    _check_overlap([*markets], spans, time)
    return freeze(time), freeze(spans)


def _check_whole(name: str, market: Market, clock: IntArray, markets: Mapping[str, Market]) -> None:
    """Refuse an instrument without a bar at a time at which another has one, inside its span."""
    if clock.size == market.time.size:
        return
    missing = np.setdiff1d(clock, market.time, assume_unique=True)
    other = next(n for n, each in markets.items() if np.isin(missing[0], each.time))
    raise DataError(
        f"an instrument must have all bars of the others between its first and its last one, "
        f"{name!r} lacks {missing.size} of {clock.size}, the first at "
        f"{format_time(int(missing[0]))} UTC, where {other!r} has one",
        where=WHERE,
        cure="check that all have the same times (inspect the data), fill the hole, "
        "or cut the panel with between",
    )


def _check_overlap(names: list[str], spans: IntArray, time: IntArray) -> None:
    """Refuse instruments that share no bar with those before them in time."""
    order = np.argsort(spans[:, 0], kind="stable")
    reach, latest = -1, ""
    for row in order:
        first, stop = (int(bar) for bar in spans[row])
        if latest and first >= reach:
            raise DataError(
                f"the spans of the instruments must overlap, {names[row]!r} begins at "
                f"{format_time(int(time[first]))} UTC, after the last bar of {latest!r} at "
                f"{format_time(int(time[reach - 1]))} UTC",
                where=WHERE,
                cure="run them one after the other, or add data so that their spans overlap",
            )
        if stop > reach:
            reach, latest = stop, names[row]


def _list_both(values: Mapping[str, str]) -> str:
    """Return two names with different values, as text."""
    first = next(iter(values.items()))
    other = next(item for item in values.items() if item[1] != first[1])
    return " and ".join(f"{value} for {name!r}" for name, value in (first, other))
