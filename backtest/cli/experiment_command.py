"""Make a command that takes an experiment: a file, and flags that override it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from backtest.cli.experiment import draft_experiment
from backtest.cli.experiment_keys import EXPERIMENT_KEYS, Key
from backtest.cli.flags import FIRST, option

File = Annotated[
    Path | None,
    typer.Argument(help="An experiment file (TOML); flags override it.", show_default=False),
]
Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Experiment files (TOML); flags override them.", show_default=False),
]


USUAL = (
    "--data", "--instrument", "--from", "--policy", "--set", "--signal", "--venue", "--capital",
    "--margin", "--max-leverage",
)  # fmt: skip


def take_experiment(
    command: Callable[..., None],
    own: Sequence[Key] = (),
    *,
    usual: Sequence[str] = USUAL,
) -> Callable[..., None]:
    first, *rest = inspect.signature(command, eval_str=True).parameters.values()
    takes_several = get_origin(first.annotation) is list
    groups: dict[str, Any] = {
        each.name: each.annotation for each in rest if is_dataclass(each.annotation)
    }
    taken = {each.flag for each in own}
    shared = [each for each in EXPERIMENT_KEYS if each.flag not in taken]

    def read_and_call(context: typer.Context, **given: Any) -> None:
        files = given.pop("experiment") or []
        files = files if isinstance(files, list) else [files]
        values = {each: given.pop(each.parameter) for each in (*own, *shared)}
        # --set names one entry in full, so it overrides a flag for the same entry
        in_order = sorted(values, key=lambda each: each.flag == "--set")
        flags = [flag for each in in_order for flag in each.list_entries(values[each])]
        typed = [*map(str, files), *list_arguments({each: values[each] for each in shared})]
        line = tuple(context.obj or ())
        drafts = [draft_experiment(file, flags, typed, line) for file in files or [None]]
        for each, group in groups.items():
            given[each] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(drafts if takes_several else drafts[0], **given)

    alone = [flag for each in rest for flag in list_group(each)]
    parameters = list_parameters(
        lead_with(usual, [*own, *shared]), alone, Files if takes_several else File
    )
    read_and_call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    read_and_call.__annotations__ = {each.name: each.annotation for each in parameters}
    read_and_call.__doc__ = command.__doc__
    return read_and_call


def lead_with(usual: Sequence[str], keys: Sequence[Key]) -> list[Key]:
    by_flag = {each.flag: each for each in keys}
    first = [by_flag[flag]._replace(panel=FIRST) for flag in usual if flag in by_flag]
    return [*first, *(each for each in keys if each.flag not in usual)]


def list_group(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    group: Callable[..., Any] = parameter.annotation
    if not is_dataclass(parameter.annotation):
        return [parameter]
    return [*inspect.signature(group, eval_str=True).parameters.values()]


def list_parameters(
    keys: Sequence[Key], rest: Sequence[inspect.Parameter], files: Any
) -> list[inspect.Parameter]:
    by_name = inspect.Parameter.KEYWORD_ONLY
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    context = inspect.Parameter("context", either, annotation=typer.Context)
    file = inspect.Parameter("experiment", by_name, default=None, annotation=files)
    return [context, file, *list_flags(keys), *rest]


def list_flags(keys: Sequence[Key]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            each.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if each.kind is bool else None,
            annotation=Annotated[each.flag_kind, option(each.panel, each.text, each.flag)],
        )
        for each in keys
    ]


def list_arguments(values: Mapping[Key, Any]) -> Iterator[str]:
    for each, value in values.items():
        if value is True:
            yield each.flag
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                yield from (each.flag, str(one))
