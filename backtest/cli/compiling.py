"""``backtest compile``: the compiled core, so that no run waits for the compiler."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import backtest
from backtest import core
from backtest._compile import cache_folders, object_code
from backtest.baselines.contract_trial import COSTS
from backtest.cli.command import command, flag
from backtest.cli.printing import show_progress
from backtest.market import Market, Markets
from backtest.policies import Combinator, Policy, number_elements
from backtest.risk.leverage_sizes import HoldOnce
from backtest.search.equal_risk import ConstantLeverage
from backtest.sweep.lanes.block import find_read
from backtest.sweep.lanes.formulas import (
    list_numbers,
    locate_lane_formula,
    write_general_formula,
    write_lane_formula,
)
from backtest.sweep.panel import Columns

Into = Annotated[
    Path | None, flag("The folder to write. Default: of the checkout, else the cache.", "--into")
]
WithOptions = Annotated[
    bool, flag("Compile accounts that hold options, too.", "--options/--no-options")
]


@command("compile")
def compile_core(into: Into = None, options: WithOptions = False) -> None:
    """Compile the engine for this processor, so that no run waits for the compiler.

    Finished parts are kept if it is interrupted. An installed wheel has the engine already.

    backtest compile                       [dim]# once in a checkout, or in a build[/dim]
    """
    began = time.perf_counter()
    gc.disable()  # numba keeps what it makes; to look for garbage takes a twelfth of the time
    folder = into or find_folder()
    parts = list_parts(has_options=options)
    with object_code.building(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, (name, compile_it) in enumerate(parts, 1):
            with show_progress(f"compiling {name} ({k} of {len(parts)})"):
                compile_it()

    seconds = time.perf_counter() - began
    n_objects = len([*folder.glob("*.o")])
    typer.echo(f"The core is compiled, after {seconds:.0f} s: {n_objects} objects in {folder}.")


def list_parts(*, has_options: bool) -> list[tuple[str, Callable[[], None]]]:
    """Return what is compiled, by the name that the progress shows."""
    policies = [getattr(backtest.strategies, name) for name in backtest.strategies.__all__]
    whole = [kind for kind in policies if not issubclass(kind, Combinator)]
    whole += [ConstantLeverage, HoldOnce]  # the benchmark of a saved run, the account of forecasts

    parts: list[tuple[str, Callable[[], None]]] = [
        ("the loop of runs", run_once),
        ("the loop of sweeps", sweep_once),
    ]
    parts.extend((f"policy {kind.__name__}", partial(use_policy, kind)) for kind in whole)
    if has_options:
        parts.append(("accounts with options", hold_options))
    return parts


def find_folder() -> Path:
    """Return the folder of the core: of the checkout, else the cache."""
    is_checkout = (cache_folders.BUILT.parents[1] / "pyproject.toml").exists()
    if not is_checkout:
        return cache_folders.find_object_folder()
    native = f"{cache_folders.name_platform()}-native-{cache_folders.name_target()}"
    return cache_folders.BUILT / native


def make_terms(**more: Any) -> dict[str, Any]:
    """Return a venue and an account for a run, and what else is given."""
    venue = backtest.Venue.preset("binance-usdm", "BTCUSDT")
    return {"venue": venue, "account": backtest.Account(), **more}


def run_once() -> None:
    """Compile the loop of runs: of one market and of several, of paths, and what draws those."""
    constant = backtest.strategies.Constant(1.0)
    market = Market.sample(bars=100)
    markets = Markets({"ONE": market, "TWO": market})
    read_bars(backtest.run(market, constant, **make_terms(compile="now")))
    read_bars(backtest.run(markets, constant, **make_terms(compile="now")))

    test = backtest.Backtest(Market.sample(bars=2_000), **make_terms())
    resampled = backtest.simulate_paths(test.market, paths=4, horizon="1d")
    test.liquidation_risk(constant, paths=resampled)
    parametric = backtest.simulate_paths(test.market, "gbm", paths=4, horizon="1d")
    parametric.closes()


def read_bars(result: backtest.Result) -> None:
    """Read the table of the bars of a run, which is computed when it is read."""
    result.bars  # noqa: B018


def sweep_once() -> None:
    """Compile the loop of sweeps, and that of shifts in time."""
    test = backtest.Backtest(Market.sample(), **make_terms())
    # As many sets as make a sweep of this market use lanes.
    leverages = np.linspace(0.1, 2.0, 130)
    test.sweep(backtest.strategies.Constant, {"leverage": leverages})

    result = test.run(backtest.strategies.VolTarget())
    backtest.timing_test(result)


def use_policy(kind: type[Policy]) -> None:
    """Compile what runs and sweeps of a policy call: its methods, and its formulas for lanes."""
    market = Market.sample(bars=400)
    policy = kind()
    try:
        backtest.run(market, policy, **make_terms(compile="now"))
    except core.BacktestError:  # it needs a chain of options, or a column that the sample lacks
        return
    compile_formulas(policy, market)


N_SWEPT = 2
"""Numbers of a policy whose sweeps find a formula made for that number alone."""


def compile_formulas(policy: Policy, market: Market) -> None:
    """Compile the formulas that decide for all sets of a block of a sweep at once.

    A formula is written for the parameters that vary. These are one for each of the first numbers
    of the policy, swept alone, and the general one, which serves every other sweep.
    """
    observed = Columns(market, lambda _: policy, memory=1e9)
    columns = tuple(observed.of_one(number_elements(policy.settings())))
    read = find_read(policy, columns)

    # Where ``observe`` reads a parameter that varies, each set has columns of its own.
    numbers = list_numbers(policy)
    for name in numbers[:N_SWEPT]:
        varied = frozenset([name])
        recipe = write_lane_formula(
            policy,
            columns,
            varied,
            varied,
            read,
            has_own_columns=name in observed.reads,
        )
        locate_lane_formula(recipe)

    is_any_observed = any(name in observed.reads for name in numbers)
    recipe = write_general_formula(policy, columns, read, has_own_columns=is_any_observed)
    locate_lane_formula(recipe)


def hold_options(*, plain: bool = False) -> None:
    """Run an account that holds options of the sample's chain, compiled or in plain Python."""
    chain = backtest.Chain.sample()
    chain.implied()  # compiles what surfaces that the cache holds would not
    surfaces = backtest.Surfaces.fit(chain)
    put = backtest.Option(
        kind="put",
        strike=28_000,
        expiry="2023-01-20 08:00",
        underlying="BTC",
    )
    listed = {"BTC": Market.sample(bars=480), "PUT": put}
    markets = Markets(listed, surfaces={"BTC": surfaces}, max_age="30d")

    rule: Any = "deribit-standard"
    terms = make_terms(account=backtest.Account(capital=100_000, requirement=rule))
    terms["venue"] = terms["venue"].override(option_costs=COSTS)
    terms["compile"] = False if plain else "now"
    hedge: Any = backtest.strategies.TailHedge
    policy = hedge(backtest.strategies.Constant(1.0))
    read_bars(backtest.run(markets, policy, **terms))
