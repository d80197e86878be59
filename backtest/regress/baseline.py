"""A baseline: the recorded facts, measures and bars of a run, to compare later runs with."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import ParameterError, find_version, format_time, to_plain
from backtest.engine import Result
from backtest.regress.run_identity import (
    OF_FILES,
    gather_facts,
    hash_data,
    hash_facts,
    list_changes,
)
from backtest.regress.tolerances import (
    Band,
    choose_bands,
    gather_walk_facts,
    measure_walk,
    require_account,
)
from backtest.regress.trace import Trace, hash_array, take_trace
from backtest.validation import WalkForward

if TYPE_CHECKING:
    pass


FORMAT = 1
EXACT, TOLERANCE, STATISTICAL = "exact", "tolerance", "statistical"
MODES = (EXACT, TOLERANCE, STATISTICAL)
THIN = 48
"""The number of points of the equity curve in the JSON file, for its readers."""


@dataclass(frozen=True)
class Baseline:
    """The record of a run, or of the account of a walk forward.

    Attributes
    ----------
    name : str
        The name of the experiment and of the file.
    experiment : str, or None
        Path of the experiment file, relative to the baseline's folder; None for a test's result.
    mode : str
        The mode of comparison: ``"exact"``, ``"tolerance"`` or ``"statistical"``.
    facts : mapping
        The inputs of the run; see :func:`backtest.regress.run_identity.gather_facts`.
    host : mapping
        The platform; see :func:`backtest.regress.baseline.describe_host`.
    metrics : mapping of str to float
        All measures.
    bands : mapping of str to Band
        The tolerance of each measure.
    trace : Trace
        The account at each bar.
    history : sequence of mapping
        The reason, the changes and the old values of each rewrite, oldest first.
    """

    name: str
    experiment: str | None
    mode: str
    facts: Mapping[str, Any]
    host: Mapping[str, str]
    metrics: Mapping[str, float]
    bands: Mapping[str, Band]
    trace: Trace
    history: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def is_other_than(self, other: Baseline) -> bool:
        """Return whether another run differs in anything that is recorded."""
        changes = list_changes(self.facts, other.facts)
        return (
            any(each.name not in OF_FILES for each in changes)
            or bool(list_host_changes(self.host, other.host))
            or any(
                not is_same_number(self.metrics.get(name), other.metrics.get(name))
                for name in {*self.metrics, *other.metrics}
            )
            or hash_columns(self.trace) != hash_columns(other.trace)
        )


def take_baseline(
    result: Result | WalkForward,
    name: str,
    *,
    experiment: str | None = None,
    mode: str = EXACT,
    tolerance: Mapping[str, object] | None = None,
) -> Baseline:
    """Return the baseline of a result.

    Parameters
    ----------
    result : Result or WalkForward
        The result of a run, or a walk forward: the baseline of a walk records its re-tuned account
        with the figures of the walk (``walk_growth``, ``walk_efficiency``, ...), its search and the
        winner of each fold.
    name : str
        The name of the baseline.
    experiment : str, optional
        Path of the experiment file, relative to the folder of the baseline.
    mode : str
        The mode of comparison.
    tolerance : mapping of str to float or str, optional
        Tolerances of measures by name or pattern: ``{"*": "5%", "sharpe": 0.05}``; the last match
        applies. Other measures have a relative tolerance of 1e-9.
    """
    account: Result
    if isinstance(result, WalkForward):
        account, metrics = require_account(result), measure_walk(result)
        facts = gather_walk_facts(result)
    else:
        account, facts = result, gather_facts(result)
        metrics = {name: float(value) for name, value in result.metrics.items()}
    return Baseline(
        name=name,
        experiment=experiment,
        mode=check_mode(mode),
        facts=facts,
        host=describe_host(),
        metrics=metrics,
        bands=choose_bands(metrics, tolerance or {}, {}),
        trace=take_trace(account),
    )


def check_mode(mode: str) -> str:
    if mode not in MODES:
        raise ParameterError(f"mode must be {', '.join(MODES)}, got {mode!r}")
    return mode


def rewrite_baseline(old: Baseline, new: Baseline, reason: str) -> Baseline:
    """Return a baseline that replaces an old one, with the reason and old values in its history.

    Name, experiment, mode and tolerances are those of the old one.
    """
    given = reason.strip()
    if not given:
        raise ParameterError("rewriting a baseline needs a reason, got none")
    entry = {
        "reason": given,
        "changed": [str(each) for each in list_changes(old.facts, new.facts)],
        "platform": list_host_changes(old.host, new.host),
        "metrics": {
            name: value
            for name, value in old.metrics.items()
            if not is_same_number(value, new.metrics.get(name))
        },
        "equity": hash_array(old.trace.columns["equity"]),
    }
    return replace(
        new,
        name=old.name,
        experiment=old.experiment,
        mode=old.mode,
        bands={name: old.bands.get(name, band) for name, band in new.bands.items()},
        history=(*old.history, to_plain(entry)),
    )


def is_same_number(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


# ------------------------------------------------------------------------------------- as a file


def hash_columns(trace: Trace) -> dict[str, str]:
    arrays = {"time": trace.time.astype("<i8"), **trace.columns}
    if trace.inputs is not None:
        arrays["inputs"] = trace.inputs.astype("<u4")
    return {name: hash_array(values) for name, values in arrays.items()}


def sample_equity(trace: Trace) -> dict[str, float]:
    n = len(trace.time)
    rows = np.unique(np.linspace(0, n - 1, min(THIN, n)).round().astype(np.int64))
    equity = trace.columns["equity"]
    return {format_time(int(trace.time[row])): float(equity[row]) for row in rows}


def build_document(baseline: Baseline, file: str) -> dict[str, Any]:
    trace, columns = baseline.trace, hash_columns(baseline.trace)
    measured = {
        "format": FORMAT,
        "name": baseline.name,
        "experiment": baseline.experiment,
        "facts": baseline.facts,
        "hashes": hash_facts(baseline.facts),
        "platform": baseline.host,
        "metrics": {
            name: {"value": value, "tolerance": baseline.bands[name].to_data()}
            for name, value in baseline.metrics.items()
        },
        "equity": {"sha256": columns["equity"], "thinned": sample_equity(trace)},
        "bars": {
            "file": file,
            "count": len(trace.time),
            "interval": trace.interval,
            "first_unit": trace.first_unit,
            "columns": columns,
        },
        "history": list(baseline.history),
    }
    document: dict[str, Any] = to_plain(measured)
    return {**document, "mode": baseline.mode, "seal": hash_measured(document)}


def hash_measured(document: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in document.items() if key not in ("mode", "seal")}
    kept["metrics"] = {name: each["value"] for name, each in document["metrics"].items()}
    return hash_data(kept)


LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pandas", "arch")
OVERRIDES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES")


def describe_host() -> dict[str, str]:
    return {
        **_describe_machine(),
        **{name: find_version(name) for name in LIBRARIES},
        **{name.lower(): os.environ[name] for name in OVERRIDES if os.environ.get(name)},
    }


@functools.cache
def _describe_machine() -> dict[str, str]:
    from llvmlite import binding  # noqa: PLC0415 - the code generator is not always needed

    features = binding.get_host_cpu_features()
    libm, version = platform.libc_ver()
    config = np.show_config(mode="dicts") or {}
    extensions = config.get("SIMD Extensions", {}).get("found", [])
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": binding.get_host_cpu_name(),
        "cpu_features": " ".join(sorted(name for name, has in features.items() if has)),
        "numpy_simd": " ".join(sorted(map(str, extensions))),
        "libm": f"{libm} {version}".strip() or platform.release(),
        "python": platform.python_version(),
    }


def list_host_changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = []
    for name in {**was, **now}:
        one, other = was.get(name, "none"), now.get(name, "none")
        if one != other:
            is_short = max(len(one), len(other)) <= 24
            found.append(f"{name} {one} -> {other}" if is_short else name)
    return found
