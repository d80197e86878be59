"""bands(): what an account could have done, on resampled bars of the market of its run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import _compile, core, engine
from backtest.core.fields import INNER_SHARE
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.indicators import log_returns
from backtest.market import Market, Markets, find_clock
from backtest.market.markets import remake
from backtest.results import performance, run_record
from backtest.results.settings_result import SettingsResult
from backtest.risk import path_kernels, path_models
from backtest.risk.funding_process import find_grid
from backtest.risk.scores import estimate

if TYPE_CHECKING:
    from backtest.results import Result

PRICES = (
    "open",
    "high",
    "low",
    "close",
    "mark_open",
    "mark_high",
    "mark_low",
    "mark_close",
)
QUANTILES = {"low": 0.05, "median": 0.5, "high": 0.95}
MEASURES = ("total_return", "cagr", "max_drawdown", "under_water", "sharpe")
WORDS = {
    "total_return": "return", "cagr": "CAGR", "max_drawdown": "worst drawdown",
    "under_water": "longest time under water, days", "sharpe": "Sharpe",
}  # fmt: skip
ACCOUNT = "account"
RETURNS = "returns"
FAN_POINTS = 200
"""Most times of the chart."""
SAME = 1e-9
"""Share of the capital by which the run that is repeated on its own bars may differ from it."""


class Rows(NamedTuple):
    """Which bars of the run a path may repeat.

    ``phases`` (n_bars,) number what the time of a bar is in the interval of funding and decisions,
    -1 for a bar that none may repeat: those up to ``first``, with which the run begins. ``order``
    lists the others by phase, ``starts`` and ``counts`` say where each phase lies there.
    """

    first: int
    phases: core.IntArray
    order: core.IntArray
    starts: core.IntArray
    counts: core.IntArray

    def draw(
        self,
        block: float,
        seed: int,
        number: int,
    ) -> core.IntArray:
        """Return the bar of the run that each bar of path ``number`` repeats, (n_bars,).

        Blocks have geometric lengths, as in the stationary bootstrap. One that runs over the end
        goes on at the first bar of its phase.
        """
        n = len(self.phases)
        n_drawn = n - self.first - 1
        key = np.array([seed, number], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key))
        uniforms = generator.random((n_drawn, 1, 2))
        rows = np.empty((1, len(uniforms)), np.int64)
        _compile.compile_module(path_kernels).repeat_rows(
            uniforms,
            find_places(self)[self.first + 1 :],
            np.append(self.phases, -1),
            self.order,
            self.counts,
            self.starts,
            np.zeros(n),  # no variance is followed
            np.array([block, 1.0, 1.0, 1.0]),
            rows,
            np.empty(rows.shape),
        )
        as_run = np.arange(self.first + 1)
        return np.concatenate([as_run, rows[0]])


def find_places(rows: Rows) -> core.IntArray:
    """Return the phases of all bars of a path; none is drawn before the first ones."""
    return np.where(rows.phases < 0, 0, rows.phases)


def list_rows(markets: Markets, first: int) -> Rows:
    """Return the bars that a path may repeat, which are those after ``first``, by their phase.

    A bar is repeated only where another of its phase stood. So funding is paid, and policies
    decide, at the same bars of a path as of the run: the phase is the time of a bar in the shortest
    interval that all of these fit into.
    """
    intervals = [markets.interval, markets.decision_interval or markets.interval]
    for market in markets.values():
        grid = find_grid(market)
        if grid is not None:
            intervals.append(grid.every)
    if markets.sessions and markets.interval < DAY:  # a session's first bar has the gap of a night
        intervals.append(DAY)
    time_in_interval = markets.time % math.lcm(*intervals)

    # Phases are numbered in the order of time; the bars up to ``first`` have none.
    known, phases_after = np.unique(time_in_interval[first + 1 :], return_inverse=True)
    none_before = np.full(first + 1, -1)
    phases = np.concatenate([none_before, phases_after])

    # In the order by phase the bars without one come first.
    counts = np.bincount(phases_after, minlength=len(known))
    return Rows(
        first=first,
        phases=phases,
        order=np.argsort(phases, kind="stable"),
        starts=first + 1 + np.cumsum(counts) - counts,
        counts=counts,
    )


def find_settlements(
    market: Market,
    rows: core.IntArray,
    jitter: int,
) -> tuple[core.IntArray, core.IntArray]:
    """Return ``(settlement, place)`` of all settlements in the bars that ``rows`` repeat.

    ``settlement`` are places among those of the market, one for each time that it is repeated, and
    ``place`` the place in ``rows`` of the bar that repeats it. One just before an open, by
    ``jitter`` ns at most, belongs to the bar that opens.
    """
    opens = market.time - jitter
    bar = np.searchsorted(opens, market.funding_time, side="right") - 1

    # The settlements of a bar follow one another: where they begin, and how many there are.
    firsts = np.searchsorted(bar, rows, side="left")
    ends = np.searchsorted(bar, rows, side="right")
    counts = ends - firsts
    place = np.repeat(np.arange(len(rows)), counts)

    # Each counts from the first one of its bar: 0, 1, 0, 0, 1, 2 of bars with 2, 1 and 3.
    n_before = np.cumsum(counts) - counts
    within_bar = np.arange(len(place)) - np.repeat(n_before, counts)
    return firsts[place] + within_bar, place


def resample_market(
    market: Market,
    rows: core.IntArray,
    jitter: int,
) -> Market:
    """Return a market whose bars repeat the bars ``rows`` (n_bars,) of this one.

    All prices of a bar are multiplied by one factor, so that its moves from the close before stay
    what they were. Volumes, columns and settlements are those of the bar that is repeated.
    """
    # Each bar moves from the close before it, in the new order, as it did in the run. So its prices
    # are multiplied by the new close before it over the one in the run.
    rows_before = np.maximum(rows - 1, 0)
    moves = market.close[rows] / market.close[rows_before]
    moves[0] = 1.0
    close = market.close[0] * np.cumprod(moves)
    close_before_in_run = market.close[rows_before[1:]]
    factor = np.concatenate([[1.0], close[:-1] / close_before_in_run])

    # Up to the first bar that is drawn the bits are those of the run.
    is_in_place = rows == np.arange(len(rows))
    is_of_run = np.cumprod(is_in_place) == 1
    factor[is_of_run] = 1.0

    fields = market.fields()
    for name in PRICES:
        fields[name] = fields[name][rows] * factor
    columns = market.columns.items()
    fields["volume"] = market.volume[rows]
    fields["columns"] = {name: values[rows] for name, values in columns}

    # Settlements move in time with the bars that they belong to.
    settlement, place = find_settlements(market, rows, jitter)
    later = market.time - market.time[rows]
    fields["funding_time"] = market.funding_time[settlement] + later[place]
    fields["funding_rate"] = market.funding_rate[settlement]
    fields["funding_mark"] = market.funding_mark[settlement] * factor[place]
    fields["filled"] = {}
    fields["source"] = f"resampled {market.source}"
    return Market(**fields)


class Resampler:
    """Makes the markets of a run anew, and takes its account through them."""

    def __init__(self, result: Result, block: float | None, seed: int) -> None:
        self.setup = find_setup(result)
        markets = self.setup.markets
        first = self.setup.first
        check_markets(markets, first)
        self.rows = list_rows(markets, first)
        if block is None:
            returns = [log_returns(market)[first + 1 :] for market in markets.values()]
            block = max(map(path_models.block_length, returns))
        self.block = block
        self.seed = seed

        # A jitter of more than a quarter of a bar would move settlements into other bars.
        most = markets.interval // 4
        self.jitters = {}
        for name in markets.names:
            jitter = core.parse_duration(self.setup.venues[name].funding_jitter)
            self.jitters[name] = min(jitter, most)
        collateral = self.setup.account.collateral
        self.assets = [align_prices(asset, markets) for asset in collateral]

    def draw(self, number: int) -> core.IntArray:
        """Return the bar of the run that each bar of a path repeats."""
        return self.rows.draw(self.block, self.seed, number)

    def resample(self, rows: core.IntArray) -> engine.Setup:
        """Return the setup of the account on resampled markets; its signal comes with the bars."""
        setup = self.setup
        resampled = {}
        for name, market in setup.markets.items():
            resampled[name] = resample_market(market, rows, self.jitters[name])
        markets = remake(setup.markets, resampled)
        weights = setup.signal
        if weights.shape[1] > 1:
            weights = np.ascontiguousarray(weights[:, rows])

        clock = find_clock(markets)
        observed = engine.observe_policies(
            setup.policies,
            setup.overlay,
            clock.seen,
            setup.venues,
            clock.pick(weights),
            is_checked=False,
        )
        return setup.change(
            markets=markets,
            signal=weights,
            observed=observed,
            account=self._resample_collateral(rows),
            benchmark=None,
        )

    def _resample_collateral(self, rows: core.IntArray) -> Any:
        """Return the account with the prices of its collateral on the same bars."""
        account = self.setup.account
        if not self.assets:
            return account

        collateral = []
        for asset, prices in zip(account.collateral, self.assets, strict=True):
            if prices is None:
                collateral.append(asset)
            else:
                drawn = resample_market(prices, rows, 0)
                collateral.append(replace(asset, prices=drawn))

        return replace(account, collateral=collateral)

    def run(self, rows: core.IntArray, how: engine.Compile) -> Any:
        """Return the outcome of the account on resampled markets."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run gave them
            setup = self.resample(rows)
            return engine.run_account(setup, is_compiled=how, progress=None)


def find_setup(result: Result) -> engine.Setup:
    """Return what a run began with; refuse one that cannot begin again."""
    if result.setup is None or result.markets is None:
        raise core.ParameterError(
            "bands need the market and the policy of the run, which a loaded result does not hold: "
            "bt.Backtest.of(result, market=...).run(policy).bands()"
        )
    setup: engine.Setup = result.setup
    if result.started != int(setup.markets.time[setup.first]):
        raise core.ParameterError(
            "bands need a run from its start, got one that went on from "
            f"{core.format_time(int(setup.markets.time[setup.first]))} UTC (resume=); run it whole"
        )
    return setup


def check_markets(markets: Markets, first: int) -> None:
    """Refuse markets that cannot be resampled: options, bars of single instruments, few bars."""
    if markets.options:
        raise core.ParameterError(
            f"resampled markets have no prices of options, got {next(iter(markets.options))!r}; "
            "use bt.stress for accounts that hold them"
        )
    for name, (begin, stop) in zip(markets.names, markets.spans.tolist(), strict=True):
        if begin > 0 or stop < markets.n_bars:
            raise core.DataError(
                "bars that are repeated together are those that all instruments have, got "
                f"{stop - begin:,} of {markets.n_bars:,} of {name}; run on markets.slice(...) or "
                "markets.select(...)"
            )
    if markets.n_bars - first - 1 < path_models.LEAST_SQUARES + 1:
        raise core.DataError(
            f"bands need at least {path_models.LEAST_SQUARES + 2} bars of a run, got "
            f"{markets.n_bars - first}"
        )


def align_prices(asset: Any, markets: Markets) -> Market | None:
    """Return the prices of a collateral at the bars of the markets; None if they are constant."""
    if not isinstance(asset.prices, Market):
        return None
    prices = asset.prices

    # The bars of the prices from the first of the markets on: as many as these have.
    begin = int(np.searchsorted(prices.time, markets.time[0]))
    end = min(begin + markets.n_bars, prices.n_bars)
    prices = prices.slice(begin, end)
    if not np.array_equal(prices.time, markets.time):
        raise core.DataError(
            f"prices of the collateral {asset.name} must have the bars of the market, which are "
            "resampled together"
        )
    return prices


def measure_unit(result: Result, unit: core.FloatArray) -> dict[str, float]:
    """Return the measures of a unit value at closes, 1 at the start, (n_bars,), as a run has them.

    ``under_water`` is the longest time in days from a peak to the next higher close, or to the end.
    """
    span = result.span
    returns = performance.sampled_returns(unit, result.ends_sample, 1.0)
    excess = returns - result.samples.risk_free
    mean = float(np.mean(excess))
    deviation = math.nan
    if len(excess) > 1:
        deviation = float(np.std(excess, ddof=1))
    (sharpe,) = performance.annualize_ratios(
        np.array([mean]),
        np.array([deviation]),
        span.periods,
    )

    # Times of peaks, and the end: the longest gap is the longest time under water.
    values = np.concatenate([[1.0], unit])
    peak = np.maximum.accumulate(values)
    time = np.concatenate([[span.start], span.closes])
    highs = np.append(time[values >= peak], time[-1])
    under_water = float(np.max(np.diff(highs)))
    last = float(unit[-1])
    return {
        "total_return": last - 1.0,
        "cagr": performance.find_growth_rate(last, span.years),
        "max_drawdown": float(np.max(1.0 - values / peak)),
        "under_water": under_water / DAY,
        "sharpe": float(sharpe),
    }


def find_first_passage(
    unit: core.FloatArray,
    loss: float,
    goal: float | None,
) -> str:
    """Return which a unit value reaches first at a close: ``"loss"``, ``"goal"`` or neither.

    What is met to rounding is met.
    """
    lowest = (1.0 - loss) * (1.0 + 1e-12)
    is_lost = unit <= lowest
    is_won = np.zeros(len(unit), np.bool_)
    if goal is not None:
        is_won = unit >= (1.0 + goal) * (1.0 - 1e-12)

    reached = np.flatnonzero(is_lost | is_won)
    if not len(reached):
        return ""
    if is_lost[reached[0]]:
        return "loss"
    return "goal"


@dataclass(frozen=True, eq=False, repr=False)
class Bands(SettingsResult):
    """What the account of a run could have done, on resampled bars of its market.

    Attributes
    ----------
    table : DataFrame
        By ``source``, ``account`` (which trades on the resampled markets) and ``returns`` (of the
        run, resampled themselves), and measure: ``low``, ``median`` and ``high``, the quantiles of
        5, 50 and 95 %, and ``run``, what the run had. Fractions; ``under_water`` in days.
    chances : DataFrame
        By event, ``liquidated``, ``loss`` and ``goal``: the share of accounts, ``low`` and ``high``
        (95 %, of the number of paths alone), and that of resampled ``returns``, NaN of
        liquidations.
    fan : DataFrame
        By time, the quantiles of the value over that at the start, of both sources.
    paths : DataFrame
        By path, the measures of the account and, with ``returns_`` in front, of the returns.
    """

    table: pd.DataFrame
    chances: pd.DataFrame
    fan: pd.DataFrame
    paths: pd.DataFrame

    kind = "bands"
    called = "bands"
    plural = "bands"
    resampler: Any = None

    def to_frame(self) -> pd.DataFrame:
        """Return the quantiles as one table, by measure, with both sources side by side."""
        frame: Any = self.table.unstack(0)
        return pd.DataFrame(frame)

    def market_of(self, number: int) -> Market | Markets:
        """Return the market, or the markets, of a path; not of a loaded result."""
        if self.resampler is None:
            raise core.ParameterError("a loaded result has no markets; call result.bands() again")
        count = int(self.settings["n"])
        if not 0 <= number < count:
            raise core.ParameterError(f"number must be one of 0 to {count - 1}, got {number}")

        rows = self.resampler.draw(number)
        setup: engine.Setup = self.resampler.resample(rows)
        (*markets,) = setup.markets.values()
        if len(markets) == 1:
            return markets[0]
        return setup.markets

    @property
    def note(self) -> str:
        row: Any = self.table.loc[(ACCOUNT, "total_return")]
        low = core.format_percent(float(row["low"]))
        high = core.format_percent(float(row["high"]))
        return f"{low} to {high}"

    @property
    def verdict(self) -> str:
        row: Any = self.table.loc[(ACCOUNT, "total_return")]
        returns = {name: core.format_percent(float(row[name])) for name in (*QUANTILES, "run")}
        share: Any = self.chances.loc["liquidated", ACCOUNT]
        liquidated = "none is liquidated"
        if share > 0.0:
            liquidated = f"{core.format_chance(float(share))} are liquidated"
        return (
            f"On resampled markets 90 % of accounts return {returns['low']} to {returns['high']}, "
            f"half of them over {returns['median']}; {liquidated}. The run returned "
            f"{returns['run']}."
        )

    @property
    def details(self) -> str:
        return (
            f"{self.settings['n']:,} paths repeat bars of the run in blocks of "
            f"{self.settings['block']:.3g} bars on average (stationary bootstrap), prices, marks, "
            "funding and signal together; so they have its drift. Each is traded by the same "
            "policy. "
            "Resampled returns of the run (gray) keep the leverage and the liquidations that it "
            "had, wherever they fall: a liquidation cannot be shuffled, for it ends or changes "
            "all that comes after."
        )

    def list_numbers(self) -> list[Headline]:
        shares = self.chances[ACCOUNT]
        numbers = []
        for name, words in self.name_events().items():
            share = float(shares[name])
            numbers.append(Headline(f"p_{name}", words, share, "percent", "of accounts"))

        for name in self.list_measures_shown():
            row: Any = self.table.loc[(ACCOUNT, name)]
            style = "percent"
            if name in {"sharpe", "under_water"}:
                style = "decimals"

            note = f"median; the run {format_measure(name, float(row['run']))}"
            median = float(row["median"])
            numbers.append(Headline(name, WORDS[name], median, style, note))

        return numbers

    def list_measures_shown(self) -> list[str]:
        """Return the measures of the table; growth per year from 90 days on."""
        known = self.table.index
        return [name for name in MEASURES if (ACCOUNT, name) in known]

    def name_events(self) -> dict[str, str]:
        """Return the words of the rows of ``chances``."""
        loses = f"loses {100.0 * self.settings['loss']:g} %"
        goal = self.settings["goal"]
        if goal is None:
            return {"liquidated": "liquidated", "loss": loses}
        return {
            "liquidated": "liquidated",
            "loss": f"{loses} first",
            "goal": f"gains {100.0 * goal:g} % first",
        }

    def list_parts(self) -> list[Part]:
        heads = {
            name: Head(name, core.format_percent(share, 0)) for name, share in QUANTILES.items()
        }
        heads["run"] = Head("the run")
        chance = {
            ACCOUNT: Head("of accounts", style="chance"),
            "low": Head("95 % interval", "", "chance", "high"),
            RETURNS: Head("returns resampled", style="chance"),
        }
        events = self.chances.rename(index=self.name_events())
        return [
            Part(
                key="bands",
                title="What it could have done",
                lead="",
                blocks=(
                    self._chart_fan(),
                    ShownTable(self._list_rows(), "Measures", labels=Head("measure"), heads=heads),
                    ShownTable(
                        events,
                        "Shares of accounts",
                        labels=Head("an account"),
                        heads=chance,
                    ),
                ),
                shows="both",
            )
        ]

    def _list_rows(self) -> dict[str, dict[str, str]]:
        """Return the rows of the measures, of accounts and of resampled returns, as texts."""
        rows = {}
        columns = (*QUANTILES, "run")
        sources = ((ACCOUNT, ""), (RETURNS, ", returns resampled"))
        for name in self.list_measures_shown():
            for source, words in sources:
                row: Any = self.table.loc[(source, name)]
                texts = {}
                for column in columns:
                    texts[column] = format_measure(name, float(row[column]))
                rows[f"{WORDS[name]}{words}"] = texts

        return rows

    def _chart_fan(self) -> ShownChart:
        colors = {}
        dotted = []
        for name in map(str, self.fan):
            colors[name] = "neutral"
            if name.startswith(ACCOUNT):
                colors[name] = "accent"
            if not name.endswith("median"):
                dotted.append(name)

        return ShownChart(
            key="fan",
            title="Value over that at the start",
            caption="Medians, and 5 to 95 % (dotted).",
            table=self.fan,
            kind="line",
            colors=colors,
            has_legend=True,
            height=380,
            dotted=tuple(dotted),
        )


def format_measure(name: str, value: float) -> str:
    """Return a measure as text: a percentage, or a number of days or deviations."""
    if name in {"sharpe", "under_water"}:
        return core.format_number(value)
    return core.format_percent(value)


@core.record_making
@core.checked_only("compile", "progress")
def bands(
    result: Result,
    n: int = 1000,
    *,
    seed: int = 0,
    block: float | None = None,
    loss: float = 0.5,
    goal: float | None = None,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: core.Progress | None = None,
) -> Bands:
    """Answer :meth:`backtest.Result.bands`, which documents it."""
    count = int(core.Range(2, 10**6).check("n", n, whole=True))
    core.Range(0, 2**62).check("seed", seed, whole=True)
    loss = INNER_SHARE.check("loss", loss)
    if goal is not None:
        goal = core.Real(0.0, open_low=True).check("goal", goal)
    if block is not None:
        block = core.Real(1.0).check("block", block)

    resampler = Resampler(result, block, int(seed))
    setup = resampler.setup
    how: engine.Compile = bool(compile)
    if compile and not engine.is_plain_sooner(count * setup.markets.n_bars):
        how = "now"  # the bars of all paths together are worth the time it takes
    check_repeated(resampler, result, how)

    first_unit = float(result.tally.first_unit)
    unit_of_run = np.asarray(result.of_account("unit")) / first_unit
    before = np.concatenate([[1.0], unit_of_run[:-1]])
    growth = performance.divide(unit_of_run, before)

    # The unit value of each path, simulated, and by the returns of the run in another order.
    rows: list[dict[str, float]] = []
    units = np.empty((count, len(unit_of_run)), np.float32)
    shuffled = np.empty((count, len(unit_of_run)), np.float32)
    events: list[PathEvent] = []
    for k in range(count):
        path = simulate_path(resampler, result, k, growth, how)
        rows.append(path.measures)
        units[k] = path.unit
        shuffled[k] = path.returns
        event = PathEvent(
            path.is_liquidated,
            reached=find_first_passage(path.unit, loss, goal),
            reached_by_returns=find_first_passage(path.returns, loss, goal),
        )
        events.append(event)
        core.report_progress(progress, k + 1, count)

    paths = pd.DataFrame(rows).rename_axis("path")
    settings = {
        "policy": result.title,
        "n": count,
        "seed": int(seed),
        "block": resampler.block,
        "loss": loss,
        "goal": goal,
        "run": result.manifest["id"],
        "start": core.format_time(result.span.start),
    }
    return Bands(
        table=tabulate_measures(result, paths, unit_of_run),
        chances=tabulate_events(events, goal),
        fan=tabulate_fan(result, units, shuffled),
        paths=paths,
        settings=settings,
        market=result.markets,
        resampler=resampler,
    )


class PathEvent(NamedTuple):
    """What happened on a path: was the account liquidated, and what was reached first.

    The account and the resampled returns reach ``"loss"``, ``"goal"`` or neither, ``""``.
    """

    is_liquidated: bool
    reached: str
    reached_by_returns: str


class SimulatedPath(NamedTuple):
    """What a path makes of the account of a run, and of its returns; values are 1 at the start.

    ``unit`` and ``returns`` (n_bars,) are the values of the account and of the returns of the run,
    repeated as the path has it; ``measures`` are those of both.
    """

    measures: dict[str, float]
    unit: core.FloatArray
    returns: core.FloatArray
    is_liquidated: bool


def simulate_path(
    resampler: Resampler,
    result: Result,
    number: int,
    growth: core.FloatArray,
    how: engine.Compile,
) -> SimulatedPath:
    """Run the account on path ``number``; ``growth`` (n_bars,) is that of the unit in the run."""
    bars = resampler.draw(number)
    outcome = resampler.run(bars, how)
    unit = outcome.record.account.unit / float(result.tally.first_unit)
    measures = measure_unit(result, unit)
    if outcome.tally.ruin >= 0:
        measures["cagr"] = -1.0

    # The returns of the run itself, in the order of the bars.
    first = resampler.setup.first
    repeated = bars[first:] - first
    returns = np.asarray(np.cumprod(growth[repeated]), dtype=np.float64)
    for name, value in measure_unit(result, returns).items():
        measures[f"{RETURNS}_{name}"] = value

    is_liquidated = bool(outcome.tally.money.liquidations > 0.0)
    return SimulatedPath(measures, unit, returns, is_liquidated)


def check_repeated(
    resampler: Resampler,
    result: Result,
    how: engine.Compile,
) -> None:
    """Refuse a run that its own bars do not give again: one whose policies changed on the way."""
    all_bars = np.arange(resampler.setup.markets.n_bars)
    outcome = resampler.run(all_bars, how)
    before = float(result.of_account("equity")[-1])
    after = float(outcome.record.account.equity[-1])
    scale = max(abs(before), result.account.capital)
    if not abs(after - before) <= SAME * scale:
        raise core.ParameterError(
            "bands need a run of the same policies throughout, which its own bars give again: it "
            f"ended at {core.format_money(before)}, again at {core.format_money(after)}"
        )


def tabulate_measures(
    result: Result,
    paths: pd.DataFrame,
    own: core.FloatArray,
) -> pd.DataFrame:
    """Return the quantiles of each measure by source, and that of the run, ``own`` (n_bars,)."""
    days = (int(result.span.closes[-1]) - result.span.start) / DAY
    of_run = measure_unit(result, own)
    if result.metrics["ruined"]:
        of_run["cagr"] = -1.0

    rows = {}
    prefixes = {ACCOUNT: "", RETURNS: f"{RETURNS}_"}
    for source, prefix in prefixes.items():
        for name in MEASURES:
            if name == "cagr" and not run_record.shows_growth(days):
                continue

            values = paths[f"{prefix}{name}"].dropna().to_numpy()
            row = dict.fromkeys(QUANTILES, math.nan)
            if len(values):
                for column, share in QUANTILES.items():
                    row[column] = float(np.quantile(values, share))
            rows[source, name] = {**row, "run": of_run[name]}

    index = pd.MultiIndex.from_tuples(rows, names=["source", "measure"])
    return pd.DataFrame(list(rows.values()), index=index)


def tabulate_events(events: Sequence[PathEvent], goal: float | None) -> pd.DataFrame:
    """Return the share of accounts with each event, its interval, and that of returns.

    ``events`` has one for each path. Returns have no liquidations of their own: NaN.
    """
    n = len(events)
    n_liquidated = sum(event.is_liquidated for event in events)
    rows = {"liquidated": describe_event(n_liquidated, n, math.nan)}

    names = ["loss"]
    if goal is not None:
        names.append("goal")
    for name in names:
        n_accounts = sum(event.reached == name for event in events)
        n_returns = sum(event.reached_by_returns == name for event in events)
        rows[name] = describe_event(n_accounts, n, n_returns / n)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("event")


def describe_event(
    n_hit: int,
    n: int,
    share_of_returns: float,
) -> dict[str, float]:
    """Return the row of an event that ``n_hit`` of n accounts have: a share and its interval."""
    share, low, high = estimate(n_hit, n, 0.95)
    return {
        ACCOUNT: share,
        "low": low,
        "high": high,
        RETURNS: share_of_returns,
    }


def tabulate_fan(result: Result, values: Any, shuffled: Any) -> pd.DataFrame:
    """Return the quantiles of both sources by time, at as many closes as a chart shows.

    ``values`` and ``shuffled`` are equity curves, (n_paths, n_bars): of accounts on resampled
    markets, and of the account's own returns in another order.
    """
    # Some closes at equal distances, the first and the last among them.
    last = len(result.span.closes) - 1
    n_points = min(FAN_POINTS, last + 1)
    points = np.linspace(0, last, n_points)
    bars = np.unique(points.astype(np.int64))

    columns = {}
    sources = ((ACCOUNT, values), (RETURNS, shuffled))
    for source, paths in sources:
        shown = paths[:, bars].astype(np.float64)
        for name, share in QUANTILES.items():
            columns[f"{source} {name}"] = np.quantile(shown, share, axis=0)

    return pd.DataFrame(columns, index=core.utc_index(result.span.closes[bars]))
