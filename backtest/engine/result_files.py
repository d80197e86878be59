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
from backtest.engine.run_data import Before, Quotes, RunOptions
from backtest.engine.run_record import RunRecord
from backtest.measures import OptionQuotes, OptionTerms, RunSpan, flatten_tally, make_tally
from backtest.venue import Holdings, Option, Venue

BY_BAR = ("opened", "entries", "settled", "ages")
DTYPES: Mapping[str, Any] = {
    "are_coin": np.bool_, "instruments": np.int64, "expiries": np.int64,
}  # fmt: skip


def list_arrays(options: RunOptions) -> dict[str, base.FloatArray]:
    """Return the arrays of shape (n_bars, K) by name."""
    own = {name: getattr(options, name) for name in BY_BAR}
    return {**options.record._asdict(), **options.quotes._asdict(), **own}


def list_option_columns(options: RunOptions | None) -> dict[str, base.FloatArray]:
    if options is None:
        return {}
    arrays = list_arrays(options)
    return {
        f"{name} {field}": each[:, k]
        for k, name in enumerate(options.terms.names)
        for field, each in arrays.items()
    }


def pack_options(options: RunOptions | None) -> dict[str, Any]:
    if options is None:
        return {}
    terms = {
        name: each.tolist() for name, each in options.terms._asdict().items() if name != "names"
    }
    contracts = [each.to_dict() for each in options.contracts]
    own = {"names": options.terms.names, "legs": options.legs, "hedged": options.hedged}
    owners = options.owners.tolist()
    return {"options": {**own, "owners": owners, "contracts": contracts, **terms}}


def read_options(stored: Mapping[str, Any] | None, wide: pd.DataFrame) -> RunOptions | None:
    if stored is None:
        return None
    names = tuple(stored["names"])
    known = {name: stored[name] for name in OptionTerms._fields if name != "names"}
    terms = {
        name: np.array(each, dtype=DTYPES.get(name, np.float64)) for name, each in known.items()
    }
    return RunOptions(
        contracts=tuple(Option.from_dict(each) for each in stored["contracts"]),
        legs=tuple(stored["legs"]),
        owners=np.array(stored["owners"], dtype=np.int64),
        hedged=tuple(stored.get("hedged", ())),
        terms=OptionTerms(names=names, **terms),
        record=OptionFields(*gather(wide, names, OptionFields._fields)),
        quotes=OptionQuotes(*gather(wide, names, OptionQuotes._fields)),
        **dict(zip(BY_BAR, gather(wide, names, BY_BAR), strict=True)),
    )


def gather(
    wide: pd.DataFrame, names: Sequence[str], fields: Sequence[str]
) -> list[base.FloatArray]:
    """Return the arrays of some fields, of shape (n_bars, K)."""
    return [wide[[f"{name} {field}" for name in names]].to_numpy() for field in fields]


# ----------------------------------------------------------------------------------------- the run

Loaded = TypeVar("Loaded", bound=RunRecord)

RUN = "result"
FORMAT = 4
FILES = ("bars.parquet", "positions.parquet", "events.parquet", "state.json", "metrics.json")
BARS, POSITIONS, EVENTS, STATE, METRICS = FILES
KEPT = ("interval", "is_session", "first_peak", "started")
WHOLE = ("is_pending", "is_halted", "is_called", "is_call_open", "cursor", "refused")


def name_result(manifest: Mapping[str, Any]) -> str:
    return base.name_folder(str(manifest["policy"]["name"]), manifest["id"])


def save_result(result: RunRecord, folder: Path) -> Path:
    manifest = result.manifest
    name = name_result(manifest)
    policies = [type(each) for each in (*result.policies.values(), result.overlay) if each]
    making = base.find_making(result, policies)

    def write(draft: Path) -> None:
        _write(result, draft)
        base.write_provenance(draft, manifest["id"], making)

    other = base.explain_other_metrics(folder / name / METRICS, describe_metrics(result.metrics))
    target = base.save_folder(folder, name, write, what=RUN)
    if other:
        base.warn_caller(other)
    return target


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
    base.write_parquet(_list_account(result), folder / BARS)
    base.write_parquet(pd.DataFrame(_list_positions(result)), folder / POSITIONS)
    columns = [f"column_{k}" for k in range(WIDTH)]
    base.write_parquet(pd.DataFrame(result.entries, columns=columns), folder / EVENTS)
    base.write_json_file(_pack_state(result), folder / STATE)
    base.write_json_file(describe_metrics(result.metrics), folder / METRICS)
    base.write_folder_manifest(folder, result.manifest, FILES, FORMAT)


def _list_account(result: RunRecord) -> pd.DataFrame:
    time = pd.DatetimeIndex(result.time, tz="UTC")
    bars = pd.DataFrame({"time": time, **result.record.account._asdict(), **list_closes(result, 1)})
    bars = bars.assign(ends_sample=result.ends_sample)
    if result.benchmark is not None:
        bars["market_return"] = result.benchmark
    for c, asset in enumerate(result.account.collateral):
        bars[f"price of {asset.name}"] = result.asset_marks[:, c]
    return bars


def _list_positions(result: RunRecord) -> dict[str, base.FloatArray]:
    n = len(result.time)
    fields = {**result.record.held, **list_closes(result, 2)}
    found: dict[str, base.FloatArray] = {}
    quotes = {name: each for name, each in result.quotes._asdict().items() if len(each)}
    for i, name in enumerate(result.names):
        found |= {f"{name} {each}": values[:, i] for each, values in fields.items()}
        found |= {f"{name} {k}": np.broadcast_to(each[:, i], (n,)) for k, each in quotes.items()}
    return found | list_option_columns(result.options)


def list_closes(result: RunRecord, dimensions: int) -> dict[str, base.FloatArray]:
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
    return {
        "book": _pack_positions(result.state),
        **shared,
        "names": list(result.names),
        "spans": result.spans.tolist(),
        "before": {name: each.tolist() for name, each in before._asdict().items()},
        **pack_options(result.options),
    }


def _pack_positions(state: AccountState) -> dict[str, Any]:
    own = {**state._asdict(), "held": {k: v.tolist() for k, v in state.held._asdict().items()}}
    del own["options"]
    return {name: each if name == "held" else each.tolist() for name, each in own.items()}


def load_result(folder: Path, kind: type[Loaded]) -> Loaded:
    manifest = base.read_manifest(folder, FILES, FORMAT, what=RUN)
    account = Account.from_dict(manifest["account"], where=f"{folder / MANIFEST}, account")
    stored: Any = base.from_plain(base.read_json_file(folder / STATE))
    bars = pq.read_table(folder / BARS).to_pandas()
    time = bars.pop("time").astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    ends = time + stored["interval"]
    result = kind(
        policies={},
        overlay=None,
        account=account,
        manifest={k: v for k, v in manifest.items() if k not in ("format", "files")},
        span=RunSpan(stored["start"], ends, stored["first"], stored["periods"]),
        tally=make_tally(stored["tally"]),
        **{name: stored[name] for name in KEPT},
        ends_sample=bars["ends_sample"].to_numpy(dtype=np.float64),
        target_cut_rows=list(stored["target_cuts"]),
        no_fill=stored["no_fill"],
        traded=read_traded(stored["traded"]),
        **_read_parts(folder, manifest, stored, bars, account),
    )
    base.attach_saved_making(result, folder, manifest["id"])
    return result


def _read_parts(
    folder: Path,
    manifest: Mapping[str, Any],
    stored: Mapping[str, Any],
    bars: pd.DataFrame,
    account: Account,
) -> dict[str, Any]:
    names, where = tuple(stored["names"]), str(folder / MANIFEST)
    wide = pq.read_table(folder / POSITIONS).to_pandas()

    def gather(field: str) -> base.FloatArray:
        columns = [f"{name} {field}" for name in names]
        return wide[columns].to_numpy() if columns[0] in wide else np.empty((0, len(names)))

    assets = [f"price of {each.name}" for each in account.collateral]
    return {
        "venues": {
            name: Venue.from_dict(each, where=f"{where}, venue of {name}")
            for name, each in name_each(manifest["venue"], names).items()
        },
        "names": names,
        "spans": np.array(stored["spans"], dtype=np.int64),
        "state": _read_positions(stored["book"]),
        "memory": np.array(stored["memory"], dtype=np.float64),
        "record": Record(
            AccountFields(**{name: bars[name].to_numpy() for name in AccountFields._fields}),
            PositionFields(**{name: gather(name) for name in PositionFields._fields}),
            Closes(
                **{name: bars[name].to_numpy() for name in Closes._fields[:-3]},
                **{name: gather(name) for name in Closes._fields[-3:]},
            ),
        ),
        "entries": pq.read_table(folder / EVENTS).to_pandas().to_numpy(dtype=np.float64),
        "quotes": Quotes(*(gather(name) for name in Quotes._fields)),
        "asset_marks": bars[assets].to_numpy(dtype=np.float64),
        "before": Before(
            **{name: np.array(each, dtype=np.float64) for name, each in stored["before"].items()}
        ),
        "benchmark": bars["market_return"].to_numpy() if "market_return" in bars else None,
        "options": read_options(stored.get("options"), wide),
    }


def name_each(venues: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Return the stored venues by instrument; that of one instrument stands alone."""
    return venues if len(names) > 1 else {names[0]: venues}


def _read_positions(stored: Mapping[str, Any]) -> AccountState:
    arrays: dict[str, Any] = {
        name: np.array(each, dtype=np.int64 if name in WHOLE else np.float64)
        for name, each in stored.items()
        if name != "held"
    }
    held = {name: np.array(each, dtype=np.float64) for name, each in stored["held"].items()}
    return AccountState(held=Holdings(**held), options=no_options(), **arrays)
