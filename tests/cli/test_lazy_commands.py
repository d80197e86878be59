"""The commands built one by one are those that Typer builds together."""

import copy
from importlib import import_module
from typing import Any

import pytest
import typer
from typer.core import TyperCommand

from backtest.cli import lazy_commands
from backtest.cli.app import app
from backtest.cli.printing import add_command
from tests.commands import call


def describe(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], tuple]:
    """Return what each command below one is called, takes and says, by the words that name it."""
    flags = [(each.name, each.opts, each.default, each.metavar) for each in command.params]
    kind = type(command)
    if kind is lazy_commands.StrictCommand:  # it differs in what it refuses
        kind = TyperCommand
    said = (kind, command.name, command.help, command.rich_markup_mode, str(flags))
    below = getattr(command, "commands", {})
    found = {path: (*said, sorted(below))}
    for name in below:
        found |= describe(below[name], (*path, name))
    return found


def test_the_commands_are_those_of_typer():
    whole = copy.copy(app)
    whole.registered_commands, whole.registered_groups = [], []
    for name, panel in lazy_commands.PANELS.items():
        module = import_module(f"backtest.cli.{name}_command")
        if isinstance(module.COMMAND, typer.Typer):
            whole.add_typer(module.COMMAND, name=name, rich_help_panel=panel)
        else:
            add_command(whole, name, module.COMMAND, module.EXAMPLES, panel)
    ours, theirs = describe(lazy_commands.build_tree(app)), describe(typer.main.get_command(whole))
    assert len(ours) > 30
    assert {name: str(each) for name, each in ours.items()} == {
        name: str(each) for name, each in theirs.items()
    }


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """Return the names of the commands that are built from here on."""
    names: list[str] = []
    build = lazy_commands.build_command

    def note(info: Any, root: typer.Typer) -> Any:
        names.append(str(info.name))
        return build(info, root)

    monkeypatch.setattr(lazy_commands, "build_command", note)
    lazy_commands.build_tree.cache_clear()
    yield names
    lazy_commands.build_tree.cache_clear()


def test_only_the_typed_command_is_built_and_once(capsys, built):
    assert call(capsys, "venues", "show", "nobody")[0] == 2
    assert call(capsys, "venues", "show", "nothing")[0] == 2
    assert built == ["show"]
