"""Names of columns in files, ours and those of venues; coins and currencies in instruments' names.

Columns are matched without regard to case. Two columns of one name are an error, and so is one that
holds another unit than ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
    SCHEMAS,
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
    """Return a table of a role (bars, mark or funding) with our names of its columns.

    ``chosen`` has the columns that a user named, by our names; without a choice, columns are known
    by the names that freqtrade and venues give them. ``where`` is the file, for messages. Raises
    DataError if two columns have one name, or the one that is needed has another unit.
    """
    if chosen:
        chosen = _complete_choice(frame, chosen, role, where)
        columns = _choose_columns(frame, chosen, where)
        if role == "funding":
            return _add_payments(columns, frame, chosen, where)
        return columns

    # A column without a name, such as an index that was written with the rest, is none of ours.
    frame = _name_headless(frame, role, where)
    is_named = [str(name) != "" for name in frame.columns]
    frame = frame.loc[:, is_named]
    if role != "funding":
        frame = _rename_letters(frame)

    known = spell_columns(frame, HEADS, where)
    frame, named = _drop_labels(frame, known, where)
    # Of a stamp that stands there as an epoch and as a text, the epoch stays: it has no time zone.
    for epoch, text in _TWICE.items():
        if {epoch, text} <= known.keys():
            frame = frame.drop(columns=known.pop(text))
    if role == "funding":
        return _rename_funding(frame, known, where)
    return _rename_bars(frame, known, where, instrument=instrument or named)


def _name_headless(frame: pd.DataFrame, role: str, where: str) -> pd.DataFrame:
    """Return a table that was read without a header with names of its columns.

    The reader has named its columns "0", "1" and so on. What they are is known by their number and
    the role of the table (bars, mark or funding), as venues write such files. Any other table is
    returned as it is. Raises DataError for a number of columns that is not known.
    """
    n_columns = frame.shape[1]
    if frame.columns.tolist() != [*map(str, range(n_columns))]:
        return frame

    names = _HEADLESS.get((role, n_columns))
    if names is None:
        raise DataError(
            f"a table of {role} without a header must have a known number of columns, found "
            f"{n_columns} ({where}); write a header, or give columns="
            "{'time': 0, 'open': 1, ...}"
        )
    return frame.set_axis(list(names), axis=1)


def _rename_bars(
    frame: pd.DataFrame, known: Mapping[str, Any], where: str, *, instrument: str
) -> pd.DataFrame:
    """Return a table of bars with our names of its columns: time, open, high, low, close, volume.

    ``known`` has the columns of the frame that are known, by the name in small letters.
    ``instrument`` decides about a column such as ``Volume BTC``: it is the volume if the name of
    the instrument begins with that coin.
    """
    if {"timestamp", "homenotional"} <= known.keys():
        core.warn_caller(
            f"BitMEX stamps a bar with its end, which is read as its open ({where}); subtract the "
            "length of a bar from the times"
        )
    if {"close_time", "open_time"} <= known.keys():
        frame = _rename_klines(frame)

    # Names of venues, where no column has ours.
    ours = {}
    for name, spellings in _SPELLINGS.items():
        our_names: Sequence[str] = [name]
        if name == "time":
            our_names = TIME_NAMES
        theirs = _list_known(known, spellings)
        if theirs and known.keys().isdisjoint(our_names):
            ours[_only(name, theirs, where)] = name
    frame = _rename_volume(frame.rename(columns=ours), instrument, where)
    if {"open", "close"} <= {*map(str, frame.columns)} or "open" not in known:
        return frame

    # Bars of Yahoo and others, whose names have capitals. Dividends and the like, and columns of
    # dates that are no stamps, are none of ours.
    plain_names = [plain_name(name) for name in frame.columns]
    plain = frame.set_axis(plain_names, axis=1)
    dropped: list[Any] = [*_EXTRAS.intersection(plain.columns)]
    for column, dtype in plain.dtypes.items():
        if dtype.kind == "M" and column not in TIME_NAMES:
            dropped.append(column)

    name_of_index = plain_name(frame.index.name or "")
    renamed = plain.rename_axis(index=name_of_index or None)
    return renamed.drop(columns=dropped)


def _list_known(known: Mapping[str, Any], spellings: Iterable[str]) -> list[Any]:
    """Return the columns that have one of some spellings, in the order of the spellings."""
    return [known[spelling] for spelling in spellings if spelling in known]


def _rename_klines(frame: pd.DataFrame) -> pd.DataFrame:
    """Return klines by our names, without close times and what no other source has."""
    used = []
    ours = {}
    for name in frame:
        plain = plain_name(name)
        if _UNUSED.fullmatch(plain):
            continue
        used.append(name)
        if plain in _OF_KLINES:
            ours[name] = _OF_KLINES[plain]
    return frame[used].rename(columns=ours)


def _drop_labels(
    frame: pd.DataFrame, known: Mapping[str, Any], where: str
) -> tuple[pd.DataFrame, str]:
    """Return a frame without columns of labels, and the instrument that one of them names.

    A label is a text that is the same in each row, such as the symbol or the exchange. Empty
    without a name. Raises DataError for a file of several instruments.
    """
    instrument = ""
    labels = []
    for name in _LABELS:
        if name not in known or frame[known[name]].dtype.kind != "O":
            continue

        label = known[name]
        values = frame[label].dropna().unique()
        if len(values) > 1:
            raise DataError(
                f"a file must hold one instrument, {label!r} has {values[0]!r} and "
                f"{values[1]!r} ({where}); write a file for each of them"
            )
        if not instrument and name in _INSTRUMENT:
            instrument = str(*values)
        labels.append(label)
    return frame.drop(columns=labels), instrument


def _only(name: str, theirs: Sequence[object], where: str) -> Any:
    """Return the only column for one of our names; DataError if there are several."""
    if len(theirs) > 1:
        raise DataError(
            f"one column may be {name!r}, found {theirs[0]!r} and {theirs[1]!r} ({where}); "
            "columns= selects it, by its position from 0"
        )
    return theirs[0]


def _rename_volume(frame: pd.DataFrame, instrument: str, where: str) -> pd.DataFrame:
    """Return a frame in which the volume of its coin, such as ``Volume BTC``, is called volume.

    Volumes of other currencies are left out with a warning. ``instrument`` names the coin: it
    begins with it. A frame that has a volume stays as it is.
    """
    if "volume" in {*map(plain_name, frame.columns)}:
        return frame

    of_coin = []
    others = []
    for name in dict.fromkeys(frame.columns):
        text = plain_name(name)
        if not _COIN.fullmatch(text):
            continue
        coin = text.split("_")[1].upper()
        if instrument.upper().startswith(coin):
            of_coin.append(name)
        else:
            others.append(name)

    if others:
        core.warn_caller(
            f"{', '.join(others)} left out: the coin of a volume must begin the name of the "
            f"instrument, got {instrument!r} ({where}); give instrument=, or columns="
        )
        frame = frame.drop(columns=others)
    if of_coin:
        frame = frame.rename(columns={_only("volume", of_coin, where): "volume"})
    return frame


def _rename_funding(frame: pd.DataFrame, known: Mapping[str, Any], where: str) -> pd.DataFrame:
    """Return a table of funding with our names of columns.

    ``known`` has the columns of the frame by their spelling. A table comes in one of three forms:

    - ours, whose names are known already: it stays as it is;
    - samples of the rate in force, each with a stamp and the time of the payment to come: see
      :func:`_rename_rates_in_force`;
    - rows of settlements, each with its time and the rate that was paid: see
      :func:`_rename_settlements`.
    """
    rates = _find_rates(known)
    if not rates:
        _refuse_other_unit(frame, known, where)
        return frame

    # Columns of times: of a settlement, of a payment to come, and of the row itself.
    rate = _only("rate", _list_known(known, rates), where)
    settled = _list_known(known, _SETTLED)
    payments = _list_known(known, PAYMENT_NAMES)
    stamps = _find_stamps(frame, known)
    # A payment to come may be told by its values alone.
    if stamps and not payments:
        payments = find_payments(frame, stamps[0], [rate])
        settled = [name for name in settled if name not in payments]

    # Ours: a rate and the index, no other name.
    if rates == ["rate"] and not settled and not payments:
        return frame

    # Beside stamps of its own, the time of a settlement that most rows repeat is that of a payment
    # to come.
    is_repeated = bool(settled) and 2 * frame[settled[0]].duplicated().sum() > len(frame)
    if payments or (stamps and is_repeated):
        stamp = None
        if stamps or settled:
            stamp = _only("time", stamps or settled, where)
        return _rename_rates_in_force(frame, rate, [*payments, *settled], stamp)

    times = settled or stamps
    stamp = _only("time", times, where) if times else None
    return _rename_settlements(frame, known, rate, stamp)


def _rename_rates_in_force(
    frame: pd.DataFrame, rate: Any, payments: Sequence[Any], stamp: Any
) -> pd.DataFrame:
    """Return samples of a rate in force by our names: rate, time, and times of payments to come.

    ``rate``, ``payments`` and ``stamp`` name columns of the frame; a ``stamp`` of None: the index
    has the times. A payment whose name says nothing of one gets a name that does, ``payment_0``.
    """
    columns = {}
    for n, name in enumerate(payments):
        our_name = f"{LEAD}_{n}"
        if is_payment(name):
            our_name = str(name)
        columns[our_name] = frame[name]
    if stamp is not None:
        columns["time"] = frame[stamp]
    return pd.DataFrame(columns | {"rate": frame[rate]})


def _rename_settlements(
    frame: pd.DataFrame, known: Mapping[str, Any], rate: Any, stamp: Any
) -> pd.DataFrame:
    """Return rows of settlements by our names: rate, the mark if it is known, and time.

    ``rate`` and ``stamp`` name columns of the frame; a ``stamp`` of None: the index has the times.
    Other columns are left out.
    """
    ours = {rate: "rate"}
    marks = ["mark_price", "markprice"]
    # dYdX, which alone stamps settlements so, calls the mark "price".
    if "effectiveat" in known:
        marks.append("price")
    ours.update(dict.fromkeys(_list_known(known, marks), "mark"))
    if stamp is not None:
        ours[stamp] = "time"
    return frame[[*ours]].rename(columns=ours)


def _find_rates(known: Mapping[str, Any]) -> list[str]:
    """Return which known names of columns hold the funding rate that was paid, as a fraction.

    Some venues write a second column beside the rate, such as a forecast; ``_RATES`` names it for
    each of their names, and it is left out.
    """
    spellings = [name for name in _RATES if name in known]
    beside = {*map(_RATES.get, spellings)}
    return [name for name in spellings if name not in beside]


def _find_stamps(frame: pd.DataFrame, known: Mapping[str, Any]) -> list[Any]:
    """Return the columns of stamps that are not empty: of our names, or else of others'."""
    stamps = _list_known(known, TIME_NAMES)
    if not stamps:
        stamps = _list_known(known, _SPELLINGS["time"])
    return [name for name in stamps if frame[name].notna().any()]


def _refuse_other_unit(frame: pd.DataFrame, known: Mapping[str, Any], where: str) -> None:
    """Raise DataError if a file of funding has per cents or rates of another interval."""
    if "open" in known:
        return
    for name in frame.columns:
        if _OTHER_UNIT.search(str(name).lower()):
            raise DataError(
                f"funding must be the fraction paid at a settlement, {name!r} is per cent or of "
                f"another interval ({where}); divide it, and name it 'rate'"
            )


def _add_payments(
    columns: pd.DataFrame, frame: pd.DataFrame, chosen: Mapping[str, str], where: str
) -> pd.DataFrame:
    """Return the chosen columns of funding, with the times of payments that a user did not choose.

    A rate in force is paid later than its stamp: where ``frame``, all columns of the file, has the
    time of payment, it is added with a warning.
    """
    if LEAD in chosen or not {"time", "rate"} <= chosen.keys():
        return columns

    whole = frame.reset_index(drop=True).assign(**{_STAMPS: columns["time"].array})
    names = find_payments(whole, _STAMPS, known=())
    if not names:
        return columns

    shown = ", ".join(repr(str(name)) for name in names)
    core.warn_caller(
        f"the time of payment of a rate in force is read from {shown}, which columns= does not "
        f"choose ({where}); 'funding.payment' there chooses one"
    )
    for n, name in enumerate(names):
        columns[f"{LEAD}_{n}"] = whole[name].array
    return columns


_STAMPS = " stamps"
"""The chosen stamps, beside all columns of a file."""


def find_flag(frame: pd.DataFrame) -> Any:
    """Return the column that says whether a bar is finished, None if there is none.

    It is known by its name, such as ``is_closed``. In bars of Binance's streams, whose columns are
    the letters ``t, T, o, h, l, c``, it is ``x``. A column of other values than yes and no is none.
    """
    for name in frame.columns:
        if not is_flag(name):
            continue
        is_text = frame[name].dtype.kind not in "iufb"
        if is_text or read_flag(frame[name]) is not None:
            return name

    plain_names = [plain_name(name) for name in frame.columns]
    if not {"o", "h", "l", "c", "x"} <= {*plain_names}:
        return None
    for name, plain in zip(frame.columns, plain_names, strict=True):
        if plain == "x" and read_flag(frame[name]) is not None:
            return name
    return None


def _rename_letters(frame: pd.DataFrame) -> pd.DataFrame:
    """Return bars whose columns are called t, o, h, l, c by our names; other frames as they are.

    So do streams of Binance and some other feeds call them.
    """
    if not {"t", "o", "h", "l", "c"} <= {*frame.columns}:
        return frame

    names = dict(_OF_STREAMS)
    if find_flag(frame) == "x":
        names["x"] = FLAG
    if "s" in frame:
        texts = frame["s"].astype(str)
        if texts.str.fullmatch(r"[A-Z0-9_:/-]+").all():
            names["s"] = "symbol"

    unused = [name for name in frame if name in _UNUSED_OF_STREAMS and name not in names]
    return frame.drop(columns=unused).rename(columns=names)


def _complete_choice(
    frame: pd.DataFrame, chosen: Mapping[str, str], role: str, where: str
) -> dict[str, str]:
    """Return the chosen columns, with others of our names where one that is needed is not chosen.

    A choice of all that is needed stays as it is: it leaves out what it does not name.
    """
    schema = SCHEMAS[role]
    complete = dict(chosen)
    needed = {*schema.known[: schema.n_required]}
    if not isinstance(frame.index, pd.DatetimeIndex):
        needed.add("time")
    if needed <= chosen.keys():
        return complete

    # A column that was chosen for one name is not taken for another.
    known = [*map(str, frame.columns)]
    used = set()
    for theirs in chosen.values():
        for place in _find_places(known, theirs):
            used.add(known[place])

    spelled = spell_columns(frame, (*TIME_NAMES, *schema.known), where)
    for name in schema.known:
        if name in spelled and spelled[name] not in used:
            complete.setdefault(name, str(spelled[name]))

    # Times have several names; of two columns neither is taken.
    times = [spelled[name] for name in TIME_NAMES if name in spelled]
    free = [str(column) for column in times if column not in used]
    if len(free) == 1:
        complete.setdefault("time", free[0])
    return complete


def _choose_columns(frame: pd.DataFrame, chosen: Mapping[str, str], where: str) -> pd.DataFrame:
    """Return the columns that a user chose, by our names, and one that marks unfinished bars.

    ``chosen`` has names, in any case, or positions of columns by our names. Raises DataError for
    one that is not there.
    """
    known = list(map(str, frame.columns))
    columns = {}
    for name, theirs in chosen.items():
        places = _find_places(known, theirs)
        if places:
            _only(name, [known[place] for place in places], where)
            columns[name] = frame.iloc[:, places[0]]
        elif frame.index.name == theirs:
            columns[name] = frame.index.to_series()
        else:
            raise DataError(
                f"the column for {name!r} must be in the file, {theirs!r} is "
                f"not{did_you_mean(theirs, known)} ({where}); choose among "
                f"{', '.join(known[:12])}, or a position from 0"
            )

    if "close" in columns:
        flag = find_flag(frame)
        if flag is not None and flag not in chosen.values() and not is_all_finished(frame[flag]):
            our_name = flag if is_flag(flag) else FLAG
            columns[our_name] = frame[flag]

    # A column of times under our name, or the index that the frame has already.
    index = None
    if "time" not in columns:
        index = frame.index
    arrays = {name: values.array for name, values in columns.items()}
    return pd.DataFrame(arrays, index=index)


def is_all_finished(flag: pd.Series) -> bool:
    """Return whether a flag says of all bars that they are finished; not if it cannot be read."""
    finished = read_flag(flag)
    return finished is not None and bool((finished == 1.0).all())


def _find_places(known: Sequence[str], theirs: str) -> list[int]:
    """Return the positions of the columns that a text names: digits are a position themselves.

    An exact name counts before one in another case. Empty if there is no such column.
    """
    if theirs.isdigit():  # a position, also where a name has these digits
        place = int(theirs)
        if place < len(known):
            return [place]
        return []

    exact = []
    in_any_case = []
    for place, name in enumerate(known):
        if name == theirs:
            exact.append(place)
        if name.lower() == theirs.lower():
            in_any_case.append(place)
    return exact or in_any_case


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
    """Return the coin and the quote currency in the name of an instrument: ("BTC", "USDT").

    Both are empty where the name does not say them. BNBUSD may end in USD or in BUSD: where several
    quote currencies fit, the one counts that leaves a known coin.
    """
    pairs = []
    for quote, pattern in _QUOTED.items():
        match = pattern.fullmatch(instrument)
        if match:
            pairs.append((match["coin"], quote))

    if len(pairs) > 1:
        pairs = [(coin, quote) for coin, quote in pairs if _MULTIPLE.sub("", coin) in _COINS]
    if len(pairs) != 1:
        return "", ""
    return pairs[0]


def find_currency(instrument: str, *, is_inverse: bool = False) -> str:
    """Return the settlement currency that the name of an instrument tells; empty if it does not.

    Some names state it: BTC/USDT:USDT settles in USDT, and BTCUSD_PERP, which is inverse, in BTC.
    Other names end in the quote currency, as BTCUSDT. In that a linear contract settles, an
    inverse one does not.
    """
    for pattern in (_SETTLES_IN, _INVERSE):
        match = pattern.fullmatch(instrument)
        if match:
            return match["currency"]
    if is_inverse:
        return ""
    return split_pair(instrument)[1]


def find_coin(instrument: str) -> str:
    return split_pair(instrument)[0]


def is_listed(coin: str) -> bool:
    """Return whether a coin is one that large venues list."""
    return _MULTIPLE.sub("", coin) in _COINS


class Currency(core.Declaration):
    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[A-Z0-9]{1,12}", value):
            raise core.Fault("must be a currency in capital letters, 'USDT' for example")
        return value
