"""Fills of a real account: read from files and ccxt, completed, checked, and placed in bars."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import core, engine
from backtest.account.events import Event
from backtest.core import DataError, IntArray, ParameterError, format_time, repr_plain
from backtest.core.code_names import is_frame, pd
from backtest.core.units import HOUR
from backtest.engine import Setup
from backtest.live.contracts import count_fills
from backtest.live.state import name_symbols
from backtest.market import Markets, read_file, rename_known
from backtest.results.tables import value_of

NEEDED = ("time", "instrument", "quantity", "price", "fee")
COLUMNS = (*NEEDED, "fee_currency", "kind", "reference", "step", "traded")
CCXT = ("timestamp", "symbol", "side", "amount", "price")
KNOWN = (*COLUMNS, *CCXT, "cost", "fees", "id", "term", "equity", "balance")
OTHER_NAMES = {"timestamp": "time", "symbol": "instrument"}
OF_TRADES = {"amount": "quantity", "cost": "traded"}
"""Our names of ccxt's columns; an amount is a quantity only beside its side."""
NOT_MISSED = ("side", "id", "fees", "info", "order", "type", "takerOrMaker", "datetime")
"""Columns that say nothing of a fee where they are not read."""
SIDES = {"buy": 1.0, "sell": -1.0}
ENTRIES = {
    "order": Event.FILL,
    "stop": Event.STOPPED,
    "liquidation": Event.LIQUIDATED,
    "takeover": Event.LIQUIDATED,
    "expiry": Event.DELISTED,
    "delisting": Event.DELISTED,
    "ruin": Event.FILL,
    "conversion": Event.CONVERTED,
}
"""The event that each kind of fill is in the log."""
KINDS = (*ENTRIES, "bad_debt")
WITHOUT_RANGE = (
    "bad_debt",
    "takeover",
    "liquidation",
    "expiry",
    "delisting",
    "ruin",
)
TOLERANCE = 0.005
"""How far a price may lie outside its bar, a fraction, where no reference is given."""
TINY = 64
"""Bytes below which a file may be blank: an export of nothing may have a line break."""
USUAL = {
    "fee": 0.0,
    "kind": "order",
    "step": -1,
    "fee_currency": "",
    "reference": np.nan,
    "traded": np.nan,
}
"""What a fill is where its table has no such column."""


@core.checked_only("names", "timezone")
def read_fills(
    source: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
    timezone: str | None = None,
) -> pd.DataFrame:
    """Return fills as :meth:`backtest.Backtest.replay` takes them.

    Raises DataError if columns are missing, a row cannot be read, a trade is there twice, or its
    fees are in several currencies; ParameterError if two symbols would be one instrument.

    Parameters
    ----------
    source : str, Path, DataFrame or sequence of mappings
        A CSV or JSON file, a table, or a list: of the columns ``time``, ``instrument``,
        ``quantity``, ``price`` and ``fee``, with what else :attr:`Result.fills` has; or of what
        ccxt's ``fetch_my_trades`` returns, whose ``cost`` becomes ``traded``, and whose ``fee`` may
        be a number too. A ``side``, buy or sell, gives a quantity its sign. No rows, as of an empty
        list, are no fills.
    names : mapping of str to str, optional
        Our instruments by the symbol of the source. Default: ``BTC/USDT:USDT`` is ``BTCUSDT``.
    timezone : str, optional
        The time zone of stamps without one; if omitted, such stamps are refused.
    """
    opened, is_file = open_table(source, "fills")
    where = Path(str(source)).name if is_file else ""
    table = name_columns(opened)
    check_columns(table, opened, where)
    has_amounts = "quantity" not in opened
    if has_amounts:
        check_trades(table)

    try:
        rows = read_rows(table, where, has_amounts=has_amounts)
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"a row of fills cannot be read: {error}") from error

    stamps = core.read_stamps(
        rows["time"],
        name="fills",
        timezone=timezone,
        is_file=is_file,
    )
    rows = rows.assign(time=core.utc_index(stamps))
    if "instrument" in rows:
        symbols = rows["instrument"].astype(object).fillna("").astype(str)
        rows["instrument"] = symbols.map(name_symbols(symbols.unique(), names))
    rows = rows.sort_values("time", kind="stable", ignore_index=True)
    rows.attrs["file"] = where
    return rows


def name_fill(k: int, where: str) -> str:
    """Return what a message calls fill k, counted from 1, with the file that it is of, if any."""
    return f"fill {k + 1:,} of {where}" if where else f"fill {k + 1:,}"


def name_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of fills with our names for ccxt's, where it has no column of ours."""
    ours = dict(OTHER_NAMES)
    if "side" in table and "quantity" not in table:
        ours.update(OF_TRADES)

    taken = {other: name for other, name in ours.items() if name not in table}
    return table.rename(columns=taken)


def check_columns(table: pd.DataFrame, stated: pd.DataFrame, where: str) -> None:
    """Raise DataError if a table of fills lacks a column that has no usual value.

    ``stated`` is the table with the names of its source.
    """
    if not {"time", "quantity", "price"} <= set(table.columns):
        got = ", ".join(map(str, stated.columns)) or "no columns"
        file = f" ({where})" if where else ""
        raise DataError(
            f"fills must have the columns {', '.join(NEEDED)} (instrument and fee may be left "
            f"out), or ccxt's {', '.join(CCXT)}, got {got}{file}"
        )
    if "fee" not in table and "fees" in table and not has_entries(table["fees"]):
        raise DataError("the column of fees must be called 'fee', got 'fees'")


def has_entries(cells: pd.Series) -> bool:
    """Return whether fees are written as ccxt does, as mappings or lists of them, or not at all."""
    if cells.isna().all():
        return True
    return any(isinstance(cell, Mapping | list | tuple) for cell in cells)


def read_rows(table: pd.DataFrame, where: str, *, has_amounts: bool) -> pd.DataFrame:
    """Return the rows of a table with our names as fills: signed quantities, fees as numbers.

    ``where`` is their file, or "". ``has_amounts`` says that the quantities were ccxt's amounts.
    """
    rows = table[[name for name in COLUMNS if name in table]].copy()
    for name in ("quantity", "price", "reference", "traded"):
        if name in rows:
            rows[name] = read_numbers(rows[name], name, where)
    if has_amounts and "traded" not in rows:
        rows["traded"] = math.nan

    if "side" in table:
        rows["quantity"] = sign_quantities(rows["quantity"], table["side"], where)
    if "id" in table:
        check_ids(table, rows["quantity"], where)

    stated = [name for name in ("fee", "fees") if name in table]
    is_of_ccxt = has_amounts or any(has_entries(table[name]) for name in stated)
    if "fee" in table and not is_of_ccxt:
        rows["fee"] = read_numbers(rows["fee"], "fee", where)
        return rows

    costs, currencies, n_without = read_fees(table, where)
    rows["fee"] = costs
    rows["fee_currency"] = currencies
    unread = [name for name in table if name not in (*COLUMNS, *NOT_MISSED)]
    warn_without_fees(n_without, unread)
    return rows


def read_numbers(cells: pd.Series, name: str, where: str) -> pd.Series:
    """Return a column as numbers, NaN where a cell is empty; raise DataError of another text."""
    numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
    is_text = numbers.isna() & cells.notna() & (cells.astype(str).str.strip() != "")
    is_text &= cells.astype(str).str.lower() != "nan"
    if is_text.any():
        k = int(np.argmax(is_text.to_numpy()))
        cell = cells.iloc[k]
        raise DataError(
            f"{name} must be a number, got {repr_plain(cell)}{explain_comma(cell)} "
            f"({name_fill(k, where)})"
        )
    return numbers


def explain_comma(cell: Any) -> str:
    """Return what a comma in a text makes of a number, and how to write it, or ""."""
    if not isinstance(cell, str) or "," not in cell:
        return ""

    text = cell.strip()
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+\.\d*|[-+]?\d{1,3}(,\d{3}){2,}", text):
        return f", whose comma marks thousands: write {text.replace(',', '')}"
    if re.fullmatch(r"[-+]?\d*,(\d{1,2}|\d{4,})|[-+]?\d{1,3}(\.\d{3})+,\d+", text):
        number = text.replace(".", "").replace(",", ".")
        return f", whose comma is a decimal one: write {number}"
    return ", whose comma marks thousands or decimals: write a decimal point, and no other mark"


def sign_quantities(quantities: pd.Series, sides: pd.Series, where: str) -> pd.Series:
    """Return quantities with the sign of their sides; those of sells may have it already.

    Raises DataError if a side is neither buy nor sell, or a quantity that is bought is negative.
    """
    signs = sides.map(read_side).astype("float64")
    is_unknown = (signs.isna() & (quantities != 0.0)).to_numpy()
    if is_unknown.any():
        k = int(np.argmax(is_unknown))
        raise DataError(
            f"side must be buy or sell, got {repr_plain(sides.iloc[k])} ({name_fill(k, where)})"
        )

    is_other = ((signs > 0.0) & (quantities < 0.0)).to_numpy()
    if is_other.any():
        k = int(np.argmax(is_other))
        raise DataError(
            "the quantity of a buy must not be negative, got "
            f"{quantities.iloc[k]:g} beside {sides.iloc[k]!r} ({name_fill(k, where)})"
        )
    return quantities.abs() * signs.fillna(1.0)


def read_side(side: Any) -> float:
    """Return 1 of a buy, -1 of a sell, in letters of any case, and NaN of anything else."""
    return SIDES.get(str(side).strip().lower(), math.nan)


def open_table(
    source: Any,
    what: str,
    columns: Sequence[str] = CCXT,
) -> tuple[pd.DataFrame, bool]:
    """Return a file, table or list of mappings as a table, and whether it was a file.

    ``columns`` are those of an empty list.
    """
    is_file = isinstance(source, str | Path)
    if is_file:
        table = open_file(Path(source), what, columns)
    elif is_frame(source):
        table = source.copy() if source.index.name is None else source.reset_index()
    elif isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        table = pd.DataFrame([dict(row) for row in source], columns=None if source else [*columns])
    else:
        raise DataError(
            f"{what} must be a file, a table or a list of mappings, got {repr_plain(source)}"
        )

    return rename_known(table, KNOWN, what), is_file


def open_file(path: Path, what: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table in a JSON file, or in one of market data's formats.

    An empty list has no rows, with these columns; a file without anything in it is a DataError.
    """
    if path.is_file() and path.stat().st_size < TINY and not path.read_bytes().strip():
        raise DataError(f"{what} must be a table, got an empty file ({path})")

    if path.suffix.lower() != ".json":
        return read_file(path)

    try:
        content = core.read_json_file(path)
        return pd.DataFrame(content, columns=[*columns] if content == [] else None)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{what} must be a readable file, got {core.describe_fault(error)} ({path})"
        ) from error


def check_trades(table: pd.DataFrame) -> None:
    """Raise DataError if trades are orders of ccxt, whose amounts may be filled later or never."""
    of_orders = [name for name in ("filled", "remaining", "status") if name in table]
    if of_orders:
        raise DataError(
            f"fills must be trades, got orders of ccxt, which have {', '.join(of_orders)}: the "
            "amount of an order may be filled in part, later, or never; save what "
            "fetch_my_trades returns"
        )


def check_ids(table: pd.DataFrame, quantities: pd.Series, where: str) -> None:
    """Raise DataError if a trade has two rows; a buy may have the id of a sell."""
    is_stated = (table["id"].notna() & (table["id"] != "")).to_numpy()
    symbols = table["instrument"] if "instrument" in table else pd.Series("", index=table.index)
    trades = pd.DataFrame({
        "symbol": symbols.to_numpy(),
        "is_buy": quantities.to_numpy() > 0.0,
        "id": table["id"].to_numpy(),
    })[is_stated].astype(str)  # fmt: skip
    twice = trades[trades.duplicated()]
    if len(twice) == 0:
        return

    symbol, _, number = twice.iloc[0]
    of_symbol = f" of {symbol}" if symbol else ""
    rows = "row that is" if len(twice) == 1 else f"{len(twice):,} rows that are"
    raise DataError(
        f"a trade may have one row, got the id {number!r}{of_symbol} again "
        f"({name_fill(int(twice.index[0]), where)}); leave out the {rows} there twice, or the "
        "column 'id' if it has the numbers of orders"
    )


def read_fees(table: pd.DataFrame, where: str) -> tuple[list[float], list[str], int]:
    """Return the costs of trades, their currencies, and how many have no fee.

    A fee is what ccxt has: a list of them, one, or none; or it is a number beside fee_currency.
    """
    nothing = [None] * len(table)
    listed = table.get("fees", nothing)
    single = table.get("fee", nothing)
    beside = table.get("fee_currency", nothing)

    costs = []
    currencies = []
    n_without = 0
    for k, (fees, fee, coin) in enumerate(zip(listed, single, beside, strict=True)):
        paid = read_fee(fees, fee, "" if pd.isna(coin) else str(coin), name_fill(k, where))
        n_without += paid is None
        cost, currency = paid or (0.0, "")
        costs.append(cost)
        currencies.append(currency)
    return costs, currencies, n_without


def read_fee(listed: Any, single: Any, beside: str, fill: str) -> tuple[float, str] | None:
    """Return the cost of a trade of ccxt and its currency, or None if it says none.

    Of ``fees`` and ``fee`` the first that has a cost counts, never both. A number is in the
    currency ``beside``. ``fill`` is what a message calls the trade.
    """
    for stated in (listed, single):
        entries = stated if isinstance(stated, list | tuple) else [stated]

        costs = []
        currencies = []
        for entry in entries:
            if not isinstance(entry, Mapping):
                cost = read_plain_fee(entry, fill)
                currency = beside
            else:
                cost = entry.get("cost")
                currency = str(entry.get("currency") or "")
            if cost is not None:
                costs.append(float(cost))
                currencies.append(currency)

        paid = zip(costs, currencies, strict=True)
        charged = dict.fromkeys(currency for cost, currency in paid if cost != 0.0)
        if len(charged) > 1:
            raise DataError(
                "the fees of a trade must be in one currency, got "
                f"{' and '.join(map(repr, charged))} ({fill})"
            )
        if costs:
            return math.fsum(costs), next(iter(charged), "")
    return None


def read_plain_fee(entry: Any, fill: str) -> float | None:
    """Return a fee that is a number, None of an empty cell; raise DataError of anything else."""
    if pd.isna(entry) or entry == "":
        return None
    try:
        return float(entry)
    except (TypeError, ValueError):
        pass

    comma = explain_comma(entry) if re.fullmatch(r"[-+\d.,\s]*", str(entry)) else ""
    cure = "" if comma else "; save trades of ccxt as JSON"
    raise DataError(
        "the fee of a trade must be a number, or a mapping of cost and currency, got "
        f"{repr_plain(entry)}{comma} ({fill}){cure}"
    )


def warn_without_fees(count: int, unread: Sequence[Any] = ()) -> None:
    """Warn of fills without a fee, and of the columns that are not read: one may have it."""
    if count == 0:
        return

    noun = "fill has" if count == 1 else "fills have"
    verb = "pays" if count == 1 else "pay"
    text = f"{count:,} {noun} no fee, and {verb} none"
    names = [str(name) for name in unread if str(name)]
    if names:
        text += f"; columns that are not read: {', '.join(names)}"
    core.warn_caller(text)


def warn_of_rebates(table: pd.DataFrame) -> None:
    """Warn if all fees of several fills are negative: they may be written with the other sign."""
    fees = table["fee"][(table["fee"] != 0.0) & (table["kind"] != "bad_debt")]
    if len(fees) > 1 and (fees < 0.0).all():
        core.warn_caller(
            f"all {len(fees):,} fees are negative, and are received as rebates: a fee that was "
            "paid is positive"
        )


def name_fills(markets: Markets, fills: pd.DataFrame) -> pd.DataFrame:
    """Return fills with the names of markets as instruments, where they had their symbols."""
    if "instrument" not in fills:
        return fills
    named = fills.assign(instrument=fills["instrument"].replace(markets.names_by_symbol))
    named.attrs = fills.attrs
    return named


def complete_fills(
    fills: pd.DataFrame,
    names: tuple[str, ...],
    settled: str,
) -> pd.DataFrame:
    """Return fills with all columns, each of one type."""
    needed = ["time", "quantity", "price"]
    if len(names) > 1:  # of one instrument all fills are its own
        needed.append("instrument")
    missing = [name for name in needed if name not in fills]
    if missing:
        raise ParameterError(
            f"fills must have the columns {', '.join(NEEDED)}, got no {', '.join(missing)}; "
            "bt.read_fills reads ccxt's fetch_my_trades"
        )
    if "fee" not in fills:
        unread = [name for name in fills if name not in (*COLUMNS, *NOT_MISSED)]
        warn_without_fees(len(fills), unread)

    table = fills.reset_index(drop=True)
    usual: dict[str, Any] = {"instrument": names[0], **USUAL}
    for name, value in usual.items():
        if name not in fills:
            table[name] = value

    for name in ("quantity", "price", "reference", "fee", "step", "traded"):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype("float64")
    table["reference"] = table["reference"].fillna(table["price"])
    table["step"] = table["step"].fillna(-1.0).astype("int64")

    # An empty cell of a file is the settlement currency.
    table["fee_currency"] = table["fee_currency"].astype(object).fillna("")
    for name in ("instrument", "kind", "fee_currency"):
        table[name] = table[name].astype(str)

    check_rows(fills, table, names, settled)
    warn_of_rebates(table)
    table["traded"] = table["traded"].abs()
    return table


class CellRule(NamedTuple):
    """What a column of fills must be: the rule in words, where it holds, known texts, a cure."""

    column: str
    words: str
    is_good: Any
    known: Sequence[str] = ()
    cure: str = ""


def check_rows(
    stated: pd.DataFrame,
    table: pd.DataFrame,
    names: tuple[str, ...],
    settled: str,
) -> None:
    """Raise ParameterError on the first rule that a row of fills breaks, with the stated cell."""
    for rule in list_rules(table, names, settled):
        if rule.is_good.all():
            continue
        k = int(np.argmin(rule.is_good))
        cell = stated[rule.column].iloc[k]
        hint = core.did_you_mean(str(cell), rule.known) if rule.known else ""
        got = f"{repr_plain(cell)}{hint or explain_comma(cell)}"
        fill = name_fill(k, stated.attrs.get("file", ""))
        raise ParameterError(f"{rule.words}, got {got} ({fill}){rule.cure}")


def list_rules(table: pd.DataFrame, names: tuple[str, ...], settled: str) -> list[CellRule]:
    """Return the rules of all columns; bad debt is of no instrument, and has no price."""
    is_debt = table["kind"] == "bad_debt"
    quantities = table["quantity"]
    fees = table["fee"]
    is_settled = table["fee_currency"].isin(["", settled])
    currency_rule = f"fees must be in the settlement currency, {settled}"
    cure = (
        "; write the fees in the file as what they were worth in it at their times, with "
        f"{settled} as fee_currency"
    )
    if not settled:
        cure = ""
        currency_rule = (
            "fees with a currency need a known settlement currency, which neither the venue nor "
            "the name states; give venue.override({'contract.settles': 'USDT'}) or leave "
            "fee_currency empty"
        )

    rules = [
        CellRule(
            "instrument",
            f"a fill must be of an instrument of the market, {', '.join(names)} "
            f"(read_fills(..., names={{symbol: {names[0]!r}}}) maps symbols)",
            table["instrument"].isin(names) | is_debt,
            known=names,
        ),
        CellRule(
            "kind",
            f"kind must be one of {', '.join(KINDS)}",
            table["kind"].isin(KINDS),
            known=KINDS,
        ),
        CellRule(
            "quantity",
            "quantity must be finite and not 0",
            np.isfinite(quantities) & ((quantities != 0.0) | is_debt),
        ),
        CellRule("fee", "fee must be a finite number", np.isfinite(fees)),
        CellRule("fee_currency", currency_rule, is_settled | (fees == 0.0), cure=cure),
    ]
    for name in ("price", "reference"):
        is_price = (table[name] > 0.0) & np.isfinite(table[name])
        rules.append(CellRule(name, f"{name} must be over 0", is_price | is_debt))
    return rules


def place_fills(
    setup: Setup,
    fills: pd.DataFrame,
    tolerance: float,
) -> dict[int, list[Any]]:
    """Return the fills by bar, those of a bar in the order of time.

    A fill is its row of the completed table, with the columns of :func:`add_places` and of
    :func:`add_values`. Raises ParameterError or DataError on the first row that cannot be so.
    """
    settled = engine.check_settlement(setup.markets, setup.venues)
    named = name_fills(setup.markets, fills)
    table = complete_fills(named, list_owners(setup), settled)
    if "traded" in fills:
        table = count_fills(setup, table)
    where = str(fills.attrs.get("file", ""))
    table = add_values(setup, add_places(setup, table, where))

    is_fitting = find_fitting(setup, table, table["time"].to_numpy(), tolerance)
    facts: list[Any] = list(table.itertuples(index=False))
    if not is_fitting.all():
        k = int(np.argmin(is_fitting))
        hint = describe_shift(setup, table, is_fitting, tolerance)
        raise describe_misfit(setup, facts[k], name_fill(k, where), hint)

    by_bar: dict[int, list[Any]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.time):
        by_bar[fact.bar].append(fact)
    return dict(by_bar)


def add_places(setup: Setup, table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return fills with their ``bar``, the ``place`` of their owner, and ``time`` in ns.

    Places are those of :func:`list_owners`; bad debt, which has no owner, has 0.
    """
    stamps = core.read_stamps(table["time"], name="fills", error=ParameterError)
    time = setup.markets.time
    bars = np.searchsorted(time, stamps, "right") - 1
    check_times(setup, stamps, bars, where)

    # An order that is filled at the close before has the stamp of the open, which is the same time:
    # it is the first step of its bar, if the table states none.
    steps = table["step"]
    if setup.account.fill == "same_close":
        is_at_open = (stamps == time[bars]) & (table["kind"] == "order")
        steps = steps.mask(is_at_open & (steps < 0), 0)

    owners = pd.Index(list_owners(setup))
    places = owners.get_indexer(pd.Index(table["instrument"])).clip(min=0)
    return table.assign(
        time=stamps,
        step=steps,
        bar=bars,
        place=places,
    )


def add_values(setup: Setup, table: pd.DataFrame) -> pd.DataFrame:
    """Return fills with the values of a contract at their reference and at their price.

    They are ``value`` and ``filled``, in the settlement currency. Collateral and bad debt are no
    contracts, and keep their prices.
    """
    values = table["reference"].to_numpy(copy=True)
    values_filled = table["price"].to_numpy(copy=True)
    is_debt = table["kind"] == "bad_debt"
    for name, venue in setup.venues.items():
        is_own = table["instrument"] == name
        rows = np.flatnonzero(is_own & ~is_debt)
        values[rows] = value_of(venue.contract, values[rows])
        values_filled[rows] = value_of(venue.contract, values_filled[rows])
    return table.assign(value=values, filled=values_filled)


def list_owners(setup: Setup) -> tuple[str, ...]:
    """Return the names of what a fill may be of: the instruments, then the collateral."""
    assets = [asset.name for asset in setup.account.collateral]
    return (*setup.markets.names, *assets)


def check_times(setup: Setup, stamps: IntArray, bars: IntArray, where: str) -> None:
    """Raise DataError if a fill lies outside the bars of a replay."""
    time = setup.markets.time
    end = int(time[-1]) + setup.markets.interval
    is_outside: core.BoolArray = (bars < setup.first) | (stamps >= end)
    if not is_outside.any():
        return

    k = int(np.argmax(is_outside))
    start = int(time[setup.first])
    raise DataError(
        f"a fill must lie within the replay, from {format_time(start)} to {format_time(end)}, "
        f"got {format_time(int(stamps[k]))} ({name_fill(k, where)})"
    )


def find_bounds(
    setup: Setup,
    stamps: IntArray,
    places: IntArray,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the lowest and highest price at some times, of the instruments at some places.

    At the open of a bar a fill may be one of the close before it.
    """
    feed = setup.inputs.feed
    bars = (np.searchsorted(feed.time, stamps, "right") - 1).clip(min=0)
    low = feed.low[bars, places]
    high = feed.high[bars, places]

    is_at_open = (bars > 0) & (stamps == feed.time[bars])
    last_close = np.where(is_at_open, feed.close[bars - 1, places], np.nan)
    return np.fmin(low, last_close), np.fmax(high, last_close)


def find_fitting(
    setup: Setup,
    table: pd.DataFrame,
    stamps: IntArray,
    tolerance: float,
) -> core.BoolArray:
    """Return which fills would lie in the range of their bars at some times, or have none, (n,).

    Fills at times outside the replay do not.
    """
    n = len(setup.markets)
    time = setup.markets.time
    is_inside = (stamps >= time[setup.first]) & (stamps < int(time[-1]) + setup.markets.interval)

    # Fills at a limit that the open passed.
    is_resting = (table["step"] == 7) & (table["kind"] == "order")
    is_free = table["kind"].isin(WITHOUT_RANGE) | is_resting | (table["place"] >= n)

    # A reference is a price of the market; a price alone is worsened by slippage.
    reference = table["reference"].to_numpy()
    allowed = np.where(reference != table["price"].to_numpy(), 1e-9, tolerance)
    low, high = find_bounds(setup, stamps, table["place"].to_numpy().clip(max=n - 1))
    is_in_range = (low * (1.0 - allowed) <= reference) & (reference <= high * (1.0 + allowed))
    fitting: core.BoolArray = is_inside & (is_free.to_numpy() | is_in_range)
    return fitting


def describe_shift(
    setup: Setup,
    table: pd.DataFrame,
    is_fitting: core.BoolArray,
    tolerance: float,
) -> str:
    """Return by how many hours the times of fills seem to be off, as a clause, or "".

    That is said if of several fills that do not fit most do with all times moved, and of all nine
    in ten.
    """
    n_failing = int((~is_fitting).sum())
    if n_failing < 2:
        return ""

    stamps = table["time"].to_numpy()
    best = is_fitting
    hours = 0
    for shift in sorted(range(-14, 15), key=abs):
        moved = find_fitting(setup, table, stamps + shift * HOUR, tolerance)
        if moved.sum() > best.sum():
            best = moved
            hours = shift

    n_mended = int(best[~is_fitting].sum())
    if 2 * n_mended <= n_failing or best.mean() < 0.9:
        return ""
    side = "later" if hours > 0 else "earlier"
    return (
        f"; {best.sum():,} of {len(best):,} fills fit if their times are {abs(hours)} h {side}: "
        "are these times UTC?"
    )


def describe_misfit(setup: Setup, fact: Any, fill: str, hint: str) -> DataError:
    """Return the error of a fill whose price lies outside the range of its bar.

    ``hint`` is a clause on its time, or "": then cures for its price are given.
    """
    stamps = np.array([fact.time], dtype=np.int64)
    low, high = find_bounds(setup, stamps, np.array([fact.place], dtype=np.int64))
    cure = hint or "; give the price before slippage as reference, or raise range_tolerance"
    return DataError(
        f"a fill must lie in the range of its bar, {low[0]:.10g} to {high[0]:.10g}, got "
        f"{fact.reference:.10g} ({fill}, {fact.instrument} at {format_time(fact.time)}){cure}"
    )
