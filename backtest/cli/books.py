"""Several accounts of an experiment file: ``[accounts.NAME]`` and ``[transfer]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.accounts.book import Accounts
from backtest.accounts.result import AccountsResult
from backtest.accounts.rules import RULES as TRANSFER_RULES
from backtest.accounts.rules import TransferRule
from backtest.cli.build import build_experiment
from backtest.cli.experiment import parse_typed
from backtest.cli.printing import show_progress
from backtest.experiments.draft import Draft
from backtest.experiments.policy_names import import_file, import_named
from backtest.experiments.tables import ACCOUNTS, OF_ACCOUNT


class Book(NamedTuple):
    """Several accounts of a file, and the policy of each."""

    accounts: Accounts
    policies: dict[str, Any]
    compile: bool

    def run(self) -> AccountsResult:
        with show_progress(", ".join(self.policies), "wakes") as progress:
            return self.accounts.run(self.policies, compile=self.compile, progress=progress)


def build_book(draft: Draft) -> Book:
    """Build the accounts that a draft describes; tables outside are of those that have none."""
    refuse_hidden_flags(draft)
    experiments = {}
    for name, account in draft.table(ACCOUNTS).items():
        try:
            experiments[name] = build_experiment(draft_account(draft, account))
        except core.BacktestError as error:
            raise type(error)(f"{ACCOUNTS}.{name}: {error}") from error

    transfer = dict(draft.table("transfer"))
    settings = read_settings(transfer.pop("settings", {}))
    rule = read_transfer_rule(transfer.pop("rule", "never"), settings)
    tests = {name: experiment.test for name, experiment in experiments.items()}
    return Book(
        accounts=Accounts(tests, transfer=rule, **transfer),
        policies={name: experiment.policy for name, experiment in experiments.items()},
        compile=all(experiment.compile for experiment in experiments.values()),
    )


def draft_account(draft: Draft, account: Mapping[str, Any]) -> Draft:
    """Return the experiment of one account: its tables over those of all."""
    tables = {}
    for key in OF_ACCOUNT:
        table = join_tables(draft.table(key), account.get(key, {}))
        if table:
            tables[key] = table
    return Draft(tables, file=draft.file)


def is_other(table: Mapping[str, Any]) -> bool:
    """Return whether a table of an account has a subject of its own, which replaces it whole."""
    return any(name in table for name in ("name", "preset", "path", "contract"))


def join_tables(shared: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of one account over that of all."""
    if is_other(table):
        return dict(table)
    return {**shared, **table}


def refuse_hidden_flags(draft: Draft) -> None:
    """Raise a ParameterError for a flag that an account would not see, for it has its own."""
    for place in draft.flags:
        table, _, key = place.partition(".")
        if table not in OF_ACCOUNT:
            continue

        for name, tables in draft.table(ACCOUNTS).items():
            hiding = tables.get(table, {})
            if is_other(hiding) or key.partition(".")[0] in hiding:
                raise core.ParameterError(
                    f"{place} is of all accounts, {ACCOUNTS}.{name} has its own {table}; give "
                    f"--set {ACCOUNTS}.{name}.{place}=VALUE"
                )


def read_settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a rule, those of flags as the numbers that they are."""
    settings: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            settings[name] = read_settings(value)
        elif isinstance(value, str):
            settings[name] = parse_typed(value)
        else:
            settings[name] = value
    return settings


def read_transfer_rule(text: str, settings: Mapping[str, Any]) -> Any:
    """Return the transfer rule of a name, ``FILE.py:Class`` or ``package.module:Class``."""
    if text in TRANSFER_RULES:
        kind: Any = TRANSFER_RULES[text]
    elif ":" in text:
        kind = import_rule(text)
    else:
        kind = TRANSFER_RULES[core.Choice(*TRANSFER_RULES).check("transfer.rule", text)]

    if issubclass(kind, TransferRule):
        return kind.from_dict(settings, where="transfer.settings")
    return kind(**settings)


def import_rule(text: str) -> Any:
    """Return the class of ``FILE.py:Class`` or ``package.module:Class``, a rule of transfers."""
    path, _, name = text.rpartition(":")
    module = import_file(Path(path)) if path.endswith(".py") else import_named(path)
    kind = vars(module).get(name)
    if not (isinstance(kind, type) and callable(getattr(kind, "transfer", None))):
        raise core.ParameterError(
            f"transfer.rule: {path} must have a class {name} with a method "
            "transfer(self, time, accounts)"
        )
    return kind
