"""The origin of a result: the quality of its data, and the command that made it."""

from __future__ import annotations

from typing import Any, NamedTuple

from backtest.base import describe_origin, to_plain
from backtest.report.basis.data_quality import NOT_READ, Examined, examine


class Background(NamedTuple):
    """The quality of the data, the command that made a result, and remarks on how it was made.

    The command is empty if the result was made in Python. The sets of a sweep are ranked by
    ``objective``.
    """

    examined: Examined = NOT_READ
    command: str = ""
    remarks: tuple[str, ...] = ()
    objective: str = "sharpe"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "made_by": self.command or None,
            "not_said": list(self.remarks),
            "quality": self.examined.to_dict(),
        }


NOTHING = Background()


def find_background(source: Any, objective: str, *, reads_data: bool) -> Background:
    """Return the origin of a result; ``reads_data`` loads its data again to examine them."""
    manifest = to_plain(dict(source.manifest))
    if "data" not in manifest:
        return Background(objective=objective)
    origin = describe_origin(manifest, source._find_making())
    data = manifest["data"]
    examined = examine(data, str(data.get("source", ""))) if reads_data else NOT_READ
    return Background(examined, origin.command, origin.remarks, objective)
