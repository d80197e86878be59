"""Make commands of functions: options are their parameters, fields of groups, and keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import typer

from backtest.cli.experiment import (
    SWITCHES,
    Entry,
    draft_experiment,
    find_key,
    name_flag,
    read_flags,
)
from backtest.cli.printing import print_json
from backtest.core import BacktestError, from_plain
from backtest.experiments.draft import Draft
from backtest.experiments.tables import Key

Text: TypeAlias = str | None
Texts: TypeAlias = list[str] | None
Files: TypeAlias = list[Path] | None
RESULTS = Path("results")
USUAL = (
    *("data.path", "data.instrument", "data.from", "data.to", "run.start"),
    *("policy.name", "policy.settings", "run.signal", "run.compile"),
    *("venue.preset", "account.capital", "account.margin", "account.max_leverage"),
)
"""The keys that every experiment has as flags; all others are set by ``--set TABLE.KEY=VALUE``."""

Reader = Callable[[Key, list[str]], Iterator[Entry]]


def option(text: str, *names: str, panel: str | None = "Output", **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


flag = partial(option, panel=None)


def argument(text: str, metavar: str | None = None) -> Any:
    return typer.Argument(help=text, metavar=metavar, show_default=False)


AsJson = Annotated[bool, option("Print one JSON object only.", "--json")]
Report = Annotated[Path | None, option("Write a report: .html, .md or .json.", "--report")]
Save = Annotated[bool, option("Save the result (default), or only print it.", "--save/--no-save")]
Verbose = Annotated[bool, option("Also print what was checked and is right.", "--verbose")]
Results = Annotated[Path, option("The folder of saved results.", "--results")]


@dataclass(frozen=True, kw_only=True)
class Output:
    report: Report = None
    as_json: AsJson = False
    save: Save = True
    verbose: Verbose = False
    results: Results = RESULTS

    @property
    def store(self) -> Path | None:
        return self.results if self.save else None

    def give_out(
        self,
        found: Any,
        to_data: Callable[[str | None], object] | None = None,
        more: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        """Save a result, unless its ``folder`` is there, and print it, and ``more`` lines."""
        if self.report is not None:
            found.report(self.report)
        failure, path = None, folder
        try:
            path = found.save(self.store) if self.store and folder is None else folder
        except BacktestError as error:
            failure = error
        saved = None if path is None else str(path)
        if self.as_json:
            print_json(
                to_data(saved) if to_data else from_plain({"path": saved, **found.to_dict()})
            )
        else:
            lines = [*more, *([f"report: {self.report}"] if self.report else [])]
            lines += [] if saved is None else [f"full result: {saved}"]
            typer.echo("\n\n".join([found.summary(verbose=self.verbose), *lines]))
        if failure is not None:
            raise failure


class Command(NamedTuple):
    """A command; one that ``takes_policy`` reads what is no TOML file as the policy."""

    function: Callable[..., None]
    keys: str | None
    read: Reader
    takes_policy: bool = False


COMMANDS: dict[str, Command] = {}
"""Those of the modules that are loaded, by name: ``run``, ``data fetch``."""


def command(
    name: str, keys: str | None = None, read: Reader = read_flags, *, takes_policy: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command; its help is the docstring, whose last lines are examples.

    ``keys`` are its flags besides :data:`USUAL`, None if it has no experiment;
    ``read`` parses a flag.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        COMMANDS[name] = Command(function, keys, read, takes_policy)
        return function

    return declare


def list_flags(table: str, names: str) -> str:
    return " ".join(f"{table}.{name}" for name in names.split())


def format_help(text: str) -> str:
    parts = inspect.cleandoc(text).split("\n\n")
    told = [" ".join(each.split()) for each in parts if not each.startswith("backtest ")]
    examples = [each for each in parts if each.startswith("backtest ")]
    shown = [f"\b\n[bold]Examples[/bold]\n{each.strip()}" for each in examples]
    return "\n\n".join([*told, *shown])


def build_function(declared: Command) -> Callable[..., None]:
    function, own, read, takes_policy = declared
    known = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, Any] = {
        x: p.annotation for x, p in known.items() if is_dataclass(p.annotation)
    }
    keys = [] if own is None else [find_key(name) for name in (*USUAL, *own.split())]

    def call(**given: Any) -> None:
        entries: list[Entry] = []
        # --set names one entry in full, so it overrides a flag for the same entry
        for key in sorted(keys, key=lambda each: name_flag(each) == "--set"):
            value = given.pop(key.place.replace(".", "_"))
            if isinstance(value, bool):
                entries.append((key.place, value != bool(key.default)))
            elif value:
                entries += read(key, value if isinstance(value, list) else [value])
        if keys:
            file = given.pop("experiment")
            if takes_policy and file is not None and file.suffix != ".toml":
                entries.append(("policy.name", str(file)))
                file = None
            given["draft"] = draft_experiment(file, entries)
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        function(**given)

    metavar = "[POLICY or EXPERIMENT.toml]" if takes_policy else "[EXPERIMENT.toml]"
    file = typer.Argument(metavar=metavar, hidden=True)
    own_kinds = {"experiment": Annotated[Path | None, file]}
    own_kinds |= {key.place.replace(".", "_"): describe_option(key) for key in keys}
    parameters = []
    for name, each in known.items():
        keyword = each.replace(kind=each.KEYWORD_ONLY)
        if each.annotation is Draft:
            parameters += [keyword.replace(name=own, annotation=kind, default=None)
                           for own, kind in own_kinds.items()]  # fmt: skip
        elif name in groups:
            parameters += inspect.signature(each.annotation, eval_str=True).parameters.values()
        else:
            parameters.append(keyword)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def describe_option(key: Key) -> Any:
    metavar = "N" if key.kinds == (int,) else "X" if key.kinds == (float,) else "TEXT"
    if key.kinds == (bool,) or isinstance(key.default, bool):
        if key.default:  # the switch does the opposite of what the key says
            name = f"--no-{name_flag(key).removeprefix('--')}"
            return Annotated[bool | None, flag(SWITCHES[key.name], name)]
        return Annotated[bool | None, flag(key.text, name_flag(key))]
    is_told = key.default is None or f"({key.default})" in key.text
    text = key.text if is_told else f"{key.text.removesuffix('.')} ({key.default})."
    # a list also of what may be given once, to refuse a second
    return Annotated[Texts, flag(text, name_flag(key), metavar=metavar)]
