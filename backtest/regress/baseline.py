"""A baseline: what a run was, held to compare later runs with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.json_values import to_plain
from backtest.base.units import format_time
from backtest.regress.host import describe_host, list_host_changes
from backtest.regress.run_identity import (
    OF_FILES,
    FactChange,
    gather_facts,
    hash_data,
    hash_facts,
    list_changes,
)
from backtest.regress.tolerances import Band, choose_bands
from backtest.regress.trace import Trace, hash_array, take_trace

if TYPE_CHECKING:
    from backtest.engine.result import Result

FORMAT = 1
EXACT, TOLERANCE, STATISTICAL = "exact", "tolerance", "statistical"
MODES = (EXACT, TOLERANCE, STATISTICAL)
THIN = 48
"""Points of the equity curve that stand in the JSON, for reading."""


@dataclass(frozen=True)
class Baseline:
    """What a run was.

    Attributes
    ----------
    name : str
        Of the experiment, and of the file.
    experiment : str, or None
        The experiment file, from the folder of the baseline; None where a test made the result.
    mode : str
        What decides: ``"exact"``, ``"tolerance"`` or ``"statistical"``.
    facts : mapping
        What the run was made of; see :func:`backtest.regress.run_identity.gather_facts`.
    host : mapping
        What computed it; see :func:`backtest.regress.host.describe_host`.
    metrics : mapping of str to float
        All measures.
    bands : mapping of str to Band
        How far each may move.
    trace : Trace
        What each bar did.
    history : sequence of mapping
        Why it was rewritten, the oldest first: reason, what changed, old values.
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

    def list_changes(self, other: Baseline) -> list[FactChange]:
        """Return what another run is made of that this one is not."""
        return list_changes(self.facts, other.facts)

    def is_other_than(self, other: Baseline) -> bool:
        """Tell whether another run differs in anything that is recorded."""
        names = {*self.metrics, *other.metrics}
        changes = [each for each in self.list_changes(other) if each.name not in OF_FILES]
        return (
            bool(changes or self.list_host_changes(other))
            or any(not is_same_number(*pair) for pair in self._pair_metrics(other, names))
            or hash_columns(self.trace) != hash_columns(other.trace)
        )

    def _pair_metrics(
        self, other: Baseline, names: Iterable[str]
    ) -> Iterator[tuple[float | None, float | None]]:
        return ((self.metrics.get(name), other.metrics.get(name)) for name in names)

    def list_host_changes(self, other: Baseline) -> list[str]:
        """Return in what the computers differ."""
        return list_host_changes(self.host, other.host)


def take_baseline(
    result: Result,
    name: str,
    *,
    experiment: str | None = None,
    mode: str = EXACT,
    tolerance: Mapping[str, object] | None = None,
) -> Baseline:
    """Return the baseline of a result.

    Parameters
    ----------
    result : Result
        What was run.
    name : str
        What it is called.
    experiment : str, optional
        The experiment file, from the folder the baseline will stand in.
    mode : str
        What decides whether a later run is the same.
    tolerance : mapping of str to float or str, optional
        How far measures may move, by name or pattern: ``{"*": "5%", "sharpe": 0.05}``; the last
        that names a measure holds. 1e-9 relative for all others.

    Raises
    ------
    ParameterError
        If the mode or a tolerance is none.
    """
    metrics = {name: float(value) for name, value in result.metrics.items()}
    return Baseline(
        name=name,
        experiment=experiment,
        mode=check_mode(mode),
        facts=gather_facts(result),
        host=describe_host(),
        metrics=metrics,
        bands=choose_bands(metrics, tolerance or {}, {}, where="tolerance"),
        trace=take_trace(result),
    )


def check_mode(mode: str, where: str = "mode") -> str:
    """Return a mode."""
    if mode not in MODES:
        raise ParameterError(
            f"a mode must be {', '.join(MODES)}, was {mode!r}",
            where=where,
            cure="choose 'exact' for the same bytes, 'tolerance' for bands of measures, "
            "'statistical' for noise",
        )
    return mode


def rewrite_baseline(old: Baseline, new: Baseline, reason: str) -> Baseline:
    """Return a new baseline in place of an old one, with the reason and the old values.

    Its mode and tolerances, and where the experiment stands, are the old one's.
    """
    told = reason.strip()
    if not told:
        raise ParameterError(
            "a baseline is rewritten for a reason, was given none",
            where="reason",
            cure="say why the numbers moved: --reason 'funding was charged twice'",
        )
    entry = {
        "reason": told,
        "changed": [str(each) for each in old.list_changes(new)],
        "platform": old.list_host_changes(new),
        "metrics": {
            name: value
            for name, value in old.metrics.items()
            if not is_same_number(value, new.metrics.get(name))
        },
        "equity": hash_equity(old.trace),
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
    """Tell whether two numbers are the same, NaN among them; None is no number."""
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


# ------------------------------------------------------------------------------------- as a file


def hash_equity(trace: Trace) -> str:
    """Return the hash of the bytes of the equity curve."""
    return hash_array(trace.columns["equity"])


def hash_columns(trace: Trace) -> dict[str, str]:
    """Return the hash of each column of a trace."""
    arrays = {"time": trace.time.astype("<i8"), **trace.columns}
    if trace.inputs is not None:
        arrays["inputs"] = trace.inputs.astype("<u4")
    return {name: hash_array(values) for name, values in arrays.items()}


def sample_equity(trace: Trace) -> dict[str, float]:
    """Return the equity at some closes over the whole run, by the open time of the bar."""
    n = len(trace.time)
    rows = np.unique(np.linspace(0, n - 1, min(THIN, n)).round().astype(np.int64))
    equity = trace.columns["equity"]
    return {format_time(int(trace.time[row])): float(equity[row]) for row in rows}


def build_document(baseline: Baseline, file: str) -> dict[str, Any]:
    """Return a baseline as it stands in its JSON, the bars in a file of their own beside it."""
    trace = baseline.trace
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
        "equity": {"sha256": hash_equity(trace), "thinned": sample_equity(trace)},
        "bars": {
            "file": file,
            "count": len(trace.time),
            "interval": trace.interval,
            "first_unit": trace.first_unit,
            "columns": hash_columns(trace),
        },
        "history": list(baseline.history),
    }
    document: dict[str, Any] = to_plain(measured)
    return {**document, "mode": baseline.mode, "seal": hash_measured(document)}


def hash_measured(document: Mapping[str, Any]) -> str:
    """Return the hash of all that was measured: mode and tolerances may be edited by hand."""
    kept = {key: value for key, value in document.items() if key not in ("mode", "seal")}
    kept["metrics"] = {name: each["value"] for name, each in document["metrics"].items()}
    return hash_data(kept)
