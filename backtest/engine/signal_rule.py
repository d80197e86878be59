"""Base class of signal rules, which compute a direction by bar from named parameters."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Self, dataclass_transform

import numpy as np
import pandas as pd

from backtest.base import FloatArray, ParameterError, checked
from backtest.engine.frame_signals import compute_frame
from backtest.engine.signal_checks import compute_signal, name_signal
from backtest.market import Market, Markets
from backtest.policy import (
    Parameter,
    check_settings,
    check_value,
    find_parameters,
    format_title,
    parse_value,
    write_value,
)


@dataclass_transform(frozen_default=True)
class SignalRule:
    """The base of all signal rules; a subclass becomes a frozen dataclass of its parameters.

    Declare parameters as those of a policy, ``window: Annotated[int, Range(1, 1000, "bars")] = 9``,
    and define ``direction(self, market)``, which returns one number in [-1, 1] per bar, known at
    the bar's close: 1 long, -1 short, NaN or 0 flat. Rules between parameters go into ``check``.

    Raises
    ------
    ParameterError
        If a parameter is unknown, out of range or of the wrong type.

    Examples
    --------
    >>> from backtest.engine.indicator_rules import Rsi
    >>> Rsi(low=25).text()
    'rsi:14:25:70'
    """

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, repr=False)(cls)
        build = cls.__init__

        def __init__(self: SignalRule, *args: object, **settings: object) -> None:  # noqa: N807 - it is the method
            check_settings(cls, settings, len(args))  # type: ignore[arg-type] # it reads fields only
            build(self, *args, **settings)

        __init__.__signature__ = inspect.signature(build)  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[method-assign, assignment]

    def __post_init__(self) -> None:
        for parameter in self.parameters().values():
            value = check_value(type(self), parameter, getattr(self, parameter.name))  # type: ignore[arg-type] # it reads the name only
            object.__setattr__(self, parameter.name, value)
        self.check()

    def __repr__(self) -> str:
        settings = [f"{name}={write_value(value)}" for name, value in self.settings().items()]
        return f"{type(self).__name__}({', '.join(settings)})"

    @classmethod
    def parameters(cls) -> Mapping[str, Parameter]:
        """Return the declared parameters by name, in order."""
        return find_parameters(cls)  # type: ignore[arg-type] # it reads fields only

    @classmethod
    def title(cls) -> str:
        """Return the name at the command line, for example ``ma-cross``."""
        return format_title(cls.__name__)

    @classmethod
    @checked
    def from_settings(cls, settings: Mapping[str, object]) -> Self:
        """Create a rule from its parameters; numbers may be given as text."""
        declared = cls.parameters()
        check_settings(cls, settings)  # type: ignore[arg-type] # it reads fields only
        return cls(**{name: parse_value(declared[name], v) for name, v in settings.items()})

    def settings(self) -> dict[str, Any]:
        """Return the values of all parameters by name."""
        return {name: getattr(self, name) for name in self.parameters()}

    def text(self) -> str:
        """Return the rule as a text, ``rsi:14:30:70``: its parameters in order.

        Words and flags at the end are left out while they are at their defaults.
        """
        values = self.settings()
        for parameter in reversed(list(self.parameters().values())):
            is_plain = parameter.kind in (bool, str) and values[parameter.name] == parameter.default
            if not is_plain:
                break
            del values[parameter.name]
        return ":".join([self.title(), *map(write_word, values.values())])

    def check(self) -> None:
        """Raise a ParameterError if parameters contradict each other."""

    def direction(self, market: Market) -> Any:  # noqa: ARG002 - for subclasses
        """Return one number in [-1, 1] per bar, each known at its bar's close; NaN is flat."""
        raise ParameterError(
            f"{type(self).__name__} must define direction(self, market), which returns a number in "
            "[-1, 1] per bar"
        )

    @checked
    def compute(self, market: Market) -> FloatArray:
        """Return the signal of shape (n_bars,), 0 where unknown, without a check for lookahead."""
        signal = compute_signal(market, self.direction, name=self.text(), is_checked=False)
        return signal.to_numpy(copy=True)

    @checked
    def apply(self, market: Market) -> pd.Series:
        """Return the signal by ``market.times``, checked for lookahead as a policy's columns are.

        Raises
        ------
        PolicyError
            If ``direction`` raises, looks ahead, or returns something else.
        """
        name = self.text()
        return name_signal(compute_signal(market, self.direction, name=name), name)

    @checked
    def weigh(self, markets: Markets, *, is_checked: bool = True) -> pd.DataFrame:
        """Return the weights of several instruments by ``markets.times`` and name.

        The weight of an instrument is its direction times 1/n, n of them that can be traded.
        Without ``is_checked`` there is no check for lookahead. Raises as :meth:`apply` does.
        """
        name = self.text()
        frame = compute_frame(markets, self._find_weights, name=name, is_checked=is_checked)
        return name_signal(frame, name)

    def _find_weights(self, markets: Markets) -> Any:
        count = np.maximum(markets.tradable().sum(axis=0), 1)
        found = {
            name: pd.Series(self.compute(market), index=market.times).reindex(markets.times)
            for name, market in markets.items()
        }
        return pd.DataFrame(found).fillna(0.0).div(count, axis=0)


def write_word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
