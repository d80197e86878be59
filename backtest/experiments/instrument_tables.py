"""Tables of an experiment that hold for all instruments, and what they say of single ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backtest import core
from backtest.experiments.draft import flatten
from backtest.policies import split_name


def build_by_instrument(
    table: str,
    entries: Mapping[str, Any],
    names: Sequence[str],
    known: Sequence[str],
    build: Callable[[Mapping[str, Any]], Any],
) -> Any:
    """Return what is built of a table, or a dict of it by instrument.

    Tables inside this one whose keys are not ``known`` are those of single instruments, as are
    settings that begin with a name, ``BTCUSDT.target``. Without any, one value is built for all.
    """
    single = {}
    shared = {}
    for key, entry in entries.items():
        if isinstance(entry, Mapping) and key not in known:
            single[key] = entry
        else:
            shared[key] = entry
    refuse_unknown(table, single, names, known)

    missing = [name for name in names if name not in single]
    if table == "policy" and single and missing and "name" not in shared:
        raise core.ParameterError(
            f"each instrument must have a policy, {missing[0]!r} has none: policy.name "
            "applies to all others"
        )

    settings, by_name = split_settings(flatten(shared.get("settings", {})), names)
    if not single and not by_name:
        return build(shared)

    # What an instrument says itself wins over what is said of all.
    built = {}
    for name in names:
        full = dict(shared)
        if by_name:
            full["settings"] = settings | by_name.get(name, {})
        built[name] = build({**full, **single.get(name, {})})
    return built


def refuse_unknown(
    table: str, single: Mapping[str, Any], names: Sequence[str], known: Sequence[str]
) -> None:
    """Raise a ParameterError for a table of an instrument that the data have not."""
    for name in single:
        if name not in names:
            near = core.did_you_mean(name, [*names, *known])
            entries = single[name]
            misplaced = [key for key in entries if key in known]
            if misplaced and not near:
                near = f"; for all of them it is {table}.{misplaced[0]}"
            raise core.ParameterError(
                f"{table}.{name} must be of an instrument of the data, {', '.join(names)}{near}"
            )


def split_settings(
    settings: Mapping[str, Any], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the settings of all instruments, and those of single ones by name."""
    shared: dict[str, Any] = {}
    by_name: dict[str, dict[str, Any]] = {}

    for key, value in settings.items():
        instrument, parameter = split_name(key)
        if instrument in names:  # BTCUSDT.target
            by_name.setdefault(instrument, {})[parameter] = value
        else:
            shared[key] = value
    return shared, by_name
