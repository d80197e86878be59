"""Names of columns in files, ours and those of venues; coins and currencies in instruments' names.

Columns are matched without regard to case. Two columns of one name are an error, and so is one that
holds another unit than ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backtest import core
from backtest.core import DataError, did_you_mean
from backtest.core.code_names import pd
from backtest.market.sampled import find_payments
from backtest.market.tables import (
    FLAG,
    LEAD,
    PAYMENT_NAMES,
    PRICES,
    TIME_NAMES,
    is_flag,
    is_payment,
    plain_name,
    read_flag,
    spell_columns,
)

_KLINES = ("open_time", *PRICES, "volume", "close_time", "quote_volume", "trades",
           "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
_HEADLESS = {
    ("bars", 12): _KLINES,
    ("mark", 12): _KLINES,
    ("bars", 7): ("time", *PRICES, "volume", "trades"),  # Kraken's archive
    ("bars", 6): ("time", *PRICES, "volume"),
    ("mark", 6): ("time", *PRICES, "volume"),
    ("mark", 5): ("time", *PRICES),
    ("funding", 3): ("calc_time", "funding_interval_hours", "last_funding_rate"),
}  # fmt: skip
_SPELLINGS = {
    "time": ("unix", "starttime", "start_time", "startedat", "window_start", "start", "ts"),
    **{name: (f"{name}price", f"{name}_price") for name in PRICES},
    "volume": ("vol", "basetokenvolume", "volumefrom"),
}
"""What venues call the columns of bars, where none has our name."""

_SETTLED = ("fundingtime", "fundingratetimestamp", "calc_time", "effectiveat", "funding_time",
            "timepoint", "settletime")  # fmt: skip
_RATES = {"rate": "", "realizedrate": "fundingrate", "relativefundingrate": "fundingrate",
          "realized_rate": "funding_rate", "interest_1h": "", "last_funding_rate": "",
          "lastfundingrate": "", "fundingrate": "", "funding_rate": ""}  # fmt: skip
"""Names of the fraction that a settlement paid, and of what stands beside it but is not that.

Sources: ccxt 4.5.64, ``fetch_funding_rate_history`` of each exchange; docs/venues.md has the table.
"""

_OTHER_UNIT = re.compile("%|percent|pct|daily|annual|year|ap[ry]|8_?h")
_TWICE = {"unix": "date", "timestamp": "datetime"}
"""Stamps as epochs, and the same stamps as texts beside them."""

ALL_TIMES = frozenset({*TIME_NAMES, *_SPELLINGS["time"], *_SETTLED})
HEADS = ALL_TIMES.union(PAYMENT_NAMES, PRICES, *_SPELLINGS.values(), _RATES, ["volume"])
_OF_KLINES = {
    **dict.fromkeys(("quote_volume", "quote_asset_volume"), "quote_volume"),
    **dict.fromkeys(("trades", "count", "number_of_trades"), "trades"),
    **dict.fromkeys(("taker_buy_volume", "taker_buy_base_volume", "taker_buy_base_asset_volume",
                     "taker_base_volume"), "taker_buy_volume"),
}  # fmt: skip
"""What klines carry beside prices and volume, and our names for it.

``quote_volume`` is in the quote currency, ``trades`` a count, and ``taker_buy_volume`` the part of
``volume`` that takers bought, in the unit of ``volume``: none is negative.
"""
_OF_STREAMS = {
    "t": "time", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume",
    "q": "quote_volume", "n": "trades", "V": "taker_buy_volume",
}  # fmt: skip
"""The letters of Binance's ``kline`` streams; Alpaca, Polygon and Finnhub write the first six."""
_UNUSED_OF_STREAMS = ("T", "Q", "B", "f", "L", "s", "i", "e", "E")
"""Close time, taker's quote volume, first and last trade, symbol, interval, event and its time."""
_UNUSED = re.compile("close_time|taker_(buy_)?quote_.*|ignore")
_EXTRAS = {"dividends", "stock_splits", "capital_gains"}
_INSTRUMENT = ("symbol", "ticker", "coin", "pair", "instrument_name", "instid")
_LABELS = (*_INSTRUMENT, "resolution", "period", "exchange")
_COIN = re.compile("volume_[a-z0-9]+_?")


def rename_columns(
    frame: pd.DataFrame, role: str, chosen: Mapping[str, str], where: str, instrument: str = ""
) -> pd.DataFrame:
    """Return a frame with our names: those chosen, or as freqtrade and venues' files say.

    Raises DataError if two columns have one name, or the one that is needed has another unit.
    """
    if chosen:
        taken = _take_columns(frame, chosen, where)
        return _add_payments(taken, frame, chosen, where) if role == "funding" else taken
    if frame.columns.tolist() == [str(number) for number in range(frame.shape[1])]:
        names = _HEADLESS.get((role, frame.shape[1]))
        if names is None:
            raise DataError(
                f"a table of {role} without a header must have a known number of columns, found "
                f"{frame.shape[1]} ({where}); write a header, or give columns="
                "{'time': 0, 'open': 1, ...}"
            )
        frame = frame.set_axis(list(names), axis=1)
    frame = frame.loc[:, [str(name) != "" for name in frame.columns]]
    frame = frame if role == "funding" else _rename_letters(frame)
    known = spell_columns(frame, HEADS, where)
    frame, named = _drop_labels(frame, known, where)
    instrument = instrument or named
    for epoch, text in _TWICE.items():
        if {epoch, text} <= known.keys():
            frame = frame.drop(columns=known.pop(text))
    if role == "funding":
        return _rename_funding(frame, known, where)
    if {"timestamp", "homenotional"} <= known.keys():
        core.warn_caller(
            f"BitMEX stamps a bar with its end, which is read as its open ({where}); subtract the "
            "length of a bar from the times"
        )
    if {"close_time", "open_time"} <= known.keys():  # klines
        frame = frame[[name for name in frame if not _UNUSED.fullmatch(plain_name(name))]]
        kept = {name: _OF_KLINES.get(plain_name(name)) for name in frame}
        frame = frame.rename(columns={name: ours for name, ours in kept.items() if ours})
    ours = {}
    for name, others in _SPELLINGS.items():
        theirs = [known[each] for each in others if each in known]
        if theirs and known.keys().isdisjoint(TIME_NAMES if name == "time" else [name]):
            ours[_only(name, theirs, where)] = name
    frame = _rename_volume(frame.rename(columns=ours), instrument, where)
    if {"open", "close"} <= {*map(str, frame.columns)} or "open" not in known:
        return frame
    plain = frame.set_axis([plain_name(name) for name in frame.columns], axis=1)
    dates = [x for x, kind in plain.dtypes.items() if kind.kind == "M" and x not in TIME_NAMES]
    renamed = plain.rename_axis(index=plain_name(frame.index.name or "") or None)
    return renamed.drop(columns=[*dates, *_EXTRAS.intersection(plain.columns)])


def _drop_labels(
    frame: pd.DataFrame, known: Mapping[str, Any], where: str
) -> tuple[pd.DataFrame, str]:
    """Return a frame without texts that are the same in each row, and the instrument in them."""
    instrument = ""
    labels = [name for name in _LABELS if name in known and frame[known[name]].dtype.kind == "O"]
    for name in labels:
        values = frame[known[name]].dropna().unique()
        if len(values) > 1:
            raise DataError(
                f"a file must hold one instrument, {known[name]!r} has {values[0]!r} and "
                f"{values[1]!r} ({where}); write a file for each of them"
            )
        instrument = instrument or str(*values) * (name in _INSTRUMENT)
    return frame.drop(columns=[known[name] for name in labels]), instrument


def _only(name: str, theirs: Sequence[object], where: str) -> Any:
    if len(theirs) > 1:
        raise DataError(
            f"one column may be {name!r}, found {theirs[0]!r} and {theirs[1]!r} ({where}); "
            "columns= selects it, by its position from 0"
        )
    return theirs[0]


def _rename_volume(frame: pd.DataFrame, instrument: str, where: str) -> pd.DataFrame:
    """Return a frame in which ``Volume BTC`` is the volume of BTCUSDT, and no other coin's."""
    plain = {name: plain_name(name) for name in frame.columns}
    if "volume" in plain.values():
        return frame
    coins = {name: x.split("_")[1].upper() for name, x in plain.items() if _COIN.fullmatch(x)}
    own = [name for name, coin in coins.items() if instrument.upper().startswith(coin)]
    others = [name for name in coins if name not in own]
    if others:
        core.warn_caller(
            f"{', '.join(others)} left out: the coin of a volume must begin the name of the "
            f"instrument, got {instrument!r} ({where}); give instrument=, or columns="
        )
    ours = {_only("volume", own, where): "volume"} if own else {}
    return frame.drop(columns=others).rename(columns=ours)


def _rename_funding(frame: pd.DataFrame, known: Mapping[str, Any], where: str) -> pd.DataFrame:
    """Return the stamps of settlements, the fraction that each paid, and the mark, if known."""
    found = [name for name in _RATES if name in known]
    found = [name for name in found if name not in [_RATES[each] for each in found]]
    if not found:
        odd = [name for name in frame.columns if _OTHER_UNIT.search(str(name).lower())]
        if odd and "open" not in known:
            raise DataError(
                f"funding must be the fraction paid at a settlement, {odd[0]!r} is per cent or of "
                f"another interval ({where}); divide it, and name it 'rate'"
            )
        return frame
    rate = _only("rate", [known[name] for name in found], where)
    times = [known[name] for name in _SETTLED if name in known]
    payments = [known[name] for name in PAYMENT_NAMES if name in known]
    stamps = [known[name] for name in TIME_NAMES if name in known]
    stamps = stamps or [known[name] for name in _SPELLINGS["time"] if name in known]
    stamps = [name for name in stamps if frame[name].notna().any()]
    if stamps and not payments:
        payments = find_payments(frame, stamps[0], [rate])
        times = [name for name in times if name not in payments]
    if found == ["rate"] and not times and not payments:
        return frame

    # Beside stamps of its own, the time of a settlement that repeats is that of a payment to come.
    is_repeated = bool(times) and 2 * frame[times[0]].duplicated().sum() > len(frame)
    if payments or (stamps and is_repeated):
        payments += times
        columns = {
            str(name) if is_payment(name) else f"{LEAD}_{n}": frame[name]
            for n, name in enumerate(payments)
        }
        if stamps or times:
            columns["time"] = frame[_only("time", stamps or times, where)]
        return pd.DataFrame(columns | {"rate": frame[rate]})
    times = times or stamps
    marks = ("mark_price", "markprice", *["price"] * ("effectiveat" in known))
    ours = {rate: "rate"} | {known[name]: "mark" for name in marks if name in known}
    ours |= {_only("time", times, where): "time"} if times else {}
    return frame[[*ours]].rename(columns=ours)


def _add_payments(
    taken: pd.DataFrame, frame: pd.DataFrame, chosen: Mapping[str, str], where: str
) -> pd.DataFrame:
    """Return chosen columns of funding, with the times of payments if those were not chosen."""
    if LEAD in chosen or not {"time", "rate"} <= chosen.keys():
        return taken
    whole = frame.reset_index(drop=True).assign(**{_STAMPS: taken["time"].array})
    found = find_payments(whole, _STAMPS, known=())
    if not found:
        return taken
    shown = ", ".join(map(repr, map(str, found)))
    core.warn_caller(
        f"the time of payment of a rate in force is read from {shown}, which columns= does not "
        f"choose ({where}); 'funding.payment' there chooses one"
    )
    payments = {f"{LEAD}_{n}": whole[name].array for n, name in enumerate(found)}
    return taken.assign(**payments)


_STAMPS = " stamps"
"""The chosen stamps, beside all columns of a file."""


def find_flag(frame: pd.DataFrame) -> Any:
    """Return the column that says whether a bar is finished, None if there is none.

    ``x`` is one beside the letters of Binance's streams, ``t, T, o, h, l, c``.
    """
    names = [name for name in frame.columns if is_flag(name)]
    if {"o", "h", "l", "c", "x"} <= {*map(plain_name, frame.columns)}:
        found = [name for name in frame.columns if plain_name(name) == "x"]
        names += [name for name in found if read_flag(frame[name]) is not None]
    texts = [name for name in names if frame[name].dtype.kind not in "iufb"]
    flags = [name for name in names if name in texts or read_flag(frame[name]) is not None]
    return flags[0] if flags else None


def _rename_letters(frame: pd.DataFrame) -> pd.DataFrame:
    """Return bars of Binance's streams, or of others that write ``t, o, h, l, c``, by our names."""
    if not {"t", "o", "h", "l", "c"} <= {*frame.columns}:
        return frame
    names = dict(_OF_STREAMS)
    if find_flag(frame) == "x":
        names["x"] = FLAG
    if "s" in frame and frame["s"].astype(str).str.fullmatch(r"[A-Z0-9_:/-]+").all():
        names["s"] = "symbol"
    unused = [name for name in frame if name in _UNUSED_OF_STREAMS and name not in names]
    return frame.drop(columns=unused).rename(columns=names)


def _take_columns(frame: pd.DataFrame, chosen: Mapping[str, str], where: str) -> pd.DataFrame:
    known = list(map(str, frame.columns))
    taken = {}
    for name, theirs in chosen.items():
        if theirs.isdigit():  # a position, also where a name has these digits
            hits = [int(theirs)] * (int(theirs) < len(known))
        else:
            exact = [place for place, each in enumerate(known) if each == theirs]
            lower = [each.lower() for each in known]
            hits = exact or [n for n, each in enumerate(lower) if each == theirs.lower()]
        if hits:
            _only(name, [known[place] for place in hits], where)
            taken[name] = frame.iloc[:, hits[0]]
        elif frame.index.name == theirs:
            taken[name] = frame.index.to_series()
        else:
            raise DataError(
                f"the column for {name!r} must be in the file, {theirs!r} is "
                f"not{did_you_mean(theirs, known)} ({where}); choose among "
                f"{', '.join(known[:12])}, or a position from 0"
            )
    flag = find_flag(frame) if "close" in taken else None
    if flag is not None and flag not in chosen.values():
        finished = read_flag(frame[flag])
        if finished is None or not (finished == 1.0).all():
            taken[flag if is_flag(flag) else FLAG] = frame[flag]

    # a column of times under our name, or the index that the frame has already
    return pd.DataFrame({name: values.array for name, values in taken.items()},
                        index=None if "time" in taken else frame.index)  # fmt: skip


LISTING_FILE = "venue.json"
"""What a venue lists of an instrument, which a fetch saves beside its bars."""

_QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD", "EUR", "GBP", "JPY", "BTC", "ETH", "BNB")
_LISTED = """
AAVE ACH ADA AGLD ALGO ANKR ANT APE API3 APT AR ARB ARKM ASTR ATOM AUDIO AVAX AXS BAL BAND BAT
BB BCH BLUR BNB BNT BONK BSV BTC BTT CAKE CELO CFX CHZ COMP CRV CVX DAI DASH DGB DOGE DOT DYDX
EGLD ENA ENJ ENS EOS ETC ETH ETHFI FET FIL FLOKI FLOW FTM FTT FXS GALA GLM GMT GMX GNO GRT HBAR
HNT HOT HYPE ICP ICX ILV IMX INJ IOST IOTA JASMY JTO JUP KAS KAVA KNC KSM LDO LINK LIT LPT LQTY
LRC LTC LUNA LUNC MANA MASK MATIC MINA MKR MNT NEAR NEO NKN NMR NOT OCEAN OGN OMG ONDO ONE ONT
OP ORDI PAXG PENDLE PENGU PEOPLE PEPE POL PYTH QNT QTUM RAY RDNT RENDER REN ROSE RPL RSR RUNE
RVN SAND SATS SEI SHIB SKL SNX SOL SRM SSV STORJ STRK STX SUI SUSHI SXP TAO TFUEL THETA TIA TON
TRB TRUMP TRX TWT UMA UNI USDC USDT UST USTC VET VIRTUAL WAVES WBT WBTC WIF WLD WOO XBT XEC XEM
XLM XMR XRP XTZ YFI YGG ZEC ZEN ZIL ZRO ZRX
"""
"""Coins that large venues list, to distinguish BNB/USD from BN/BUSD and BTC/TUSD from BTCT/USD."""
_COINS = frozenset(_LISTED.split())
_MULTIPLE = re.compile("10+(?=[A-Z])")
_TERM = r"([-_](PERP|SWAP|\d{6}))?"
_SETTLES_IN = re.compile(r"[^/:]+/[^/:]+:(?P<currency>[A-Z]+)(-.*)?")
_INVERSE = re.compile(r"(?P<currency>[A-Z0-9]{2,})USD_(PERP|\d{6})")
_QUOTED = {quote: re.compile(rf"(?P<coin>[A-Z0-9]{{2,}})[-/_]?{quote}{_TERM}") for quote in _QUOTES}


def split_pair(instrument: str) -> tuple[str, str]:
    """Return the coin and the quote currency in a name, both empty where it does not say them.

    Of two quotes that fit, as USD and BUSD in BNBUSD, the one counts whose rest is a known coin.
    """
    matches = {quote: pattern.fullmatch(instrument) for quote, pattern in _QUOTED.items()}
    coins = {quote: match["coin"] for quote, match in matches.items() if match}

    if len(coins) > 1:
        coins = {quote: coin for quote, coin in coins.items() if _MULTIPLE.sub("", coin) in _COINS}
    if len(coins) != 1:
        return "", ""
    quote, coin = next(iter(coins.items()))
    return coin, quote


def find_currency(instrument: str, *, is_inverse: bool = False) -> str:
    """Return the settlement currency in the name of an instrument; empty if there is none.

    The last part of a name is the quote currency, in which only a linear contract settles.
    """
    for pattern in (_SETTLES_IN, _INVERSE):
        if match := pattern.fullmatch(instrument):
            return match["currency"]
    return "" if is_inverse else split_pair(instrument)[1]


def find_coin(instrument: str) -> str:
    return split_pair(instrument)[0]


class Currency(core.Declaration):
    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[A-Z0-9]{1,12}", value):
            raise core.Fault("must be a currency in capital letters, 'USDT' for example")
        return value
