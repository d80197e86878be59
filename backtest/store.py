"""Save results as Parquet and JSON, and load them again; nothing in them is code."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.account import Account
from backtest.accounting import Books
from backtest.bar import State
from backtest.errors import DataError
from backtest.measures.summary import Span
from backtest.measures.tally import Tally
from backtest.plain import from_plain, to_plain
from backtest.result import Result
from backtest.simulate import RECORDED
from backtest.units import FloatArray
from backtest.venue import Venue

FORMAT = 1
BARS, EVENTS, STATE, METRICS, MANIFEST = (
    "bars.parquet",
    "events.parquet",
    "state.json",
    "metrics.json",
    "manifest.json",
)
HIDDEN = ("entry_value", "multiplier", "ends_sample")
"""Columns of the bars file that only loading needs."""


def save_result(result: Result, folder: Path) -> Path:
    """Write a result into a folder of its own; it appears whole or not at all.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    name = re.sub(r"[^a-z0-9]+", "-", result.manifest["policy"]["name"].lower()).strip("-")
    target = folder / f"{name}-{result.manifest['id']}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        try:
            _write(result, draft)
            draft.chmod(0o755)
            _put(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"a result must be writable to its folder: {error.strerror or error}",
            where=str(target),
            cure="choose another folder, or free some space",
        ) from error
    return target


def _put(draft: Path, target: Path) -> None:
    """Move a finished folder to its place, in front of an older one of the same name."""
    if target.exists():
        older = Path(tempfile.mkdtemp(prefix=".older-", dir=target.parent))
        target.rename(older / "old")
        draft.rename(target)
        shutil.rmtree(older)
    else:
        draft.rename(target)


def _write(result: Result, folder: Path) -> None:
    bars = result.bars.reset_index()
    hidden = (result.record[RECORDED.index("entry")], result.multiplier, result.ends_sample)
    for name, values in zip(HIDDEN, hidden, strict=True):
        bars[name] = np.broadcast_to(values, (len(bars),))
    _write_parquet(bars, folder / BARS)
    _write_parquet(result.events, folder / EVENTS)
    _write_json(_pack_state(result), folder / STATE)
    numbers = {k: v if math.isfinite(v) else None for k, v in result.metrics.items()}
    _write_json(numbers, folder / METRICS)
    files = {name: _hash(folder / name) for name in (BARS, EVENTS, STATE, METRICS)}
    _write_json({"format": FORMAT, **result.manifest, "files": files}, folder / MANIFEST)


def _pack_state(result: Result) -> dict[str, Any]:
    state = result.state._asdict() | {"books": result.state.books._asdict()}
    return {
        "state": state,
        "tally": result.tally._asdict(),
        "memory": list(result.memory),
        "started": result.started,
        "first_peak": result.first_peak,
        "interval": result.interval,
        "last_mark": result.last_mark,
        "start": result.span.start,
        "first": result.span.first,
        "periods": result.span.periods,
    }


def load_result(folder: Path) -> Result:
    """Return a saved result.

    Raises
    ------
    DataError
        If it is not a result, or a file of it is missing or changed.
    """
    manifest = _read_manifest(folder)
    venue = Venue.from_dict(manifest["venue"], where=f"{folder / MANIFEST}, venue")
    account = Account.from_dict(manifest["account"], where=f"{folder / MANIFEST}, account")
    stored = from_plain(_read_json(folder / STATE))
    bars = pq.read_table(folder / BARS).to_pandas()
    events = pq.read_table(folder / EVENTS).to_pandas()
    time = bars.pop("time").astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    values = {name: bars[name].to_numpy(dtype=np.float64) for name in bars}
    values["entry"] = values["entry_value"]
    record: FloatArray = np.array([values[name] for name in RECORDED])
    state = stored["state"]
    return Result(
        policy=None,
        venue=venue,
        account=account,
        manifest={k: v for k, v in manifest.items() if k not in ("format", "files")},
        span=Span(stored["start"], time + stored["interval"], stored["first"], stored["periods"]),
        tally=Tally(**stored["tally"]),
        state=State(**{**state, "books": Books(**state["books"])}),
        memory=tuple(stored["memory"]),
        started=stored["started"],
        first_peak=stored["first_peak"],
        interval=stored["interval"],
        last_mark=stored["last_mark"],
        close=values["close"],
        mark=values["mark"],
        multiplier=values["multiplier"],
        ends_sample=values["ends_sample"],
        record=record,
        entries=events,
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"a result must hold {MANIFEST}, there is none",
            where=str(folder),
            cure="give the folder that Result.save returned",
        )
    manifest = _read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(
            f"the format of a result must be {FORMAT}, was {found!r}",
            where=str(path),
            cure="load it with the version that saved it",
        )
    for name in (BARS, EVENTS, STATE, METRICS):
        expected = manifest.get("files", {}).get(name)
        found = _hash(folder / name) if (folder / name).is_file() else "missing"
        if found != expected:
            raise DataError(
                f"{name} must be as it was saved, was "
                + ("missing" if found == "missing" else "changed or truncated"),
                where=str(folder / name),
                cure="run the experiment again, or restore the file",
            )
    return manifest


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, compression="zstd")


def _write_json(data: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path.name} must be JSON: {error}",
            where=str(path),
            cure="run the experiment again, or restore the file",
        ) from error


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
