"""``backtest results prune``: list, confirm and delete results; and the filters of results."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from backtest.base import ParameterError
from backtest.cli.flags import OUTPUT, RESULTS, AsJson, Results, option
from backtest.cli.printing import print_json

FILTER = "Filter"

Text = Annotated[
    str, typer.Argument(help="Part of name, policy, data or note.", show_default=False)
]
Kind = Annotated[
    list[str] | None, option(FILTER, "run, sweep, study, cascade, ...; repeat for more.", "--kind")
]
PolicyPart = Annotated[str, option(FILTER, "Part of the policy's name or settings.", "--policy")]
Where = Annotated[
    list[str] | None, option(FILTER, "A bound on a measure: 'sharpe>1'; repeat for more.")
]
WHAT = "What"
EXAMPLES = """
backtest results prune --keep 100              [dim]# lists them, then asks[/dim]
backtest results prune --older-than 30d --kind run --where 'sharpe<0.5' --dry-run
backtest results prune --damaged --yes         [dim]# only unreadable ones[/dim]
backtest results prune --unfinished            [dim]# only those that could be resumed[/dim]
"""


def prune(
    text: Text = "",
    *,
    keep: Annotated[int | None, option(WHAT, "Keep this many of the newest.", "--keep")] = None,
    older_than: Annotated[
        str | None, option(WHAT, "Saved before a date (UTC), or 30d ago.", "--older-than")
    ] = None,
    unfinished: Annotated[
        bool, option(WHAT, "Also studies and validations that could be resumed.", "--unfinished")
    ] = False,
    damaged: Annotated[
        bool, option(WHAT, "Also damaged results, and those that were being replaced.", "--damaged")
    ] = False,
    kind: Kind = None,
    policy: PolicyPart = "",
    where: Where = None,
    dry_run: Annotated[
        bool, option(OUTPUT, "Only list what would be deleted.", "--dry-run")
    ] = False,
    yes: Annotated[bool, option(OUTPUT, "Do not ask.", "--yes", "-y")] = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """Delete saved results: lists them and asks first. Unreadable ones stay without --damaged.

    What a killed process left half written or half deleted always goes.

    Only folders with a readable manifest or study and its id are deleted; others are listed.
    """
    from backtest.cli.results_text import format_deletions, format_kept  # noqa: PLC0415 - loads much
    from backtest.store import Filter, choose_deletions, delete_chosen  # noqa: PLC0415 - loads much

    wanted = build_filter(text, kind, policy, where, before=older_than)
    is_only_marked = keep is None and wanted == Filter()
    check_keep(keep, is_all=is_only_marked and not (damaged or unfinished))
    if as_json and not (yes or dry_run):
        raise ParameterError("--json cannot ask: give --yes or --dry-run too")
    to_delete, kept = choose_deletions(
        results,
        None if is_only_marked else wanted,
        keep=keep or 0,
        with_unfinished=unfinished,
        with_damaged=damaged,
    )
    if not as_json:
        typer.echo(format_deletions([each.entry for each in to_delete]))
        typer.echo("".join(map(format_kept, kept)), nl=False)
    is_agreed = bool(to_delete) and not dry_run and (yes or confirm_deletion(len(to_delete)))
    if to_delete and not dry_run and not is_agreed:
        typer.echo("nothing was deleted")
        return
    deleted, left = delete_chosen(results, to_delete) if is_agreed else ([], [])
    if as_json:
        print_json(
            {
                "chosen": [each.entry.name for each in to_delete],
                "deleted": deleted,
                "changed_meanwhile": left,
                "not_ours": [each._asdict() for each in kept],
            }
        )
        return
    for name in left:
        typer.echo(f"left, it changed meanwhile: {name!r}")
    if is_agreed:
        typer.echo(f"deleted {len(deleted):,}")


def check_keep(keep: int | None, *, is_all: bool) -> None:
    if keep is not None and keep < 0:
        raise ParameterError(f"keep must be 0 or more, got {keep}")
    if keep is None and is_all:
        raise ParameterError(
            "prune needs a flag that chooses what to delete, got none: a filter, --keep, "
            "--older-than, --unfinished or --damaged; --keep 0 deletes all"
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
