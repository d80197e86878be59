"""Make a command that takes an experiment: a file, and flags that go over it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.cli.experiment import draft_experiment
from backtest.cli.experiment_schema import KEYS, Key
from backtest.cli.flags import option

File = Annotated[
    Path | None,
    typer.Argument(help="An experiment file (TOML); flags go over it.", show_default=False),
]
SHARED = ("data", "policy", "venue", "account", "run")
"""Tables whose flags every experiment takes."""
Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Experiment files (TOML); flags go over them.", show_default=False),
]


def take_experiment(
    command: Callable[..., None],
    name: str,
    own: Sequence[Key] = (),
    *,
    takes_several: bool = False,
) -> Callable[..., None]:
    """Return a command that reads an experiment and calls ``command`` with its draft.

    Parameters
    ----------
    command : callable
        Takes the draft as its first argument, and by keyword what is no part of an experiment.
    name : str
        ``"backtest run"``, for messages.
    own : sequence of Key
        Flags of the experiment that only this command takes; one with the name of a flag that
        every experiment takes replaces it.
    takes_several : bool
        Whether it takes several files; ``command`` then gets a list of drafts.
    """
    rest = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    taken = {each.flag for each in own}
    shared = [each for each in KEYS if each.table in SHARED and each.flag not in taken]

    def take(context: typer.Context, **given: Any) -> None:
        files = given.pop("experiment") or []
        files = files if isinstance(files, list) else [files]
        values = {each: given.pop(each.parameter) for each in (*own, *shared)}
        flags = [flag for each in sort_keys(values) for flag in each.list_entries(values[each])]
        typed = [*map(str, files), *list_arguments({each: values[each] for each in shared})]
        line = tuple(context.obj or ())
        drafts = [draft_experiment(file, flags, name, typed, line) for file in files or [None]]
        command(drafts if takes_several else drafts[0], **given)

    parameters = arrange([*own, *shared], rest, Files if takes_several else File)
    take.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    take.__annotations__ = {each.name: each.annotation for each in parameters}
    return take


def arrange(
    keys: Sequence[Key], rest: Sequence[inspect.Parameter], files: Any
) -> list[inspect.Parameter]:
    """Return the parameters of a command, its own flags first."""
    by_name = inspect.Parameter.KEYWORD_ONLY
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    flags = [
        inspect.Parameter(
            each.parameter,
            by_name,
            default=False if each.kind is bool else None,
            annotation=Annotated[each.flag_kind, option(each.panel, each.text, each.flag)],
        )
        for each in keys
    ]
    context = inspect.Parameter("context", either, annotation=typer.Context)
    file = inspect.Parameter("experiment", by_name, default=None, annotation=files)
    return [context, file, *flags, *rest]


def sort_keys(keys: Iterable[Key]) -> list[Key]:
    """Return the flags in the order in which they are laid over each other: ``--set`` last.

    It names one entry in full, so it goes over a flag for the same entry: the command that runs
    the winner of a search again gives the winner's values by it.
    """
    return sorted(keys, key=lambda each: each.flag == "--set")


def list_arguments(values: Mapping[Key, Any]) -> Iterator[str]:
    """Yield the arguments that give the flags these values."""
    for each, value in values.items():
        if value is True:
            yield each.flag
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                yield from (each.flag, str(one))
