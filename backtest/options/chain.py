"""Chains: the quotes of many options at one or several instants, read, inspected and completed."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtest import core
from backtest.core import DataError, ParameterError, checked, count_nouns, did_you_mean, repr_given
from backtest.core.code_names import pd
from backtest.core.units import YEAR_DAYS
from backtest.market import Defects, read_file, rename_known, suffix_of, to_floats
from backtest.market.files import SUFFIXES
from backtest.options.pricing import Settlement, implied_volatility, price, volatility_reason

NUMBERS = ("bid", "ask", "mark", "iv", "forward", "index")
REQUIRED = ("time", "expiry", "strike", "kind", "bid", "ask")
COLUMNS = (
    "time", "underlying", "expiry", "strike", "kind", *NUMBERS, "forward_source", "quoted", "name",
)  # fmt: skip
SOURCES = ("future", "synthetic", "given", "parity", "index", "none")
SYNTHETIC = "SYN."
FRAME = "frame"
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
    frame: pd.DataFrame, *, where: str, timezone: str | None = None
) -> tuple[pd.DataFrame, str]:
    frame = rename_known(frame, {*DERIBIT, *COLUMNS, "future"}, where)
    is_deribit = {"instrument_name", "option_type"} <= {*frame.columns}
    names = DERIBIT if is_deribit else {name: name for name in (*COLUMNS, "future")}
    known = {old: new for old, new in names.items() if old in frame.columns}
    renamed = frame[list(known)].rename(columns=known).reset_index(drop=True)
    missing = [name for name in REQUIRED if name not in renamed]
    if missing:
        found = [str(each) for each in frame.columns]
        raise DataError(
            f"a chain needs the columns {', '.join(missing)}, got {', '.join(found[:8])}"
            f"{did_you_mean(missing[0], found)} ({where})"
        )
    if not len(frame):
        raise DataError(f"a chain needs at least one row, got none ({where})")
    read, defects, is_file = dict[str, object](), Defects(), where != FRAME
    for name in ("time", "expiry", "quoted"):
        given = renamed[name] if name in renamed else renamed["time"]
        with defects.catch():
            label = f"{where}, {name}"
            stamps = core.read_stamps(given, name=label, timezone=timezone, is_file=is_file)
            read[name] = pd.DatetimeIndex(stamps, tz="UTC")
    for name in ("strike", *NUMBERS):
        given = renamed[name] if name in renamed else pd.Series(np.nan, renamed.index)
        with defects.catch():
            read[name] = to_floats(given, column=name, name=where)
    kinds = renamed["kind"].astype(str).str.lower().map(KINDS)
    if kinds.isna().any():
        first = renamed["kind"][kinds.isna()].iloc[0]
        odd = f"got {first!r} in {int(kinds.isna().sum())} of {len(renamed)} rows"
        defects.append(f"kind must be call or put, {odd} ({where})")
    read["kind"] = kinds.to_numpy(dtype=str)
    for name in ("underlying", "name"):
        read[name] = renamed[name].astype(str) if name in renamed else ""
    future = renamed.get("future")
    read["forward_source"] = "" if future is None else future.astype(object)
    if "forward_source" in renamed:
        read["forward_source"] = renamed["forward_source"].astype(str)
    defects.refuse(where)
    table = pd.DataFrame(read)
    rules = {
        "strike must be positive": ~(table["strike"] > 0.0),
        "a forward must be positive": table["forward"] <= 0.0,
        "an index must be positive": table["index"] <= 0.0,
        "prices must not be negative": (table[["bid", "ask", "mark"]] < 0.0).any(axis=1),
        "volatility must be finite and not negative": (table["iv"] < 0.0) | np.isinf(table["iv"]),
        "prices must be finite": np.isinf(table[["bid", "ask", "mark", "forward"]]).any(axis=1),
    }
    Defects(
        f"{rule}, got {table.loc[bad].iloc[0][['strike', *NUMBERS]].to_dict()} in "
        f"{int(bad.sum())} of {len(table)} rows "
        f"({where}, row {int(np.flatnonzero(bad)[0]) + 1})"
        for rule, bad in rules.items()
        if bad.any()
    ).refuse(where)
    return complete(table), "coin" if is_deribit else ""


def complete(table: pd.DataFrame) -> pd.DataFrame:
    for name in ("bid", "ask"):
        table[name] = table[name].where(table[name] > 0.0)
    source = table["forward_source"]
    if (source == "").all():
        table["forward_source"] = np.where(table["forward"].notna(), "given", "none")
    elif not source.isin(SOURCES).all():
        is_synthetic = source.astype(str).str.startswith(SYNTHETIC)
        known = np.where(is_synthetic, "synthetic", "future")
        table["forward_source"] = np.where(source.notna() & table["forward"].notna(), known, "none")
    unnamed = table[table["name"] == ""]
    if len(unnamed):
        day = unnamed["expiry"].dt.strftime("%d%b%y").str.upper().str.lstrip("0")
        head = unnamed["underlying"].where(unnamed["underlying"] != "", "OPTION")
        strike, letter = unnamed["strike"].map("{:g}".format), unnamed["kind"].str[0].str.upper()
        table.loc[unnamed.index, "name"] = head + "-" + day + "-" + strike + "-" + letter
    keys = ["time", "underlying", "expiry", "strike", "kind"]
    return table[list(COLUMNS)].sort_values(keys, kind="stable", ignore_index=True)


NEAREST = 3
"""Strikes nearest the money whose parities are averaged by their median."""


def find_parity(rows: pd.DataFrame, settlement: str) -> float:
    """Return F: in cash ``C - P = F - K``, undiscounted; in coins ``C - P = 1 - K / F``."""
    mid = (0.5 * (rows["bid"] + rows["ask"])).to_numpy()
    pairs = pd.DataFrame({"strike": rows["strike"], "kind": rows["kind"], "mid": mid})
    wide = pairs.pivot_table(index="strike", columns="kind", values="mid", aggfunc="first")
    if not {"call", "put"} <= {*wide.columns}:
        return float("nan")
    difference = (wide["call"] - wide["put"]).dropna()
    nearest = np.argsort(difference.abs().to_numpy(), kind="stable")[:NEAREST]
    strikes = difference.index.to_numpy(dtype=np.float64)[nearest]
    values = difference.to_numpy()[nearest]
    if settlement == "coin":
        strikes, values = strikes[values < 1.0], values[values < 1.0]
        forwards = strikes / (1.0 - values)
    else:
        forwards = (strikes + values)[strikes + values > 0.0]
    return float(np.median(forwards)) if forwards.size else float("nan")


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
        snapshots = count_nouns(self.table["time"].nunique(), "snapshot")
        lines = [
            f"{count_nouns(counts['quotes'], 'quote')} in {snapshots}, "
            f"{counts['two_sided']:,} with bid and ask"
        ]
        for name, count in self.total.items():
            if count:
                first = self.rows[self.rows["check"] == name].iloc[0]
                share = count / counts["quotes"]
                text, _ = CHECKS[str(name)]
                lines.append(
                    f"{count:>8,} ({share:.1%}): {text}; first {first['name']} at "
                    f"{first['time']:%Y-%m-%d %H:%M}"
                )
        return "\n".join(lines if len(lines) > 1 else [*lines, "no defect found"])


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
        cls, path: str | Path, *, settlement: str | None = None, timezone: str | None = None
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
        given = Path(path)
        inside = sorted(given.iterdir()) if given.is_dir() else ()
        files = [each for each in inside if suffix_of(each) in SUFFIXES]
        if given.is_dir() and not files:
            raise DataError(
                f"a folder of chains needs files that end in {', '.join(SUFFIXES)}, got none in "
                f"{path}"
            )
        chains = [
            cls._build(read_file(each), settlement, str(each), timezone)
            for each in files or [given]
        ]
        if not given.is_dir():
            return chains[0]
        if len({each.settlement for each in chains}) > 1:
            raise DataError(f"the files of a folder must settle alike, got cash and coin ({given})")
        table = pd.concat([each.table for each in chains], ignore_index=True)
        ordered = table.sort_values("time", kind="stable", ignore_index=True)
        return cls(ordered, chains[0].settlement, str(given))

    @classmethod
    @checked
    def from_frame(
        cls, frame: pd.DataFrame, *, settlement: str | None = None, timezone: str | None = None
    ) -> Chain:
        """Return the chain of a frame; see :meth:`load`."""
        return cls._build(frame, settlement, FRAME, timezone)

    @classmethod
    def sample(cls) -> Chain:
        """Return a synthetic chain of five expiries, whose underlying is called SYNTHETIC."""
        return cls._build(write_sample(), "coin", "sample")

    @classmethod
    def _build(
        cls, frame: pd.DataFrame, settlement: str | None, source: str, timezone: str | None = None
    ) -> Chain:
        table, known = read_table(frame, where=source, timezone=timezone)
        chosen = core.Choice("cash", "coin").check("settlement", settlement or known or None)
        filled, is_without = table.copy(), (table["forward_source"] == "none").to_numpy()
        for places in table.groupby(["time", "underlying", "expiry"], sort=False).indices.values():
            if not is_without[places].any():
                continue
            rows = table.iloc[places]
            without = rows.index[is_without[places]]
            forward, origin = find_parity(rows, chosen), "parity"
            if np.isnan(forward):
                forward, origin = float(rows.loc[without, "index"].median()), "index"
            filled.loc[without, "forward"] = forward
            filled.loc[without, "forward_source"] = "none" if np.isnan(forward) else origin
        return cls(filled, chosen, source)

    def __repr__(self) -> str:
        times, names = self.times, ", ".join(map(name_underlying, self.underlyings))
        span = f"{times[0]:%Y-%m-%d %H:%M}"
        span += f" to {times[-1]:%Y-%m-%d %H:%M}, {len(times)} snapshots" if len(times) > 1 else ""
        quotes = count_nouns(len(self.table), "quote")
        expiries = count_nouns(self.table["expiry"].nunique(), "expiry", "expiries")
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
        days = (self.table["expiry"] - self.table["time"]).dt.total_seconds() / 86_400.0
        return np.asarray(days.to_numpy() / YEAR_DAYS, dtype=np.float64)

    def select(self, underlying: str | None = None, time: core.TimeLike | None = None) -> Chain:
        """Return the quotes of one underlying, of the last snapshot at or before a time, or both.

        Raises ParameterError if there is no such underlying; DataError if no snapshot is that old.
        """
        table = self.table
        if underlying is not None:
            names = self.underlyings
            if underlying not in names:
                rule = f"be one of {list_names(names)}" if names != [""] else "be left out"
                raise ParameterError(
                    f"underlying must {rule}, got {repr_given(underlying)}"
                    f"{did_you_mean(underlying, names)} ({self.source})"
                )
            table = table[table["underlying"] == underlying]
        if time is not None:
            stamp = core.to_nanoseconds(time, "time")
            known = table["time"] <= core.utc_index(np.array([stamp]))[0]
            if not known.any():
                raise DataError(
                    f"no snapshot is at or before {time}, the first is of "
                    f"{table['time'].min():%Y-%m-%d %H:%M} UTC ({self.source})"
                )
            table = table[table["time"] == table.loc[known, "time"].max()]
        return Chain(table.reset_index(drop=True), self.settlement, self.source)

    def only(self, underlying: str | None = None) -> Chain:
        """Return the quotes of one underlying at one instant: of the only one if none is named.

        Raises ParameterError where there are several.
        """
        chosen = self if underlying is None else self.select(underlying)
        for found, name, argument in (
            (list(map(name_underlying, chosen.underlyings)), "underlying", "underlying"),
            ([f"{each:%Y-%m-%d %H:%M}" for each in chosen.times], "snapshot", "time"),
        ):
            if len(found) > 1:
                raise ParameterError(
                    f"one {name} is needed, got {len(found)}: {list_names(found)} ({self.source}); "
                    f"choose one with chain.select({argument}=...)"
                )
        return chosen

    def inspect(self) -> Inspection:
        """Return the defects of the quotes, counted by snapshot and underlying."""
        rows = self.table.assign(years=self.years)
        is_two_sided = rows["bid"].notna() & rows["ask"].notna()
        counts = rows[KEYS].assign(quotes=1, two_sided=is_two_sided.astype(int))
        is_coin, parts = self.settlement == "coin", []
        sign, forward = np.where(rows["kind"] == "call", 1.0, -1.0), rows["forward"]
        unit = forward if is_coin else 1.0
        known = rows[["mark", "iv", "forward"]].notna().all(axis=1) & (rows["years"] > 0.0)
        numbers = rows[["forward", "strike", "years", "iv"]].where(known).to_numpy().T
        forwards, strikes, years, volatilities = numbers
        kinds, terms = rows["kind"].to_numpy(dtype=str), (volatilities, 0.0, self.settlement)
        shown = rows.assign(
            least=np.maximum(sign * (forward - rows["strike"]), 0.0) / unit,
            most=np.where(sign > 0.0, forward, rows["strike"]) / unit,
            model=price(kinds, forwards, strikes, years, *terms),
            per_coin=1.0 if is_coin else 1.0 / forward,
            usual=rows.groupby([*KEYS, "expiry"])["forward"].transform("median"),
        )
        for name, (_, find) in CHECKS.items():
            bad = find(shown)
            counts[name] = bad.astype(int)
            parts.append(rows.loc[bad, [*KEYS, "name"]].assign(check=name))
        table = counts.groupby(KEYS, sort=True).sum().reset_index()
        return Inspection(table, pd.concat(parts, ignore_index=True))

    def implied(self) -> pd.DataFrame:
        """Return the volatilities of bids, asks and marks.

        Returns
        -------
        DataFrame
            The rows of :attr:`table` with ``years``, ``bid_iv``, ``ask_iv``, ``mark_iv`` (per
            sqrt(year), NaN where there is none) and ``reason``: why the mark has none.
        """
        rows = self.table.assign(years=self.years)
        good = (rows["forward"] > 0.0) & (rows["years"] > 0.0)
        forward, strike, years = rows[["forward", "strike", "years"]].where(good).to_numpy().T
        place = forward, strike, years, 0.0, self.settlement
        kinds = rows["kind"].to_numpy(dtype=str)
        for side in ("bid", "ask", "mark"):
            rows[f"{side}_iv"] = implied_volatility(kinds, rows[side].to_numpy(), *place)
        reason = volatility_reason(kinds, rows["mark"].to_numpy(), *place)
        bad = np.where(rows["years"] > 0.0, "no forward", "no time to expiry")
        rows["reason"] = np.where(good, reason, bad).astype(object)
        return rows


def name_underlying(name: str) -> str:
    return name or "unnamed underlying"


def list_names(names: Sequence[str]) -> str:
    shown = ", ".join(map(name_underlying, names[:MAX_NAMES]))
    return f"{shown} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else shown


TIME = dt.datetime(2023, 1, 1, 12, tzinfo=dt.UTC)
SPOT = 100_000.0
DAYS = (2.0, 7.0, 30.0, 90.0, 180.0)
SPREAD = 0.01


def write_sample() -> pd.DataFrame:
    parts, time = [], pd.Timestamp(TIME)
    for days in DAYS:
        years = days / 365.0
        forward = SPOT * math.exp(0.06 * years)
        z = np.linspace(-2.5, 2.5, 21)
        strike = np.round(forward * np.exp(z * 0.5 * math.sqrt(years)), -2)
        z = np.log(strike / forward) / (0.5 * math.sqrt(years))
        volatility = 0.5 - 0.05 * z + 0.02 * z * z
        for kind in ("call", "put"):
            place = (kind, forward, strike, years)
            rows = pd.DataFrame({"strike": strike, "iv": volatility}).assign(
                time=time, expiry=time + pd.Timedelta(days=days), kind=kind, forward=forward,
                index=SPOT, underlying="SYNTHETIC",
                bid=price(*place, volatility - SPREAD, 0.0, "coin"),
                mark=price(*place, volatility, 0.0, "coin"),
                ask=price(*place, volatility + SPREAD, 0.0, "coin"),
            )  # fmt: skip
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)
