"""Import and build each command of the command line when it is first used."""

from __future__ import annotations

import copy
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import typer.core

from backtest.base import ParameterError
from backtest.cli.printing import add_command

PANELS = {
    **dict.fromkeys(("run", "compare", "decide", "replay", "cascade", "compile"), "Run"),
    **dict.fromkeys(("sweep", "tune", "validate"), "Search and validate"),
    **dict.fromkeys(("risk", "stress", "bounds", "sensitivity", "capacity", "paths"), "Risk"),
    **dict.fromkeys(("report", "results", "regress"), "Results"),
    **dict.fromkeys(("policies", "check", "data", "options"), "Data and policies"),
    **dict.fromkeys(("liq", "venues"), "Venues"),
}


class Commands(Mapping[str, Any]):
    def __init__(self, builders: Mapping[str, Callable[[], Any]]) -> None:
        self._builders = builders
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._builders[name]()
        return self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)


@cache
def build_tree(app: typer.Typer) -> Any:
    """Return the command of an application, with all of :data:`PANELS` below it.

    It does what that of ``typer.main.get_command`` does. Later calls return the same command.
    """
    group = build_group(app, app, app.info.name)
    group.commands = Commands({name: partial(import_command, name, app) for name in PANELS})
    group.params += typer.main.get_install_completion_arguments()
    return group


def import_command(name: str, root: typer.Typer) -> Any:
    """Import and build one command below a root."""
    module = importlib.import_module(f"backtest.cli.{name}_command")
    if isinstance(module.COMMAND, typer.Typer):
        return build_group(module.COMMAND, root, name, PANELS[name])
    alone = typer.Typer()
    add_command(alone, name, module.COMMAND, module.EXAMPLES, PANELS[name])
    return build_command(alone.registered_commands[0], root)


def build_group(app: typer.Typer, root: typer.Typer, name: Any, panel: Any = None) -> Any:
    """Return the group of an application below a root, which says how texts are shown.

    ``panel`` is where the help of the root lists it.
    """
    alone = copy.copy(app)
    alone.registered_commands, alone.registered_groups = [], []
    alone.rich_markup_mode, alone.suggest_commands = root.rich_markup_mode, root.suggest_commands
    group: Any = typer.main.get_group(alone)
    commands = {
        str(each.name): partial(build_command, each, root) for each in app.registered_commands
    }
    groups = {
        str(each.name): partial(
            build_group, each.typer_instance, root, each.name, each.rich_help_panel
        )
        for each in app.registered_groups
        if each.typer_instance is not None
    }
    group.name, group.commands = name, Commands({**commands, **groups})
    group.rich_help_panel = panel
    return group


def build_command(info: Any, root: typer.Typer) -> Any:
    """Return one command."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=root.rich_markup_mode)
    strict = copy.copy(info)
    strict.cls = StrictCommand
    alone.registered_commands = [strict]
    return typer.main.get_command(alone)


def process_value(
    option: Any, validate: Callable[[Any, Any], Any], context: Any, value: Any
) -> Any:
    kind, has_several = option.type_descriptor.annotation, option.multiple or option.nargs != 1
    if value is None and not option.required:
        value = () if has_several else None
        return value if option.callback is None else option.callback(context, option, value)
    is_bare = option.callback is None and not has_several
    if is_bare and kind is str and isinstance(value, str):
        return value
    if is_bare and kind is Path and isinstance(value, str | Path) and is_readable(value):
        return Path(value)
    return validate(context, value)


def is_readable(path: str | Path) -> bool:
    return not os.path.lexists(path) or os.access(path, os.R_OK)


class DirectOptions:
    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc] # of the command
        for each in params:
            vars(each).setdefault("process_value", partial(process_value, each, each.process_value))
        return params


class StrictCommand(DirectOptions, typer.core.TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = self.make_parser(ctx).parse_args(args=[*args])[2]
        for each, count in Counter(given).items():
            if count > 1 and each.nargs == 1 and not each.multiple:
                check_repeated(each, args)
        return super().parse_args(ctx, args)


def check_repeated(option: Any, args: Sequence[str]) -> None:
    values = [word for word in args if option.is_flag and word in _spell(option)]
    if not option.is_flag:
        values = [after for word, after in pairwise(args) if word in option.opts]
        starts = tuple(f"{name}=" for name in option.opts)
        values += [word.partition("=")[2] for word in args if word.startswith(starts)]
    if len({*values}) > 1:
        flag = option.opts[0]
        lists = "" if option.is_flag else f"; if {flag} takes a list, give it once: {flag} A,B"
        raise ParameterError(
            f"{'/'.join(_spell(option))} takes one value, got {' and '.join(values)}{lists}"
        )


def _spell(option: Any) -> list[str]:
    return [*option.opts, *option.secondary_opts]
