"""Commands about risk: of liquidation, shocks, orders inside a bar, assumptions, size, a crowd."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer

import backtest
from backtest.backtest import Backtest
from backtest.cli.build import build_experiment, build_test
from backtest.cli.command import AsJson, Output, Texts, command, list_flags, option
from backtest.cli.experiment import read_values
from backtest.cli.printing import print_json, print_message, print_title, render, show_progress
from backtest.core import Choice, FloatArray, ParameterError
from backtest.core.units import DAY
from backtest.engine import plain
from backtest.experiments.draft import Draft
from backtest.experiments.policy_names import build_node
from backtest.market import label_names, unwrap_market
from backtest.policies import Policy
from backtest.risk import Linear, Paths, Scenario, SquareRoot, describe_drift
from backtest.risk.paths import choose_funding
from backtest.sweep import count_cores
from backtest.venue import DynamicMargin
from backtest.venue.margin_rules import KINDS as MARGIN_KINDS

PATHS = list_flags("paths", "model paths horizon seed drift funding correlation")
FromRun = Annotated[
    bool, option("Run the experiment, and continue from its last close.", "--from-run")
]
FUNDED = "target max_loss daily_loss trailing locked min_days consistency days"
"""Keys of ``[risk]`` of a funded account."""
RISK = f"horizons find_leverage evaluations score default_rate recovery frontier threads {FUNDED}"


@command("risk", f"{PATHS} {list_flags('risk', RISK)}")
def risk(draft: Draft, *, from_run: FromRun = False, output: Output) -> None:
    """Estimate the probability that the account is liquidated after the end of the data.

    backtest risk --policy constant --set leverage=5 --model gbm
    backtest risk examples/btc-vol-target.toml --from-run --report risk.html
    backtest risk --policy constant --set leverage=5 --score
    backtest risk --frontier --drift 0.2 --model gbm
    backtest risk --policy constant --target 0.1 --max-loss 0.1 --daily-loss 0.05 --days 30
    """
    settings = {"threads": count_cores(), **draft.table("risk")}
    probability = settings.pop("find_leverage", None)
    has_frontier = settings.pop("frontier", False)
    if "evaluations" in settings and probability is None:
        raise ParameterError(
            "risk.evaluations needs risk.find_leverage, 0.01 for example, got none"
        )

    if has_frontier and settings.get("score"):
        raise ParameterError("risk.score is of a risk or of --find-leverage, got --frontier")

    # The same keys ask one of four questions.
    request = RiskRequest(draft, settings, from_run)
    if probability is not None or has_frontier:
        answer = find_leverage(request, probability)
    elif any(name in settings for name in FUNDED.split()):
        answer = find_passing(request)
    else:
        answer = find_risk(request)
    output.give_out(answer)


class RiskRequest(NamedTuple):
    """An experiment, what ``[risk]`` sets for the method that answers, and where accounts begin.

    They continue ``from_run``, or are new.
    """

    draft: Draft
    settings: dict[str, Any]
    from_run: bool


def find_risk(request: RiskRequest) -> Any:
    """Return the probability that the account is liquidated, on paths after the end of the data."""
    with show_progress("risk of liquidation: reading the data, fitting the model of the paths"):
        experiment = build_experiment(request.draft)
        drawn = draw_paths(request.draft, experiment.test)
    resume = None
    if request.from_run:
        resume = experiment.run()

    plan = f"risk of liquidation on {len(drawn):,} paths of {drawn.n_bars:,} bars"
    with show_progress(plan, "paths") as progress:
        return experiment.test.liquidation_risk(
            experiment.policy,
            paths=drawn,
            resume=resume,
            compile=experiment.compile,
            progress=progress,
            **request.settings,
        )


def find_passing(request: RiskRequest) -> Any:
    """Return the probability to pass a challenge of a funded account."""
    settings = dict(request.settings)
    if "target" not in settings or request.from_run or "horizons" in settings:
        raise ParameterError("a challenge needs target, and a new account without horizons")
    if settings.get("score"):
        raise ParameterError("risk.score must be left out: a challenge has no score")

    # A daily loss of 0 is a challenge without one.
    days = settings.get("days", 30)
    settings["daily_loss"] = settings.get("daily_loss", 0.05) or None
    experiment = build_experiment(request.draft)
    with show_progress("challenge: fitting the model of the paths"):
        drawn = draw_paths(request.draft, experiment.test, horizon=f"{days}d")
    with show_progress("challenge", "paths") as progress:
        return experiment.test.passing_probability(
            experiment.policy,
            paths=drawn,
            compile=experiment.compile,
            progress=progress,
            **settings,
        )


def find_leverage(request: RiskRequest, probability: float | None) -> Any:
    """Return the largest leverage of a probability, or without one the frontier of leverages.

    Without a policy it is that of a position that is opened once and kept.
    """
    settings = dict(request.settings)
    paths = dict(request.draft.table("paths"))
    if probability is None:
        settings.pop("threads")
        paths.setdefault("drift", None)
    elif "model" in paths:
        paths["models"] = [paths.pop("model")]

    for other in list_untaken(settings, paths, from_run=request.from_run):
        raise ParameterError(
            f"a search for the leverage uses plain paths of a new account, got {other}"
        )

    experiment = build_experiment(request.draft)
    policy = None
    if request.draft.table("policy"):
        policy = experiment.policy
    terms = {"compile": experiment.compile, **settings, **paths}
    if probability is None:
        return search_frontier(experiment.test, policy, terms)
    return search_largest(experiment.test, policy, probability, terms)


def search_frontier(test: Backtest, policy: Policy | None, terms: Mapping[str, Any]) -> Any:
    """Return the growth of leverages, with progress; it needs a drift to be believed."""
    if terms["drift"] is None:
        raise ParameterError(
            "a frontier of leverages needs --drift, got none: give shrunk (of history, less its "
            "error), history, or a number per year, 0.1"
        )
    with show_progress("leverage", "leverages") as progress:
        return test.leverage_frontier(policy, progress=progress, **terms)


def search_largest(
    test: Backtest,
    policy: Policy | None,
    probability: float,
    terms: Mapping[str, Any],
) -> Any:
    """Return the largest leverage of a probability, with a line for each model that is done."""
    began = time.monotonic()
    with show_progress("largest leverage", "models") as meter:

        def report(done: int, total: int) -> None:
            meter(done, total)
            seconds = time.monotonic() - began
            print_message(f"largest leverage: {done} of {total} models searched, {seconds:.0f} s")

        return test.max_leverage(policy, probability=probability, progress=report, **terms)


def list_untaken(
    settings: Mapping[str, Any],
    paths: Mapping[str, Any],
    *,
    from_run: bool,
) -> Iterator[str]:
    """Yield what a search for the leverage does not take."""
    for name in settings:
        if name not in ("threads", "evaluations", "score"):
            yield f"risk.{name}"

    for name in paths:
        if name not in ("paths", "horizon", "models", "model", "seed", "drift"):
            yield f"paths.{name}"
    if from_run:
        yield "--from-run"


@command("stress", "stress.scenarios stress.shocks stress.ladder stress.rules")
def stress(draft: Draft, *, output: Output) -> None:
    """Run an experiment, and show what shocks after the last close would do to its account.

    backtest stress --shock price=-0.3 --shock over=2h --shock outage=1h
    backtest stress --scenarios 2020-03-12 --ladder price=-0.5:0.5:41 --report stress.html
    """
    experiment = build_experiment(draft)
    table = draft.table("stress")
    scenarios = read_scenarios(table)
    ladder = draft.read_entries("stress", "ladder", read_axis) or None

    result = experiment.run()
    with show_progress("scenarios", "scenarios") as progress:
        stressed = backtest.stress(
            result,
            scenarios or None,
            rules=table.get("rules", "run"),
            data=plain(experiment.test).market,
            ladder=ladder,
            progress=progress,
        )
    output.give_out(stressed)


def read_scenarios(table: Mapping[str, Any]) -> list[Scenario]:
    """Return the crashes that a table names, then the shock that it describes."""
    crashes = {crash.name: crash for crash in backtest.crashes()}
    chosen = []
    for text in table.get("scenarios", []):
        name = Choice(*crashes).check("stress.scenarios", text)
        chosen.append(crashes[name])

    shocks = table.get("shocks")
    if shocks:
        chosen.append(Scenario.from_dict({"name": "shock", **shocks}, where="stress.shocks"))
    return chosen


def read_axis(values: Any, *, name: str) -> Sequence[Any]:
    """Read values; a list of a file may be the (low, high, n) of ``bt.stress``."""
    if isinstance(values, list):
        return tuple(values)
    return read_values(values, name=name)


@command("bounds", "")
def bounds(draft: Draft, *, output: Output) -> None:
    """Run an account under both orders of prices in a bar, and show where they differ.

    backtest bounds --data btc/ --data eth/ --policy constant --set leverage=5
    backtest bounds --set account.stop_loss=0.05 --report bounds.html
    """
    result = build_experiment(draft).run()
    with show_progress("bars", "bars") as progress:
        bounded = backtest.bounds(result, progress=progress)
    output.give_out(bounded)


@command("bands", list_flags("bands", "n block loss goal seed"))
def bands(draft: Draft, *, output: Output) -> None:
    """Run an experiment, and show what its account could have done on resampled markets.

    backtest bands examples/btc-vol-target.toml --n 200
    backtest bands --policy constant --set leverage=3 --goal 0.5 --loss 0.3 --report bands.html
    """
    experiment = build_experiment(draft)
    result = experiment.run()
    with show_progress("resampled markets", "paths") as progress:
        resampled = result.bands(
            **draft.table("bands"),
            compile=experiment.compile,
            progress=progress,
        )
    output.give_out(resampled)


@command("capacity", "capacity.capitals")
def capacity(draft: Draft, *, output: Output) -> None:
    """Show growth and Sharpe ratio by capital, and the capital at which each is halved.

    backtest capacity --set venue.slippage.impact=1.0 --capitals 1e4,1e6,1e8
    backtest capacity --set venue.slippage.max_participation=0.05 --report capacity.html
    """
    output.give_out(run_variations(draft, "capacity", "capitals"))


@command("sensitivity", "sensitivity.factors sensitivity.parameters")
def sensitivity(draft: Draft, *, output: Output) -> None:
    """Show how growth changes with one assumption, or one parameter, at a time.

    backtest sensitivity --factors fees,funding --report tornado.html
    backtest sensitivity --data btc/ --data eth/ --factors volatility
    backtest sensitivity --policy vol-target --parameters
    """
    output.give_out(run_variations(draft, "sensitivity", "factors"))


MARGINS = list_flags("margin", "coverage accounts solve shortfall score")
OF_PRICES = "model paths horizon seed"
MarginRules = Annotated[
    Texts,
    option(
        "A rule by name, 'ewma=Volatility(days=1)'; 'flat=table' is the venue's own. Default: its "
        "own, Volatility(), and that with a buffer.",
        "--rule",
    ),
]
USUAL_RULES = ("table=table", "volatility=Volatility()", "buffer=Buffer(Volatility())")


@command("margin", f"{MARGINS} {list_flags('paths', OF_PRICES)}")
def margin(draft: Draft, *, rules: MarginRules = None, output: Output) -> None:
    """Compare margin rules by capital tied up, coverage and accounts, or solve one for a parameter.

    --solve finds the least value of that parameter of the last rule with a shortfall on few paths.

    backtest margin --rule flat=table --rule "buffered=Buffer(Volatility(days=1), 0.25)"
    backtest margin --rule "ewma=Volatility(days=1)" --solve quantile --shortfall 0.01
    """
    test = build_test(draft)
    paths = draft.table("paths")
    for unused in sorted(paths.keys() - OF_PRICES.split()):
        raise ParameterError(f"paths.{unused} must be left out: margins need only prices")

    terms = {**draft.table("margin"), **paths}
    named = read_margin_rules(rules or USUAL_RULES)
    if "solve" not in terms:
        refuse_terms(terms, {"shortfall", "score"}, "without")
        with show_progress("margin rules", "rules") as progress:
            comparison = test.compare_margin(named, **terms, progress=progress)
        output.give_out(comparison)
        return

    refuse_terms(terms, {"coverage", "accounts"}, "with")
    last_rule: Any = [*named.values()][-1]
    with show_progress("margin rules", "paths") as progress:
        output.give_out(test.calibrate_margin(last_rule, **terms, progress=progress))


def refuse_terms(terms: Mapping[str, Any], unused: set[str], word: str) -> None:
    """Raise ParameterError for a term that is not used "with" or "without" --solve."""
    for name in sorted(unused & terms.keys()):
        raise ParameterError(f"margin.{name} must be left out {word} --solve")


def read_margin_rules(texts: Sequence[str]) -> dict[str, DynamicMargin | None]:
    """Return margin rules by name, of texts NAME=RULE; None is the venue's own table."""
    kinds: dict[str, Any] = {kind.__name__: kind for kind in MARGIN_KINDS.values()}
    named: dict[str, DynamicMargin | None] = {}
    for text in texts:
        name, equals, call = text.partition("=")
        if equals and call.strip() == "table":
            named[name] = None
            continue

        try:  # nothing but calls of rules is evaluated
            node = ast.parse(call.strip(), mode="eval").body
            named[name] = build_node(node, kinds.__getitem__)
        except ParameterError as error:
            raise ParameterError(f"--rule {name}: {error}") from error
        except (SyntaxError, TypeError, ValueError, KeyError, RecursionError, MemoryError) as error:
            raise ParameterError(
                "--rule must be NAME=table or NAME=RULE(number=value), with "
                f"{', '.join(kinds)}, got {text!r:.100}"
            ) from error
    return named


def run_variations(draft: Draft, method: str, unit: str) -> Any:
    """Return what a method of the test finds with the keys of its table."""
    test, policy, is_compiled = build_experiment(draft)
    terms = {**draft.table(method), "compile": is_compiled}
    with show_progress(unit, unit) as progress:
        return getattr(test, method)(policy, **terms, progress=progress)


def draw_paths(draft: Draft, test: Backtest, **more: Any) -> Paths:
    """Return the paths of ``[paths]``; by default with the funding of the venue."""
    settings = {"funding": "fitted", **more, **draft.table("paths")}
    if settings["funding"] == "none":
        settings["funding"] = None
    elif settings["funding"] == "fitted":
        settings["funding"] = choose_funding(test.venue)

    model = settings.pop("model", "filtered")
    return backtest.simulate_paths(plain(test).market, model, **settings)


QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@command("paths", PATHS)
def paths(draft: Draft, *, as_json: AsJson = False) -> None:
    """Simulate possible continuations of the data, and show how far they spread.

    In Python, bt.simulate_paths(...)[0].save(folder) writes one as data.

    backtest paths --model gbm --horizon 7d --paths 1000
    """
    drawn = draw_paths(draft, build_test(draft))
    tables = tabulate_spread(drawn)
    description = drawn.describe()
    if as_json:
        rows = {}
        for name, table in tables.items():
            rows[name] = table.reset_index().to_dict("records")
        print_json({"paths": description, "spread": rows})
        return

    print_title(
        f"{len(drawn):,} paths of {drawn.n_bars:,} bars, {description['model']['name']}, "
        f"seed {drawn.seed}, {describe_drift(description)}"
    )
    typer.echo("Returns from the last close, by day: quantiles.")
    for name, label in label_names(tables).items():
        typer.echo(f"\n{label}".rstrip())
        render(tables[name].reset_index(), shares=list(tables[name].columns))


SPREAD_DAYS = (1.0, 7.0, 30.0)
"""Days after the last close whose returns are shown, beside those of the end."""
SPREAD_BLOCK = 1_024
"""Paths that are drawn at a time."""


def tabulate_spread(drawn: Paths) -> dict[str, pd.DataFrame]:
    """Return by instrument the quantiles of returns after 1, 7 and 30 days and at the end."""
    opens = drawn.calendar.time
    days = np.asarray(opens[1:] - opens[0]) / DAY
    shown_days = [day for day in SPREAD_DAYS if day < days[-1]]
    shown_days.append(float(days[-1]))

    # Column 0 of the closes is the last one of history.
    shown_columns = np.searchsorted(days, shown_days) + 1
    columns = [0, *shown_columns]
    index = pd.Index([f"{day:g}" for day in shown_days], name="days")
    heads = [f"{100 * quantile:g} %" for quantile in QUANTILES]

    tables = {}
    for name in drawn.names:
        closes = select_closes(drawn, name, columns)
        returns = closes[:, 1:] / closes[:, :1] - 1.0
        quantiles = np.quantile(returns, QUANTILES, axis=0)
        tables[name] = pd.DataFrame(quantiles.T, index, heads)
    return tables


def select_closes(drawn: Paths, name: str, columns: Sequence[int]) -> FloatArray:
    """Return some closes of all paths of an instrument, (n_paths, n_columns).

    Paths are drawn block by block, so that all of them are never in memory at once.
    """
    edges = [*range(0, len(drawn), SPREAD_BLOCK), len(drawn)]
    blocks = []
    for first, stop in pairwise(edges):
        closes = drawn.closes(first, stop, name)
        blocks.append(closes[:, columns])
    return np.concatenate(blocks)


CROWD = ("open_interest", "leverage", "long_share", "accounts", "seed", "lookback")


@command(
    "cascade",
    list_flags("cascade", "shock open_interest leverage impact insurance adl recovery jump"),
)
def cascade(draft: Draft, *, output: Output) -> None:
    """Shock a crowd of leveraged accounts at the end of a market, and follow the liquidations.

    The policy's account is run on the market first, and joins the crowd with its final position.

    backtest cascade --shock -0.05 --open-interest 5e9 --leverage loguniform:1:100
    backtest cascade --shock 0.1 --open-interest 3e9 --impact linear:0.2 --recovery 2h --json
    """
    table = {"impact": "sqrt:1", **draft.table("cascade")}
    if "shock" not in table:
        raise ParameterError("cascade.shock is needed, got none")
    crowd_terms = {name: table.pop(name) for name in CROWD if name in table}
    table["impact"] = read_impact(table["impact"])
    if table.get("adl") == "none":
        table["adl"] = None

    experiment = build_experiment(draft)
    test: Any = plain(experiment.test)
    unwrap_market(test.market, "a cascade needs one market")
    if experiment.test.overlay is not None:
        raise ParameterError("a cascade is about one position, got an overlay")
    crowd = backtest.Crowd.from_leverage(**crowd_terms, entries=test.market, venue=test.venue)

    # An account that holds nothing has no part in the cascade.
    mine: Any = experiment.run()
    if mine.record.positions.quantity[-1, 0] == 0.0:
        typer.echo("note: the policy's account holds nothing at the end of the data", err=True)
        mine = None
    output.give_out(backtest.cascade(crowd, test.venue, **table, me=mine))


LAWS: dict[str, Any] = {"sqrt": (SquareRoot, 2), "linear": (Linear, 1)}
"""Laws of impact by name, with the most coefficients that each takes."""


def read_impact(text: str) -> Any:
    """Return the law of impact of a text, such as ``sqrt:1`` or ``linear:0.2``."""
    name, *parts = text.split(":")
    kind, largest_count = LAWS.get(name, (None, 0))  # an unknown law takes none: refused below
    try:
        coefficients = [float(part) for part in parts]
    except ValueError:
        coefficients = []

    if not 1 <= len(coefficients) <= largest_count:
        raise ParameterError(
            f"impact must be sqrt:COEFFICIENT[:VOLATILITY] or linear:COEFFICIENT, got {text!r}"
        )
    return kind(*coefficients)
