"""Market: the aligned, immutable history of one instrument that everything else reads.

====================  ==============================================================================
word                  what it is, in this room
====================  ==============================================================================
bar                   open, high, low and close of a stretch of time, named by its open
mark                  prices by which positions are valued and liquidated, bar by bar
settlement            a payment of funding: its stamp, rate and price
stamp                 a time as a file or venue writes it; UTC ns once it is read
interval              the length of a bar, ns; a market with sessions has bars further apart
panel                 several instruments on one clock, the union of their opens
span                  the bars from the first of an instrument to its last
role                  what a table is of: bars, mark or funding
rule, defect, doubt   what data must satisfy; what breaks a rule; what may be right
repair                a change of data that is asked for by name, and noted
====================  ==============================================================================
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from backtest import core
from backtest.core import DataError, FloatArray, IntArray, ParameterError, Range, TimeLike, checked
from backtest.core.code_names import is_series, pd
from backtest.core.result_folders import DRAFT
from backtest.market import tables
from backtest.market.files import write_table
from backtest.market.loading import load_fields, load_frames, read_options
from backtest.market.read_options import time_text
from backtest.market.synthetic import START, generate_sample
from backtest.market.tables import PRICES, TIME_NAMES, FundingGaps, MarkGaps, SourceFrame, Span

T = TypeVar("T")


class BarClock:
    """Base of one market and of several: bars by their opens, equal if their contents are."""

    time: IntArray
    interval: int
    sessions: bool
    source: str
    noun: ClassVar[str] = "market"
    _hash_content: Callable[[], str]
    _slice: Callable[[int, int, str], Self]

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
    def times(self) -> pd.DatetimeIndex:
        """The opens as a UTC index."""
        return core.utc_index(self.time)

    @property
    def content_hash(self) -> str:
        """SHA-256, hex, of the content; not of ``source``."""
        return compute_once(self, "content", self._hash_content)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self is other or self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def prefix(self, n: int) -> Self:
        """Return the first n bars, and the funding stamped before the close of the last of them.

        It holds nothing stamped at or after its end: all that a policy may know at that close. What
        ``observe`` computes on a prefix must equal the prefix of what it computes on the whole. Of
        several instruments, those that are not listed yet are left out. Raises ParameterError if n
        is not from 1 to n_bars.
        """
        Range(1, self.n_bars, "bars").check("n", n, whole=True)
        return self._slice(0, n, f".prefix({n})")

    def slice(
        self, first: int | TimeLike | None = None, stop: int | TimeLike | None = None
    ) -> Self:
        """Return the bars from ``first`` up to ``stop``, with their signal and funding.

        Whole numbers count bars; times are bounds of their opens, as in :meth:`between`. It ends as
        :meth:`prefix` does, and begins as :meth:`between` does: an event stamped up to a
        quarter of a bar before its first open belongs to it. Raises ParameterError if first is not
        from 0 to n_bars - 1, or stop not from first + 1 to n_bars, or not both are of a kind.
        """
        bounds: Any = (first, stop)
        if not any(isinstance(bound, int | np.integer) for bound in bounds):
            return self.between(*bounds)
        low = Range(0, self.n_bars - 1, "bars").check("first", first, whole=True)
        high = Range(low + 1, self.n_bars, "bars").check("stop", stop, whole=True)
        return self._slice(low, high, f".slice({low}, {high})")

    def between(self, start: TimeLike | None = None, end: TimeLike | None = None) -> Self:
        """Return the bars that open from ``start`` up to but not including ``end``, both UTC.

        Funding is kept from a quarter of a bar before the first open (an event stamped some ms
        before an open belongs to it) up to but not including the last close. Instruments without a
        bar among them are left out. Raises ParameterError if a day of the span is none of the
        market, or no bar opens in it.
        """
        low = None
        if start is not None:
            low = core.to_nanoseconds(start, "start")
        high = None
        if end is not None:
            high = core.to_nanoseconds(end, "end")

        known = Span(self.start, self.end)
        if low is not None and high is not None and low >= high:
            raise ParameterError(f"the start must lie before the end, got {start} and {end}")
        span = known.replace(low, high)
        first, stop = np.searchsorted(self.time, span).tolist()
        if first >= stop or not known.has_days_of(span, sessions=self.sessions):
            raise ParameterError(
                f"a span must lie inside the {self.noun}, {time_text(self.start)} to "
                f"{time_text(self.end)}, and hold a bar, got {time_text(span.start)} to "
                f"{time_text(span.end)}"
            )
        text = f"{time_text(span.start)!r}, {time_text(span.end)!r}"
        return self._slice(first, stop, f".between({text})")


OF_BEGINNINGS = "of beginnings"
"""Fact of a market: a dict that it shares with its prefixes, whatever their length."""


def find_facts(market: Market) -> dict[str, Any]:
    """Return what was computed of a market and is kept with it, by name, to read and to write."""
    facts: dict[str, Any] = vars(market)["facts"]
    return facts


def find_shared_facts(market: Market) -> dict[Any, Any]:
    """Return the facts that a market shares with its beginnings, to read and to write."""
    shared: dict[Any, Any] = find_facts(market).setdefault(OF_BEGINNINGS, {})
    return shared


def compute_once(data: BarClock, name: str, compute: Callable[[], T]) -> T:
    facts: dict[str, T] = vars(data)["facts"]
    if name not in facts:
        facts[name] = compute()
    return facts[name]


@core.checked_fields
@dataclass(frozen=True, eq=False, repr=False)
class Market(BarClock):
    """Aligned history of one instrument; arrays are C-contiguous and cannot be written to.

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
        In contracts of the venue (base units if a contract is one); zeros if not given.
    mark_open, mark_high, mark_low, mark_close : FloatArray of shape (n_bars,)
        Mark prices; the last prices themselves if ``has_mark`` is False.
    has_mark : bool
        Whether mark prices were given. If not, liquidations are tested on last prices.
    funding_time : IntArray of shape (n_events,)
        Settlement stamps as the venue wrote them (some ms off the boundary), UTC ns, strictly
        increasing, from a quarter of a bar before the first open up to the end.
    funding_rate : FloatArray of shape (n_events,)
        Fraction per settlement; if positive, longs pay.
    funding_mark : FloatArray of shape (n_events,)
        The price that the venue settled on, NaN if unknown.
    columns : mapping of str to FloatArray of shape (n_bars,)
        Further numeric columns of the bars; they may hold NaN.
    synthetic : bool
        Whether the prices are generated.
    sessions : bool
        Whether the market closes, so that bars may be further apart than ``interval``.
    decision_interval : int
        Length of the bars at whose closes policies decide, ns; 0: those of the market.
    filled : mapping of str to str
        What was filled or left out by explicit choice when the data were loaded, for the manifest.
    source : str
        The expression that made this market.
    signal : FloatArray of shape (n_bars,)
        The direction decided at each close, in [-1, 1], that a run was given; policies see it in
        ``observe``. All ones in a market that is not being run. Not part of the content.

    Notes
    -----
    Two markets are equal if their content hashes are. The constructor freezes the arrays and
    trusts their content; data are checked when they are loaded.
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
    signal: FloatArray = field(default_factory=lambda: np.ones(1))
    decision_interval: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        """Freeze all arrays and tables; a signal that never changes stays one number."""
        set_field = functools.partial(object.__setattr__, self)  # the class is frozen

        # Without mark prices, two fields share one array.
        frozen: dict[int, Any] = {}
        for name, array in self._arrays().items():
            key = id(array)
            if key not in frozen:
                frozen[key] = core.freeze(array)
            set_field(name, frozen[key])

        columns = {}
        for name, values in self.columns.items():
            columns[name] = core.freeze(values)
        set_field("columns", MappingProxyType(columns))
        set_field("filled", MappingProxyType(dict(self.filled)))
        set_field("facts", {})  # copies with the same content share them

        # A signal that was broadcast from one number goes back to it, and is broadcast again.
        signal = np.asarray(self.signal)
        is_constant = signal.strides == (0,)
        if is_constant:
            signal = signal[:1]
        by_bar = np.broadcast_to(core.freeze(signal), self.time.shape)
        set_field("signal", by_bar)

    @classmethod
    @checked
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
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        now: TimeLike | None = None,
    ) -> Market:
        """Return a market of frames indexed by UTC time; everything is copied.

        Raises DataError listing every defect of the data, each with its place and cure;
        ParameterError if an argument is unknown or unreadable.

        Parameters
        ----------
        bars : DataFrame
            open, high, low, close, volume (optional) and further numeric columns. Indexed by open
            time, or with a column time, date, timestamp, open_time or datetime.
        funding : DataFrame or Series, optional
            ``rate``, and optionally ``mark``, by settlement stamp. A Series holds the rates.
        mark : DataFrame, optional
            open, high, low, close of the mark price; other columns are ignored.
        instrument : str
            The name of the instrument.
        interval : str, optional
            The length of a bar, such as "1h", to be checked; required for a single bar.
        timezone : str, optional
            The time zone of stamps without one; if omitted, such stamps are refused.
        mark_gaps : "last", optional
            Use last prices for bars without a mark bar, and note it in ``filled``.
        funding_gaps : "zero", optional
            Treat missing settlements as no payment, and note it in ``filled``.
        sessions : bool
            Whether the market closes, so that bars may be missing.
        since, until : str or Timestamp, optional
            Read the bars that open from ``since`` up to but not including ``until``, UTC, before
            they are checked against mark and funding. Their days must be days of the bars.
        now : str or Timestamp, optional
            The present, by which a last bar after tomorrow is a defect. Default: the clock.
        """
        options = read_options(locals())
        frames = {"bars": (SourceFrame("bars", bars),)}
        if mark is not None:
            frames["mark"] = (SourceFrame("mark", mark),)
        if is_series(funding):
            funding = funding.to_frame("rate")
        if funding is not None:
            frames["funding"] = (SourceFrame("funding", funding),)
        fields = load_frames(frames, options, where="the frames given")

        length = core.format_duration(fields["interval"])
        time = fields["time"]
        label = f"{instrument or 'bars'} {length}, {time.size} from {time_text(int(time[0]))}"
        return cls(**fields, source=f"<Market.from_frames: {label}>")

    @classmethod
    @checked
    def load(  # noqa: PLR0913 - keywords, each with a default that is said
        cls,
        *paths: str | Path,
        instrument: str | None = None,
        interval: str | None = None,
        timezone: str | None = None,
        mark_gaps: MarkGaps = None,
        funding_gaps: FundingGaps = None,
        sessions: bool | None = None,
        since: TimeLike | None = None,
        until: TimeLike | None = None,
        now: TimeLike | None = None,
        mark: Sequence[str | Path] = (),
        funding: Sequence[str | Path] = (),
        columns: Mapping[str, str | int] | None = None,
        repair: str | Sequence[str] = (),
    ) -> Market:
        """Return the market in one folder, or in several files: CSV, Parquet, Feather, zip.

        A folder holds ``bars.*`` and optionally ``mark.*``, ``funding.*`` and ``market.json`` (as
        :meth:`save` writes them), or files with the names of freqtrade or of Binance's archive. Of
        files given one by one, the name says which is mark or funding; several files of a kind are
        one table.

        Raises DataError listing every defect of every file, each with its place and cure;
        ParameterError if an argument is unknown or unreadable.

        Parameters
        ----------
        *paths : str or Path
            One folder, or one or several files.
        instrument : str, optional
            Which instrument to load from a folder with several (``"BTCUSDT"``), or the name to
            give if the files do not say it.
        interval : str, optional
            Which bars to load from a folder with several (``"1h"``).
        timezone, mark_gaps, funding_gaps, since, until, now
            As in :meth:`from_frames`.
        sessions : bool, optional
            Whether the market closes, so that bars may be missing. Default: what ``market.json``
            of the folder says, else False.
        mark, funding : sequence of str or Path
            Files, or folders of files, of these kinds, if their names do not say so.
        columns : mapping of str to str or int, optional
            Our names of the bars' columns, and their names (in any case) or positions in the files
            (digits, always counted from 0):
            ``{"time": "ts", "open": "o"}``; for the other files ``"mark.time"``
            and ``"funding.rate"``. A needed column that is not named is found by our name for it,
            and then ``volume``, too; all others that are not named are left out.
        repair : str or sequence of str, optional
            Names of repairs, such as ``"drop-duplicates,mark-gaps=last"``; see the table of repairs
            in the documentation. ``market.filled`` notes what each did.
        """
        if not paths:
            raise ParameterError("load needs a path, got none")
        options = read_options(locals())

        files: dict[str, Any] = {}
        if mark:
            files["mark"] = [*map(str, mark)]
        if funding:
            files["funding"] = [*map(str, funding)]
        fields = load_fields([Path(path) for path in paths], options, **files)
        return cls(**fields, source=options.expression(paths, **files))

    @classmethod
    @checked
    def sample(cls, *, bars: int = 8760, seed: int = 0, interval: str = "1h") -> Market:
        """Return a synthetic perpetual future with mark prices and funding, from 2023-01-01 on.

        Raises ParameterError if an argument is out of range.

        Parameters
        ----------
        bars : int
            The number of bars.
        seed : int
            Seed of the random numbers, at least 0.
        interval : str
            A whole part of 8 hours ("1m", "5m", "1h"), or whole hours that divide a day.

        Examples
        --------
        >>> market = Market.sample(bars=48)
        >>> len(market), market.synthetic, market.instrument
        (48, True, 'SYNTHETIC-PERP')
        """
        length = core.parse_duration(interval, "interval")
        Range(1, math.inf, "bars").check("bars", bars, whole=True)
        most = (np.iinfo(np.int64).max - START) // length - 1
        if bars > most:
            raise ParameterError(
                f"bars must end before the year 2262, at most {most:,} of {interval}, got {bars:,}"
            )
        Range(0, math.inf).check("seed", seed, whole=True)

        # The source is the call itself, without arguments that are the usual ones.
        usual = {"bars": 8760, "seed": 0, "interval": "1h"}
        given = {"bars": bars, "seed": seed, "interval": interval}
        arguments = []
        for name, value in given.items():
            if value != usual[name]:
                arguments.append(f"{name}={value!r}")
        source = f"Market.sample({', '.join(arguments)})"

        generated = generate_sample(bars=bars, seed=seed, length=length)
        market = cls(**generated, source=source)
        if market.interval == length:
            return market

        # Bars that no settlement divides are put together from shorter ones.
        combined = tables.resample_fields(market, length)
        return cls(**combined, source=source)

    def __len__(self) -> int:
        return self.n_bars

    def fields(self) -> dict[str, Any]:
        """Return the fields of the content by name, as the constructor has them."""
        return {name: getattr(self, name) for name in _CONTENT}

    def _arrays(self) -> dict[str, Any]:
        """Return the fields that are arrays, without columns and signal."""
        fields = self.fields().items()
        return {name: value for name, value in fields if isinstance(value, np.ndarray)}

    def _hash_content(self) -> str:
        """Return the SHA-256 of all bars, columns and settings, the same on every machine."""
        names = sorted(self.columns)
        settings = [self.instrument, self.interval, self.has_mark, self.synthetic, self.sessions]
        # Hashes of markets without one stay what they were before there was one.
        if self.decision_interval:
            settings.append(self.decision_interval)
        head = json.dumps([*settings, names])
        digest = hashlib.sha256(head.encode())

        arrays = [*self._arrays().values()]
        arrays += [self.columns[name] for name in names]
        for array in arrays:
            # Its size too, or two arrays could hold the bytes of one.
            digest.update(f"{array.size}:".encode())
            little_endian = array.dtype.newbyteorder("<")
            digest.update(array.astype(little_endian, copy=False).data)
        return digest.hexdigest()

    def bars(self) -> pd.DataFrame:
        """Return open, high, low, close, volume and further columns, indexed by open time."""
        columns = {name: getattr(self, name) for name in (*PRICES, "volume")}
        columns |= self.columns
        return pd.DataFrame(columns, index=self.times)

    def mark(self) -> pd.DataFrame | None:
        """Return open, high, low, close of the mark price by open time; None if there is none."""
        if not self.has_mark:
            return None
        marks = {name: getattr(self, f"mark_{name}") for name in PRICES}
        return pd.DataFrame(marks, index=self.times)

    def funding(self) -> pd.DataFrame | None:
        """Return rate and mark by stamp; None if there is no settlement."""
        if not self.funding_time.size:
            return None
        columns = {"rate": self.funding_rate, "mark": self.funding_mark}
        return pd.DataFrame(columns, index=core.utc_index(self.funding_time))

    def __repr__(self) -> str:
        return self.source

    def __reduce__(self) -> tuple[object, ...]:
        fields = self.fields()
        fields["columns"] = dict(self.columns)
        fields["filled"] = dict(self.filled)

        signal = self.signal
        if signal.strides == (0,):  # a constant
            signal = signal[:1]
        make = functools.partial(Market, **fields, source=self.source, signal=signal)
        return make, ()

    def _slice(self, first: int, stop: int, step: str) -> Market:
        """Return the bars from first to before stop; ``step`` is what the source says of it.

        A part that begins with the market shares what was computed of its beginnings.
        """
        # A settlement stamped up to a quarter of a bar early belongs to the open; in
        # a part that begins with the data, one in the whole bar before it.
        lead = self.interval
        if first:
            lead = self.interval // 4
        funding_from = int(self.time[first]) - lead
        fields = tables.slice_fields(self, slice(first, stop), funding_from=funding_from)
        fields["columns"] = MappingProxyType(fields["columns"])
        fields["source"] = self.source + step
        fields["signal"] = self.signal[first:stop]
        market = trust_fields(fields)
        if first == 0:
            find_facts(market)[OF_BEGINNINGS] = find_shared_facts(self)
        return market

    @checked
    def with_signal(self, signal: FloatArray) -> Market:
        """Return the market as policies see it in a run with this signal.

        Parameters
        ----------
        signal : FloatArray of shape (n_bars,) or (1,)
            The direction decided at each close, in [-1, 1].
        """
        if np.shape(signal) != (1,):
            core.check_shape("signal", signal, (self.n_bars,))
        market = dataclasses.replace(self, signal=signal)
        vars(market)["facts"] = vars(self)["facts"]
        return market

    def with_columns(self, **columns: npt.ArrayLike | pd.Series) -> Market:
        """Return the market with further columns, for policies to observe.

        Raises DataError if a name is that of a price, the volume or the times, or values are not
        one finite number, or NaN, per bar.

        Parameters
        ----------
        **columns : array, list or Series of shape (n_bars,)
            Numbers known at each bar's close, by name; NaN if unknown. A Series with times must
            have the opens of the bars, in any time zone. An existing column is replaced.

        Examples
        --------
        >>> market = Market.sample(bars=3).with_columns(implied_volatility=[0.5, 0.6, 0.7])
        >>> market.columns["implied_volatility"]
        array([0.5, 0.6, 0.7])
        """
        read = {name: read_column(name, values, self.time) for name, values in columns.items()}
        source = f"{self.source}.with_columns({', '.join(read)})"
        return dataclasses.replace(self, columns={**self.columns, **read}, source=source)

    def resample(self, interval: str) -> Market:
        """Return longer bars, aligned to UTC (weeks begin on Monday).

        open is the first, high the highest, low the lowest, close and further columns the last;
        volume, ``taker_buy_volume`` (what takers bought of it, in the same unit), ``quote_volume``
        (quote currency) and ``trades`` (a count) are sums; mark prices likewise. All funding events
        inside are kept. An incomplete group at either end is dropped and noted in
        ``filled["resample"]``.

        In a market with sessions a group is the bars that open in the same stretch of UTC time; it
        is stamped where the stretch begins. The first group is complete if it begins no later in
        its stretch than is usual for the five after it, the last if it ends no earlier than is
        usual for the five before it.

        Raises ParameterError if it is not a multiple, no group is complete, bars are off the UTC
        grid, or, with sessions, reach from one stretch into the next.

        Parameters
        ----------
        interval : str
            A multiple of the market's own interval; with sessions, any length not below it.
        """
        fields = tables.resample_fields(self, core.parse_duration(interval, "interval"))
        return Market(**fields, source=f"{self.source}.resample({interval!r})")

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write the market to a new folder that :meth:`load` reads; all of it or nothing.

        Raises DataError if the folder is not empty, or cannot be written.
        """
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(
                f"a market is saved to a new or empty folder, this one is in use ({path})"
            )

        facts = {
            "instrument": self.instrument,
            "interval": core.format_duration(self.interval),
            "synthetic": self.synthetic,
            "sessions": self.sessions,
            "filled": dict(self.filled),
        }
        frames = {"bars": self.bars(), "mark": self.mark(), "funding": self.funding()}
        with core.writing(path, "market"), core.drafted_folder(path, DRAFT) as draft:
            for name, frame in frames.items():
                if frame is not None:
                    write_table(frame, draft / f"{name}.parquet")
            core.write_json_file(facts, draft / "market.json")
        return path


def trust_fields(fields: Mapping[str, Any]) -> Market:
    """Return a market without the checks of its constructor, of arrays that are frozen and fit."""
    market = object.__new__(Market)
    vars(market).update(fields, facts={})
    return market


_CONTENT = tuple(
    field.name for field in dataclasses.fields(Market) if field.name not in ("source", "signal")
)


def read_column(name: str, values: object, time: IntArray) -> FloatArray:
    """Return the values of a further column of the bars as floats, (n_bars,); NaN where unknown.

    ``time`` holds the opens of the bars, UTC ns, which a Series must be indexed by. Raises
    DataError for a name that is taken, another number of values, or one that is no number.
    """
    if name in (*PRICES, "volume"):
        raise DataError(f"{name}: is the name of a price or the volume")
    if name in TIME_NAMES:
        raise DataError(f"{name}: is a name of the time column")
    if is_series(values):
        stamps = tables.read_dates(values.index, name, tables.BY_BARS, error=DataError)
        if not np.array_equal(stamps, time):
            if np.array_equal(np.sort(stamps), time):
                raise DataError(
                    f"{name}: must be in the order of the bars; {name}.sort_index() puts it there"
                )
            raise DataError(
                f"{name}: must be indexed by the opens of the bars, lacks "
                f"{np.setdiff1d(time, stamps).size} of {time.size} and has {stamps.size} times; "
                "values of longer bars, each from the stamp of the next: "
                f"{name}.shift(1).reindex(market.times, method='ffill')"
            )
        values = values.reset_index(drop=True)

    array = np.asarray(values)
    if array.shape != time.shape:
        raise DataError(
            f"{name}: must have {time.size} values, one per bar, got shape {array.shape}"
        )
    cells: Any = array
    if array.dtype == object:
        cells = array.tolist()
    numbers = pd.Series(cells)  # None becomes NaN
    column = tables.to_floats(numbers, column=name, name="with_columns")

    infinite = np.flatnonzero(np.isinf(column))
    if infinite.size:
        first = core.format_time(int(time[infinite[0]]))
        raise DataError(
            f"{name}: must be finite, or NaN if unknown, got {column[infinite[0]]:g} in "
            f"{infinite.size} of {time.size} bars, first at {first}"
        )
    return column


def find_column(market: Market, name: str, key: str) -> core.FloatArray:
    """Return a column of a market, (n_bars,); ``key`` is the setting that names it."""
    if name in market.columns:
        return market.columns[name]
    known = ", ".join(market.columns) or "none"
    raise core.ParameterError(
        f"{key}: the market has no column {name!r}{core.did_you_mean(name, market.columns)}, "
        f"its columns are: {known}; add it with market.with_columns({name}=values)"
    )
