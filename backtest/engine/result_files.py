"""The files of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from backtest import base
from backtest.account import Account, AccountState
from backtest.account.records import WIDTH
from backtest.base.saved_result import MANIFEST
from backtest.engine.inputs import no_options, read_traded
from backtest.engine.record import AccountFields, Closes, OptionFields, PositionFields, Record
from backtest.engine.run_data import Before, Quotes
from backtest.engine.run_options import RunOptions
from backtest.engine.run_record import RunRecord
from backtest.measures import OptionQuotes, OptionTerms, RunSpan, flatten_tally, make_tally
from backtest.venue import Holdings, Option, Venue

Loaded = TypeVar("Loaded", bound=RunRecord)

RUN = "result"
FORMAT = 5
FILES = ("bars.parquet", "positions.parquet", "events.parquet", "state.json", "metrics.json")
BARS, POSITIONS, EVENTS, STATE, METRICS = FILES
KEPT = ("interval", "is_session", "first_peak", "started")
WHOLE = (
    "is_pending", "is_halted", "is_called", "is_call_open", "cursor", "refused", "instruments",
    "expiries", "owners",
)  # fmt: skip
"""Arrays of integers among those of the state and of the options."""
BY_BAR = ("opened", "entries", "settled", "ages")
BY_POSITION = Closes._fields[-3:]


def name_result(manifest: Mapping[str, Any]) -> str:
    return base.name_folder(str(manifest["policy"]["name"]), manifest["id"])


def describe_run(
    manifest: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> dict[str, Any]:
    data = manifest["data"]
    return {
        "policy": str(manifest["policy"]["text"]),
        "source": str(data.get("source", "")),
        **{name: str(data[name] or "") for name in ("instrument", "interval", "start", "end")},
        "is_synthetic": bool(data.get("synthetic")),
        "metrics": dict(metrics),
    }


# ------------------------------------------------------------------------------------------ saving


def save_result(result: RunRecord, folder: Path) -> Path:
    manifest, name = result.manifest, name_result(result.manifest)
    policies = [type(each) for each in (*result.policies.values(), result.overlay) if each]
    making = base.find_making(result, policies)
    metrics = {k: x if math.isfinite(x) else None for k, x in result.metrics.items()}

    def write(draft: Path) -> None:
        base.write_parquet(list_account(result), draft / BARS)
        base.write_parquet(pd.DataFrame(list_positions(result)), draft / POSITIONS)
        columns = [f"column_{k}" for k in range(WIDTH)]
        base.write_parquet(pd.DataFrame(result.entries, columns=columns), draft / EVENTS)
        base.write_json_file(pack_state(result), draft / STATE)
        base.write_json_file(metrics, draft / METRICS)
        base.write_folder_manifest(draft, manifest, FILES, FORMAT)
        base.write_provenance(draft, manifest["id"], making)

    other = base.explain_other_metrics(folder / name / METRICS, metrics)
    target = base.save_folder(folder, name, write, what=RUN)
    if other:
        base.warn_caller(other)
    return target


def list_account(result: RunRecord) -> pd.DataFrame:
    closes = {k: x for k, x in result.closes._asdict().items() if k not in BY_POSITION}
    time = pd.DatetimeIndex(result.time, tz="UTC")
    bars = pd.DataFrame({"time": time, **result.record.account._asdict(), **closes})
    bars = bars.assign(ends_sample=result.ends_sample)
    if result.benchmark is not None:
        bars["market_return"] = result.benchmark
    for c, asset in enumerate(result.account.collateral):
        bars[f"price of {asset.name}"] = result.asset_marks[:, c]
    return bars


def list_positions(result: RunRecord) -> dict[str, base.FloatArray]:
    shape, options = (len(result.time), len(result.names)), result.options
    quotes = {k: x for k, x in result.quotes._asdict().items() if len(x)}
    own = {k: np.broadcast_to(x, shape) for k, x in quotes.items()}
    closes = {name: getattr(result.closes, name) for name in BY_POSITION}
    found = widen(result.names, {**result.record.held, **closes, **own})
    if options is None:
        return found
    own = {name: getattr(options, name) for name in BY_BAR}
    fields = {**options.record._asdict(), **options.quotes._asdict(), **own}
    return found | widen(options.terms.names, fields)


def widen(
    names: Sequence[str], fields: Mapping[str, base.FloatArray]
) -> dict[str, base.FloatArray]:
    return {f"{name} {k}": x[:, i] for i, name in enumerate(names) for k, x in fields.items()}


def pack_state(result: RunRecord) -> dict[str, Any]:
    traded, options, state = result.traded, result.options, result.state
    packed = {
        "book": {**list_plain(state, "held", "options"), "held": list_plain(state.held)},
        "tally": flatten_tally(result.tally),
        **{name: getattr(result, name) for name in KEPT},
        "memory": np.asarray(result.memory, dtype=np.float64).tolist(),
        "start": result.span.start,
        "first": result.span.first,
        "periods": result.span.periods,
        "target_cuts": list(result.target_cut_rows),
        "no_fill": result.no_fill,
        "traded": None if traded is None else traded.to_dict(),
        "names": list(result.names),
        "spans": result.spans.tolist(),
        "before": list_plain(result.before),
    }
    if options is None:
        return packed
    return {
        **packed,
        "options": {
            "names": options.terms.names,
            "terms": list_plain(options.terms, "names"),
            "legs": options.legs,
            "hedged": options.hedged,
            "owners": options.owners.tolist(),
            "contracts": [each.to_dict() for each in options.contracts],
        },
    }


def list_plain(record: Any, *without: str) -> dict[str, Any]:
    return {k: x.tolist() for k, x in record._asdict().items() if k not in without}


# ----------------------------------------------------------------------------------------- loading


def load_result(folder: Path, kind: type[Loaded]) -> Loaded:
    manifest, where = base.read_manifest(folder, FILES, FORMAT, what=RUN), f"{folder / MANIFEST}"
    account = Account.from_dict(manifest["account"], where=f"{where}, account")
    stored: Any = base.from_plain(base.read_json_file(folder / STATE))
    bars, wide = (pq.read_table(folder / name).to_pandas() for name in (BARS, POSITIONS))
    time = bars.pop("time").astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    names, book = tuple(stored["names"]), stored["book"]
    held = Holdings(**{name: np.array(x, dtype=np.float64) for name, x in book["held"].items()})
    state = {name: read_array(name, x) for name, x in book.items() if name != "held"}
    venues = manifest["venue"] if len(names) > 1 else {names[0]: manifest["venue"]}
    quotes = [
        gather(wide, names, [k])[0] if f"{names[0]} {k}" in wide else np.empty((0, len(names)))
        for k in Quotes._fields
    ]
    closes = [bars[name].to_numpy() for name in Closes._fields if name not in BY_POSITION]
    result = kind(
        policies={},
        overlay=None,
        venues={
            name: Venue.from_dict(each, where=f"{where}, venue of {name}")
            for name, each in venues.items()
        },
        account=account,
        manifest={k: v for k, v in manifest.items() if k not in ("format", "files")},
        names=names,
        span=RunSpan(
            stored["start"], time + stored["interval"], stored["first"], stored["periods"]
        ),
        spans=np.array(stored["spans"], dtype=np.int64),
        tally=make_tally(stored["tally"]),
        state=AccountState(held=held, options=no_options(), **state),
        memory=np.array(stored["memory"], dtype=np.float64),
        **{name: stored[name] for name in KEPT},
        record=Record(
            AccountFields(*(bars[name].to_numpy() for name in AccountFields._fields)),
            PositionFields(*gather(wide, names, PositionFields._fields)),
            Closes(*closes, *gather(wide, names, BY_POSITION)),
        ),
        entries=pq.read_table(folder / EVENTS).to_pandas().to_numpy(dtype=np.float64),
        quotes=Quotes(*quotes),
        asset_marks=bars[[f"price of {x.name}" for x in account.collateral]].to_numpy(np.float64),
        ends_sample=bars["ends_sample"].to_numpy(dtype=np.float64),
        before=Before(*(np.array(stored["before"][k], np.float64) for k in Before._fields)),
        benchmark=bars["market_return"].to_numpy() if "market_return" in bars else None,
        target_cut_rows=list(stored["target_cuts"]),
        no_fill=stored["no_fill"],
        traded=read_traded(stored["traded"]),
        options=read_options(stored["options"], wide) if "options" in stored else None,
    )
    base.attach_saved_making(result, folder, manifest["id"])
    return result


def read_options(stored: Mapping[str, Any], wide: pd.DataFrame) -> RunOptions:
    names = tuple(stored["names"])
    own = {name: read_array(name, each) for name, each in stored["terms"].items()}
    return RunOptions(
        contracts=tuple(Option.from_dict(each) for each in stored["contracts"]),
        legs=tuple(stored["legs"]),
        owners=read_array("owners", stored["owners"]),
        hedged=tuple(stored["hedged"]),
        terms=OptionTerms(names=names, **own),
        record=OptionFields(*gather(wide, names, OptionFields._fields)),
        quotes=OptionQuotes(*gather(wide, names, OptionQuotes._fields)),
        **dict(zip(BY_BAR, gather(wide, names, BY_BAR), strict=True)),
    )


def read_array(name: str, values: Any) -> Any:
    kind: Any = np.bool_ if name == "are_coin" else np.int64 if name in WHOLE else np.float64
    return np.array(values, dtype=kind)


def gather(
    wide: pd.DataFrame, names: Sequence[str], fields: Sequence[str]
) -> list[base.FloatArray]:
    """Return the arrays of some fields, of shape (n_bars, names)."""
    return [wide[[f"{name} {field}" for name in names]].to_numpy() for field in fields]
