"""The tables and keys of an experiment, their types, and the flags that set them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, get_origin, get_type_hints

from backtest.account import Account, ByInstrument, StopDistance
from backtest.base import Choice, ParameterError
from backtest.cli.experiment_draft import GivenFlag
from backtest.cli.flags import (
    ACCOUNT,
    ACCOUNT_FLAGS,
    COMPARISON,
    DATA,
    FOLDS,
    LIVE,
    PATHS,
    POLICY,
    RANKING,
    RISK,
    RUN,
    SEARCH,
    SETS,
    VENUE,
)
from backtest.cli.typed_values import (
    parse_typed,
    read_constraints,
    read_objective,
    split_pair,
    warn_of_fraction,
)

Time = dt.datetime | dt.date | str
Objective = str | dict[str, float]
SEVERAL = ("path", "instrument", "contracts")


class Key(NamedTuple):
    table: str
    name: str
    kind: Any
    flag: str = ""
    panel: str = ""
    text: str = ""
    read: Callable[[Key, Any], Iterator[GivenFlag]] | None = None

    @property
    def parameter(self) -> str:
        return self.flag.strip("-").replace("-", "_") + "_"

    @property
    def flag_kind(self) -> Any:
        if self.kind in (bool, int, float):
            return bool if self.kind is bool else self.kind | None
        takes_several = get_origin(self.kind) is dict or self.name in ("objective", *SEVERAL)
        return list[str] | None if takes_several else str | None

    def list_entries(self, value: Any) -> Iterator[GivenFlag]:
        if value is None or value is False:
            return
        yield from read_flag(self, value) if self.read is None else self.read(self, value)


PAIR_EXAMPLES = {
    "--shock": "price=-0.3", "--ladder": "price=-0.5:0.5:41", "--fix": "power=1",
}  # fmt: skip


def read_flag(key: Key, value: Any) -> Iterator[GivenFlag]:
    flag, table, name = key.flag, key.table, key.name
    if name in SEVERAL:
        yield GivenFlag(table, name, value[0] if len(value) == 1 else list(value))
    elif name == "objective":
        wanted = [read_objective(text) for text in value]
        yield GivenFlag(table, name, wanted)
    elif name == "constraints":
        for measure, bound in read_constraints(value):
            yield GivenFlag(table, f"{name}.{measure}", bound)
    elif get_origin(key.kind) is dict:
        seen = set()
        for text in value:
            entry, typed = split_pair(flag, text, PAIR_EXAMPLES.get(flag, "target=0.1:1"))
            if entry in seen:
                raise ParameterError(
                    f"{table}.{name} must have each entry once, {entry!r} was given twice"
                )
            seen.add(entry)
            yield GivenFlag(table, f"{name}.{entry}", typed)
    else:
        yield GivenFlag(table, name, not flag.startswith("--no-") if value is True else value)


BPS = 1e-4


def read_typed(key: Key, text: str) -> Iterator[GivenFlag]:
    yield GivenFlag(key.table, key.name, parse_typed(text))


def read_list(key: Key, text: str) -> Iterator[GivenFlag]:
    yield GivenFlag(key.table, key.name, [each.strip() for each in text.split(",")])


def read_numbers(key: Key, text: str) -> Iterator[GivenFlag]:
    yield GivenFlag(key.table, key.name, [parse_typed(each) for each in text.split(",")])


def read_values(key: Key, given: str | list[str]) -> Iterator[GivenFlag]:
    text = given if isinstance(given, str) else ",".join(given)
    if "=" not in text:
        yield GivenFlag(key.table, key.name, parse_typed(text))
        return
    for each in text.split(","):
        entry, value = split_pair(key.flag, each, "BTCUSDT=30000")
        yield GivenFlag(key.table, f"{key.name}.{entry}", parse_typed(value))


def read_bps(key: Key, bps: float) -> Iterator[GivenFlag]:
    """Yield the cost that a flag in basis points sets, as a fraction."""
    warn_of_fraction(key.flag, bps)
    yield GivenFlag(key.table, key.name, bps * BPS)


def read_settings(key: Key, texts: Sequence[str]) -> Iterator[GivenFlag]:
    for text in texts:
        name, value = split_pair(key.flag, text, "target=0.4")
        table, dot, field = name.partition(".")
        if dot and table in RULE_TABLES:
            yield GivenFlag("run", f"{table}_settings.{field}", parse_typed(value))
        elif dot and table in OPEN_TABLES:
            yield GivenFlag(table, field, parse_typed(value))
        elif dot and table == "overlay":
            yield GivenFlag(table, f"settings.{field}", value)
        else:
            yield GivenFlag("policy", f"settings.{name}", value)


def list_account_keys() -> Iterator[Key]:
    hints = get_type_hints(Account, include_extras=True)
    for field, text in ACCOUNT_FLAGS.items():
        declared = hints[field].__metadata__[0]
        declared = declared.each if isinstance(declared, ByInstrument) else declared
        read = read_typed if isinstance(declared, StopDistance) else None
        kind = str if read else declared.kind
        yield Key("account", field, kind, f"--{field.replace('_', '-')}", ACCOUNT, text, read)


def list_separate(table: str) -> Iterator[Key]:
    yield Key(table, "accounts", Choice("shared", "separate"), "--accounts", RANKING,
              "Several markets: one 'shared' account, or 'separate' ones, pooled.")  # fmt: skip
    yield Key(table, "pool", Choice("mean", "median", "worst"), "--pool", RANKING,
              "Separate accounts: how their measures become one (mean).")  # fmt: skip
    if table != "sweep":
        yield Key(table, "markets_left_out", int, "--markets-left-out", RANKING,
                  "Markets left out after being seen, which count as trials (0).")  # fmt: skip


OPEN_TABLES = ("venue", "account")
RULE_TABLES = ("signal", "allocate")
ALLOCATIONS = ("equal", "inverse-volatility")

KEYS = (
    Key("data", "path", str | list[str], "--data", DATA,
        "A folder, a file, or 'sample' (default): a synthetic year, 'sample:7' another one; "
        "repeat for several markets."),
    Key("data", "from", Time, "--from", DATA, "First bar to read, UTC."),
    Key("data", "to", Time, "--to", DATA, "End of the last bar, UTC."),
    Key("run", "start", Time, "--start", DATA,
        "When the account begins, UTC; earlier bars warm up the policy's columns."),
    Key("run", "end", Time, "--end", DATA, "When the account ends, UTC, exclusive."),
    Key("data", "resample", str, "--resample", DATA, "Combine bars into longer ones, e.g. 1d."),
    Key("data", "instrument", str | list[str], "--instrument", DATA,
        "Instrument to read from a folder of several; repeat for several markets."),
    Key("data", "currency", str, "--currency", DATA,
        "Settlement currency of several markets, if their names show different ones."),
    Key("data", "interval", str, "--interval", DATA,
        "Interval of the bars to read from a folder of several."),
    Key("data", "funding_interval", str, "--funding-interval", DATA,
        "Interval of the funding file to read from a folder of several."),
    Key("data", "timezone", str, "--timezone", DATA, "Time zone of stamps that have none."),
    Key("data", "sessions", bool, "--sessions", DATA, "The market closes: bars may be missing."),
    Key("data", "mark_gaps", Choice("last"), "--mark-gaps", DATA,
        "'last': fill missing mark prices with last prices."),
    Key("data", "funding_gaps", Choice("zero"), "--funding-gaps", DATA,
        "'zero': treat missing funding as none."),
    Key("policy", "name", str, "--policy", POLICY,
        "Name of the policy (default vol-target), or FILE.py:ClassName."),
    Key("policy", "settings", dict[str, float | str | bool], "--set", POLICY,
        "A parameter, NAME=VALUE, or a field, account.NAME=VALUE; repeat for more.", read_settings),
    Key("run", "signal", float | str, "--signal", POLICY,
        "Direction from -1 to 1 (1), a column of the bars, or a rule such as rsi:14:30:70."),
    Key("run", "signal_settings", dict[str, float | str | bool],
        text="Parameters of the signal's rule by name."),
    Key("overlay", "name", str, "--overlay", POLICY,
        "A policy that scales all positions of several markets together."),
    Key("overlay", "settings", dict[str, float | str | bool],
        text="Parameters of the overlay."),
    Key("run", "weights", str, "--weights", POLICY,
        "Several markets: a file of weights by time and instrument (default 1/n)."),
    Key("run", "carry_weights", bool, "--carry-weights", POLICY,
        "Each row of --weights holds from its time until the next."),
    Key("run", "allocate", Choice(*ALLOCATIONS), "--allocate", POLICY,
        f"Several markets: weights computed from returns: {', '.join(ALLOCATIONS)}."),
    Key("run", "allocate_settings", dict[str, float | str | bool],
        text="Parameters of the weights' rule by name."),
    Key("venue", "preset", str, "--venue", VENUE,
        "NAME:SYMBOL[@DATE] or FILE.json:SYMBOL (binance-usdm:BTCUSDT); "
        "several markets: also NAME, with the symbol of each."),
    Key("venue", "fees.taker", float, "--taker-bps", VENUE, "Taker fee in basis points.", read_bps),
    Key("venue", "slippage.rate", float, "--slippage-bps", VENUE,
        "Slippage of every fill in basis points.", read_bps),
    *list_account_keys(),
    Key("run", "decide", str, "--decide", RUN,
        "Length of the bars at whose closes policies decide (the data's): 1h, 4h, 1d."),
    Key("run", "detail", str, "--detail", RUN,
        "Folder of shorter bars, which the account lives where they are known."),
    Key("run", "sampling", str, "--sampling", RUN, "Period of returns (1d)."),
    Key("run", "calendar", str, "--calendar", RUN, "Days a year: 365 (default) or 252."),
    Key("run", "compile", bool, "--no-compile", RUN,
        "Run in plain Python, for a debugger; the numbers are the same."),

    Key("sweep", "values", dict[str, Any], "--vary", SETS,
        "NAME=24,72 or NAME=0.1:1:64 or NAME=log:10:500:16; repeat for more names."),
    Key("sweep", "draws", int, "--draws", SETS,
        "Draw this many sets instead (1024, if nothing varies)."),
    Key("sweep", "space", dict[str, Any], "--space", SETS,
        "Range of the draws: NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; repeat for more."),
    Key("sweep", "method", Choice("sobol", "lhs", "uniform"), "--method", SETS,
        "How to draw: 'sobol' (default), 'lhs' or 'uniform'."),
    Key("sweep", "seed", int, "--seed", SETS, "Seed of the draws (0)."),
    Key("sweep", "objective", Objective, "--objective", RANKING,
        "What to maximize: a measure (sharpe), or weights: sharpe=1,turnover=-0.01."),
    Key("sweep", "constraints", dict[str, str], "--constraint", RANKING,
        "A bound on a measure: 'max_drawdown<=0.4'; repeat for more."),
    Key("sweep", "metrics", Choice("all", "core"), "--metrics", RANKING,
        "Measures to compute: 'all' (default) or 'core', which is faster."),
    *list_separate("sweep"),
    Key("sweep", "full", bool, "--full", RANKING,
        "Also compute measures that need the path: every set runs once more."),

    Key("tune", "objective", Objective | list[Objective], "--objective", RANKING,
        "What to maximize: a measure (sharpe), or weights: sharpe=1,turnover=-0.01."),
    *list_separate("tune"),
    Key("tune", "constraints", dict[str, str], "--constraint", RANKING,
        "A bound on a measure: 'max_drawdown<=0.4'; repeat for more."),
    Key("tune", "trials", int, "--trials", SEARCH, "Largest number of sets to evaluate (20000)."),
    Key("tune", "seconds", float, "--seconds", SEARCH, "Longest time to search."),
    Key("tune", "sampler", str, "--sampler", SEARCH,
        "auto (default), gp, sobol, random or grid."),
    Key("tune", "space", dict[str, Any], "--space", SEARCH,
        "Range to search, NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; repeat for more."),
    Key("tune", "fix", dict[str, Any], "--fix", SEARCH,
        "Value to keep fixed, NAME=VALUE; repeat for more."),
    Key("tune", "robust", bool, "--no-robust", SEARCH,
        "Choose the highest objective, even if its neighbors are poor."),
    Key("tune", "holdout", str | float, "--holdout", SEARCH,
        "Last part of the data, unseen by the search: 25% (default), 90d or none."),
    Key("tune", "seed", int, "--seed", SEARCH, "Seed of all random numbers (0)."),

    Key("validate", "train", str, "--train", FOLDS, "Train spans (365d)."),
    Key("validate", "test", str, "--test", FOLDS, "Test spans (30d)."),
    Key("validate", "anchored", bool, "--anchored", FOLDS,
        "Begin every train span with the data."),
    Key("validate", "gap", str, "--gap", FOLDS,
        "Time between a train span and its test span (0d)."),
    Key("validate", "groups", int, "--groups", FOLDS, "Number of groups of time (10)."),
    Key("validate", "test_groups", int, "--test-groups", FOLDS,
        "Number of groups in each test (2)."),
    Key("validate", "embargo", str | int, "--embargo", FOLDS,
        "Bars, or a duration, left out of training after a test group: 24, 5d (1 % of all bars)."),
    Key("validate", "carry", bool, "--no-carry", FOLDS,
        "Open a new account in every fold, for comparison only."),
    Key("validate", "objective", Objective | list[Objective], "--objective", RANKING,
        "What to maximize: a measure (sharpe), or weights: sharpe=1,turnover=-0.01."),
    Key("validate", "constraints", dict[str, str], "--constraint", RANKING,
        "A bound on a measure: 'max_drawdown<=0.4'; repeat for more."),
    *list_separate("validate"),
    Key("validate", "trials", int, "--trials", SEARCH,
        "Largest number of sets to evaluate in a fold (2000)."),
    Key("validate", "sampler", str, "--sampler", SEARCH, "Sampler, as in backtest tune (auto)."),
    Key("validate", "space", dict[str, Any], "--space", SEARCH,
        "Range to search, NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; repeat for more."),
    Key("validate", "fix", dict[str, Any], "--fix", SEARCH,
        "Value to keep fixed, NAME=VALUE; repeat for more."),
    Key("validate", "robust", bool, "--no-robust", SEARCH,
        "Choose the highest objective, even if its neighbors are poor."),
    Key("validate", "seed", int, "--seed", SEARCH, "Seed of all random numbers (0)."),

    Key("compare", "policies", dict[str, Any],
        text="Policies by label, each as [policy]."),
    Key("compare", "baseline", str, "--baseline", COMPARISON,
        "The policy that the others are compared with (the first)."),
    Key("compare", "equal_risk", bool, "--equal-risk", COMPARISON,
        "Scale all policies to the volatility of the calmest, and run again."),
    Key("compare", "confidence", float, "--confidence", COMPARISON,
        "Confidence of intervals and decisions (0.95)."),
    Key("compare", "draws", int, "--draws", COMPARISON, "Number of resampled histories (1999)."),
    Key("compare", "seed", int, "--seed", COMPARISON, "Seed of the histories (0)."),

    Key("lending", "base", float,
        text="Rate of a loan when nothing is borrowed, per year."),
    Key("lending", "slope1", float,
        text="Rise of the rate up to the optimal utilization, per year."),
    Key("lending", "slope2", float,
        text="Rise of the rate above the optimal utilization, per year."),
    Key("lending", "optimal", float,
        text="Utilization at which the slope changes."),
    Key("lending", "reserve_factor", float,
        text="Share of the interest that lenders do not get."),
    Key("lending", "utilization", float | str,
        text="Share of deposits lent out: a number, or a column of the bars."),

    Key("options", "contracts", str | list[str] | list[dict[str, Any]], "--option", DATA,
        "A listed option, such as BTC-26JUN26-60000-P; repeat for more."),
    Key("options", "chains", str, "--chains", DATA,
        "A file or folder of quotes, to which the surfaces of the options are fitted."),
    Key("options", "quantities", str, "--option-quantities", DATA,
        "A file of signed contracts to hold, by time and option."),
    Key("options", "settlement", Choice("cash", "coin"),
        text="Settlement of the quotes; Deribit's files say it."),
    Key("options", "quote_age", str, text="How long a quote is the mark of its option (one bar)."),
    Key("options", "max_age", str, text="Largest age of the last surface (14d)."),

    Key("paths", "model", str, "--model", PATHS,
        "Model of the paths: filtered (default), stationary, gbm, merton or garch."),
    Key("paths", "paths", int, "--paths", PATHS, "Number of paths (10000)."),
    Key("paths", "horizon", str, "--horizon", PATHS, "Length of the paths (30d)."),
    Key("paths", "seed", int, "--seed", PATHS, "Seed of the paths (0)."),
    Key("paths", "drift", float | str, "--drift", PATHS,
        "Growth of the expected price per year: none (default), a number, or 'history'.",
        read_typed),
    Key("paths", "bridge", int, "--bridge", PATHS,
        "Steps per bar in which high and low are drawn: 1 (default), or 4 if ranges matter."),
    Key("paths", "funding", float | str, "--path-funding", PATHS,
        "Funding of the paths: 'fitted' to the data (default), 'history' (that of the rows drawn), "
        "a rate per settlement, or 'none'."),
    Key("paths", "correlation", float, "--correlation", PATHS,
        "Correlation of several instruments in parametric models (default: that of returns)."),
    Key("paths", "common_jump", float, "--common-jump", PATHS,
        "Probability that jumps are common to all instruments (1)."),

    Key("risk", "horizons", list[str], "--horizons", RISK, "Horizons (1d,7d,30d).",
        read_list),
    Key("risk", "confidence", float, "--confidence", RISK, "Confidence of the intervals (0.95)."),
    Key("risk", "method", Choice("auto", "plain"), "--method", RISK,
        "Paths: 'auto' (mirrored pairs where the model has them) or 'plain'."),
    Key("risk", "find_leverage", float, "--find-leverage", RISK,
        "Find the highest leverage (with --policy: factor) with at most this risk of liquidation."),

    Key("stress", "scenarios", list[str], "--scenario", RISK,
        "Historical episodes, such as 2020-03-12,2021-05-19 (all).", read_list),
    Key("stress", "rules", Choice("run", "today", "then"), "--rules", RISK,
        "Margin tables: of the 'run' (default), of 'today' or 'then'."),
    Key("stress", "shocks", dict[str, Any], "--shock", RISK,
        "A shock by field: price=-0.3, over=2h, funding=-0.001, spread=20; repeat for more."),
    Key("stress", "ladder", dict[str, Any], "--ladder", RISK,
        "Axis of a grid of shocks: price=-0.5:0.5:41 or depth=0.1,0.3,1; repeat for more."),


    Key("capacity", "capitals", list[float], "--capitals", RISK,
        "Capitals to try: 1e4,1e6,1e8 (seven decades from the account's).", read_numbers),
    Key("capacity", "tolerance", float, "--tolerance", RISK,
        "Relative error of the capitals at which growth and Sharpe ratio are half (0.01)."),

    Key("sensitivity", "factors", list[str], "--factors", RISK,
        "Assumptions to change: rates, funding, funding shift, fees, slippage, margin, "
        "volatility, correlation, signal (all).",
        read_list),

    Key("decide", "snapshot", str, "--snapshot", LIVE,
        "The account: a JSON file, or a CSV table of field, instrument and value."),
    Key("decide", "at", float | dict[str, Any], "--at", LIVE,
        "Price of the order: 30000, or BTCUSDT=30000,ETHUSDT=2000 (the last close).", read_values),
    Key("decide", "mark", float | dict[str, Any], "--mark", LIVE,
        "Mark price then (the price, times the last ratio of mark to last).", read_values),
    Key("decide", "funding", float | dict[str, Any], "--due-funding", LIVE,
        "Rate of a settlement at the next open (none).", read_values),
    Key("decide", "now", Time, "--now", LIVE, "The present, UTC (the clock)."),

    Key("replay", "fills", str, "--fills", LIVE, "The fills: a CSV table, or the JSON of ccxt."),
    Key("replay", "begin", str, "--begin", LIVE,
        "The account at the start, as --snapshot of `backtest decide` (flat)."),
    Key("replay", "ledger", str, "--ledger", LIVE,
        "A CSV of the venue's ledger, or of the equity, to compare with."),
    Key("replay", "range_tolerance", float, "--range-tolerance", LIVE,
        "How far a price may lie outside its bar, a fraction (0.005)."),
)  # fmt: skip

EXPERIMENT_KEYS = [
    key
    for key in KEYS
    if key.flag and key.table in ("data", "policy", "overlay", "venue", "account", "run")
]
TABLES = {
    table: {key.name: key for key in KEYS if key.table == table}
    for table in (
        *("data", "policy", "overlay", "run", "sweep", "tune", "validate", "compare"),
        *("lending", "options", "paths", "risk", "stress"),
        *("sensitivity", "capacity", "decide", "replay"),
    )
}


def list_keys(table: str) -> list[str]:
    return list(TABLES[table]) if table else [*TABLES, *OPEN_TABLES]


def list_flags(table: str) -> list[Key]:
    return [key for key in KEYS if key.table == table and key.flag]
