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
from backtest.experiments.build import TAKEN_AS_THEY_ARE, build_test
from backtest.experiments.data_table import load_data
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
    file = Path(path)
    if file.is_dir():
        file = file / FILE

    draft = Draft(read_experiment(file), file=file)
    aside = ", ".join(f"[{name}]" for name in draft.tables if name not in TABLES)
    if aside:
        core.warn_caller(
            f"{file.name}: loaded without {aside}; policies and jobs are no part of a test"
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
    folder = Path(path)
    if folder.suffix == ".toml":
        folder = folder.with_suffix("")

    tables: dict[str, Any] = {
        "data": find_files(test.market) or save_market(test.market, folder / "market"),
        "venue": name_venues(test.venue),
        "account": find_changed(Account().to_dict(), test.account.to_dict()),
        "run": {
            **write_signal(test, folder),
            **write_terms(test),
            **write_detail(test.detail, folder),
        },
    }
    if test.overlay is not None:
        tables["overlay"] = name_policy(test.overlay)

    # One file, unless something was written beside it.
    has_folder = folder.exists()
    file = folder.with_suffix(".toml")
    if has_folder:
        file = folder / FILE
    parts = []
    for name, table in tables.items():
        lines = "\n".join(write_entries(table))
        if lines:
            parts.append(f"[{name}]\n{lines}\n\n")
    core.write_file(file, "".join(parts).encode("utf-8"))
    return folder if has_folder else file


def write_terms(test: Conditions) -> dict[str, str | None]:
    """Return the entries of ``[run]`` that are fields of a test, as texts."""
    texts: dict[str, str | None] = {}
    for name in ("calendar", *TAKEN_AS_THEY_ARE):
        value = getattr(test, name)
        texts[name] = None
        if value is not None:
            texts[name] = str(value)
    return texts


def write_detail(detail: Any, folder: Path) -> dict[str, str]:
    """Return the entry of finer bars; those of no file are written into the folder."""
    if detail is None:
        return {}
    if isinstance(detail, Market | Mapping):
        return {"detail": save_market(detail, folder / "detail")["path"]}
    return {"detail": str(Path(detail).resolve())}


def write_signal(test: Conditions, folder: Path) -> dict[str, Any]:
    """Return the entries of a signal; one of no text is written into the folder, as weights."""
    signal: Any = test.signal
    if isinstance(signal, SignalRule):
        return {"signal": signal.text()}
    if isinstance(signal, int | float | str | None):
        return {"signal": signal}

    values: Any = plain(test).signal
    seen = as_markets(find_clock(plain(test).market).seen)
    if isinstance(values, pd.Series):
        frame = values.to_frame(seen.names[0])
    else:
        frame = weights_to_frame(read_weights(values, seen), seen)

    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "signal.parquet")
    return {"weights": "signal.parquet"}


def save_market(market: Any, folder: Path) -> dict[str, Any]:
    """Write a market, or one folder for each instrument; return the entries of ``[data]``."""
    if isinstance(market, Market):
        market.save(folder)
    else:
        for name, one_market in market.items():
            one_market.save(folder / name)
    return {"path": folder.name}


def find_files(market: Any) -> dict[str, Any] | None:
    """Return the entries of ``[data]`` that load a market again, None if none do.

    They are found in the source of a market, which is the call that loaded it and those after it.
    Whether they load the same market is tried.
    """
    values: dict[str, list[Any]] = {}
    is_part = False
    for one_market in as_markets(market).values():
        try:
            loading, *steps = list_calls(one_market.source)
        except (SyntaxError, ValueError):
            return None

        method, paths, keywords = loading
        entries = name_files(method, paths, keywords)
        for step, arguments, _ in steps:
            if step == "resample":
                entries[step] = arguments[0]
        collect_entries(values, entries)

        # Bars that were given, or cut: the file has others.
        is_cut = any(step != "resample" for step, *_ in steps)
        is_part |= "bars" in keywords or is_cut

    data: dict[str, Any] = {}
    for key, several in values.items():
        data[key] = several[0] if len(several) == 1 else several
    if is_part:
        data |= {"from": core.format_time(market.start), "to": core.format_time(market.end)}
    if not loads_again(data, market):
        return None
    return data


def name_files(method: str, paths: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``[data]`` for the call of a market's method that loaded it."""
    if method == "sample":
        if "seed" in keywords:
            return {"path": f"{SAMPLE}:{keywords['seed']}"}
        return {"path": SAMPLE}

    entries = {NAMES.get(keyword, keyword): value for keyword, value in keywords.items()}
    entries["path"] = [str(Path(path).resolve()) for path in paths]
    return entries


def loads_again(data: Mapping[str, Any], market: Any) -> bool:
    """Return whether the entries of ``[data]`` load the same market."""
    try:
        loaded = load_data(Draft({"data": dict(data)}))
    except core.BacktestError:
        return False
    return type(loaded) is type(market) and loaded.content_hash == market.content_hash


def collect_entries(values: dict[str, list[Any]], entries: Mapping[str, Any]) -> None:
    """Add to ``values``, by key, what the entries of an instrument have that is not there yet."""
    for key, entry in entries.items():
        known = values.setdefault(key, [])
        new = entry if isinstance(entry, list) else [entry]
        for value in new:
            if value not in known:
                known.append(value)


def name_venues(venue: Any) -> dict[str, Any]:
    """Return the entries of ``[venue]``: a preset and what differs from it, or all there is."""
    if isinstance(venue, Mapping):
        by_name = {name: name_venues(one_venue) for name, one_venue in venue.items()}
        return {"preset": "", **by_name}

    terms = venue.in_force
    if terms is not None and terms.preset and not terms.like:
        for text in (terms.preset, f"{terms.preset}@latest"):
            preset = Venue.preset(*preset_files.parse_name(text))
            changed = find_changed(preset.to_dict(), venue.to_dict())
            if preset.override(changed) == venue:
                return {"preset": text, **changed}

    return {"preset": "", **venue.to_dict()}


def find_changed(known: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a table that differ from the known ones, also inside tables."""
    changed = {}
    for name, value in table.items():
        before = known.get(name)
        if before == value:
            continue

        if isinstance(value, dict) and isinstance(before, dict):
            changed[name] = find_changed(before, value)
        else:
            changed[name] = value
    return changed


def name_policy(policy: Policy) -> dict[str, Any]:
    """Return the entries that name a policy: its call, or its place and settings."""
    cls = getattr(type(policy), "written", type(policy))
    if cls.__module__.startswith("backtest."):
        return {"name": repr(policy)}

    file = inspect.getsourcefile(cls)
    if file is None or hasattr(type(policy), "written"):
        raise core.ParameterError(f"an overlay must be of a file to be saved, got {policy!r}")

    # A module of a package may import what is beside it, so it is named as a module.
    place = str(Path(file).resolve())
    if sys.modules[cls.__module__].__package__:
        place = cls.__module__
    return {"name": f"{place}:{cls.__name__}", "settings": policy.settings()}


def write_entries(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the entries of a table as lines of TOML, without those that are None."""
    for key, value in table.items():
        if value is None:
            continue
        name = key
        if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            name = json.dumps(key)
        yield f"{name} = {write_value(value)}"


def write_value(value: Any) -> str:
    """Return a value as TOML writes it in a line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(write_entries(value))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write_value, value))}]"

    # JSON's texts are TOML's too, but for what is not finite.
    text = json.dumps(value, ensure_ascii=False)
    return {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}.get(text, text)
