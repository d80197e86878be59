"""A venue from its own listing: what exchanges and tools write of an instrument, read as rules.

A listing says what a contract is, its margin brackets and perhaps its fees; how the venue
liquidates, and what it leaves out, comes from a preset (``like``). Read are ccxt's unified
``load_markets()`` and ``fetch_leverage_tiers()``, freqtrade's file of tiers (the same), Binance's
``exchangeInfo``, ``leverageBracket`` and ``fundingInfo``, and tables that have several of them by
name. A folder of dated listings is one margin table by date.

Words of this module: an *answer* is one file or mapping; its *parts* are tables of rows by symbol
(markets, symbols, tiers, funding); a *listing* is what the answers of one day say of one symbol.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.core import VenueError
from backtest.venue import preset_files

SCHEME = "file:"
"""Begins the text of a listing where a venue is expected; no preset has this name."""
DEFAULT_LIKE = "binance-usdm"
MARKETS = "markets"
SYMBOLS = "symbols"
TIERS = "tiers"
FUNDING = "funding"
NAMED_PARTS = {
    "markets": MARKETS, "tiers": TIERS,
    "exchangeInfo": SYMBOLS, "exchange_info": SYMBOLS,
    "leverageBracket": TIERS, "leverage_bracket": TIERS,
    "fundingInfo": FUNDING, "funding_info": FUNDING,
}  # fmt: skip
"""Names under which a table has several answers, that of a fetch among them."""
SHAPES = (
    "ccxt's load_markets() or fetch_leverage_tiers(), freqtrade's tiers, Binance's exchangeInfo, "
    "leverageBracket or fundingInfo, or a table with markets and tiers"
)
IN_SIZES = {
    "minSz": "OKX", "maxSz": "OKX", "numNonContractUnits": "Kraken", "contracts": "Kraken",
    "riskIncrVol": "MEXC", "min_size": "HTX", "max_size": "HTX", "minSize": "KuCoin",
    "maxSize": "KuCoin", "quantity": "HashKey",
}  # fmt: skip
"""Fields by which exchanges bound tiers in contracts or coins, whatever ccxt calls them: ccxt
4.5.64, ``parse_market_leverage_tiers`` of each. At no single price are they notionals."""
AMOUNTS = ("cum", "maintAmt", "mmDeduction")
"""What venues and tools call the cumulative amount of a bracket: Binance, freqtrade, Bybit."""


class Answer(NamedTuple):
    """A file or mapping: its name, its content, and the day of its stamp, None without one."""

    name: str
    content: Any
    day: str | None


class Listing(NamedTuple):
    """What the answers of one day say of one symbol; each part is None or empty if they do not."""

    name: str
    day: str | None
    symbol: str
    market: Mapping[str, Any] | None
    entry: Mapping[str, Any] | None
    tiers: Sequence[Mapping[str, Any]] | None
    funding: Mapping[str, Any] | None


class ListingName(NamedTuple):
    """A parsed ``file:PATH#SYMBOL?like=NAME&date=DAY``."""

    path: str
    symbol: str
    like: str
    date: str | None


def parse_listing_name(text: str) -> ListingName:
    """Return the parts of ``file:PATH#SYMBOL?like=NAME&date=DAY``; only the path is needed."""
    address, _, options = text.removeprefix(SCHEME).partition("?")
    path, _, symbol = address.partition("#")
    chosen = {}
    for option in filter(None, options.split("&")):
        name, _, value = option.partition("=")
        core.Choice("like", "date").check("an option of a listing", name)
        chosen[name] = value

    if not path:
        raise VenueError(
            f"a listing must name its file, got {text!r}; "
            f"'{SCHEME}tiers.json#BTC/USDT:USDT?like={DEFAULT_LIKE}' for example"
        )
    return ListingName(path, symbol, chosen.get("like") or DEFAULT_LIKE, chosen.get("date"))


# What a listing says, as the fields of a venue.


def read_listing(
    source: Any, symbol: str, *, like: str = DEFAULT_LIKE, date: core.TimeLike | None = None
) -> dict[str, Any]:
    """Return the fields of a venue as plain data, from what an exchange lists of a symbol.

    ``source`` is a path, a mapping, or a list of paths; ``like`` the preset that has what a listing
    does not say; ``date`` the day of a source without one, or the table of a folder. ``in_force``
    notes what of it was listed. Raises VenueError if it cannot be read.
    """
    listings = find_listings(source, symbol, date)
    newest = listings[-1]
    preset, like_name = read_like(like, newest)
    like_contract = preset.pop("contract")

    contract, stated = read_contract(newest, like_contract, like_name)
    listed = ["brackets", *(f"contract.{name}" for name in stated)]
    fees = preset.pop("fees")
    fees_listed = read_fees(newest)
    if fees_listed:
        fees = {**fees, **fees_listed}
        fees.pop("tiers", None)
        listed.append("fees")

    # Each table holds until the day of the next one.
    tables = [read_brackets(listing) for listing in listings]
    earlier = []
    for brackets, following in zip(tables, listings[1:], strict=False):
        earlier.append({"until": following.day, "brackets": brackets})
    return {
        **preset,
        "contract": contract,
        "fees": fees,
        "brackets": tables[-1],
        "earlier": earlier,
        "in_force": {
            "preset": f"{newest.name}#{name_plainly(newest.symbol)}",
            "since": listings[0].day,
            "like": like_name,
            "listed": listed,
        },
    }


def read_like(like: str, listing: Listing) -> tuple[dict[str, Any], str]:
    """Return the newest rules of a preset, without a margin table, and the preset's name.

    ``like`` is a venue, or a venue and a symbol after a colon. Without a symbol it is that of the
    listing, or the preset's first one where it does not have that.
    """
    venue, colon, symbol = str(like).partition(":")
    if not colon or venue.endswith(preset_files.SUFFIXES):
        venue = str(like)
        symbol = ""
    known = preset_files.read_tables(venue)
    if not symbol:
        symbol = name_plainly(listing.symbol)
        if symbol not in known:
            symbol = next(iter(known))

    preset = preset_files.read_preset(venue, symbol, preset_files.LATEST)
    for name in ("brackets", "in_force", "earlier"):
        preset.pop(name, None)
    return preset, f"{Path(venue).stem}:{symbol}"


# Files and folders.


def find_listings(source: Any, symbol: str, date: core.TimeLike | None = None) -> list[Listing]:
    """Return what a source says of a symbol, one entry a day, the oldest first.

    A folder has listings of several days: ``date`` chooses the one in force on it. Anything else is
    one listing. Its day is the one that it says itself, or else ``date``; raises VenueError if the
    two differ.
    """
    day = preset_files.read_day(date)
    answers = open_answers(source)
    is_folder = isinstance(source, str | Path) and Path(source).is_dir()
    if is_folder:
        return choose_listing(find_dated(answers, symbol, str(source)), day)

    stated_days = sorted({answer.day for answer in answers if answer.day is not None})
    newest = stated_days[-1] if stated_days else None
    if day is None or day == preset_files.LATEST:
        return [join_answers(answers, symbol, newest)]

    if stated_days and stated_days != [day]:
        raise VenueError(
            f"date must be left out where the listing says its own, {newest}, got {day} "
            f"({answers[0].name})"
        )
    return [join_answers(answers, symbol, day)]


def find_dated(answers: Sequence[Answer], symbol: str, folder: str) -> list[Listing]:
    """Return the listings of a symbol in the answers of a folder by day, the oldest first.

    A day whose answers lack the symbol is left out. Raises VenueError if an answer has no day, or
    no day has the symbol.
    """
    undated = [answer.name for answer in answers if answer.day is None]
    if undated:
        raise VenueError(
            f"a listing of a folder must have a day in its name or content, got {undated[0]!r}; "
            f"name it 2026-01-31.json for example ({folder})"
        )

    answers_by_day: dict[str | None, list[Answer]] = {}
    for answer in sorted(answers, key=lambda answer: str(answer.day)):
        answers_by_day.setdefault(answer.day, []).append(answer)
    listings = []
    refusals = []
    for day, of_day in answers_by_day.items():
        try:
            listings.append(join_answers(of_day, symbol, day))
        except UnlistedError as error:
            refusals.append(error)
    if not listings:
        raise refusals[-1]
    return listings


def choose_listing(listings: list[Listing], day: str | None) -> list[Listing]:
    """Return the listing in force on a day as a list of one; all of them without a day.

    ``listings`` are by day, the oldest first. The last one up to the day is in force, before the
    first the first one.
    """
    if day is None:
        return listings
    if day == preset_files.LATEST:
        return listings[-1:]

    chosen = listings[0]  # for a day before it too
    for listing in listings:
        if str(listing.day) <= day:
            chosen = listing
    return [chosen]


def open_answers(source: Any) -> list[Answer]:
    """Return the answers of a venue: in a file, a folder, a list of paths, or a mapping."""
    if isinstance(source, str | Path):
        return open_path(Path(source))

    is_list = isinstance(source, list | tuple)
    if is_list and source and all(isinstance(path, str | Path) for path in source):
        answers = []
        for path in source:
            answers += open_path(Path(path))
        return answers

    if isinstance(source, Mapping) or is_list:
        return [Answer("a mapping", source, find_day(source))]
    raise VenueError(f"a listing must be a path, {SHAPES}, got {core.repr_plain(source)}")


def open_path(path: Path) -> list[Answer]:
    """Return the answer in a JSON file, or those in a folder, in the order of their names.

    The day of an answer is that of its own stamp, or else that in the name of its file.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix == ".json")
        if not files:
            raise VenueError(f"a folder of listings must have files .json, {path} has none")
        answers = []
        for file in files:
            answers += open_path(file)
        return answers

    if not path.is_file():
        raise VenueError(f"listing {str(path)!r} does not exist in {Path.cwd()}")
    content = core.read_json_file(path)
    in_name = re.search(r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)", path.name)
    day = find_day(content) or (in_name and read_text_day(in_name[0]))
    return [Answer(path.name, content, day)]


def find_day(content: Any) -> str | None:
    """Return the day on which a venue answered, by a stamp in the answer: 2026-01-31.

    None if the answer has no stamp.
    """
    if not isinstance(content, Mapping):
        return None
    for name in ("time", "date", "serverTime"):
        stamp = content.get(name)
        if isinstance(stamp, str):
            return read_text_day(stamp)
        if isinstance(stamp, int | float) and not isinstance(stamp, bool):
            return core.format_time(int(stamp) * 1_000_000)[:10]

    # Or that of the first of its parts that has one.
    for name in NAMED_PARTS:
        # The parts of a table of answers are answers themselves.
        day = find_day(content.get(name))
        if day:
            return day
    return None


def read_text_day(text: str) -> str:
    try:
        return dt.date.fromisoformat(text[:10]).isoformat()
    except ValueError as error:
        raise VenueError(f"the day of a listing must be as 2026-01-31, got {text!r}") from error


# The shapes of answers.


def split_parts(answer: Answer) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each part of an answer of a venue: its kind, and its rows by the symbol that it writes.

    An answer is either several parts by name, as a fetch saves them (``markets``, ``tiers``), or
    one part alone. Raises VenueError if it is neither.
    """
    content = answer.content
    is_table = isinstance(content, Mapping)
    names = [name for name in NAMED_PARTS if is_table and content.get(name) is not None]
    if not names:
        yield read_only_part(answer)
        return
    for name in names:
        kind = NAMED_PARTS[name]
        yield kind, read_rows(content[name], kind, f"{answer.name}: {name}")


def read_only_part(answer: Answer) -> tuple[str, Mapping[str, Any]]:
    """Return what an answer is that has one part alone: its kind, and its rows by symbol.

    The kind is MARKETS, SYMBOLS, TIERS or FUNDING. Raises VenueError if it is none of them.
    """
    content = answer.content
    is_table = isinstance(content, Mapping)
    # Binance's exchangeInfo: a table with its rows under "symbols".
    if is_table and isinstance(content.get("symbols"), list):
        return SYMBOLS, read_rows(content, SYMBOLS, answer.name)

    # Binance's leverageBracket of one symbol is a row, not a list of one.
    rows = content
    if is_table and isinstance(content.get("brackets"), list):
        rows = [content]
    kind = find_kind(rows)
    if kind is None:
        raise VenueError(f"a listing must be {SHAPES}, got none of them ({answer.name})")
    return kind, read_rows(rows, kind, answer.name)


def read_rows(content: Any, kind: str, where: str) -> Mapping[str, Any]:
    """Return the rows of a part of a listing by symbol, as the venue writes it.

    ``content`` is a table by symbol already, or a list of rows. ``kind`` is MARKETS, SYMBOLS,
    FUNDING or TIERS; of tiers each symbol has a list of rows. A list of the tiers of one symbol
    that does not name it stands under the empty text. ``where`` is for messages.
    """
    if kind == SYMBOLS and isinstance(content, Mapping):
        content = content.get("symbols", [])
    if isinstance(content, Mapping):
        return content
    if not isinstance(content, list | tuple):
        raise VenueError(f"{where}: must be a table or a list, got {core.repr_plain(content)}")
    if kind != TIERS:
        return index_rows(content, where)

    # A list of tiers is of one symbol; Binance's has a row for each symbol.
    if content and "maintenanceMarginRate" in content[0]:
        return {str(content[0].get("symbol") or ""): content}
    rows = index_rows(content, where).items()
    return {symbol: read_binance_brackets(row) for symbol, row in rows}


FIELDS_OF_KINDS = (
    (TIERS, ("brackets", "maintenanceMarginRate")),
    (FUNDING, ("fundingIntervalHours", "adjustedFundingRateCap")),
    (MARKETS, ("precision", "contractSize", "limits")),
    (SYMBOLS, ("filters",)),
)
"""Fields of which rows of each kind have one."""


def find_kind(content: Any) -> str | None:
    """Return which part of a listing some rows are, by the fields of the first; None if none.

    Rows are a list, or a table by symbol.
    """
    is_table = isinstance(content, Mapping)
    rows = content
    if is_table:
        rows = [*content.values()]
    if not isinstance(rows, list | tuple) or not rows:
        return None

    first = rows[0]
    if is_table and isinstance(first, list | tuple):
        return TIERS  # by symbol, an empty list for one without tiers
    if not isinstance(first, Mapping):
        return None

    for kind, fields in FIELDS_OF_KINDS:
        # Tiers by symbol are lists, which were found above.
        if is_table and kind == TIERS:
            continue
        if any(name in first for name in fields):
            return kind
    return None


def index_rows(rows: Sequence[Any], where: str) -> dict[str, Any]:
    index: dict[str, Any] = {}
    for row in rows:
        if not isinstance(row, Mapping) or not isinstance(row.get("symbol"), str):
            raise VenueError(f"each row of a listing must have a symbol, got {row!r:.80} ({where})")
        index[row["symbol"]] = row
    return index


def read_binance_brackets(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the margin tiers in Binance's answer ``leverageBracket``, with ccxt's names of fields.

    ``row`` is the answer for a symbol; each tier keeps its own row as ``info``. Contracts of USD-M
    have tiers by notional, those of COIN-M by quantity of the coin (``qtyFloor``), which is their
    notional in the coin that they settle in. Raises VenueError for brackets that Binance has scaled
    for an account (``notionalCoef``).
    """
    adjusted = row.get("notionalCoef", 1)
    if float(adjusted) != 1.0:
        raise VenueError(
            f"{row.get('symbol')}.notionalCoef: must be 1, the brackets of other accounts, got "
            f"{adjusted}: give the table of the venue"
        )

    tiers: list[Mapping[str, Any]] = []
    for bracket in row["brackets"]:
        tier = {
            "tier": bracket.get("bracket"),
            "minNotional": bracket.get("notionalFloor", bracket.get("qtyFloor")),
            "maxNotional": bracket.get("notionalCap", bracket.get("qtyCap")),
            "maintenanceMarginRate": bracket.get("maintMarginRatio"),
            "maxLeverage": bracket.get("initialLeverage"),
            "info": bracket,
        }
        tiers.append(tier)
    return tiers


# One symbol.


class UnlistedError(VenueError):
    """A symbol that a listing does not have."""


def join_answers(answers: Sequence[Answer], symbol: str, day: str | None) -> Listing:
    """Return all that the answers of one day say of a symbol, as one listing.

    Each part of them may write the symbol in another way. Raises UnlistedError if none has it, and
    VenueError for a spot market.
    """
    parts: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for kind, rows in split_parts(answer):
            parts.setdefault(kind, {}).update(rows)

    names = find_names(parts, symbol)
    rows_of_symbol = {kind: pick_row(rows, names) for kind, rows in parts.items()}
    market = rows_of_symbol.get(MARKETS)
    entry = rows_of_symbol.get(SYMBOLS)
    tiers = rows_of_symbol.get(TIERS)
    if market is None and entry is None and tiers is None:
        raise UnlistedError(describe_unlisted(parts, symbol, answers[0].name))
    if market is not None and market.get("spot"):
        raise VenueError(f"symbol must be of a contract, {symbol!r} is a spot market")
    return Listing(
        name=answers[0].name,
        day=day,
        symbol=symbol,
        market=market,
        entry=entry,
        tiers=tiers,
        funding=rows_of_symbol.get(FUNDING),
    )


def name_plainly(symbol: str) -> str:
    """Return ``BTCUSDT`` for ccxt's ``BTC/USDT:USDT``, and other names as they are."""
    if "/" not in symbol:
        return symbol
    pair, _, settled = symbol.partition(":")
    _, dash, expiry = settled.partition("-")
    return f"{pair.replace('/', '')}{dash}{expiry}"


def find_names(parts: Mapping[str, Mapping[str, Any]], symbol: str) -> list[str]:
    """Return all names that parts of a listing may have for a symbol, the one asked for first.

    Then ccxt's (``BTC/USDT:USDT``) and the venue's own (``BTCUSDT``), as the part of markets has
    them, and each of these without punctuation.
    """
    names = [symbol]
    plain_symbol = name_plainly(symbol)
    for market in parts.get(MARKETS, {}).values():
        of_ccxt = str(market.get("symbol"))
        of_venue = str(market.get("id"))
        is_named = symbol in (of_ccxt, of_venue)
        is_same = is_named or name_plainly(of_ccxt) == plain_symbol

        # A spot market may have the venue's name of the contract.
        if is_same and not market.get("spot"):
            names += [of_ccxt, of_venue]
    return [*dict.fromkeys([*names, *map(name_plainly, names)])]


def pick_row(rows: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the row that a part of a listing has of a symbol, None if it has none.

    ``rows`` are by the name that a vendor gives, ``names`` the names that the symbol may have.
    """
    for name in names:
        if name in rows:
            return rows[name]

    # Names of ccxt end in the settlement currency, BTC/USDT:USDT, which names may lack.
    for key, row in rows.items():
        if ":" in key and name_plainly(key) in names:
            return row

    # A list of tiers of one symbol does not name it.
    return rows.get("")


def describe_unlisted(parts: Mapping[str, Mapping[str, Any]], symbol: str, where: str) -> str:
    """Return the message of a symbol that is not listed, with the nearest names that are.

    ``parts`` have rows by symbol; ``where`` is the file.
    """
    by_plain: dict[str, str] = {}
    known: set[str] = set()
    for rows in parts.values():
        for name in rows:
            if name not in known:
                known.add(name)
                by_plain[name_plainly(name).upper()] = name

    text = f"symbol must be listed in {where}, got {symbol!r}"
    near = difflib.get_close_matches(name_plainly(symbol).upper(), by_plain, n=3, cutoff=0.5)
    if near:
        listed = ", ".join(repr(by_plain[plain]) for plain in near)
        return f"{text}; the nearest are {listed}"
    return f"{text}; it has {len(known):,} others"


# The rules.


def read_number(row: Mapping[str, Any], name: str, place: str) -> float | None:
    """Return the number in a field of a row, which may be text; None if it is not stated."""
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise VenueError(f"{place}.{name}: must be a number, got {value!r}") from None


def read_brackets(listing: Listing) -> list[dict[str, Any]]:
    """Return the margin table as the fields of brackets, with the venue's own amounts.

    The amounts are compared with those of floors and rates where the venue is checked.
    """
    place = f"{listing.name}: {listing.symbol}.brackets"
    if not listing.tiers:
        raise VenueError(
            f"{place}: are needed, the listing has no tiers of it; give fetch_leverage_tiers() or "
            "leverageBracket beside it, under 'tiers' and 'markets' of one table"
        )

    brackets = []
    for k, row in enumerate(listing.tiers):
        place_of_row = f"{place}.{k}"
        refuse_sizes(row, place_of_row)
        fields = {
            "floor": read_number(row, "minNotional", place_of_row),
            "cap": read_number(row, "maxNotional", place_of_row),
            "max_leverage": read_number(row, "maxLeverage", place_of_row),
            "maintenance_rate": read_number(row, "maintenanceMarginRate", place_of_row),
        }
        for name in ("max_leverage", "maintenance_rate"):
            if fields[name] is None:
                raise VenueError(f"{place_of_row}.{name}: is needed, the listing has none")

        # The first begins at 0, and the last has no end.
        if fields["floor"] is None and k == 0:
            fields["floor"] = 0.0
        if fields["cap"] is None and k == len(listing.tiers) - 1:
            fields["cap"] = math.inf
        fields["amount"] = read_amount(row, place_of_row)
        brackets.append(drop_unknown(fields))
    return brackets


def drop_unknown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def read_amount(row: Mapping[str, Any], place: str) -> float | None:
    """Return the cumulative amount of a margin tier: money; None if it is not stated.

    In the row of ccxt, or in ``info``, the venue's own; venues give it several names.
    """
    for fields in (row, row.get("info")):
        if not isinstance(fields, Mapping):
            continue

        for name in AMOUNTS:
            amount = read_number(fields, name, place)
            if amount is not None:
                return amount
    return None


def refuse_sizes(row: Mapping[str, Any], place: str) -> None:
    """Refuse tiers that bound contracts or coins: ccxt calls them notionals all the same."""
    info = row.get("info")
    for name, exchange in IN_SIZES.items():
        if isinstance(info, Mapping) and name in info:
            raise VenueError(
                f"{place}.floor: must be a notional, {exchange} bounds tiers in contracts or coins "
                f"({name}); give venue.override(brackets=[bt.Bracket(...)]) at a price of yours"
            )


def read_fees(listing: Listing) -> dict[str, float]:
    """Return the fee rates that a market of ccxt states, taker and maker; nothing unless both."""
    market = listing.market or {}
    place = f"{listing.name}: {listing.symbol}"
    taker = read_number(market, "taker", place)
    maker = read_number(market, "maker", place)
    if taker is None or maker is None:
        return {}
    return {"taker": taker, "maker": maker}


def read_contract(
    listing: Listing, like: Mapping[str, Any], like_name: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of the contract, and the names of those that the listing states.

    What it does not state comes from the preset if that is of the same symbol, and is unknown
    otherwise; a contract's size must be known, or be the same in all of the preset.
    """
    stated = read_stated(listing)
    if stated.get("kind") is None:
        stated["kind"] = find_kind_by_name(listing)
    known = drop_unknown(stated)
    names = [*known]

    venue, _, like_symbol = like_name.rpartition(":")
    if like_symbol == name_plainly(listing.symbol):
        return {**like, **known}, names

    # Another symbol says nothing of steps and sizes, but its contract is usually of the same kind.
    contract: dict[str, Any] = {
        "lot": "unknown",
        "tick": "unknown",
        "min_notional": "unknown",
        "kind": like["kind"],
    }
    contract |= known
    if "size" not in known:
        contract["size"] = find_common_size(listing, venue, contract["kind"])
    return contract, names


def find_common_size(listing: Listing, venue: str, kind: str) -> float:
    """Return the size that all contracts of a kind, linear or inverse, have in a venue's preset.

    Raises VenueError if they differ, or the preset has none: then only the listing could say it.
    """
    sizes = set()
    if venue in preset_files.find_files():
        for read_symbol in preset_files.read_tables(venue).values():
            contract = read_symbol().contract[-1]  # the newest
            if contract["kind"] == kind:
                sizes.add(contract["size"])

    if len(sizes) != 1:
        raise VenueError(
            f"{listing.name}: {listing.symbol}.contract.size: is needed, the tiers do not say it; "
            "give load_markets() or exchangeInfo beside them"
        )
    return float(sizes.pop())


def find_kind_by_name(listing: Listing) -> str | None:
    """Return "inverse" or "linear" by ccxt's name of a contract, None if there is no such name.

    The name ends in the settlement currency: BTC/USD:BTC settles in its coin, so it is inverse.
    """
    for name in list_names(listing):
        pair, colon, settled = name.partition(":")
        if not colon or "/" not in pair:
            continue

        coin = pair.partition("/")[0]
        if settled.partition("-")[0] == coin:
            return "inverse"
        return "linear"
    return None


def list_names(listing: Listing) -> list[str]:
    """Return the symbol as it was asked for, and as the tiers name it."""
    return [listing.symbol, *(str(row.get("symbol")) for row in listing.tiers or ())]


def find_settlement(listing: Listing) -> str | None:
    """Return the currency after the colon of ccxt's name."""
    for name in list_names(listing):
        settled = name.partition(":")[2].partition("-")[0]
        if settled:
            return settled
    return None


def read_stated(listing: Listing) -> dict[str, Any]:
    """Return what the listing says of the contract, None where it says nothing."""
    place = f"{listing.name}: {listing.symbol}"
    if listing.entry is not None:
        return read_entry(listing.entry, place)
    if listing.market is not None:
        return read_market(listing.market, place)
    return {"settles": find_settlement(listing)}


def read_entry(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields of a contract from its row in Binance's ``exchangeInfo``; None if unsaid.

    ``place`` is where the row stands, for messages.
    """
    settles = entry.get("marginAsset")
    kind = "linear"
    if settles == entry.get("baseAsset"):
        kind = "inverse"

    # USD-M does not state a size: a contract is one coin.
    size = read_number(entry, "contractSize", place)
    if size is None:
        size = 1.0
    expires = None
    if entry.get("contractType") not in ("PERPETUAL", None, "") and entry.get("deliveryDate"):
        expires = core.format_time(int(entry["deliveryDate"]) * 1_000_000)
    return {
        "kind": kind,
        "size": size,
        "settles": settles,
        "expires": expires,
        **read_filters(entry.get("filters") or (), place),
    }


def read_filters(filters: Iterable[Mapping[str, Any]], place: str) -> dict[str, Any]:
    """Return lot, tick, and smallest quantity and notional of orders, from Binance's filters.

    Limit and market orders may have different steps: the coarser ones count. None where no filter
    says it; ``place`` is for messages.
    """
    by_type = {str(fields.get("filterType")): fields for fields in filters}
    lots = []
    least = []
    for name in ("LOT_SIZE", "MARKET_LOT_SIZE"):
        fields = by_type.get(name, {})
        lots.append(read_number(fields, "stepSize", f"{place}.{name}"))
        least.append(read_number(fields, "minQty", f"{place}.{name}"))

    ticks = by_type.get("PRICE_FILTER", {})
    order = by_type.get("MIN_NOTIONAL", by_type.get("NOTIONAL", {}))
    stated = {
        "lot": find_largest(lots),
        "tick": read_number(ticks, "tickSize", f"{place}.PRICE_FILTER"),
        "min_quantity": find_largest(least),
    }
    # Its field has one name at USD-M futures, and another one elsewhere.
    for name in ("notional", "minNotional"):
        if stated.get("min_notional") is None:
            stated["min_notional"] = read_number(order, name, f"{place}.MIN_NOTIONAL")
    return stated


def find_largest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def read_market(market: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields of a contract from its market of ccxt; None where that says nothing.

    ``info`` of the market is the venue's own row, for what ccxt leaves out. ``place`` is for
    messages.
    """
    info: Any = market.get("info")
    if not isinstance(info, Mapping):
        info = {}
    size = read_number(market, "contractSize", place)
    if "min_trade_amount" in info:
        size = 1.0  # Deribit counts units, and its contractSize is the step of orders

    kind = "linear"
    if market.get("inverse"):
        kind = "inverse"
    limits = market.get("limits") or {}
    amounts = limits.get("amount") or {}
    costs = limits.get("cost") or {}
    stated: dict[str, Any] = {
        "kind": kind,
        "size": size,
        "settles": market.get("settle"),
        "expires": find_expiry(market),
        **read_precision(market, limits, place),
        "min_quantity": read_number(amounts, "min", f"{place}.limits.amount"),
        "min_notional": read_number(costs, "min", f"{place}.limits.cost"),
    }

    # What Bybit and Binance themselves say, where ccxt leaves it out or says it otherwise.
    lot_sizes = info.get("lotSizeFilter")
    if stated["min_notional"] is None and isinstance(lot_sizes, Mapping):
        place_of_least = f"{place}.lotSizeFilter"
        stated["min_notional"] = read_number(lot_sizes, "minNotionalValue", place_of_least)
    filters = info.get("filters")
    if isinstance(filters, list):
        tables = [table for table in filters if isinstance(table, Mapping)]
        stated |= drop_unknown(read_filters(tables, place))
    return stated


def find_expiry(market: Mapping[str, Any]) -> str | None:
    """Return when a market of ccxt expires, as text; None for a perpetual."""
    expiry = market.get("expiry")
    if not expiry:
        return None
    return core.format_time(int(expiry) * 1_000_000)


def read_precision(
    market: Mapping[str, Any], limits: Mapping[str, Any], place: str
) -> dict[str, float | None]:
    """Return the lot and the tick of a market of ccxt, in which precision has two forms.

    It is a step, such as 0.001, or a number of decimals, such as 3. A number that is over the
    smallest order, or 0, cannot be a step: then both are decimals.
    """
    precision = market.get("precision") or {}
    amount = read_number(precision, "amount", f"{place}.precision")
    price = read_number(precision, "price", f"{place}.precision")

    limits_of_amount = limits.get("amount") or {}
    least = read_number(limits_of_amount, "min", f"{place}.limits.amount")
    is_over_least = amount is not None and least is not None and 0 < least < amount
    if amount != 0.0 and not is_over_least:
        return {"lot": amount, "tick": price}

    # 3 decimals are steps of 0.001.
    steps: dict[str, float | None] = {"lot": None, "tick": None}
    if amount is not None:
        steps["lot"] = 10.0**-amount
    if price is not None:
        steps["tick"] = 10.0**-price
    return steps
