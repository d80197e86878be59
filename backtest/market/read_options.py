"""How data are read: the arguments of ``Market.load`` and ``Market.from_frames``, read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from backtest import core
from backtest.core import format_duration
from backtest.core.code_names import pd
from backtest.core.units import SECOND


class ReadOptions(NamedTuple):
    """How data are read: the arguments of ``Market.load``, times in ns.

    ``sessions`` is None where the user did not say: ``market.json`` does, or there are none.
    """

    instrument: str = ""
    interval: int | None = None
    timezone: str | None = None
    mark_gaps: str | None = None
    funding_gaps: str | None = None
    sessions: bool | None = None
    since: int | None = None
    until: int | None = None
    synthetic: bool = False
    columns: Mapping[str, str] = MappingProxyType({})
    repairs: tuple[str, ...] = ()
    clips: bool = False
    now: int | None = None

    @property
    def has_sessions(self) -> bool:
        """Whether the market closes; what nobody said is no."""
        return bool(self.sessions)

    def expression(
        self, paths: Sequence[object], *, loader: str = "Market.load", **more: object
    ) -> str:
        """Return the Python call that reads some paths with these options, as a text.

        ``more`` are further arguments of it; arguments at their defaults are left out.
        """
        settings = {name: getattr(self, name) for name in self._fields[:6]}
        if self.interval:
            settings["interval"] = format_duration(self.interval)
        for name in ("since", "until", "now"):
            time = getattr(self, name)
            if time is not None:
                settings[name] = time_text(time)
        settings["columns"] = dict(self.columns)
        settings["repair"] = ",".join(self.repairs)
        settings.update(more)

        arguments = [repr(str(path)) for path in paths]
        for name, value in settings.items():
            if value or value is False:
                arguments.append(f"{name}={core.repr_plain(value)}")
        return f"{loader}({', '.join(arguments)})"


def time_text(time: int) -> str:
    """Return UTC ns as text that is read back to the same ns."""
    if time % SECOND == 0:
        return core.format_time(time)
    return pd.Timestamp(time).isoformat()
