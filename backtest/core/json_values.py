"""Conversion of values for JSON and for messages, and safe reads of files with JSON."""

from __future__ import annotations

import codecs
import json
import math
import reprlib
import stat
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backtest.core.errors import DataError

MOST_PLAIN = 1e15
"""Whole floats below this are written without a decimal point in messages."""
MAX_TEXT = 200
MAX_ITEMS = 20
"""Letters and items of a value that messages write."""
WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_json(value: Any) -> Any:
    """Return a value as data for JSON, in which NaN and infinity are null."""
    return to_plain(value, lambda _: None)


PLAIN = frozenset((str, int, bool, type(None)))


def to_plain(value: Any, write_special: Callable[[float], str | None] = str) -> Any:
    """Return a value as plain data; ``write_special`` writes NaN and infinity."""
    if type(value) in PLAIN:  # most of what is in files
        return value
    if type(value) is float:
        return value if math.isfinite(value) else write_special(value)
    if isinstance(value, dict | Mapping):
        return {str(name): to_plain(item, write_special) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, write_special) for item in value]

    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist(), write_special)
    if isinstance(value, float) and not math.isfinite(value):
        return write_special(value)
    return value


class PlainRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = MAX_TEXT
        self.maxlist = self.maxtuple = self.maxdict = MAX_ITEMS

    def repr_instance(self, x: Any, level: int) -> str:
        """Write any other value: a class by its name, a table or a large array by its shape."""
        if isinstance(x, np.generic):
            return repr(x.item())
        if isinstance(x, tuple) and hasattr(x, "_asdict"):
            parts = [f"{name}={self.repr1(item, level)}" for name, item in x._asdict().items()]
            return f"{type(x).__name__}({', '.join(parts)})"
        if isinstance(x, type):
            return f"the class {x.__name__}"
        if isinstance(x, types.ModuleType):
            return f"the module {x.__name__}"
        if isinstance(x, types.FunctionType):
            return f"the function {x.__name__}"

        shape: Any = getattr(x, "shape", ())
        is_array = isinstance(shape, tuple) and bool(shape)
        if is_array and (len(shape) > 1 or shape[0] > MAX_ITEMS or hasattr(x, "index")):
            return f"a {type(x).__name__} of shape {shape}"
        return super().repr_instance(x, level)


def repr_plain(value: object) -> str:
    """Return a short repr of a value for messages, with numpy numbers written as Python numbers."""
    return PlainRepr().repr(value)


def repr_given(value: object) -> str:
    """Return the short repr of a value that a user gave; 5 of 5.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < MOST_PLAIN:
        return f"{value:.0f}"
    return repr_plain(value)


def from_plain(value: Any) -> Any:
    """Return plain data with numbers in the place of ``"nan"``, ``"inf"`` and ``"-inf"``."""
    if isinstance(value, dict):
        return {name: from_plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if isinstance(value, str):
        return WORDS.get(value, value)
    return value


LARGEST = 32 * 2**20
"""Size limit in bytes; a larger file of a result is damaged."""


def read_small(path: Path | str) -> bytes:
    """Return the bytes of a plain file; raise DataError if it is none, or too large."""
    state = Path(path).stat()
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"{path}: must be a plain file, got a folder, a pipe or a device")
    if state.st_size > LARGEST:
        size = state.st_size / 2**20
        raise DataError(f"{path}: must be at most {LARGEST >> 20} MiB, got {size:,.0f} MiB")
    return Path(path).read_bytes()


def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of JSON that pairs make; ValueError if a name is there twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in members if names.count(name) > 1)
        raise ValueError(f"each name may be given once, got {repeated!r} twice")
    return members


def decode_text(content: bytes) -> str:
    """Return the text in a file: UTF-8, or what its byte order mark says. ValueError otherwise.

    Files that were joined or written twice have several marks.
    """
    encoding = "utf-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    return content.decode(encoding).lstrip("\ufeff")


def parse_json(content: bytes, path: Path | str) -> Any:
    try:
        return json.loads(decode_text(content), object_pairs_hook=read_object)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, RecursionError):
            reason = "nested too deeply"
        raise DataError(f"{path}: must be JSON: {reason[:200]}") from error


def write_json_file(data: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json_file(path: Path) -> Any:
    try:
        return parse_json(read_small(path), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
