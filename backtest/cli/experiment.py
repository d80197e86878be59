"""An experiment: data, policy, venue, account, settings, from a TOML file and flags over it."""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from backtest.account.account import Account
from backtest.base.bounded_reads import read_small
from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.units import FloatArray, TimeLike
from backtest.cli.data_span import check_start, find_span, warn_of_cold_start
from backtest.cli.find_policy import located, read_policy
from backtest.cli.typed_values import flatten
from backtest.market.market import Market
from backtest.policy.policy import Policy
from backtest.venue import preset_files
from backtest.venue.venue import Venue

SAMPLE = "sample"
DEFAULT_POLICY = "vol-target"
DEFAULT_VENUE = "binance-usdm:BTCUSDT"
"""What an experiment is without a word."""

Tables = dict[str, dict[str, Any]]


class Flag(NamedTuple):
    """One flag of the command line that was given: the entry of the experiment that it sets."""

    name: str
    table: str
    key: str
    value: object

    @property
    def group(self) -> str:
        """The key before its first dot: ``space`` of ``space.target``."""
        return self.key.partition(".")[0]

    @property
    def entry(self) -> str:
        """The key after its first dot; empty where it has none."""
        return self.key.partition(".")[2]


class Experiment(NamedTuple):
    """Everything that ``backtest.run`` takes."""

    market: Market
    policy: Policy
    venue: Venue
    account: Account
    signal: float | FloatArray | None
    sampling: str
    calendar: str
    compile: bool
    start: TimeLike | None = None


class Draft(NamedTuple):
    """An experiment as words: its tables, the file they come from, the flags laid over it.

    ``command`` is what it was said to.
    """

    tables: Tables
    file: Path | None
    from_file: Tables
    flags: Sequence[Flag]
    command: str

    def place(self, table: str, about: Sequence[str] = ()) -> str:
        """Return where a table's entries were said, for messages.

        Parameters
        ----------
        table : str
            Its name.
        about : sequence of str
            Words of the message: where flags are about one of them, the others are not named.
        """
        places = [f"{self.file}, [{table}]"] if table in self.from_file else []
        flags = [flag for flag in self.flags if flag.table == table]
        exact = [flag for flag in flags if {flag.key, flag.entry} & {*about}]
        groups = {*about} - {flag.group for flag in exact}
        meant = [flag for flag in flags if flag in exact or flag.group in groups]
        in_file = flatten(self.from_file.get(table, {}))
        if not meant and any({key, *key.split(".", 1)} & {*about} for key in in_file):
            return places[0]
        if meant:
            places = []
        places += dict.fromkeys(flag.name for flag in meant or flags)
        return ", ".join(places) or self.command

    def place_entry(self, table: str, name: str) -> str:
        """Return where one entry of a table of its own was said, and its name."""
        return f"{self.place(table, (name,))}: {name}"

    @property
    def folder(self) -> Path:
        """The folder that paths in the file begin at."""
        return self.file.parent if self.file is not None else Path()

    def resolve(self, table: str, key: str) -> Path:
        """Return the folder that a path in this entry begins at: the file's, or the user's."""
        is_flag = any(flag.table == table and flag.key == key for flag in self.flags)
        return Path() if is_flag else self.folder


def draft_experiment(
    file: Path | None, flags: Sequence[Flag], command: str = "backtest run"
) -> Draft:
    """Return the words of an experiment: the file's, with flags over them, else the defaults.

    Raises
    ------
    ParameterError
        If the file is not an experiment.
    """
    from_file = read_experiment(file) if file is not None else {}
    tables: Tables = {name: dict(content) for name, content in from_file.items()}
    if replaces(flags, "policy", "name", tables):
        tables["policy"] = {}
    if any(flag.table == "venue" and flag.key == "preset" for flag in flags):
        tables["venue"] = {}
    for flag in flags:
        tables = overlay(tables, nest(flag))
    return Draft(tables, file, from_file, flags, command)


def replaces(flags: Sequence[Flag], table: str, key: str, tables: Tables) -> bool:
    """Tell whether a flag says something else than the file: its settings go with it."""
    return any(
        flag.table == table and flag.key == key and tables.get(table, {}).get(key) != flag.value
        for flag in flags
    )


def nest(flag: Flag) -> Tables:
    """Return a flag as tables; a key with a dot is a table in the table.

    Examples
    --------
    >>> nest(Flag("--taker-bps", "venue", "fees.taker", 0.0005))
    {'venue': {'fees': {'taker': 0.0005}}}
    """
    value: Any = flag.value
    for key in reversed(flag.key.split(".")):
        value = {key: value}
    return {flag.table: value}


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return one table laid over another, table by table."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = overlay(below, value) if both else value  # type: ignore[arg-type] # both says it
    return merged


# --------------------------------------------------------------------------------- reading a file


def read_experiment(file: Path) -> Tables:
    """Return the tables of a TOML file, their keys and types checked.

    Raises
    ------
    ParameterError
        Listing what is unknown or of the wrong type.
    """
    cure = "give an experiment, such as examples/btc-vol-target.toml"
    if not file.is_file():
        near = did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.toml")))
        found = "is a folder" if file.is_dir() else "does not exist"
        hint = "; data are given with --data" if file.is_dir() else near
        raise ParameterError(
            f"an experiment must be a TOML file, {str(file)!r} {found}{hint}",
            where=f"EXPERIMENT, searched from {Path.cwd()}",
            cure=cure,
        )
    from backtest.cli.experiment_schema import check_tables  # noqa: PLC0415 - loads pydantic, for files only

    try:
        tables = tomllib.loads(read_small(file, cure=cure).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            f"an experiment must be TOML: {describe_toml(error):.200}",
            where=str(file),
            cure="mend that line",
        ) from error
    return check_tables(tables, file)


def describe_toml(error: Exception) -> str:
    """Return what is wrong with a text that is no TOML."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
        return str(error)
    return "a number has too many digits"


# --------------------------------------------------------------------------------------- building


def build_experiment(draft: Draft, *, warms: bool = True) -> Experiment:
    """Return the objects that the words stand for.

    Parameters
    ----------
    draft : Draft
        The words.
    warms : bool
        Whether the bars before the account's start are kept, to warm the policy's columns. The
        accounts of a sweep and of a search begin with their market, so that it is cut there.

    Raises
    ------
    BacktestError
        If one of them is refused, with the table or the flags that said it.
    """
    settings = draft.tables.get("run", {})
    policy = build_policy(draft)
    venue = build_venue(draft)
    account = build_account(draft)
    market = build_market(draft, warms=warms)
    warn_of_other_symbol(draft, market)
    if not warms:
        warn_of_cold_start(draft)
    return Experiment(
        market=market,
        policy=policy,
        venue=venue,
        account=account,
        signal=read_signal(settings.get("signal"), market, where=draft.place("run")),
        sampling=settings.get("sampling", "1d"),
        calendar=str(settings.get("calendar", "365")),
        compile=settings.get("compile", True),
        start=check_start(draft, market) if warms else None,
    )


def build_policy(draft: Draft) -> Policy:
    """Return the policy with its settings."""
    table = draft.tables.get("policy", {})
    where, folder = draft.place("policy"), draft.resolve("policy", "name")
    name, settings = table.get("name", DEFAULT_POLICY), table.get("settings", {})
    return read_policy(name, settings, where=where, folder=folder)


def build_venue(draft: Draft) -> Venue:
    """Return a preset with what is laid over it, or a venue given in full."""
    where = draft.place("venue")
    table = dict(draft.tables.get("venue", {}))
    is_whole = "venue" in draft.from_file and "contract" in table
    preset = table.pop("preset", None if is_whole else DEFAULT_VENUE)
    if preset is not None:
        name = split_preset(preset, where=where, folder=draft.resolve("venue", "preset"))
        with located(where):
            under = preset_files.read_preset(*name)
        if "brackets" in table:
            under = {name: under[name] for name in under if name not in ("in_force", "earlier")}
        table = overlay(under, table)
    with located(where):
        return Venue.from_dict(table)


def warn_of_other_symbol(draft: Draft, market: Market) -> None:
    """Say so where the rules are one symbol's and the prices another's."""
    table = draft.tables.get("venue", {})
    preset = table.get("preset", None if "contract" in table else DEFAULT_VENUE)
    if preset is None or market.synthetic:
        return
    symbol = split_preset(preset, where=draft.place("venue")).symbol
    if not market.instrument:
        warnings.warn(
            "the data do not say which instrument they are of; the venue's rules (brackets, lot, "
            f"least notional) are those of {symbol}: say so, --instrument {symbol}, or choose "
            "other rules, --venue NAME:SYMBOL",
            stacklevel=2,
        )
    elif not names_symbol(symbol, market.instrument):
        warnings.warn(
            f"the venue's rules (brackets, lot, least notional) are those of {symbol}, "
            f"the prices are those of {market.instrument}",
            stacklevel=2,
        )


def names_symbol(symbol: str, instrument: str) -> bool:
    """Tell whether an instrument may be what a venue calls by a symbol: letters and digits count.

    Examples
    --------
    >>> names_symbol("BTCUSDT", "BTC/USDT:USDT"), names_symbol("BTC-USDT-SWAP", "BTC_USDT")
    (True, True)
    >>> names_symbol("BTCUSDT", "ETH/USDT:USDT"), names_symbol("BTC", "BTC/USDC:USDC")
    (False, True)
    """
    word = re.sub(r"^PF_|[-_](SWAP|PERPETUAL|PERP)$", "", symbol.upper()).replace("XBT", "BTC")
    plain = re.sub(r"[^A-Z0-9]", "", instrument.upper()).replace("XBT", "BTC")
    return re.sub(r"[^A-Z0-9]", "", word) in plain


def split_preset(text: str, *, where: str, folder: Path = Path()) -> preset_files.PresetName:
    """Return what ``venue:SYMBOL``, ``venue:SYMBOL@DATE`` or ``FILE.toml:SYMBOL`` says.

    Parameters
    ----------
    text : str
        The preset.
    where : str
        Where it was said, for messages.
    folder : Path
        The folder that the path of a file begins at.

    Raises
    ------
    VenueError
        If it is none of these.
    """
    name = preset_files.parse_name(text, where=where)
    is_file = name.venue.endswith(preset_files.SUFFIX)
    return name._replace(venue=str(folder / name.venue)) if is_file else name


def build_account(draft: Draft) -> Account:
    """Return the account."""
    with located(draft.place("account")):
        return Account.from_dict(draft.tables.get("account", {}))


def build_market(draft: Draft, *, warms: bool = True) -> Market:
    """Return the sample or the data of a path, cut and resampled; ``warms`` as above."""
    table = dict(draft.tables.get("data", {}))
    path = table.pop("path", SAMPLE)
    start, end = find_span(draft, warms=warms)
    for name in ("from", "to"):
        table.pop(name, None)
    interval = table.pop("resample", None)
    if path == SAMPLE:
        market = load_sample(table, start, end, where=draft.place("data"))
    else:
        paths = [path] if isinstance(path, str) else path
        between = None if start is None and end is None else (start, end)
        folder = draft.resolve("data", "path")
        market = Market.load(*(folder / each for each in paths), between=between, **table)
    if interval is None:
        return market
    with located(draft.place("data")):
        return market.resample(interval)


def load_sample(table: Mapping[str, Any], start: Any, end: Any, *, where: str) -> Market:
    """Return the embedded sample, cut.

    Raises
    ------
    ParameterError
        If something is said about it that only files can have.
    """
    if table:
        raise ParameterError(
            f"the sample takes no {', '.join(table)}: its data are known",
            where=where,
            cure="leave that out, or say which data: --data PATH",
        )
    market = Market.sample()
    if start is None and end is None:
        return market
    with located(where):
        return market.between(start, end)


def read_signal(signal: float | str | None, market: Market, *, where: str) -> Any:
    """Return a constant, or the column of the bars that a text names.

    Raises
    ------
    ParameterError
        If it is neither.
    """
    if signal is None or isinstance(signal, (int, float)):
        return signal
    with suppress(ValueError):
        return float(signal)
    if signal in market.columns:
        return market.columns[signal]
    known = ", ".join(market.columns) or "none"
    raise ParameterError(
        f"signal must be a number or a column of the bars, was {signal!r}"
        + did_you_mean(signal, market.columns),
        where=where,
        cure=f"give a number from -1 to 1, or a further column of the bars ({known})",
    )
