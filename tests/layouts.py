"""A market written as other tools write theirs: files, and the arguments to import them with."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

import backtest as bt
from tests.replay import HEADER

SAMPLE = bt.Market.sample(bars=24 * 4)
MARKET = bt.Market.from_frames(
    SAMPLE.bars(), funding=SAMPLE.funding()[["rate"]], mark=SAMPLE.mark(), instrument="BTCUSDT"
)
"""Four days of hours with mark and funding, under a name that every layout can hold."""

OF_KLINES = MARKET.with_columns(
    **{name: np.full(96, value) for name, value in (
        ("quote_volume", 1.5), ("trades", 7.0), ("taker_buy_volume", 0.5))}
)  # fmt: skip
"""The same market with what klines carry, as :func:`kline_text` writes them."""

Written = tuple[list[Path], dict[str, Any]]
"""The paths to import, and further arguments."""


def own_files(
    folder: Path,
    kinds: tuple[str, ...] = ("bars", "mark", "funding"),
    **changes: Callable[[pd.DataFrame], pd.DataFrame],
) -> list[Path]:
    """Write the market's frames, some of them changed first."""
    frames = {"bars": MARKET.bars(), "mark": MARKET.mark(), "funding": MARKET.funding()[["rate"]]}
    for kind in kinds:
        frame = changes[kind](frames[kind]) if kind in changes else frames[kind]
        frame.to_csv(folder / f"{kind}.csv", index_label="time")
    return [folder / f"{kind}.csv" for kind in kinds]


def beside(folder: Path) -> dict[str, Any]:
    mark, funding = own_files(folder, ("mark", "funding"))
    return {"mark": [mark], "funding": [funding], "instrument": "BTCUSDT"}


def write_own(folder: Path) -> Written:
    MARKET.save(folder / "saved")
    return [folder / "saved"], {}


def write_own_csv(folder: Path) -> Written:
    return own_files(folder), {"instrument": "BTCUSDT"}


def write_packed_csv(folder: Path) -> Written:
    paths = []
    for path in own_files(folder):
        paths.append(path.with_suffix(".csv.gz"))
        paths[-1].write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return paths, {"instrument": "BTCUSDT"}


def write_own_parquet(folder: Path) -> Written:
    """Write what knows nothing of pandas, with times in a column."""
    for name in ("bars", "mark", "funding"):
        frame = getattr(MARKET, name)().reset_index(names="time")
        table = pa.Table.from_pandas(frame).replace_schema_metadata(None)
        parquet.write_table(table, folder / f"{name}.parquet")
    return [folder], {"instrument": "BTCUSDT"}


def freqtrade_frames() -> dict[str, pd.DataFrame]:
    """Return frames by freqtrade's names: times in ``date``, the rate in ``open`` beside zeros."""
    rates = MARKET.funding()[["rate"]].rename(columns={"rate": "open"})
    kinds = {
        "1h-futures": MARKET.bars(),
        "1h-mark": MARKET.mark().assign(volume=0.0),
        "8h-funding_rate": rates.assign(high=0.0, low=0.0, close=0.0, volume=0.0),
    }
    return {f"BTC_USDT_USDT-{kind}": frame for kind, frame in kinds.items()}


def write_freqtrade_feather(folder: Path, ending: str = "feather") -> Written:
    for name, frame in freqtrade_frames().items():
        getattr(frame.reset_index(names="date"), f"to_{ending}")(folder / f"{name}.{ending}")
    return [folder], {}


def write_freqtrade_parquet(folder: Path) -> Written:
    return write_freqtrade_feather(folder, "parquet")


def kline_text(frame: pd.DataFrame, *, unit: int, has_header: bool) -> str:
    stamps = frame.index.as_unit("ns").asi8
    table = frame.reindex(columns=["open", "high", "low", "close", "volume"], fill_value=0.0)
    table.insert(0, "open_time", stamps // unit)
    table["close_time"] = (stamps + 3_599_999_000_000) // unit
    table[[*["quote", "count", "bought", "paid", "ignored"]]] = [1.5, 7, 0.5, 0.25, 0]
    return f"{HEADER}\n" * has_header + table.to_csv(index=False, header=False)


def zip_text(path: Path, name: str, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return path


def write_binance_zip(folder: Path) -> Written:
    """Write a file a day in the archive's tree; from the third day on in us and with a header."""
    paths = []
    for kind, frame in (("klines", MARKET.bars()), ("markPriceKlines", MARKET.mark())):
        for number, (day, part) in enumerate(frame.groupby(frame.index.normalize())):
            is_late = number >= 2
            text = kline_text(part, unit=1_000 if is_late else 1_000_000, has_header=is_late)
            name = f"BTCUSDT-1h-{day:%Y-%m-%d}"
            path = folder / kind / "BTCUSDT" / "1h" / f"{name}.zip"
            paths.append(zip_text(path, f"{name}.csv", text))

    stamps = MARKET.funding_time // 1_000_000 + 3
    rates = zip(stamps.tolist(), MARKET.funding_rate.tolist(), strict=True)
    text = "calc_time,funding_interval_hours,last_funding_rate\n"
    text += "".join(f"{ms - 3},8,{rate!r}\n" for ms, rate in rates)

    path = folder / "fundingRate" / "BTCUSDT" / "BTCUSDT-fundingRate-2023-01.zip"
    paths.append(zip_text(path, "BTCUSDT-fundingRate-2023-01.csv", text))
    return paths[::-1], {}


def write_vectorbt(folder: Path) -> Written:
    frame = MARKET.bars().rename(columns=str.title).rename_axis(index="Open time")
    frame = frame.assign(**{"Close time": frame.index + pd.Timedelta("59min"), "Dividends": 0.0})
    frame.to_parquet(folder / "ccxt.parquet")
    return [folder / "ccxt.parquet"], beside(folder)


LAYOUTS: dict[str, Callable[[Path], Written]] = {
    name.removeprefix("write_"): write for name, write in globals().items() if "write_" in name
}
"""Every layout by name."""
