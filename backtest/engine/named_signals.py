"""Signals given by name: a column of the bars, or a rule with its parameters (``rsi:14:30:70``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.phrases import Place
from backtest.engine.indicator_rules import RULES
from backtest.engine.lookahead.checked_signals import name_signal
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market, Markets

WHERE = Place("signal", of="bt.run")


def resolve_signal(signal: Any, market: Market | Markets, *, where: str = WHERE) -> Any:
    """Return a signal given by name as a Series by the bars of a market; others as they are.

    A text is a column of the bars, or else the text of a rule. A rule is checked for lookahead. Of
    several instruments, it gives a frame of weights.
    """
    named = read_named(signal, market, where=where)
    if not isinstance(named, SignalRule):
        return named
    return named.apply(market) if isinstance(market, Market) else named.weigh(market)


def read_named(signal: Any, market: Market | Markets, *, where: str = WHERE) -> Any:
    """Return the column or the rule that a text names; other values unchanged."""
    if not isinstance(signal, str):
        return signal
    if isinstance(market, Markets):
        return read_rule(signal, where=where)
    if signal in market.columns:
        values = pd.Series(market.columns[signal], index=market.index, name="signal")
        return name_signal(values, f"column {signal}")
    return read_rule(signal, columns=market.columns, where=where)


def read_rule(
    text: str,
    settings: Mapping[str, object] | None = None,
    *,
    columns: Mapping[str, object] | None = None,
    where: str = WHERE,
) -> SignalRule:
    """Return the rule that a text names, with its parameters in order: ``rsi:14:30:70``.

    ``settings`` are parameters by name, which replace those of the text. ``columns`` are the names
    of a market's columns, for the error.
    """
    name, *words = text.split(":")
    if name not in RULES:
        known = ", ".join(columns or ()) or "none"
        raise ParameterError(
            f"signal must be a number, a column of the bars or a rule, got {text!r}"
            + did_you_mean(name, [*(columns or ()), *RULES]),
            where=where,
            cure=f"give a number from -1 to 1, a further column of the bars ({known}), or a rule: "
            f"{', '.join(RULES)}, as in rsi:14:30:70",
        )
    declared = list(RULES[name].parameters())
    if len(words) > len(declared):
        raise ParameterError(
            f"{name} takes {len(declared)} parameters, got {len(words)}: {text!r}",
            where=where,
            cure=f"write {':'.join([name, *(each.upper() for each in declared)])}",
        )
    given: dict[str, object] = dict(zip(declared, words, strict=False))
    try:
        return RULES[name].from_settings({**given, **(settings or {})})
    except ParameterError as error:
        raise ParameterError(error.problem, where=f"{where}, {text}", cure=error.cure) from error


def change_rule(rule: SignalRule, settings: Mapping[str, Any]) -> SignalRule:
    """Return a rule with some of its parameters changed, and checked again."""
    return type(rule)(**{**rule.settings(), **settings})
