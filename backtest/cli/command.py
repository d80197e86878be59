"""Make a command that takes an experiment: a file, and flags that override it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import BacktestError, from_plain
from backtest.cli.experiment import Draft, GivenFlag, draft_experiment, read_flag
from backtest.cli.experiment_keys import Key, find_key
from backtest.cli.printing import print_json

OUTPUT = "Output"
RESULTS = Path("results")
USUAL = (
    *("data.path", "data.instrument", "data.from", "data.to", "run.start"),
    *("policy.name", "policy.settings", "run.signal", "run.compile"),
    *("venue.preset", "account.capital", "account.margin", "account.max_leverage"),
)
"""The keys that every experiment has as flags; all others are set by ``--set TABLE.KEY=VALUE``."""

Reader = Callable[[Key, Any], Iterator[GivenFlag]]


def option(text: str, *names: str, panel: str | None = OUTPUT, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


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


def take_experiment(
    command: Callable[..., None],
    own: str = "",
    *,
    several: bool = False,
    readers: Mapping[str, Reader] | None = None,
) -> Callable[..., None]:
    """Return a command whose first argument is made of a file and flags.

    ``own`` names the keys that it has as flags beside :data:`USUAL`; ``readers`` read flags, given
    as often as wanted, in their own way. With ``several`` the argument is a list, one per file.
    """
    own_readers = readers or {}
    rest = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    keys = [find_key(name) for name in (*USUAL, *own.split())]
    groups: dict[str, Any] = {
        each.name: each.annotation for each in rest if is_dataclass(each.annotation)
    }

    def read_and_call(context: typer.Context, experiment: Any = None, **given: Any) -> None:
        files = experiment if isinstance(experiment, list) else [experiment]
        values = {each: given.pop(name_parameter(each)) for each in keys}
        values |= {each: False for each in keys if each.default is True and values[each]}
        # --set names one entry in full, so it overrides a flag for the same entry
        in_order = sorted(keys, key=lambda each: each.flag == "--set")
        flags = [
            flag
            for each in in_order
            for flag in own_readers.get(each.flag, read_flag)(each, values[each])
        ]
        usual = {each: values[each] for each in keys[: len(USUAL)]}
        typed = [*(str(file) for file in files if file), *list_arguments(usual)]
        line = tuple(context.obj or ())
        drafts: list[Draft] = [draft_experiment(each, flags, typed, line) for each in files]
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(drafts if several else drafts[0], **given)

    options = [make_option(each, is_list=each.flag in own_readers) for each in keys]
    file = inspect.Parameter(
        "experiment",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[Path] | None if several else Path | None,
            typer.Argument(metavar="[EXPERIMENT.toml]", hidden=True),
        ],
    )
    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    parameters = [context, file, *options, *(one for each in rest for one in list_group(each))]
    read_and_call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    read_and_call.__annotations__ = {each.name: each.annotation for each in parameters}
    read_and_call.__doc__ = command.__doc__
    return read_and_call


def list_group(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    if not is_dataclass(parameter.annotation):
        return [parameter]
    return [*inspect.signature(parameter.annotation, eval_str=True).parameters.values()]  # type: ignore[arg-type]


def name_parameter(key: Key) -> str:
    return f"{key.table}_{key.name}"


def make_option(key: Key, *, is_list: bool = False) -> inspect.Parameter:
    flag, kind, more = key.flag, key.kind, {"metavar": "TEXT"}
    if is_list or key.is_table or key.name in ("objective", "path", "instrument"):
        kind = list[str] | None
    elif kind is bool or isinstance(key.default, bool):
        kind, more = bool | None, {}
        flag = f"--no-{flag.removeprefix('--')}" if key.default else f"{flag}"
    else:
        more = {"metavar": {int: "N", float: "X"}.get(kind, "TEXT")}
        kind = kind | None if kind in (int, float) else str | None
    is_told = key.default is None or isinstance(key.default, bool) or str(key.default) in key.text
    text = key.text if is_told else f"{key.text.removesuffix('.')} ({key.default})."
    return inspect.Parameter(
        name_parameter(key),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option(text, flag, panel=None, **more)],
    )


def list_arguments(values: Mapping[Key, Any]) -> Iterator[str]:
    for each, value in values.items():
        if isinstance(value, bool):
            yield f"{'--' if value else '--no-'}{each.flag.removeprefix('--')}"
        elif value is not None:
            for one in value if isinstance(value, list) else [value]:
                yield from (each.flag, str(one))


def flag(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, show_default=False, **more)
