"""``backtest results prune``: list what would be deleted, ask, and delete; and the filters."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from backtest.base.errors import ParameterError
from backtest.cli.flags import OUTPUT, RESULTS, AsJson, Results, option
from backtest.cli.printing import print_json

FILTER = "Filter"

Kind = Annotated[
    list[str] | None, option(FILTER, "run, sweep, study or comparison; again for more.", "--kind")
]
PolicyPart = Annotated[str, option(FILTER, "Part of the policy's name or settings.", "--policy")]
Where = Annotated[
    list[str] | None,
    option(FILTER, "A bound on a measure: 'sharpe>1'; again for more.", "--where"),
]
WHAT = "What"
EXAMPLES = """
backtest results prune --keep 100              [dim]# says what goes, and asks[/dim]
backtest results prune --older-than 30d --kind run --where 'sharpe<0.5' --dry-run
backtest results prune --damaged --yes         [dim]# only what cannot be read[/dim]
"""


def prune(
    text: Annotated[
        str, typer.Argument(help="Part of name, policy, data or note.", show_default=False)
    ] = "",
    *,
    keep: Annotated[
        int | None, option(WHAT, "Keep the newest so many of those meant.", "--keep")
    ] = None,
    older_than: Annotated[
        str | None, option(WHAT, "Saved before a date (UTC), or 30d ago.", "--older-than")
    ] = None,
    unfinished: Annotated[
        bool, option(WHAT, "Also studies that could be resumed.", "--unfinished")
    ] = False,
    damaged: Annotated[
        bool, option(WHAT, "Also damaged results, and what killed writers left.", "--damaged")
    ] = False,
    kind: Kind = None,
    policy: PolicyPart = "",
    where: Where = None,
    dry_run: Annotated[
        bool, option(OUTPUT, "Only say what would be deleted.", "--dry-run")
    ] = False,
    yes: Annotated[bool, option(OUTPUT, "Do not ask.", "--yes", "-y")] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Delete saved results: says which, and asks first. What cannot be read stays unless told.

    Only what carries a readable manifest or study with its id is deleted; the rest is named.
    """
    from backtest.cli.results_text import format_deletions, format_kept  # noqa: PLC0415 - loads much
    from backtest.store import Filter, choose_deletions, delete_chosen  # noqa: PLC0415 - loads much

    wanted = read_wanted(text, kind, policy, where)
    check_prune(keep, older_than, is_narrow=wanted != Filter(), is_damaged=damaged)
    if as_json and not (yes or dry_run):
        raise ParameterError(
            "--json cannot ask", where="backtest results prune", cure="add --yes or --dry-run"
        )
    if older_than is not None:
        wanted = wanted._replace(before=read_time(older_than, "--older-than"))
    is_only_damaged = keep is None and older_than is None and wanted == Filter()
    to_delete, kept = choose_deletions(
        results,
        wanted._replace(before=0) if is_only_damaged else wanted,
        keep=keep or 0,
        with_unfinished=unfinished,
        with_damaged=damaged,
    )
    if not as_json:
        typer.echo(format_deletions([each.entry for each in to_delete]))
        typer.echo("".join(map(format_kept, kept)), nl=False)
    is_agreed = bool(to_delete) and not dry_run and (yes or ask(len(to_delete)))
    if to_delete and not dry_run and not is_agreed:
        typer.echo("nothing was deleted")
        return
    deleted, left = delete_chosen(results, to_delete) if is_agreed else ([], [])
    if as_json:
        names = [each.entry.name for each in to_delete]
        not_ours = [each._asdict() for each in kept]
        told = {"deleted": deleted, "changed_meanwhile": left, "not_ours": not_ours}
        print_json({"chosen": names, **told})
        return
    for name in left:
        typer.echo(f"left, it changed meanwhile: {name!r}")
    if is_agreed:
        typer.echo(f"deleted {len(deleted):,}")


def check_prune(
    keep: int | None, older_than: str | None, *, is_narrow: bool, is_damaged: bool
) -> None:
    """Refuse to delete everything because nothing was said.

    Raises
    ------
    ParameterError
        If nothing says what is to go.
    """
    if keep is not None and keep < 0:
        raise ParameterError(f"--keep must be 0 or more, was {keep}", where="--keep", cure="say 10")
    if keep is None and older_than is None and not is_narrow and not is_damaged:
        raise ParameterError(
            "what is to be deleted must be said, nothing was",
            where="backtest results prune",
            cure="say --keep 100, --older-than 30d, a filter, or --damaged; --keep 0 is all",
        )


def ask(n: int) -> bool:
    """Ask whether results are to be deleted.

    Raises
    ------
    ParameterError
        If nobody answers: a job that deletes nothing must not look like one that did.
    """
    try:
        return typer.confirm(f"delete {n:,} for good?", default=False)
    except typer.Abort as error:
        typer.echo()
        raise ParameterError(
            "prune asks before it deletes, and got no answer: nothing was deleted",
            where="backtest results prune",
            cure="add --yes to delete without a question, or --dry-run to look only",
        ) from error


def read_wanted(text: str, kind: list[str] | None, policy: str, where: list[str] | None) -> Any:
    """Return which results are meant."""
    from backtest.store import Filter, read_bound, read_kinds  # noqa: PLC0415 - loads much

    bounds = tuple(map(read_bound, where or ()))
    return Filter(read_kinds(kind or ()), policy, text, bounds)


def read_time(text: str, flag: str) -> int:
    """Return a time that was said as a date, or as so long ago."""
    from backtest.store import read_time_or_age  # noqa: PLC0415 - loads much

    return read_time_or_age(text, time.time_ns(), where=flag)
