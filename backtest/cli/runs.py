"""``backtest run``, ``compare``, ``decide`` and ``replay``: accounts taken through markets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

import backtest
from backtest.base import (
    BacktestError,
    DataError,
    ParameterError,
    describe_fault,
    did_you_mean,
    list_records,
    write_file,
)
from backtest.cli.build import (
    Experiment,
    build_experiment,
    build_policy,
    name_policies,
)
from backtest.cli.command import AsJson, Output, option, take_experiment
from backtest.cli.experiment import Draft, DraftTable, GivenFlag, find_single, overlay, read_setting
from backtest.cli.experiment_keys import OPEN_TABLES, RULE_TABLES, TABLES, Key
from backtest.cli.find_policy import is_expression
from backtest.cli.printing import print_json
from backtest.cli.progress import show_progress
from backtest.cli.typed_values import split_pair
from backtest.engine import Result, Trades, collect_limit_orders, collect_options, count_boundless
from backtest.policy import Policy, format_title

RUN_EXAMPLES = """
backtest run --policy cppi --set multiplier=4 --data btc/
backtest run examples/btc-vol-target.toml --set account.band=0.1 --json
"""
ENDINGS = (".csv", ".parquet", ".json")
TradesFile = Annotated[
    Path | None, option("Write the trades to a .csv, .parquet or .json file.", "--trades")
]


def run(draft: Draft, *, trades: TradesFile = None, output: Output) -> None:
    """Run an account through a market under a policy, and summarize the result."""
    if trades is not None and trades.suffix.lower() not in ENDINGS:
        raise ParameterError(f"a file of trades ends in {', '.join(ENDINGS)}, got {trades.name!r}")
    experiment = build_experiment(draft)
    result = run_with_progress(experiment)
    if trades is not None:
        write_trades(result.trades, trades)
    output.give_out(result, partial(result_to_dict, result))


def run_with_progress(experiment: Experiment) -> Any:
    with show_progress(name_policies(experiment.policy)) as progress:
        return backtest.run(
            experiment.market, experiment.policy, **experiment.terms, progress=progress
        )


def result_to_dict(result: Result, path: str | None) -> dict[str, Any]:
    manifest, trades = result.manifest, result.trades
    counts = result.events["kind"].value_counts(sort=False)
    data = {
        "id": manifest["id"],
        "path": path,
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
    }
    data["attribution"] = result.attribution("instrument").to_dict(orient="index")
    data["contagion"] = list_records(result.contagion())
    data["events"] = {str(kind): int(count) for kind, count in counts.items() if count}
    data |= {"target_cuts": list(result.target_cut_rows), "no_fill": result.no_fill or None}
    data["infinite_leverage"] = count_boundless(result)
    data |= {**collect_limit_orders(result), **collect_options(result)}
    measures = {**trades.measures.to_dict(), "unallocated": trades.unallocated.to_dict()}
    data["trades"] = {"by": trades.view, **measures}
    return data


def write_trades(trades: Trades, path: Path) -> None:
    ending = path.suffix.lower()
    if ending == ".parquet":
        content = trades.to_parquet(index=False)
    elif ending == ".json":
        content = trades.to_json(orient="records", date_format="iso", indent=1).encode()
    else:
        content = trades.to_csv(index=False, lineterminator="\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        raise DataError(
            f"the trades cannot be written to {path}: {error.strerror or error}"
        ) from error


# ----------------------------------------------------------------------------------------- compare

COMPARE_EXAMPLES = """
backtest compare --policy calm=vol-target --policy bold=vol-target --set bold.target=0.8
backtest compare calm.toml bold.toml       [dim]# experiments that differ in their policy[/dim]
"""
_LABELLED = re.compile(r"\s*([A-Za-z_][\w-]*)\s*=\s*(.+)", re.DOTALL)
_CLASS = re.compile(r"(\w+)\s*\(")
RESERVED = (*TABLES, *OPEN_TABLES, *RULE_TABLES)
"""Names that ``--set`` reads as tables, and not as labels of policies."""


def compare(drafts: list[Draft], *, output: Output) -> None:
    """Compare policies on the same market and terms, and say which differences are beyond noise.

    Policies come from experiments, from [compare.policies] and from --policy NAME or LABEL=NAME,
    and --set LABEL.NAME=VALUE sets a parameter of one.
    """
    policies = build_policies(drafts)
    for draft in drafts:
        for name in find_single(draft.table("policy")):
            raise ParameterError(
                f"a comparison runs each of its policies on all instruments, policy.{name} is for "
                "one; name it in [compare.policies]"
            )
    experiments = [build_experiment(draft) for draft in drafts]
    check_alike(drafts, experiments)
    market, _, terms = experiments[0]
    arguments = {name: x for name, x in drafts[0].table("compare").items() if name != "policies"}
    found = {}
    with show_progress("running", "policies") as progress:
        for done, (label, policy) in enumerate(policies.items()):
            try:
                found[label] = backtest.run(market, policy, **terms)
            except BacktestError as error:
                raise type(error)(f"policy {label!r}: {error}") from error
            if progress is not None:
                progress(done + 1, len(policies))
    with show_progress("comparing", "steps") as progress:
        compared = backtest.compare(found, **arguments, progress=progress)
    output.give_out(compared)


def read_policy_flags(_key: Key, texts: Sequence[str] | None) -> Iterator[GivenFlag]:
    seen: dict[str, str] = {}
    for text in texts or ():
        match = _LABELLED.fullmatch(text)
        label, policy = (match[1], match[2]) if match else (make_label(text), text.strip())
        if label in seen or label in RESERVED:
            why = f"two are called {label!r}" if label in seen else f"one is called {label!r}"
            raise ParameterError(
                f"the names of policies must be different, {why}; label it, as 'bold={policy}'"
            )
        seen[label] = policy
        yield GivenFlag("compare", f"policies.{label}.name", policy)


def make_label(text: str) -> str:
    if is_expression(text):
        return "-".join(map(format_title, _CLASS.findall(text)))
    path, _, name = text.strip().partition(".py:")
    return format_title(name) if name else Path(path).name.removesuffix(".py")


def read_setting_flags(key: Key, texts: Sequence[str] | None) -> Iterator[GivenFlag]:
    for text in texts or ():
        name, value = split_pair(key.flag, text, "cppi.multiplier=5")
        whose, dot, field = name.partition(".")
        if not (dot and field):
            raise ParameterError(
                f"a setting must name its policy, as vol-target.{text}, got {text!r}"
            )
        if whose in RESERVED:
            yield from read_setting(name, value)
        else:
            yield GivenFlag("compare", f"policies.{whose}.settings.{field}", value)


def build_policies(drafts: Sequence[Draft]) -> dict[str, Policy]:
    entries = dict(list_file_policies(drafts))
    first = drafts[0]
    for label, table in first.table("compare").get("policies", {}).items():
        if "name" in table:
            folder = first.find_base("compare", f"policies.{label}.name")
            entries[label] = DraftTable(table, folder)
        elif label in entries:
            merged = overlay(entries[label].entries, table)
            entries[label] = entries[label]._replace(entries=merged)
        else:
            raise ParameterError(
                f"compare.policies.{label} must have a name or be of a policy that is compared, "
                f"{', '.join(entries) or 'got none'}{did_you_mean(label, entries)}"
            )
    if len(entries) < 2:
        found = f"got {', '.join(entries)} alone" if entries else "got none"
        raise ParameterError(
            f"a comparison needs two policies or more, {found}; `backtest policies` lists policies"
        )
    return {label: build_policy(each) for label, each in entries.items()}


def list_file_policies(drafts: Sequence[Draft]) -> Iterator[tuple[str, DraftTable]]:
    files = [draft for draft in drafts if draft.file is not None]
    for draft in files:
        file, own = draft.file, draft.from_file.get("compare", {})
        if file is None or (len(files) == 1 and own.get("policies")):
            continue
        if own and len(files) > 1:
            raise ParameterError(
                f"[compare] must not be in one of several experiments, {file} has it"
            )
        yield label_file(file, files), draft.section("policy", path="name")


def label_file(file: Path, files: Sequence[Draft]) -> str:
    alike = [each for each in files if each.file is not None and each.file.stem == file.stem]
    return file.stem if len(alike) == 1 else f"{file.parent.name}/{file.stem}"


def check_alike(drafts: Sequence[Draft], experiments: Sequence[Experiment]) -> None:
    first = experiments[0]
    for draft, other in zip(drafts[1:], experiments[1:], strict=True):
        differing = [name for name in first.terms if not is_alike(first, other, name)]
        if first.market.content_hash != other.market.content_hash:
            differing.insert(0, "market")
        if differing:
            raise ParameterError(
                f"experiments must share data, venue, account and signal, {draft.file} and "
                f"{drafts[0].file} differ in {', '.join(differing)}"
            )


def is_alike(first: Experiment, other: Experiment, name: str) -> bool:
    mine, theirs = (repr(each.terms.get(name)) for each in (first, other))
    return mine == theirs


# ------------------------------------------------------------------------------------ live accounts

DECIDE_EXAMPLES = """
backtest decide --data btc/ --policy vol-target --snapshot account.json --at 30250
backtest decide live.toml --snapshot account.json --json
"""
LEFT_OUT = ("compile", "sampling", "calendar", "start")


def decide(draft: Draft, *, as_json: AsJson = False) -> None:
    """Show what a policy decides at the last close, and the order that it leads to.

    Sends no orders and holds no keys. Exit code 1 means: do not act on the order.
    """
    experiment = build_experiment(draft)
    table = draft.table("decide")
    if "snapshot" not in table:
        raise ParameterError(
            "decide.snapshot is needed, a file with the fields of bt.AccountSnapshot"
        )
    terms = {name: x for name, x in experiment.terms.items() if name not in LEFT_OUT}
    found = backtest.decide(
        experiment.policy,
        experiment.market,
        **terms,
        **{name: table[name] for name in ("at", "mark", "funding") if name in table},
        state=backtest.AccountSnapshot.load(draft.find_path("decide", "snapshot")),
        now=table.get("now", pd.Timestamp.now(tz="UTC")),
    )
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(str(found))
    if not found.may_act:
        raise typer.Exit(1)


REPLAY_EXAMPLES = """
backtest replay --data btc/ --fills trades.csv --begin account.json
backtest replay live.toml --fills trades.csv --ledger income.csv --json --no-save
"""
SHOWN = 10
"""Differences that are printed."""
REPLAYED = ("venue", "account", "sampling", "calendar")


def replay(draft: Draft, *, output: Output) -> None:
    """Take an account through fills that were really made, and summarize the result.

    With --ledger, also show the differences from what the venue says; the exit code is 1 if there
    are any. The policy of the experiment plays no part.
    """
    table = draft.table("replay")
    experiment = build_experiment(draft)
    if "fills" not in table:
        raise ParameterError(
            "replay.fills is needed, a table of time, instrument, quantity, price and fee"
        )
    terms: dict[str, Any] = {name: x for name, x in experiment.terms.items() if name in REPLAYED}
    if "range_tolerance" in table:
        terms["range_tolerance"] = table["range_tolerance"]
    if "begin" in table:
        terms["start"] = backtest.AccountSnapshot.load(draft.find_path("replay", "begin"))
    elif experiment.terms.get("start") is not None:
        terms["start"] = experiment.terms["start"]
    fills = backtest.read_fills(draft.find_path("replay", "fills"))
    found = backtest.replay(experiment.market, fills, **terms)
    compared = None
    if "ledger" in table:
        compared = found.reconcile(read_ledger(draft.find_path("replay", "ledger")))
    more = [] if compared is None else [describe_differences(compared)]
    output.give_out(found, partial(list_replay, found, compared), more)
    if compared is not None and len(compared):
        raise typer.Exit(1)


def describe_differences(compared: pd.DataFrame) -> str:
    if compared.empty:
        return "the ledger does not differ"
    shown = compared.head(SHOWN).to_string()
    return f"the ledger differs in {len(compared):,} amounts, first:\n{shown}"


def list_replay(found: Any, compared: pd.DataFrame | None, path: str | None) -> dict[str, Any]:
    data = result_to_dict(found, path)
    if compared is not None:
        data["differences"] = list_records(compared.reset_index()) if len(compared) else []
    return data


def read_ledger(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"a ledger must be a CSV file of time, term and amount, or time and equity, {path}: "
            f"{describe_fault(error)}"
        ) from error


COMMANDS = {
    "run": (take_experiment(run), RUN_EXAMPLES),
    "compare": (
        take_experiment(
            compare,
            "compare.baseline compare.equal_risk compare.confidence compare.draws compare.seed",
            several=True,
            readers={"--policy": read_policy_flags, "--set": read_setting_flags},
        ),
        COMPARE_EXAMPLES,
    ),
    "decide": (
        take_experiment(
            decide,
            "decide.snapshot decide.at decide.mark decide.funding decide.now",
        ),
        DECIDE_EXAMPLES,
    ),
    "replay": (
        take_experiment(replay, "replay.fills replay.begin replay.ledger replay.range_tolerance"),
        REPLAY_EXAMPLES,
    ),
}
