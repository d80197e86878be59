"""Make commands of functions: options are their parameters, fields of groups, and keys."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import typer
from typer.models import OptionInfo

from backtest.cli.experiment import (
    SWITCHES,
    Entry,
    draft_experiment,
    find_key,
    name_flag,
    read_flags,
)
from backtest.cli.printing import print_json, write_colored
from backtest.core import BacktestError, from_plain
from backtest.experiments.draft import Draft
from backtest.experiments.tables import Key

Text: TypeAlias = str | None
Texts: TypeAlias = list[str] | None
Files: TypeAlias = list[Path] | None
RESULTS = Path("results")
USUAL = (
    "data.path",
    "data.instrument",
    "data.from",
    "data.to",
    "run.start",
    "policy.name",
    "policy.settings",
    "run.signal",
    "run.compile",
    "venue.preset",
    "account.capital",
    "account.margin",
    "account.max_leverage",
)
"""The keys that every experiment has as flags; all others are set by ``--set TABLE.KEY=VALUE``."""

EVERY = "Every experiment"
"""The panel of the flags that all experiments have; it is the last one."""
DATE = "DATE"
DURATION = "DURATION"
PATH = "PATH"
SETTING = "NAME=VALUE"
METAVARS = {
    "--from": DATE,
    "--to": DATE,
    "--start": DATE,
    "--now": DATE,
    "--since": DATE,
    "--at": DATE,
    "--older-than": DATE,
    "--horizon": DURATION,
    "--horizons": DURATION,
    "--decision-interval": DURATION,
    "--train": DURATION,
    "--test": DURATION,
    "--gap": DURATION,
    "--recovery": DURATION,
    "--data": PATH,
    "--fills": PATH,
    "--snapshot": PATH,
    "--flows": PATH,
    "--begin": PATH,
    "--ledger": PATH,
    "--report": PATH,
    "--results": PATH,
    "--out": PATH,
    "--into": PATH,
    "--set": SETTING,
    "--fix": SETTING,
    "--shock": SETTING,
    "--rule": SETTING,
    "--vary": SETTING,
    "--space": SETTING,
    "--ladder": SETTING,
    "--tolerance": SETTING,
}
"""What the values of flags are, where that is more than a text or a number."""
NAMES_OF_TYPES: dict[Any, str] = {
    bool: "",
    bool | None: "",
    str: "TEXT",
    str | None: "TEXT",
    list[str]: "TEXT",
    list[str] | None: "TEXT",
    int: "N",
    int | None: "N",
    float: "X",
    float | None: "X",
    Path: PATH,
    Path | None: PATH,
    list[Path]: PATH,
    list[Path] | None: PATH,
}
"""What the help of other flags calls their values; a switch has none."""
MARKUP = re.compile(r"(?<!\\)\[(?=[a-zA-Z:#/@])(?!/?dim\])")
"""A bracket that the help would read as the beginning of a style; [dim] is meant as one."""

Reader = Callable[[Key, list[str]], Iterator[Entry]]


def option(text: str, *names: str, panel: str | None = "Output", **more: Any) -> Any:
    if names and names[0] in METAVARS:
        more = {"metavar": METAVARS[names[0]], **more}
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


flag = partial(option, panel=None)


def argument(text: str, metavar: str | None = None) -> Any:
    return typer.Argument(help=text, metavar=metavar, show_default=False)


AsJson = Annotated[bool, option("Print one JSON object only.", "--json")]
Report = Annotated[Path | None, option("Write a report: .html, .md or .json.", "--report")]
Save = Annotated[bool, option("Save the result (default), or only print it.", "--save/--no-save")]
Verbose = Annotated[bool, option("Also print the checks that passed.", "--verbose")]
Results = Annotated[Path, option("The folder of saved results.", "--results")]


@dataclass(frozen=True, kw_only=True)
class Output:
    """The flags that say where a result goes."""

    report: Report = None
    as_json: AsJson = False
    save: Save = True
    verbose: Verbose = False
    results: Results = RESULTS

    @property
    def store(self) -> Path | None:
        """Where results are saved; None with --no-save."""
        if not self.save:
            return None
        return self.results

    def give_out(
        self,
        result: Any,
        to_data: Callable[[str | None], object] | None = None,
        more: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        """Save a result, unless its ``folder`` is there, and print it, and ``more`` lines.

        ``to_data`` takes where it was saved, and returns what JSON prints.
        """
        if self.report is not None:
            result.report(self.report)

        # A result that cannot be saved is printed all the same, before the error.
        failure = None
        path = folder
        if self.store and folder is None:
            try:
                path = result.save(self.store)
            except BacktestError as error:
                failure = error
        saved = None if path is None else str(path)

        if not self.as_json:
            self.print_summary(result, more, saved)
        elif to_data is None:
            print_json(from_plain({"path": saved, **result.to_dict()}))
        else:
            print_json(to_data(saved))
        if failure is not None:
            raise failure

    def print_summary(self, result: Any, more: Sequence[str], saved: str | None) -> None:
        """Print a result, more lines, and where its report and its files are."""
        texts = [write_colored(result, verbose=self.verbose), *more]
        if self.report:
            texts.append(f"report: {self.report}")
        if saved is not None:
            texts.append(f"full result: {saved}")
        typer.echo("\n\n".join(texts))


class Command(NamedTuple):
    """A command; one that ``takes_policy`` reads what is no TOML file as the policy."""

    function: Callable[..., None]
    keys: str | None
    read: Reader
    takes_policy: bool = False


COMMANDS: dict[str, Command] = {}
"""Those of the modules that are loaded, by name: ``run``, ``data fetch``."""


def command(
    name: str,
    keys: str | None = None,
    read: Reader = read_flags,
    *,
    takes_policy: bool = False,
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
    """Return a docstring as help: its paragraphs, then the examples under a head."""
    paragraphs = []
    examples = []
    for part in MARKUP.sub(r"\[", inspect.cleandoc(text)).split("\n\n"):
        if part.startswith("backtest "):
            examples.append(f"\b\n[bold]Examples[/bold]\n{part.strip()}")
        else:
            paragraphs.append(" ".join(part.split()))
    return "\n\n".join([*paragraphs, *examples])


def build_function(declared: Command) -> Callable[..., None]:
    """Return the function of a command as typer takes it, with flags for all its keys."""
    parameters = inspect.signature(declared.function, eval_str=True).parameters
    groups: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
    keys = []
    if declared.keys is not None:
        keys = [find_key(name) for name in (*USUAL, *declared.keys.split())]

    def call(**values: Any) -> None:
        """Call the function of the command: flags of keys become its draft, fields its groups."""
        if keys:
            entries = list(read_entries(declared, keys, values))
            file = values.pop("experiment")
            if declared.takes_policy and file is not None and file.suffix != ".toml":
                entries.append(("policy.name", str(file)))
                file = None
            values["draft"] = draft_experiment(file, entries)

        for name, group in groups.items():
            own_values = {field.name: values.pop(field.name) for field in fields(group)}
            values[name] = group(**own_values)
        declared.function(**values)

    flags = list_parameters(declared, parameters, groups, keys)
    call.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flags}
    return call


def read_entries(declared: Command, keys: Sequence[Key], values: dict[str, Any]) -> Iterator[Entry]:
    """Yield what the flags of keys set, and take them out of the values.

    ``--set`` names one entry in full, so it comes last and overrides a flag for the same entry.
    """
    for key in sorted(keys, key=lambda key: name_flag(key) == "--set"):
        value = values.pop(key.place.replace(".", "_"))
        if isinstance(value, bool):
            yield key.place, value
            continue

        texts = value
        if value and not isinstance(value, list):
            texts = [value]
        if texts:
            yield from declared.read(key, texts)


def list_parameters(
    declared: Command,
    parameters: Mapping[str, inspect.Parameter],
    groups: Mapping[str, Any],
    keys: Sequence[Key],
) -> list[inspect.Parameter]:
    """Return the parameters that typer sees: flags of keys for the draft, fields for groups."""
    usual = [key for key in keys if key.place in USUAL]
    special = [key for key in keys if key.place not in USUAL]

    flags: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if parameter.annotation is Draft:
            for own_name, kind in describe_options(declared, special).items():
                flags.append(make_flag(own_name, kind))
        elif name in groups:
            fields_of_group = inspect.signature(groups[name], eval_str=True).parameters
            flags.extend(fields_of_group.values())
        else:
            flags.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    # The keys that all experiments have come last, in a panel of their own.
    for key in usual:
        name = key.place.replace(".", "_")
        flags.append(make_flag(name, describe_option(key, EVERY)))

    for flag_of_command in flags:
        complete_help(flag_of_command)
    return flags


def make_flag(name: str, annotation: Any) -> inspect.Parameter:
    """Return the parameter of a flag of an experiment; None if it is not given."""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=annotation,
    )


def complete_help(parameter: inspect.Parameter) -> None:
    """Keep brackets in the help of a parameter, and name its value if it has no name.

    Both are written into the option or argument of its annotation.
    """
    kind = parameter.annotation.__origin__
    (about,) = parameter.annotation.__metadata__
    if about.help:
        about.help = MARKUP.sub(r"\\[", about.help)  # again of what several commands share
    if about.metavar is not None:
        return
    if isinstance(about, OptionInfo):
        about.metavar = METAVARS.get(f"--{parameter.name}", NAMES_OF_TYPES.get(kind))
    else:
        about.metavar = parameter.name.upper()


def describe_options(declared: Command, keys: Sequence[Key]) -> dict[str, Any]:
    """Return the annotations of the file of an experiment and of the flags of its keys, by name."""
    metavar = "EXPERIMENT.toml"
    if declared.takes_policy:
        metavar = "POLICY or EXPERIMENT.toml"
    file = typer.Argument(metavar=metavar, hidden=True)

    kinds: dict[str, Any] = {"experiment": Annotated[Path | None, file]}
    for key in keys:
        kinds[key.place.replace(".", "_")] = describe_option(key, panel=None)
    return kinds


def describe_option(key: Key, panel: str | None) -> Any:
    """Return the annotation of the flag of a key."""
    flag_name = name_flag(key)
    if key.kinds == (bool,) or isinstance(key.default, bool):
        if not key.default:
            return Annotated[bool | None, option(key.text, flag_name, panel=panel)]
        pair = f"{flag_name}/--no-{flag_name.removeprefix('--')}"
        return Annotated[bool | None, option(SWITCHES[key.name], pair, panel=panel)]

    text = key.text
    if key.default is not None and f"({key.default})" not in text:
        text = f"{text.removesuffix('.')} ({key.default})."

    # A list also of what may be given once, to refuse a second.
    return Annotated[Texts, option(text, flag_name, panel=panel, metavar=name_value(key))]


def name_value(key: Key) -> str:
    """Return what the help calls the value of a key: N, X, or what the flag's name says."""
    if key.kinds == (int,):
        return "N"
    takes_float = float in key.kinds and str not in key.kinds
    if takes_float or isinstance(key.default, float):
        return "X"
    return METAVARS.get(name_flag(key), "TEXT")
