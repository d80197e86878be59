"""The flags of a command: those that every experiment takes are said once, here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import typer

from backtest.base.ranges import Range
from backtest.base.units import parse_size
from backtest.cli.experiment import Flag
from backtest.cli.typed_values import read_constraints, read_objective, read_word, split_pair
from backtest.cli.unit_hints import warn_of_fraction

DATA, POLICY, VENUE = "Data", "Policy", "Venue"
ACCOUNT, RUN, OUTPUT = "Account", "Run", "Output"
WORK, RANKING = "Work", "Ranking"
BPS = 1e-4

Read: TypeAlias = Callable[[str, Any], Iterator[Flag]]


class Said(NamedTuple):
    """What the user said of an experiment.

    ``command`` is what it was said to; ``words`` are those that say it at the command line, the
    file's name first; ``line`` is everything that was typed after ``backtest``; ``others`` are
    further files, of a command that takes several.
    """

    command: str
    file: Path | None
    flags: tuple[Flag, ...]
    words: tuple[str, ...]
    line: tuple[str, ...]
    others: tuple[Path, ...] = ()


class Option(NamedTuple):
    """A flag of every experiment: its type, and the entries of the experiment that it sets."""

    name: str
    kind: Any
    read: Read
    panel: str
    text: str

    @property
    def parameter(self) -> str:
        """The name of the argument: that of the flag, and no word of Python's."""
        return self.name.strip("-").replace("-", "_") + "_"


def option(panel: str, text: str, *names: str) -> Any:
    """Return one flag of a help panel."""
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


# ----------------------------------------------------------------------------- from flag to entry


def entry(table: str, key: str, change: Callable[[Any], Any] = lambda value: value) -> Read:
    """Return how a flag is read that sets one entry."""

    def read(name: str, value: Any) -> Iterator[Flag]:
        yield Flag(name, table, key, change(value))

    return read


def read_settings(name: str, texts: Sequence[str]) -> Iterator[Flag]:
    """Yield the flags of ``NAME=VALUE`` texts: of the policy, or of the account or venue.

    Raises
    ------
    ParameterError
        If one has no name or no equals sign.
    """
    for text in texts:
        key, value = split_pair(name, text, "target=0.4")
        table, dot, field = key.partition(".")
        if dot and table in ("account", "venue"):
            yield Flag(name, table, field, read_word(value))
        else:
            yield Flag(name, "policy", f"settings.{key}", value)


def pairs(table: str, key: str) -> Read:
    """Return how a flag of ``NAME=VALUE`` texts is read that sets the entries of a table."""

    def read(name: str, texts: Sequence[str]) -> Iterator[Flag]:
        for text in texts:
            entry_name, value = split_pair(name, text, "target=0.4")
            yield Flag(name, table, f"{key}.{entry_name}", value)

    return read


def bounds(table: str) -> Read:
    """Return how a flag of texts such as ``max_drawdown<=0.4`` is read."""

    def read(name: str, texts: Sequence[str]) -> Iterator[Flag]:
        for measure, bound in read_constraints(texts):
            yield Flag(name, table, f"constraints.{measure}", bound)

    return read


def objectives(table: str) -> Read:
    """Return how a flag of objectives is read; their list takes the place of the file's."""

    def read(name: str, texts: Sequence[str]) -> Iterator[Flag]:
        wanted = [read_objective(text, where=f"{name} {text}") for text in texts]
        yield Flag(name, table, "objective", wanted)

    return read


def basis_points(table: str, key: str) -> Read:
    """Return how a flag of basis points is read that sets a fraction."""

    def read(name: str, bps: float) -> Iterator[Flag]:
        warn_of_fraction(name, bps)
        yield Flag(name, table, key, bps * BPS)

    return read


def negate(value: bool) -> bool:
    """Return the opposite."""
    return not value


Text, Texts, Number, Whole = str | None, list[str] | None, float | None, int | None

OPTIONS = (
    Option("--data", Text, entry("data", "path"), DATA,
           "A folder, a file, or 'sample' (default): a synthetic year."),
    Option("--from", Text, entry("data", "from"), DATA, "First bar to take, UTC."),
    Option("--to", Text, entry("data", "to"), DATA, "End of the last bar, UTC."),
    Option("--start", Text, entry("run", "start"), DATA,
           "When the account begins, UTC: the bars before it warm the policy's columns."),
    Option("--end", Text, entry("run", "end"), DATA, "When it ends, UTC: that bar is not taken."),
    Option("--resample", Text, entry("data", "resample"), DATA, "Longer bars, e.g. 1d."),
    Option("--instrument", Text, entry("data", "instrument"), DATA,
           "Its name, or which of a folder of several."),
    Option("--interval", Text, entry("data", "interval"), DATA,
           "Which bars, of a folder of several."),
    Option("--funding-interval", Text, entry("data", "funding_interval"), DATA,
           "Which file of funding, of a folder of several."),
    Option("--timezone", Text, entry("data", "timezone"), DATA, "Of stamps that carry none."),
    Option("--sessions", bool, entry("data", "sessions"), DATA,
           "The market closes: bars may be missing."),
    Option("--mark-gaps", Text, entry("data", "mark_gaps"), DATA,
           "'last': fill mark prices with last."),
    Option("--funding-gaps", Text, entry("data", "funding_gaps"), DATA,
           "'zero': missing funding is none."),
    Option("--policy", Text, entry("policy", "name"), POLICY,
           "Its name (default vol-target), or FILE.py:ClassName."),
    Option("--set", Texts, read_settings, POLICY,
           "A parameter, NAME=VALUE, or a field, account.NAME=VALUE; again for more."),
    Option("--signal", Text, entry("run", "signal"), POLICY,
           "Direction from -1 to 1 (default 1), or a column of the bars."),
    Option("--venue", Text, entry("venue", "preset"), VENUE,
           "NAME:SYMBOL, FILE.toml:SYMBOL (binance-usdm:BTCUSDT); @DATE, @latest for one table."),
    Option("--taker-bps", Number, basis_points("venue", "fees.taker"), VENUE,
           "Taker fee in basis points."),
    Option("--slippage-bps", Number, basis_points("venue", "slippage.rate"), VENUE,
           "Worsening of every fill in basis points."),
    Option("--capital", Number, entry("account", "capital"), ACCOUNT,
           "Money at the start (10000)."),
    Option("--margin", Text, entry("account", "margin"), ACCOUNT,
           "'cross' (default) or 'isolated'."),
    Option("--venue-leverage", Number, entry("account", "venue_leverage"), ACCOUNT,
           "The leverage set at the venue; cross: as needed."),
    Option("--min-leverage", Number, entry("account", "min_leverage"), ACCOUNT,
           "Least leverage asked for."),
    Option("--max-leverage", Number, entry("account", "max_leverage"), ACCOUNT,
           "Most leverage asked for."),
    Option("--band", Number, entry("account", "band"), ACCOUNT,
           "No trade within this many turns of the target."),
    Option("--stop-loss", Number, entry("account", "stop_loss"), ACCOUNT,
           "Close this fraction of the entry price against it."),
    Option("--margin-call", Number, entry("account", "margin_call"), ACCOUNT,
           "Margin ratio of a call."),
    Option("--reserve", Number, entry("account", "reserve"), ACCOUNT,
           "Money outside, for top-ups."),
    Option("--top-up-to", Number, entry("account", "top_up_to"), ACCOUNT,
           "Margin ratio after a top-up."),
    Option("--after-liquidation", Text, entry("account", "after_liquidation"), ACCOUNT,
           "'continue' (default) or 'halt'."),
    Option("--ruin-at", Number, entry("account", "ruin_at"), ACCOUNT,
           "Ruined at or under this share of the capital paid in."),
    Option("--sampling", Text, entry("run", "sampling"), RUN, "Period of returns (1d)."),
    Option("--calendar", Text, entry("run", "calendar"), RUN, "Days a year: 365 (default) or 252."),
    Option("--no-compile", bool, entry("run", "compile", negate), RUN,
           "Plain Python, for a debugger: the same numbers."),
)  # fmt: skip
"""What may be said of an experiment at the command line."""

File = Annotated[
    Path | None,
    typer.Argument(help="An experiment file (TOML); flags go over it.", show_default=False),
]
Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Experiment files (TOML); flags go over them.", show_default=False),
]
AsJson = Annotated[bool, option(OUTPUT, "Print one JSON object only.", "--json")]
Save = Annotated[bool, option(OUTPUT, "Save the result (default).", "--save/--no-save")]
Results = Annotated[Path, option(OUTPUT, "The folder of saved results.", "--results")]
RESULTS = Path("results")

Threads = Annotated[int | None, option(WORK, "Threads at once; all cores.", "--threads")]
Memory = Annotated[str, option(WORK, "Memory for columns of policies (1GiB).", "--memory")]
Cluster = Annotated[
    str | None, option(WORK, "Dask workers: tcp:// or tls://HOST:PORT, or local:N.", "--cluster")
]
MEMORY = "1GiB"
MOST_THREADS = 4_096


def check_work(threads: int | None, memory: str) -> None:
    """Refuse a number of threads, or a size of memory, that there cannot be.

    Raises
    ------
    ParameterError
        Naming the flag.
    """
    if threads is not None:
        Range(1, MOST_THREADS).check("threads", threads, where="--threads", whole=True)
    parse_size(memory, where="--memory")


def rank_by(table: str) -> tuple[Option, ...]:
    """Return the flags that say what is best, of one table."""
    return (
        Option("--objective", Texts, objectives(table), RANKING,
               "A measure (sharpe), or weights: sharpe=1,turnover=-0.01."),
        Option("--constraint", Texts, bounds(table), RANKING,
               "What must hold: 'max_drawdown<=0.4'; again for more."),
    )  # fmt: skip


# --------------------------------------------------------------------------------- one command


def take_experiment(
    command: Callable[..., None], name: str, own: Sequence[Option] = (), file: Any = File
) -> Callable[..., None]:
    """Return a command that takes an experiment: a file, and flags that go over it.

    Parameters
    ----------
    command : callable
        Takes what was said as its first argument, and by keyword what is no part of an experiment.
    name : str
        ``"backtest run"``, for messages.
    own : sequence of Option
        Flags of the experiment that only this command takes; one with the name of a flag that
        every experiment takes has its place.
    file : Any
        Annotation of the argument for files: one, or :data:`Files`.
    """
    rest = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    taken = {each.name for each in own}
    shared = [each for each in OPTIONS if each.name not in taken]
    parameters = arrange([*own, *shared], rest, file)

    def take(context: typer.Context, **given: Any) -> None:
        files = list_files(given.pop("experiment"))
        told = {each: given.pop(each.parameter) for each in (*own, *shared)}
        said = Said(
            name,
            files[0] if files else None,
            tuple(flag for each in sort_flags(told) for flag in read_option(each, told[each])),
            (*map(str, files), *say_all({each: told[each] for each in shared})),
            tuple(context.obj or ()),
            files[1:],
        )
        command(said, **given)

    take.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    take.__annotations__ = {each.name: each.annotation for each in parameters}
    return take


def list_files(given: Path | list[Path] | None) -> tuple[Path, ...]:
    """Return the files of an argument that takes one or several."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list) else (given,)


def arrange(
    flags: Sequence[Option], rest: Sequence[inspect.Parameter], files: Any
) -> list[inspect.Parameter]:
    """Return the parameters of a command, its own flags first."""
    by_name = inspect.Parameter.KEYWORD_ONLY
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    options = [
        inspect.Parameter(
            each.parameter,
            by_name,
            default=False if each.kind is bool else None,
            annotation=Annotated[each.kind, option(each.panel, each.text, each.name)],
        )
        for each in flags
    ]
    context = inspect.Parameter("context", either, annotation=typer.Context)
    file = inspect.Parameter("experiment", by_name, default=None, annotation=files)
    return [context, file, *options, *rest]


def sort_flags(told: Iterable[Option]) -> list[Option]:
    """Return the flags in the order in which they are laid over each other: ``--set`` last.

    It names one entry in full, so that it stands above a flag for the same entry: the command that
    runs the winner of a search again says the winner's values by it.
    """
    return sorted(told, key=lambda each: each.name == "--set")


def read_option(each: Option, value: Any) -> Iterator[Flag]:
    """Yield the entries that a flag sets; none where it was not given."""
    if value is not None and value is not False:
        yield from each.read(each.name, value)


def say_all(shared: Mapping[Option, Any]) -> Iterator[str]:
    """Yield the words of the flags that were given."""
    for each, value in shared.items():
        if value is True:
            yield each.name
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                yield from (each.name, str(one))
