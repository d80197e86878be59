"""Chain: the quotes of many options at one or several instants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    ParameterError,
    TimeLike,
    checked,
    count_nouns,
    did_you_mean,
    repr_given,
    to_nanoseconds,
    utc_index,
)
from backtest.base.units import YEAR_DAYS
from backtest.market import read_file, require, suffix_of
from backtest.market.read import SUFFIXES
from backtest.options.chain_inspection import Inspection, inspect_quotes
from backtest.options.chain_tables import fill_forwards, read_table
from backtest.options.option_terms import Settlement
from backtest.options.pricing import implied_volatility, price, volatility_reason
from backtest.venue import Option

SETTLEMENTS = ("cash", "coin")
UNNAMED = "unnamed underlying"
MOST_NAMES = 5
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
    def load(cls, path: str | Path, *, settlement: str | None = None) -> Chain:
        """Read a file of quotes, or a folder of them: Parquet, Feather, CSV or JSON.

        Parameters
        ----------
        path : str or Path
            A folder, or a table in Deribit's columns (``instrument_name``, ``option_type``,
            ``mark_price``, …), or with the columns ``time, expiry, strike, kind, bid, ask`` and
            optionally ``mark, iv, forward, index, underlying, quoted, name``.
        settlement : "cash" or "coin", optional
            Needed for plain tables; Deribit's are in coins.

        Raises
        ------
        DataError
            If the file cannot be read, or is no chain; all defects are listed.
        ParameterError
            If the settlement is needed and missing.
        """
        given = Path(path)
        files = find_files(given)
        chains = [cls._build(require(read_file(each)), settlement, str(each)) for each in files]
        return chains[0] if not given.is_dir() else cls._join(chains, str(given))

    @classmethod
    @checked
    def from_frame(cls, frame: pd.DataFrame, *, settlement: str | None = None) -> Chain:
        """Return the chain of a frame; see :meth:`load`."""
        return cls._build(frame, settlement, "frame")

    @classmethod
    def sample(cls) -> Chain:
        """Return a synthetic chain of five expiries, whose underlying is called SYNTHETIC."""
        return cls._build(write_sample(), "coin", "sample")

    @classmethod
    def _build(cls, frame: pd.DataFrame, settlement: str | None, source: str) -> Chain:
        table, known = read_table(frame, where=source)
        chosen = settlement or known
        if chosen not in SETTLEMENTS:
            raise ParameterError(
                "settlement must be 'cash', or 'coin' for premiums in coins of the underlying, got "
                f"{repr_given(settlement)}{did_you_mean(settlement, SETTLEMENTS)} ({source})"
            )
        return cls(fill_forwards(table, chosen), cast("Settlement", chosen), source)

    @classmethod
    def _join(cls, chains: Sequence[Chain], source: str) -> Chain:
        settlements = {each.settlement for each in chains}
        if len(settlements) > 1:
            raise DataError(
                f"the files of a folder must settle alike, got cash and coin ({source})"
            )
        table = pd.concat([each.table for each in chains], ignore_index=True)
        ordered = table.sort_values("time", kind="stable", ignore_index=True)
        return cls(ordered, settlements.pop(), source)

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
    def years(self) -> FloatArray:
        """Time to expiry of each row, in years of 365 days."""
        return years_between(self.table["time"], self.table["expiry"])

    def select(self, underlying: str | None = None, time: TimeLike | None = None) -> Chain:
        """Return the quotes of one underlying, of one snapshot, or both.

        Parameters
        ----------
        underlying : str, optional
            A name of :attr:`underlyings`.
        time : time, optional
            The last snapshot at or before it.

        Raises
        ------
        ParameterError
            If there is no such underlying.
        DataError
            If no snapshot is that old.
        """
        table = self.table
        if underlying is not None:
            self._check_name(underlying)
            table = table[table["underlying"] == underlying]
        if time is not None:
            stamp = to_nanoseconds(time, "time")
            known = table["time"] <= utc_index(np.array([stamp]))[0]
            if not known.any():
                raise DataError(
                    f"no snapshot is at or before {time}, the first is of "
                    f"{table['time'].min():%Y-%m-%d %H:%M} UTC ({self.source})"
                )
            table = table[table["time"] == table.loc[known, "time"].max()]
        return Chain(table.reset_index(drop=True), self.settlement, self.source)

    def _check_name(self, underlying: object) -> None:
        names = self.underlyings
        if underlying in names:
            return
        if names == [""]:
            raise ParameterError(
                "underlying must be left out of a chain that names none, got "
                f"{repr_given(underlying)} ({self.source})"
            )
        raise ParameterError(
            f"underlying must be one of {list_names(names)}, got {repr_given(underlying)}"
            f"{did_you_mean(underlying, names) or match_start(underlying, names)} ({self.source})"
        )

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

    @checked
    def contracts(
        self,
        underlying: str | None = None,
        *,
        kind: str | None = None,
        days: tuple[float, float] = (0.0, math.inf),
        moneyness: tuple[float, float] = (0.0, math.inf),
        lot: float = 0.0,
    ) -> dict[str, Option]:
        """Return the contracts that stand in the chain, by name, for ``bt.Markets``.

        Parameters
        ----------
        underlying : str, optional
            A name of :attr:`underlyings`.
        kind : str, optional
            ``"call"`` or ``"put"``.
        days : (float, float)
            The days to expiry that a row of the contract has in any snapshot.
        moneyness : (float, float)
            Strike over forward in such a row.
        lot : float
            The step of quantities.
        """
        chosen = self if underlying is None else self.select(underlying)
        rows = chosen.table.assign(years=chosen.years)
        ratio = rows["strike"] / rows["forward"].fillna(rows["index"])
        fits = (YEAR_DAYS * rows["years"]).between(*days) & ratio.between(*moneyness)
        if kind is not None:
            fits &= rows["kind"] == kind
        columns = ["underlying", "expiry", "strike", "kind"]
        ordered = rows.loc[fits, columns].drop_duplicates().sort_values(columns)
        found = [
            Option(
                underlying=name_underlying(str(name)),
                expiry=str(expiry),
                strike=float(strike),
                kind=str(side),
                settlement=self.settlement,
                lot=lot,
            )
            for name, expiry, strike, side in zip(*(ordered[each] for each in columns), strict=True)
        ]
        return {str(each.name): each for each in found}

    def inspect(self) -> Inspection:
        """Return the defects of the quotes, counted by snapshot and underlying."""
        return inspect_quotes(self.table.assign(years=self.years), self.settlement)

    def implied(self) -> pd.DataFrame:
        """Return the volatilities of bids, asks and marks.

        Returns
        -------
        DataFrame
            The rows of :attr:`table` with ``years``, ``bid_iv``, ``ask_iv``, ``mark_iv`` (per
            sqrt(year), NaN where there is none) and ``reason``: why the mark has none.
        """
        rows = self.table.assign(years=self.years)
        good = ((rows["forward"] > 0.0) & (rows["years"] > 0.0)).to_numpy()
        given = rows[good]
        place = (given["forward"].to_numpy(), given["strike"].to_numpy(), given["years"].to_numpy())
        kinds = given["kind"].to_numpy(dtype=str)
        for side in ("bid", "ask", "mark"):
            found = np.full(len(rows), np.nan)
            prices = given[side].to_numpy()
            found[good] = implied_volatility(kinds, prices, *place, 0.0, self.settlement)
            rows[f"{side}_iv"] = found
        marks = given["mark"].to_numpy()
        reason = np.where(rows["years"] > 0.0, "no forward", "no time to expiry").astype(object)
        reason[good] = volatility_reason(kinds, marks, *place, 0.0, self.settlement)
        rows["reason"] = reason
        return rows


def find_files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"a file or folder of quotes must exist, {str(path)!r} does not")
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.iterdir() if suffix_of(each) in SUFFIXES)
    if not files:
        raise DataError(
            f"a folder of chains needs files that end in {', '.join(SUFFIXES)}, got none in {path}"
        )
    return files


def name_underlying(name: str) -> str:
    return name or UNNAMED


def list_names(names: Sequence[str]) -> str:
    shown = ", ".join(map(name_underlying, names[:MOST_NAMES]))
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown


def match_start(given: object, names: Sequence[str]) -> str:
    word = str(given).upper()
    near = [each for each in names if each and (each.upper() in word or word in each.upper())]
    return f"; did you mean {near[0]!r}?" if len(near) == 1 and word else ""


def years_between(time: pd.Series, expiry: pd.Series) -> FloatArray:
    days = (expiry - time).dt.total_seconds().to_numpy() / 86_400.0
    return np.asarray(days / YEAR_DAYS, dtype=np.float64)


TIME = pd.Timestamp("2023-01-01 12:00", tz="UTC")
SPOT = 100_000.0
DAYS = (2.0, 7.0, 30.0, 90.0, 180.0)
SPREAD = 0.01


def write_sample() -> pd.DataFrame:
    """Return quotes of one underlying around a known smile, in coins."""
    parts = []
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
                time=TIME, expiry=TIME + pd.Timedelta(days=days), kind=kind, forward=forward,
                index=SPOT, underlying="SYNTHETIC",
                bid=price(*place, volatility - SPREAD, 0.0, "coin"),
                mark=price(*place, volatility, 0.0, "coin"),
                ask=price(*place, volatility + SPREAD, 0.0, "coin"),
            )  # fmt: skip
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)
