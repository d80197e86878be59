"""compare(): test the differences between results that were made under the same terms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest import results as measured
from backtest.core import as_of
from backtest.core.result_parts import NOTHING, Headline, Part, Shown, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.results import Result, Sampled
from backtest.results.differences import STATISTICS
from backtest.results.performance import LEAST_DEVIATION
from backtest.results.ranking import AFTER_RUIN, DOUBTS
from backtest.results.run_record import count_days_between, shows_growth
from backtest.search import equal_risk as e

MEASURED = (
    "log_growth", "cagr", "volatility", "sharpe", "max_drawdown", "es_95", "mean_leverage",
    "liquidations", "fees_annual", "funding_annual",
)  # fmt: skip
TITLES = {
    "log_growth": "log growth per year",
    "sharpe": "Sharpe",
    "volatility": "volatility",
    "es_95": "ES 95 %",
}
COVERAGE = (
    "on simulated accounts of 500 and 2,000 days, 95 % intervals held the true difference of log "
    "growth and Sharpe ratio in 93 to 97 % of cases (docs/accuracy.md)"
)
LEAST_MEASURED = 500
"""Periods of a comparison under which nobody measured the coverage."""
LEAST_SAMPLES = 30
"""The least number of returns for an interval."""
ALIKE = 1e-4
"""Two accounts are alike if the root mean square of the difference of their returns is at most this
share of that of the returns."""
TEST, SAME, RUIN, FEW, NONE = "test", "alike", "ruin", "too few returns", "undefined"
UNTESTED, LOST = "no test", "both lost"
ACCOUNTS = "The unit value of each account, free of deposits, and its fall from its own peak."
MOST_DRAWS = 1_000_000
SHARED = ("venue", "account", "signal", "sampling", "calendar")
LISTED = 8
"""Differing terms that an error lists."""


@core.record_making
@core.checked_only("results", "progress")
def compare(
    results: Mapping[str, Result],
    *,
    baseline: str | None = None,
    equal_risk: bool = True,
    confidence: float = 0.95,
    draws: int = 1_999,
    seed: int = 0,
    progress: core.Progress | None = None,
) -> Comparison:
    """Test which differences between results are more than noise.

    Parameters
    ----------
    results : mapping of str to Result
        At least two, made on the same market with the same signal, overlay, venue and account.
    baseline : str, optional
        The result that the others are compared with; the first by default.
    equal_risk : bool
        Whether to scale positions down, and run all again, until all have the volatility of the
        calmest one. A result that cannot be run again stays as measured, with a warning: one that
        was loaded or ruined, or whose parameters changed on the way.
    confidence : float
        The confidence of intervals and decisions, from 0.5 to below 1.
    draws, seed : int
        The number of resampled histories, at least 99, and their seed.
    progress : callable, optional
        Called with accounts scaled and accounts in total, then with histories drawn and in total.

    Returns
    -------
    Comparison

    Raises
    ------
    ParameterError
        If an argument is not allowed, or results were made under different terms, naming them.

    Notes
    -----
    Differences of log growth, Sharpe ratio, volatility and expected shortfall of sampled returns
    are tested by the stationary bootstrap: see
    :func:`backtest.results.differences.compare_pairs`. A ruined account has a log growth of
    -inf and ranks below all that were not ruined, without a test: returns after the ruin carry no
    information, and resampling one history cannot estimate how likely ruin was.
    """
    if len(results) < 2:
        raise core.ParameterError(
            "results must be two or more, each with a name of its own, {'calm': bt.run(...), "
            f"'bold': bt.run(...)}} for example, got {len(results)}"
        )
    against = next(iter(results)) if baseline is None else baseline
    if against not in results:
        raise core.ParameterError(
            f"baseline must be one of {', '.join(results)}, got {baseline!r}"
            f"{core.did_you_mean(against, [*results])}"
        )
    level = core.check_range("confidence", confidence, low=0.5, high=1.0, open_high=True)
    draws = core.Range(99, MOST_DRAWS).check("draws", draws, whole=True)
    if (draws + 1) * (1.0 - level) < 1.0 - 1e-9:
        raise core.ParameterError(
            f"draws must be {1.0 / (1.0 - level) - 1.0:,.0f} or more for a confidence of {level:g},"
            f" got {draws}"
        )
    seed = core.Range(0, 2**63 - 1).check("seed", seed, whole=True)
    rules = {"confidence": level, "draws": draws, "seed": seed}
    check_alike(results)
    scaled = equalize_risk(results, progress) if equal_risk else None
    if scaled is not None:
        results = {name: each.result for name, each in scaled.items()}
    sampled = sample_returns(results)
    rows = {}
    for name, result in results.items():
        costs = measured.find_cost_rates(result.tally, result.span)  # over mean equity
        rates = {f"{cost}_annual": rate for cost, rate in costs.items()}
        rows[name] = {"log_growth": e.find_growth(result), **result.metrics, **rates}
    for name, each in (scaled or {}).items():
        rows[name] |= {"scale": each.scale, "unscaled_volatility": each.volatility}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
    rest = np.array([1.0 if scaled is None else scaled[name].rest for name in results])
    differences, blocks = tabulate_differences(sampled, table, rest, against, rules, progress)
    cautions = []
    if len(sampled.free) < LEAST_SAMPLES:
        cautions.append(
            f"{len(sampled.free)} returns are too few for intervals, which need {LEAST_SAMPLES}: "
            "give a longer market, or a shorter sampling"
        )
    for name, account in (scaled or {}).items():
        if not account.distance <= e.NEAR:
            cautions.append(describe_unequal(name, account))
    first = next(iter(results.values()))
    overlay, shared = find_overlay(first.manifest), {x: first.manifest[x] for x in SHARED}
    manifest: dict[str, Any] = core.to_plain(
        {
            "kind": "comparison",
            "data": first.manifest["data"],
            "policies": {
                name: {
                    **{key: result.manifest["policy"][key] for key in ("text", "source_hash")},
                    "result": result.manifest["id"],
                    "scale": 1.0 if scaled is None else scaled[name].scale,
                    "rest": 1.0 if scaled is None else scaled[name].rest,
                }
                for name, result in results.items()
            },
            **shared,
            **({"overlay": overlay} if overlay else {}),
            "samples": {
                "n": sampled.returns.shape[1],
                "per_year": sampled.per_year,
                "periods": sampled.periods,
            },
            "baseline": against,
            "market": e.measure_market(first),
            "equal_risk": scaled is not None,
            **rules,
            "blocks": blocks,
            "warnings": cautions,
            "versions": {**core.find_versions(), "arch": core.find_version("arch")},
        }
    )
    manifest = {"id": core.compute_id(manifest), **manifest}
    index = first.returns.index
    returns = pd.DataFrame(sampled.returns.T, index=index, columns=[*results])
    free = pd.Series(sampled.free, index=index, name="risk_free")
    for caution in cautions:
        core.warn_caller(caution)
    return Comparison(table, differences, returns, free, manifest, results)


def check_alike(results: Mapping[str, Result]) -> None:
    name, first = next(iter(results.items()))
    terms = describe_terms(first)
    for other, result in results.items():
        found = [each for each, *_ in walk_differences(terms, describe_terms(result))]
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        what = f"differs from {name} in {', '.join(found[:LISTED])}{more}" if found else ""
        if result.manifest["resumed_from"] is not None:
            what = "begins in the middle: it was resumed from another run"
        if what:
            raise core.ParameterError(
                "results must share market data, time, signal, venue and account to be compared, "
                f"{other!r} {what}"
            )


def describe_terms(result: Result) -> Any:
    manifest, data = result.manifest, result.manifest["data"]
    span = {"market data": data["content_hash"], "start": data["start"], "end": data["end"]}
    shared = {name: manifest[name] for name in SHARED}
    return core.to_plain({**span, **shared, "overlay": find_overlay(manifest)})


def find_overlay(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("overlay") or {}).get("text", ""))


def walk_differences(mine: Any, theirs: Any, lead: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name and both values of each entry in which plain data differ."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*mine, *theirs}):
            name = f"{lead}.{key}" if lead else key
            yield from walk_differences(mine.get(key), theirs.get(key), name)
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for place, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            yield from walk_differences(one, other, f"{lead}[{place}]")
    elif mine != theirs:
        yield lead, mine, theirs


def sample_returns(results: Mapping[str, Result]) -> Sampled:
    first = next(iter(results.values()))
    rows = np.array([result.returns.to_numpy() for result in results.values()])
    venue, time = first.venues[first.names[0]], first.time
    years = np.diff(time, prepend=time[:1]) / (venue.day_count * DAY)
    free = engine.earn_cash(as_of(venue.cash_rate, time, "Venue.cash_rate"), years, len(time))
    free = compound_free(free, first.ends_sample)
    return Sampled(rows, free, rows.shape[1] / first.span.years, first.span.periods)


def compound_free(free: core.FloatArray, ends_sample: np.ndarray) -> core.FloatArray:
    ends = np.flatnonzero(ends_sample)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.asarray(np.expm1(np.add.reduceat(np.log1p(free), starts)))


def equalize_risk(
    results: Mapping[str, Result], progress: core.Progress | None
) -> dict[str, e.ScaledAccount] | None:
    """Scale accounts to the lowest volatility of those that move; None if none does.

    An account that cannot be run again has a scale of 1.
    """
    known = [float(result.metrics["volatility"]) for result in results.values()]
    moving = [volatility for volatility in known if volatility > LEAST_DEVIATION]
    if not moving:
        return None

    scaled = {}
    for done, (name, result) in enumerate(results.items()):
        if explain_fixed(result):
            volatility = float(result.metrics["volatility"])
            scaled[name] = e.ScaledAccount(result, 1.0, volatility, target=min(moving))
        else:
            scaled[name] = e.scale_to_volatility(result, min(moving))
        core.report_progress(progress, done + 1, len(results))
    return scaled


def explain_fixed(result: Result) -> str:
    """Return why a result is not run again at another scale; empty if it is."""
    if "switches" in result.manifest["policy"]:
        return "changed its parameters on the way"
    if not result.policies:
        return "was loaded"
    return "was ruined" if result.metrics["ruined"] else ""


def describe_unequal(name: str, account: e.ScaledAccount) -> str:
    volatility = float(account.result.metrics["volatility"])
    target = core.format_percent(account.target)
    if not volatility:
        return f"{name} held nothing, and cannot be scaled to {target}: its risk is not equal"
    if why := explain_fixed(account.result):
        return (
            f"{name} {why}, and is compared as measured, at a volatility of "
            f"{core.format_percent(volatility)}, not of {target}: its risk is not equal"
        )
    return (
        f"{name} was scaled to a volatility of {core.format_percent(volatility)}, not to {target}: "
        "its risk is not equal"
    )


def tabulate_differences(
    sampled: Sampled,
    table: pd.DataFrame,
    rest: core.FloatArray,
    baseline: str,
    rules: Mapping[str, Any],
    progress: core.Progress | None,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return a row per measure and policy, and the length of blocks by measure.

    ``rest`` of shape (k,) is by what returns are still to be multiplied for the risk to be equal.
    """
    names = [*table.index]
    pairs = np.array([(k, names.index(baseline)) for k, name in enumerate(names)
                      if name != baseline], dtype=np.int64)  # fmt: skip
    ruined = table["ruined"].to_numpy() != 0.0
    lost = np.array([measured.is_lost(row) for row in table.to_dict("records")])
    living = np.where(ruined[:, None], 0.0, sampled.returns * rest[:, None])
    bases = np.array([find_basis(living, pair, ruined) for pair in pairs], dtype=object)
    bases[lost[pairs].all(axis=1)] = LOST
    rows, blocks, draws = [], dict[str, int](), rules["draws"]
    for place, measure in enumerate(TITLES):

        def report(more: int, done: int = place * draws) -> None:
            core.report_progress(progress, done + more, len(STATISTICS) * draws)

        is_tested, of_run = measure in STATISTICS, table[measure].to_numpy()
        with np.errstate(invalid="ignore"):
            gap = measured.pair_differences(of_run if is_tested else of_run * rest, pairs)
        is_fallen = bases == RUIN
        edge = np.where(is_fallen, gap if measure == "log_growth" else np.nan, np.nan)
        part = pd.DataFrame({"policy": [names[one] for one, _ in pairs]})
        part = part.assign(against=baseline, measure=measure)
        part = part.assign(difference=np.where(is_fallen, edge, gap), low=edge, high=edge)
        part = part.assign(p_value=np.nan, p_holm=np.nan)
        tested = np.isin(bases, (TEST, SAME)) & is_tested
        if tested.any():
            drawn = measured.compare_pairs(
                sampled._replace(returns=living),
                pairs[tested],
                measure,
                confidence=rules["confidence"],
                draws=draws,
                rng=np.random.default_rng(rules["seed"]),
                progress=report,
            )
            blocks[measure] = drawn.block
            for name in ("difference", "low", "high", "p_value"):
                part.loc[tested, name] = getattr(drawn, name)
        part.loc[bases == LOST, ["difference", "low", "high"]] = np.nan
        is_test = bases == TEST
        part.loc[is_test, "p_holm"] = measured.holm(part["p_value"][is_test].to_numpy())
        is_decided = part["p_holm"] <= 1.0 - rules["confidence"] + 1e-12
        basis = np.where(is_test & ~np.array(is_tested), UNTESTED, bases)
        basis[part["difference"].isna() & ~np.isin(bases, (RUIN, LOST))] = NONE
        is_clear = np.isinf(part["difference"]) | is_decided
        rows.append(part.assign(distinguishable=is_clear, basis=basis))
    return pd.concat(rows, ignore_index=True), blocks


def find_basis(returns: core.FloatArray, pair: core.IntArray, ruined: core.BoolArray) -> str:
    if ruined[pair].any():
        return RUIN
    one, other = returns[pair]
    if len(one) < LEAST_SAMPLES:
        return FEW
    apart = np.sqrt(np.mean((one - other) ** 2))
    size = np.sqrt(max(np.mean(one**2), np.mean(other**2)))
    return SAME if apart <= ALIKE * size else TEST


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(core.SavedResult):
    """Several policies on the same market and terms.

    Attributes
    ----------
    table : DataFrame
        One row per policy: ``log_growth`` per year (-inf after ruin), all measures of a run, and
        ``liquidation_loss_annual``; at equal risk also ``scale`` and ``unscaled_volatility``.
    differences : DataFrame
        One row per measure and policy beside the baseline: ``policy``, ``against``, ``measure``
        (log_growth, sharpe, volatility, es_95), ``difference`` from the baseline, ``low`` and
        ``high`` of its interval, ``p_value``, ``p_holm`` (corrected over the rows of the measure),
        ``distinguishable``, and its ``basis``: ``test``; ``alike`` (almost equal returns);
        ``ruin`` (decided without a test); ``no test`` (volatility, es_95); ``too few returns``;
        ``undefined``.
    returns : DataFrame
        Simple returns per sampling period, one column per policy.
    risk_free : Series
        The risk-free return of the same periods.
    manifest : mapping
        Data, venue, account, policies, settings and versions.
    results : mapping of str to Result, or None
        The results, scaled at equal risk; None in a loaded comparison.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    returns: pd.DataFrame
    risk_free: pd.Series[float]
    manifest: Mapping[str, Any]
    results: Mapping[str, Result] | None = None

    kind, layout = "comparison", 2
    is_yearly = True
    call = "bt.compare"
    table_names = ("table", "differences", "returns", "risk_free")

    @property
    def names(self) -> tuple[str, ...]:
        """The results, in the order given."""
        return tuple(map(str, self.table.index))

    @property
    def baseline(self) -> str:
        """The result that the others are compared with."""
        return str(self.manifest["baseline"])

    @property
    def confidence(self) -> float:
        """The confidence of intervals and decisions."""
        return float(self.manifest["confidence"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the comparison, one sentence each."""
        return tuple(self.manifest["warnings"])

    @property
    def ruined(self) -> tuple[str, ...]:
        """The policies whose account was ruined, latest ruin first."""
        fallen = self.table[self.table["ruined"] != 0.0]
        rows = fallen.sort_values("ruin_time", ascending=False, kind="stable")
        return tuple(map(str, rows.index))

    @property
    def lost(self) -> tuple[str, ...]:
        """The policies whose account was lost: ruined, or 99 % of its unit value is gone."""
        rows = self.table[["ruined", "total_return"]].to_dict("index")
        return tuple(str(name) for name, row in rows.items() if measured.is_lost(row))

    @property
    def order(self) -> tuple[str, ...]:
        """The policies by log growth, highest first; ruined ones last, latest ruin first."""
        growth = self.table["log_growth"].sort_values(ascending=False, kind="stable")
        return (*(str(name) for name in growth.index if name not in self.ruined), *self.ruined)

    @property
    def verdict(self) -> str:
        clear = self.differences[self.differences["distinguishable"]]
        parts = []
        for measure, rows in clear.groupby("measure", sort=False):
            sides = [f"{row['policy']} ({'higher' if row['difference'] > 0.0 else 'lower'})"
                     for row in rows.to_dict("records")]  # fmt: skip
            parts.append(f"{TITLES[str(measure)]}: {', '.join(sides)}")
        start = (
            f"Against {self.baseline}, {self.describe_volatilities()}, with "
            f"{self.confidence:.0%} confidence,"
        )
        found = f"these differ by more than noise: {'; '.join(parts)}."
        return f"{start} {found if parts else 'nothing differs by more than noise.'}"

    @property
    def details(self) -> str:
        best = self.order[0]
        row: Any = self.table.loc[best]
        own = {str(name): float(x) for name, x in row.items()}
        own["total_return"] = self.measure_return(best)
        lines = {e.BUY_AND_HOLD: self.manifest["market"]}
        market = e.name_better(lines, own, f"{best}'s", days=self.days)
        texts = []
        if best == self.baseline:
            texts.append(f"The baseline {best} grew most.")
        if market:
            texts.append(f"{core.capitalize(market)}.")
        return " ".join(texts)

    @property
    def days(self) -> float:
        """The days over which the accounts are compared."""
        data = self.manifest["data"]
        return count_days_between(data["start"], data["end"])

    def measure_return(self, name: str) -> float:
        """Return the simple return of an account over the whole time."""
        return float(np.prod(1.0 + self.returns[name].to_numpy())) - 1.0

    def describe_volatilities(self) -> str:
        """Return the volatility of the accounts, or the lowest and the highest, as a clause."""
        volatility = self.table["volatility"]
        low = float(volatility.min())
        high = float(volatility.max())
        if high <= low * (1.0 + 2.0 * e.NEAR):
            return f"at a volatility of {core.format_percent(high)} a year"
        return (
            f"at volatilities of {core.format_percent(low)} to {core.format_percent(high)} a year"
        )

    @property
    def notices(self) -> tuple[str, ...]:
        days, left = self.table["ruin_time"], 1.0 + self.table["total_return"]
        found = [
            f"{name} was RUINED after {float(days[name]):,.1f} days: no trade since; {AFTER_RUIN}."
            for name in self.ruined
        ]
        found += [
            f"{name} was LOST: {core.format_percent(float(left[name]), 4)} of its money is left."
            for name in self.lost
            if name not in self.ruined
        ]
        if len(self.lost) > 1:
            found.append(f"Nothing is compared between lost accounts: {', '.join(self.lost)}.")
        if self.manifest["equal_risk"]:
            found.append(
                "At equal risk: positions were scaled by factors known only afterwards, to compare "
                "and not to trade."
            )
        for measure, doubt in DOUBTS.items():
            counts = self.table[measure][self.table[measure] > 0.0]
            if len(counts):
                each = ", ".join(f"{name} {count:,.0f}" for name, count in counts.items())
                found.append(f"Bars in which {doubt}: {each}.")
        return (*found, *self.warnings)

    def __repr__(self) -> str:
        risk = " at equal risk" if self.manifest["equal_risk"] else ""
        return f"<Comparison of {', '.join(self.names)}{risk} on {self.manifest['data']['source']}>"

    def to_dict(self) -> dict[str, Any]:
        content = {
            "comparison": self.manifest,
            "table": self.table.reset_index().to_dict("records"),
            "differences": self.differences.to_dict("records"),
            "order": list(self.order),
        }
        return dict(core.to_plain(content))

    @property
    def folder_title(self) -> str:
        return "compare"

    @property
    def policy_name(self) -> str:
        return ", ".join(self.names)

    @property
    def title(self) -> str:
        others = ", ".join(name for name in self.names if name != self.baseline)
        return f"{self.baseline} against {others}"

    @property
    def note(self) -> str:
        return f"{len(self.names)} policies"

    @property
    def heading(self) -> str:
        return core.clip(self.title, 200)

    def list_numbers(self) -> list[Headline]:
        is_yearly = shows_growth(self.days)
        measure, when = ("cagr", "per year") if is_yearly else ("total_return", "in all")
        found = []
        for name in self.order[:8]:
            growth = float(self.table["cagr"][name]) if is_yearly else self.measure_return(name)
            note = f"{when}; Sharpe {core.format_number(float(self.table['sharpe'][name]))}"
            title = core.clip(name, 60)
            found.append(Headline(f"{measure} {name}", title, growth, "percent", note))
        return found

    def list_parts(self) -> list[Part]:
        others = [name for name in self.names if name != self.baseline]
        units = (1.0 + self.returns[[self.baseline, *others]]).cumprod()
        ordered, label = self.table.loc[list(self.order)], core.Head("policy")
        names = tuple(name for name in MEASURED[1:] if name in self.table)
        accounts: list[Shown] = [
            show_accounts(units),
            ShownTable(ordered, "Measures", columns=names, labels=label,
                       note="The highest log growth first, ruined accounts last."),
        ]  # fmt: skip
        gaps: list[Shown] = []
        cells: dict[str, pd.Series] = {}
        for measure, title in TITLES.items():
            rows = self.differences[self.differences["measure"] == measure].set_index("policy")
            known = rows[np.isfinite(rows["difference"])]
            is_drawn = known["difference"].abs().max() >= 1e-4  # else there is nothing to see
            drawn = known[["difference", "low", "high", "distinguishable"]] if is_drawn else None
            gaps.append(ShownChart(
                f"difference-{measure}", f"Difference of {title}",
                "Blue where it is more than noise, gray where it is not.", drawn, "intervals",
                x="difference", percent="" if measure == "sharpe" else "x", size="narrow",
            ))  # fmt: skip
            cells[title] = rows.apply(write_gap, axis=1)
        table = pd.DataFrame(cells).loc[[name for name in self.order if name != self.baseline]]
        heads = {title: core.Head(title, "", "decimals") for title in TITLES.values()}
        note = f"Intervals of {100.0 * self.confidence:.6g} %; * is more than noise."
        gaps.append(ShownTable(table, f"Difference from {self.baseline}", note, label, heads))
        lead = f"Each account less {self.baseline}; intervals hold {self.confidence:.0%}."
        return [
            Part("accounts", "The accounts", "One unit of money in each, over the same time.",
                 tuple(accounts), "both"),
            Part("differences", "What differs by more than noise", lead, tuple(gaps), "both"),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        blocks = ", ".join(f"{n} for {TITLES[name]}" for name, n in self.manifest["blocks"].items())
        few = f"; here are {len(self.returns):,} periods, fewer than were measured"
        return (
            f"Intervals by the stationary bootstrap: {self.manifest['draws']:,} histories, seed "
            f"{self.manifest['seed']}, of all accounts together, in blocks of a mean length of "
            f"{blocks or 'no'} periods; decisions allow for the number of comparisons of a measure "
            f"(Holm). {core.capitalize(COVERAGE)}{few * (len(self.returns) < LEAST_MEASURED)}.",
        )

    def list_measures(self) -> Mapping[str, float]:
        return dict(self.table.loc[self.order[0]])

    def list_policies(self) -> Iterable[type]:
        for result in (self.results or {}).values():
            yield from map(type, result.policies.values())

    def _lay_out(self) -> dict[str, Any]:
        return super()._lay_out() | {"risk_free": self.risk_free.to_frame()}

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:  # noqa: ARG003
        return cls(**{**tables, "risk_free": tables["risk_free"]["risk_free"]}, manifest=manifest)


def write_gap(row: Mapping[Any, Any] | pd.Series) -> str:
    mark = " *" if row["distinguishable"] else ""
    gap, half, basis = row["difference"], row["high"] - row["difference"], row["basis"]
    if basis in (SAME, LOST):
        return str(basis)
    if basis not in (TEST, FEW, UNTESTED):
        word = "below" if gap < 0.0 else "above"
        return f"{word if math.isinf(gap) else 'n/a'}{mark}"
    unit = 1.0 if row["measure"] == "sharpe" else 100.0
    around = "" if basis != TEST else f" ± {unit * half:.2f}" if math.isfinite(half) else " ± ?"
    return f"{unit * gap:.2f}{around}{'' if unit == 1.0 else ' %'}{mark}"


def show_accounts(
    units: pd.DataFrame,
    colors: Mapping[str, str] = NOTHING,
    marks: tuple[float, ...] = (),
    more: str = "",
) -> ShownChart:
    return ShownChart(
        "accounts", "The accounts over time", f"{ACCOUNTS} {more}".rstrip(), units, "accounts",
        colors, marks=marks, has_legend=True, height=560,
    )  # fmt: skip
