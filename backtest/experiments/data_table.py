"""The market that ``[data]`` of an experiment names: files, folders of several, or samples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from backtest import core
from backtest.experiments.draft import Draft
from backtest.experiments.tables import SAMPLE
from backtest.market import Market, Markets, find_in_folders, is_panel

SAMPLE_PATH = re.compile(r"sample(?::(\d{1,9}))?", re.ASCII)
"""``sample``, or ``sample:SEED``."""


def load_data(draft: Draft) -> Market | Markets:
    """Return the market of ``[data]``, or the markets of several instruments."""
    entries = dict(draft.table("data"))
    since = entries.pop("from", None)
    until = entries.pop("to", None)
    check_time("data.from", since)
    check_time("data.to", until)

    paths = list_texts(entries.pop("path", SAMPLE))
    instruments = list_texts(entries.pop("instrument", []))
    interval = entries.pop("resample", None)
    market: Market | Markets

    if is_sample(paths):
        named = ["instrument", *entries] if instruments else [*entries]
        market = load_samples(paths, (since, until), named)
    else:
        terms = {**entries, "since": since, "until": until}
        market = load_files(paths, instruments, terms)

    if interval is None:
        return market
    return market.resample(interval)


def check_time(place: str, time: Any) -> None:
    """Raise a ParameterError if an entry is there and is no time."""
    if time is not None:
        core.to_nanoseconds(time, place)


def load_files(paths: list[str], instruments: list[str], terms: dict[str, Any]) -> Market | Markets:
    """Return what files and folders hold, under arguments of ``Market.load``."""
    places = [Path(path) for path in paths]
    if is_panel(places, instruments):
        return Markets.load(*paths, instruments=instruments or None, **terms)
    if "currency" in terms:
        raise core.ParameterError("data.currency is for several instruments, the data are of one")

    wanted = instruments[0] if instruments else None
    files, instrument = find_in_folders(places, wanted)
    return Market.load(*files, **terms, instrument=instrument)


def is_sample(paths: list[str]) -> bool:
    """Return whether one of the paths names the sample."""
    return any(path.partition(":")[0] == SAMPLE for path in paths)


def load_samples(paths: list[str], span: tuple[Any, Any], given: list[str]) -> Market | Markets:
    """Return the sample of each seed, sliced to a span.

    Raises ParameterError if ``given``, the other keys of ``[data]``, is not empty.
    """
    matches = [SAMPLE_PATH.fullmatch(path) for path in paths]
    seeds = dict.fromkeys(int(match[1] or 0) for match in matches if match)
    if len(seeds) < len(paths):
        raise core.ParameterError(
            "data.path must be paths, or samples of different seeds, sample:1 and sample:2, "
            f"got {', '.join(paths)}; a folder of that name is ./sample"
        )
    if given:
        raise core.ParameterError(f"the sample accepts no {', '.join(given)}: its data are known")

    samples = {f"{SAMPLE}-{seed}": Market.sample(seed=seed) for seed in seeds}
    market: Market | Markets
    if len(samples) > 1:
        market = Markets(samples)
    else:
        (market,) = samples.values()

    if span == (None, None):
        return market
    return market.slice(*span)


def list_texts(entry: Any) -> list[str]:
    """Return one text, or a list of them, as a list."""
    if isinstance(entry, str):
        return [entry]
    return list(entry or [])
