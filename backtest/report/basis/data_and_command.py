"""The origin of a result: the quality of its data, and the command that made it."""

from __future__ import annotations

from typing import Any, NamedTuple

from backtest.base.command_again import describe_origin
from backtest.base.json_values import to_plain
from backtest.base.provenance import Making, get_attached_making, try_read_provenance
from backtest.report.basis.data_quality import NOT_READ, Examined, examine
from backtest.tune import Study


class Background(NamedTuple):
    """The quality of the data, the command that made a result, and remarks on how it was made.

    The command is empty if the result was made in Python.
    """

    examined: Examined = NOT_READ
    command: str = ""
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "made_by": self.command or None,
            "not_said": list(self.remarks),
            "quality": self.examined.to_dict(),
        }


NOTHING = Background()


def find_background(source: Any, *, reads_data: bool) -> Background:
    """Return the origin of a result; ``reads_data`` loads its data again to examine them."""
    manifest = to_plain(dict(source.facts if isinstance(source, Study) else source.manifest))
    origin = describe_origin(manifest, find_making(source))
    data = manifest["data"]
    named = str(data.get("source") or manifest.get("source", ""))
    examined = examine(data, named) if reads_data else NOT_READ
    return Background(examined, origin.command, origin.remarks)


def find_making(source: Any) -> Making | None:
    """Return how a result was made, as noted in memory or in its folder."""
    if isinstance(source, Study):
        return (
            try_read_provenance(source.folder, str(source.facts["id"])) if source.folder else None
        )
    return get_attached_making(source)
