"""``backtest results`` and ``report``: list, show, verify, prune and report results."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest import core
from backtest import report as reports
from backtest.cli import printing
from backtest.cli.command import RESULTS, AsJson, Results, Text, Texts, argument, command, option
from backtest.cli.experiment import read_bound
from backtest.cli.printing import clean, print_json, print_paragraph, render, show_progress
from backtest.core import ParameterError, format_time
from backtest.experiments.policy_names import read_policy
from backtest.market import Market
from backtest.results import listing, name_measure, read_constraints, selection, upkeep
from backtest.results.listing import KINDS
from backtest.results.measure_table import ABOUT

SHOWN_ID, SHOWN_COMMIT, MAX_NAMED = 8, 12, 20
MEASURES = ("total_return", "sharpe", "max_drawdown")
FORECASTS = ("judgement", "liquidation-risk", "max-leverage", "margin-calibration")
"""Kinds of results that tell probabilities."""
NARROW = 110
"""Columns of a terminal up to which a list shows only what distinguishes rows."""

Name = Annotated[
    str, argument("The result: the beginning of its name or id, or its folder.", "RESULT")
]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    text: Annotated[str, argument("Part of name, policy, data or note.")] = ""
    kind: Annotated[
        Texts, option("run, sweep, study, cascade, ...; repeat for more.", "--kind")
    ] = None
    policy: Annotated[str, option("Part of the policy's name or settings.", "--policy")] = ""
    where: Annotated[Texts, option("A bound on a measure: 'sharpe>1'; repeat for more.")] = None

    def build(self, **times: str | None) -> Any:
        bounds = tuple(read_constraints(dict([read_bound(each)]))[-1] for each in self.where or ())
        now, kinds = time.time_ns(), selection.read_kinds(self.kind or ())
        read = {x: selection.read_time_or_age(t, now, where=x) for x, t in times.items() if t}
        return selection.Filter(kinds, self.policy, self.text, bounds, **read)


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
    found = selection.sort_entries(
        filter(chosen.matches, everything), sort, is_reversed=is_reversed
    )
    shown = found[:top]
    unread = [each for each in everything if each.trouble]
    if as_json:
        lists = {"results": shown, "not_readable": unread}
        plain = {key: [each.to_dict() for each in each_list] for key, each_list in lists.items()}
        print_json({"folder": str(results), "found": len(found), **plain})
        return
    if not everything:
        typer.echo(f"no results in {clean(str(results))}")
        return
    if shown:
        asked = [*([] if sort in CELLS else [sort]), *(each.name for each in chosen.bounds)]
        is_wide = printing.get_width() > NARROW
        ends = ("saved", *MEASURES) if is_wide else () if asked else ("day", MEASURES[0])
        columns = [*dict.fromkeys(["id", "policy", "market", *ends, *asked]), *["kind"] * is_wide]
        heads = [name if name in CELLS else name_measure(name) for name in columns]
        heads = heads if is_wide else [name.removeprefix("total ") for name in heads]
        rows = [[show_cell(each, name) for name in columns] for each in shown]
        give = ("policy", "name", "source", *["market"] * bool(asked))
        render(rows, heads, fold=give)
    total = len(everything) - len(unread)
    count = core.count_nouns(total, "result")
    count = count if len(found) == total else f"{len(found):,} of {count} match"
    typer.echo(f"\n{'' if shown == found else f'{len(shown):,} shown; '}{count}")
    for is_left, heading in (
        (False, "not readable (see backtest results verify)"),
        (True, "unfinished writes (backtest results prune --damaged deletes those abandoned)"),
    ):
        if entries := [each for each in unread if (each.kind == "leftover") == is_left]:
            typer.echo(f"\n{heading}: {len(entries):,}")
            print_named([f"{each.name}: {each.trouble}" for each in entries])


CELLS: dict[str, Callable[[Any], object]] = {
    "id": lambda each: each.id[:SHOWN_ID] if each.name.endswith(each.id) else each.name,
    "name": lambda each: each.name,
    "kind": lambda each: each.kind,
    "policy": lambda each: (
        f"{each.policy} ({listing.describe_note(each)})" if each.note else each.policy
    ).strip(),
    "market": lambda each: f"{each.instrument or 'unnamed'} {each.interval}",
    "start": lambda each: each.start,
    "end": lambda each: each.end,
    "source": lambda each: each.source,
    "saved": lambda each: format_time(each.saved)[:16],
    "day": lambda each: format_time(each.saved)[:10],
    "size": lambda each: f"{each.size / 1e6:,.2f} MB",
    "seconds": lambda each: each.seconds,
    "commit": lambda each: each.commit[:SHOWN_COMMIT] or None,
    "backtest_commit": lambda each: each.backtest_commit[:SHOWN_COMMIT] or None,
    "dirty": lambda each: each.is_dirty,
}


def show_cell(entry: Any, name: str) -> object:
    if name in CELLS:
        return CELLS[name](entry)
    value = entry.find_shown(name)
    if value is None or math.isnan(value):
        return None
    return reports.format_measure(name, value) if name in ABOUT else f"{value:.6g}"


def print_named(lines: Sequence[str]) -> None:
    for each in lines[:MAX_NAMED]:
        print_paragraph(each)
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
    making = core.read_provenance(folder, entry.id)
    origin = listing.describe_origin(facts, making)
    if as_json:
        again = {"command": origin.command or None, "remarks": list(origin.remarks)}
        made = None if making is None else making._asdict()
        shown = {"path": str(folder), **entry.to_dict(), "again": again, "made": made}
        print_json({**shown, "manifest": facts})
        return
    pairs: list[tuple[str, Any]] = [("folder", str(folder))]
    pairs += [(name, str(read(entry))) for name, read in CELLS.items()]
    for label, each in (facts.get("policies") or {"": facts.get("policy", {})}).items():
        pairs.append((f"source hash {label}".strip(), each.get("source_hash", "")))
    pairs.append(("data hash", facts["data"]["content_hash"]))
    pairs += [(f"version of {name}", each) for name, each in facts["versions"].items()]
    pairs += [(name_measure(x), show_cell(entry, x)) for x in entry.shown_metrics]
    render(pairs, ("of the result", ""))
    if origin.command:
        typer.echo(f"\nrun again by\n{clean(origin.command)}")
    for remark in origin.remarks:
        print_paragraph(remark, indent="")


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
    folders = [results / name for name in listing.list_folders(results)]
    if names:
        folders = [listing.find_folder(name, results) for name in names]
    checks = [upkeep.verify_folder(folder) for folder in folders]
    checks = [each for each, place in zip(checks, folders, strict=True) if place.exists()]
    bad = sum(bool(each.faults) for each in checks)
    if as_json:
        print_json({"folder": str(results), "checked": [each.to_dict() for each in checks]})
    else:
        for each in checks:
            for word, found in (("DAMAGED", each.faults), ("note   ", each.remarks)):
                for name, what in found:
                    place = "" if name == "." else f"{name} "
                    print_paragraph(f"{word} {each.name}: {place}{what}", indent="")
        files = sum(each.files for each in checks)
        whole = sum(not each.faults and each.kind in KINDS for each in checks)
        typer.echo(f"{whole:,} whole, {bad:,} damaged; {files:,} files checked")
    if bad:
        raise typer.Exit(1)


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

    What a killed process left half written or half deleted always goes.

    Only folders with a readable manifest or study and its id are deleted; others are listed.

    backtest results prune --older-than 30d --kind run --where 'sharpe<0.5' --dry-run
    backtest results prune --damaged --yes         [dim]# only unreadable ones[/dim]
    """
    chosen_by = wanted.build(before=older_than)
    is_only_marked = keep is None and chosen_by == selection.Filter()
    if is_only_marked and not (damaged or unfinished):
        raise ParameterError(
            "prune needs a flag that chooses what to delete, got none: a filter, --keep, "
            "--older-than, --unfinished or --damaged; --keep 0 deletes all"
        )
    if as_json and not (yes or dry_run):
        raise ParameterError("--json has no prompt: add --yes or --dry-run")
    marked = {"with_unfinished": unfinished, "with_damaged": damaged}
    chosen_by = None if is_only_marked else chosen_by
    chosen, kept = upkeep.choose_deletions(results, chosen_by, keep=keep or 0, **marked)
    if not as_json:
        size = sum(each.size for each in chosen) / 1e6
        total = f"to delete: {listing.count_kinds(chosen)}, {size:,.2f} MB"
        typer.echo(total if chosen else "nothing to delete")
        print_named([
            f"{each.name}  {format_time(each.saved)[:10]}  {each.trouble or each.policy}"
            for each in chosen
        ])  # fmt: skip
        for each in kept:
            print_paragraph(f"left, not known to be a result: {each.name}  {each.why}")
    is_agreed = bool(chosen) and not dry_run
    if is_agreed and not yes:
        try:
            is_agreed = typer.confirm(f"delete {len(chosen):,} for good?", default=False)
        except typer.Abort as error:
            typer.echo()
            raise ParameterError(
                "prune needs a confirmation, got none: nothing was deleted; --yes skips it"
            ) from error
    deleted, left = upkeep.delete_chosen(results, chosen) if is_agreed else ([], [])
    if as_json:
        not_ours, names = [each._asdict() for each in kept], [each.name for each in chosen]
        print_json({"chosen": names, "deleted": deleted, "left": left, "not_ours": not_ours})
        return
    for name in left:
        typer.echo(f"left, it is in use: {name!r}")
    if chosen and not dry_run:
        typer.echo(f"deleted {len(deleted):,}" if is_agreed else "nothing was deleted")


@command("report")
def report(
    names: Annotated[
        Texts,
        argument(
            "A saved result, or two side by side: folders, or how their names or ids in "
            "--results begin.",
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
        folder = Path("reports") if out is None else out
        with show_progress("pages", "results") as progress:
            rows = reports.write_all(results, folder, objective, progress)
        for row in (each for each in rows if each["entry"].trouble):
            typer.echo(f"warning: {row['name']} has no page: {row['entry'].trouble}", err=True)
        typer.echo(str(folder / "index.html"))
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
    chosen = reports.choose_format(out or Path(), format_)
    stem = "-against-".join(place.resolve().name for place in folders)
    target = out or Path()
    if out is None or out.is_dir():
        target = target / f"{stem}.{chosen}"
    if len(folders) == 2:
        written = reports.write_pair((folders[0], folders[1]), target, chosen)
    else:
        written = reports.write_saved_page(folders[0], target, chosen, objective)
    typer.echo(str(written))


@command("results score")
def score(
    names: Annotated[Texts, argument("Results by name or id (all).", "RESULT...")] = None,
    *,
    data: Annotated[
        Texts, option("Data of a market, from before the forecasts on; repeat.", "--data")
    ] = None,
    instrument: Annotated[
        Texts, option("Which instruments of a folder with several; repeat.", "--instrument")
    ] = None,
    policy: Annotated[
        Texts, option("Where a policy of your own is, FILE.py:Class; repeat.", "--policy")
    ] = None,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """List saved forecasts whose horizon has passed, and what came of each.

    Forecasts are those of judge, risk, risk --find-leverage and margin --solve. Data must begin
    before them, so that what a policy observes is known.

    backtest results score --data btc/ --data eth/
    backtest results score 0a1b2c3d --data btc/ --policy steady.py:Steady
    """
    from backtest.judgement.outcomes import find_outcome, list_forecasts  # noqa: PLC0415 - alone

    markets = load_markets(data or [], instrument or [])
    folders = [results / name for name in listing.list_folders(results)]
    if names:
        folders = [listing.find_folder(name, results) for name in names]
    rows: list[dict[str, Any]] = []
    unscored: list[str] = []
    waiting = 0
    for folder in folders:
        saved = load_told(folder)
        for forecast in list_forecasts(saved):
            with show_progress(f"results score: {folder.name}"):
                outcome = find_outcome(forecast, markets, partial(read_saved_policy, policy or []))
            if outcome is None:
                waiting += 1
            elif outcome.came is None:
                unscored.append(f"{folder.name}, {forecast.name}: not scored, {outcome.why}")
            else:
                rows.append(outcome.to_dict() | {"result": folder.name})
    if as_json:
        print_json({"folder": str(results), "passed": rows, "not_scored": unscored,
                    "not_yet": waiting})  # fmt: skip
        return
    if rows:
        shown = [
            [row["result"], row["instrument"], row["made"], row["forecast"],
             core.format_chance(row["told"]), "yes" if row["came"] else "no"]
            for row in rows
        ]  # fmt: skip
        heads = ["result", "market", "made", "forecast", "told", "came"]
        render(shown, heads, fold=("result", "forecast"))
        told = core.format_chance(sum(row["told"] for row in rows) / len(rows))
        came = sum(row["came"] for row in rows)
        typer.echo(f"\ntold {told} on average, {came:,} of {len(rows):,} came")
    passed = core.count_nouns(len(rows), "forecast")
    typer.echo(f"{passed} whose horizon has passed; {waiting:,} have not, or are of other markets")
    print_named(unscored)


def load_told(folder: Path) -> Any:
    """Return the result of a folder if it may hold forecasts, else None."""
    entry = listing.read_entry(folder)
    return listing.load_saved(folder) if entry.kind in FORECASTS and not entry.trouble else None


def load_markets(paths: Sequence[str], instruments: Sequence[str]) -> dict[str, Market]:
    """Return the markets of some folders by instrument."""
    if not paths:
        raise ParameterError(
            "results score needs the data of what came, --data btc/ for example, got none"
        )
    found: dict[str, Market] = {}
    for path in paths:
        for name in instruments or [""]:
            market = Market.load(path, instrument=name or None)
            found[market.instrument] = market
    return found


def read_saved_policy(places: Sequence[str], text: str) -> Any:
    """Return the policy that a result names; ``places`` say where those of files are."""
    for place in places:
        name = place.rpartition(":")[2]
        text = re.sub(rf"(?<![\w.:]){re.escape(name)}\(", f"{place}(", text)
    return read_policy(text, {})
