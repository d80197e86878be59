"""Save results as Parquet and JSON, and load them again; nothing in them is code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from backtest.account import (
    Account,
    AccountState,
    Balances,
    Position,
    State,
    Watch,
)
from backtest.account.portfolio_ledger import WIDTH
from backtest.base import (
    FloatArray,
    attach_saved_making,
    explain_other_metrics,
    find_making,
    from_plain,
    hash_file,
    name_folder,
    read_json_file,
    read_manifest,
    save_folder,
    warn_caller,
    write_folder_manifest,
    write_json_file,
    write_parquet,
    write_provenance,
)
from backtest.base.result_folders import MANIFEST
from backtest.engine.fee_days import read_traded
from backtest.engine.manifest import PORTFOLIO
from backtest.engine.option_arrays import no_options
from backtest.engine.option_files import list_option_columns, pack_options, read_options
from backtest.engine.record import AccountFields, Closes, PositionFields, Record
from backtest.engine.run_data import Before, Quotes
from backtest.engine.run_record import RunRecord
from backtest.features import VolatilityState
from backtest.measures import RunSpan, flatten_tally, read_tally
from backtest.venue import Holdings, Venue

Loaded = TypeVar("Loaded", bound=RunRecord)

RUN = "result"
FORMATS = {RUN: 2, PORTFOLIO: 3}
FILES = ("bars.parquet", "events.parquet", "state.json", "metrics.json")
BARS, EVENTS, STATE, METRICS = FILES
POSITIONS = "positions.parquet"
FILES_OF = {RUN: FILES, PORTFOLIO: (BARS, POSITIONS, EVENTS, STATE, METRICS)}
HASHED = (MANIFEST, METRICS, STATE)
ARRAYS = (
    "mark_low", "mark_high", "low", "high", "signal", "multiplier", "initial_multiplier",
    "ends_sample",
)  # fmt: skip
HIDDEN = ("entry_value", "unit_value", *ARRAYS)
REPEATED = (
    "gross_leverage", "net_leverage", "backing", "requirement", "balance", "collateral",
    "collateral_at_rate", "collateral_pnl", "conversion", "overlay",
)  # fmt: skip
OF_GENERAL = ("collateral_pnl", "conversion")
KEPT = ("interval", "is_session", "first_peak", "started")
WHOLE = ("is_pending", "is_halted", "is_called", "is_call_open", "cursor", "refused")


def find_kind(manifest: object) -> str:
    is_panel = isinstance(manifest, Mapping) and manifest.get("kind") == PORTFOLIO
    return PORTFOLIO if is_panel else RUN


def name_result(manifest: Mapping[str, Any]) -> str:
    policy = str(manifest["policy"]["name"])
    is_named = find_kind(manifest) == RUN or policy == PORTFOLIO
    return name_folder(policy if is_named else f"{policy}-{PORTFOLIO}", manifest["id"])


def save_result(result: RunRecord, folder: Path) -> Path:
    manifest = result.manifest
    name, kind = name_result(manifest), find_kind(manifest)
    policies = [type(each) for each in (*result.policies.values(), result.overlay) if each]
    making = find_making(result, policies)

    def write(draft: Path) -> None:
        _write(result, draft)
        line = describe_line(draft, manifest, describe_metrics(result.metrics))
        more = (line,) if kind == RUN else ()
        write_provenance(draft, folder / name, manifest["id"], making, *more)

    other = explain_other_metrics(folder / name / METRICS, describe_metrics(result.metrics))
    target = save_folder(folder, name, write, what=kind)
    if other:
        warn_caller(other)
    return target


def describe_line(
    folder: Path, manifest: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> dict[str, Any]:
    return {
        "run_format": FORMATS[RUN],
        "shows": describe_run(manifest, metrics),
        "sizes": {name: (folder / name).stat().st_size for name in sorted((*FILES, MANIFEST))},
        "hashes": {name: hash_file(folder / name) for name in HASHED},
    }


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


def describe_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _write(result: RunRecord, folder: Path) -> None:
    kind = find_kind(result.manifest)
    if kind == RUN:
        write_parquet(_widen_bars(result), folder / BARS)
        write_parquet(result.events, folder / EVENTS)
    else:
        write_parquet(_list_account(result), folder / BARS)
        write_parquet(pd.DataFrame(_list_positions(result)), folder / POSITIONS)
        columns = [f"column_{k}" for k in range(WIDTH)]
        write_parquet(pd.DataFrame(result.entries, columns=columns), folder / EVENTS)
    write_json_file(_pack_state(result), folder / STATE)
    write_json_file(describe_metrics(result.metrics), folder / METRICS)
    write_folder_manifest(folder, result.manifest, FILES_OF[kind], FORMATS[kind])


def _widen_bars(result: RunRecord) -> pd.DataFrame:
    bars = result.bars.drop(columns=[*REPEATED]).reset_index()
    arrays = {name: each[:, 0] for name, each in result.quotes._asdict().items()}
    arrays["ends_sample"] = result.ends_sample
    fields = result.record.of_one()
    own = (fields["entry"], fields["unit"], *(arrays[x] for x in ARRAYS))
    for name, values in zip(HIDDEN, own, strict=True):
        bars[name] = np.broadcast_to(values, (len(bars),))
    if result.benchmark is not None:
        bars["benchmark"] = result.benchmark
    return bars


def _list_account(result: RunRecord) -> pd.DataFrame:
    time = pd.DatetimeIndex(result.time, tz="UTC")
    bars = pd.DataFrame({"time": time, **result.record.account._asdict(), **list_closes(result, 1)})
    bars = bars.assign(ends_sample=result.ends_sample, market_return=result.benchmark)
    for c, asset in enumerate(result.account.collateral):
        bars[f"price of {asset.name}"] = result.asset_marks[:, c]
    return bars


def _list_positions(result: RunRecord) -> dict[str, FloatArray]:
    n = len(result.time)
    fields = {**result.record.held, **list_closes(result, 2)}
    found: dict[str, FloatArray] = {}
    quotes = {name: each for name, each in result.quotes._asdict().items() if len(each)}
    for i, name in enumerate(result.names):
        found |= {f"{name} {each}": values[:, i] for each, values in fields.items()}
        found |= {f"{name} {k}": np.broadcast_to(each[:, i], (n,)) for k, each in quotes.items()}
    return found | list_option_columns(result.options)


def list_closes(result: RunRecord, dimensions: int) -> dict[str, FloatArray]:
    return {name: each for name, each in result.closes._asdict().items() if each.ndim == dimensions}


def _pack_state(result: RunRecord) -> dict[str, Any]:
    before, traded = result.before, result.traded
    shared = {
        "tally": flatten_tally(result.tally),
        **{name: getattr(result, name) for name in KEPT},
        "memory": np.asarray(result.memory, dtype=np.float64).tolist(),
        "start": result.span.start,
        "first": result.span.first,
        "periods": result.span.periods,
        "target_cuts": list(result.target_cut_rows),
        "no_fill": result.no_fill,
        "traded": None if traded is None else traded.to_dict(),
    }
    if isinstance(result.state, State):
        return {
            "state": _pack_position(result.state),
            **shared,
            "names": list(result.names),
            "trail": before.trails[0]._asdict(),
            "first_mark": float(before.mark[0]),
            "first_signal": float(before.signal[0]),
            "last_mark": float(result.marks[-1, 0]),
            "first_unrealized": float(before.unrealized[0]),
        }
    return {
        "book": _pack_positions(result.state),
        **shared,
        "names": list(result.names),
        "spans": result.spans.tolist(),
        "before": {name: getattr(before, name).tolist() for name in Before._fields[:-1]},
        "trails": [each._asdict() for each in before.trails],
        **pack_options(result.options),
    }


def _pack_position(state: State) -> dict[str, Any]:
    balances = state.balances
    owned = {"cash": balances.cash} | balances.positions[0]._asdict()
    return {**state._asdict(), "balances": owned, "watch": state.watch._asdict()}


def _pack_positions(state: AccountState) -> dict[str, Any]:
    own = {**state._asdict(), "held": {k: v.tolist() for k, v in state.held._asdict().items()}}
    del own["options"]
    return {name: each if name == "held" else each.tolist() for name, each in own.items()}


def load_result(folder: Path, kind: type[Loaded]) -> Loaded:
    path = folder / MANIFEST
    found = find_kind(read_json_file(path)) if path.is_file() else RUN
    manifest = read_manifest(folder, FILES_OF[found], FORMATS[found], what=found)
    account = Account.from_dict(manifest["account"], where=f"{folder / MANIFEST}, account")
    stored: Any = from_plain(read_json_file(folder / STATE))
    bars = pq.read_table(folder / BARS).to_pandas()
    time = bars.pop("time").astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    ends = time + stored["interval"]
    given = (folder, manifest, stored, bars)
    read = _read_one(*given) if found == RUN else _read_several(*given, account)
    result = kind(
        policies={},
        overlay=None,
        account=account,
        manifest={k: v for k, v in manifest.items() if k not in ("format", "files")},
        span=RunSpan(stored["start"], ends, stored["first"], stored["periods"]),
        tally=read_tally(stored["tally"]),
        **{name: stored[name] for name in KEPT},
        ends_sample=bars["ends_sample"].to_numpy(dtype=np.float64),
        stored_cuts=list(stored["target_cuts"]),
        no_fill=stored["no_fill"],
        traded=read_traded(stored["traded"]),
        **read,
    )
    attach_saved_making(result, folder, manifest["id"])
    return result


def _read_one(
    folder: Path,
    manifest: Mapping[str, Any],
    stored: Mapping[str, Any],
    bars: pd.DataFrame,
) -> dict[str, Any]:
    venue = Venue.from_dict(manifest["venue"], where=f"{folder / MANIFEST}, venue")
    events = pq.read_table(folder / EVENTS).to_pandas()
    values = {name: bars[name].to_numpy(dtype=np.float64) for name in bars}
    values |= {"entry": values["entry_value"], "unit": values["unit_value"]}
    values["quantity"] = values["position"]
    nothing = np.zeros(len(bars))
    values = {"overlay": nothing + 1.0, **dict.fromkeys(OF_GENERAL, nothing)} | values
    names = tuple(stored["names"])
    return {
        "venues": {names[0]: venue},
        "names": names,
        "spans": np.array([[0, len(bars)]]),
        "state": _read_position(stored["state"]),
        "memory": tuple(stored["memory"]),
        "record": Record(
            AccountFields(**{name: values[name] for name in AccountFields._fields}),
            PositionFields(**{name: values[name][:, None] for name in PositionFields._fields}),
        ),
        "entries": events,
        "quotes": Quotes(*(values[name][:, None] for name in Quotes._fields)),
        "asset_marks": np.empty((len(bars), 0)),
        "before": Before(
            mark=np.array([stored["first_mark"]]),
            signal=np.array([stored["first_signal"]]),
            unrealized=np.array([stored["first_unrealized"]], dtype=np.float64),
            stands=np.zeros(4),
            trails=(VolatilityState(**stored["trail"]),),
        ),
        "benchmark": values.get("benchmark"),
    }


def _read_position(stored: Mapping[str, Any]) -> State:
    state = dict(stored)
    owned = dict(state.pop("balances"))
    balances = Balances(owned.pop("cash"), (Position(**owned),))
    return State(**{**state, "balances": balances, "watch": Watch(**state["watch"])})


def _read_several(
    folder: Path,
    manifest: Mapping[str, Any],
    stored: Mapping[str, Any],
    bars: pd.DataFrame,
    account: Account,
) -> dict[str, Any]:
    names, where = tuple(stored["names"]), str(folder / MANIFEST)
    wide = pq.read_table(folder / POSITIONS).to_pandas()

    def gather(field: str) -> FloatArray:
        columns = [f"{name} {field}" for name in names]
        return wide[columns].to_numpy() if columns[0] in wide else np.empty((0, len(names)))

    assets = [f"price of {each.name}" for each in account.collateral]
    return {
        "venues": {
            name: Venue.from_dict(each, where=f"{where}, venue of {name}")
            for name, each in manifest["venue"].items()
        },
        "names": names,
        "spans": np.array(stored["spans"], dtype=np.int64),
        "state": _read_positions(stored["book"]),
        "memory": np.array(stored["memory"], dtype=np.float64),
        "record": Record(
            AccountFields(**{name: bars[name].to_numpy() for name in AccountFields._fields}),
            PositionFields(**{name: gather(name) for name in PositionFields._fields}),
            Closes(
                **{name: bars[name].to_numpy() for name in Closes._fields[:-2]},
                **{name: gather(name) for name in Closes._fields[-2:]},
            ),
        ),
        "entries": pq.read_table(folder / EVENTS).to_pandas().to_numpy(dtype=np.float64),
        "quotes": Quotes(*(gather(name) for name in Quotes._fields)),
        "asset_marks": bars[assets].to_numpy(dtype=np.float64),
        "before": Before(
            **{name: np.array(each, dtype=np.float64) for name, each in stored["before"].items()},
            trails=tuple(VolatilityState(**each) for each in stored["trails"]),
        ),
        "benchmark": bars["market_return"].to_numpy(),
        "options": read_options(stored.get("options"), wide),
    }


def _read_positions(stored: Mapping[str, Any]) -> AccountState:
    arrays: dict[str, Any] = {
        name: np.array(each, dtype=np.int64 if name in WHOLE else np.float64)
        for name, each in stored.items()
        if name != "held"
    }
    held = {name: np.array(each, dtype=np.float64) for name, each in stored["held"].items()}
    return AccountState(held=Holdings(**held), options=no_options(), **arrays)
