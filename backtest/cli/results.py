"""``backtest results``: list, show, verify, prune and export saved results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import ParameterError, call_later, format_time
from backtest.cli.command import RESULTS, AsJson, Command, Results, option
from backtest.cli.printing import (
    add_command,
    clean,
    format_help,
    print_json,
    print_paragraph,
    render,
    show_progress,
)

Text = Annotated[
    str, typer.Argument(help="Part of name, policy, data or note.", show_default=False)
]
Kind = Annotated[
    list[str] | None, option("run, sweep, study, cascade, ...; repeat for more.", "--kind")
]
PolicyPart = Annotated[str, option("Part of the policy's name or settings.", "--policy")]
Where = Annotated[list[str] | None, option("A bound on a measure: 'sharpe>1'; repeat for more.")]
SHOWN_ID, SHOWN_COMMIT, MOST_NAMED = 8, 12, 20
MEASURES = ("sharpe", "cagr", "max_drawdown")
USUAL = ("id", "kind", "policy", "data")
EXAMPLES = """
backtest results list --sort sharpe
backtest results prune --keep 100 --dry-run
"""
LIST_EXAMPLES = """
backtest results list btc --where 'sharpe>1' --where 'max_drawdown<=0.4' --since 7d
backtest results list --sort max_drawdown --top 20
"""
SHOW_EXAMPLES = """
backtest results show voltarget-0a1b2c3d4e5f6071
backtest results show 0a1b --json              [dim]# how the id begins[/dim]
"""
VERIFY_EXAMPLES = """
backtest results verify                        [dim]# all of results/[/dim]
backtest results verify 0a1b2c3d --json
"""
EXPORT_EXAMPLES = """
backtest results export 0a1b2c3d --out run.zip
backtest results export 0a1b2c3d --out shared/
"""

app = typer.Typer(rich_markup_mode="rich")

Name = Annotated[
    str,
    typer.Argument(
        metavar="RESULT", help="The result: the beginning of its name or id, or its folder."
    ),
]


def results() -> None:
    """List, show, verify, prune and export saved results."""


app.callback(help=format_help(results, EXAMPLES))(results)


def list_(
    text: Text = "",
    *,
    kind: Kind = None,
    policy: PolicyPart = "",
    where: Where = None,
    since: Annotated[
        str | None,
        option("Saved since a date (UTC), or 7d, 12h ago.", "--since"),
    ] = None,
    sort: Annotated[
        str,
        option("A measure, best first; or saved, name, kind, policy, size, seconds."),
    ] = "saved",
    is_reversed: Annotated[bool, option("Reverse the order.", "--reverse")] = False,
    top: Annotated[int | None, option("Show only this many.", "--top", min=1)] = None,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """List saved runs, sweeps, studies and comparisons, and why others cannot be read.

    A sweep shows the measures of its set with the highest Sharpe ratio, a study those of the set
    it chose, a comparison those of its policy with the highest log growth.
    """
    from backtest.store import list_results, sort_entries  # noqa: PLC0415 - loads much

    wanted = build_filter(text, kind, policy, where, since=since)
    sort_entries((), sort)  # an unknown word is an error before anything is read
    everything = list_results(results)
    found = sort_entries(filter(wanted.matches, everything), sort, is_reversed=is_reversed)
    shown = found[:top]
    unread = [each for each in everything if each.trouble]
    if as_json:
        lists = {"results": shown, "not_readable": unread}
        plain = {key: [each.to_dict() for each in each_list] for key, each_list in lists.items()}
        print_json({"folder": str(results), "found": len(found), **plain})
        return
    total = len(everything) - len(unread)
    if not everything:
        typer.echo(f"no results in {clean(str(results))}")
        return
    if shown:
        print_entries(shown, choose_columns(sort, [each.measure for each in wanted.bounds]))
    count = f"{total:,} result{'' if total == 1 else 's'}"
    count = count if len(found) == total else f"{len(found):,} of {count} match"
    typer.echo(f"\n{'' if shown == found else f'{len(shown):,} shown; '}{count}")
    print_unread(unread)


def choose_columns(sort: str, asked: Sequence[str]) -> list[str]:
    from backtest.store.listing import FIELDS  # noqa: PLC0415 - loads much

    first = [] if sort in FIELDS else [sort]
    return [*USUAL, *list(dict.fromkeys([*first, *asked, *MEASURES]))[:4], "saved"]


describe = call_later("backtest.store", "describe_note")
CELLS: dict[str, Callable[[Any], object]] = {
    "id": lambda each: each.id[:SHOWN_ID] if each.name.endswith(each.id) else each.name,
    "name": lambda each: each.name,
    "kind": lambda each: each.kind,
    "policy": lambda each: f"{each.policy} ({describe(each)})" if each.note else each.policy,
    "data": lambda each: f"{each.instrument or 'unnamed'} {each.interval}",
    "start": lambda each: each.start,
    "end": lambda each: each.end,
    "source": lambda each: each.source,
    "saved": lambda each: format_time(each.saved)[:16],
    "size": lambda each: f"{each.size / 1e6:,.2f} MB",
    "seconds": lambda each: each.seconds,
    "commit": lambda each: each.commit[:SHOWN_COMMIT] or None,
    "backtest_commit": lambda each: each.backtest_commit[:SHOWN_COMMIT] or None,
    "dirty": lambda each: each.is_dirty,
}


def print_entries(shown: Sequence[Any], columns: Sequence[str]) -> None:
    from backtest.measures import name_measure  # noqa: PLC0415 - loads much

    heads = [name if name in CELLS else name_measure(name) for name in columns]
    rows = [
        [
            CELLS[name](each) if name in CELLS else show_measure(name, each.metrics.get(name))
            for name in columns
        ]
        for each in shown
    ]
    render(rows, heads, cut=("policy", "data", "saved", "name", "source"))


def show_measure(name: str, value: float | None) -> str | None:
    from backtest.measures.measure_table import ABOUT  # noqa: PLC0415 - loads much
    from backtest.report import format_measure  # noqa: PLC0415

    if value is None or math.isnan(value):
        return None
    return format_measure(name, value) if name in ABOUT else f"{value:.6g}"


def print_unread(unread: Sequence[Any]) -> None:
    left = [each for each in unread if each.kind == "leftover"]
    for heading, entries in (
        ("not readable (see backtest results verify)", [e for e in unread if e not in left]),
        ("left by writers (backtest results prune --damaged deletes the dead ones)", left),
    ):
        if entries:
            typer.echo(f"\n{heading}: {len(entries):,}")
            print_named([f"{each.name}: {each.trouble}" for each in entries])


def print_named(lines: Sequence[str]) -> None:
    for each in lines[:MOST_NAMED]:
        print_paragraph(each)
    if len(lines) > MOST_NAMED:
        typer.echo(f"  and {len(lines) - MOST_NAMED:,} more: --json names all")


def show(name: Name, *, as_json: AsJson = False, results: Results = RESULTS) -> None:
    """Show one result: its facts, its measures, and the command that makes it again."""
    from backtest.base import describe_origin, making_to_json, read_provenance  # noqa: PLC0415 - loads much
    from backtest.measures import name_measure  # noqa: PLC0415
    from backtest.store import open_folder, read_usable  # noqa: PLC0415

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
    pairs: list[tuple[str, Any]] = [
        ("folder", str(folder)),
        *((name, str(read(entry))) for name, read in CELLS.items()),
    ]
    if entry.note:
        pairs.append(("note", describe(entry)))
    for label, each in (facts.get("policies") or {"": facts.get("policy", {})}).items():
        pairs.append((f"source hash {label}".strip(), each.get("source_hash", "")))
    pairs.append(("data hash", facts["data"]["content_hash"]))
    pairs += [(f"version of {name}", each) for name, each in facts["versions"].items()]
    pairs += [(name_measure(x), show_measure(x, each)) for x, each in entry.metrics.items()]
    render(pairs, ("of the result", ""))
    if origin.command:
        typer.echo(f"\nrun again by\n{clean(origin.command)}")
    for remark in origin.remarks:
        print_paragraph(remark, indent="")


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
    """Check every file of saved results against its hash; the exit code is 1 if one differs."""
    from backtest.store import (  # noqa: PLC0415 - loads much
        find_folder,
        list_folders,
        verify_folder,
    )

    if names:
        folders = [find_folder(name, results) for name in names]
    else:
        folders = [results / name for name in list_folders(results)]
    checks = [verify_folder(folder) for folder in folders]
    checks = [each for each, place in zip(checks, folders, strict=True) if place.exists()]
    if as_json:
        print_json({"folder": str(results), "checked": [each.to_dict() for each in checks]})
    else:
        print_checks(checks)
    if any(each.faults for each in checks):
        raise typer.Exit(1)


def print_checks(checks: Sequence[Any]) -> None:
    from backtest.store import list_kinds  # noqa: PLC0415 - loads much

    for each in checks:
        for word, found in (("DAMAGED", each.faults), ("note   ", each.remarks)):
            for name, what in found:
                place = "" if name == "." else f"{name} "
                print_paragraph(f"{word} {each.name}: {place}{what}", indent="")
    bad = sum(bool(each.faults) for each in checks)
    files = sum(each.files for each in checks)
    whole = sum(not each.faults and each.kind in list_kinds() for each in checks)
    typer.echo(f"{whole:,} whole, {bad:,} damaged; {files:,} files checked")


def export(
    name: Name,
    *,
    out: Annotated[Path, option("FILE.zip, or a folder to put it in.", "--out")],
    results: Results = RESULTS,
) -> None:
    """Verify a result, and export it as an archive or a folder."""
    from backtest.store import export_result, find_folder  # noqa: PLC0415 - loads much

    typer.echo(str(export_result(find_folder(name, results), out)))


# ------------------------------------------------------------------------------------------ prune

PRUNE_EXAMPLES = """
backtest results prune --older-than 30d --kind run --where 'sharpe<0.5' --dry-run
backtest results prune --damaged --yes         [dim]# only unreadable ones[/dim]
"""


def prune(
    text: Text = "",
    *,
    keep: Annotated[int | None, option("Keep this many of the newest.", "--keep", min=0)] = None,
    older_than: Annotated[
        str | None, option("Saved before a date (UTC), or 30d ago.", "--older-than")
    ] = None,
    unfinished: Annotated[
        bool,
        option("Also studies and validations that could be resumed.", "--unfinished"),
    ] = False,
    damaged: Annotated[
        bool,
        option("Also damaged results, and those that were being replaced.", "--damaged"),
    ] = False,
    kind: Kind = None,
    policy: PolicyPart = "",
    where: Where = None,
    dry_run: Annotated[bool, option("Only list what would be deleted.", "--dry-run")] = False,
    yes: Annotated[bool, option("Do not ask.", "--yes", "-y")] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Delete saved results: lists them and asks first. Unreadable ones stay without --damaged.

    What a killed process left half written or half deleted always goes.

    Only folders with a readable manifest or study and its id are deleted; others are listed.
    """
    from backtest.store import Filter, choose_deletions, delete_chosen  # noqa: PLC0415 - loads much

    wanted = build_filter(text, kind, policy, where, before=older_than)
    is_only_marked = keep is None and wanted == Filter()
    if is_only_marked and not (damaged or unfinished):
        raise ParameterError(
            "prune needs a flag that chooses what to delete, got none: a filter, --keep, "
            "--older-than, --unfinished or --damaged; --keep 0 deletes all"
        )
    if as_json and not (yes or dry_run):
        raise ParameterError("--json cannot ask: give --yes or --dry-run too")
    chosen, kept = choose_deletions(
        results,
        None if is_only_marked else wanted,
        keep=keep or 0,
        with_unfinished=unfinished,
        with_damaged=damaged,
    )
    if not as_json:
        print_deletions(chosen)
        for each in kept:
            print_paragraph(f"left, not known to be a result: {each.name}  {each.why}")
    is_agreed = bool(chosen) and not dry_run and (yes or confirm_deletion(len(chosen)))
    deleted, left = delete_chosen(results, chosen) if is_agreed else ([], [])
    if as_json:
        print_json(
            {
                "chosen": [each.name for each in chosen],
                "deleted": deleted,
                "left": left,
                "not_ours": [each._asdict() for each in kept],
            }
        )
        return
    for name in left:
        typer.echo(f"left, it is in use: {name!r}")
    if chosen and not dry_run:
        typer.echo(f"deleted {len(deleted):,}" if is_agreed else "nothing was deleted")


def print_deletions(to_delete: Sequence[Any]) -> None:
    from backtest.store import count_kinds  # noqa: PLC0415 - loads much

    if not to_delete:
        typer.echo("nothing to delete")
        return
    size = sum(each.size for each in to_delete) / 1e6
    typer.echo(f"to delete: {count_kinds(to_delete)}, {size:,.2f} MB")
    print_named(
        [
            f"{each.name}  {format_time(each.saved)[:10]}  {each.trouble or each.policy}"
            for each in to_delete
        ]
    )


def confirm_deletion(n: int) -> bool:
    try:
        return typer.confirm(f"delete {n:,} for good?", default=False)
    except typer.Abort as error:
        typer.echo()
        raise ParameterError(
            "prune asks before it deletes, and got no answer: nothing was deleted; "
            "--yes does not ask"
        ) from error


def build_filter(
    text: str,
    kind: list[str] | None,
    policy: str,
    where: list[str] | None,
    *,
    since: str | None = None,
    before: str | None = None,
) -> Any:
    from backtest.store import Filter, read_bound, read_kinds, read_time_or_age  # noqa: PLC0415

    now = time.time_ns()
    wanted = Filter(read_kinds(kind or ()), policy, text, tuple(map(read_bound, where or ())))
    if since is not None:
        wanted = wanted._replace(since=read_time_or_age(since, now, where="since"))
    if before is not None:
        wanted = wanted._replace(before=read_time_or_age(before, now, where="older_than"))
    return wanted


# ----------------------------------------------------------------------------------------- report

REPORT_EXAMPLES = """
backtest report 0a1b2c3d --format md    [dim]# by its id, or how that begins[/dim]
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
        bool, option("All results in --results, with an index.html in --out.", "--all")
    ] = False,
    out: Annotated[
        Path | None,
        option(
            "The file to write (NAME.html here); a folder for several (reports with --all).",
            "--out",
        ),
    ] = None,
    format_: Annotated[str | None, option("html (default), md or json.", "--format")] = None,
    objective: Annotated[
        str, option("The measure that the report of a sweep ranks its sets by (sharpe).")
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
    with show_progress("pages", "results") as progress:
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


add_command(app, "list", list_, LIST_EXAMPLES)
add_command(app, "show", show, SHOW_EXAMPLES)
add_command(app, "verify", verify, VERIFY_EXAMPLES)
add_command(app, "prune", prune, PRUNE_EXAMPLES)
add_command(app, "export", export, EXPORT_EXAMPLES)
COMMANDS = {"results": app, "report": Command(report, REPORT_EXAMPLES)}
