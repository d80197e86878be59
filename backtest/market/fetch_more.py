"""More of Binance's archive as columns of the bars: open interest, ratios, the premium index.

Rows are kept in the folder ``more`` of a market and joined to its bars, each at the close at which
it is known: a row of metrics five minutes after its stamp, as it is of the five minutes from there
on; the premium of a bar at its close. A value that is missing is NaN and counted, never filled.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core import DataError, FloatArray, IntArray
from backtest.core.code_names import pd
from backtest.core.units import DAY

FOLDER = "more"
MINUTE = 60_000_000_000
METRICS_LAG = 5 * MINUTE
"""After its stamp a row of metrics is known. Source: github.com/binance/binance-public-data, whose
files have a row every five minutes, stamped with the beginning (create_time)."""
STALE = 2 * METRICS_LAG
"""The age at a close from which on the last row of metrics is a gap."""
METRICS = {
    "sum_open_interest": "open_interest",
    "sum_open_interest_value": "open_interest_value",
    "count_toptrader_long_short_ratio": "top_account_ratio",
    "sum_toptrader_long_short_ratio": "top_position_ratio",
    "count_long_short_ratio": "account_ratio",
    "sum_taker_long_short_vol_ratio": "taker_volume_ratio",
}
"""Columns of the archive's metrics, and ours. Open interest is in coins, of COIN-M in contracts."""
COLUMNS = {"metrics": (*METRICS.values(),), "premium": ("premium",)}
KLINE = ("open_time", "open", "high", "low", "close")
CHOICES = ("metrics", "taker", "premium")


class Span(NamedTuple):
    """The days to fetch, midnights of UTC in ns."""

    first: int
    stop: int


Download = Callable[[str], bytes | None]


def fetch_more(
    folder: Path, kinds: Sequence[str], *, base: str, symbol: str, interval: int, span: Span,
    download: Download,
) -> dict[str, int]:  # fmt: skip
    """Add columns to the bars of a folder, from rows of the archive for the days of ``span``.

    ``kinds`` are "metrics" and "premium"; days that the folder has already are not fetched again.
    ``base`` is the archive's address for one kind of futures, ``.../data/futures/um``, and
    ``interval`` the length of a bar, ns. Writes ``bars.parquet`` anew. Returns for each new column
    how many bars have no value.
    """
    bars_file = folder / "bars.parquet"
    bars = pd.read_parquet(bars_file)
    stamps = pd.DatetimeIndex(bars.get("time", bars.index)).as_unit("ns").asi8

    missing = {}
    for kind in kinds:
        rows = fetch_rows(folder, kind, base, symbol, interval, span, download)
        # What is known at the close of each bar.
        columns = join_rows(rows, kind, stamps + interval, interval)
        for name, values in columns.items():
            bars[name] = values
            missing[name] = int(np.isnan(values).sum())

    with core.writing(folder, "fetch"), core.replace_file(bars_file) as draft:
        bars.to_parquet(draft)
    return missing


def fetch_rows(
    folder: Path, kind: str, base: str, symbol: str, interval: int, span: Span, download: Download
) -> pd.DataFrame:
    """Return the rows of a kind by stamp, from the folder and for new days from the archive.

    ``kind`` is metrics or premium, ``base`` the address of the files, ``span`` the days to have.
    Days that were fetched before are not asked for again. Writes the rows into the folder.
    """
    file = folder / FOLDER / f"{kind}.parquet"
    table = empty_rows(kind)
    if file.exists():
        table = pd.read_parquet(file)
    days_there = np.unique(table["time"].to_numpy() // DAY)
    days_wanted = np.arange(span.first // DAY, span.stop // DAY)

    parts = [table]
    length = core.format_duration(interval)
    for day in np.setdiff1d(days_wanted, days_there).tolist():
        date = pd.Timestamp(day * DAY).strftime("%Y-%m-%d")
        file_of_day = f"metrics/{symbol}/{symbol}-metrics-{date}.zip"
        if kind == "premium":
            file_of_day = f"premiumIndexKlines/{symbol}/{length}/{symbol}-{length}-{date}.zip"
        url = f"{base}/daily/{file_of_day}"
        content = download(url)
        if content is not None:
            rows = read_rows(content, kind, url)
            parts.append(rows[rows["time"] // DAY == day])

    if len(parts) > 1:
        table = pd.concat(parts, ignore_index=True)
    table = table.drop_duplicates("time", keep="last").sort_values("time", ignore_index=True)
    with core.writing(folder, "fetch"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with core.replace_file(file) as draft:
            table.to_parquet(draft)
    return table


def empty_rows(kind: str) -> pd.DataFrame:
    """Return a table of a kind without rows."""
    columns: dict[str, Any] = {"time": np.empty(0, np.int64)}
    for name in COLUMNS[kind]:
        columns[name] = np.empty(0)
    return pd.DataFrame(columns)


def read_rows(content: bytes, kind: str, where: str) -> pd.DataFrame:
    """Return the rows of a zip file of the archive, ``time`` in UTC ns; DataError if it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            text = archive.read(archive.namelist()[0])
    except (zipfile.BadZipFile, IndexError, OSError) as error:
        raise DataError(
            f"a file of the archive must be a zip file, got {error} ({where})"
        ) from error

    read = read_premium
    if kind == "metrics":
        read = read_metrics
    try:
        return read(text)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"rows of {kind} cannot be read: {str(error)[:200]} ({where})") from error


def read_metrics(text: bytes) -> pd.DataFrame:
    """Return rows of metrics by our names, each stamped with the beginning of its five minutes."""
    table = pd.read_csv(io.BytesIO(text))
    times = pd.to_datetime(table["create_time"], utc=True)
    stamps = pd.DatetimeIndex(times).as_unit("ns").asi8
    # Some stamps are seconds late: a row is of the five minutes in which it is stamped.
    rows: dict[str, Any] = {"time": stamps // METRICS_LAG * METRICS_LAG}
    for theirs, ours in METRICS.items():
        numbers = pd.to_numeric(table[theirs], errors="coerce")
        rows[ours] = numbers.to_numpy(dtype=np.float64)
    return pd.DataFrame(rows)


def read_premium(text: bytes) -> pd.DataFrame:
    """Return the rows of a file of the premium index: the stamp (UTC ns) and close of each bar.

    The premium is a fraction of the price, and may be negative.
    """
    # Older files have no header.
    header: int | None = 0
    if text.lstrip()[:1].isdigit():
        header = None
    table = pd.read_csv(io.BytesIO(text), header=header)

    # Stamps in microseconds have 16 digits, those in milliseconds 13.
    opens = table.iloc[:, KLINE.index("open_time")]
    stamps = opens.to_numpy(dtype=np.int64)
    unit = 1_000_000
    if len(stamps) and stamps[0] > 10**14:
        unit = 1_000

    closes = table.iloc[:, KLINE.index("close")]
    premium = closes.to_numpy(dtype=np.float64)
    return pd.DataFrame({"time": stamps * unit, "premium": premium})


def join_rows(
    rows: pd.DataFrame, kind: str, closes: IntArray, interval: int
) -> Mapping[str, FloatArray]:
    """Return the columns of a kind at the closes of bars: what is known by then, NaN where old.

    ``rows`` has a ``time``, the stamp of each row, rising; ``closes`` of shape (n_bars,) are times
    too, UTC ns. ``interval`` is the length of a bar. Metrics are known some minutes after their
    stamp, and old after some more; the premium of a bar is known at its close, and then alone.
    """
    stamps = rows["time"].to_numpy(dtype=np.int64)
    if not len(stamps):
        return {name: np.full(len(closes), np.nan) for name in COLUMNS[kind]}

    # An age of less than 1 ns is that of a row which is known at this very close.
    known_at = stamps + METRICS_LAG
    age_limit = STALE
    if kind == "premium":
        known_at = stamps + interval
        age_limit = 1

    # The last row that is known at each close; -1: none is.
    last = np.searchsorted(known_at, closes, side="right") - 1
    row = np.maximum(last, 0)
    age = closes - known_at[row]
    is_fresh = (last >= 0) & (age < age_limit)

    joined = {}
    for name in COLUMNS[kind]:
        values = rows[name].to_numpy(dtype=np.float64)
        joined[name] = np.where(is_fresh, values[row], np.nan)
    return joined
