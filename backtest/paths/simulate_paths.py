"""simulate_paths(): possible continuations of a market."""

from __future__ import annotations

from backtest.base.errors import DataError, ParameterError, did_you_mean
from backtest.base.phrases import Place
from backtest.base.ranges import Range
from backtest.base.units import TimeLike, format_time, parse_duration, to_nanoseconds
from backtest.market import Market
from backtest.paths.changing_volatility import Garch, Heston, Regimes
from backtest.paths.diffusions import GBM, Kou, Merton
from backtest.paths.path_model import PathModel
from backtest.paths.path_set import Paths
from backtest.paths.resampled import Block, Filtered, Stationary
from backtest.venue.funding import FundingTerms

MODELS: dict[str, type[PathModel]] = {
    each.__name__.lower(): each
    for each in (Filtered, Stationary, Block, GBM, Merton, Kou, Heston, Garch, Regimes)
}
"""The models by name."""
BRIDGES = (1, 4)


def simulate_paths(
    market: Market,
    model: str | PathModel | type[PathModel] = "filtered",
    *,
    paths: int = 10_000,
    horizon: str = "30d",
    start: TimeLike = "now",
    seed: int = 0,
    bridge: int = 1,
    antithetic: bool = False,
    funding: FundingTerms | None = None,
) -> Paths:
    """Return possible continuations of a market.

    Parameters
    ----------
    market : Market
        The history: the model is fitted to it, and paths go on from its end.
    model : str, PathModel or class
        ``"filtered"``, ``"stationary"``, ``"block"``, ``"gbm"``, ``"merton"``, ``"kou"``,
        ``"heston"``, ``"garch"`` or ``"regimes"``, or a class of :mod:`backtest.paths`, to fit; or
        a model with parameters.
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
    funding : FundingTerms, optional
        Terms by which parametric models compute funding from the mean basis of an interval, from
        ``bt.funding.terms``; by default 0.01 % interest per 8 hours and a clamp of 0.05 %. In a
        market without mark prices, the rate is the mean of the last 30 days.

    Returns
    -------
    Paths
        ``paths[i]`` is a Market: the last bar of history and those after it.

    Raises
    ------
    ParameterError
        If an argument is not allowed.
    DataError
        If the market is too short for the fit.
    """
    where = "bt.simulate_paths"
    if not isinstance(market, Market):
        raise ParameterError(
            f"market must be a Market, was {str(market)[:60]!r}",
            where=f"{where}, market",
            cure="pass bt.Market.load(...), from_frames(...) or sample()",
        )
    count = int(Range(1, 2**40).check("paths", paths, where=f"{where}, paths", whole=True))
    Range(0, 2**63).check("seed", seed, where=f"{where}, seed", whole=True)
    check_bridge(bridge)
    span = parse_duration(horizon, where=Place("horizon", of=where))
    history = cut_history(market, start)
    chosen = choose_model(model, history)
    if antithetic and not chosen.is_symmetric:
        raise ParameterError(
            f"antithetic needs a model with normal numbers, was {type(chosen).__name__}",
            where=f"{where}, antithetic",
            cure="leave antithetic out: rows of history have no mirror image",
        )
    made = Paths(
        history=history,
        model=chosen,
        count=count,
        horizon=span,
        seed=int(seed),
        bridge=bridge,
        antithetic=bool(antithetic),
        funding=funding,
    )
    _ = made.source  # its errors belong here
    return made


def check_bridge(bridge: int) -> None:
    """Require one step or four."""
    if isinstance(bridge, bool) or bridge not in BRIDGES:
        raise ParameterError(
            f"bridge must be 1 or 4 steps, was {bridge!r}",
            where="bt.simulate_paths, bridge",
            cure="give 1, or 4 for policies that read ranges",
        )


def cut_history(market: Market, start: TimeLike) -> Market:
    """Return the bars that have closed by the start."""
    if isinstance(start, str) and start == "now":
        history = market
    else:
        end = to_nanoseconds(start, where=Place("start", of="bt.simulate_paths"))
        n = int((market.time + market.interval <= end).sum())
        if n < 2 or end > market.end:
            raise ParameterError(
                "start must lie in the market, after two bars, "
                f"was {format_time(end)} in {format_time(market.start)} to "
                f"{format_time(market.end)}",
                where=Place("start", of="bt.simulate_paths"),
                cure="give a later start, or 'now'",
            )
        history = market.prefix(n)
    if history.n_bars < 2:
        raise DataError(
            f"paths need at least 2 bars of history, was {history.n_bars}",
            where=repr(market),
            cure="give a longer market",
        )
    return history


def choose_model(model: object, history: Market) -> PathModel:
    """Return the model given, fitted to history if it is a name or a class."""
    if isinstance(model, PathModel):
        return model
    if isinstance(model, type) and issubclass(model, PathModel) and model in MODELS.values():
        return model.fit(history)
    if not isinstance(model, str) or model.lower() not in MODELS:
        raise ParameterError(
            f"model must be one of {', '.join(MODELS)}, was {str(model)[:60]!r}"
            + did_you_mean(model, MODELS),
            where="bt.simulate_paths, model",
            cure="choose one of them, or pass bt.paths.GBM(volatility=0.8)",
        )
    return MODELS[model.lower()].fit(history)
