"""``backtest run``: simulate an account on a market under a policy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import backtest
from backtest.base import (
    Choice,
    DataError,
    ParameterError,
    format_money,
    format_number,
    format_paragraph,
    format_percent,
    list_records,
    write_file,
)
from backtest.cli.experiment import Experiment, build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import list_flags
from backtest.cli.experiment_venue import list_policies, name_policies
from backtest.cli.flags import OUTPUT, RESULTS, AsJson, Results, Save, option
from backtest.cli.printing import save_and_print
from backtest.cli.progress import show_progress
from backtest.cli.typed_values import describe_bars
from backtest.engine import (
    Result,
    Trades,
    collect_limit_orders,
    collect_options,
    count_boundless,
)
from backtest.measures.trades import VIEWS

if TYPE_CHECKING:
    import pandas as pd


PYTHON_START = "bt.run(start=...)"

EXAMPLES = """
backtest run
backtest run --policy vol-target --set target=0.6 --set half_life=168
backtest run --data btc/ --from 2021-01-01 --to 2022-01-01 --resample 1d
backtest run --data btc/ --start 2022-01-01 --end 2022-07-01   [dim]# warm from the start[/dim]
backtest run --signal rsi:14:30:70
backtest run --margin isolated --venue-leverage 5 --stop-loss 0.1
backtest run --policy my_policy.py:MyPolicy --taker-bps 4 --no-save
backtest run --data btc/ --data eth/ --weights weights.csv --overlay vol-target
backtest run examples/btc-vol-target.toml --capital 50000 --json
backtest run --signal rsi:14:30:70 --trades trades.csv
backtest run --max-leverage 2
"""

TradesFile = Annotated[
    Path | None,
    option(OUTPUT, "Write the trades to a .csv, .parquet or .json file.", "--trades"),
]

TradesBy = Annotated[str, option(OUTPUT, "Its rows: trip or fifo (trip).", "--trades-by")]


def run(
    draft: Draft,
    *,
    trades: TradesFile = None,
    trades_by: TradesBy = "trip",
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Run an account through a market under a policy, and summarize the result."""
    check_trades_file(trades, trades_by)
    experiment = build_experiment(draft)
    for policy in list_policies(experiment.policy):
        note = describe_bars(policy, experiment.market)
        if note is not None:
            typer.echo(f"note: {note}", err=True)
    result = run_with_progress(experiment)
    listed = None if trades is None else write_trades(result, trades, trades_by)
    given = partial(result_to_dict, result, trades=listed)
    save_and_print(
        result,
        results if save else None,
        lambda: print_summary(result, listed),
        given if as_json else None,
    )


def print_summary(result: Result, trades: Trades | None) -> None:
    typer.echo(result.summary().replace(PYTHON_START, "--start"))
    if trades is not None:
        typer.echo("\n" + "\n".join(format_paragraph("Trades", describe_trades(trades))))


def run_with_progress(experiment: Experiment) -> Any:
    """Return the result of an experiment; show progress if it takes long, in a terminal."""
    with show_progress(name_policies(experiment.policy)) as progress:
        return backtest.run(
            experiment.market, experiment.policy, **experiment.terms, progress=progress
        )


COMMAND = take_experiment(run, list_flags("options"))


def result_to_dict(
    result: Result,
    path: str | None,
    *,
    trades: Trades | None = None,
) -> dict[str, Any]:
    manifest = result.manifest
    trades = result.trades if trades is None else trades
    counts = result.events["kind"].value_counts(sort=False)
    data = {
        "id": manifest["id"],
        "path": path,
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
    }
    data["attribution"] = result.attribution("instrument").to_dict(orient="index")
    data["contagion"] = list_records(result.contagion())
    data["events"] = {str(kind): int(count) for kind, count in counts.items() if count}
    data |= {"target_cuts": list(result.target_cut_rows), "no_fill": result.no_fill or None}
    data["infinite_leverage"] = count_boundless(result)
    data |= {**collect_limit_orders(result), **collect_options(result)}
    measures = {**trades.measures.to_dict(), "unallocated": trades.unallocated.to_dict()}
    data["trades"] = {"by": trades.view, **measures}
    return data


ENDINGS = (".csv", ".parquet", ".json")


def check_trades_file(path: Path | None, by: Any) -> None:
    Choice(*VIEWS).check("trades_by", by)
    if path is None and by != "trip":
        raise ParameterError(f"trades_by needs a file of trades, got {by} without one")
    if path is not None and path.suffix.lower() not in ENDINGS:
        raise ParameterError(f"a file of trades ends in {', '.join(ENDINGS)}, got {path.name!r}")


def write_trades(result: Result, path: Path, by: Any) -> Trades:
    trades = result.trades.lots(by)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, encode_trades(trades, path.suffix.lower()))
    except OSError as error:
        raise DataError(
            f"the trades cannot be written to {path}: {error.strerror or error}"
        ) from error
    return trades


def encode_trades(trades: pd.DataFrame, ending: str) -> bytes:
    if ending == ".parquet":
        found: bytes = trades.to_parquet(index=False)
        return found
    if ending == ".json":
        text: str = trades.to_json(orient="records", date_format="iso", indent=1)
        return text.encode()
    return trades.to_csv(index=False, lineterminator="\n").encode()


def describe_trades(trades: Trades) -> str:
    found = trades.measures
    if not found["trades"]:
        return f"no closed trade, {found['open']:,.0f} open"
    kinds = {"trip": "round trips", "fifo": "lots, first in first out"}
    return (
        f"{found['trades']:,.0f} closed ({kinds[trades.view]}), {found['open']:,.0f} open; "
        f"{format_percent(found['win_rate'])} won, mean win {format_money(found['mean_win'])}, "
        f"mean loss {format_money(found['mean_loss'])}; profit factor "
        f"{format_number(found['profit_factor'])}, expectancy {format_money(found['expectancy'])}; "
        f"at most {found['longest_losing_run']:,.0f} losers in a row; held "
        f"{format_number(found['mean_days'])} days on average, in the market at "
        f"{format_percent(found['time_in_market'])} of closes"
    )
