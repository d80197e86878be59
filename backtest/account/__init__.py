"""The account: what the trader brings, the eight steps of a bar, the ledger, and ruin."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.account.account import Account, list_shared_settings, without_flows_before
    from backtest.account.account import check_setting
    from backtest.account.account_records import Balances, InstrumentRules
    from backtest.account.account_records import Position, Quote, Trade, Watch
    from backtest.account.liquidation import add_from_wallet
    from backtest.account.position import charge
    from backtest.account.position import compute_root, is_failing, make_balances
    from backtest.account.account import ByInstrument
    from backtest.account.pool_liquidation import measure_shares
    from backtest.account.position import follow_prices, follow_trade
    from backtest.account.bar import may_use_fast_path, take_fast_path
    from backtest.account.orders import fill, move_margin, split_margin
    from backtest.account.ledger import Ledger, Log, write_event
    from backtest.account.account import find_least
    from backtest.account.account import Multiple, find_column, find_factor
    from backtest.account.account import is_price_distance, read_scale
    from backtest.account.records import OptionFeed, make_option_feed
    from backtest.account.options import is_walking
    from backtest.account.options import close_options, open_options, price_options
    from backtest.account.records import OptionState, OptionTerms
    from backtest.account.option_liquidation import find_value_with_options, is_far_with_options
    from backtest.account.option_liquidation import is_moved_by
    from backtest.account.orders import can_order, compute_square_root_impact, compute_target
    from backtest.account.orders import is_outside
    from backtest.account.position import pay_funding
    from backtest.account.balance import compute_account_equity, compute_balance
    from backtest.account.balance import compute_excess, compute_initial_needed
    from backtest.account.balance import compute_pool, count_cross
    from backtest.account.balance import is_under_limit, mark_to_ledger, pick_balances
    from backtest.account.balance import put_balances, value_at
    from backtest.account.bar import set_quotes, live_bar
    from backtest.account.calls import compute_pool_backing, compute_pool_needed
    from backtest.account.calls import compute_pool_ratio
    from backtest.account.records import as_log, clear_ledger, note, stamp
    from backtest.account.records import sum_bar, sum_changes, sum_ledger, total
    from backtest.account.calls import write_settings
    from backtest.account.payments import charge_interest
    from backtest.account.records import AccountBar, AccountState, EventLog, MarketBar
    from backtest.account.records import MarketFeed, Scratch, Terms, has_exits, has_stops
    from backtest.account.records import is_held, is_isolated, is_spot, pick_instrument
    from backtest.account.records import pick_margin, pick_position, pick_quote, share
    from backtest.account.position import compute_entry, find_adverse
    from backtest.account.position import find_side, is_stopped, worsen
    from backtest.account.price_walk import aim_at_leg, choose_turns
    from backtest.account.position import find_line

open_door(__name__)
