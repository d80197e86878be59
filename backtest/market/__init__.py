"""Market data: bars, mark prices, and funding, read, checked, aligned, and repaired on request."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.market.detail import with_clock
    from backtest.market.fetch import Fetched, fetch_market, read_request
    from backtest.market.folders import find_in_folders, is_panel, list_names
    from backtest.market.import_market import import_market
    from backtest.market.bar_count import SESSIONS, bars_per_year, count_by_calendar
    from backtest.market.market import Market, compute_once, load_again
    from backtest.market.markets import Markets, Panel, as_given, as_markets, detach, label_names
    from backtest.market.markets import lend, remake, require_panel, unwrap_market
    from backtest.market.policy_clock import PolicyClock, decide_every, describe_clock, find_clock
    from backtest.market.policy_clock import has_gaps, show_signal, with_decide
    from backtest.market.quality import Finding, InstrumentSpan, PanelQuality, Quality
    from backtest.market.quality import inspect_panel, quality
    from backtest.market.read import read_file, suffix_of
    from backtest.market.repairs import Repair, split_notes
    from backtest.market.settlements import cadence, nearest_minute, place_on_bars
    from backtest.market.settlements import read_settlements
    from backtest.market.tables import Defect, refuse, require, to_floats, to_utc
    from backtest.market.weight_frame import Weights, check_columns_of_frame, name_as_panel
    from backtest.market.weight_frame import read_stamps, read_weight_file, read_weights
    from backtest.market.weight_frame import weights_to_frame

open_door(__name__)
