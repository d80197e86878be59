"""Save results of several positions as Parquet and JSON, and load them again; none is code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from backtest.account import Account
from backtest.base.caller_warnings import warn_caller
from backtest.base.json_values import from_plain
from backtest.base.provenance import attach_saved_making, find_making, write_provenance
from backtest.base.result_folders import (
    MANIFEST,
    explain_other_metrics,
    name_folder,
    read_json_file,
    read_manifest,
    save_folder,
    write_folder_manifest,
    write_json_file,
    write_parquet,
)
from backtest.base.units import FloatArray
from backtest.engine.fee_days import read_traded
from backtest.engine.portfolio.book_loop import ACCOUNT_RECORD, POSITION_RECORD
from backtest.engine.portfolio.portfolio_manifest import KIND
from backtest.engine.result_files import describe_metrics
from backtest.measures.run_span import RunSpan
from backtest.measures.stored_tally import flatten_tally, read_tally
from backtest.portfolio.book_ledger import WIDTH
from backtest.portfolio.book_records import EQUITY, HIGHEST, Book
from backtest.venue import Venue
from backtest.venue.book_rules import Holdings

if TYPE_CHECKING:
    from backtest.engine.portfolio.portfolio_record import PortfolioRecord

Loaded = TypeVar("Loaded", bound="PortfolioRecord")

FORMAT = 1
FILES = ("bars.parquet", "positions.parquet", "events.parquet", "state.json", "metrics.json")
BARS, POSITIONS, EVENTS, STATE, METRICS = FILES
KEPT = ("interval", "is_session", "first_peak", "started")


def name_portfolio(result: Any) -> str:
    """Return the name of the folder of a result."""
    policy = str(result.manifest["policy"]["name"])
    title = KIND if policy == KIND else f"{policy}-{KIND}"  # of several policies the name is KIND
    return name_folder(title, result.manifest["id"])


def save_portfolio(result: Any, folder: Path) -> Path:
    """Write a result into a folder of its own; it appears whole or not at all."""
    name = name_portfolio(result)
    policies = [type(each) for each in result.policies.values()]
    policies += [] if result.overlay is None else [type(result.overlay)]
    making = find_making(result, policies)

    def write(draft: Path) -> None:
        _write(result, draft)
        write_provenance(draft, folder / name, result.manifest["id"], making)

    other = explain_other_metrics(folder / name / METRICS, describe_metrics(result.metrics))
    target = save_folder(folder, name, write, what=KIND)
    if other:
        warn_caller(other)
    return target


def _write(result: Any, folder: Path) -> None:
    bars = pd.DataFrame(result.record, columns=list(ACCOUNT_RECORD))
    bars.insert(0, "time", pd.DatetimeIndex(result.time, tz="UTC"))
    bars = bars.assign(ends_sample=result.ends_sample, market_return=result.market_returns)
    for c, asset in enumerate(result.account.collateral):
        bars[f"price of {asset.name}"] = result.asset_marks[:, c]
    write_parquet(bars, folder / BARS)
    write_parquet(pd.DataFrame(_widen(result)), folder / POSITIONS)
    entries = pd.DataFrame(result.entries, columns=[f"column_{k}" for k in range(WIDTH)])
    write_parquet(entries, folder / EVENTS)
    write_json_file(_pack_state(result), folder / STATE)
    write_json_file(describe_metrics(result.metrics), folder / METRICS)
    write_folder_manifest(folder, result.manifest, FILES, FORMAT)


def _widen(result: Any) -> dict[str, FloatArray]:
    """Return the positions' record and marks as columns named ``instrument field``."""
    found: dict[str, FloatArray] = {}
    for i, name in enumerate(result.names):
        found |= {
            f"{name} {each}": result.positions_record[:, i, k]
            for k, each in enumerate(POSITION_RECORD)
        }
        found[f"{name} mark"] = result.marks[:, i]
    return found


def _pack_state(result: Any) -> dict[str, Any]:
    book = result.book
    arrays = {name: each.tolist() for name, each in book._asdict().items() if name != "held"}
    return {
        "book": {**arrays, "held": {k: v.tolist() for k, v in book.held._asdict().items()}},
        "tally": flatten_tally(result.tally),
        "memory": result.memory.tolist(),
        "names": list(result.names),
        "spans": result.spans.tolist(),
        **{name: getattr(result, name) for name in KEPT},
        "target_cuts": list(result.cut_rows),
        "no_fill": result.no_fill,
        "traded": None if result.traded is None else result.traded.to_dict(),
        "start": result.span.start,
        "first": result.span.first,
        "periods": result.span.periods,
    }


def _read_book(stored: Mapping[str, Any]) -> Book:
    whole = ("is_pending", "is_halted", "is_called", "is_call_open", "cursor")
    arrays: dict[str, Any] = {
        name: np.array(each, dtype=np.int64 if name in whole else np.float64)
        for name, each in stored.items()
        if name != "held"
    }
    if len(arrays["purse"]) == HIGHEST:  # stored before there was an equity stop
        arrays["purse"] = np.append(arrays["purse"], arrays["purse"][EQUITY])
    held = {name: np.array(each, dtype=np.float64) for name, each in stored["held"].items()}
    return Book(held=Holdings(**held), **arrays)


def load_portfolio(folder: Path, kind: type[Loaded]) -> Loaded:
    """Read a saved result into an object of the given class."""
    cure = "give the folder that PortfolioResult.save returned; of one position, Result.load"
    manifest = read_manifest(folder, FILES, FORMAT, what=KIND, cure=cure)
    where = str(folder / MANIFEST)
    venues = {
        name: Venue.from_dict(each, where=f"{where}, venue of {name}")
        for name, each in manifest["venue"].items()
    }
    account = Account.from_dict(manifest["account"], where=f"{where}, account")
    stored: Any = from_plain(read_json_file(folder / STATE))
    bars = pq.read_table(folder / BARS).to_pandas()
    wide = pq.read_table(folder / POSITIONS).to_pandas()
    time = bars["time"].astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    names = tuple(stored["names"])
    result = kind(
        policies={},
        overlay=None,
        venues=venues,
        account=account,
        manifest={k: v for k, v in manifest.items() if k not in ("format", "files")},
        names=names,
        span=RunSpan(
            stored["start"], time + stored["interval"], stored["first"], stored["periods"]
        ),
        spans=np.array(stored["spans"], dtype=np.int64),
        tally=read_tally(stored["tally"]),
        book=_read_book(stored["book"]),
        memory=np.array(stored["memory"], dtype=np.float64),
        **{name: stored[name] for name in KEPT},
        traded=read_traded(stored["traded"]),
        measure_cuts=partial(list, stored.get("target_cuts", ())),
        no_fill=str(stored.get("no_fill", "")),
        record=bars[list(ACCOUNT_RECORD)].to_numpy(dtype=np.float64),
        positions_record=np.stack(
            [wide[[f"{name} {each}" for each in POSITION_RECORD]].to_numpy() for name in names],
            axis=1,
        ),
        entries=pq.read_table(folder / EVENTS).to_pandas().to_numpy(dtype=np.float64),
        marks=wide[[f"{name} mark" for name in names]].to_numpy(),
        asset_marks=bars[[f"price of {each.name}" for each in account.collateral]].to_numpy(
            dtype=np.float64
        ),
        ends_sample=bars["ends_sample"].to_numpy(),
        market_returns=bars["market_return"].to_numpy(),
    )
    attach_saved_making(result, folder, manifest["id"])
    return result
