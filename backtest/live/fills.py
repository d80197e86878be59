"""Fills of a real account: read from files and ccxt, completed, checked, and placed in bars."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import core, engine
from backtest.account.events import Event
from backtest.core import DataError, IntArray, ParameterError, format_time, repr_plain
from backtest.core.code_names import is_frame, pd
from backtest.engine import Setup
from backtest.live.contracts import count_fills
from backtest.live.state import name_symbols
from backtest.market import read_file, rename_known
from backtest.results.tables import value_of

NEEDED = ("time", "instrument", "quantity", "price", "fee")
COLUMNS = (*NEEDED, "fee_currency", "kind", "reference", "step", "traded")
CCXT = ("timestamp", "symbol", "side", "amount", "price")
KNOWN = (*COLUMNS, *CCXT, "fees", "term", "amount", "equity", "balance")
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
        ccxt's ``fetch_my_trades`` returns, whose ``cost`` becomes ``traded``.
    names : mapping of str to str, optional
        Our instruments by the symbol of the source. Default: ``BTC/USDT:USDT`` is ``BTCUSDT``.
    timezone : str, optional
        The time zone of stamps without one; if omitted, such stamps are refused.
    """
    table, is_file = open_table(source, "fills")
    is_of_ccxt = set(CCXT) <= set(table.columns)
    if not is_of_ccxt:
        check_columns(table)

    try:
        rows = read_trades(table) if is_of_ccxt else table[[x for x in COLUMNS if x in table]]
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
    return rows.sort_values("time", kind="stable", ignore_index=True)


def check_columns(table: pd.DataFrame) -> None:
    """Raise DataError if a table of fills lacks a column that has no usual value."""
    if not {"time", "quantity", "price"} <= set(table.columns):
        raise DataError(
            f"fills must have the columns {', '.join(NEEDED)} (instrument and fee may be left "
            f"out), or ccxt's {', '.join(CCXT)}, got {', '.join(map(str, table.columns))}"
        )
    if "fee" not in table and "fees" in table:
        raise DataError("the column of fees must be called 'fee', got 'fees'")
    if "side" in table:
        check_signs(table)


def check_signs(table: pd.DataFrame) -> None:
    """Raise DataError if a signed quantity is not of the side that stands beside it."""
    signs = table["side"].map(read_side)
    quantities = pd.to_numeric(table["quantity"], errors="coerce")
    is_other = (signs * quantities < 0.0).to_numpy()
    if is_other.any():
        k = int(np.argmax(is_other))
        raise DataError(
            f"a quantity must be signed, negative where its side is sell, got "
            f"{quantities.iloc[k]:g} beside {table['side'].iloc[k]!r} (row {k} of fills); drop "
            "the column 'side', or give the quantity its sign"
        )


def read_side(side: Any) -> float:
    """Return 1 of a buy, -1 of a sell, in letters of any case, and NaN of anything else."""
    return SIDES.get(str(side).strip().lower(), math.nan)


def open_table(source: Any, what: str) -> tuple[pd.DataFrame, bool]:
    """Return a file, table or list of mappings as a table, and whether it was a file."""
    is_file = isinstance(source, str | Path)
    if is_file:
        table = open_file(Path(source), what)
    elif is_frame(source):
        table = source.copy() if source.index.name is None else source.reset_index()
    elif isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        table = pd.DataFrame([dict(row) for row in source], columns=None if source else CCXT)
    else:
        raise DataError(
            f"{what} must be a file, a table or a list of mappings, got {repr_plain(source)}"
        )

    return rename_known(table, KNOWN, what), is_file


def open_file(path: Path, what: str) -> pd.DataFrame:
    """Return the table in a JSON file, or in one of market data's formats."""
    if path.suffix.lower() != ".json":
        return read_file(path)

    try:
        return pd.DataFrame(core.read_json_file(path))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{what} must be a readable file, got {core.describe_fault(error)} ({path})"
        ) from error


def read_trades(table: pd.DataFrame) -> pd.DataFrame:
    """Return trades of ccxt as fills."""
    check_trades(table)
    signs = table["side"].map(read_side)
    if signs.isna().any():
        k = int(np.argmax(signs.isna().to_numpy()))
        side = table["side"].iloc[k]
        raise DataError(f"side must be buy or sell, got {repr_plain(side)} (row {k} of fills)")

    amounts = table["amount"].astype("float64")
    if (amounts < 0.0).any():
        raise DataError(
            f"the amount of a trade must be at least 0, beside its side, got {amounts.min():g}"
        )
    if "id" in table:
        check_ids(table)

    nothing = [None] * len(table)

    # What ccxt has for a fee: a list of them, one, or none.
    listed = table.get("fees", nothing)
    single = table.get("fee", nothing)
    costs = []
    currencies = []
    n_without = 0
    for k, (fees, fee) in enumerate(zip(listed, single, strict=True)):
        paid = read_fee(fees, fee, k)
        n_without += paid is None
        cost, currency = paid or (0.0, "")
        costs.append(cost)
        currencies.append(currency)

    warn_without_fees(n_without)

    columns = {
        "time": table["timestamp"],
        "instrument": table["symbol"],
        "quantity": amounts * signs,
        "price": table["price"].astype("float64"),
        "fee": costs,
        "fee_currency": currencies,
        "traded": pd.to_numeric(table.get("cost", math.nan)),
    }
    return pd.DataFrame(columns)


def check_trades(table: pd.DataFrame) -> None:
    """Raise DataError of orders of ccxt: their amounts need not be filled, nor at their times."""
    of_orders = [name for name in ("filled", "remaining", "status") if name in table]
    if of_orders:
        raise DataError(
            f"fills must be trades, got orders of ccxt, which have {', '.join(of_orders)}: the "
            "amount of an order may be filled in part, later, or never; save what "
            "fetch_my_trades returns"
        )


def check_ids(table: pd.DataFrame) -> None:
    """Raise DataError if a trade of ccxt has two rows; a buy may have the id of a sell."""
    trades = table.loc[table["id"].notna(), ["symbol", "side", "id"]].astype(str)
    twice = trades[trades.duplicated()]
    if len(twice) == 0:
        return

    symbol, _, number = twice.iloc[0]
    raise DataError(
        f"a trade may have one row, got {number!r} of {symbol} again (row {twice.index[0]} of "
        f"fills); leave out the {len(twice):,} rows that are there twice"
    )


def read_fee(listed: Any, single: Any, row: int) -> tuple[float, str] | None:
    """Return the cost of a trade of ccxt and its currency, or None if it says none.

    Of ``fees`` and ``fee`` the first that has a cost counts, never both.
    """
    for stated in (listed, single):
        entries = stated if isinstance(stated, list | tuple) else [stated]

        costs = []
        currencies = []
        for entry in entries:
            if not isinstance(entry, Mapping):
                check_no_fee(entry, row)
            elif entry.get("cost") is not None:
                costs.append(float(entry["cost"]))
                currencies.append(str(entry.get("currency") or ""))

        paid = zip(costs, currencies, strict=True)
        charged = dict.fromkeys(currency for cost, currency in paid if cost != 0.0)
        if len(charged) > 1:
            raise DataError(
                "the fees of a trade must be in one currency, got "
                f"{' and '.join(map(repr, charged))} (row {row} of fills)"
            )
        if costs:
            return math.fsum(costs), next(iter(charged), "")
    return None


def check_no_fee(entry: Any, row: int) -> None:
    """Raise DataError unless what stands for a fee, and is no mapping, is an empty cell."""
    if pd.isna(entry):
        return
    raise DataError(
        "the fee of a trade must be a mapping of cost and currency, got "
        f"{repr_plain(entry)} (row {row} of fills); save trades of ccxt as JSON"
    )


def warn_without_fees(count: int) -> None:
    if count:
        warnings.warn(f"{count:,} fills have no fee, and pay none", stacklevel=2)


def complete_fills(
    fills: pd.DataFrame,
    names: tuple[str, ...],
    settled: str,
) -> pd.DataFrame:
    """Return fills with all columns, each of one type."""
    missing = [name for name in ("time", "quantity", "price") if name not in fills]
    if missing:
        raise ParameterError(
            f"fills must have the columns {', '.join(NEEDED)}, got no {', '.join(missing)}; "
            "bt.read_fills reads ccxt's fetch_my_trades"
        )
    if "fee" not in fills:
        warn_without_fees(len(fills))

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
    table["traded"] = table["traded"].abs()
    return table


class CellRule(NamedTuple):
    """What a column of fills must be: the rule in words, where it holds, and the known texts."""

    column: str
    words: str
    is_good: Any
    known: Sequence[str] = ()


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
        raise ParameterError(f"{rule.words}, got {repr_plain(cell)}{hint} (row {k} of fills)")


def list_rules(table: pd.DataFrame, names: tuple[str, ...], settled: str) -> list[CellRule]:
    """Return the rules of all columns; bad debt is of no instrument, and has no price."""
    is_debt = table["kind"] == "bad_debt"
    quantities = table["quantity"]
    fees = table["fee"]
    is_settled = table["fee_currency"].isin(["", settled])
    currency_rule = f"fees must be in the settlement currency, {settled}"
    if not settled:
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
        CellRule("fee_currency", currency_rule, is_settled | (fees == 0.0)),
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
    table = complete_fills(fills, list_owners(setup), settled)
    if "traded" in fills:
        table = count_fills(setup, table)
    table = add_values(setup, add_places(setup, table))

    facts: list[Any] = list(table.itertuples(index=False))
    for k, fact in enumerate(facts):
        check_range(setup, fact, k, tolerance)

    by_bar: dict[int, list[Any]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.time):
        by_bar[fact.bar].append(fact)
    return dict(by_bar)


def add_places(setup: Setup, table: pd.DataFrame) -> pd.DataFrame:
    """Return fills with their ``bar``, the ``place`` of their owner, and ``time`` in ns.

    Places are those of :func:`list_owners`; bad debt, which has no owner, has 0.
    """
    stamps = core.read_stamps(table["time"], name="fills", error=ParameterError)
    time = setup.markets.time
    bars = np.searchsorted(time, stamps, "right") - 1
    check_times(setup, stamps, bars)

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


def check_times(setup: Setup, stamps: IntArray, bars: IntArray) -> None:
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
        f"got {format_time(int(stamps[k]))} (row {k} of fills)"
    )


def check_range(
    setup: Setup,
    fact: Any,
    k: int,
    tolerance: float,
) -> None:
    """Raise DataError if the price of fill k lies outside its bar, where that bounds it."""
    is_of_asset = fact.place >= len(setup.markets)
    is_resting = fact.step == 7 and fact.kind == "order"  # fills at a limit that the open passed
    if fact.kind in WITHOUT_RANGE or is_of_asset or is_resting:
        return

    feed = setup.inputs.feed
    bar = fact.bar
    i = fact.place
    low = float(feed.low[bar, i])
    high = float(feed.high[bar, i])

    # At the open a fill may be one of the close before it.
    if bar > 0 and fact.time == int(feed.time[bar]):
        last_close = feed.close[bar - 1, i]
        low = float(np.nanmin([low, last_close]))
        high = float(np.nanmax([high, last_close]))

    # A reference is a price of the market; a price alone is worsened by slippage.
    allowed = 1e-9 if fact.reference != fact.price else tolerance
    if low * (1.0 - allowed) <= fact.reference <= high * (1.0 + allowed):
        return
    raise DataError(
        f"a fill must lie in the range of its bar, {low:.10g} to {high:.10g}, got "
        f"{fact.reference:.10g} (row {k} of fills, {fact.instrument} at "
        f"{format_time(fact.time)}); give the price before slippage as reference, or raise "
        "range_tolerance"
    )
