"""``backtest run``: take an account through a market."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import backtest
from backtest.cli.experiment import Experiment, Flag, build_experiment, draft_experiment
from backtest.cli.output import print_json
from backtest.cli.progress import show_progress
from backtest.errors import ParameterError
from backtest.result import Result

DATA, POLICY, VENUE = "Data", "Policy", "Venue"
ACCOUNT, RUN, OUTPUT = "Account", "Run", "Output"
BPS = 1e-4
EXAMPLES = """
backtest run
backtest run --policy vol-target --set target=0.6 --set half_life=168
backtest run --data btc/ --from 2021-01-01 --to 2022-01-01 --resample 1d
backtest run --margin isolated --venue-leverage 5 --stop-loss 0.1
backtest run --policy my_policy.py:MyPolicy --taker-bps 4 --no-save
backtest run examples/btc-vol-target.toml --capital 50000 --json
"""


def option(panel: str, text: str, *names: str) -> Any:
    """Return one flag of a help panel."""
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


def run(  # noqa: PLR0913 - one argument per flag
    experiment: Annotated[
        Path | None,
        typer.Argument(help="An experiment file (TOML); flags go over it.", show_default=False),
    ] = None,
    *,
    data: Annotated[
        str | None, option(DATA, "A folder, a file, or 'sample' (default): a synthetic year.")
    ] = None,
    start: Annotated[str | None, option(DATA, "First bar to take, UTC.", "--from")] = None,
    end: Annotated[str | None, option(DATA, "End of the last bar, UTC.", "--to")] = None,
    resample: Annotated[str | None, option(DATA, "Longer bars, e.g. 1d.")] = None,
    instrument: Annotated[str | None, option(DATA, "Which, of a folder of several.")] = None,
    interval: Annotated[str | None, option(DATA, "Which bars, of a folder of several.")] = None,
    timezone: Annotated[str | None, option(DATA, "Of stamps that carry none.")] = None,
    mark_gaps: Annotated[str | None, option(DATA, "'last': fill mark prices with last.")] = None,
    funding_gaps: Annotated[str | None, option(DATA, "'zero': missing funding is none.")] = None,
    policy: Annotated[
        str | None, option(POLICY, "Its name (default vol-target), or FILE.py:ClassName.")
    ] = None,
    settings: Annotated[
        list[str] | None, option(POLICY, "A parameter, NAME=VALUE; again for more.", "--set")
    ] = None,
    signal: Annotated[
        str | None, option(POLICY, "Direction from -1 to 1 (default 1), or a column of the bars.")
    ] = None,
    venue: Annotated[str | None, option(VENUE, "A preset (default binance-usdm:BTCUSDT).")] = None,
    taker_bps: Annotated[float | None, option(VENUE, "Taker fee in basis points.")] = None,
    slippage_bps: Annotated[
        float | None, option(VENUE, "Worsening of every fill in basis points.")
    ] = None,
    capital: Annotated[float | None, option(ACCOUNT, "Money at the start (10000).")] = None,
    margin: Annotated[str | None, option(ACCOUNT, "'cross' (default) or 'isolated'.")] = None,
    venue_leverage: Annotated[
        float | None, option(ACCOUNT, "The leverage set at the venue; cross: as needed.")
    ] = None,
    min_leverage: Annotated[float | None, option(ACCOUNT, "Least leverage asked for.")] = None,
    max_leverage: Annotated[float | None, option(ACCOUNT, "Most leverage asked for.")] = None,
    band: Annotated[
        float | None, option(ACCOUNT, "No trade within this many turns of the target.")
    ] = None,
    stop_loss: Annotated[
        float | None, option(ACCOUNT, "Close this fraction of the entry price against it.")
    ] = None,
    margin_call: Annotated[float | None, option(ACCOUNT, "Margin ratio of a call.")] = None,
    reserve: Annotated[float | None, option(ACCOUNT, "Money outside, for top-ups.")] = None,
    top_up_to: Annotated[float | None, option(ACCOUNT, "Margin ratio after a top-up.")] = None,
    after_liquidation: Annotated[
        str | None, option(ACCOUNT, "'continue' (default) or 'halt'.")
    ] = None,
    sampling: Annotated[str | None, option(RUN, "Period of returns (1d).")] = None,
    calendar: Annotated[str | None, option(RUN, "Days a year: 365 (default) or 252.")] = None,
    no_compile: Annotated[
        bool, option(RUN, "Plain Python, for a debugger: the same numbers.", "--no-compile")
    ] = False,
    as_json: Annotated[bool, option(OUTPUT, "Print one JSON object only.", "--json")] = False,
    save: Annotated[bool, option(OUTPUT, "Save the result (default).")] = True,
    results: Annotated[Path, option(OUTPUT, "The folder of saved results.")] = Path("results"),
) -> None:
    """Take an account through a market under a policy, and tell what it lived through."""
    flags = [
        Flag("--data", "data", "path", data),
        Flag("--from", "data", "from", start),
        Flag("--to", "data", "to", end),
        Flag("--resample", "data", "resample", resample),
        Flag("--instrument", "data", "instrument", instrument),
        Flag("--interval", "data", "interval", interval),
        Flag("--timezone", "data", "timezone", timezone),
        Flag("--mark-gaps", "data", "mark_gaps", mark_gaps),
        Flag("--funding-gaps", "data", "funding_gaps", funding_gaps),
        Flag("--policy", "policy", "name", policy),
        *read_settings(settings or []),
        Flag("--venue", "venue", "preset", venue),
        Flag("--taker-bps", "venue", "fees.taker", in_fraction(taker_bps)),
        Flag("--slippage-bps", "venue", "slippage.rate", in_fraction(slippage_bps)),
        Flag("--capital", "account", "capital", capital),
        Flag("--margin", "account", "margin", margin),
        Flag("--venue-leverage", "account", "venue_leverage", venue_leverage),
        Flag("--min-leverage", "account", "min_leverage", min_leverage),
        Flag("--max-leverage", "account", "max_leverage", max_leverage),
        Flag("--band", "account", "band", band),
        Flag("--stop-loss", "account", "stop_loss", stop_loss),
        Flag("--margin-call", "account", "margin_call", margin_call),
        Flag("--reserve", "account", "reserve", reserve),
        Flag("--top-up-to", "account", "top_up_to", top_up_to),
        Flag("--after-liquidation", "account", "after_liquidation", after_liquidation),
        Flag("--signal", "run", "signal", signal),
        Flag("--sampling", "run", "sampling", sampling),
        Flag("--calendar", "run", "calendar", calendar),
        Flag("--no-compile", "run", "compile", False if no_compile else None),
    ]
    result = execute(build_experiment(draft_experiment(experiment, flags)))
    path = result.save(results) if save else None
    if as_json:
        print_json(describe(result, path))
        return
    typer.echo(result.summary())
    if path is not None:
        typer.echo(f"\nfull result: {path}")


def execute(experiment: Experiment) -> Result:
    """Run an experiment, with a progress bar where it takes long and somebody watches."""
    with show_progress(type(experiment.policy).__name__) as progress:
        return backtest.run(**experiment._asdict(), progress=progress)


def describe(result: Result, path: Path | None) -> dict[str, Any]:
    """Return a result as data: its identity, what it ran on, its metrics, where it is saved."""
    manifest = result.manifest
    return {
        "id": manifest["id"],
        "path": None if path is None else str(path),
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
    }


def read_settings(texts: Sequence[str]) -> Iterator[Flag]:
    """Yield the flags of ``NAME=VALUE`` texts.

    Raises
    ------
    ParameterError
        If one has no name or no equals sign.
    """
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ParameterError(
                f"--set takes NAME=VALUE, was {text!r}",
                where=f"--set {text}",
                cure="write for example --set target=0.4",
            )
        yield Flag("--set", "policy", f"settings.{name}", value)


def in_fraction(bps: float | None) -> float | None:
    """Return basis points as a fraction."""
    return None if bps is None else bps * BPS
