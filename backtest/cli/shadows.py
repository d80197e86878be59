"""``backtest shadow``: a live account beside its policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

import backtest
from backtest.cli.build import build_experiment, name_policies
from backtest.cli.command import Output, command
from backtest.cli.printing import print_json, show_progress, write_colored
from backtest.core import ParameterError, read_json_file
from backtest.experiments.draft import Draft
from backtest.live import ledger


@command(
    "shadow",
    "run.decision_interval shadow.fills shadow.snapshot shadow.flows shadow.range_tolerance",
)
def shadow(draft: Draft, *, output: Output) -> None:
    """Compare a live account with what its policy would have done, and explain the difference.

    The difference is the sum of parts: deposits, timing, sizes, orders, prices, fees, funding, and
    what is unexplained. Each call writes its days into shadow/ledger.parquet of the results, unless
    --no-save is given; nothing else is saved. From twenty days on, a drift is reported.

    Both accounts begin at the first of several snapshots. With one snapshot, they are assumed to
    begin flat, with the capital, at --start, by default at the first close of the data. The policy
    decides at once, as decide does; run decides at the first close after its start, so the same
    account is that of a run which starts one bar earlier.

    backtest shadow live.toml --fills trades.json --snapshot monday.json --snapshot tuesday.json
    backtest shadow live.toml --fills trades.csv --snapshot account.json --report shadow.html
    """
    table: dict[str, Any] = dict(draft.table("shadow"))
    for name, example in (("fills", "trades.csv"), ("snapshot", "account.json")):
        if name not in table:
            raise ParameterError(f"shadow.{name} is needed, --{name} {example} for example")

    test, policy, _ = build_experiment(draft)
    zone = draft.table("data").get("timezone")
    fills = backtest.read_fills(table.pop("fills"), timezone=zone)
    snapshots = read_snapshots(table.pop("snapshot"))
    with show_progress("following both accounts"):
        compared = test.shadow(
            policy,
            fills,
            snapshots,
            store=output.store,
            experiment=name_account(draft, policy),
            **table,
        )

    lines = [write_colored(compared, verbose=output.verbose)]
    if output.report is not None:
        compared.report(output.report)
        lines.append(f"report: {output.report}")
    saved = None
    if output.store is not None:
        saved = str(ledger.find_ledger(output.store))
        lines.append(f"ledger: {saved}")

    if output.as_json:
        print_json({"ledger": saved, **compared.to_dict()})
    else:
        typer.echo("\n\n".join(lines))


def name_account(draft: Draft, policy: Any) -> str:
    """Return the name under which the ledger has an account: of its file, or of its policy."""
    if draft.file is None:
        return name_policies(policy)
    return draft.file.stem


def read_snapshots(given: str | list[str]) -> list[backtest.AccountSnapshot]:
    """Return the snapshots in JSON files, each of one or of a list of them."""
    paths = [given] if isinstance(given, str) else given
    snapshots = []
    for path in paths:
        content = read_json_file(Path(path))
        rows = content if isinstance(content, list) else [content]
        snapshots += [backtest.AccountSnapshot.from_content(row, where=path) for row in rows]
    return snapshots
