"""simulate_paths(): possible continuations of a market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backtest.base import (
    DataError,
    FloatArray,
    Number,
    ParameterError,
    Range,
    TimeLike,
    checked,
    did_you_mean,
    format_time,
    name_values,
    parse_duration,
    pick_value,
    repr_plain,
    to_nanoseconds,
)
from backtest.market import Market, Markets, as_given, as_markets
from backtest.risk.paths.correlations import read_correlation
from backtest.risk.paths.funding_process import FITTED, FundingChoice, read_funding
from backtest.risk.paths.parametric_models import GBM, Garch, Merton
from backtest.risk.paths.path_model import HISTORY, Drift, PathModel
from backtest.risk.paths.path_set import Paths
from backtest.risk.paths.resampled import Filtered, Stationary

MODELS: dict[str, type[PathModel]] = {
    each.__name__.lower(): each for each in (Filtered, Stationary, GBM, Merton, Garch)
}
BRIDGES = (1, 4)


@checked
def simulate_paths(
    market: Market | Markets,
    model: Any = "filtered",
    *,
    paths: int = 10_000,
    horizon: str = "30d",
    start: TimeLike = "now",
    seed: int = 0,
    bridge: int = 1,
    antithetic: bool = False,
    funding: Any = FITTED,
    drift: Drift | None = None,
    correlation: float | FloatArray | None = None,
    common_jump: float | None = None,
) -> Paths:
    """Return possible continuations of a market, or of several.

    Parameters
    ----------
    market : Market or Markets
        The history: the model is fitted to it, and paths go on from its end. Of several
        instruments, the bars that all of them have.
    model : str, PathModel or class
        ``"filtered"``, ``"stationary"``, ``"gbm"``, ``"merton"`` or ``"garch"``, or a class of
        :mod:`backtest.paths`, to fit; or a model with parameters. Of several instruments, one for
        all, or a mapping by name.
    paths : int
        Their number.
    horizon : str
        How far they reach, for example ``"30d"``.
    start : str or Timestamp
        ``"now"``: the end of the market. At a time in UTC, only bars that have closed by then
        count as history.
    seed : int
        Seed of the random numbers, at least 0.
    bridge : int
        Steps in which a parametric model draws the high and low of a bar. 1 is right where one
        barrier matters, 4 also for what reads high and low together (ranges).
    antithetic : bool
        Whether every second path mirrors the one before it. Not for resampled models.
    funding : str, float, FundingTerms, mapping or None
        ``"fitted"``: an autoregression of the settlements of history on the last one and their
        means of 1, 7 and 30 days, or on the last one alone where history has less than 180 days
        of settlements; it goes on from the settlements before the start. FundingTerms, from
        ``bt.funding.terms``: the same, within the venue's cap. ``"history"``: the settlements of
        the rows drawn, for resampled models. A number: the rate of every settlement, in [-0.1,
        0.1]. None: no funding. A history without settlements has none, unless a number is given
        (then every 8 hours). Of several instruments, one for all, or a mapping by name.
    drift : float or str, optional
        Growth of the expected price per year, or ``"history"`` for that of the history. By default
        none: the mean price of all paths is today's (a model with parameters keeps its own drift).
    correlation : float or array of shape (n, n), optional
        Of the normal numbers of several instruments with parametric models: one for all pairs, or a
        matrix; by default that of the log returns of history. Resampled rows keep theirs.
    common_jump : float, optional
        The probability that the jumps of a bar (their number, times and the quantiles of their
        sizes) are common to all instruments, for Merton; 1 by default.

    Returns
    -------
    Paths
        ``paths[i]`` is a Market, or Markets if ``market`` is: the last bar of history and those
        after it.

    Raises
    ------
    ParameterError
        If an argument is not allowed.
    DataError
        If the market is too short for the fit.
    """
    markets = as_markets(market)
    count = int(Range(1, 10**9).check("paths", paths, whole=True))
    Range(0, 2**62).check("seed", seed, whole=True)
    check_bridge(bridge)
    span = parse_duration(horizon, "horizon")
    check_unlisted(markets)
    history = select_history_of_all(markets, start)
    models = fit_models(model, history, drift)
    is_resampled = all(each.is_resampled for each in models.values())
    check_joint(correlation, common_jump, history, is_resampled=is_resampled)
    made = Paths(
        history=as_given(history, market),
        models=models,
        count=count,
        horizon=span,
        seed=int(seed),
        bridge=bridge,
        antithetic=bool(antithetic),
        funding=read_fundings(funding, history, is_resampled=is_resampled),
        drift_of_history=drift == HISTORY,
        correlation=read_correlation(correlation, history),
        common_jump=1.0 if common_jump is None else common_jump,
    )
    if antithetic and not made.is_symmetric:
        first = next(each for each in models.values() if not each.is_symmetric)
        raise ParameterError(
            f"antithetic needs a model with normal random numbers such as 'gbm', "
            f"got {type(first).__name__}"
        )
    _ = [each.source for each in made.members.values()]  # its errors belong here
    return made


def check_unlisted(markets: Markets) -> None:
    if markets.options:
        raise ParameterError(
            "simulated paths have no prices of options, got "
            f"{next(iter(markets.options))!r}; bt.stress answers for accounts that hold them"
        )


def select_history_of_all(markets: Markets, start: TimeLike) -> Markets:
    ended = [
        name
        for name, (_, stop) in zip(markets.names, markets.spans, strict=True)
        if stop < markets.n_bars
    ]
    if ended:
        raise DataError(
            f"paths begin at the end of all instruments, {', '.join(ended)} ended earlier; "
            "markets.select(...) leaves them out"
        )
    first = int(markets.spans[:, 0].max())
    common = markets.slice(first, markets.n_bars)
    return Markets(
        {name: select_history(each, start) for name, each in common.items()},
        currency=markets.currency or None,
    )


def fit_models(model: Any, history: Markets, drift: Drift | None) -> dict[str, PathModel]:
    given = name_values(model, history.names)
    if set(given) != set(history.names):
        raise ParameterError(
            f"model must be one for all or one for each of {', '.join(history.names)}, "
            f"got {', '.join(map(str, given))}"
        )
    found = {name: choose_model(given[name], history[name], drift) for name in history.names}
    if not any(each.is_resampled for each in found.values()):
        return found
    if len({type(each) for each in found.values()}) > 1:
        raise ParameterError(
            "model must be one resampled model for all, or parametric ones, got several"
        )
    longest = max(each.block for each in found.values())  # type: ignore[attr-defined] # resampled
    return {name: replace(each, block=longest) for name, each in found.items()}  # type: ignore[call-arg]


def read_fundings(
    funding: FundingChoice | Mapping[str, FundingChoice], history: Markets, *, is_resampled: bool
) -> FundingChoice | dict[str, FundingChoice]:
    if not isinstance(funding, Mapping):
        return read_funding(funding, is_resampled=is_resampled)
    if set(funding) != set(history.names):
        raise ParameterError(
            f"funding must be one for all or one for each of {', '.join(history.names)}, "
            f"got {', '.join(map(str, funding))}"
        )
    return {
        name: read_funding(pick_value(funding, name), is_resampled=is_resampled)
        for name in history.names
    }


def check_joint(
    correlation: object, common_jump: object, history: Markets, *, is_resampled: bool
) -> None:
    if common_jump is not None:
        Number(0.0, 1.0).check("common_jump", common_jump)
    for name, given in (("correlation", correlation), ("common_jump", common_jump)):
        if given is not None and len(history) == 1:
            raise ParameterError(f"{name} needs several instruments, got one")
        if given is not None and is_resampled:
            raise ParameterError(f"{name} needs a parametric model; resampled history has its own")


def check_bridge(bridge: int) -> None:
    if isinstance(bridge, bool) or bridge not in BRIDGES:
        raise ParameterError(f"bridge must be 1 or 4 steps, got {bridge!r}")


def select_history(market: Market, start: TimeLike) -> Market:
    if isinstance(start, str) and start == "now":
        history = market
    else:
        end = to_nanoseconds(start, "start")
        n = int((market.time + market.interval <= end).sum())
        if n < 2 or end > market.end:
            raise ParameterError(
                f"start must lie after two bars of the market, {format_time(market.start)} to "
                f"{format_time(market.end)}, got {format_time(end)}"
            )
        history = market.prefix(n)
    if history.n_bars < 2:
        raise DataError(f"paths need at least 2 bars of history, got {market!r}")
    return history


def choose_model(model: object, history: Market, drift: Drift | None) -> PathModel:
    if isinstance(model, PathModel):
        chosen = model
    elif isinstance(model, type) and issubclass(model, PathModel) and model in MODELS.values():
        chosen = model.fit(history)
    elif isinstance(model, str) and model.lower() in MODELS:
        chosen = MODELS[model.lower()].fit(history)
    else:
        raise ParameterError(
            f"model must be a model of bt.paths or one of {', '.join(MODELS)}, "
            f"got {repr_plain(model):.60}{did_you_mean(model, MODELS)}"
        )
    return chosen if drift is None else chosen.with_drift(drift, history)
