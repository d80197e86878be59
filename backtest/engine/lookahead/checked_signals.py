"""Signals that were made by a function and checked, told from signals that were given as data."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray
from backtest.engine.lookahead.causality_checker import describe_cuts

KEY = "backtest.causality"
"""Under which a Series carries how it was checked."""
NOT_CHECKED = "signal not checked: it was given as data"


def mark_checked(signal: pd.Series, cuts: int) -> pd.Series:
    """Return a signal that says by how many cuts it was checked, while its values stay the same."""
    signal.attrs[KEY] = {"cuts": cuts, "sha256": hash_values(signal.to_numpy())}
    return signal


def describe_signal_check(signal: object) -> str:
    """Return how a signal was checked; empty for none and for a constant.

    A Series keeps the note of its check through most operations of pandas. The note counts only for
    the values that were checked, and for their negatives.
    """
    if signal is None or np.ndim(signal) == 0:  # type: ignore[arg-type]
        return ""
    note = signal.attrs.get(KEY) if isinstance(signal, pd.Series) else None
    if not isinstance(signal, pd.Series) or not isinstance(note, dict) or not note.get("cuts"):
        return NOT_CHECKED
    values = signal.to_numpy(dtype=np.float64)
    if note.get("sha256") not in (hash_values(values), hash_values(-values)):
        return NOT_CHECKED
    return describe_cuts("signal", int(note["cuts"]))


def keep_note(signal: object, copy: pd.Series) -> pd.Series:
    """Return a copy of a signal's values with the note of its check."""
    if isinstance(signal, pd.Series) and KEY in signal.attrs:
        copy.attrs[KEY] = signal.attrs[KEY]
    return copy


def join_checks(columns: object, signal: object) -> str:
    """Return how columns and a signal were checked, for manifests."""
    return "; ".join(filter(None, (str(columns), describe_signal_check(signal))))


def hash_values(values: FloatArray) -> str:
    """Return a hash of numbers, the same for 0 and -0."""
    return hashlib.sha256((np.asarray(values, dtype=np.float64) + 0.0).tobytes()).hexdigest()
