"""What a report says of where a result came from: the quality of its data, and its command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from backtest.base.json_values import to_plain
from backtest.base.provenance import Making, get_attached_making, try_read_provenance
from backtest.report.basis.data_quality import NOT_READ, Examined, examine
from backtest.store.command_again import describe_origin
from backtest.store.find import Saved
from backtest.tune import Study


class Background(NamedTuple):
    """What a report says of where a result came from.

    Attributes
    ----------
    examined : Examined
        The quality of the data, or why it is not known.
    command : str
        The line that made the result; empty where it was made in Python.
    remarks : tuple of str
        What else is known of how it was made.
    """

    examined: Examined = NOT_READ
    command: str = ""
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        found = self.examined.found
        return {
            "made_by": self.command or None,
            "not_said": list(self.remarks),
            "quality": None if found is None else found.to_dict(),
        }


NOTHING = Background()


def find_background(source: Saved, *, reads_data: bool) -> Background:
    """Return what stands behind a result.

    Parameters
    ----------
    source : Result, Sweep, Study or Comparison
        What is reported.
    reads_data : bool
        Whether the data are loaded again from where the manifest says they are.
    """
    manifest = read_manifest(source)
    origin = describe_origin(manifest, find_making(source))
    data = manifest["data"]
    named = str(data.get("source") or manifest.get("source", ""))
    examined = examine(data, named) if reads_data else NOT_READ
    return Background(examined, origin.command, origin.remarks)


def read_manifest(source: Saved) -> Mapping[str, Any]:
    """Return the manifest of a result, or the description of a study, as plain data."""
    manifest: Mapping[str, Any] = source.facts if isinstance(source, Study) else source.manifest
    plain: Mapping[str, Any] = to_plain(dict(manifest))
    return plain


def find_making(source: Saved) -> Making | None:
    """Return how a result was made, as it is noted beside it in memory or in its folder."""
    if isinstance(source, Study):
        return (
            try_read_provenance(source.folder, str(source.facts["id"])) if source.folder else None
        )
    return get_attached_making(source)
