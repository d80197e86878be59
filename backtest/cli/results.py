"""``backtest results`` and ``report``: list, show, verify, prune and report results."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest import core
from backtest import report as reports
from backtest.cli import printing
from backtest.cli.command import RESULTS, AsJson, Results, Text, Texts, argument, command, option
from backtest.cli.experiment import draft_experiment, read_bound, read_entry, split_pair
from backtest.cli.printing import clean, print_json, print_paragraph, render, show_progress
from backtest.core import ParameterError, format_time
from backtest.experiments.policy_names import read_policy
from backtest.market import Market, find_sources
from backtest.results import listing, name_measure, read_constraints, selection, upkeep
from backtest.results.listing import KINDS
from backtest.results.measure_table import ABOUT

MEASURES = ("total_return", "sharpe", "max_drawdown")
READING = ("funding_gaps", "mark_gaps", "now", "sessions", "timezone")
"""Keys of ``[data]`` that say how data are read."""
FORECASTS = ("judgement", "liquidation-risk", "max-leverage", "margin-calibration")
"""Kinds of results that forecast probabilities."""
NARROW = 110
"""Columns of a terminal up to which a list shows only what distinguishes rows."""

Name = Annotated[
    str, argument("The result: the beginning of its name or id, or its folder.", "RESULT")
]
SHOWN_ID = 8
SHOWN_COMMIT = 12
MAX_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The flags that choose results by what they are."""

    text: Annotated[str, argument("Part of name, policy, data or note.")] = ""
    kind: Annotated[
        Texts, option("run, sweep, study, cascade, ...; repeat for more.", "--kind")
    ] = None
    policy: Annotated[str, option("Part of the policy's name or settings.", "--policy")] = ""
    where: Annotated[Texts, option("A bound on a measure: 'sharpe>1'; repeat for more.")] = None

    def build(self, **times: str | None) -> Any:
        """Return the filter of results; ``times`` are dates, or ages from now."""
        now = time.time_ns()
        bounds = []
        for text in self.where or ():
            measure, bound = read_bound(text)
            bounds.append(read_constraints({measure: bound})[-1])

        stamps = {}
        for name, age in times.items():
            if age:
                stamps[name] = selection.read_time_or_age(age, now, where=name)
        return selection.Filter(
            selection.read_kinds(self.kind or ()),
            policy=self.policy,
            text=self.text,
            bounds=tuple(bounds),
            **stamps,
        )


@command("results list")
def list_(
    wanted: Wanted,
    *,
    since: Annotated[Text, option("Saved since a date (UTC), or 7d, 12h ago.", "--since")] = None,
    sort: Annotated[
        str, option("A measure, best first; or saved, name, kind, policy, size, seconds.")
    ] = "saved",
    is_reversed: Annotated[bool, option("Reverse the order.", "--reverse")] = False,
    top: Annotated[int | None, option("Show only this many.", "--top", min=1)] = None,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """List saved runs, sweeps, studies and comparisons, and why others cannot be read.

    A sweep shows the measures of its set with the highest Sharpe ratio, a study those of the set
    it chose, a comparison those of its policy with the highest log growth.

    backtest results list btc --where 'sharpe>1' --where 'max_drawdown<=0.4' --since 7d
    backtest results list --sort max_drawdown --top 20
    """
    chosen = wanted.build(since=since)
    selection.sort_entries((), sort)  # an unknown word is an error before anything is read
    everything = listing.list_results(results)
    matching = [entry for entry in everything if chosen.matches(entry)]
    matching = selection.sort_entries(matching, sort, is_reversed=is_reversed)
    shown = matching[:top]
    unread = [entry for entry in everything if entry.trouble]
    if as_json:
        content = {
            "folder": str(results),
            "found": len(matching),
            "results": [entry.to_dict() for entry in shown],
            "not_readable": [entry.to_dict() for entry in unread],
        }
        print_json(content)
        return

    if not everything:
        typer.echo(f"no results in {clean(str(results))}")
        return
    if shown:
        asked = [bound.name for bound in chosen.bounds]
        if sort not in CELLS:
            asked.insert(0, sort)
        render_entries(shown, asked)

    n_readable = len(everything) - len(unread)
    count = describe_count(len(matching), n_readable)
    if len(shown) < len(matching):
        count = f"{len(shown):,} shown; {count}"
    typer.echo(f"\n{count}")
    print_unread(unread)


def render_entries(entries: Sequence[Any], asked: Sequence[str]) -> None:
    """Print a list of results, with the measures asked for; a narrow terminal has few others."""
    is_wide = printing.get_width() > NARROW
    columns = choose_columns(asked, is_wide=is_wide)
    heads = []
    for name in columns:
        head = name_measure(name)
        if name in CELLS:
            head = name
        if not is_wide:
            head = head.removeprefix("total ")
        heads.append(head)

    rows = [show_cells(entry, columns) for entry in entries]

    fold = ["policy", "name", "source"]
    if asked:
        fold.append("market")
    render(rows, heads, fold=fold)


def choose_columns(asked: Sequence[str], *, is_wide: bool) -> list[str]:
    """Return the columns of a list of results: the usual ones, and what was asked for, once."""
    columns = ["id", "policy", "market"]
    if is_wide:
        columns += ["saved", *MEASURES]
    elif not asked:
        columns += ["day", MEASURES[0]]

    columns = list(dict.fromkeys([*columns, *asked]))
    if is_wide:
        columns.append("kind")
    return columns


def describe_count(n_matching: int, total: int) -> str:
    """Return how many results there are, and how many of them match if not all do."""
    count = core.count_nouns(total, "result")
    if n_matching == total:
        return count
    return f"{n_matching:,} of {count} match"


def print_unread(unread: Sequence[Any]) -> None:
    """Name the results that cannot be read, and then what killed processes left."""
    damaged = [entry for entry in unread if entry.kind != "leftover"]
    leftovers = [entry for entry in unread if entry.kind == "leftover"]
    print_entries("not readable (see backtest results verify)", damaged)
    print_entries(
        "unfinished writes (backtest results prune --damaged deletes those abandoned)", leftovers
    )


def print_entries(heading: str, entries: Sequence[Any]) -> None:
    if not entries:
        return
    typer.echo(f"\n{heading}: {len(entries):,}")
    print_named([f"{entry.name}: {entry.trouble}" for entry in entries])


def write_policy(entry: Any) -> str:
    """Return the policy of a saved result, and its note if it has one."""
    if not entry.note:
        return str(entry.policy).strip()
    return f"{entry.policy} ({listing.describe_note(entry)})".strip()


def write_id(entry: Any) -> str:
    """Return the beginning of an id; the name of a folder that is not called by its id."""
    if entry.name.endswith(entry.id):
        return str(entry.id[:SHOWN_ID])
    return str(entry.name)


CELLS: dict[str, Callable[[Any], object]] = {
    "id": write_id,
    "name": lambda entry: entry.name,
    "kind": lambda entry: entry.kind,
    "policy": write_policy,
    "market": lambda entry: f"{entry.instrument or 'unnamed'} {entry.interval}",
    "start": lambda entry: entry.start,
    "end": lambda entry: entry.end,
    "source": lambda entry: entry.source,
    "saved": lambda entry: format_time(entry.saved)[:16],
    "day": lambda entry: format_time(entry.saved)[:10],
    "size": lambda entry: f"{entry.size / 1e6:,.2f} MB",
    "seconds": lambda entry: entry.seconds,
    "commit": lambda entry: entry.commit[:SHOWN_COMMIT] or None,
    "backtest_commit": lambda entry: entry.backtest_commit[:SHOWN_COMMIT] or None,
    "dirty": lambda entry: entry.is_dirty,
}


def show_cell(entry: Any, name: str) -> object:
    """Return a fact or a measure of a saved result as a cell, None where it has none."""
    if name in CELLS:
        return CELLS[name](entry)

    value = entry.find_shown(name)
    if value is None or math.isnan(value):
        return None
    if name in ABOUT:
        return reports.format_measure(name, value)
    return f"{value:.6g}"


def show_cells(entry: Any, names: Sequence[str]) -> list[object]:
    """Return a row of a list of results."""
    return [show_cell(entry, name) for name in names]


def print_named(lines: Sequence[str]) -> None:
    for line in lines[:MAX_NAMED]:
        print_paragraph(line)
    if len(lines) > MAX_NAMED:
        typer.echo(f"  and {len(lines) - MAX_NAMED:,} more: --json names all")


@command("results show")
def show(name: Name, *, as_json: AsJson = False, results: Results = RESULTS) -> None:
    """Show one result: its facts, its measures, and the command that makes it again.

    backtest results show voltarget-0a1b2c3d4e5f6071
    backtest results show 0a1b --json              [dim]# how the id begins[/dim]
    """
    folder, entry = listing.read_usable(name, results)
    _, facts = listing.open_folder(folder)
    provenance = core.read_provenance(folder, entry.id)
    origin = listing.describe_origin(facts, provenance)
    if as_json:
        made = None
        if provenance is not None:
            made = provenance._asdict()
        content = {
            "path": str(folder),
            **entry.to_dict(),
            "again": {
                "command": origin.command or None,
                "remarks": list(origin.remarks),
            },
            "made": made,
            "manifest": facts,
        }
        print_json(content)
        return

    rows = [("folder", str(folder)), *list_facts(entry, facts)]
    rows += [(name_measure(measure), show_cell(entry, measure)) for measure in entry.shown_metrics]
    render(rows, ("of the result", ""))
    if origin.command:
        typer.echo(f"\nrun again by\n{clean(origin.command)}")
    for remark in origin.remarks:
        print_paragraph(remark, indent="")


def list_facts(entry: Any, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what is known of a saved result by name: its cells, its hashes, its versions."""
    for name, read in CELLS.items():
        yield name, str(read(entry))

    # A result of one policy has no labels.
    policies = facts.get("policies")
    if not policies:
        policies = {"": facts.get("policy", {})}
    for label, policy in policies.items():
        yield f"source hash {label}".strip(), policy.get("source_hash", "")
    yield "data hash", facts["data"]["content_hash"]
    for name, version in facts["versions"].items():
        yield f"version of {name}", version


def find_folders(names: Sequence[str] | None, results: Path) -> list[Path]:
    """Return the folders of named results, without names those of all."""
    if names:
        return [listing.find_folder(name, results) for name in names]
    return [results / name for name in listing.list_folders(results)]


@command("results verify")
def verify(
    names: Annotated[Texts, argument("Results by name or id (all).", "RESULT...")] = None,
    *,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Check every file of saved results against its hash; the exit code is 1 if one differs.

    backtest results verify                        [dim]# all of results/[/dim]
    backtest results verify 0a1b2c3d --json
    """
    checks = []
    for folder in find_folders(names, results):
        check = upkeep.verify_folder(folder)
        if folder.exists():  # another process may have deleted it meanwhile
            checks.append(check)

    n_damaged = sum(bool(check.faults) for check in checks)
    if as_json:
        print_json({"folder": str(results), "checked": [check.to_dict() for check in checks]})
    else:
        for check in checks:
            print_lines("DAMAGED", check.name, check.faults)
            print_lines("note   ", check.name, check.remarks)
        n_files = sum(check.files for check in checks)
        n_whole = sum(not check.faults and check.kind in KINDS for check in checks)
        typer.echo(f"{n_whole:,} whole, {n_damaged:,} damaged; {n_files:,} files checked")
    if n_damaged:
        raise typer.Exit(1)


def print_lines(word: str, name: str, lines: Sequence[tuple[str, str]]) -> None:
    """Print what was found of the files of a result; "." is the folder itself."""
    for file, text in lines:
        what = text
        if file != ".":
            what = f"{file} {text}"
        print_paragraph(f"{word} {name}: {what}", indent="")


@command("results prune")
def prune(
    wanted: Wanted,
    *,
    keep: Annotated[int | None, option("Keep this many of the newest.", "--keep", min=0)] = None,
    older_than: Annotated[
        Text, option("Saved before a date (UTC), or 30d ago.", "--older-than")
    ] = None,
    unfinished: Annotated[
        bool, option("Also studies and validations that could be resumed.", "--unfinished")
    ] = False,
    damaged: Annotated[
        bool, option("Also damaged results, and those that were being replaced.", "--damaged")
    ] = False,
    dry_run: Annotated[bool, option("Only list what would be deleted.", "--dry-run")] = False,
    yes: Annotated[bool, option("Skip the confirmation.", "--yes", "-y")] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Delete saved results after a list and a confirmation; unreadable ones only with --damaged.

    Half-written and half-deleted results of killed processes are always deleted.

    Only folders with a readable manifest or study and its id are deleted; others are listed.

    backtest results prune --older-than 30d --kind run --where 'sharpe<0.5' --dry-run
    backtest results prune --damaged --yes         [dim]# only unreadable ones[/dim]
    """
    # Without a filter and --keep, only what is damaged or unfinished is deleted.
    chosen_by = wanted.build(before=older_than)
    if keep is None and chosen_by == selection.Filter():
        chosen_by = None
    if chosen_by is None and not (damaged or unfinished):
        raise ParameterError(
            "prune needs a flag that chooses what to delete, got none: a filter, --keep, "
            "--older-than, --unfinished or --damaged; --keep 0 deletes all"
        )
    if as_json and not (yes or dry_run):
        raise ParameterError("--json has no prompt: add --yes or --dry-run")

    chosen, kept = upkeep.choose_deletions(
        results,
        chosen_by,
        keep=keep or 0,
        with_unfinished=unfinished,
        with_damaged=damaged,
    )
    if not as_json:
        print_choice(chosen, kept)

    is_agreed = bool(chosen) and not dry_run
    if is_agreed and not yes:
        is_agreed = confirm_deletion(len(chosen))
    deleted: Sequence[str] = []
    left: Sequence[str] = []
    if is_agreed:
        deleted, left = upkeep.delete_chosen(results, chosen)

    if as_json:
        content = {
            "chosen": [entry.name for entry in chosen],
            "deleted": deleted,
            "left": left,
            "not_ours": [entry._asdict() for entry in kept],
        }
        print_json(content)
        return
    for name in left:
        typer.echo(f"left, it is in use: {name!r}")
    if is_agreed:
        typer.echo(f"deleted {len(deleted):,}")
    elif chosen and not dry_run:
        typer.echo("nothing was deleted")


def print_choice(chosen: Sequence[Any], kept: Sequence[Any]) -> None:
    """List what would be deleted, and what is left because it is not known to be a result."""
    if not chosen:
        typer.echo("nothing to delete")
    else:
        size = sum(entry.size for entry in chosen) / 1e6
        typer.echo(f"to delete: {listing.count_kinds(chosen)}, {size:,.2f} MB")

    lines = []
    for entry in chosen:
        day = format_time(entry.saved)[:10]
        lines.append(f"{entry.name}  {day}  {entry.trouble or entry.policy}")
    print_named(lines)
    for entry in kept:
        print_paragraph(f"left, not known to be a result: {entry.name}  {entry.why}")


def confirm_deletion(count: int) -> bool:
    try:
        return typer.confirm(f"delete {count:,} for good?", default=False)
    except typer.Abort as error:
        typer.echo()
        raise ParameterError(
            "prune needs a confirmation, got none: nothing was deleted; --yes skips it"
        ) from error


@command("report")
def report(
    names: Annotated[
        Texts,
        argument(
            "A saved result, or two side by side: folders, or the beginnings of names or ids "
            "in --results.",
            "RUN",
        ),
    ] = None,
    *,
    everything: Annotated[
        bool, option("All results in --results, with an index.html in --out.", "--all")
    ] = False,
    out: Annotated[
        Path | None,
        option(
            "The file to write, or the folder of NAME.html (here; reports with --all).",
            "--out",
        ),
    ] = None,
    format_: Annotated[Text, option("html (default), md or json.", "--format")] = None,
    objective: Annotated[
        str, option("The measure that the report of a sweep ranks its sets by (sharpe).")
    ] = "sharpe",
    results: Results = RESULTS,
) -> None:
    """Write a report: one file that works offline, with charts, tables and assumptions.

    backtest report 0a1b2c3d --format md    [dim]# by its id, or how that begins[/dim]
    backtest report 0a1b2c3d 4e5f6a7b       [dim]# two results side by side[/dim]
    backtest report --all --out pages       [dim]# every result, and pages/index.html[/dim]
    """
    if everything:
        if names or format_ not in (None, "html"):
            raise ParameterError(
                "--all writes HTML of every result: leave out names and another format"
            )
        write_all_pages(results, out or Path("reports"), objective)
        return

    if not names:
        raise ParameterError(
            "name a saved result, which `backtest results list` shows, or give --all"
        )
    if len(names) > 2:
        raise ParameterError(
            f"a report is of one result, or of two side by side, got {len(names)}; --all writes a "
            "page of each"
        )

    folders = [listing.find_folder(name, results) for name in names]
    target = out or Path()
    chosen = reports.choose_format(target, format_)
    if out is None or out.is_dir():
        stem = "-against-".join(folder.resolve().name for folder in folders)
        target = target / f"{stem}.{chosen}"

    if len(folders) == 2:
        first, second = folders
        written = reports.write_pair((first, second), target, chosen)
    else:
        written = reports.write_saved_page(folders[0], target, chosen, objective)
    typer.echo(str(written))


def write_all_pages(results: Path, folder: Path, objective: str) -> None:
    """Write a page of every result, and warn of those that have none."""
    with show_progress("pages", "results") as progress:
        rows = reports.write_all(results, folder, objective, progress)
    for row in rows:
        trouble = row["entry"].trouble
        if trouble:
            typer.echo(f"warning: {row['name']} has no page: {trouble}", err=True)
    typer.echo(str(folder / "index.html"))


@command("results score")
def score(
    names: Annotated[Texts, argument("Results by name or id (all).", "RESULT...")] = None,
    *,
    data: Annotated[
        Texts, option("Data of a market that begin before the forecasts; repeat.", "--data")
    ] = None,
    instrument: Annotated[
        Texts, option("Which instruments of a folder with several; repeat.", "--instrument")
    ] = None,
    since: Annotated[
        str | None, option("First bar to read, UTC.", "--from", metavar="DATE")
    ] = None,
    until: Annotated[
        str | None, option("End of the last bar, UTC.", "--to", metavar="DATE")
    ] = None,
    policy: Annotated[
        Texts, option("Location of a policy of your own, FILE.py:Class; repeat.", "--policy")
    ] = None,
    reading: Annotated[
        Texts,
        option(
            "How data are read: data.mark_gaps=last; repeat.", "--set", metavar="data.KEY=VALUE"
        ),
    ] = None,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """List saved forecasts whose horizon has passed, and the outcome of each.

    Forecasts are those of judge, risk, risk --find-leverage and margin --solve. Data must begin
    before them, so that what a policy observes is known.

    backtest results score --data btc/ --data eth/
    backtest results score 0a1b2c3d --data btc/ --policy steady.py:Steady
    """
    from backtest.judgement.outcomes import find_outcome, list_forecasts  # noqa: PLC0415 - alone

    terms = read_data_terms(reading or [])
    markets = load_markets(data or [], instrument or [], since=since, until=until, **terms)
    read_named = partial(read_saved_policy, policy or [])
    rows: list[dict[str, Any]] = []
    unscored: list[str] = []
    waiting = 0
    for folder in find_folders(names, results):
        for forecast in list_forecasts(load_forecasts(folder)):
            with show_progress(f"results score: {folder.name}"):
                outcome = find_outcome(forecast, markets, read_named)
            if outcome is None:
                waiting += 1
            elif outcome.came is None:
                unscored.append(f"{folder.name}, {forecast.name}: not scored, {outcome.why}")
            else:
                rows.append(outcome.to_dict() | {"result": folder.name})

    if as_json:
        content = {
            "folder": str(results),
            "passed": rows,
            "not_scored": unscored,
            "not_yet": waiting,
        }
        print_json(content)
        return

    if rows:
        render_outcomes(rows)
    passed = core.count_nouns(len(rows), "forecast")
    typer.echo(f"{passed} whose horizon has passed; {waiting:,} have not, or are of other markets")
    print_named(unscored)


def render_outcomes(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print forecasts and the outcome of each, and then how often it came true."""
    heads = ["result", "market", "made", "forecast", "probability", "came true"]
    cells = []
    for row in rows:
        probability = core.format_chance(row["told"])
        came = "yes" if row["came"] else "no"
        cells.append(
            [
                row["result"],
                row["instrument"],
                row["made"],
                row["forecast"],
                probability,
                came,
            ]
        )
    render(cells, heads, fold=("result", "forecast"))

    mean = sum(row["told"] for row in rows) / len(rows)
    n_came = sum(row["came"] for row in rows)
    typer.echo(
        f"\nforecast {core.format_chance(mean)} on average, {n_came:,} of {len(rows):,} came true"
    )


def load_forecasts(folder: Path) -> Any:
    """Return the result of a folder if it may hold forecasts, else None."""
    entry = listing.read_entry(folder)
    if entry.kind not in FORECASTS or entry.trouble:
        return None
    return listing.load_saved(folder)


def read_data_terms(texts: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of ``Market.load`` that ``--set data.KEY=VALUE`` gives."""
    entries = []
    for text in texts:
        name, value = split_pair("--set", text, "data.mark_gaps=last")
        if name.removeprefix("data.") not in READING or not name.startswith("data."):
            known = ", ".join(f"data.{key}" for key in READING)
            raise ParameterError(f"results score can set only {known}, got {name!r}")
        entries.append(read_entry(name, value))
    return draft_experiment(None, entries).table("data")


def load_markets(
    paths: Sequence[str],
    instruments: Sequence[str],
    *,
    since: str | None,
    until: str | None,
    **terms: Any,
) -> dict[str, Market]:
    """Return the markets of some folders by instrument; ``terms`` say how data are read."""
    if not paths:
        raise ParameterError(
            "results score needs the data of the outcomes, --data btc/ for example, got none"
        )

    folders = [Path(path) for path in paths]
    places: list[tuple[Path, str | None]] = []
    if not instruments:
        places = [(folder, None) for folder in folders]
    elif len(folders) == 1:
        places = [(folders[0], name) for name in instruments]
    else:  # each instrument is in one of the folders
        for name, source in find_sources(folders, instruments).items():
            places.append((source.path, source.instrument or name))

    markets: dict[str, Market] = {}
    for path, instrument in places:
        market = Market.load(path, instrument=instrument, since=since, until=until, **terms)
        markets[market.instrument or path.resolve().name] = market
    return markets


def read_saved_policy(places: Sequence[str], text: str) -> Any:
    """Return the policy that a result names; ``places`` say where those of files are.

    ``Steady(window=24)`` becomes ``steady.py:Steady(window=24)``, also inside another policy.
    """
    for place in places:
        name = place.rpartition(":")[2]
        call = rf"(?<![\w.:]){re.escape(name)}\("
        text = re.sub(call, f"{place}(", text)

    try:
        return read_policy(text, {})
    except ParameterError:
        from backtest.strategies import __all__ as built_in  # noqa: PLC0415 - loads them all

        named = re.findall(r"(?<![\w.:])([A-Z]\w*)\(", text)
        own = [name for name in named if name not in built_in]
        if not own:
            raise
        raise ParameterError(
            f"{own[0]} is a policy of your own: give its file, --policy FILE.py:{own[0]}"
        ) from None
