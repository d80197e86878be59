"""Surfaces through time: a fit for each snapshot of a chain, and the columns of a market."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from backtest import _compile, core
from backtest.core import DataError, FloatArray, IntArray, ParameterError
from backtest.core.code_names import pd
from backtest.core.units import DAY, YEAR_DAYS
from backtest.market import Market
from backtest.options import chain as chains
from backtest.options import fitted_surface, implied_kernels, pricing, smile_fits, smiles
from backtest.options.chain import Chain
from backtest.options.fitted_surface import Measure, Model, Surface

COLUMNS: dict[str, Measure] = {"iv": "atm", "skew": "skew", "vix": "vix"}
MAX_AGE = 14 * DAY
"""Largest age of the last surface at the first bar of a market, in nanoseconds."""
YEAR = YEAR_DAYS * DAY
OF_SURFACE = ("fits", "left_out", "quotes")
"""Tables of a surface that its smiles can be built from again."""


def fit_snapshots(
    chain: Chain,
    model: Model,
    progress: core.Progress | None,
) -> dict[str, pd.DataFrame]:
    """Return the tables of all surfaces of a chain by ``snapshot``, and the ``skipped`` ones."""
    surfaces: dict[int, Surface] = {}
    skipped = []
    for k, time in enumerate(chain.times):
        try:
            surfaces[k] = Surface.fit(chain.select(time=time), model)
        except DataError as error:
            skipped.append((time, str(error)))
        core.report_progress(progress, k + 1, len(chain.times))
    if not surfaces:
        _, first_reason = skipped[0]
        raise DataError(
            f"a snapshot must have a surface, got none in {chain.source}: {first_reason}; "
            "bt.Chain.load(path).inspect() shows why"
        )

    # The tables of all surfaces, one below the other, with the number of the snapshot.
    tables = {"skipped": pd.DataFrame(skipped, columns=["time", "reason"])}
    for name in OF_SURFACE:
        parts = []
        for k, surface in surfaces.items():
            table = getattr(surface, name)
            parts.append(table.assign(snapshot=k))
        tables[name] = pd.concat(parts, ignore_index=True)
    return tables


def hash_frame(frame: pd.DataFrame) -> str:
    """Return a hash of the rows and the names of the columns."""
    names = json.dumps([str(name) for name in frame])
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
    return hashlib.sha256(names.encode() + rows).hexdigest()


def name_cached_fits(chain: Chain, model: Model) -> str:
    """Return the name of the folder of the fits of a chain: a hash of all that decides them."""
    modules = (
        *(chains, pricing, smiles, smile_fits, fitted_surface),
        *(core.black_kernels, implied_kernels),
    )
    paths = [__file__, *(str(module.__file__) for module in modules)]
    code = [Path(path).read_text(encoding="utf-8") for path in paths]
    versions = map(core.find_version, ("numpy", "pandas"))
    terms = (hash_frame(chain.table), chain.settlement, model)
    return f"surfaces-{core.hash_texts(*terms, *versions, *code)}"


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
    @core.checked
    def load(
        cls,
        path: str | Path,
        *,
        underlying: str | None = None,
        model: Model = "svi",
        settlement: str | None = None,
        timezone: str | None = None,
        progress: core.Progress | None = None,
    ) -> Surfaces:
        """Fit a surface to each snapshot of a folder of chains, or of one file.

        Raises DataError if there is no file, a file is no chain, or no snapshot can be fitted;
        ParameterError if an underlying is needed.

        Parameters
        ----------
        path : str or Path
            A file that :meth:`Chain.load` reads, or a folder of them.
        underlying : str, optional
            Needed if the chains have several.
        model, settlement, timezone
            As in :meth:`Surface.fit` and :meth:`Chain.load`.
        progress : callable, optional
            Called with the number of snapshots done and their total.
        """
        chain = Chain.load(path, settlement=settlement, timezone=timezone)
        return cls.fit(chain, model, underlying=underlying, progress=progress)

    @classmethod
    @core.checked
    def fit(
        cls,
        chain: Chain,
        model: Model = "svi",
        *,
        underlying: str | None = None,
        progress: core.Progress | None = None,
    ) -> Surfaces:
        """Fit a surface to each snapshot of a chain; see :meth:`load`.

        Fits are kept in the cache folder, by a hash of the quotes, the model and the code.
        """
        chosen = chain.select(underlying)
        make = partial(fit_snapshots, chosen, model, progress)
        cache = _compile.find_lasting_folder()
        if cache is None:
            tables = make()
        else:
            folder = cache / name_cached_fits(chosen, model)
            tables = core.keep_tables(folder, make)

        # Tables of all snapshots, with the number of the snapshot among the chain's times.
        by_snapshot = {name: tables[name].set_index("snapshot") for name in OF_SURFACE}
        times: list[Any] = list(chosen.times)
        surfaces = []
        for number in by_snapshot["fits"].index.unique():
            own_tables = {}
            for name, table in by_snapshot.items():
                rows = table.loc[number:number]  # a slice, so that one row is a table as well
                own_tables[name] = rows.reset_index(drop=True)
            snapshot = chosen.select(time=times[number])
            surfaces.append(Surface._from_tables(snapshot, model, **own_tables))
        return cls(tuple(surfaces), tables["skipped"])

    def __repr__(self) -> str:
        first = self.surfaces[0]
        last = self.surfaces[-1]
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
        return pd.DatetimeIndex([surface.time for surface in self.surfaces], name="time")

    def at(self, time: core.TimeLike) -> Surface:
        """Return the last surface stamped at or before a time; a DataError if there is none."""
        stamp = core.to_nanoseconds(time, "time")
        k = int(np.searchsorted(self._stamps, stamp, side="right")) - 1
        if k < 0:
            raise DataError(f"no surface is stamped at or before {time}, got {self!r}")
        return self.surfaces[k]

    @cached_property
    def _stamps(self) -> np.ndarray:
        return np.asarray(self.times.as_unit("ns").asi8)

    def locate(self, times: IntArray, side: Any = "right") -> IntArray:
        """Return the last surface stamped up to ("right") or before ("left") each time, or -1."""
        return np.asarray(np.searchsorted(self._stamps, times, side=side) - 1)

    def value(
        self,
        strike: float,
        expiry: int,
        times: IntArray,
        spots: FloatArray,
        rows: IntArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Return forward over spot, and volatility, of a contract at some times before its expiry.

        ``times`` and ``expiry`` are in ns, ``spots`` the prices of the underlying at the times, and
        ``rows`` number the surface in force at each of them (none is -1). What a surface says of
        the expiry holds until the next surface: the carry shrinks in proportion to the time that is
        left, and the smile moves with the forward.
        """
        years_left = (expiry - times) / YEAR
        bases = np.empty(len(times))
        volatilities = np.empty(len(times))

        # Surface by surface, for the times ``here`` at which it is in force.
        for row in np.unique(rows):
            here = np.flatnonzero(rows == row)
            surface = self.surfaces[row]
            stamp = int(self._stamps[row])
            years_at_stamp = (expiry - stamp) / YEAR

            # ln(F / spot) when the surface was stamped, and the part of it that is left.
            carry = float(surface._find_carry(np.float64(years_at_stamp)))
            bases[here] = np.exp(carry * years_left[here] / years_at_stamp)

            # The volatility by today's moneyness, as of the time to expiry at the stamp.
            forwards = spots[here] * bases[here]
            k = np.log(strike / forwards)
            total_variance = surface._interpolate(k, years_at_stamp)
            volatilities[here] = np.sqrt(total_variance / years_at_stamp)
        return bases, volatilities

    def find_ages(self, times: IntArray, rows: IntArray) -> FloatArray:
        """Return the days since the surfaces in force."""
        return np.asarray((times - self._stamps[np.maximum(rows, 0)]) / DAY)

    def is_flat_before(self, expiry: int, end: int) -> bool:
        """Return whether some surface before an expiry is fitted to later expiries alone.

        Its volatility is then that of its first expiry. Only surfaces before ``end`` count; both
        times are in ns.
        """
        for stamp, surface in zip(self._stamps.tolist(), self.surfaces, strict=True):
            first_expiry = surface.fits["expiry"].iloc[0].value
            if stamp < min(expiry, end) and expiry < first_expiry:
                return True
        return False

    @property
    def content_hash(self) -> str:
        """A hash of times, smiles and forwards."""
        content = []
        for surface in self.surfaces:
            forwards = surface.fits[["expiry", "forward"]].astype(str).to_numpy().tolist()
            parameters = [[*vars(smile).values()] for smile in surface.smiles]
            content.append([str(surface.time), surface.index, forwards, parameters])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

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
        values = [getattr(surface, name)(tenor) for surface in self.surfaces]
        return pd.Series(values, self.times, name=f"{name}_{tenor}")

    def attach(self, market: Market, tenors: Sequence[str] = ("30d",)) -> Market:
        """Return a market with columns of these surfaces, for policies to observe.

        Raises ParameterError if there is no tenor; DataError if no bar closes after a surface, or
        all close over 14 days after the last.

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
            volatility of the first tenor, which policies read. The values of a bar are of the last
            snapshot stamped strictly before its close; NaN before the first, and skew and vix also
            where a tenor is over twice the last expiry.
        """
        if not tenors or isinstance(tenors, str):
            raise ParameterError(
                "tenors must be a sequence of durations such as ('30d',), got "
                f"{core.repr_given(tenors)}"
            )

        # The number of the surface at each close, -1 before the first. A snapshot that is stamped
        # at a close is not known at it.
        closes = market.time + market.interval
        rows = self.locate(closes, "left")
        has_none = rows[-1] < 0
        is_old = closes[0] - self._stamps[-1] > MAX_AGE
        if has_none or is_old:
            first_close = core.format_time(int(closes[0]))
            last_close = core.format_time(int(closes[-1]))
            raise DataError(
                f"bars must close after a surface and at most {MAX_AGE / DAY:g} days after the "
                f"last, got bars from {first_close} to {last_close} for {self!r}"
            )

        # A NaN after the last surface: that is what the number -1 picks.
        columns = {}
        for tenor in tenors:
            for name, measure in COLUMNS.items():
                by_surface = np.append(self._series(measure, tenor), np.nan)
                columns[f"{name}_{tenor}"] = by_surface[rows]
        columns["surface_age"] = np.where(rows >= 0, self.find_ages(closes, rows), np.nan)

        first_tenor = tenors[0]
        columns["implied_volatility"] = columns[f"vix_{first_tenor}"]
        return market.with_columns(**columns)
