"""Make a command that takes an experiment: a file, and flags that override it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from backtest.base import BacktestError, from_plain
from backtest.cli.experiment import Entry, Key, draft_experiment, find_key, read_flags
from backtest.cli.printing import print_json

OUTPUT = "Output"
RESULTS = Path("results")
USUAL = (
    *("data.path", "data.instrument", "data.from", "data.to", "run.start"),
    *("policy.name", "policy.settings", "run.signal", "run.compile"),
    *("venue.preset", "account.capital", "account.margin", "account.max_leverage"),
)
"""The keys that every experiment has as flags; all others are set by ``--set TABLE.KEY=VALUE``."""

Reader = Callable[[Key, list[str]], Iterator[Entry]]


def option(text: str, *names: str, panel: str | None = OUTPUT, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


def flag(text: str, *names: str, **more: Any) -> Any:
    return option(text, *names, panel=None, **more)


AsJson = Annotated[bool, option("Print one JSON object only.", "--json")]
Save = Annotated[bool, option("Save the result (default).", "--save/--no-save")]
Results = Annotated[Path, option("The folder of saved results.", "--results")]


@dataclass(frozen=True, kw_only=True)
class Output:
    report: Annotated[Path | None, option("Write a report: .html, .md or .json.", "--report")] = (
        None
    )
    as_json: AsJson = False
    save: Save = True
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
        """Save a result, unless its ``folder`` is there, and print it.

        ``more`` is what the terminal says beside its summary.
        """
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
            typer.echo("\n\n".join([found.summary(), *lines]))
        if failure is not None:
            raise failure


class Command(NamedTuple):
    """A command of the first screen; ``keys`` are the flags that it has beside :data:`USUAL`.

    None of a command that takes no experiment.
    """

    function: Callable[..., None]
    examples: str
    keys: str | None = None
    read: Reader = read_flags

    def build(self) -> Callable[..., None]:
        if self.keys is None:
            return self.function
        return take_experiment(self.function, self.keys, self.read)


def format_help(function: Callable[..., None], examples: str) -> str:
    text = "\n\n".join(
        " ".join(each.split()) for each in str(inspect.getdoc(function)).split("\n\n")
    )
    return f"{text}\n\n\b\n[bold]Examples[/bold]\n{examples.strip()}"


def add_command(
    app: typer.Typer,
    name: str,
    function: Callable[..., None],
    examples: str,
    panel: str | None = None,
) -> None:
    """Add a command to a group, with examples in its help, in a panel of the group's help."""
    help_text = format_help(function, examples)
    app.command(name, help=help_text, rich_help_panel=panel)(spread_groups(function))


def spread_groups(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the fields of its dataclasses one by one."""
    known = inspect.signature(function, eval_str=True).parameters
    kinds: dict[str, Any] = {name: each.annotation for name, each in known.items()}
    groups: dict[str, Any] = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    if not groups:
        return function

    def gather_and_call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        function(**given)

    parameters = []
    for name, each in known.items():
        own = inspect.signature(groups[name], eval_str=True).parameters if name in groups else {}
        parameters += [*own.values()] if own else [each.replace(kind=each.KEYWORD_ONLY)]
    return take_parameters(gather_and_call, parameters, function.__doc__)


def take_parameters(
    function: Callable[..., None], parameters: Sequence[inspect.Parameter], text: str | None
) -> Callable[..., None]:
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    function.__doc__ = text
    return function


def take_experiment(
    command: Callable[..., None],
    own: str = "",
    read: Reader = read_flags,
) -> Callable[..., None]:
    """Return a command whose first argument is made of a file and flags.

    ``read`` reads what a flag says.
    """
    spread = spread_groups(command)
    first, *rest = inspect.signature(spread, eval_str=True).parameters.values()
    keys = [find_key(name) for name in (*USUAL, *own.split())]

    def read_and_call(experiment: Any = None, **given: Any) -> None:
        entries: list[Entry] = []
        # --set names one entry in full, so it overrides a flag for the same entry
        for key in sorted(keys, key=lambda each: each.flag == "--set"):
            value = given.pop(name_parameter(key))
            if isinstance(value, bool):
                entries.append((key.place, value != bool(key.default)))
            elif value:
                entries += read(key, value if isinstance(value, list) else [value])
        spread(**{first.name: draft_experiment(experiment, entries)}, **given)

    file = inspect.Parameter(
        "experiment",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None,
            typer.Argument(metavar="[EXPERIMENT.toml]", hidden=True),
        ],
    )
    parameters = [file, *map(make_option, keys), *rest]
    return take_parameters(read_and_call, parameters, command.__doc__)


def name_parameter(key: Key) -> str:
    return f"{key.table}_{key.name}"


def make_option(key: Key) -> inspect.Parameter:
    kind: Any = list[str] | None  # also of what may be given once, to refuse a second
    flag, more = key.flag, {"metavar": {int: "N", float: "X"}.get(key.kind, "TEXT")}
    is_switch = key.kind is bool or isinstance(key.default, bool)
    if is_switch:
        flag = f"--no-{flag.removeprefix('--')}" if key.default else flag
        kind, more = bool | None, {}
    is_told = is_switch or key.default is None or str(key.default) in key.text
    text = key.text if is_told else f"{key.text.removesuffix('.')} ({key.default})."
    return inspect.Parameter(
        name_parameter(key),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option(text, flag, panel=None, **more)],
    )
