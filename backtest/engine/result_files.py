"""Save results as Parquet and JSON, and load them again; nothing in them is code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from backtest.account import Account, Books, Position, State, Watch
from backtest.base.caller_warnings import warn_caller
from backtest.base.json_values import from_plain
from backtest.base.provenance import attach_saved_making, find_making, write_provenance
from backtest.base.result_folders import (
    MANIFEST,
    explain_other_metrics,
    hash_file,
    name_folder,
    read_json_file,
    read_manifest,
    save_folder,
    write_folder_manifest,
    write_json_file,
    write_parquet,
)
from backtest.engine.bar_loop import RECORDED
from backtest.engine.fee_days import read_traded
from backtest.engine.run_record import RunRecord
from backtest.features.liquidation_forecast import VolatilityState
from backtest.measures.run_span import RunSpan
from backtest.measures.stored_tally import flatten_tally, read_tally
from backtest.venue import Venue

Loaded = TypeVar("Loaded", bound=RunRecord)

FORMAT = 2
FILES = ("bars.parquet", "events.parquet", "state.json", "metrics.json")
BARS, EVENTS, STATE, METRICS = FILES
HASHED = (MANIFEST, METRICS, STATE)
"""The files whose hashes a list compares."""
ARRAYS = (
    "mark_low", "mark_high", "signal", "multiplier", "initial_multiplier", "ends_sample",
)  # fmt: skip
HIDDEN = ("entry_value", "unit_value", *ARRAYS)
"""Columns of the bars file that only loading needs."""
KEPT = (
    "memory", "started", "first_peak", "interval", "is_session", "trail", "first_mark",
    "first_signal", "last_mark",
)  # fmt: skip
"""Fields of a run that are stored beside its state."""
NO_WATCH = {"best": 0.0, "highest": 0.0}
"""What stops compare with, in results of accounts that had none but a stop-loss."""


def save_result(result: RunRecord, folder: Path) -> Path:
    """Write a result into a folder of its own; it appears whole or not at all."""
    name = name_folder(result.manifest["policy"]["name"], result.manifest["id"])
    policies = [] if result.policy is None else [type(result.policy)]
    making = find_making(result, policies)

    def write(draft: Path) -> None:
        _write(result, draft)
        line = describe_line(draft, result.manifest, describe_metrics(result.metrics))
        write_provenance(draft, folder / name, result.manifest["id"], making, line)

    other = explain_other_metrics(folder / name / METRICS, describe_metrics(result.metrics))
    target = save_folder(folder, name, write, what="result")
    if other:
        warn_caller(other)
    return target


def describe_line(
    folder: Path, manifest: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> dict[str, Any]:
    """Return a result's line in a list of results, with the sizes and hashes that keep it valid."""
    return {
        "run_format": FORMAT,
        "shows": describe_run(manifest, metrics),
        "sizes": {name: (folder / name).stat().st_size for name in sorted((*FILES, MANIFEST))},
        "hashes": {name: hash_file(folder / name) for name in HASHED},
    }


def describe_run(
    manifest: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> dict[str, Any]:
    """Return the fields of a run that a list of results shows."""
    data = manifest["data"]
    return {
        "policy": str(manifest["policy"]["text"]),
        "source": str(data.get("source", "")),
        **{name: str(data[name] or "") for name in ("instrument", "interval", "start", "end")},
        "is_synthetic": bool(data.get("synthetic")),
        "metrics": dict(metrics),
    }


def describe_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return measures for JSON, with None for those that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _write(result: RunRecord, folder: Path) -> None:
    bars = result.bars.reset_index()
    book = dict(zip(RECORDED, result.record, strict=True))
    hidden = (book["entry"], book["unit"], *(getattr(result, name) for name in ARRAYS))
    for name, values in zip(HIDDEN, hidden, strict=True):
        bars[name] = np.broadcast_to(values, (len(bars),))
    if result.benchmark is not None:
        bars["benchmark"] = result.benchmark
    write_parquet(bars, folder / BARS)
    write_parquet(result.events, folder / EVENTS)
    write_json_file(_pack_state(result), folder / STATE)
    write_json_file(describe_metrics(result.metrics), folder / METRICS)
    write_folder_manifest(folder, result.manifest, FILES, FORMAT)


def _pack_state(result: RunRecord) -> dict[str, Any]:
    books = result.state.books
    owned = {"cash": books.cash} | books.positions[0]._asdict()
    kept = {name: getattr(result, name) for name in KEPT}
    return {
        "state": result.state._asdict() | {"books": owned, "watch": result.state.watch._asdict()},
        "tally": flatten_tally(result.tally),
        **(kept | {"memory": list(result.memory), "trail": result.trail._asdict()}),
        "start": result.span.start,
        "first": result.span.first,
        "periods": result.span.periods,
        "target_cuts": result.cut_rows,
        "no_fill": result.no_fill,
        **({} if result.traded is None else {"traded": result.traded.to_dict()}),
        "first_unrealized": result.first_unrealized,
    }


def find_paid_in(account: Account, events: pd.DataFrame) -> float:
    """Return the capital paid in, for results that were saved before it was stored.

    Withdrawals are left out.
    """
    flows = events.loc[events["kind"] == "flow", "amount"]
    return account.capital + account.reserve + float(flows[flows > 0.0].sum())


def find_first_unrealized(manifest: Mapping[str, Any]) -> float:
    """Return the unrealized profit before the first bar, for results saved without it.

    NaN if they went on from another result.
    """
    return 0.0 if manifest.get("resumed_from") is None else math.nan


def load_result(folder: Path, kind: type[Loaded]) -> Loaded:
    """Read a saved result into an object of the given class."""
    cure = "give the folder that Result.save returned; of several positions, PortfolioResult.load"
    manifest = read_manifest(folder, FILES, FORMAT, what="result", cure=cure)
    venue = Venue.from_dict(manifest["venue"], where=f"{folder / MANIFEST}, venue")
    account = Account.from_dict(manifest["account"], where=f"{folder / MANIFEST}, account")
    stored = from_plain(read_json_file(folder / STATE))
    bars = pq.read_table(folder / BARS).to_pandas()
    events = pq.read_table(folder / EVENTS).to_pandas()
    time = bars.pop("time").astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    values = {name: bars[name].to_numpy(dtype=np.float64) for name in bars}
    values |= {"entry": values["entry_value"], "unit": values["unit_value"]}
    values.setdefault("initial_multiplier", values["multiplier"])  # earlier versions had one
    kept = {name: stored[name] for name in KEPT}
    kept |= {"memory": tuple(stored["memory"]), "trail": VolatilityState(**stored["trail"])}
    arrays: dict[str, Any] = {name: values[name] for name in ("close", "mark", *ARRAYS)}
    state = {"paid_in": find_paid_in(account, events), "watch": NO_WATCH, **stored["state"]}
    state = {"is_call_open": state["is_called"], "called_at": math.nan, **state}
    cash, position = state["books"].pop("cash"), Position(**state["books"])
    result = kind(
        policy=None,
        venue=venue,
        account=account,
        manifest={k: v for k, v in manifest.items() if k not in ("format", "files")},
        span=RunSpan(
            stored["start"], time + stored["interval"], stored["first"], stored["periods"]
        ),
        tally=read_tally(stored["tally"]),
        state=State(
            **{**state, "books": Books(cash, (position,)), "watch": Watch(**state["watch"])}
        ),
        **kept,
        **arrays,
        record=np.array([values[name] for name in RECORDED]),
        entries=events,
        stored_cuts=stored.get("target_cuts"),
        no_fill=str(stored.get("no_fill", "")),
        traded=read_traded(stored.get("traded")),
        benchmark=values.get("benchmark"),
        first_unrealized=float(stored.get("first_unrealized", find_first_unrealized(manifest))),
    )
    attach_saved_making(result, folder, manifest["id"])
    return result
