"""The ``backtest`` command: its subcommands, how errors are shown, and exit codes."""

from __future__ import annotations

import gc
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Never

import typer
import typer.core

from backtest import core
from backtest._compile.object_code import read_mode
from backtest.cli import printing
from backtest.cli.command import (
    COMMANDS,
    USUAL,
    Text,
    argument,
    build_function,
    command,
    format_help,
)
from backtest.cli.experiment import find_key, name_flag
from backtest.cli.first_screen import COMMANDS as SCREEN
from backtest.cli.first_screen import write_screen
from backtest.cli.terminal_screen import PlainCommand, PlainGroup, new_app
from backtest.experiments.tables import Key

GROUPS = {
    "validate": "Test a way of choosing parameters on data that the choice did not use.",
    "data": """Fetch, import and inspect market data, in the layout that commands read with --data.

    backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
    backtest data inspect btc
    """,
    "options": """Inspect chains of option quotes, and fit surfaces to them.

    backtest options chain deribit.parquet          [dim]# which quotes are defective[/dim]
    backtest options surface deribit.parquet --underlying BTC --report surface.html
    """,
    "results": """List, show, verify and prune saved results, and score their forecasts.

    backtest results list --sort sharpe
    backtest results prune --keep 100 --dry-run
    """,
    "regress": """Record the results of experiments, and check that they have not changed.

    backtest regress record examples/btc-vol-target.toml
    backtest regress check
    """,
}
"""What the commands are that have subcommands."""


class CommandGroup(typer.core.TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - of the base class
        return list(SCREEN)

    def get_help(self, ctx: Any) -> str:
        ctx.color = True  # the screen has colors where it should, and they are not taken out
        return write_screen()

    def get_command(self, ctx: Any, name: str) -> Any:  # noqa: ARG002
        if name in SCREEN and name not in self.commands:
            self.commands[name] = build_command(name)
        return self.commands.get(name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in SCREEN and not args[0].startswith("-"):
            hint = core.did_you_mean(args[0], SCREEN)
            ctx.fail(f"No such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # Typer would print nothing
            printing.print_message("interrupted")
            raise typer.Exit(printing.INTERRUPTED) from error


@cache
def build_command(name: str) -> Any:
    """Return a command of typer with its subcommands; its module is loaded for it.

    It is built once in a process, as it keeps what parses its flags.
    """
    import_module(f"backtest.cli.{SCREEN[name].module}")
    group = typer.Typer(
        name=name,
        cls=PlainGroup,
        add_completion=False,
        rich_markup_mode="rich",
    )
    for full_name, declared in COMMANDS.items():
        first, _, subcommand = full_name.partition(" ")
        if first != name:  # the module has other commands too
            continue
        text = format_help(declared.function.__doc__ or "")
        declare = group.command(subcommand or name, cls=PlainCommand, help=text)
        declare(build_function(declared))

    if name in GROUPS:
        group.callback(help=format_help(GROUPS[name]))(lambda: None)
    return typer.main.get_command(group)


@command("help")
def show_keys(
    table: Annotated[Text, argument("A table of an experiment, such as account or venue.")] = None,
) -> None:
    """List the tables of an experiment, or every key of one, for --set TABLE.KEY=VALUE.

    backtest help account
    """
    from backtest.cli import experiment  # noqa: PLC0415 - loads the package
    from backtest.experiments.tables import MODELS, describe_kinds  # noqa: PLC0415 - as above

    known = (*experiment.TABLES, *MODELS)
    if table is None:
        typer.echo("\n".join(known))
        return

    core.Choice(*known).check("the table", table)
    rows = []
    for key in experiment.read_keys(table).values():
        usual = str(key.default)
        if key.default is None:
            usual = describe_kinds(key.kinds)
        rows.append((key.name, usual, key.text))
    printing.render(rows, ("key", "default or type", "meaning"))


app = new_app(CommandGroup)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, print what is wrong in one line, and return the exit code."""
    if arguments is None:
        return run_process(sys.argv[1:])

    words = list(arguments) or ["--help"]
    printed = set[str]()

    def show_warning(message: Warning | str, *_: Any, **_more: Any) -> None:
        """Print a warning once, with the flags of the command in it."""
        text = str(message)
        if text not in printed:
            printing.print_message(f"warning: {name_flags(text, words)}")
        printed.add(text)

    with warnings.catch_warnings(), printing.degrading_output():
        warnings.showwarning = show_warning
        try:
            return run_command(words)
        except (core.BacktestError, typer.TyperException, OSError) as error:
            return report_fault(error, words)
        except SystemExit as error:
            # Typer's own, where what reads the output has left.
            if isinstance(error.__context__, OSError):
                raise
            printing.print_message(
                f"error: a policy must return, it ended the program with exit code {error.code}"
            )
            return printing.REFUSED
        except (typer.Abort, KeyboardInterrupt):
            printing.print_message("interrupted")
            return printing.INTERRUPTED
        except Exception:  # a fault of this program: the traceback says where
            raise
        except BaseException as error:  # what only the code of a policy raises
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            printing.print_message(f"error: a policy must return, it raised {what}")
            return printing.REFUSED


def report_fault(
    error: core.BacktestError | typer.TyperException | OSError, words: Sequence[str]
) -> int:
    """Print what was wrong with a command or its data, and return the exit code."""
    if isinstance(error, core.BacktestError):
        text = name_typed_flags(name_flags(str(error), words), words)
        printing.print_message(f"error: {text}")
        if isinstance(error, core.AccountingError):
            return printing.FAILED
        return printing.REFUSED

    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)  # which command was parsed, if it came that far
        path = getattr(context, "command_path", "backtest")
        text = error.format_message().rstrip(".")
        printing.print_message(f"error: {text}; see {path} --help")
        return printing.REFUSED
    return printing.report_system_error(error)


def run_command(words: Sequence[str]) -> int:
    """Run a command, and return its exit code; with --json the output is kept for that."""
    check_text(words)
    read_mode()
    output = printing.reserve_stdout() if "--json" in words else nullcontext()
    with core.recording_command(["backtest", *words]), output:
        tree: Any = typer.main.get_command(app)
        code = tree(args=list(words), prog_name="backtest", standalone_mode=False)

    # A command that ends without typer.Exit returns None.
    if isinstance(code, int):
        return code
    return printing.DONE


def check_text(arguments: Sequence[str]) -> None:
    if any(re.search(r"[\0\ud800-\udfff]", word) for word in arguments):
        raise core.ParameterError("arguments must be text in UTF-8 without NUL")


FLAGS = {
    r"; of a frame, frame\.dropna\(subset=\['close'\]\) and sessions=True leave them out": ("", ""),
    r"\bframe\.sort_index\(\), or ": ("", ""),
    r"\bframe\[~frame\.index\.duplicated\(\)\], or ": ("", ""),
    r"\bframe\['[^']*'\]\.astype\(float\)": ("write them as numbers", "write them as numbers"),
    r"\bgive interval= if": ("import them with --interval if", "give --interval if"),
    r"\binterval='1h', or more bars": (
        "backtest data import --interval 1h, or more bars",
        "--interval 1h, or more bars",
    ),
    r"\bwith since= and until=": ("with --from and --to", "with --from and --to"),
    r"\bsince='([^']*)'": (r"--from '\1'", r"--from '\1'"),
    r"\buntil='([^']*)'": (r"--to '\1'", r"--to '\1'"),
    r"\bsince and until\b": ("--from and --to", "--from and --to"),
    r"\bsessions=True": ("--set data.sessions=true", "--sessions"),
    r"\btimezone='([^']*)'": (r"--set data.timezone=\1", r"--timezone \1"),
    r"\brepair='([^']*)'": (r"backtest data import --repair \1", r"--repair \1"),
    r"\bgive now= ": ("give --set data.now=TIME ", "give now= in Python "),
    r"\bcolumns=\{'(mark\.)?high': 'low', .*?\} of files; frame\.rename\(.*?\)": (
        r"backtest data import --columns \1high=low,\1low=high",
        r"--columns \1high=low,\1low=high",
    ),
    r"\bcolumns= of Market\.load names them, --columns of data import": (
        "--columns of data import names them",
        "--columns names them",
    ),
    r"\bmark\.index -= pd\.Timedelta\('(\w+)'\)": (
        r"subtract \1 from the times in the file of marks",
        r"subtract \1 from the times in the file of marks",
    ),
    r"\bmark\.index \+= pd\.Timedelta\('(\w+)'\)": (
        r"add \1 to the times in the file of marks",
        r"add \1 to the times in the file of marks",
    ),
    r"\b(mark|funding)_gaps='(\w+)'": (r"--set data.\1_gaps=\2", r"--repair \1-gaps=\2"),
}
"""Arguments of readers that cures name, and what commands, and data import, have in their place."""
KEYS = {
    r"\bvenue\.override\(\{'([\w.]+)': '?([^'}]*)'?\}\)": r"--set venue.\1=\2",
    r"\bvenue\.override\(brackets=(\.\.\.|\[bt\.Bracket\(\.\.\.\)\])\)": (
        "[[venue.brackets]] of an experiment file"
    ),
    r"\bAccountSnapshot\((\w+)=\.\.\.\)": r'"\1" in the JSON of the snapshot',
    r"\bfrom_ccxt\(\.\.\., (\w+)='(\w+)'\), or '(\w+)'": (
        r'"\1": "\2" or "\3" in the JSON of the snapshot'
    ),
    r"\bmarket\.between\(end='([^']*)'\)": r"--to '\1'",
    r"\bbt\.OptionCosts\(lot=\)": "venue.option_costs.lot",
    r"\bbt\.Option\((\w+)=\)( of one contract)?": r"\1 in its table of options.contracts",
    r"\bbt\.Markets\(\.\.\., currency='(\w+)'\)": r"--set data.currency=\1",
    r"\bbt\.Markets\(\{'long': market, 'short': market\}\)": "--data long/ --data short/",
    r"\bbt\.Markets\(\{name: Market\.load\(\.\.\.\), \.\.\.\}\) names them": (
        "folders of different names name them"
    ),
    r"fill='next_open', or transfer=bt\.Never\(\)": (
        "--set account.fill=next_open, or --set transfer.rule=never"
    ),
    r"values of longer bars hold from the stamp of the next, .*?: "
    r"bt\.signals\.from_(series|frame)\(.*?, carry=True\)": (
        "values of longer bars hold from the close of theirs: stamp each row with that time, and "
        "give --set run.carry_weights=true"
    ),
    r"np\.clip\(signal, -1, 1\)": "--signal needs a column of such values",
    r"flat where it is unknown: "
    r"(np\.nan_to_num\(signal\)|bt\.signals\.from_series\(market, signal\))": (
        "write 0 where it is unknown, which is flat"
    ),
}
"""Python in cures, and the flag or the key of an experiment in its place."""


def name_flags(text: str, words: Sequence[str]) -> str:
    """Return a text in which cures name flags of the command in the place of arguments."""
    is_import = words[:2] == ["data", "import"]
    for pattern, (usual, of_import) in FLAGS.items():
        text = re.sub(pattern, of_import if is_import else usual, text)
    for pattern, key in KEYS.items():
        text = re.sub(pattern, key, text)
    return text


def name_typed_flags(text: str, words: Sequence[str]) -> str:
    """Return the lines of an error: each names the flag that set the key with which it begins.

    ``account.capital: must be over 0`` is ``--capital: must be over 0`` after ``--capital -3``. A
    key of a file or of ``--set`` keeps its name.
    """
    typed = {word.partition("=")[0] for word in words}
    for key in find_keys(words):
        flag = name_flag(key)
        if flag in typed and flag != "--set":
            place = re.escape(key.place)
            text = re.sub(rf"^{place}(?=:? )", flag, text, flags=re.MULTILINE)
    return text


def find_keys(words: Sequence[str]) -> list[Key]:
    """Return the keys that the flags of a command set; of a command without, the usual ones."""
    declared = COMMANDS.get(" ".join(words[:2])) or COMMANDS.get(" ".join(words[:1]))
    keys = ""
    if declared is not None and declared.keys is not None:
        keys = declared.keys
    return [find_key(name) for name in (*USUAL, *keys.split())]


GATES = ("regress", "check")
"""The commands whose exit code is a verdict on a policy, whose code they run."""


def run_process(arguments: Sequence[str]) -> int:
    """Run the command of this process and return its exit code; a gate ends the process itself."""
    gc.freeze()  # what imports made stays
    if arguments and arguments[0] in GATES:
        end_with_verdict(arguments)
    return run_and_flush(arguments)


def run_and_flush(arguments: Sequence[str]) -> int:
    try:
        return printing.flush_output(main(arguments))
    except SystemExit:  # typer's, where the reader of the output has left
        return printing.flush_output(printing.FAILED)
    except KeyboardInterrupt:  # between two of these lines
        return printing.INTERRUPTED


def end_with_verdict(arguments: Sequence[str]) -> Never:
    """Run a gate, and end the process by its exit code.

    What a policy or a library left for the end of the process does not run: functions of
    ``atexit``, finalizers, threads.
    """
    code = printing.FAILED
    try:
        code = run_and_flush(arguments)
    except BaseException:
        traceback.print_exc()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)
