"""Write ``help.json`` of the command line, what commands say: ``python -m tests.help_table``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from backtest.cli.app import GROUPS, build_command
from backtest.cli.command import COMMANDS, build_function, format_help
from backtest.cli.first_screen import COMMANDS as SCREEN
from backtest.cli.terminal_screen import TABLE


def make_table() -> dict[str, Any]:
    """Return the table of helps; what several commands have is in it once."""
    for name in SCREEN:
        build_command(name)

    parameters: dict[str, Any] = {}
    commands: dict[str, Any] = {name: {"help": format_help(text)} for name, text in GROUPS.items()}
    order = [*SCREEN]
    for name in sorted(COMMANDS, key=lambda name: order.index(name.partition(" ")[0])):
        declared = COMMANDS[name]
        names = []
        for parameter in inspect.signature(build_function(declared)).parameters.values():
            row = describe(parameter)
            key = parameter.name
            if parameters.setdefault(key, row) != row:
                key = f"{parameter.name} of {name}"
                parameters[key] = row
            names.append(key)

        text = format_help(declared.function.__doc__ or "")
        commands[name] = {"help": text, "parameters": names}
    return {"commands": commands, "parameters": parameters}


def describe(parameter: inspect.Parameter) -> dict[str, Any]:
    (about,) = parameter.annotation.__metadata__
    usual = vars(type(about)())
    own = {name: value for name, value in vars(about).items() if value != usual[name]}

    # the library keeps the first flag where it once had a default
    first = [] if own.get("default", ...) is ... else [own["default"]]
    flags = [*first, *own.pop("param_decls", ())]
    own.pop("default", None)
    row = {
        "name": parameter.name,
        "type": str(parameter.annotation.__origin__),
        "is_argument": type(about).__name__ == "ArgumentInfo",
        "flags": flags,
        "about": own,
    }
    default = parameter.default
    if default is not parameter.empty:
        row["default"] = str(default) if isinstance(default, Path) else default
    return row


def write_table() -> str:
    table = make_table()
    parts = []
    for part, rows in table.items():
        lines = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        parts.append(f'"{part}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(write_table(), encoding="utf-8")
