"""Market: the aligned, immutable history of one instrument that everything else reads.

Prices and volume per bar, mark prices per bar, funding per settlement. What is in a Market has been
checked: it is made by :meth:`Market.from_frames`, :meth:`Market.load` and :meth:`Market.sample`,
which refuse data with defects and list all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.base.errors import ParameterError
from backtest.base.ranges import Range
from backtest.base.units import (
    FloatArray,
    IntArray,
    TimeLike,
    format_duration,
    parse_duration,
    to_nanoseconds,
    utc_index,
)
from backtest.market.attached_columns import read_columns
from backtest.market.read.files import write_folder
from backtest.market.read.folder import load_facts
from backtest.market.reshape import cut, resample
from backtest.market.synthetic import sample
from backtest.market.tables.assemble import Facts, MarketFrames, assemble
from backtest.market.tables.read_options import check_frame, read_options, time_text

MarkGaps = Literal["last"] | None
FundingGaps = Literal["zero"] | None
Between = tuple[TimeLike | None, TimeLike | None] | None

AnyArray: TypeAlias = "npt.NDArray[Any]"

_SAMPLE = Path(__file__).parent.parent / "data" / "sample-1h"
_NOT_FACTS = ("source", "signal")
_ONE = np.ones(1)
_UNKNOWN = np.full(1, np.nan)
_SAMPLE_DEFAULTS = {"bars": 8760, "seed": 0, "interval": "1h"}


@dataclass(frozen=True, eq=False, repr=False)
class Market:
    """Aligned history of one instrument; arrays are read-only and C-contiguous.

    Parameters
    ----------
    instrument : str
        For example ``"BTCUSDT"``; may be empty.
    interval : int
        Length of a bar in ns; for session data the smallest distance between two opens.
    time : IntArray of shape (n_bars,)
        Opens of the bars, UTC ns, strictly increasing.
    open, high, low, close : FloatArray of shape (n_bars,)
        Last prices, quote per base, positive.
    volume : FloatArray of shape (n_bars,)
        In contracts of the venue (base units where a contract is one); zeros where there is none.
    mark_open, mark_high, mark_low, mark_close : FloatArray of shape (n_bars,)
        Mark prices; the last prices themselves where ``has_mark`` is False.
    has_mark : bool
        Whether mark prices were given. If not, liquidations are tested on last prices.
    funding_time : IntArray of shape (n_events,)
        Stamps of settlements as the venue wrote them (some ms off the boundary), UTC ns, strictly
        increasing, from a quarter of a bar before the first open up to the end.
    funding_rate : FloatArray of shape (n_events,)
        Fraction per settlement; positive: longs pay.
    funding_mark : FloatArray of shape (n_events,)
        The price the venue settled on, NaN where it is not known.
    funding_predicted : FloatArray of shape (n_events,)
        What the venue said at the stamp that the *next* settlement will be, NaN where it is not
        known. All of a row is known from its stamp on.
    columns : mapping of str to FloatArray of shape (n_bars,)
        Further numeric columns of the bars; NaN is allowed here.
    synthetic : bool
        Whether the prices are made up.
    sessions : bool
        Whether bars may be further apart than ``interval``: the market closes.
    filled : mapping of str to str
        What was filled or left out by explicit choice, for the manifest; it speaks of the data as
        they were loaded, also after a cut.
    source : str
        The expression that made this market.
    signal : FloatArray of shape (n_bars,)
        The direction decided at each close, in [-1, 1], that a run was given: what policies see in
        ``observe``. Ones in a market that is not being run; no part of the content.

    Notes
    -----
    Two markets are equal when their content hashes are. The constructor freezes arrays and trusts
    their content; the data are checked where they come in.
    """

    instrument: str
    interval: int
    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    has_mark: bool
    funding_time: IntArray
    funding_rate: FloatArray
    funding_mark: FloatArray
    columns: Mapping[str, FloatArray]
    synthetic: bool
    sessions: bool
    filled: Mapping[str, str]
    source: str
    signal: FloatArray = field(default_factory=lambda: _ONE)
    funding_predicted: FloatArray = field(default_factory=lambda: _UNKNOWN)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signal", np.broadcast_to(self.signal, self.time.shape))
        predicted = np.broadcast_to(self.funding_predicted, self.funding_time.shape)
        object.__setattr__(self, "funding_predicted", predicted)
        frozen: dict[int, AnyArray] = {}  # one array where mark is the last price
        for name, array in self._arrays().items():
            if id(array) not in frozen:
                frozen[id(array)] = _freeze(array)
            object.__setattr__(self, name, frozen[id(array)])
        columns = {name: _freeze(values) for name, values in self.columns.items()}
        object.__setattr__(self, "columns", MappingProxyType(columns))
        object.__setattr__(self, "filled", MappingProxyType(dict(self.filled)))

    @classmethod
    def from_frames(
        cls,
        bars: pd.DataFrame,
        *,
        funding: pd.DataFrame | pd.Series | None = None,
        mark: pd.DataFrame | None = None,
        instrument: str = "",
        interval: str | None = None,
        timezone: str | None = None,
        mark_gaps: MarkGaps = None,
        funding_gaps: FundingGaps = None,
        sessions: bool = False,
        between: Between = None,
    ) -> Market:
        """Return a market of frames indexed by UTC time; everything is copied.

        Parameters
        ----------
        bars : DataFrame
            open, high, low, close, volume (optional); further numeric columns ride along. Indexed
            by open time, or with a column time, date, timestamp, open_time or datetime.
        funding : DataFrame or Series, optional
            ``rate``, and optionally ``mark`` and ``predicted`` (what the venue says at that stamp
            of the next settlement), by settlement stamp. A Series is the rates.
        mark : DataFrame, optional
            open, high, low, close of the mark price; other columns are ignored.
        instrument : str
            Its name.
        interval : str, optional
            The length of a bar, such as "1h", to be checked; needed for a single bar.
        timezone : str, optional
            The zone of stamps that carry none; without it they are refused.
        mark_gaps : "last", optional
            Take last prices where a bar has no mark bar, and note it in ``filled``.
        funding_gaps : "zero", optional
            Accept missing settlements as no payment, and note it in ``filled``.
        sessions : bool
            Whether the market closes, so that bars may be missing.
        between : pair of times, optional
            Cut the bars to [start, end) before they are checked against mark and funding.

        Raises
        ------
        DataError
            Listing every defect of the data, each with its place and cure.
        ParameterError
            If an argument is unknown or unreadable.
        """
        choices = read_options(
            instrument=instrument,
            interval=interval,
            timezone=timezone,
            mark_gaps=mark_gaps,
            funding_gaps=funding_gaps,
            sessions=sessions,
            between=between,
        )
        rates = funding.to_frame("rate") if isinstance(funding, pd.Series) else funding
        check_frame("bars", bars)
        for name, frame in (("mark", mark), ("funding", rates)):
            if frame is not None:
                check_frame(name, frame)
        facts = assemble(MarketFrames.of(bars, mark, rates), choices, where="the frames given")
        time, length = facts["time"], format_duration(facts["interval"])
        label = f"{instrument or 'bars'} {length}, {time.size} from {time_text(int(time[0]))}"
        return cls(**facts, source=f"<Market.from_frames: {label}>")

    @classmethod
    def load(
        cls,
        *paths: str | Path,
        instrument: str | None = None,
        interval: str | None = None,
        funding_interval: str | None = None,
        timezone: str | None = None,
        mark_gaps: MarkGaps = None,
        funding_gaps: FundingGaps = None,
        sessions: bool = False,
        between: Between = None,
    ) -> Market:
        """Return the market in one folder, or in several files: CSV, Parquet, Feather, JSON, zip.

        A folder holds ``bars.*`` and optionally ``mark.*``, ``funding.*`` and ``market.json`` (what
        :meth:`save` writes), or files with freqtrade's names or those of Binance's archive. Of
        files given one by one, the name says which is mark and which is funding. Files of other
        names or columns: :func:`backtest.import_market`.

        Parameters
        ----------
        *paths : str or Path
            One folder, or one or several files.
        instrument : str, optional
            Which to take of a folder with several (``"BTCUSDT"``), or the name of a nameless one.
        interval : str, optional
            Which bars to take of a folder with several (``"1h"``).
        funding_interval : str, optional
            Which file of funding to take of a folder of freqtrade's with several (``"8h"``). They
            hold the same settlements: by default the one that covers most of the bars is taken,
            and ``filled["funding_file"]`` says which.
        timezone, mark_gaps, funding_gaps, sessions, between
            As in :meth:`from_frames`.

        Raises
        ------
        DataError
            Listing every defect of every file, each with its place and cure.
        ParameterError
            If an argument is unknown or unreadable.
        """
        if not paths:
            raise ParameterError(
                "load needs a path, was given none", where="Market.load", cure="give a folder"
            )
        choices = read_options(
            instrument=instrument,
            interval=interval,
            timezone=timezone,
            mark_gaps=mark_gaps,
            funding_gaps=funding_gaps,
            sessions=sessions,
            between=between,
            funding_interval=funding_interval,
        )
        source = choices.expression(paths)
        return cls(**load_facts([Path(path) for path in paths], choices), source=source)

    @classmethod
    def sample(cls, *, bars: int = 8760, seed: int = 0, interval: str = "1h") -> Market:
        """Return a synthetic perpetual future with mark prices and funding, from 2023-01-01 on.

        The year of hours with seed 0 is read from the file that travels with the package where it
        is there; it equals what is generated.

        Parameters
        ----------
        bars : int
            How many.
        seed : int
            Of the random numbers, at least 0.
        interval : str
            A whole part of 8 hours ("1m", "5m", "1h"), or whole hours that divide a day.

        Raises
        ------
        ParameterError
            If an argument is out of range.

        Examples
        --------
        >>> market = Market.sample(bars=48)
        >>> len(market), market.synthetic, market.instrument
        (48, True, 'SYNTHETIC-PERP')
        """
        Range(1, math.inf, "bars").check("bars", bars, where="Market.sample", whole=True)
        Range(0, math.inf).check("seed", seed, where="Market.sample", whole=True)
        wanted = {"bars": bars, "seed": seed, "interval": interval}
        given = {key: value for key, value in wanted.items() if value != _SAMPLE_DEFAULTS[key]}
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        source = f"Market.sample({arguments})"
        if not given and _SAMPLE.is_dir():
            return dataclasses.replace(cls.load(_SAMPLE), source=source)
        return cls(**sample(bars=bars, seed=seed, interval=interval), source=source)

    def __len__(self) -> int:
        return self.n_bars

    def __repr__(self) -> str:
        return self.source

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Market):
            return NotImplemented
        return self is other or self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __reduce__(self) -> tuple[object, ...]:
        facts = self._facts()
        facts["columns"], facts["filled"] = dict(self.columns), dict(self.filled)
        return _rebuild, (facts, self.source)

    def _facts(self) -> Facts:
        names = (each.name for each in dataclasses.fields(self) if each.name not in _NOT_FACTS)
        return cast("Facts", {name: getattr(self, name) for name in names})

    def _arrays(self) -> dict[str, AnyArray]:
        facts = self._facts().items()
        return {name: value for name, value in facts if isinstance(value, np.ndarray)}

    @property
    def n_bars(self) -> int:
        """The number of bars."""
        return int(self.time.size)

    @property
    def start(self) -> int:
        """The first open, UTC ns."""
        return int(self.time[0])

    @property
    def end(self) -> int:
        """The last close (last open + interval), UTC ns."""
        return int(self.time[-1]) + self.interval

    @property
    def index(self) -> pd.DatetimeIndex:
        """The opens as a UTC index."""
        return utc_index(self.time)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256, hex, of all arrays, names, the interval and the flags; not of ``source``."""
        flags = (self.instrument, self.interval, self.has_mark, self.synthetic, self.sessions)
        digest = hashlib.sha256(json.dumps([*flags, sorted(self.columns)]).encode())
        columns = [self.columns[name] for name in sorted(self.columns)]
        arrays = self._arrays()
        predicted = arrays.pop("funding_predicted")
        if not np.isnan(predicted).all():  # a market without them has the hash it always had
            columns.append(predicted)
        for array in (*arrays.values(), *columns):
            digest.update(f"{array.size}:".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
        return digest.hexdigest()

    def prefix(self, n: int) -> Market:
        """Return the first n bars, and the funding stamped before the close of the last of them.

        It holds nothing stamped at or after its end: all that a policy may know at that close. What
        ``observe`` computes on a prefix must equal the prefix of what it computes on the whole.

        Raises
        ------
        ParameterError
            If n is not from 1 to n_bars.
        """
        Range(1, self.n_bars, "bars").check("n", n, where="prefix", whole=True)
        return self._cut(0, n, f".prefix({n})")

    def slice(self, first: int, stop: int) -> Market:
        """Return the bars from ``first`` up to ``stop``, with their signal and funding.

        It ends as :meth:`prefix` does, and holds nothing stamped at or after its end. It begins as
        :meth:`between` does: an event stamped up to a quarter of a bar before its first open
        belongs to it.

        Raises
        ------
        ParameterError
            If first is not from 0 to n_bars - 1, or stop not from first + 1 to n_bars.
        """
        Range(0, self.n_bars - 1, "bars").check("first", first, where="slice", whole=True)
        Range(first + 1, self.n_bars, "bars").check("stop", stop, where="slice", whole=True)
        return self._cut(first, stop, f".slice({first}, {stop})")

    def _cut(self, first: int, stop: int, step: str) -> Market:
        lead = self.interval // 4 if first else self.interval
        facts = cut(self._facts(), slice(first, stop), funding_from=int(self.time[first]) - lead)
        return Market(**facts, source=self.source + step, signal=self.signal[first:stop])

    def with_signal(self, signal: FloatArray) -> Market:
        """Return the market as policies see it in a run that trades in these directions.

        Parameters
        ----------
        signal : FloatArray of shape (n_bars,) or (1,)
            The direction decided at each close, in [-1, 1].
        """
        return dataclasses.replace(self, signal=signal)

    def with_columns(self, **columns: npt.ArrayLike | pd.Series) -> Market:
        """Return the market with further columns, for policies to observe.

        Parameters
        ----------
        **columns : array, list or Series of shape (n_bars,)
            Numbers known at each bar's close, by name; NaN where there is none. A Series with times
            must have the opens of the bars, in any zone. A column that is there already is
            replaced.

        Raises
        ------
        DataError
            If a name is that of a price, the volume or the times, or values are not one finite
            number, or NaN, per bar.

        Examples
        --------
        >>> market = Market.sample(bars=3).with_columns(implied_volatility=[0.5, 0.6, 0.7])
        >>> market.columns["implied_volatility"]
        array([0.5, 0.6, 0.7])
        """
        read = read_columns(columns, self.time)
        source = f"{self.source}.with_columns({', '.join(read)})"
        return dataclasses.replace(self, columns={**self.columns, **read}, source=source)

    def between(self, start: TimeLike | None = None, end: TimeLike | None = None) -> Market:
        """Return the bars that open from ``start`` up to but not including ``end``, both UTC.

        Funding is kept from a quarter of a bar before the first open (an event stamped some ms
        before an open belongs to it) up to but not including the last close.

        Raises
        ------
        ParameterError
            If the span is not inside the market, or no bar opens in it.
        """
        low = self.start if start is None else to_nanoseconds(start, where="between, start")
        high = self.end if end is None else to_nanoseconds(end, where="between, end")
        first, stop = (int(row) for row in np.searchsorted(self.time, [low, high]))
        if low < self.start or high > self.end or first >= stop:
            raise ParameterError(
                "a span must lie inside the market and hold a bar, "
                f"was {time_text(low)} to {time_text(high)}",
                where=self.source,
                cure=f"choose times from {time_text(self.start)} to {time_text(self.end)}",
            )
        lead = int(self.time[first]) - self.interval // 4
        facts = cut(self._facts(), slice(first, stop), funding_from=lead)
        step = f".between({time_text(low)!r}, {time_text(high)!r})"
        return Market(**facts, source=self.source + step)

    def resample(self, interval: str) -> Market:
        """Return longer bars, aligned to UTC (weeks begin on Monday).

        open is the first, high the highest, low the lowest, close and further columns the last,
        volume the sum; mark prices likewise. All funding events inside are kept. A group at either
        end that is not whole is dropped and noted in ``filled["resample"]``.

        In a market with sessions a group is the bars that open in the same stretch of UTC time; it
        is stamped where the stretch begins. The first group is whole if it begins no later in its
        stretch than is usual for the five after it, the last if it ends no earlier than is usual
        for the five before it.

        Parameters
        ----------
        interval : str
            A multiple of the market's own; with sessions, any length from its own on.

        Raises
        ------
        ParameterError
            If it is not a multiple, no group is whole, bars are off the UTC grid, or, with
            sessions, reach from one stretch into the next.
        """
        facts = resample(self._facts(), parse_duration(interval, where="resample"))
        return Market(**facts, source=f"{self.source}.resample({interval!r})")

    def bars(self) -> pd.DataFrame:
        """Return open, high, low, close, volume and further columns by open time."""
        own = {name: getattr(self, name) for name in ("open", "high", "low", "close", "volume")}
        return pd.DataFrame(own | dict(self.columns), index=self.index)

    def mark(self) -> pd.DataFrame | None:
        """Return open, high, low, close of the mark price by open time; None where none is."""
        if not self.has_mark:
            return None
        names = ("open", "high", "low", "close")
        return pd.DataFrame({n: getattr(self, f"mark_{n}") for n in names}, index=self.index)

    def funding(self) -> pd.DataFrame | None:
        """Return rate, mark and, where known, predicted by stamp; None where there is no event."""
        if not self.funding_time.size:
            return None
        columns = {"rate": self.funding_rate, "mark": self.funding_mark}
        if not np.isnan(self.funding_predicted).all():
            columns["predicted"] = self.funding_predicted
        return pd.DataFrame(columns, index=utc_index(self.funding_time))

    def save(self, folder: str | Path) -> Path:
        """Write the market to a new folder that :meth:`load` reads; all of it or nothing.

        Raises
        ------
        DataError
            If the folder holds something already, or cannot be written.
        """
        frames = {"bars": self.bars(), "mark": self.mark(), "funding": self.funding()}
        facts = {
            "instrument": self.instrument,
            "interval": format_duration(self.interval),
            "synthetic": self.synthetic,
            "sessions": self.sessions,
            "filled": dict(self.filled),
        }
        tables = {name: frame for name, frame in frames.items() if frame is not None}
        write_folder(Path(folder), tables, facts)
        return Path(folder)


def _freeze(array: AnyArray) -> AnyArray:
    """Return an array that nobody can write to; a copy where somebody still could."""
    if not array.flags.writeable and array.flags.c_contiguous:
        return array
    frozen = array.copy(order="C")
    frozen.flags.writeable = False
    return frozen


def _rebuild(facts: Facts, source: str) -> Market:
    return Market(**facts, source=source)
