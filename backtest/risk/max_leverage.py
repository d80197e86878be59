"""max_leverage(): the largest leverage that keeps a liquidation improbable."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    FloatArray,
    Head,
    Headline,
    ParameterError,
    Part,
    Range,
    SettingsResult,
    ShownChart,
    ShownTable,
    checked_only,
    count_nouns,
    format_chance,
    list_values,
    repr_plain,
    warn_caller,
)
from backtest.engine import Progress, read_venues
from backtest.market import Market, Markets
from backtest.policy import Combinator, Policy
from backtest.risk.liquidation_risk import (
    BETWEEN,
    RiskEstimate,
    count_bars,
    describe_each,
    estimate_plain,
    find_first,
    name_policies,
)
from backtest.risk.path_funding import summarize_funding
from backtest.risk.path_models import Drift, PathModel, describe_drift
from backtest.risk.paths import Paths, simulate_paths
from backtest.risk.paths_runner import (
    AnyPolicy,
    AnyVenue,
    PathsRunner,
    describe_shortfall,
    make_runner,
)
from backtest.venue import Venue, find_newest

USUAL_MODELS = ("filtered", "stationary", "garch", "gbm")
LEAST_HITS = 20
"""Expected liquidations below which paths are too few for a probability."""
SCANNED = 2000
"""Paths on which the grid is scanned."""
STEPS = 10
"""Bisections after the scan."""
LARGEST_FACTOR = 20.0


class HoldOnce(Policy):
    size: Annotated[float, Range(0.0, 1000.0, "turns of equity")] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - the signature of a formula
        if account.position != 0.0 or account.bars_since_liquidation < 1e300:
            return math.nan
        return self.size


class Scaled(Combinator):
    factor: Annotated[float, Range(0.0, 1000.0, "times")] = 1.0

    def combine(self, bar: Any, account: Any, asked: Any) -> Any:  # noqa: ARG002 - as above
        return self.factor * asked[0]


@dataclass(frozen=True, eq=False)
class MaxLeverage(SettingsResult):
    """Largest leverage, or factor on a policy, at a probability of liquidation.

    Attributes
    ----------
    table : DataFrame
        A row per model, and ``worst`` last: ``leverage`` (or the factor), ``p_liquidation`` at it
        with ``p_liquidation_low`` and ``p_liquidation_high``, ``is_monotone`` (whether the
        probability never fell along the scanned grid), ``is_limited`` (whether no leverage allowed
        by venue and account reaches the probability).
    grid : DataFrame
        The probability by leverage, a column per model, on the first 2,000 paths.
    settings : dict
        What the numbers come from.
    market : Market or None
        The history; None for a loaded result.
    """

    table: pd.DataFrame
    grid: pd.DataFrame
    settings: dict[str, Any]
    market: Market | Markets | None = None

    kind = "max-leverage"
    called = "largest leverage"
    table_names = ("table", "grid")

    @property
    def note(self) -> str:
        """The worst of the models."""
        return f"{self.leverage:.3g} at {self.settings['probability']:g}"

    @property
    def leverage(self) -> float:
        """The smallest over the models."""
        return float(self.table["leverage"].iloc[-1])

    @property
    def heading(self) -> str:
        """The title of the page."""
        chance = format_chance(self.settings["probability"])
        return f"Largest {self.grid.index.name} at {chance} in {self.settings['horizon']}"

    @property
    def notices(self) -> tuple[str, ...]:
        """What the account did not hold."""
        cautions = self.settings.get("cautions", ())
        return tuple(f"The account did not hold what was found, {each}." for each in cautions)

    @property
    def verdict(self) -> str:
        """The largest leverage, and over which models."""
        bound = format_chance(self.settings["probability"])
        return (
            f"Up to a {self.grid.index.name} of {self.leverage:.3g}, the account is liquidated "
            f"within {self.settings['horizon']} with a probability of at most {bound}, under the "
            f"worst of {count_nouns(len(self.table) - 1, 'model')}."
        )

    @property
    def details(self) -> str:
        """How to read the models, and their drift."""
        return (
            "The smallest over the models is the one to use: they differ in what they assume. "
            f"Their paths have {describe_drift(self._drawn)}."
        )

    @property
    def _drawn(self) -> Any:
        return next(iter(self.settings["paths"].values()))  # all models draw the same funding

    def list_numbers(self) -> list[Headline]:
        """Return the largest leverage."""
        return [
            Headline("leverage", f"largest {self.grid.index.name}", self.leverage,
                     note="worst model", better="more", text=f"{self.leverage:.3g}")
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        """Return the largest leverage by model, and the probability by size."""
        size = str(self.grid.index.name)
        heads = {
            "leverage": Head(size),
            "p_liquidation_low": Head("95 % interval", "", "chance", "p_liquidation_high"),
            "is_monotone": Head("rises with size throughout", "", "claim"),
            "is_limited": Head("the largest allowed", "", "claim"),
        }
        chart = ShownChart(
            "grid", "Probability by size", "On the first 2,000 paths of each model.", self.grid,
            x=size, y="probability", has_legend=True, height=320,
        )  # fmt: skip
        models = ShownTable(self.table, labels=Head("model"), heads=heads)
        funding = summarize_funding(self._drawn.get("funding_fit", {}))
        lead = "All sizes see the same paths."
        return [Part("models", "By model", lead, (models, chart, *funding), shows="both")]

    def __repr__(self) -> str:
        chance = self.settings["probability"]
        return f"<MaxLeverage {self.leverage:.3g} at {chance:g} in {self.settings['horizon']}>"


@checked_only("compile", "progress", "overlay", "market")
def max_leverage(  # noqa: PLR0913 - by name, as in bt.run
    market: Market | Markets,
    policy: AnyPolicy | None = None,
    *,
    venue: AnyVenue,
    account: Account,
    probability: float = 0.01,
    horizon: str = "30d",
    models: Sequence[str | PathModel | type[PathModel]] = USUAL_MODELS,
    paths: int = 10_000,
    seed: int = 0,
    drift: Drift | None = None,
    signal: float | Mapping[str, float] | None = None,
    overlay: Policy | None = None,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> MaxLeverage:
    """Return the largest leverage whose probability of liquidation stays within a bound.

    Parameters
    ----------
    market : Market or Markets
        The history from whose end paths go on.
    policy : Policy, optional
        By default, a position that is opened once at the leverage and kept; of several instruments
        one in each, at the leverage times its weight. Otherwise the result is the largest factor on
        the leverage of this policy, or of those of all instruments.
    venue, account : Venue, Account
        As in :func:`backtest.run`; the leverage stays within their limits.
    probability : float
        The bound, in (0, 1); paths times this must be at least 20.
    horizon : str
        The time within which liquidations count.
    models : sequence
        Models of paths, as :func:`backtest.simulate_paths` takes them. The row ``worst`` is the
        smallest over them: how far models differ is part of the answer.
    paths, seed, drift, threads, compile, progress
        As in :func:`backtest.simulate_paths` and :func:`backtest.liquidation_risk`.
    signal, overlay
        As in :func:`backtest.liquidation_risk`.

    Returns
    -------
    MaxLeverage

    Warns
    -----
    UserWarning
        If the account fills no order at the leverage found, or limits cut it to less.

    Raises
    ------
    ParameterError
        If an argument is not allowed.

    Notes
    -----
    All leverages see the same paths. A grid is scanned upwards to the first that exceeds the bound;
    then the gap is bisected. Above the result the probability may fall again, if a policy cuts its
    position; ``is_monotone`` says so.
    """
    chance = BETWEEN.check("probability", probability)
    if isinstance(models, str) or not isinstance(models, Sequence) or not len(models):
        raise ParameterError(
            f"models must be a list with at least one model, got {repr_plain(models)}"
        )
    drawn = [
        simulate_paths(market, each, paths=paths, horizon=horizon, seed=seed, drift=drift)
        for each in models
    ]
    if not chance * paths >= LEAST_HITS:
        raise ParameterError(
            f"paths must be at least {math.ceil(LEAST_HITS / chance)} for the probability "
            f"{chance:g}, got {paths}"
        )
    terms: dict[str, Any] = {"venue": venue, "account": account, "signal": signal,
                             "overlay": overlay, "compile": compile}  # fmt: skip
    sizes = choose_grid(policy, venue, account, drawn[0])
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, list[float]] = {}
    cautions: dict[str, list[str]] = {}
    for done, each in enumerate(drawn, 1):
        scan = LeverageScan(each, policy, horizon, threads, terms)
        name = type(each.model).__name__.lower()
        name = f"{name} {len(rows) + 1}" if name in rows else name
        rows[name], columns[name] = scan.search(sizes, chance)
        best = rows[name]["leverage"]
        if best > 0.0 and (caution := describe_shortfall(scan.make_runner(best))):
            cautions.setdefault(caution, []).append(name)
        if progress is not None:
            progress(done, len(drawn))
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="model"))
    table.loc["worst"] = table.iloc[int(np.argmin(table["leverage"].to_numpy()))]
    label = "leverage" if policy is None else "factor"
    settings = {
        "policy": name_policies(policy) if policy is not None else "one position, held",
        "venue": describe_each(venue, lambda each: each.to_dict()),
        "overlay": None if overlay is None else repr(overlay),
        "account": account.to_dict(),
        "probability": chance,
        "horizon": horizon,
        "signal": signal,
        "paths": {name: each.describe() for name, each in zip(rows, drawn, strict=True)},
    }
    for caution, names in cautions.items():
        said = f"{', '.join(names)}: {caution}"
        settings.setdefault("cautions", []).append(said)
        warn_caller(f"the account did not hold the {label} found for {said}", UserWarning)
    grid = pd.DataFrame(columns, index=pd.Index(sizes, name=label))
    return MaxLeverage(table, grid, settings, market)


def choose_grid(
    policy: AnyPolicy | None, venue: AnyVenue, account: Account, paths: Paths
) -> FloatArray:
    """Return the sizes that are scanned: factors, or leverages that venue and account allow."""
    if policy is not None:
        return np.geomspace(0.1, LARGEST_FACTOR, 16)
    venues = [*read_venues(venue, paths.markets).values()]
    most = min(1000.0, *(max(row.max_leverage for row in each.brackets) for each in venues))
    if len(venues) == 1:
        (own,) = venues
        first = own.in_use(paths.calendar.time[:1])[0]
        most = min(most, find_most_held(own.with_table(first), account))
    for limit in (account.max_leverage, account.venue_leverage):
        most = min([most, *(each for each in list_values(limit) if isinstance(each, int | float))])
    return np.geomspace(min(0.5, 0.5 * most), most, 16)


def find_most_held(venue: Venue, account: Account) -> float:
    cost = find_newest(venue.fees.taker) + find_newest(venue.slippage.rate)
    return max(
        min(row.cap / account.capital, row.max_leverage / (1.0 + cost * row.max_leverage))
        for row in venue.brackets
    )


@dataclass(frozen=True)
class LeverageScan:
    """The probability of a liquidation by size, on the same paths; ``terms`` are of a runner."""

    paths: Paths
    policy: AnyPolicy | None
    horizon: str
    threads: int
    terms: Mapping[str, Any]

    def make_runner(self, size: float) -> PathsRunner:
        scaled: Any = Scaled  # a combinator takes its policies first
        held: AnyPolicy = HoldOnce(size=size)
        if isinstance(self.policy, Mapping):
            held = {name: scaled(each, factor=size) for name, each in self.policy.items()}
        elif self.policy is not None:
            held = scaled(self.policy, factor=size)
        return make_runner(self.paths, held, **self.terms)

    def estimate(self, size: float, count: int) -> RiskEstimate:
        bars = count_bars(self.paths, self.horizon)
        hits = [
            find_first(lives.liquidations[:, :bars]) < bars
            for lives in self.make_runner(size).run_chunks(count=count, threads=self.threads)
        ]
        return estimate_plain(np.concatenate(hits).astype(np.float64), 0.95)

    def search(self, sizes: FloatArray, chance: float) -> tuple[dict[str, Any], list[float]]:
        """Return the row of the largest size, and the probability by size on the first paths."""
        scanned = min(SCANNED, self.paths.count)
        grid = [self.estimate(float(size), scanned).value for size in sizes]
        over = np.flatnonzero(np.array(grid) > chance)
        best, found = self.bisect(sizes, int(over[0]) if over.size else len(sizes) - 1, chance)
        row = {
            "leverage": best,
            "p_liquidation": found.value,
            "p_liquidation_low": found.low,
            "p_liquidation_high": found.high,
            "is_monotone": bool(np.all(np.diff(grid) >= 0.0)),
            "is_limited": best == sizes[-1],
        }
        return row, grid

    def bisect(self, sizes: FloatArray, k: int, chance: float) -> tuple[float, RiskEstimate]:
        """Return the edge next to size k on all paths; the first ones may have it elsewhere."""
        estimate = functools.cache(lambda size: self.estimate(size, self.paths.count))
        grid = [0.0, *map(float, sizes)]
        at = k + 1
        while at < len(grid) and estimate(grid[at]).value <= chance:
            at += 1
        if at == len(grid):
            return grid[-1], estimate(grid[-1])
        while at > 1 and estimate(grid[at - 1]).value > chance:
            at -= 1
        low, high = grid[at - 1], grid[at]
        for _ in range(STEPS):
            middle = math.sqrt(low * high) if low > 0.0 else 0.5 * high
            low, high = (middle, high) if estimate(middle).value <= chance else (low, middle)
        return low, estimate(low)
