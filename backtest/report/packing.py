"""Arrays of a figure as short texts: what a page holds of each line.

Times are counted in steps from the first. Other numbers keep five digits, and the bytes of equal
weight stand together, where they repeat. A page unpacks them (``templates/charts.js``).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest import core

LARGEST_COUNT = 2**31 - 1
"""Steps between two times that a number of 32 bits can count."""
DROPPED_BITS = np.uint32(8)
"""Last bits of a number of 32 bits that are rounded away: 16 of 24 stay, one part in 65,000."""
FEW = 16
"""Length up to which numbers are written in full: bars and marks, not lines."""


def encode_figure(value: Any) -> Any:
    """Return a figure, or a part of it, as data for JSON; arrays are packed."""
    if isinstance(value, Mapping):
        return {str(name): encode_figure(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return encode_array(value)
    if isinstance(value, list | tuple):
        return [encode_figure(item) for item in value]
    if isinstance(value, str):
        return core.escape_directions(value)

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def encode_array(values: np.ndarray) -> Any:
    """Return times and numbers packed, and any other values one by one."""
    if values.dtype.kind == "M":
        return pack_times(values)
    if values.dtype.kind in "fiu":
        return pack_numbers(values)
    return encode_figure(values.tolist())


def pack_times(times: np.ndarray) -> dict[str, Any]:
    """Return times by the first, a step in ms, and the counts of steps between them."""
    stamps = times.astype("datetime64[ms]").astype(np.int64)
    gaps = np.diff(stamps, prepend=stamps[:1])
    step = int(np.gcd.reduce(gaps)) or 1
    counts = gaps // step

    if len(stamps) == 0 or np.abs(counts).max() > LARGEST_COUNT:
        return {"dtype": "f8", "bdata": write_bytes(stamps.astype("<f8"))}
    return {
        "first": int(stamps[0]),
        "step": step,
        "steps": shuffle(counts.astype("<i4")),
    }


def pack_numbers(values: np.ndarray) -> dict[str, Any]:
    """Return numbers as Plotly reads them, or of long lines as rounded and shuffled bytes.

    The script of the page undoes both: ``floats`` are shuffled, ``bdata`` is as Plotly has it.
    """
    # A number too large for 32 bits becomes infinite, which a chart leaves out.
    with np.errstate(over="ignore"):
        floats = values.astype("<f4")

    if values.ndim > 1:
        shape = ", ".join(map(str, values.shape))
        return {
            "dtype": "f4",
            "bdata": write_bytes(floats),
            "shape": shape,
        }

    if len(values) <= FEW:
        return {"dtype": "f4", "bdata": write_bytes(floats)}
    return {"floats": shuffle(round_bits(floats))}


def round_bits(floats: np.ndarray) -> np.ndarray:
    """Return numbers of 32 bits whose last bits are 0, rounded; infinite ones and NaN stay."""
    bits = floats.view("<u4")
    half = np.uint32(1) << (DROPPED_BITS - np.uint32(1))
    rounded = ((bits + half) >> DROPPED_BITS) << DROPPED_BITS

    # the largest finite numbers would round to infinity
    return np.where(np.isfinite(floats) & np.isfinite(rounded.view("<f4")), rounded, bits)


def shuffle(values: np.ndarray) -> str:
    """Return the first byte of each value, then the second of each, and so on, as text."""
    table = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.itemsize)
    return write_bytes(np.ascontiguousarray(table.T))


def write_bytes(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
