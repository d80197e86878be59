"""Market data: bars, mark prices, and funding, read, checked, aligned, and repaired on request."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.market.clock import PolicyClock, SESSIONS, bars_per_year, count_bars_per_year
    from backtest.market.clock import decide_every, describe_clock, find_clock, has_gaps
    from backtest.market.clock import read_source, show_signal, with_clock
    from backtest.market.fetch import Fetched, fetch_market, read_request
    from backtest.market.layouts import find_in_folders, find_sources, is_panel
    from backtest.market.market import Market, find_column, find_facts, find_shared_facts
    from backtest.market.market import trust_fields
    from backtest.market.markets import Markets, Panel, as_given, as_markets, detach, label_names
    from backtest.market.markets import remake, require_panel, unwrap_market
    from backtest.market.names import Currency, find_coin, find_currency, split_pair
    from backtest.market.quality import Quality
    from backtest.market.rules import split_notes
    from backtest.market.files import read_file, suffix_of
    from backtest.market.sessions import find_later_sessions
    from backtest.market.tables import BY_BARS, Defects, cadence, nearest_minute, place_on_bars
    from backtest.market.tables import read_dates, rename_known, to_floats
    from backtest.market.weight_frame import CARRIED, CARRY, Weights, check_bars, name_columns
    from backtest.market.weight_frame import read_raw_weights, read_weights, weights_to_frame
else:
    __getattr__ = find_lazily(__name__, {
        "market.clock": (
            "PolicyClock SESSIONS bars_per_year count_bars_per_year decide_every describe_clock "
            "find_clock has_gaps read_source show_signal with_clock"
        ),
        "market.fetch": "Fetched fetch_market read_request",
        "market.layouts": "find_in_folders find_sources is_panel",
        "market.files": "read_file suffix_of",
        "market.market": "Market find_column find_facts find_shared_facts trust_fields",
        "market.markets": (
            "Markets Panel as_given as_markets detach label_names remake require_panel "
            "unwrap_market"
        ),
        "market.names": "Currency find_coin find_currency split_pair",
        "market.quality": "Quality",
        "market.rules": "split_notes",
        "market.sessions": "find_later_sessions",
        "market.tables": (
            "BY_BARS Defects cadence nearest_minute place_on_bars read_dates rename_known "
            "to_floats"
        ),
        "market.weight_frame": (
            "CARRIED CARRY Weights check_bars name_columns read_raw_weights read_weights "
            "weights_to_frame"
        ),
    })  # fmt: skip
