"""Check the paths of a search, and read what is measured on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import Argument, ParameterError, Phrase, Place, list_values
from backtest.market import Markets, as_markets
from backtest.measures import RiskMeasure, read_risk_name
from backtest.measures.measure_names import LARGEST
from backtest.tune.path_risk import WHERE, PathRisk
from backtest.tune.search_arguments import ObjectivesLike, find_names

if TYPE_CHECKING:
    from backtest.market import Market
    from backtest.policy import Policy
    from backtest.risk import Paths


def read_path_risk(
    paths: Paths | None,
    objective: ObjectivesLike,
    constraints: Mapping[str, str] | None,
    market: Market | Markets,
    *,
    signal: object,
    overlay: Policy | None,
    threads: int | None,
    compile: bool,  # noqa: A002 - the word of bt.tune
    validate: str | None,
) -> PathRisk | None:
    """Return what measures sets on paths; None without paths.

    Raises
    ------
    ParameterError
        If the paths do not fit the search, nothing is measured on them, they are shorter than a
        horizon, or too few for a probability.
    """
    if paths is None:
        return None
    check_history(paths, market)
    check_use(validate)
    bounded = constraints if isinstance(constraints, Mapping) else {}
    names = sorted(find_names(objective) | {str(name) for name in bounded})
    measures = tuple(each for each in map(read_risk_name, names) if each is not None)
    if not measures:
        raise ParameterError(
            "with paths, an objective or a constraint must be measured on them, none is",
            where=Place("paths", of=WHERE),
            cure="write constraints={'p_liquidation_30d': '<= 0.01'}, or leave out the paths",
        )
    for each in measures:
        check_measure(paths, each)
    return PathRisk(
        paths,
        measures,
        signal=read_constant(signal),
        overlay=overlay,
        threads=threads,
        compile=compile,
    )


def check_history(paths: Paths, market: Market | Markets) -> None:
    """Refuse paths of other instruments than those of the search."""
    from backtest.risk import check_paths  # noqa: PLC0415 - only with paths

    found = check_paths(paths, where=Place("paths", of=WHERE)).names
    wanted = as_markets(market).names
    if found != wanted:
        raise ParameterError(
            f"paths must be of the market of the search, {', '.join(wanted)!r}, got paths of "
            f"{', '.join(found)!r}",
            where=Place("paths", of=WHERE),
            cure="simulate paths of the market, or the markets, of the search",
        )


def check_use(validate: str | None) -> None:
    """Refuse a validation: its folds have no paths."""
    if validate is not None:
        raise ParameterError(
            "a search with paths cannot be validated: the paths begin after the folds",
            where=Place(("paths", "validate"), of=WHERE),
            cure=Phrase("leave out {}", Argument("validate")),
        )


def check_measure(paths: Paths, measure: RiskMeasure) -> None:
    """Refuse a horizon beyond the paths, and a probability that they are too few for."""
    from backtest.risk import count_bars  # noqa: PLC0415 - only with paths
    from backtest.risk.liquidation.max_leverage import LEAST_HITS  # noqa: PLC0415

    if measure.kind != LARGEST:
        count_bars(paths, measure.horizon)
    elif not measure.probability * paths.count >= LEAST_HITS or measure.probability >= 1.0:
        raise ParameterError(
            f"{measure.name} needs a probability under 1, and paths times it to be at least "
            f"{LEAST_HITS}, got {measure.probability * paths.count:g}",
            where=Place("paths", of=WHERE),
            cure="simulate more paths",
        )


def read_constant(signal: Any) -> Any:
    """Return the signal on paths: a number, or one for each instrument; None for the default."""
    for each in list_values(signal):
        is_number = isinstance(each, int | float) and not isinstance(each, bool)
        if not is_number and signal is not None:
            raise ParameterError(
                "with paths, the signal must be a number, or a table of one for each instrument: "
                f"columns, frames and rules end with the data, got {each!r:.60}",
                where=Place("signal", of=WHERE),
                cure="give a number from -1 to 1, or {'BTCUSDT': 0.5, 'ETHUSDT': 0.5}",
            )
    return signal
