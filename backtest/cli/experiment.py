"""Build an experiment: market, policy, venue and account, as its file and flags describe them."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from backtest.account import Account
from backtest.base.errors import ParameterError
from backtest.base.units import TimeLike, format_time, to_nanoseconds
from backtest.cli.draft import Draft, DraftTable, GivenFlag, Tables, flatten, located, nest, overlay
from backtest.cli.experiment_keys import RULE_TABLES
from backtest.cli.experiment_schema import read_experiment
from backtest.cli.find_policy import read_policy
from backtest.cli.lending_table import apply_lending
from backtest.cli.typed_values import format_typed
from backtest.cli.unit_hints import warn_of_large_costs
from backtest.engine.named_signals import read_named, read_rule
from backtest.market import Market, Markets
from backtest.market.read.instrument_folders import find_in_folders
from backtest.policy import Policy
from backtest.venue import Venue, preset_files

SAMPLE = "sample"
DEFAULT_POLICY = "vol-target"
DEFAULT_VENUE = "binance-usdm:BTCUSDT"
RUN_TERMS = ("sampling", "calendar", "compile")
"""The keys of ``[run]`` that are passed to :func:`backtest.run` unchanged."""


class Experiment(NamedTuple):
    """A market, a policy, and the other keyword arguments of ``backtest.run``: the terms.

    Of several instruments, ``market`` is a Markets, and ``policy`` may hold one for each name.
    """

    market: Any
    policy: Any
    terms: dict[str, Any]

    def list_given_terms(self) -> dict[str, Any]:
        """Return the terms that are not None."""
        return {name: each for name, each in self.terms.items() if each is not None}


def draft_experiment(
    file: Path | None,
    flags: Sequence[GivenFlag],
    command: str = "backtest run",
    arguments: Sequence[str] = (),
    line: Sequence[str] = (),
) -> Draft:
    """Read an experiment file and apply the flags to it.

    A flag that replaces the policy, the venue, the signal or the allocation of the file also drops
    their settings.
    """
    from_file = {} if file is None else read_experiment(file)
    tables: Tables = {name: dict(content) for name, content in from_file.items()}
    for flag in flags:
        if replaces_table(flag, tables):
            tables[flag.table] = {}
        if flag.table == "run" and flag.key in RULE_TABLES:
            tables.get("run", {}).pop(f"{flag.key}_settings", None)
    for flag in flags:
        tables = overlay(tables, nest(flag))
    return Draft(tables, file, from_file, flags, command, tuple(arguments), tuple(line))


def replaces_table(flag: GivenFlag, tables: Tables) -> bool:
    """Return whether a flag names another policy than the file, or a venue."""
    if (flag.table, flag.key) == ("policy", "name"):
        return bool(tables.get("policy", {}).get("name") != flag.value)
    return (flag.table, flag.key) == ("venue", "preset")


def build_experiment(draft: Draft, *, warms: bool = True) -> Experiment:
    """Build the objects that a draft describes; errors name the table or the flags.

    ``warms`` keeps the bars before the account's start, to warm the policy's columns. The accounts
    of a sweep or a search begin with their market, so their market is cut at the start instead.
    """
    run = draft.section("run")
    policy = build_policy(draft.section("policy", path="name"))
    preset = find_preset(draft)
    venue = build_venue(draft.section("venue"), preset)
    with located(draft.locate("account")):
        account = Account.from_dict(draft.tables.get("account", {}))
    span = read_span(draft, warms=warms)
    market = load_market(draft.section("data", path="path"), span.low, span.high)
    warn_of_other_symbol(preset, market)
    venue = apply_lending(draft, venue, market)
    terms = {name: run.entries[name] for name in RUN_TERMS if name in run.entries}
    terms |= {"venue": venue, "account": account}
    terms["signal"] = read_signal(run, market)
    if warms:
        check_start(span, market)
        terms["start"] = span.start
    elif span.start is not None:
        warn_of_cold_start(span.start)
    return Experiment(market, policy, terms)


def build_run_command(draft: Draft, values: Mapping[str, object]) -> str:
    """Return the ``backtest run`` command that runs one set of a sweep or a search again.

    Their accounts begin with their market, so the data are cut at the start of the account.

    Examples
    --------
    >>> draft = draft_experiment(None, [], arguments=["--to", "2023-02-01", "--set", "target=1"])
    >>> build_run_command(draft, {"target": 0.5, "account.band": 0.1})
    'backtest run --to 2023-02-01 --set target=0.5 --set account.band=0.1'
    """
    words = ["backtest", "run"]
    rest = iter(draft.arguments)
    for word in rest:
        given = [word, next(rest)] if word == "--set" else [word]
        if word != "--set" or given[1].partition("=")[0].strip() not in values:
            words += given
    start = draft.tables.get("run", {}).get("start")
    words += [] if start is None else ["--from", str(start)]
    for name, value in values.items():
        words += ["--set", f"{name}={format_typed(value)}"]
    return shlex.join(words)


def build_policy(section: DraftTable) -> Policy:
    """Build the policy with its settings."""
    name = section.entries.get("name", DEFAULT_POLICY)
    settings = flatten(section.entries.get("settings", {}))
    return read_policy(name, settings, where=section.where, folder=section.folder)


def find_preset(draft: Draft) -> preset_files.PresetName | None:
    """Return the preset that the venue begins with; None if the file gives a venue in full."""
    section = draft.section("venue", path="preset")
    is_whole = "contract" in draft.from_file.get("venue", {})
    text = section.entries.get("preset", None if is_whole else DEFAULT_VENUE)
    return None if text is None else split_preset(text, section.where, section.folder)


def split_preset(text: str, where: str, folder: Path = Path()) -> preset_files.PresetName:
    """Parse ``venue:SYMBOL``, ``venue:SYMBOL@DATE`` or ``FILE.toml:SYMBOL``.

    The path of a file is relative to ``folder``; ``where`` names the flag or table in messages.
    """
    name = preset_files.parse_name(text, where=where)
    is_file = name.venue.endswith(preset_files.SUFFIX)
    return name._replace(venue=str(folder / name.venue)) if is_file else name


def build_venue(section: DraftTable, preset: preset_files.PresetName | None) -> Venue:
    """Build the venue: a preset overridden by the entries, or the entries alone."""
    table = {name: entry for name, entry in section.entries.items() if name != "preset"}
    with located(section.where):
        if preset is not None:
            under = preset_files.read_preset(*preset)
            if "brackets" in table:
                under = {name: under[name] for name in under if name not in ("in_force", "earlier")}
            table = overlay(under, table)
        venue = Venue.from_dict(table)
    warn_of_large_costs(flatten(section.entries), section.where)
    return venue


def warn_of_other_symbol(preset: preset_files.PresetName | None, market: Market) -> None:
    """Warn if the venue's rules and the prices are of different symbols."""
    if preset is None or market.synthetic:
        return
    symbol = preset.symbol
    if not market.instrument:
        warnings.warn(
            "the data do not name their instrument; the venue's rules (brackets, lot, least "
            f"notional) are those of {symbol}: name it, --instrument {symbol}, or choose other "
            "rules, --venue NAME:SYMBOL",
            stacklevel=2,
        )
    elif not names_symbol(symbol, market.instrument):
        warnings.warn(
            f"the venue's rules (brackets, lot, least notional) are those of {symbol}, "
            f"the prices are those of {market.instrument}",
            stacklevel=2,
        )


def names_symbol(symbol: str, instrument: str) -> bool:
    """Compare a venue's symbol with the name of an instrument, by letters and digits only.

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


class DataSpan(NamedTuple):
    """The span of the data to read, ``low`` to ``high``, and the start of the account.

    None means no bound. ``where`` names the flags or the table that gave the account's span.
    """

    low: TimeLike | None
    high: TimeLike | None
    start: TimeLike | None
    where: str


def check_start(span: DataSpan, market: Market | Markets) -> None:
    """Check that the account begins inside the data."""
    if span.start is not None and to_nanoseconds(span.start, where=span.where) < market.start:
        raise ParameterError(
            f"the account must begin inside the data, which begin {format_time(market.start)}, "
            f"was {span.start}",
            where=span.where,
            cure="give a later start, or more data",
        )


def read_span(draft: Draft, *, warms: bool) -> DataSpan:
    """Return the span of the data to read and the start of the account, after checking them."""
    data, run = draft.tables.get("data", {}), draft.tables.get("run", {})
    low, high, start, end = data.get("from"), data.get("to"), run.get("start"), run.get("end")
    where = draft.locate("run", ("start", "end"))
    if is_before(start, low, where) or is_before(high, end, where):
        raise ParameterError(
            f"start and end must lie inside the data, were {start or 'none'} to {end or 'none'} of "
            f"{low or 'none'} to {high or 'none'}",
            where=where,
            cure="leave --from and --to out, or choose them further apart",
        )
    if start is not None and end is not None and not is_before(start, end, where):
        raise ParameterError(
            f"end must lie after start, were {start} to {end}", where=where, cure="give a later end"
        )
    first = low if warms or start is None else start
    return DataSpan(first, high if end is None else end, start, where)


def is_before(time: TimeLike | None, other: TimeLike | None, where: str) -> bool:
    """Return whether a time comes before another; False if either is None."""
    if time is None or other is None:
        return False
    return to_nanoseconds(time, where=where) < to_nanoseconds(other, where=where)


def warn_of_cold_start(start: TimeLike) -> None:
    """Warn that no bars before the start are left to warm the columns of policies."""
    warnings.warn(
        f"the data are cut at the start, {start}: here the bars before it do not warm the "
        "columns of policies, which trade as soon as those are known; `backtest run` and "
        "`backtest compare` keep them",
        stacklevel=2,
    )


def load_market(
    data: DraftTable, start: TimeLike | None = None, end: TimeLike | None = None
) -> Market:
    """Load the sample or the data of a path, cut to a span and resampled."""
    choices = dict(data.entries)
    path, interval = choices.pop("path", SAMPLE), choices.pop("resample", None)
    choices = {name: choice for name, choice in choices.items() if name not in ("from", "to")}
    if path == SAMPLE:
        market = load_sample(choices, start, end, where=data.where)
    else:
        paths = [data.folder / each for each in ([path] if isinstance(path, str) else path)]
        between = None if start is None and end is None else (start, end)
        chosen = find_in_folders(paths, choices.get("instrument"))
        if chosen is not None:  # of a folder with a folder for each market
            paths, choices["instrument"] = [chosen.path], chosen.instrument
        market = Market.load(*paths, between=between, **choices)
    if interval is None:
        return market
    with located(data.where):
        return market.resample(interval)


def load_sample(
    choices: Mapping[str, Any], start: TimeLike | None, end: TimeLike | None, *, where: str
) -> Market:
    """Return the embedded sample, cut to a span."""
    if choices:
        raise ParameterError(
            f"the sample takes no {', '.join(choices)}: its data are known",
            where=where,
            cure="leave that out, or choose the data: --data PATH",
        )
    market = Market.sample()
    if start is None and end is None:
        return market
    with located(where):
        return market.between(start, end)


def read_signal(run: DraftTable, market: Market) -> Any:
    """Return a constant, a column of the bars, or a rule, as ``[run]`` describes the signal."""
    signal, settings = run.entries.get("signal"), flatten(run.entries.get("signal_settings", {}))
    if isinstance(signal, str):
        with suppress(ValueError):
            signal = float(signal)
    if settings:
        if not isinstance(signal, str) or signal in market.columns:
            raise ParameterError(
                f"signal.{next(iter(settings))} is a parameter of a rule, the signal is "
                f"{'not given' if signal is None else repr(signal)}",
                where=run.where,
                cure="name a rule, such as --signal rsi, or leave signal.NAME out",
            )
        return read_rule(signal, settings, columns=market.columns, where=run.where)
    return read_named(signal, market, where=run.where)
