"""How a run is laid out in the files of a saved result, and read back from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backtest import core
from backtest.account import AccountState, no_options
from backtest.account.events import ENTRY, Entries
from backtest.account.money import Wallet
from backtest.account.records import MarginCall, PositionState, view_holdings
from backtest.core.code_names import pd
from backtest.core.structs import Structs
from backtest.results.option_profit import OptionQuotes, OptionTerms
from backtest.results.record import AccountFields, Closes, OptionFields, PositionFields, Record
from backtest.results.run_data import ChartedColumn, Quotes, RunOptions
from backtest.results.run_record import RunRecord
from backtest.venue import Option, Venue

CHARTED = "charted"
"""The lead of the columns that a policy asks pages to draw, and the entry of what they say."""
EQUAL_RISK = "constant_of_equal_risk"
"""The column of its unit value, and the entry of its leverage and final equity."""
SETTLEMENT = "settlement"
"""The entry, and the attribute of a loaded result, of the currency in which it settles."""
NO_EQUAL_RISK = "no_constant_of_equal_risk"
"""The entry that says why there is none."""
PLAIN_FIELDS = ("interval", "is_session", "first_peak", "first_unit", "started")
"""Fields of a run that JSON has as they are."""
OPTION_ARRAYS = ("opened", "entries", "settled", "ages")
"""Arrays of :class:`RunOptions` beside its record and its quotes."""
BY_POSITION: tuple[str, ...] = Closes._fields[-5:]
"""What follows at closes for each position, not for the account."""


def list_bars(result: RunRecord) -> dict[str, Any]:
    """Return the columns of the account as they are saved, each of shape (n_bars,)."""
    bars: dict[str, Any] = {"time": result.time.view("datetime64[ns]")}
    bars |= result.record.account._asdict()
    for name, column in result.closes._asdict().items():
        if name not in BY_POSITION:
            bars[name] = column

    bars["ends_sample"] = result.ends_sample
    if result.benchmark is not None:
        bars["market_return"] = result.benchmark
    for place, asset in enumerate(result.account.collateral):
        bars[f"price of {asset.name}"] = result.asset_marks[:, place]

    return bars


def list_positions(result: RunRecord) -> dict[str, core.FloatArray]:
    """Return the columns of instruments and options as they are saved, ``"BTCUSDT entry"``."""
    shape = (len(result.time), len(result.names))
    fields = dict(result.record.held)
    for name in BY_POSITION:
        fields[name] = getattr(result.closes, name)
    for name, column in result.quotes._asdict().items():
        if len(column):
            fields[name] = np.broadcast_to(column, shape)
    columns = widen(result.names, fields)

    options = result.options
    if options is None:
        return columns
    option_fields = {**options.record._asdict(), **options.quotes._asdict()}
    for name in OPTION_ARRAYS:
        option_fields[name] = getattr(options, name)
    return columns | widen(options.terms.names, option_fields)


def widen(
    names: Sequence[str],
    fields: Mapping[str, core.FloatArray],
) -> dict[str, core.FloatArray]:
    """Return the columns of fields of shape (n_bars, names), one for each name and field."""
    columns = {}
    for place, name in enumerate(names):
        for field, values in fields.items():
            columns[f"{name} {field}"] = values[:, place]
    return columns


def gather(
    wide: pd.DataFrame,
    names: Sequence[str],
    fields: Sequence[str],
) -> list[core.FloatArray]:
    """Return the arrays of some fields, of shape (n_bars, names): the reverse of :func:`widen`."""
    arrays = []
    for field in fields:
        columns = [f"{name} {field}" for name in names]
        arrays.append(wide[columns].to_numpy())
    return arrays


BOOK = ("positions", "calls", "priced", "wallet", "cursor")
"""Parts of the state of an account that are saved, beside its collateral."""


def pack_state(result: RunRecord) -> dict[str, Any]:
    """Return what is no table: where the account stood, and what the run began with."""
    state = result.state
    book: dict[str, Any] = {name: getattr(state, name).tolist() for name in BOOK}
    book["amounts"] = state.held.amounts
    book["prices"] = state.held.prices

    traded = None
    if result.traded is not None:
        traded = result.traded.to_dict()
    packed: dict[str, Any] = {"book": book, "tally": result.tally.to_dict()}
    for name in PLAIN_FIELDS:
        packed[name] = getattr(result, name)
    packed |= {
        "memory": np.asarray(result.memory, dtype=np.float64),
        "start": result.span.start,
        "first": result.span.first,
        "periods": result.span.periods,
        "target_cuts": list(result.target_cut_rows),
        "no_fill": result.no_fill,
        "traded": traded,
        "names": list(result.names),
        "spans": result.spans,
        "before": result.before._asdict(),
    }
    if result.options is not None:
        packed["options"] = pack_options(result.options)
    return packed


def pack_options(options: RunOptions) -> dict[str, Any]:
    """Return what of the options is no table."""
    return {
        "terms": options.terms._asdict(),
        "legs": options.legs,
        "hedged": options.hedged,
        "owners": options.owners,
        "contracts": [contract.to_dict() for contract in options.contracts],
    }


ROUNDING = 1e-9
"""Difference of two numbers, relative or absolute, by which processors of other models differ."""


def list_moved(saved: Path, metrics: Mapping[str, float | None]) -> list[str]:
    """Return the measures that differ from those of a saved result; none if it cannot be read."""
    try:
        before = dict(core.read_json_file(saved))
        old = np.array([*before.values()], np.float64)
        new = np.array([metrics.get(name) for name in before], np.float64)
    except (core.DataError, TypeError, ValueError):
        return []

    is_same = np.isclose(
        old,
        new,
        rtol=ROUNDING,
        atol=ROUNDING,
        equal_nan=True,
    )
    return [name for name, same in zip(before, is_same, strict=True) if not same]


def read_venues(
    manifest: Mapping[str, Any],
    names: Sequence[str],
    *,
    where: str,
) -> dict[str, Venue]:
    """Return the venues by instrument; the manifest of one instrument has its venue alone."""
    stored = manifest["venue"]
    if len(names) == 1:
        stored = {names[0]: manifest["venue"]}

    venues = {}
    for name, venue in stored.items():
        venues[name] = Venue.from_dict(venue, where=f"{where}, venue of {name}")
    return venues


RECORDS: dict[str, Any] = {"positions": PositionState, "calls": MarginCall}
"""Parts of the state that are records, by the class of one."""


def read_state(book: Mapping[str, Any]) -> AccountState:
    """Return the state of the account at the last close."""
    parts = {name: read_part(name, values) for name, values in book.items()}
    held = view_holdings(parts["positions"], parts.pop("amounts"), parts.pop("prices"))
    return AccountState(held=held, options=no_options(), **parts)


def read_part(name: str, values: Any) -> Any:
    """Return a part of the state of an account: a wallet, records, or an array."""
    if name == "wallet":
        return Wallet.read(values)
    if name == "cursor":
        return np.array(values, dtype=np.int64)

    numbers = np.array(values, dtype=np.float64)
    if name in RECORDS:
        return Structs(RECORDS[name], len(values), numbers)
    return numbers


def read_record(
    bars: pd.DataFrame,
    wide: pd.DataFrame,
    names: Sequence[str],
) -> Record:
    """Return the record of account, positions and closes."""
    account = [bars[name].to_numpy() for name in AccountFields._fields]
    closes = [bars[name].to_numpy() for name in Closes._fields if name not in BY_POSITION]
    return Record(
        account=AccountFields(*account),
        positions=PositionFields(*gather(wide, names, PositionFields._fields)),
        closes=Closes(*closes, *gather(wide, names, BY_POSITION)),
    )


def read_entries(events: pd.DataFrame) -> Entries:
    """Return the log of a saved run."""
    entries = np.empty(len(events), ENTRY)
    for name in ENTRY.names or ():
        entries[name] = events[name]
    return entries


def read_quotes(wide: pd.DataFrame, names: Sequence[str]) -> Quotes:
    """Return the quotes; those that a run had not are empty."""
    quotes = []
    for name in Quotes._fields:
        if f"{names[0]} {name}" in wide:
            quotes += gather(wide, names, [name])
        else:
            quotes.append(np.empty((0, len(names))))
    return Quotes(*quotes)


def read_charted(texts: Mapping[str, str], bars: pd.DataFrame) -> dict[str, ChartedColumn]:
    """Return the columns that a policy asks pages to draw."""
    columns = {}
    for name, text in texts.items():
        columns[name] = ChartedColumn(text, bars[f"{CHARTED} {name}"].to_numpy())
    return columns


def read_options(stored: Mapping[str, Any], wide: pd.DataFrame) -> RunOptions:
    """Return the options that a run held."""
    names = tuple(stored["terms"]["names"])
    terms: dict[str, Any] = {}
    for field, values in stored["terms"].items():
        terms[field] = np.array(values)
    terms["names"] = names
    opened, entries, settled, ages = gather(wide, names, OPTION_ARRAYS)
    return RunOptions(
        contracts=tuple(Option.from_dict(contract) for contract in stored["contracts"]),
        legs=tuple(stored["legs"]),
        owners=np.array(stored["owners"], dtype=np.int64),
        hedged=tuple(stored["hedged"]),
        terms=OptionTerms(**terms),
        record=OptionFields(*gather(wide, names, OptionFields._fields)),
        quotes=OptionQuotes(*gather(wide, names, OptionQuotes._fields)),
        opened=opened,
        entries=entries,
        settled=settled,
        ages=ages,
    )
