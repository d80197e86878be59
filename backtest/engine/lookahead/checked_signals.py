"""Record on a signal how it was checked for lookahead, and read that record back."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray
from backtest.engine.lookahead.causality_checker import describe_cuts

SignalT = TypeVar("SignalT", pd.Series, pd.DataFrame)

KEY = "backtest.causality"
"""The key of the record in the ``attrs`` of a Series or frame."""
TEXT = "backtest.signal"
"""The key of the text that a signal was made from."""
NOT_CHECKED = "signal not checked: it was given as data"


def mark_checked(signal: SignalT, cuts: int, fresh: str) -> SignalT:
    """Record on a signal how it was checked, with a hash of its values.

    That is the number of cuts, and how it compares with that of a fresh process.
    """
    digest = hash_values(signal.to_numpy())
    signal.attrs[KEY] = {"cuts": cuts, "fresh": fresh, "sha256": digest}
    return signal


def name_signal(signal: SignalT, text: str) -> SignalT:
    """Record the text that a signal was made from, with a hash of its values."""
    signal.attrs[TEXT] = {"text": text, "sha256": hash_values(signal.to_numpy())}
    return signal


def find_name(signal: object) -> str:
    """Return the text that a signal was made from; empty if there is none, or if values changed."""
    if not isinstance(signal, pd.Series | pd.DataFrame):
        return ""
    note = signal.attrs.get(TEXT)
    if not isinstance(note, dict):
        return ""
    is_same = note.get("sha256") == hash_values(signal.to_numpy(dtype=np.float64))
    return str(note.get("text", "")) if is_same else ""


def describe_signal_check(signal: object) -> str:
    """Return how a signal was checked; empty for none, for a constant and for constants by name.

    A Series or frame keeps its record through most operations of pandas. The record holds only
    for the values that were checked, and for their negatives.
    """
    if signal is None or np.ndim(signal) == 0:  # type: ignore[arg-type]
        return ""
    if not isinstance(signal, pd.Series | pd.DataFrame):
        return NOT_CHECKED
    note = signal.attrs.get(KEY)
    if not isinstance(note, dict) or not note.get("cuts"):
        return NOT_CHECKED
    values = signal.to_numpy(dtype=np.float64)
    if note.get("sha256") not in (hash_values(values), hash_values(-values)):
        return NOT_CHECKED
    cuts = describe_cuts("signal", int(note["cuts"]))
    return "; ".join(filter(None, (cuts, str(note.get("fresh", "")))))


def keep_note(signal: object, copy: SignalT) -> SignalT:
    """Copy the records of a signal to a copy of its values."""
    if isinstance(signal, pd.Series | pd.DataFrame):
        copy.attrs.update({key: signal.attrs[key] for key in (KEY, TEXT) if key in signal.attrs})
    return copy


def join_checks(columns: object, signal: object) -> str:
    """Return for a manifest how columns and a signal were checked."""
    return "; ".join(filter(None, (str(columns), describe_signal_check(signal))))


def hash_values(values: FloatArray) -> str:
    """Return a hash of numbers, the same for 0 and -0."""
    return hashlib.sha256((np.asarray(values, dtype=np.float64) + 0.0).tobytes()).hexdigest()
