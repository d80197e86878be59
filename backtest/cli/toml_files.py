"""Read the tables of a TOML file that a user wrote, with one clear error for each way to fail."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest.base import ParameterError, did_you_mean, read_small


def read_toml(
    file: Path, *, noun: str, argument: str, cure: str, of_folder: str = ""
) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Parameters
    ----------
    file : Path
        The file.
    noun : str
        What it holds, such as ``"a book"``, for messages.
    argument : str
        Where the file is named on the command line.
    cure : str
        What to give instead of a file that is not there.
    of_folder : str
        What to add if a folder is given.

    Raises
    ------
    ParameterError
        If there is no such file, it is no TOML, or a value is out of bounds.
    """
    if not file.is_file():
        near = did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.toml")))
        found = "is a folder" if file.is_dir() else "does not exist"
        raise ParameterError(
            f"{noun} must be a TOML file, {str(file)!r} {found}"
            + (of_folder if of_folder and file.is_dir() else near),
            where=f"{argument}, searched from {Path.cwd()}",
            cure=cure,
        )
    try:
        tables = tomllib.loads(read_small(file, cure=cure).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            f"{noun} must be TOML: {describe_toml(error):.200}",
            where=str(file),
            cure="correct that line" if file.suffix == ".toml" else cure,
        ) from error
    check_values(tables, file)
    return tables


def describe_toml(error: Exception) -> str:
    """Describe why a text is not TOML."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
        return str(error)
    return "a number has too many digits"


def check_values(raw: Mapping[str, Any], file: Path) -> None:
    """Check that no text holds a NUL character and that whole numbers fit into 64 bits."""
    for key, value in walk_values(raw):
        is_huge = type(value) is int and not -(2**63) <= value < 2**63
        if is_huge or (isinstance(value, str) and "\0" in value):
            rule = "a whole number must fit into 64 bits" if is_huge else "a text must hold no NUL"
            shown = f"one of {value.bit_length():,} bits" if is_huge else f"{value!r:.60}"
            raise ParameterError(
                f"{rule}, got {shown}", where=f"{file}, {key!r:.60}", cure="correct it"
            )


def walk_values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all keys and values in nested tables and lists, each with its key."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name), str(name)
            yield from walk_values(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from walk_values(each, key)
    else:
        yield key, value
