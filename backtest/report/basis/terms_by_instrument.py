"""The terms of a result by instrument, as one manifest for each group of equal terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from backtest.account.account import BY_INSTRUMENT
from backtest.base import clip, format_span
from backtest.report.basis.data_quality import describe_choices, describe_filled
from backtest.report.basis.what_is_modeled import describe_model
from backtest.report.page.page import Block, Table, name_columns

SHOWN = ("liquidations_tested_on",)
"""Facts that the data of all instruments may share."""


class Part(NamedTuple):
    """Instruments with the same terms, and their manifest; no names for one market."""

    names: list[str]
    manifest: dict[str, Any]

    @property
    def suffix(self) -> str:
        """The instruments, for a title."""
        return f" of {clip(', '.join(self.names), 120)}" if self.names else ""


def split_manifest(manifest: Mapping[str, Any]) -> list[Part]:
    """Return the manifest of each group of instruments with the same venue and settings."""
    instruments = manifest["data"].get("instruments")
    if not instruments:
        return [Part([], dict(manifest))]
    found: list[Part] = []
    whole = {name: value for name, value in manifest["data"].items() if name != "instruments"}
    for name, data in instruments.items():
        venue = manifest["venue"]
        account = {
            key: value[name] if key in BY_INSTRUMENT and is_table(value, instruments) else value
            for key, value in manifest["account"].items()
        }
        terms = {
            "venue": venue[name] if is_table(venue, instruments) else venue,
            "account": {key: value for key, value in account.items() if value is not None},
            "data": {**whole, **{key: data[key] for key in SHOWN if key in data}},
        }
        same = next((part for part in found if part.manifest | terms == part.manifest), None)
        if same is None:
            found.append(Part([name], {**manifest, **terms}))
        else:
            same.names.append(name)
    return found if len(found) > 1 else [Part([], found[0].manifest)]


def is_table(value: object, instruments: Mapping[str, Any]) -> bool:
    """Return whether a value is a table by instrument."""
    return isinstance(value, Mapping) and {*value} == {*instruments}


def merge_models(parts: list[Part]) -> Iterator[tuple[str, str]]:
    """Yield each part of the model; those in which instruments differ once for each group."""
    models = [dict(describe_model(part.manifest)) for part in parts]
    for name in dict.fromkeys(name for model in models for name in model):
        texts = [model.get(name, "none") for model in models]
        if len({*texts}) == 1:
            yield name, texts[0]
        else:
            pairs = zip(parts, texts, strict=True)
            yield from ((f"{name}{part.suffix}", text) for part, text in pairs)


def tabulate_instruments(data: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the facts about the data of each instrument; nothing for one market.

    A study knows only the hash of the content of each.
    """
    instruments = data.get("instruments") or {}
    if not all(isinstance(each, Mapping) for each in instruments.values()):
        columns = name_columns("instrument", "content hash", text=["content hash"])
        yield Table("Instruments", columns, tuple(instruments.items()))
    elif instruments:
        rows = tuple(
            (
                name,
                format_span(each).removesuffix(" UTC"),
                f"{each['bars']:,}",
                f"{each['funding_events']:,}",
                str(each["liquidations_tested_on"]),
                str(each.get("source", "")),
                describe_filled(each.get("filled", {})),
                describe_choices(each.get("filled", {})),
            )
            for name, each in instruments.items()
        )
        columns = name_columns(
            "instrument", ("span", "UTC"), "bars", "settlements", "liquidations tested on",
            "source", "filled in", "data choices",
            text=["span", "liquidations tested on", "source", "filled in", "data choices"],
        )  # fmt: skip
        yield Table("Instruments", columns, rows)
