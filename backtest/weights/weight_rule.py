"""Weights of several instruments by the name of a rule, whose parameters sweeps vary."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar

import pandas as pd

from backtest.base import Choice, FloatArray, ParameterError, Place, Range
from backtest.engine import SignalRule, write_word
from backtest.market import Market, Markets, read_weights, require_panel, weights_to_frame
from backtest.weights import formulas
from backtest.weights.by_covariance import Memory, Solve, weigh_by_covariance

BY_COVARIANCE = ("inverse-volatility", "equal-risk", "minimum-variance", "hierarchical")


class WeightRule(SignalRule):
    """Weights by the name of a function of :mod:`backtest.weights`, and its parameters.

    ``bt.run(markets, ..., signal=WeightRule("equal-risk", half_life=48))`` is the run with
    ``signal=bt.allocate.equal_risk(markets, half_life=48)``. In sweeps and searches with this
    signal, ``allocate.rule``, ``allocate.half_life`` and the others may vary.

    Parameters
    ----------
    rule : str
        ``"equal"`` or one of ``BY_COVARIANCE``.
    memory : str
        ``"half-life"`` or ``"window"``: which of both says how far covariances look back.
    half_life, window, every, long_only, linkage
        As in :func:`~backtest.weights.inverse_volatility`,
        :func:`~backtest.weights.minimum_variance` and :func:`~backtest.weights.hierarchical`.

    Raises
    ------
    ParameterError
        If a parameter is unknown or out of range, or the signal is for one market.

    Examples
    --------
    >>> WeightRule("equal-risk", half_life=48).text()
    'equal-risk(half_life=48)'
    """

    prefix: ClassVar[str] = "allocate."

    rule: Annotated[str, Choice("equal", *BY_COVARIANCE)] = "inverse-volatility"
    memory: Annotated[str, Choice("half-life", "window", when=("rule", BY_COVARIANCE))] = (
        "half-life"
    )
    half_life: Annotated[float, Range(0.5, 1e9, "bars", log=True, when=("memory", "half-life"))] = (
        168.0
    )
    window: Annotated[int, Range(2, 1e9, "bars", log=True, when=("memory", "window"))] = 720
    every: Annotated[int, Range(1, 1e9, "bars", log=True, when=("rule", BY_COVARIANCE))] = 24
    long_only: bool = False
    linkage: Annotated[
        str, Choice("single", "complete", "average", "ward", when=("rule", "hierarchical"))
    ] = "single"

    def text(self) -> str:
        """Return the rule, and the parameters that it uses and that are not at their defaults."""
        given = [
            f"{name}={write_word(value)}"
            for name, value in self.settings().items()
            if name != "rule"
            and value != self.parameters()[name].default
            and name in self.list_used()
        ]
        return f"{self.rule}({', '.join(given)})" if given else self.rule

    def list_used(self) -> tuple[str, ...]:
        """Return the names of the parameters that matter for the rule."""
        if self.rule == "equal":
            return ("rule",)
        own = {"minimum-variance": ("long_only",), "hierarchical": ("linkage",)}
        back = "half_life" if self.memory == "half-life" else "window"
        return ("rule", "memory", back, "every", *own.get(self.rule, ()))

    def direction(self, market: Market) -> Any:
        """Refuse one market: weights are of several."""
        raise ParameterError(
            f"an allocation gives weights to several markets, got {market!r}",
            where=Place("signal"),
            cure="give bt.Markets({name: market, ...}), or a rule such as rsi:14:30:70",
        )

    def _find_weights(self, markets: Markets) -> FloatArray:
        if self.rule == "equal":
            return read_weights(None, markets).T
        is_window = self.memory == "window"
        memory = Memory(None, self.window) if is_window else Memory(self.half_life, None)
        return weigh_by_covariance(markets, memory, self.every, self._find_solver())

    def _find_solver(self) -> Solve:
        if self.rule == "minimum-variance":
            return partial(formulas.minimum_variance_weights, long_only=self.long_only)
        if self.rule == "hierarchical":
            linkage: Any = self.linkage
            return partial(formulas.hierarchical_weights, linkage=linkage)
        is_equal = self.rule == "equal-risk"
        return formulas.equal_risk_weights if is_equal else formulas.inverse_volatility_weights


def equal(markets: Markets) -> pd.DataFrame:
    """Return 1/n in each of the n instruments that can be traded: the signal of a run without one.

    An instrument can be traded from its first bar, and not in the last one before it is delisted.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)

    Examples
    --------
    >>> import backtest as bt
    >>> whole = bt.Market.sample(bars=4)
    >>> equal(bt.Markets({"A": whole, "B": whole.slice(2, 4)}))["A"].tolist()
    [1.0, 1.0, 0.5, 0.5]
    """
    require_panel(markets, where="bt.allocate.equal")
    return weights_to_frame(read_weights(None, markets), markets)
