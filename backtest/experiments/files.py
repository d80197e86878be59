"""Tests as files: load an experiment, and write a test as one."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from backtest import core
from backtest.account import Account
from backtest.core.code_names import pd
from backtest.engine.conditions import Conditions, plain
from backtest.experiments.build import TAKEN_AS_THEY_ARE, build_test, load_data
from backtest.experiments.draft import Draft, read_experiment
from backtest.experiments.tables import SAMPLE
from backtest.market import Market, as_markets, find_clock
from backtest.market.clock import list_calls
from backtest.market.weight_frame import read_weights, weights_to_frame
from backtest.policies import Policy
from backtest.signals.rules import SignalRule
from backtest.venue import Venue, preset_files

_C = TypeVar("_C", bound=Conditions)

FILE = "experiment.toml"
TABLES = ("data", "venue", "account", "lending", "overlay", "run", "options")
"""Tables of an experiment that describe a test; all others are policies and jobs."""
NAMES = {"since": "from", "until": "to"}
"""Arguments of ``Market.load`` that ``[data]`` calls otherwise."""


def load(path: str | Path, kind: type[_C]) -> _C:
    """Return the test of an experiment file, or of a folder of :func:`save`, as this class.

    Tables of policies and jobs, such as ``[policy]`` and ``[tune]``, are left aside, with a
    warning. Raises ParameterError if the file is no experiment.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    draft = Draft(read_experiment(file), file=file)
    aside = ", ".join(f"[{name}]" for name in draft.tables if name not in TABLES)
    if aside:
        core.warn_caller(
            f"{file.name}: {aside} are no part of a test, which is loaded without them"
        )
    return build_test(draft, kind)


def save(test: Conditions, path: str | Path) -> Path:
    """Write the test as an experiment that :func:`load` reads, and return its path.

    Where market, signal and detail came from files or have names, it is one TOML file; else a new
    folder of that name, without the suffix, with ``experiment.toml`` and what has no file as
    Parquet. Raises ParameterError if something cannot be written: options, or an overlay of no
    file.
    """
    if as_markets(test.market).options:
        raise core.ParameterError(
            "a test with listed options cannot be saved, keep its experiment file"
        )
    target = Path(path)
    folder = target.with_suffix("") if target.suffix == ".toml" else target
    tables: dict[str, Any] = {
        "data": find_files(test.market) or save_market(test.market, folder / "market"),
        "venue": name_venues(test.venue),
        "account": find_changed(Account().to_dict(), test.account.to_dict()),
    }
    run = {name: getattr(test, name) for name in ("calendar", *TAKEN_AS_THEY_ARE)}
    run = {name: None if value is None else str(value) for name, value in run.items()}
    signal: Any = test.signal
    tables["run"] = {
        "signal": signal.text() if isinstance(signal, SignalRule) else signal,
        **run,
    }
    if isinstance(test.detail, Market | Mapping):
        tables["run"]["detail"] = save_market(test.detail, folder / "detail")["path"]
    elif test.detail is not None:
        tables["run"]["detail"] = str(Path(test.detail).resolve())
    if test.overlay is not None:
        tables["overlay"] = name_policy(test.overlay)
    if not isinstance(signal, SignalRule | int | float | str | None):
        values: Any = plain(test).signal
        seen = as_markets(find_clock(plain(test).market).seen)
        if isinstance(values, pd.Series):
            frame = values.to_frame(seen.names[0])
        else:
            frame = weights_to_frame(read_weights(values, seen), seen)
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(folder / "signal.parquet")
        tables["run"] |= {"signal": None, "weights": "signal.parquet"}
    file = folder / FILE if folder.exists() else folder.with_suffix(".toml")
    lines = {name: "\n".join(write_entries(each)) for name, each in tables.items()}
    text = "".join(f"[{name}]\n{each}\n\n" for name, each in lines.items() if each)
    core.write_file(file, text.encode("utf-8"))
    return folder if folder.exists() else file


def save_market(market: Any, folder: Path) -> dict[str, Any]:
    """Write a market, or one folder for each instrument; return the entries of ``[data]``."""
    if isinstance(market, Market):
        market.save(folder)
    else:
        for name, each in market.items():
            each.save(folder / name)
    return {"path": folder.name}


def find_files(market: Any) -> dict[str, Any] | None:
    """Return the entries of ``[data]`` that load a market again, None if none do."""
    found, is_part = dict[str, Any](), False
    for each in as_markets(market).values():
        try:
            (name, paths, named), *steps = list_calls(each.source)
        except (SyntaxError, ValueError):
            return None
        entries = {NAMES.get(given, given): value for given, value in named.items()}
        entries["path"] = [str(Path(path).resolve()) for path in paths]
        if name == "sample":
            entries = {"path": f"{SAMPLE}:{named['seed']}" if "seed" in named else SAMPLE}
        entries |= {step: given[0] for step, given, _ in steps if step == "resample"}
        is_part |= "bars" in named or any(step != "resample" for step, *_ in steps)
        for key, value in entries.items():
            known = found.setdefault(key, [])
            known += [x for x in (value if isinstance(value, list) else [value]) if x not in known]
    data = {key: each if len(each) > 1 else each[0] for key, each in found.items()}
    if is_part:
        data |= {"from": core.format_time(market.start), "to": core.format_time(market.end)}
    try:
        again = load_data(Draft({"data": data}))
    except core.BacktestError:
        return None
    is_same = type(again) is type(market) and again.content_hash == market.content_hash
    return data if is_same else None


def name_venues(venue: Any) -> dict[str, Any]:
    if isinstance(venue, Mapping):
        return {"preset": "", **{name: name_venues(each) for name, each in venue.items()}}
    preset = "" if venue.in_force is None or venue.in_force.like else venue.in_force.preset
    for text in (preset, f"{preset}@latest") if preset else ():
        known = Venue.preset(*preset_files.parse_name(text))
        changed = find_changed(known.to_dict(), venue.to_dict())
        if known.override(changed) == venue:
            return {"preset": text, **changed}
    return {"preset": "", **venue.to_dict()}


def find_changed(known: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: find_changed(known[name], each)
        if isinstance(each, dict) and isinstance(known.get(name), dict)
        else each
        for name, each in table.items()
        if known.get(name) != each
    }


def name_policy(policy: Policy) -> dict[str, Any]:
    cls = getattr(type(policy), "written", type(policy))
    if cls.__module__.startswith("backtest."):
        return {"name": repr(policy)}
    file = inspect.getsourcefile(cls)
    if file is None or hasattr(type(policy), "written"):
        raise core.ParameterError(f"an overlay must be of a file to be saved, got {policy!r}")
    is_packaged = bool(sys.modules[cls.__module__].__package__)  # may import what is beside it
    place = cls.__module__ if is_packaged else Path(file).resolve()
    return {"name": f"{place}:{cls.__name__}", "settings": policy.settings()}


def write_entries(table: Mapping[str, Any]) -> Iterator[str]:
    keys = {k: k if re.fullmatch(r"[A-Za-z0-9_-]+", k) else json.dumps(k) for k in table}
    return (f"{keys[k]} = {write_value(v)}" for k, v in table.items() if v is not None)


def write_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(write_entries(value))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write_value, value))}]"
    text = json.dumps(value, ensure_ascii=False)  # TOML's too, but for what is not finite
    return {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}.get(text, text)
