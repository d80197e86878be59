"""Chains: the quotes of many options at one or several instants, read, inspected and completed."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backtest import core
from backtest.core import DataError, ParameterError, checked, count_nouns, did_you_mean, repr_given
from backtest.core.code_names import pd
from backtest.core.units import YEAR_DAYS
from backtest.market import Defects, read_file, rename_known, suffix_of, to_floats
from backtest.market.files import SUFFIXES
from backtest.options.pricing import Settlement, implied_volatility, price, volatility_reason
from backtest.venue import format_strike

NUMBERS = ("bid", "ask", "mark", "iv", "forward", "index")
REQUIRED = ("time", "expiry", "strike", "kind", "bid", "ask")
COLUMNS = (
    "time",
    "underlying",
    "expiry",
    "strike",
    "kind",
    *NUMBERS,
    "forward_source",
    "quoted",
    "name",
)
SOURCES = ("future", "synthetic", "given", "parity", "index", "none")
"""Where a forward may come from."""
SYNTHETIC = "SYN."
"""How Deribit names a future that it computes where none trades."""
FRAME = "frame"
"""Where a chain is read from if it is no file."""
KINDS = {"call": "call", "put": "put", "c": "call", "p": "put"}


DERIBIT = {
    "timestamp": "time",
    "currency": "underlying",
    "expiry_datetime": "expiry",
    "strike": "strike",
    "option_type": "kind",
    "bid_price": "bid",
    "ask_price": "ask",
    "mark_price": "mark",
    "implied_volatility": "iv",
    "underlying": "forward",
    "index_price": "index",
    "futures_instrument_name": "future",
    "instrument_name": "name",
}
"""Our columns by those of Deribit, whose prices are in coins."""


def read_table(
    frame: pd.DataFrame,
    *,
    where: str,
    timezone: str | None = None,
) -> tuple[pd.DataFrame, str]:
    """Return the rows of a frame in our columns, and the settlement that its columns tell, or "".

    Raises DataError with all defects.
    """
    frame = rename_known(frame, {*DERIBIT, *COLUMNS, "future"}, where)

    # Two columns that no other table has; Deribit's prices are in coins.
    is_deribit = {"instrument_name", "option_type"} <= {*frame.columns}
    settlement = "coin" if is_deribit else ""

    renamed = pick_columns(frame, is_deribit=is_deribit)
    check_required(frame, renamed, where)

    defects = Defects()
    columns = read_columns(renamed, defects, where=where, timezone=timezone)
    defects.refuse(where)

    table = pd.DataFrame(columns)
    check_numbers(table, where)
    return complete(table), settlement


def pick_columns(frame: pd.DataFrame, *, is_deribit: bool) -> pd.DataFrame:
    """Return the columns that are known, by our names."""
    names = {name: name for name in (*COLUMNS, "future")}
    if is_deribit:
        names = DERIBIT
    known = {theirs: ours for theirs, ours in names.items() if theirs in frame.columns}
    return frame[list(known)].rename(columns=known).reset_index(drop=True)


def check_required(
    frame: pd.DataFrame,
    renamed: pd.DataFrame,
    where: str,
) -> None:
    """Require the columns that no chain is without, and a row."""
    missing = [name for name in REQUIRED if name not in renamed]
    if missing:
        present = [str(name) for name in frame.columns]
        raise DataError(
            f"a chain needs the columns {', '.join(missing)}, got {', '.join(present[:8])}"
            f"{did_you_mean(missing[0], present)} ({where})"
        )
    if not len(frame):
        raise DataError(f"a chain needs at least one row, got none ({where})")


def read_columns(
    renamed: pd.DataFrame,
    defects: Defects,
    *,
    where: str,
    timezone: str | None,
) -> dict[str, object]:
    """Return the columns as times, floats and texts; append what cannot be read to ``defects``.

    ``renamed`` has our names of columns, and ``where`` says in errors where it is from.
    """
    columns: dict[str, object] = {}

    # A row without a stamp of its own was quoted at the snapshot.
    for name in ("time", "expiry", "quoted"):
        stamps = renamed[name] if name in renamed else renamed["time"]
        with defects.catch():
            times = core.read_stamps(
                stamps,
                name=f"{where}, {name}",
                timezone=timezone,
                is_file=where != FRAME,
            )
            columns[name] = pd.DatetimeIndex(times, tz="UTC")

    # A number that the table does not have is NaN in each row.
    for name in ("strike", *NUMBERS):
        numbers = pd.Series(np.nan, renamed.index)
        if name in renamed:
            numbers = renamed[name]
        with defects.catch():
            columns[name] = to_floats(numbers, column=name, name=where)

    columns["kind"] = read_kinds(renamed["kind"], defects, where)
    for name in ("underlying", "name"):
        columns[name] = renamed[name].astype(str) if name in renamed else ""

    # Where forwards are from: our words, or the venue's names of futures, where None is no future.
    columns["forward_source"] = ""
    if "forward_source" in renamed:
        columns["forward_source"] = renamed["forward_source"].astype(str)
    elif "future" in renamed:
        columns["forward_source"] = renamed["future"].astype(object)
    return columns


def read_kinds(texts: pd.Series, defects: Defects, where: str) -> np.ndarray:
    """Return "call" or "put" of each row; append to ``defects`` if a text is neither."""
    kinds = texts.astype(str).str.lower().map(KINDS)
    is_unknown = kinds.isna()
    if is_unknown.any():
        first = texts[is_unknown].iloc[0]
        n_unknown = int(is_unknown.sum())
        defects.append(
            f"kind must be call or put, got {first!r} in {n_unknown} of {len(texts)} rows ({where})"
        )
    return kinds.to_numpy(dtype=str)


def check_numbers(table: pd.DataFrame, where: str) -> None:
    """Require that the numbers of all rows are in range; a NaN stands for no number."""
    prices = table[["bid", "ask", "mark"]]
    with_forward = table[["bid", "ask", "mark", "forward"]]
    bad_rows = {
        "strike must be positive": ~(table["strike"] > 0.0),
        "a forward must be positive": table["forward"] <= 0.0,
        "an index must be positive": table["index"] <= 0.0,
        "prices must not be negative": (prices < 0.0).any(axis=1),
        "volatility must be finite and not negative": (table["iv"] < 0.0) | np.isinf(table["iv"]),
        "prices must be finite": np.isinf(with_forward).any(axis=1),
    }

    defects = Defects()
    for rule, is_bad in bad_rows.items():
        if not is_bad.any():
            continue
        first_bad = table.loc[is_bad].iloc[0]
        numbers = first_bad[["strike", *NUMBERS]].to_dict()
        row = int(np.flatnonzero(is_bad)[0]) + 1
        defects.append(
            f"{rule}, got {numbers} in {int(is_bad.sum())} of {len(table)} rows "
            f"({where}, row {row})"
        )
    defects.refuse(where)


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Return sorted rows with sources of forwards and names; a quote of 0 becomes none (NaN).

    Writes into ``table``.
    """
    for name in ("bid", "ask"):
        table[name] = table[name].where(table[name] > 0.0)
    write_sources(table)
    write_names(table)
    keys = ["time", "underlying", "expiry", "strike", "kind"]
    return table[list(COLUMNS)].sort_values(keys, kind="stable", ignore_index=True)


def write_sources(table: pd.DataFrame) -> None:
    """Write where the forward of each row comes from into ``forward_source``, as one of our words.

    A table names no sources, has our words already, or has the venue's names of futures.
    """
    source = table["forward_source"]
    has_forward = table["forward"].notna()

    # No names: what is there was given.
    if (source == "").all():
        table["forward_source"] = np.where(has_forward, "given", "none")
        return

    # Our words, of a table that was saved.
    if source.isin(SOURCES).all():
        return

    # The venue's names. What it computes itself, without a future, has a prefix.
    is_synthetic = source.astype(str).str.startswith(SYNTHETIC)
    word = np.where(is_synthetic, "synthetic", "future")
    table["forward_source"] = np.where(source.notna() & has_forward, word, "none")


def write_names(table: pd.DataFrame) -> None:
    """Write a name such as BTC-1JAN26-60000-C where a row has none."""
    unnamed = table[table["name"] == ""]
    if not len(unnamed):
        return

    underlying = unnamed["underlying"]
    head = underlying.where(underlying != "", "OPTION")
    date = unnamed["expiry"].dt.strftime("%d%b%y")
    day = date.str.upper().str.lstrip("0")  # 1JAN26
    strike = unnamed["strike"].map(format_strike)
    letter = unnamed["kind"].str[0].str.upper()

    names = head + "-" + day + "-" + strike + "-" + letter
    table.loc[unnamed.index, "name"] = names


NEAREST = 3
"""Strikes nearest the money whose parities are averaged by their median."""


def find_parity(rows: pd.DataFrame, settlement: str) -> float:
    """Return the forward of an expiry by put-call parity, NaN without a pair of quotes.

    ``rows`` are the quotes of one expiry. With C and P the middle prices of call and put of one
    strike K: in cash ``C - P = F - K``, undiscounted; in coins ``C - P = 1 - K / F``.
    """
    mid = (0.5 * (rows["bid"] + rows["ask"])).to_numpy()
    quotes = pd.DataFrame({"strike": rows["strike"], "kind": rows["kind"], "mid": mid})
    by_strike = quotes.pivot_table(
        index="strike",
        columns="kind",
        values="mid",
        aggfunc="first",
    )
    if not {"call", "put"} <= {*by_strike.columns}:
        return math.nan

    # C - P. The smallest differences are those of the strikes nearest to the forward.
    difference = (by_strike["call"] - by_strike["put"]).dropna()
    sizes = difference.abs().to_numpy()
    nearest = np.argsort(sizes, kind="stable")[:NEAREST]
    strikes = difference.index.to_numpy(dtype=np.float64)[nearest]
    values = difference.to_numpy()[nearest]

    # F by the formula of the settlement. Quotes that give none over 0 are left out.
    if settlement == "coin":
        is_possible = values < 1.0
        forwards = strikes[is_possible] / (1.0 - values[is_possible])
    else:
        forwards = strikes + values
        forwards = forwards[forwards > 0.0]

    # The median: a single wrong quote does not decide it.
    if not forwards.size:
        return math.nan
    return float(np.median(forwards))


KEYS = ["time", "underlying"]
AGREEMENT = 1e-4
"""Largest difference between a mark and the price of its volatility, in coins or parts of the
forward, and between forwards of one expiry, relative."""


CHECKS: dict[str, tuple[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "crossed": ("the bid is above the ask", lambda r: r["bid"] > r["ask"]),
    "outside_bounds": (
        "a bid is at or above the largest value, or an ask at the intrinsic value",
        lambda r: (r["bid"] >= r["most"]) | (r["ask"] <= r["least"]) & (r["least"] > 0.0),
    ),
    "disagrees": (
        "mark, forward and volatility do not agree to 1e-4",
        lambda r: (r["mark"] - r["model"]).abs() * r["per_coin"] > AGREEMENT,
    ),
    "duplicated": (
        "the same contract occurs twice",
        lambda r: r.duplicated([*KEYS, "expiry", "strike", "kind"]),
    ),
    "no_future": (
        "the expiry has no future: its forward is from put-call parity or the index",
        lambda r: r["forward_source"].isin(["parity", "index"]),
    ),
    "no_forward": ("the expiry has no forward at all", lambda r: r["forward"].isna()),
    "forward_differs": (
        "the forward differs from that of its expiry by over 1e-4",
        lambda r: (r["forward"] / r["usual"] - 1.0).abs() > AGREEMENT,
    ),
    "stale": (
        "the row was quoted over five minutes before the snapshot",
        lambda r: r["time"] - r["quoted"] > np.timedelta64(5, "m"),
    ),
    "expired": ("the expiry is not after the snapshot", lambda r: r["years"] <= 0.0),
}
"""What each check of a quote says, and how it finds the rows."""


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What is wrong with the quotes of a chain.

    Parameters
    ----------
    table : DataFrame
        A row per snapshot and underlying: ``quotes``, ``two_sided``, and the number of rows for
        each of the checks.
    rows : DataFrame
        A row per defect: time, underlying, name and ``check``.
    """

    table: pd.DataFrame
    rows: pd.DataFrame

    @property
    def total(self) -> pd.Series:
        """The number of rows for each check, over all snapshots."""
        return self.table[[*CHECKS]].sum()

    def __repr__(self) -> str:
        counts = self.table[["quotes", "two_sided"]].sum()
        quotes = count_nouns(counts["quotes"], "quote")
        snapshots = count_nouns(self.table["time"].nunique(), "snapshot")
        lines = [f"{quotes} in {snapshots}, {counts['two_sided']:,} with bid and ask"]

        for name, count in self.total.items():
            if not count:
                continue

            text, _ = CHECKS[str(name)]
            share = core.format_percent(count / counts["quotes"], 1)
            first = self.rows[self.rows["check"] == name].iloc[0]
            time = f"{first['time']:%Y-%m-%d %H:%M}"
            lines.append(f"{count:>8,} ({share}): {text}; first {first['name']} at {time}")

        # The first line is there always.
        if len(lines) == 1:
            lines.append("no defect found")
        return "\n".join(lines)


MAX_NAMES = 5
"""Number of names that a message lists."""


@dataclass(frozen=True, eq=False, repr=False)
class Chain:
    """Quotes of options, by snapshot, underlying, expiry, strike and kind.

    Build it with :meth:`load` or :meth:`from_frame`.

    Parameters
    ----------
    table : DataFrame
        A row per quote, sorted: ``time`` and ``expiry`` (UTC), ``underlying``, ``strike``, ``kind``
        ("call" or "put"), ``bid``, ``ask`` and ``mark`` (per unit of the underlying, in the
        currency of settlement; NaN if there is none), ``iv`` (of the mark, per sqrt(year)),
        ``forward`` of the same expiry, ``index``, ``forward_source`` ("future"; "synthetic" where
        the venue computes it; "given", "parity", "index" or "none"), ``quoted`` (the row's own
        stamp) and ``name``.
    settlement : "cash" or "coin"
        Whether prices are in the quote currency, or in coins of the underlying.
    source : str
        The file.
    """

    table: pd.DataFrame
    settlement: Settlement
    source: str = ""

    @classmethod
    @checked
    def load(
        cls,
        path: str | Path,
        *,
        settlement: str | None = None,
        timezone: str | None = None,
    ) -> Chain:
        """Read a file of quotes, or a folder of them: Parquet, Feather, CSV or JSON.

        Raises DataError if the file cannot be read, or is no chain; all defects are listed;
        ParameterError if the settlement is needed and missing.

        Parameters
        ----------
        path : str or Path
            A folder, or a table in Deribit's columns (``instrument_name``, ``option_type``,
            ``mark_price``, …), or with the columns ``time, expiry, strike, kind, bid, ask`` and
            optionally ``mark, iv, forward, index, underlying, quoted, name``.
        settlement : "cash" or "coin", optional
            Needed for plain tables; Deribit's are in coins.
        timezone : str, optional
            The time zone of stamps without one; if omitted, such stamps are refused.
        """
        source = Path(path)
        if not source.is_dir():
            return cls._build(read_file(source), settlement, str(source), timezone)

        files = [file for file in sorted(source.iterdir()) if suffix_of(file) in SUFFIXES]
        if not files:
            raise DataError(
                f"a folder of chains needs files that end in {', '.join(SUFFIXES)}, got none in "
                f"{path}"
            )

        chains = [cls._build(read_file(file), settlement, str(file), timezone) for file in files]
        if len({chain.settlement for chain in chains}) > 1:
            raise DataError(
                f"the files of a folder must settle alike, got cash and coin ({source})"
            )

        table = pd.concat([chain.table for chain in chains], ignore_index=True)
        ordered = table.sort_values("time", kind="stable", ignore_index=True)
        return cls(ordered, chains[0].settlement, str(source))

    @classmethod
    @checked
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        settlement: str | None = None,
        timezone: str | None = None,
    ) -> Chain:
        """Return the chain of a frame; see :meth:`load`."""
        return cls._build(frame, settlement, FRAME, timezone)

    @classmethod
    def sample(cls) -> Chain:
        """Return a synthetic chain of five expiries, whose underlying is called SYNTHETIC."""
        return cls._build(write_sample(), "coin", "sample")

    @classmethod
    def _build(
        cls,
        frame: pd.DataFrame,
        settlement: str | None,
        source: str,
        timezone: str | None = None,
    ) -> Chain:
        table, known = read_table(frame, where=source, timezone=timezone)
        chosen = core.Choice("cash", "coin").check("settlement", settlement or known or None)
        return cls(fill_forwards(table, chosen), chosen, source)

    def __repr__(self) -> str:
        names = ", ".join(map(name_underlying, self.underlyings))
        quotes = count_nouns(len(self.table), "quote")
        expiries = count_nouns(self.table["expiry"].nunique(), "expiry", "expiries")

        times = self.times
        span = f"{times[0]:%Y-%m-%d %H:%M}"
        if len(times) > 1:
            span = f"{span} to {times[-1]:%Y-%m-%d %H:%M}, {len(times)} snapshots"
        return f"Chain({names}: {quotes}, {expiries}, {span})"

    def __len__(self) -> int:
        return len(self.table)

    @property
    def times(self) -> pd.DatetimeIndex:
        """The instants of the snapshots, increasing."""
        return pd.DatetimeIndex(self.table["time"].unique()).sort_values()

    @property
    def underlyings(self) -> list[str]:
        """Names of the underlyings."""
        return sorted(self.table["underlying"].unique())

    @property
    def years(self) -> core.FloatArray:
        """Time to expiry of each row, in years of 365 days."""
        left = self.table["expiry"] - self.table["time"]
        days = left.dt.total_seconds() / 86_400.0
        return np.asarray(days.to_numpy() / YEAR_DAYS, dtype=np.float64)

    def select(self, underlying: str | None = None, time: core.TimeLike | None = None) -> Chain:
        """Return the quotes of one underlying, of the last snapshot at or before a time, or both.

        Raises ParameterError if there is no such underlying; DataError if no snapshot is that old.
        """
        table = self.table
        if underlying is not None:
            self._check_underlying(underlying)
            table = table[table["underlying"] == underlying]

        # The last snapshot at or before the time.
        if time is not None:
            stamp = core.to_nanoseconds(time, "time")
            instant = core.utc_index(np.array([stamp]))[0]
            is_known = table["time"] <= instant
            if not is_known.any():
                raise DataError(
                    f"no snapshot is at or before {time}, the first is of "
                    f"{table['time'].min():%Y-%m-%d %H:%M} UTC ({self.source})"
                )
            last_known = table.loc[is_known, "time"].max()
            table = table[table["time"] == last_known]
        return Chain(table.reset_index(drop=True), self.settlement, self.source)

    def _check_underlying(self, underlying: str) -> None:
        names = self.underlyings
        if underlying in names:
            return
        rule = "be left out" if names == [""] else f"be one of {list_names(names)}"
        raise ParameterError(
            f"underlying must {rule}, got {repr_given(underlying)}"
            f"{did_you_mean(underlying, names)} ({self.source})"
        )

    def only(self, underlying: str | None = None) -> Chain:
        """Return the quotes of one underlying at one instant: of the only one if none is named.

        Raises ParameterError where there are several.
        """
        chosen = self if underlying is None else self.select(underlying)
        underlyings = [*map(name_underlying, chosen.underlyings)]
        times = [f"{time:%Y-%m-%d %H:%M}" for time in chosen.times]
        self._check_single("underlying", underlyings, argument="underlying")
        self._check_single("snapshot", times, argument="time")
        return chosen

    def _check_single(
        self,
        noun: str,
        names: list[str],
        *,
        argument: str,
    ) -> None:
        if len(names) > 1:
            raise ParameterError(
                f"one {noun} is needed, got {len(names)}: {list_names(names)} ({self.source}); "
                f"choose one with chain.select({argument}=...)"
            )

    def inspect(self) -> Inspection:
        """Return the defects of the quotes, counted by snapshot and underlying."""
        rows = self.table.assign(years=self.years)
        is_two_sided = rows["bid"].notna() & rows["ask"].notna()
        counts = rows[KEYS].assign(quotes=1, two_sided=is_two_sided.astype(int))

        # Each check counts in a column of its own.
        with_bounds = self._add_bounds(rows)
        defects = []
        for name, (_, find_bad) in CHECKS.items():
            is_bad = find_bad(with_bounds)
            counts[name] = is_bad.astype(int)
            bad_rows = rows.loc[is_bad, [*KEYS, "name"]]
            defects.append(bad_rows.assign(check=name))
        table = counts.groupby(KEYS, sort=True).sum().reset_index()
        return Inspection(table, pd.concat(defects, ignore_index=True))

    def _add_bounds(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return rows with what CHECKS compare: bounds and model of prices, forwards of others.

        ``least`` and ``most`` bound a price, ``model`` is the price of ``iv``, ``per_coin`` turns a
        price into coins, and ``usual`` is the forward of most rows of the expiry.
        """
        forward = rows["forward"]
        strike = rows["strike"]
        is_call = rows["kind"] == "call"

        # Prices are in cash or in coins: ``unit`` is what one unit of a price is worth in cash.
        unit: Any = 1.0
        per_coin: Any = 1.0 / forward
        if self.settlement == "coin":
            unit = forward
            per_coin = 1.0

        # A price lies between what exercise brings and the forward, or the strike of a put.
        sign = np.where(is_call, 1.0, -1.0)
        intrinsic = np.maximum(sign * (forward - strike), 0.0)
        largest = np.where(is_call, forward, strike)

        # The model has a price where mark, volatility and forward are known before expiry.
        has_numbers = rows[["mark", "iv", "forward"]].notna().all(axis=1)
        has_model = has_numbers & (rows["years"] > 0.0)
        numbers = rows[["forward", "strike", "years", "iv"]].where(has_model)
        forwards, strikes, years, volatilities = numbers.to_numpy().T
        kinds = rows["kind"].to_numpy(dtype=str)
        model = price(
            kinds,
            forwards,
            strikes,
            years,
            volatilities,
            settlement=self.settlement,
        )

        forwards_of_expiry = rows.groupby([*KEYS, "expiry"])["forward"]
        return rows.assign(
            least=intrinsic / unit,
            most=largest / unit,
            model=model,
            per_coin=per_coin,
            usual=forwards_of_expiry.transform("median"),
        )

    def implied(self) -> pd.DataFrame:
        """Return the volatilities of bids, asks and marks.

        Returns
        -------
        DataFrame
            The rows of :attr:`table` with ``years``, ``bid_iv``, ``ask_iv``, ``mark_iv`` (per
            sqrt(year), NaN where there is none) and ``reason``: why the mark has none.
        """
        rows = self.table.assign(years=self.years)
        is_good = (rows["forward"] > 0.0) & (rows["years"] > 0.0)
        numbers = rows[["forward", "strike", "years"]].where(is_good)  # else NaN
        forwards, strikes, years = numbers.to_numpy().T
        kinds = rows["kind"].to_numpy(dtype=str)

        # By side; a price that implies no volatility has NaN.
        for side in ("bid", "ask", "mark"):
            prices = rows[side].to_numpy()
            rows[f"{side}_iv"] = implied_volatility(
                kinds,
                prices,
                forwards,
                strikes,
                years,
                settlement=self.settlement,
            )

        # Why a mark has none: its terms are missing, or what the price itself says.
        marks = rows["mark"].to_numpy()
        reasons = volatility_reason(
            kinds,
            marks,
            forwards,
            strikes,
            years,
            settlement=self.settlement,
        )
        without_terms = np.where(rows["years"] > 0.0, "no forward", "no time to expiry")
        rows["reason"] = np.where(is_good, reasons, without_terms).astype(object)
        return rows


def fill_forwards(table: pd.DataFrame, settlement: str) -> pd.DataFrame:
    """Return rows with a forward where none was quoted: by put-call parity, else the index."""
    filled = table.copy()
    has_none = (table["forward_source"] == "none").to_numpy()
    expiries = table.groupby(["time", "underlying", "expiry"], sort=False).indices
    for places in expiries.values():
        has_none_here = has_none[places]
        if not has_none_here.any():
            continue

        # All rows of the expiry may give the parity; those without a forward get it.
        rows = table.iloc[places]
        to_fill = rows.index[has_none_here]
        forward = find_parity(rows, settlement)
        source = "parity"
        if np.isnan(forward):
            forward = float(rows.loc[to_fill, "index"].median())
            source = "index"
        if np.isnan(forward):
            source = "none"

        filled.loc[to_fill, "forward"] = forward
        filled.loc[to_fill, "forward_source"] = source
    return filled


def name_underlying(name: str) -> str:
    """Return a name, or words for an empty one."""
    return name or "unnamed underlying"


def list_names(names: Sequence[str]) -> str:
    """Return the first names in words, and how many more there are."""
    shown = ", ".join(map(name_underlying, names[:MAX_NAMES]))
    if len(names) > MAX_NAMES:
        return f"{shown} and {len(names) - MAX_NAMES} more"
    return shown


TIME = dt.datetime(2023, 1, 1, 12, tzinfo=dt.UTC)
SPOT = 100_000.0
DAYS = (2.0, 7.0, 30.0, 90.0, 180.0)
SPREAD = 0.01
"""The sample: its instant, spot price, days to expiry, and half a spread in volatility."""


def write_sample() -> pd.DataFrame:
    """Return the quotes of the sample: 21 strikes of each of five expiries, prices in coins."""
    time = pd.Timestamp(TIME)
    parts = []
    for days in DAYS:
        # Strikes in standard deviations from the forward; the smile is one parabola in these.
        years = days / 365.0
        forward = SPOT * math.exp(0.06 * years)
        deviation = 0.5 * math.sqrt(years)
        even = np.linspace(-2.5, 2.5, 21)
        strike = np.round(forward * np.exp(even * deviation), -2)

        # Strikes are rounded to hundreds: the smile is that of the rounded ones.
        z = np.log(strike / forward) / deviation
        volatility = 0.5 - 0.05 * z + 0.02 * z * z

        for kind in ("call", "put"):
            quote = partial(price, kind, forward, strike, years, rate=0.0, settlement="coin")
            rows = pd.DataFrame({"strike": strike, "iv": volatility})
            rows = rows.assign(
                time=time,
                expiry=time + pd.Timedelta(days=days),
                kind=kind,
                forward=forward,
                index=SPOT,
                underlying="SYNTHETIC",
                bid=quote(volatility=volatility - SPREAD),
                mark=quote(volatility=volatility),
                ask=quote(volatility=volatility + SPREAD),
            )
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)
