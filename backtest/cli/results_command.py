"""``backtest results``: list saved results, show, compare, verify, delete and export them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base.errors import ParameterError
from backtest.base.json_values import from_plain
from backtest.cli import results_prune_command
from backtest.cli.flags import OUTPUT, RESULTS, AsJson, Results, option
from backtest.cli.printing import format_help, print_json
from backtest.cli.results_prune_command import (
    FILTER,
    Kind,
    PolicyPart,
    Where,
    prune,
    read_time,
    read_wanted,
)
from backtest.engine.result import Result

ORDER, WHAT = "Order", "What"
EXAMPLES = """
backtest results list --sort sharpe
backtest results show 0a1b2c3d
backtest results compare 0a1b2c3d 77aa8cc5
backtest results verify
backtest results prune --keep 100 --dry-run
backtest results export 0a1b2c3d --out run.zip
"""
LIST_EXAMPLES = """
backtest results list                          [dim]# the newest first[/dim]
backtest results list --kind run --policy vol-target --sort sharpe
backtest results list btc --where 'sharpe>1' --where 'max_drawdown<=0.4' --since 7d
backtest results list --columns id,policy,sharpe,seconds,commit,dirty
backtest results list --sort max_drawdown --top 20 --json
"""
SHOW_EXAMPLES = """
backtest results show voltarget-0a1b2c3d4e5f6071
backtest results show 0a1b --json              [dim]# how the id begins[/dim]
"""
COMPARE_EXAMPLES = """
backtest results compare 0a1b2c3d 77aa8cc5
backtest results compare calm=0a1b2c3d bold=77aa8cc5 --baseline bold --json
"""
VERIFY_EXAMPLES = """
backtest results verify                        [dim]# all of results/[/dim]
backtest results verify 0a1b2c3d --json
"""
EXPORT_EXAMPLES = """
backtest results export 0a1b2c3d --out run.zip
backtest results export 0a1b2c3d --out shared/ --csv
"""

app = typer.Typer(rich_markup_mode="rich")

Name = Annotated[
    str,
    typer.Argument(metavar="RESULT", help="Its name or id, or how either begins; or its folder."),
]


def describe() -> None:
    """List what was saved, look at it, compare, verify, delete, hand it on."""


app.callback(help=format_help(describe, EXAMPLES))(describe)


# ------------------------------------------------------------------------------------------- list


def list_(
    text: Annotated[
        str, typer.Argument(help="Part of name, policy, data or note.", show_default=False)
    ] = "",
    *,
    kind: Kind = None,
    policy: PolicyPart = "",
    where: Where = None,
    since: Annotated[
        str | None,
        option(FILTER, "Saved since a date (UTC), or 7d, 12h ago.", "--since"),
    ] = None,
    sort: Annotated[
        str,
        option(
            ORDER,
            "A measure, the best first; or saved, name, kind, policy, size, seconds.",
            "--sort",
        ),
    ] = "saved",
    is_reversed: Annotated[bool, option(ORDER, "The other way round.", "--reverse")] = False,
    top: Annotated[int | None, option(ORDER, "So many only.", "--top")] = None,
    columns: Annotated[
        str | None,
        option(
            OUTPUT,
            "What to show: measures; id, name, kind, policy, data, start, end, source, saved, "
            "size, seconds, commit, backtest_commit, dirty.",
            "--columns",
        ),
    ] = None,
    fresh: Annotated[
        bool, option(OUTPUT, "Read every folder, without the notes of an earlier list.", "--fresh")
    ] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """List saved runs, sweeps, studies and comparisons; what cannot be read is named with why.

    A sweep shows the measures of its set with the highest Sharpe ratio, a study those of the set
    it chose, a comparison those of its policy with the highest log growth.
    """
    from backtest.cli import results_text as words  # noqa: PLC0415 - as below
    from backtest.store import list_results, sort_entries  # noqa: PLC0415 - loads much

    wanted = read_wanted(text, kind, policy, where)
    if since is not None:
        wanted = wanted._replace(since=read_time(since, "--since"))
    if top is not None and top < 1:
        raise ParameterError(f"--top must be 1 or more, was {top}", where="--top", cure="say 10")
    bounds = [bound.measure for bound in wanted.bounds]
    usual = [*words.USUAL, *words.list_measures(sort, bounds), "saved"]
    named = usual if columns is None else words.read_columns(columns)
    found = sort_entries((), sort)  # refuses an unknown word before anything is read
    everything = list_results(results, use_index=not fresh)
    found = sort_entries(filter(wanted.matches, everything), sort, is_reversed=is_reversed)
    shown = found[:top]
    unread = [each for each in everything if each.trouble]
    total = len(everything) - len(unread)
    if as_json:
        lists = {"results": shown, "not_readable": unread}
        plain = {key: [each.to_dict() for each in each_list] for key, each_list in lists.items()}
        print_json({"folder": str(results), "found": len(found), **plain})
        return
    typer.echo(words.format_list(shown, named, unread, len(found), total, results))


# ------------------------------------------------------------------------------------------- show


def show(name: Name, *, as_json: AsJson = False, results: Results = RESULTS) -> None:
    """Show one result: what it is, its measures, and the command that makes it again."""
    from backtest.base.provenance import making_to_json, read_provenance  # noqa: PLC0415
    from backtest.cli.results_text import format_result  # noqa: PLC0415 - loads much
    from backtest.store import describe_origin, open_folder, read_usable  # noqa: PLC0415 - loads much

    folder, entry = read_usable(name, results)
    _, facts = open_folder(folder)
    making = read_provenance(folder, entry.id)
    origin = describe_origin(facts, making)
    if as_json:
        again = {"command": origin.command or None, "remarks": list(origin.remarks)}
        made = None if making is None else making_to_json(making)
        told = {"path": str(folder), **entry.to_dict(), "again": again, "made": made}
        print_json({**told, "manifest": facts})
        return
    typer.echo(format_result(folder, entry, facts, making, origin))


# ---------------------------------------------------------------------------------------- compare


def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs by name or id, or LABEL=RUN to call one so."),
    ],
    *,
    baseline: Annotated[
        str | None, option(WHAT, "The run the others are compared with (the first).", "--baseline")
    ] = None,
    confidence: Annotated[
        float, option(WHAT, "Of intervals and decisions (0.95).", "--confidence")
    ] = 0.95,
    draws: Annotated[int, option(WHAT, "Resampled histories (1999).", "--draws")] = 1_999,
    seed: Annotated[int, option(WHAT, "Of the histories (0).", "--seed")] = 0,
    save: Annotated[bool, option(OUTPUT, "Save the comparison.", "--save/--no-save")] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Compare saved runs of the same market and terms, without running them again."""
    from backtest.store import compare_saved  # noqa: PLC0415 - loads much

    named = name_runs(names, results)
    done = compare_saved(named, baseline=baseline, confidence=confidence, draws=draws, seed=seed)
    path = done.save(results) if save else None
    for remark in find_other_versions(named):
        typer.echo(f"warning: {remark}", err=True)
    if as_json:
        told = {"path": None if path is None else str(path), **done.to_dict()}
        print_json(from_plain(told))
        return
    typer.echo(done.summary())
    if path is not None:
        typer.echo(f"\nfull result: {path}")


def name_runs(names: list[str], results: Path) -> dict[str, Any]:
    """Return runs by what they go by: as said, else as :func:`backtest.store.name_saved` has it.

    Raises
    ------
    ParameterError
        If one is no run, or named twice.
    """
    from backtest.store import name_saved  # noqa: PLC0415 - loads much

    said = [split_label(each, results) for each in names]
    folders = [find_run(name, results) for _, name in said]
    twice = [each.name for each in folders if folders.count(each) > 1]
    if twice:
        raise ParameterError(
            f"each run must be named once, {twice[0]} was named twice",
            where="backtest results compare",
            cure="name two different runs",
        )
    loaded = [Result.load(folder) for folder in folders]
    titles = name_saved(loaded)
    labels = [label or title for (label, _), title in zip(said, titles, strict=True)]
    if len(set(labels)) < len(labels):
        raise ParameterError(
            f"each run must have a name of its own, was {', '.join(labels)}",
            where="backtest results compare",
            cure="say how they are called: calm=0a1b2c3d bold=77aa8cc5",
        )
    return dict(zip(labels, loaded, strict=True))


def split_label(text: str, results: Path) -> tuple[str, str]:
    """Return the label and the name of ``LABEL=RUN``; no label where none is said."""
    label, equals, name = text.partition("=")
    return (label, name) if equals and not (results / text).exists() else ("", text)


def find_run(name: str, results: Path) -> Path:
    """Return the folder of a run.

    Raises
    ------
    ParameterError
        If it is another kind of result.
    """
    from backtest.store import read_usable  # noqa: PLC0415 - loads much

    folder, entry = read_usable(name, results)
    if entry.kind != "run":
        raise ParameterError(
            f"runs have returns to compare, {folder.name} is a {entry.kind}",
            where=str(folder),
            cure="run its best set by itself: backtest results show says its parameters",
        )
    return folder


def find_other_versions(named: dict[str, Any]) -> list[str]:
    """Return a warning for each run that was made with other versions than the first."""
    (first, one), *rest = named.items()
    versions = one.manifest["versions"]
    found = []
    for name, result in rest:
        theirs = result.manifest["versions"]
        other = [each for each in {**versions, **theirs} if versions.get(each) != theirs.get(each)]
        if other:
            found.append(f"{name} was made with other versions than {first}: {', '.join(other)}")
    return found


# ----------------------------------------------------------------------------------------- verify


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RESULT...", help="By name or id (all).", show_default=False),
    ] = None,
    *,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Check every file of saved results against its hash; exit code 1 where one is not as saved."""
    from backtest.cli.results_text import format_checks  # noqa: PLC0415 - loads much
    from backtest.store import find_folder, list_folders, verify_folder  # noqa: PLC0415

    if names:
        folders = [find_folder(name, results) for name in names]
    else:
        folders = [results / name for name in list_folders(results)]
    checks = [verify_folder(folder) for folder in folders]
    checks = [each for each, place in zip(checks, folders, strict=True) if place.exists()]
    if as_json:
        print_json({"folder": str(results), "checked": [each.to_dict() for each in checks]})
    else:
        typer.echo(format_checks(checks))
    if any(each.faults for each in checks):
        raise typer.Exit(1)


# ----------------------------------------------------------------------------------------- export


def export(
    name: Name,
    *,
    out: Annotated[Path, option(OUTPUT, "FILE.zip, or a folder to put it in.", "--out")],
    csv: Annotated[bool, option(OUTPUT, "Its tables as CSV too, beside it.", "--csv")] = False,
    results: Results = RESULTS,
) -> None:
    """Hand a result on: an archive of the same bytes every time, or a folder; verified first."""
    from backtest.store import export_result, find_folder  # noqa: PLC0415 - loads much

    typer.echo(str(export_result(find_folder(name, results), out, with_csv=csv)))


for _name, _command, _examples in (
    ("list", list_, LIST_EXAMPLES),
    ("show", show, SHOW_EXAMPLES),
    ("compare", compare, COMPARE_EXAMPLES),
    ("verify", verify, VERIFY_EXAMPLES),
    ("prune", prune, results_prune_command.EXAMPLES),
    ("export", export, EXPORT_EXAMPLES),
):
    app.command(_name, help=format_help(_command, _examples))(_command)
