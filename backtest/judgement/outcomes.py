"""What came of forecasts that were saved, from data given later."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account import Account
from backtest.engine import Conditions
from backtest.judgement.judgement import Judgement
from backtest.market import Market
from backtest.policies import Policy
from backtest.policies.observing import is_ours
from backtest.results import hash_source
from backtest.risk.largest_leverage import MaxLeverage
from backtest.risk.leverage_sizes import scale_policy
from backtest.risk.liquidations import LiquidationRisk
from backtest.risk.margin_calibration import MarginCalibration, PastDays
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import simulate_paths
from backtest.risk.replays import find_lost, name_loss
from backtest.risk.scenarios import fix_margin_tables
from backtest.venue import Venue
from backtest.venue.margin_rules import DynamicMargin

ReadPolicy = Callable[[str], Any]
"""Returns the policy that a text names, as results have it."""
HELD = "one position, held"
"""What a search for the largest leverage says of a policy where it had none."""


@dataclass(frozen=True, kw_only=True)
class DatedForecast:
    """One probability that was forecast of one market, at a close ``made``, ns.

    ``why`` says why it cannot be scored; empty if it can be.
    """

    name: str
    instrument: str
    made: int
    horizon: str
    probability: float
    why: str = ""

    @property
    def due(self) -> int:
        """When its horizon ends, ns."""
        return self.made + core.parse_duration(self.horizon)

    def find(self, market: Market, read: ReadPolicy) -> bool:
        """Return whether what was forecast came, on a market that reaches over the horizon."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LossForecast(DatedForecast):
    """That a new account is lost, or with ``is_ruin_counted`` off that it is liquidated."""

    policy: str
    venue: Mapping[str, Any]
    account: Mapping[str, Any]
    signal: float | None = None
    size: float | None = None
    is_ruin_counted: bool = True
    source_hash: str = ""

    def find(self, market: Market, read: ReadPolicy) -> bool:
        """Return whether the account was lost, on the terms in force at the forecast."""
        policy: Any = None
        if self.policy != HELD:
            policy = read(self.policy)
            check_code(policy, self.source_hash)
        if self.size is not None:
            policy = scale_policy(policy, self.size)

        # The margin tables of the day of the forecast, not of the days after it.
        venue = Venue.from_dict(self.venue)
        fixed = fix_margin_tables({"": venue}, self.made)
        test = Conditions(
            market,
            venue=fixed[""],
            account=Account.from_dict(self.account),
            signal=self.signal,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.replay(market, policy, test)

    def replay(self, market: Market, policy: Any, test: Conditions) -> bool:
        """Return whether an account that is new at the close of the forecast was lost."""
        # The runner wants paths; what it simulates is history alone.
        paths = simulate_paths(market, "gbm", paths=1, horizon=self.horizon, funding=None)
        runner = PathsRunner(paths, policy, test)
        bar = find_close(market, self.made)
        if bar < runner.warm_up.known:
            raise core.DataError(
                f"columns of the policy are not known at {core.format_time(self.made)}: the "
                "data must begin earlier"
            )

        is_within = market.time + market.interval <= self.due
        last = int(is_within.sum()) - 1
        (is_lost,) = find_lost(
            runner,
            np.array([bar]),
            last - bar,
            is_ruin_counted=self.is_ruin_counted,
        )
        return bool(is_lost)


@dataclass(frozen=True, kw_only=True)
class ShortfallForecast(DatedForecast):
    """That a margin falls short within some days."""

    rule: Mapping[str, Any]
    parameter: str
    value: float
    venue: Mapping[str, Any]

    def find(self, market: Market, read: ReadPolicy) -> bool:  # noqa: ARG002 - as its base
        """Return whether the margin fell short in the window after the forecast."""
        rule = DynamicMargin.from_dict(self.rule).override({self.parameter: self.value})
        past = PastDays(market, Venue.from_dict(self.venue), rule)
        is_over, is_known = past.find_over(rule)

        is_inside = (past.days.time >= self.made) & (past.days.time < self.due)
        if not (is_inside & is_known).any():
            raise core.DataError(
                f"the margin is not known at {core.format_time(self.made)}: the data must begin "
                "earlier"
            )
        return bool(is_over[is_inside].any())


def check_code(policy: Policy, source_hash: str) -> None:
    """Raise DataError if a user's policy is not the code that a forecast was made with.

    ``source_hash`` is that of the forecast; of one that saved none nothing is known.
    """
    cls = type(policy)
    if source_hash and has_own_code(cls) and hash_source(cls) != source_hash:
        raise core.DataError(
            f"{cls.__name__} is not the code that the forecast was made with: give the file as "
            f"it was then, --policy FILE.py:{cls.__name__}"
        )


def has_own_code(cls: type[Policy]) -> bool:
    """Return whether a policy, or one inside it, is not of this package, which has a version."""
    return not is_ours(cls) or any(has_own_code(part.policy) for part in getattr(cls, "parts", ()))


def find_close(market: Market, made: int) -> int:
    """Return the bar that closes at a time; raises DataError if none does."""
    closes = market.time + market.interval
    bar = int(np.searchsorted(closes, made))
    if bar >= market.n_bars or int(closes[bar]) != made:
        raise core.DataError(f"no bar of the data closes at {core.format_time(made)} UTC")
    return bar


def list_forecasts(saved: Any) -> list[DatedForecast]:
    """Return the forecasts of a saved result, none of a kind that has none."""
    for kind, read in READERS.items():
        if isinstance(saved, kind):
            return [*read(saved)]
    return []


def list_losses(saved: LiquidationRisk) -> Iterator[DatedForecast]:
    """Yield the probabilities of loss of a risk result, by horizon, and why they have no score."""
    settings = saved.settings
    made = core.to_nanoseconds(settings["paths"]["start"])
    terms = read_terms(saved)

    # Of several reasons one is enough.
    why = terms.pop("why")
    if settings["resumed"] is not None:
        why = "its account went on from a saved result"
    if "default_rate" in settings:
        why = "it counts defaults of the venue, which no data have"

    for horizon, row in saved.table.iterrows():
        yield LossForecast(
            name=name_loss(str(horizon)),
            made=made,
            horizon=str(horizon),
            probability=float(row["probability"]),
            why=why,
            **terms,
        )


def list_sizes(saved: MaxLeverage) -> Iterator[DatedForecast]:
    """Yield the probability that an account of the largest leverage is liquidated."""
    drawn = next(iter(saved.settings["paths"].values()))
    terms = read_terms(saved)
    why = terms.pop("why")
    horizon = str(saved.settings["horizon"])
    yield LossForecast(
        name=f"{saved.grid.index.name} {saved.leverage:.3g} liquidated within {horizon}",
        made=core.to_nanoseconds(drawn["start"]),
        horizon=horizon,
        probability=float(saved.settings["probability"]),
        why=why,
        size=saved.leverage,
        is_ruin_counted=False,
        **terms,
    )


def list_shortfalls(saved: MarginCalibration) -> Iterator[DatedForecast]:
    """Yield the probability of a shortfall at the value of the parameter that was found."""
    settings = saved.settings
    value = float(settings["nearest"]["value"])
    yield ShortfallForecast(
        name=f"{saved.name} {value:.5g}: a shortfall within {settings['horizon']}",
        instrument=str(saved.manifest["data"]["instrument"]),
        made=core.to_nanoseconds(settings["paths"]["start"]),
        horizon=str(settings["horizon"]),
        probability=float(settings["shortfall"]),
        rule=settings["terms"],
        parameter=saved.name,
        value=value,
        venue=settings["venue"],
    )


def list_judged(saved: Judgement) -> Iterator[DatedForecast]:
    """Yield the probability of loss of each market that a judgement tested."""
    settings = saved.settings

    # Of one market the settings have the venue itself, of several a table of them.
    venues = settings["venue"]
    judged = [*settings["ends"]]
    if len(judged) == 1:
        venues = {judged[0]: settings["venue"]}
    why = ""
    if settings["tune"]:
        why = "it was re-optimized"

    for market, row in saved.survival.iterrows():
        if row["why"]:  # it was not tested
            continue
        horizon = str(row["horizon"])
        yield LossForecast(
            name=name_loss(horizon),
            instrument=settings["instruments"][market],
            made=core.to_nanoseconds(settings["ends"][market]),
            horizon=horizon,
            probability=float(row["probability"]),
            why=why,
            policy=str(settings["policy"]),
            venue=venues[market],
            account=settings["account"],
            signal=settings["directions"][market],
            source_hash=settings["policies"][market]["source_hash"],
        )


READERS: Mapping[type, Callable[[Any], Iterator[DatedForecast]]] = {
    LiquidationRisk: list_losses,
    MaxLeverage: list_sizes,
    MarginCalibration: list_shortfalls,
    Judgement: list_judged,
}
"""What yields the forecasts of each kind of results."""


def read_terms(saved: LiquidationRisk | MaxLeverage) -> dict[str, Any]:
    """Return the terms of the account of a result, and why it cannot be scored, if so."""
    settings = saved.settings
    instruments = saved.manifest["data"].get("instruments") or {}
    why = ""
    if settings["overlay"] is not None:
        why = "its account has an overlay"
    is_table = "fees" not in settings["venue"]  # of venues by instrument
    if is_table or len(instruments) > 1:
        why = "its account has several instruments"

    # Of a series the settings do not hold the values.
    signal = None
    if isinstance(settings["signal"], float | int):
        signal = settings["signal"]

    return {
        "instrument": str(saved.manifest["data"]["instrument"]),
        "policy": str(settings["policy"]),
        "venue": settings["venue"],
        "account": settings["account"],
        "signal": signal,
        "source_hash": settings.get("source_hash", ""),  # none before 0.2
        "why": why,
    }


class Outcome(NamedTuple):
    """What came of a forecast: ``came`` is None where it could not be scored, and ``why``."""

    forecast: DatedForecast
    came: bool | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast and what came of it, as data for JSON."""
        return {
            "instrument": self.forecast.instrument,
            "made": core.format_time(self.forecast.made),
            "due": core.format_time(self.forecast.due),
            "forecast": self.forecast.name,
            "told": self.forecast.probability,
            "came": self.came,
        }


def find_outcome(
    forecast: DatedForecast,
    markets: Mapping[str, Market],
    read: ReadPolicy,
) -> Outcome | None:
    """Return what came of a forecast; None where its horizon has not passed, or no data are it."""
    market = markets.get(forecast.instrument)
    if market is None or market.end < forecast.due:
        return None

    if forecast.why:
        return Outcome(forecast, None, forecast.why)

    try:
        return Outcome(forecast, forecast.find(market, read), "")
    except core.BacktestError as error:
        return Outcome(forecast, None, str(error).partition("\n")[0])
