"""What stands behind a result beyond its numbers: the data as they are now, and its command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from backtest.base.json_values import to_plain
from backtest.compare import Comparison
from backtest.engine.result import Result
from backtest.report.basis.data_quality import NOT_READ, Examined, examine
from backtest.sweep.sweep_table import Sweep
from backtest.tune import Study

if TYPE_CHECKING:
    import pandas as pd

Reported: TypeAlias = Result | Sweep | Study | Comparison


class Background(NamedTuple):
    """What a report says of where a result came from.

    Attributes
    ----------
    examined : Examined
        The quality of the data, or why it is not known.
    command : str
        The line that makes the result again; empty where there is none.
    remarks : tuple of str
        What that line cannot say.
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


def find_background(source: Reported, *, reads_data: bool) -> Background:
    """Return what stands behind a result.

    Parameters
    ----------
    source : Result, Sweep, Study or Comparison
        What is reported.
    reads_data : bool
        Whether the data are loaded again from where the manifest says they are.
    """
    from backtest.store.command_again import describe_origin  # noqa: PLC0415 - loads all strategies

    kind, facts = describe(source)
    origin = describe_origin(kind, facts, lambda: read_table(source))
    data = facts["data"]
    said = str(data.get("source") or facts.get("source", ""))
    examined = examine(data, said) if reads_data else NOT_READ
    return Background(examined, origin.command, origin.remarks)


def describe(source: Reported) -> tuple[str, Mapping[str, Any]]:
    """Return the kind of a result, and its manifest as plain data."""
    if isinstance(source, Study):
        return "study", to_plain(dict(source.facts))
    kinds = {Result: "run", Sweep: "sweep", Comparison: "comparison"}
    return kinds[type(source)], to_plain(dict(source.manifest))


def read_table(source: Reported) -> pd.DataFrame:
    """Return the sets of a sweep.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(source, Sweep):
        raise TypeError(type(source).__name__)
    return source.table
