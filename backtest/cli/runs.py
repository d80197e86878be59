"""``backtest run``, ``compare``, ``decide`` and ``replay``: accounts simulated on markets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import typer

import backtest
from backtest.cli import experiment
from backtest.cli.build import build_experiment, build_policies, build_test
from backtest.cli.command import AsJson, Output, command
from backtest.cli.printing import print_json, show_progress
from backtest.core import ParameterError, did_you_mean, list_records
from backtest.core.code_names import pd
from backtest.experiments.draft import Draft, flatten, put
from backtest.experiments.policy_names import OF_MODULE
from backtest.experiments.tables import ACCOUNTS, MODELS, Key
from backtest.policies import format_title

IN_SUMMARY = (
    backtest.LastPriceWarning,
    backtest.NoFillWarning,
    backtest.InfiniteLeverageWarning,
    backtest.VenueDateWarning,
)
"""Warnings whose text stands in the summary of a run too."""


@command("run", "run.decision_interval")
def run(draft: Draft, *, output: Output) -> None:
    """Run an account through a market under a policy, and summarize the result.

    Tables [accounts.NAME] make several accounts, with transfers between them.

    backtest run --policy cppi --set multiplier=4 --data btc/
    backtest run examples/btc-vol-target.toml --set account.band=0.1 --json
    """
    if not output.as_json:
        for warning in IN_SUMMARY:
            warnings.simplefilter("ignore", warning)
    if draft.table(ACCOUNTS):
        from backtest.cli.books import build_book  # noqa: PLC0415 - of several accounts alone

        output.give_out(build_book(draft).run())
        return
    output.give_out(build_experiment(draft).run())


RESERVED = (ACCOUNTS, *experiment.TABLES, *MODELS, *experiment.RULE_TABLES)
"""Names that ``--set`` reads as tables, and not as labels of policies."""


def read_compared(key: Key, texts: list[str]) -> Iterator[experiment.Entry]:
    """Yield the entries of a flag of a comparison: policies by label, and settings of one."""
    if key.place not in ("policy.name", "policy.settings"):
        yield from experiment.read_flags(key, texts)
        return

    for text in texts:
        if key.name == "name":
            label, policy = label_policy(text)
            yield f"compare.policies.{label.strip()}.name", policy.strip()
        else:
            yield read_setting(key, text)


def label_policy(text: str) -> tuple[str, str]:
    """Return the label and the policy of LABEL=POLICY; without a label, the name of its class."""
    label, equals, policy = text.partition("=")
    if equals and "(" not in label:
        return label, policy

    # A class of an installed module, module:Class, or of a file, FILE.py:Class.
    written = text.strip()
    separator = ".py:"
    if OF_MODULE.fullmatch(written):
        separator = ":"
    path, _, call = written.partition(separator)
    if not call:
        return Path(path).name.removesuffix(".py"), text

    class_name = call.partition("(")[0]
    return format_title(class_name), text


def read_setting(key: Key, text: str) -> experiment.Entry:
    """Return the entry of a setting of one policy, LABEL.NAME=VALUE, or of a table."""
    name, value = experiment.split_pair(experiment.name_flag(key), text, "cppi.multiplier=5")
    label, dot, setting = name.partition(".")
    if not dot:
        raise ParameterError(f"a setting must name its policy, as vol-target.{text}, got {text!r}")
    if label in RESERVED:
        return experiment.read_entry(name, value)
    return f"compare.policies.{label}.settings.{setting}", value


@command(
    "compare",
    "run.decision_interval compare.baseline compare.equal_risk compare.confidence compare.draws "
    "compare.seed",
    read_compared,
)
def compare(draft: Draft, *, output: Output) -> None:
    """Compare policies on the same market and terms, and test which differences exceed noise.

    Policies come from the experiment, from compare.policies, and from --policy NAME or LABEL=NAME;
    --set LABEL.NAME=VALUE sets a parameter of one.

    backtest compare --policy calm=vol-target --policy bold=vol-target --set bold.target=0.8
    backtest compare calm.toml --policy cppi --set cppi.multiplier=5
    """
    tables = list_compared(draft)
    settings = dict(draft.table("compare"))
    settings.pop("policies", None)

    test, _, is_compiled = build_experiment(draft)
    results = {}
    with show_progress("running", "policies") as progress:
        for done, (label, table) in enumerate(tables.items(), start=1):
            policy = build_policies(table, test)
            results[label] = test.run(policy, compile=is_compiled)
            progress(done, len(tables))
    with show_progress("comparing", "steps") as progress:
        compared = backtest.compare(results, **settings, progress=progress)
    output.give_out(compared)


def list_compared(draft: Draft) -> dict[str, dict[str, Any]]:
    """Return the tables of the policies that are compared, by label, each as [policy]."""
    named = draft.table("compare").get("policies", {})
    labels_of_flags = set()
    for place in draft.flags:
        if place.startswith("compare.policies."):
            labels_of_flags.add(place.split(".")[2])

    # A file that names policies to compare lists all of them: its own [policy] is none.
    tables: dict[str, dict[str, Any]] = {}
    if draft.file is not None and labels_of_flags.issuperset(named):
        tables[draft.file.stem] = draft.table("policy")

    for label, table in named.items():
        if "name" not in table and label not in tables:
            raise ParameterError(
                f"compare.policies.{label} must have a name or be of a policy that is compared, "
                f"{', '.join(tables) or 'got none'}{did_you_mean(label, tables)}"
            )

        # The settings of flags stand over those of the file.
        tables[label] = deepcopy(tables.get(label, {}))
        for key, value in flatten(table).items():
            put(tables[label], key.split("."), value)

    if len(tables) < 2:
        raise ParameterError(
            f"a comparison needs two policies or more, got {', '.join(tables) or 'none'}; "
            "`backtest policies` lists policies"
        )
    return tables


@command(
    "decide",
    "run.decision_interval decide.snapshot decide.at decide.mark decide.funding "
    "decide.liquidation decide.now",
)
def decide(draft: Draft, *, as_json: AsJson = False) -> None:
    """Show what a policy decides at the last close, and the order that it leads to.

    Sends no orders and holds no keys. Exit code 1 means: do not act on the order.

    backtest decide --data btc/ --policy vol-target --snapshot account.json --at 30250
    backtest decide live.toml --snapshot account.json --json
    """
    table = dict(draft.table("decide"))
    if "snapshot" not in table:
        raise ParameterError(
            "decide.snapshot is needed, a file with the fields of bt.AccountSnapshot, or with what "
            "ccxt's fetch_balance and fetch_positions return"
        )

    state = backtest.AccountSnapshot.load(table.pop("snapshot"))
    test, policy, _ = build_experiment(draft)
    decision = test.decide(policy, **table, state=state)
    if as_json:
        print_json(decision.to_dict())
    else:
        typer.echo(str(decision))
    if not decision.may_act:
        raise typer.Exit(1)


@command("replay", "replay.fills replay.begin replay.ledger replay.range_tolerance")
def replay(draft: Draft, *, output: Output) -> None:
    """Simulate an account on its real fills, and summarize the result.

    With --ledger, also show the differences from the venue's ledger; the exit code is 1 if there
    are any. The policy of the experiment is not used.

    backtest replay --data btc/ --fills trades.csv --begin account.json
    backtest replay live.toml --fills trades.csv --ledger income.csv --json --no-save
    """
    table = dict(draft.table("replay"))
    if "fills" not in table:
        raise ParameterError(
            "replay.fills is needed, a table of time, instrument, quantity, price and fee"
        )

    test = build_test(draft)
    if "begin" in table:
        table["start"] = backtest.AccountSnapshot.load(table.pop("begin"))
    zone = draft.table("data").get("timezone")
    ledger = table.pop("ledger", None)
    fills = backtest.read_fills(table.pop("fills"), timezone=zone)
    replayed = test.replay(fills, **table)
    if ledger is None:
        output.give_out(replayed, lambda path: {"path": path, **replayed.to_dict()})
        return

    differences = replayed.reconcile(ledger, timezone=zone)
    rows = list_records(differences.reset_index())
    output.give_out(
        replayed,
        lambda path: {"path": path, **replayed.to_dict(), "differences": rows},
        more=[describe_differences(differences)],
    )
    if len(differences):
        raise typer.Exit(1)


def describe_differences(differences: pd.DataFrame) -> str:
    """Return how many amounts of a ledger differ, and the first ones as a table."""
    if len(differences) == 0:
        return "the ledger does not differ"
    first = differences.head(10).to_string(float_format="{:,.6g}".format)
    return f"the ledger differs in {len(differences):,} amounts, first:\n{first}"
