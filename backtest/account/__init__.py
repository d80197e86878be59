"""The account: what the trader brings, the eight steps of a bar, the ledger, and ruin."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.account.account import Account, ByInstrument, Multiple, check_setting
    from backtest.account.account import find_factor, is_fixed_distance, is_price_distance
    from backtest.account.account import list_shared_settings, measure_stop, read_scale
    from backtest.account.account import without_flows_before
    from backtest.account.records import Balances, InstrumentRules, Position, Quote
    from backtest.account.balance import compute_account_equity, compute_balance, compute_excess
    from backtest.account.balance import compute_needed, compute_pool, count_cross
    from backtest.account.balance import is_under_limit, mark_to_ledger, pick_balances, put_balances
    from backtest.account.balance import value_at
    from backtest.account.bar import process_bar, may_use_fast_path, open_bar, set_quotes
    from backtest.account.bar import take_fast_path
    from backtest.account.records import TradedDays, no_options, read_traded
    from backtest.account.money import Ledger, clear_ledger
    from backtest.account.options import close_options, is_walking, price_options
    from backtest.account.orders import compute_square_root_impact, compute_target, fill, is_outside
    from backtest.account.orders import move_margin
    from backtest.account.payments import charge_interest, compute_pool_backing, compute_pool_needed
    from backtest.account.payments import compute_pool_ratio, write_settings
    from backtest.account.pool_liquidation import find_value_with_options, is_far_with_options
    from backtest.account.pool_liquidation import is_moved_by, measure_shares
    from backtest.account.position import charge, compute_entry, compute_root, find_line
    from backtest.account.position import follow_prices
    from backtest.account.price_walk import aim_at_leg, choose_turns, find_stop, stop_position
    from backtest.account.records import AccountBar, AccountState, EventLog, MarketBar, MarketFeed
    from backtest.account.records import OptionFeed, OptionState, Scratch, Terms, has_stops, is_held
    from backtest.account.records import is_isolated, is_spot, log_event, make_option_feed
    from backtest.account.records import pick_instrument, pick_margin, pick_position
    from backtest.account.records import share

export_lazily(__name__)
