"""Surfaces through time, and their columns for policies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    IntArray,
    ParameterError,
    TimeLike,
    checked,
    count_nouns,
    format_time,
    repr_given,
    to_nanoseconds,
    warn_caller,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.market import Market
from backtest.options.chain import Chain, find_files
from backtest.options.surface import Measure, Model, Surface, read_tenor

COLUMNS: dict[str, Measure] = {"iv": "atm", "skew": "skew", "vix": "vix"}
MAX_AGE = 14 * DAY
"""Largest age of the last surface at the first bar of a market, in nanoseconds."""
YEAR = YEAR_DAYS * DAY
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class Surfaces:
    """Surfaces of one underlying at increasing instants.

    Parameters
    ----------
    surfaces : tuple of Surface
        By time.
    skipped : DataFrame
        Snapshots that could not be fitted: ``time`` and ``reason``.
    """

    surfaces: tuple[Surface, ...]
    skipped: pd.DataFrame

    @classmethod
    @checked
    def load(
        cls,
        path: str | Path,
        *,
        underlying: str | None = None,
        model: Model = "svi",
        settlement: str | None = None,
        progress: Progress | None = None,
    ) -> Surfaces:
        """Fit a surface to each snapshot of a folder of chains, or of one file.

        Parameters
        ----------
        path : str or Path
            A file that :meth:`Chain.load` reads, or a folder of them.
        underlying : str, optional
            Needed if the chains have several.
        model, settlement
            As in :meth:`Surface.fit` and :meth:`Chain.load`.
        progress : callable, optional
            Called with the number of files done and their total.

        Raises
        ------
        DataError
            If there is no file, a file is no chain, or no snapshot can be fitted.
        ParameterError
            If an underlying is needed.
        """
        files = find_files(Path(path))
        surfaces: list[Surface] = []
        skipped: list[tuple[pd.Timestamp, str]] = []
        for k, file in enumerate(files):
            fit_all(Chain.load(file, settlement=settlement), underlying, model, surfaces, skipped)
            if progress is not None:
                progress(k + 1, len(files))
        return collect(surfaces, skipped, str(path))

    @classmethod
    @checked
    def fit(
        cls,
        chain: Chain,
        model: Model = "svi",
        *,
        underlying: str | None = None,
        progress: Progress | None = None,
    ) -> Surfaces:
        """Fit a surface to each snapshot of a chain; see :meth:`load`."""
        surfaces: list[Surface] = []
        skipped: list[tuple[pd.Timestamp, str]] = []
        fit_all(chain, underlying, model, surfaces, skipped, progress)
        return collect(surfaces, skipped, chain.source)

    def __repr__(self) -> str:
        first, last = self.surfaces[0], self.surfaces[-1]
        name = f"{first.underlying}, " if first.underlying else ""
        return (
            f"Surfaces({name}{len(self.surfaces)} snapshots, {first.time:%Y-%m-%d %H:%M} to "
            f"{last.time:%Y-%m-%d %H:%M}, {len(self.skipped)} skipped)"
        )

    def __len__(self) -> int:
        return len(self.surfaces)

    @property
    def times(self) -> pd.DatetimeIndex:
        """The instants, UTC."""
        return pd.DatetimeIndex([each.time for each in self.surfaces], name="time")

    def at(self, time: TimeLike) -> Surface:
        """Return the last surface stamped at or before a time.

        Raises DataError if there is none.
        """
        stamp = to_nanoseconds(time, "time")
        k = int(np.searchsorted(self._stamps, stamp, side="right")) - 1
        if k < 0:
            raise DataError(f"no surface is stamped at or before {time}, got {self!r}")
        return self.surfaces[k]

    @property
    def _stamps(self) -> np.ndarray:
        return np.asarray(self.times.as_unit("ns").asi8)

    def locate(self, times: IntArray, side: Any) -> IntArray:
        """Return the last surface stamped at or before ("right") or before ("left") each time.

        -1 before the first.
        """
        return np.asarray(np.searchsorted(self._stamps, times, side=side) - 1)

    def value(
        self, strike: float, expiry: int, times: IntArray, spots: FloatArray, rows: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return forward over spot, and volatility, of a contract at some times.

        ``rows`` number the surfaces in force. The basis ln(F/S) of a snapshot shrinks with the time
        left. The smile is that of the contract's expiry, at a constant distance ln(K/F).
        """
        left, (bases, volatilities) = (expiry - times) / YEAR, np.empty((2, len(times)))
        for row in np.unique(rows):
            surface = self.surfaces[row]
            tenor = (expiry - int(self._stamps[row])) / YEAR
            here = np.flatnonzero(rows == row)
            carry = np.log(surface.forward(tenor) / surface.forward(0.0))
            bases[here] = np.exp(carry * left[here] / tenor)
            distance = np.log(strike / (spots[here] * bases[here]))
            volatilities[here] = np.sqrt(surface.total_variance(distance, tenor) / tenor)
        return bases, volatilities

    def find_ages(self, times: IntArray, rows: IntArray) -> FloatArray:
        """Return the days since the surfaces in force."""
        return np.asarray((times - self._stamps[np.maximum(rows, 0)]) / DAY)

    def is_flat_before(self, expiry: int, end: int) -> bool:
        """Return whether a surface before an expiry and ``end`` has no expiry as early as it."""
        return any(
            stamp < min(expiry, end) and expiry < each.fits["expiry"].iloc[0].value
            for stamp, each in zip(self._stamps.tolist(), self.surfaces, strict=True)
        )

    @property
    def content_hash(self) -> str:
        """A hash of times, smiles and forwards."""
        content = [
            [
                str(each.time),
                each.index,
                each.fits[["expiry", "forward"]].astype(str).to_numpy().tolist(),
                [[smile.a, smile.b, smile.rho, smile.m, smile.sigma] for smile in each.smiles],
            ]
            for each in self.surfaces
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def fits(self) -> pd.DataFrame:
        """The rows of :attr:`Surface.fits` of all snapshots, with ``time``."""
        parts = [each.fits.assign(time=each.time) for each in self.surfaces]
        return pd.concat(parts, ignore_index=True)

    def atm(self, tenor: str | float) -> pd.Series:
        """Return the volatility at the forward of a tenor, by snapshot."""
        return self._series("atm", tenor)

    def skew(self, tenor: str | float) -> pd.Series:
        """Return the volatility of the 25-delta put less that of the call, by snapshot."""
        return self._series("skew", tenor)

    def vix(self, tenor: str | float) -> pd.Series:
        """Return the model-free volatility of a tenor, by snapshot."""
        return self._series("vix", tenor)

    def _series(self, name: Measure, tenor: str | float) -> pd.Series:
        values = [each.measure(name, tenor) for each in self.surfaces]
        return pd.Series(values, self.times, name=f"{name}_{tenor}")

    def attach(self, market: Market, tenors: Sequence[str] = ("30d",)) -> Market:
        """Return a market with columns of these surfaces, for policies to observe.

        Parameters
        ----------
        market : Market
            Bars of the underlying.
        tenors : sequence of str
            For example ``("7d", "30d")``.

        Returns
        -------
        Market
            With the columns ``iv_<tenor>``, ``skew_<tenor>`` and ``vix_<tenor>`` of each tenor,
            ``surface_age`` (days since the snapshot), and ``implied_volatility``, the model-free
            volatility of the first tenor, which the implied-volatility policies read. The values of
            a bar are of the last snapshot stamped strictly before its close, never of a later one;
            NaN before the first, and skew and vix also where a tenor is over twice the last expiry,
            which a warning tells.

        Raises
        ------
        ParameterError
            If there is no tenor.
        DataError
            If no bar closes after a surface, or all close over 14 days after the last.
        """
        if not tenors or isinstance(tenors, str):
            raise ParameterError(
                f"tenors must be a sequence of durations such as ('30d',), got {repr_given(tenors)}"
            )
        closes = market.time + market.interval
        row = np.searchsorted(self._stamps, closes, side="left") - 1
        self._check_overlap(closes, row)
        columns = {
            f"{name}_{tenor}": self._align(key, tenor, row)
            for tenor in tenors
            for name, key in COLUMNS.items()
        }
        ages = (closes - self._stamps[np.maximum(row, 0)]) / DAY
        columns["surface_age"] = np.where(row >= 0, ages, np.nan)
        columns["implied_volatility"] = columns[f"vix_{tenors[0]}"]
        self._warn_of_long_tenors(tenors, row)
        return market.with_columns(**columns)

    def _align(self, key: Measure, tenor: str, row: IntArray) -> FloatArray:
        values = np.full(len(self.surfaces) + 1, np.nan)  # the last is for row -1
        for k in np.unique(row[row >= 0]):
            values[k] = self.surfaces[k].measure(key, tenor)
        return values[row]

    def _check_overlap(self, closes: IntArray, row: IntArray) -> None:
        age = int(closes[0] - self._stamps[-1])
        if row[-1] >= 0 and age <= MAX_AGE:
            return
        raise DataError(
            f"bars must close after a surface and at most {MAX_AGE / DAY:g} days after the last, "
            f"got bars from {format_time(int(closes[0]))} to {format_time(int(closes[-1]))} for "
            f"{self!r}"
        )

    def _warn_of_long_tenors(self, tenors: Sequence[str], row: IntArray) -> None:
        used = np.unique(row[row >= 0])
        limits = np.array([self.surfaces[k].longest_tenor for k in used])
        for tenor in tenors:
            short = int((limits < read_tenor(tenor)).sum())
            if short:
                warn_caller(
                    f"skew_{tenor} and vix_{tenor} are missing for {short} of "
                    f"{count_nouns(len(used), 'surface')}: {tenor} is over twice their last expiry"
                )


def fit_all(
    chain: Chain,
    underlying: str | None,
    model: Model,
    surfaces: list[Surface],
    skipped: list[tuple[pd.Timestamp, str]],
    progress: Progress | None = None,
) -> None:
    chosen = chain.select(underlying)
    for k, time in enumerate(chosen.times):
        try:
            surfaces.append(Surface.fit(chosen.select(time=time), model))
        except DataError as error:
            skipped.append((time, str(error)))
        if progress is not None:
            progress(k + 1, len(chosen.times))


def collect(
    surfaces: list[Surface], skipped: list[tuple[pd.Timestamp, str]], source: str
) -> Surfaces:
    left = pd.DataFrame(skipped, columns=["time", "reason"])
    if not surfaces:
        reason = left["reason"].iloc[0] if len(left) else "no snapshot"
        raise DataError(
            f"a snapshot must have a surface, got none in {source}: {reason}; "
            "bt.Chain.load(path).inspect() shows why"
        )
    ordered = sorted(surfaces, key=lambda each: each.time)
    times = [each.time for each in ordered]
    if len(set(times)) < len(times):
        double = next(a for a, b in pairwise(times) if a == b)
        raise DataError(f"snapshots must have different times, got {double} twice in {source}")
    return Surfaces(tuple(ordered), left)
