"""``backtest report``: write reports of saved results of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backtest.base import ParameterError
from backtest.cli.flags import OUTPUT, RESULTS, Results, option
from backtest.cli.progress import show_progress

EXAMPLES = """
backtest report voltarget-0a1b2c3d      [dim]# writes voltarget-0a1b2c3d.html[/dim]
backtest report 0a1b2c3d --format md    [dim]# by its id, or how that begins[/dim]
backtest report results/voltarget-0a1b2c3d --out report.html
backtest report sweep-voltarget --objective calmar
backtest report --all --out pages       [dim]# every result, and pages/index.html[/dim]
"""
REPORTS = Path("reports")
"""Folder of the pages of all results."""


def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders of saved results, or the beginning of their names or ids in --results.",
            show_default=False,
        ),
    ] = None,
    *,
    everything: Annotated[
        bool, option(OUTPUT, "All results in --results, with an index.html in --out.", "--all")
    ] = False,
    out: Annotated[
        Path | None,
        option(
            OUTPUT,
            "The file to write (NAME.html here); a folder for several (reports with --all).",
            "--out",
        ),
    ] = None,
    format_: Annotated[
        str | None, option(OUTPUT, "html (default), md or json.", "--format")
    ] = None,
    objective: Annotated[
        str, option(OUTPUT, "The measure that the report of a sweep ranks its sets by (sharpe).")
    ] = "sharpe",
    results: Results = RESULTS,
) -> None:
    """Write a report: one file that works offline, with charts, tables and assumptions."""
    from backtest.report import build_page, choose_format, write_page  # noqa: PLC0415 - loads much
    from backtest.store import find_folder, load_saved  # noqa: PLC0415

    if everything:
        write_everything(names, results, REPORTS if out is None else out, format_, objective)
        return
    if not names:
        raise ParameterError(
            "name a saved result, which `backtest results list` shows, or give --all"
        )
    folders = [find_folder(name, results) for name in names]
    chosen = choose_format(Path() if out is None else out, format_)
    targets = name_files(folders, out, chosen)
    for folder, target in zip(folders, targets, strict=True):
        page = build_page(load_saved(folder), objective)
        typer.echo(str(write_page(page, target, chosen)))


def write_everything(
    names: list[str] | None, results: Path, out: Path, format_: str | None, objective: str
) -> None:
    from backtest.report import write_all  # noqa: PLC0415 - loads much

    if names or format_ not in (None, "html"):
        raise ParameterError(
            "--all writes HTML of every result, and takes no names and no other format"
        )
    with show_progress("pages", "results", wait="reading") as progress:
        rows = write_all(results, out, objective, progress)
    for row in (each for each in rows if each.trouble):
        typer.echo(f"warning: {row.name} has no page: {row.trouble}", err=True)
    typer.echo(str(out / "index.html"))


def name_files(folders: list[Path], out: Path | None, format_: str) -> list[Path]:
    names = [f"{folder.resolve().name}.{format_}" for folder in folders]
    if out is None:
        return [Path(name) for name in names]
    if out.is_dir() or (len(folders) > 1 and not out.suffix):
        return [out / name for name in names]
    if len(folders) > 1:
        raise ParameterError(f"{len(folders)} reports need a folder, got {str(out)!r}")
    return [out]


COMMAND = report
