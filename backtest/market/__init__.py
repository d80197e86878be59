"""Market data: bars, mark prices, and funding, read, checked, aligned, and repaired on request."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.market.data_expression import load_again
    from backtest.market.detail import with_clock
    from backtest.market.fetch.download import RetryPolicy
    from backtest.market.fetch.fetch_market import Fetched, fetch_market
    from backtest.market.fetch.request import read_request
    from backtest.market.import_market import import_market
    from backtest.market.inspect.findings import Count, Gaps
    from backtest.market.inspect.quality_report import BarsQuality, FundingQuality, MarkQuality
    from backtest.market.inspect.quality_report import Quality
    from backtest.market.lent_market import detach, lend
    from backtest.market.bar_count import SESSIONS, bars_per_year, count_by_calendar
    from backtest.market.market import Market
    from backtest.market.markets import Markets, as_given, as_markets, label_names, remake
    from backtest.market.markets import unwrap_market
    from backtest.market.panel import Panel
    from backtest.market.panel_data import require_panel
    from backtest.market.panel_quality import InstrumentSpan, PanelQuality, inspect_panel, quality
    from backtest.market.policy_clock import PolicyClock, decide_every, describe_clock, find_clock
    from backtest.market.policy_clock import has_gaps, show_signal, with_decide
    from backtest.market.read.files import read_file, suffix_of
    from backtest.market.read.instrument_folders import find_in_folders, is_panel, list_names
    from backtest.market.tables.defects import Defect, refuse, require
    from backtest.market.tables.market_data import compute_once
    from backtest.market.tables.repairs import Repair, split_notes
    from backtest.market.tables.settlements import cadence, nearest_minute, place_on_bars
    from backtest.market.tables.settlements import read_settlements
    from backtest.market.tables.timed_table import to_floats
    from backtest.market.tables.times import to_utc
    from backtest.market.weight_frame import Weights, check_columns_of_frame, name_as_panel
    from backtest.market.weight_frame import read_stamps, read_weight_file, read_weights
    from backtest.market.weight_frame import weights_to_frame

open_door(__name__)
