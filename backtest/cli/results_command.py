"""``backtest results``: list, show, compare, diff, verify, prune and export saved results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import ParameterError
from backtest.cli import results_prune_command
from backtest.cli.compare_command import print_comparison
from backtest.cli.flags import OUTPUT, RESULTS, AsJson, Results, option
from backtest.cli.printing import add_command, format_help, print_json, print_table
from backtest.cli.results_prune_command import (
    FILTER,
    WHAT,
    Kind,
    PolicyPart,
    Text,
    Where,
    build_filter,
)

ORDER = "Order"
SHOWN_ID = 8
EXAMPLES = """
backtest results list --sort sharpe
backtest results show 0a1b2c3d
backtest results compare 0a1b2c3d 77aa8cc5
backtest results diff 0a1b2c3d 77aa8cc5
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
DIFF_EXAMPLES = """
backtest results diff 0a1b2c3d 77aa8cc5        [dim]# two stress tests, two walks ...[/dim]
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
    typer.Argument(
        metavar="RESULT", help="The result: the beginning of its name or id, or its folder."
    ),
]


def results() -> None:
    """List, show, compare, diff, verify, prune and export saved results."""


app.callback(help=format_help(results, EXAMPLES))(results)


def list_(
    text: Text = "",
    *,
    kind: Kind = None,
    policy: PolicyPart = "",
    where: Where = None,
    since: Annotated[
        str | None,
        option(FILTER, "Saved since a date (UTC), or 7d, 12h ago.", "--since"),
    ] = None,
    sort: Annotated[
        str, option(ORDER, "A measure, best first; or saved, name, kind, policy, size, seconds.")
    ] = "saved",
    is_reversed: Annotated[bool, option(ORDER, "Reverse the order.", "--reverse")] = False,
    top: Annotated[int | None, option(ORDER, "Show only this many.", "--top")] = None,
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
        bool, option(OUTPUT, "Read every folder, without the index of an earlier list.", "--fresh")
    ] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """List saved runs, sweeps, studies and comparisons, and why others cannot be read.

    A sweep shows the measures of its set with the highest Sharpe ratio, a study those of the set
    it chose, a comparison those of its policy with the highest log growth.
    """
    from backtest.cli import results_text  # noqa: PLC0415 - as below
    from backtest.store import list_results, sort_entries  # noqa: PLC0415 - loads much

    wanted = build_filter(text, kind, policy, where, since=since)
    if top is not None and top < 1:
        raise ParameterError(f"top must be 1 or more, got {top}")
    bounds = [bound.measure for bound in wanted.bounds]
    usual = [*results_text.USUAL, *results_text.list_measures(sort, bounds), "saved"]
    named = usual if columns is None else results_text.read_columns(columns)
    sort_entries((), sort)  # an unknown word is an error before anything is read
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
    typer.echo(results_text.format_list(shown, named, unread, len(found), total, results))


def show(name: Name, *, as_json: AsJson = False, results: Results = RESULTS) -> None:
    """Show one result: its facts, its measures, and the command that makes it again."""
    from backtest.base import describe_origin, making_to_json, read_provenance  # noqa: PLC0415 - loads much
    from backtest.cli.results_text import format_result  # noqa: PLC0415 - loads much
    from backtest.store import open_folder, read_usable  # noqa: PLC0415 - loads much

    folder, entry = read_usable(name, results)
    _, facts = open_folder(folder)
    making = read_provenance(folder, entry.id)
    origin = describe_origin(facts, making)
    if as_json:
        again = {"command": origin.command or None, "remarks": list(origin.remarks)}
        made = None if making is None else making_to_json(making)
        shown = {"path": str(folder), **entry.to_dict(), "again": again, "made": made}
        print_json({**shown, "manifest": facts})
        return
    typer.echo(format_result(folder, entry, facts, making, origin))


def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs by name or id, or LABEL=RUN to label one."),
    ],
    *,
    baseline: Annotated[
        str | None,
        option(WHAT, "The run that the others are compared with (the first).", "--baseline"),
    ] = None,
    confidence: Annotated[
        float, option(WHAT, "Confidence of intervals and decisions (0.95).", "--confidence")
    ] = 0.95,
    draws: Annotated[int, option(WHAT, "Number of resampled histories (1999).", "--draws")] = 1_999,
    seed: Annotated[int, option(WHAT, "Seed of the histories (0).", "--seed")] = 0,
    save: Annotated[bool, option(OUTPUT, "Save the comparison.", "--save/--no-save")] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Compare saved runs of the same market and terms, without running them again."""
    import backtest  # noqa: PLC0415 - loads much

    named = load_runs(names, results)
    terms: dict[str, Any] = {"confidence": confidence, "draws": draws, "seed": seed}
    done = backtest.compare(named, baseline=baseline, **terms)
    warn_of_other_versions(named)
    print_comparison(done, results if save else None, as_json=as_json)


def load_runs(names: list[str], results: Path) -> dict[str, Any]:
    from backtest.store import load_saved  # noqa: PLC0415 - loads much

    given = [split_label(each, results) for each in names]
    folders = [find_run(name, results) for _, name in given]
    twice = [each.name for each in folders if folders.count(each) > 1]
    if twice:
        raise ParameterError(f"each run must be named once, {twice[0]} was named twice")
    loaded: list[Any] = [load_saved(folder) for folder in folders]
    titles = [name_run(each, loaded) for each in loaded]
    labels = [label or title for (label, _), title in zip(given, titles, strict=True)]
    if len(set(labels)) < len(labels):
        raise ParameterError(
            f"the names of runs must be different, got {', '.join(labels)}; label them: "
            "calm=0a1b2c3d bold=77aa8cc5"
        )
    return dict(zip(labels, loaded, strict=True))


def name_run(result: Any, others: Sequence[Any]) -> str:
    """Return the policy of a run, with the run's id where several have the same policy."""
    names = [str(each.manifest["policy"]["name"]) for each in others]
    name = str(result.manifest["policy"]["name"])
    return name if names.count(name) == 1 else f"{name} {result.manifest['id'][:SHOWN_ID]}"


def split_label(text: str, results: Path) -> tuple[str, str]:
    label, equals, name = text.partition("=")
    return (label, name) if equals and not (results / text).exists() else ("", text)


def find_run(name: str, results: Path) -> Path:
    from backtest.store import read_usable  # noqa: PLC0415 - loads much

    folder, entry = read_usable(name, results)
    if entry.kind not in ("run", "portfolio"):
        raise ParameterError(f"only runs can be compared, {folder.name} is a {entry.kind}")
    return folder


def warn_of_other_versions(named: dict[str, Any]) -> None:
    (first, one), *rest = named.items()
    versions = one.manifest["versions"]
    for name, result in rest:
        theirs = result.manifest["versions"]
        other = [each for each in {**versions, **theirs} if versions.get(each) != theirs.get(each)]
        if other:
            text = f"{name} was made with other versions than {first}: {', '.join(other)}"
            typer.echo(f"warning: {text}", err=True)


def diff(
    before: Name,
    after: Name,
    *,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Show the headline numbers of two saved results of one kind, and which are better."""
    from backtest.base import list_changes  # noqa: PLC0415 - loads pandas
    from backtest.store import load_saved, read_usable  # noqa: PLC0415 - loads much

    (first, entry), (second, other) = (read_usable(name, results) for name in (before, after))
    if entry.kind != other.kind or entry.kind in ("run", "portfolio", "study"):
        raise ParameterError(
            f"a diff needs two results of one kind, got a {entry.kind} and a {other.kind}"
        )
    loaded: list[Any] = [load_saved(folder) for folder in (first, second)]
    changes = list_changes(*(each.list_numbers() for each in loaded))
    if as_json:
        rows = changes.reset_index(names="name").to_dict("records")
        print_json(
            {"kind": entry.kind, "before": first.name, "after": second.name, "numbers": rows}
        )
        return
    for folder, each in zip((first, second), loaded, strict=True):
        typer.echo(f"{folder.name}: {each.verdict}")
    columns = ("number", "before", "after", "is")
    print_table(columns, changes[list(columns)].to_numpy().tolist(), right=columns[1:3])


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RESULT...", help="Results by name or id (all).", show_default=False
        ),
    ] = None,
    *,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Check every file of saved results against its hash; the exit code is 1 if one differs.

    Without names, the records of looks at holdouts and of tried sets are checked too.
    """
    from backtest.cli.results_text import format_checks  # noqa: PLC0415 - loads much
    from backtest.store import (  # noqa: PLC0415 - loads much
        find_folder,
        list_folders,
        verify_folder,
        verify_records,
    )

    if names:
        folders = [find_folder(name, results) for name in names]
    else:
        folders = [results / name for name in list_folders(results)]
    checks = [verify_folder(folder) for folder in folders]
    checks = [each for each, place in zip(checks, folders, strict=True) if place.exists()]
    checks += [] if names else verify_records(results)
    if as_json:
        print_json({"folder": str(results), "checked": [each.to_dict() for each in checks]})
    else:
        typer.echo(format_checks(checks))
    if any(each.faults for each in checks):
        raise typer.Exit(1)


def export(
    name: Name,
    *,
    out: Annotated[Path, option(OUTPUT, "FILE.zip, or a folder to put it in.", "--out")],
    csv: Annotated[bool, option(OUTPUT, "Also write its tables as CSV.", "--csv")] = False,
    results: Results = RESULTS,
) -> None:
    """Verify a result, and export it as an archive, the same bytes every time, or as a folder."""
    from backtest.store import export_result, find_folder  # noqa: PLC0415 - loads much

    typer.echo(str(export_result(find_folder(name, results), out, with_csv=csv)))


add_command(app, "list", list_, LIST_EXAMPLES)
add_command(app, "show", show, SHOW_EXAMPLES)
add_command(app, "compare", compare, COMPARE_EXAMPLES)
add_command(app, "diff", diff, DIFF_EXAMPLES)
add_command(app, "verify", verify, VERIFY_EXAMPLES)
add_command(app, "prune", results_prune_command.prune, results_prune_command.EXAMPLES)
add_command(app, "export", export, EXPORT_EXAMPLES)
COMMAND = app
