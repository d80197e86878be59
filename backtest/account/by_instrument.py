"""Settings that an account with several positions may have by instrument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backtest.base import Argument, Declaration, FrozenTable, ParameterError, Phrase

if TYPE_CHECKING:
    from backtest.base import BoolArray, FloatArray


@dataclass(frozen=True)
class ByInstrument:
    each: Any

    @property
    def kind(self) -> type:
        declared: Declaration = self.each
        return declared.kind

    def check(self, name: str, value: object, *, where: str) -> object:
        own: frozenset[str] = getattr(self.each, "names", frozenset())
        if not isinstance(value, Mapping) or (value and own.issuperset(value)):
            return self.each.check(name, value, where=where)
        if not value:
            raise ParameterError(
                f"{name} by instrument must name at least one, got an empty table",
                where=where,
                cure=Phrase("give for example {}, or leave it out", Argument(name, {"BTCUSDT": 1})),
            )
        return FrozenTable(
            {
                str(key): None
                if entry is None
                else self.each.check(name, entry, where=f"{where}, {key}")
                for key, entry in value.items()
            }
        )

    def admits(self, values: FloatArray) -> BoolArray:
        found: BoolArray = self.each.admits(values)
        return found
