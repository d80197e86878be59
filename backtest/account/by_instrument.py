"""Settings that an account with several positions may have by instrument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backtest.base import Declaration, Fault, FrozenTable, repr_given

if TYPE_CHECKING:
    from backtest.base import BoolArray, FloatArray


def read_keyed(read: Callable[[Any], object], key: str, value: Any) -> object:
    """Return an entry of a table as it is held; a fault names the key."""
    try:
        return read(value)
    except Fault as fault:
        raise Fault(str(fault), f"{fault.found or repr_given(value)} for {key}") from None


@dataclass(frozen=True)
class ByInstrument(Declaration):
    each: Any

    @property
    def kind(self) -> type:  # type: ignore[override] # that of each entry
        declared: Declaration = self.each
        return declared.kind

    def read(self, value: Any) -> object:
        own: frozenset[str] = getattr(self.each, "names", frozenset())
        if not isinstance(value, Mapping) or (value and own.issuperset(value)):
            return self.each.read(value)
        if not value:
            raise Fault("must name at least one instrument, {'BTCUSDT': 1} for example")
        entries = {str(key): entry for key, entry in value.items()}
        return FrozenTable(
            {
                key: None if entry is None else read_keyed(self.each.read, key, entry)
                for key, entry in entries.items()
            }
        )

    def admits(self, values: FloatArray) -> BoolArray:
        found: BoolArray = self.each.admits(values)
        return found
