"""The account: what the trader brings, the eight steps of a bar, the ledger, and ruin."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.account.account import Account, list_shared_settings, without_flows_before
    from backtest.account.account_checks import check_setting
    from backtest.account.account_records import AccountRules, Balances, InstrumentRules
    from backtest.account.account_records import Position, Quote, Rules, Trade, Watch
    from backtest.account.auto_margin import add_from_wallet, can_add
    from backtest.account.balances import charge, compute_backing, compute_equity
    from backtest.account.balances import compute_root, is_failing, make_balances
    from backtest.account.by_instrument import ByInstrument
    from backtest.account.contagion import measure_shares
    from backtest.account.exits import follow_prices, follow_trade, is_exiting
    from backtest.account.fast_path import may_use_fast_path, take_fast_path
    from backtest.account.fills import fill, move_margin, split_margin
    from backtest.account.gross_cap import compute_cap_factor
    from backtest.account.ledger import Ledger, Log, add_ledgers, new_ledger, write_event
    from backtest.account.leverage_limits import LimitDeclaration
    from backtest.account.leverage_limits import find_least
    from backtest.account.multiple import Multiple, StopDistance, find_column, find_factor
    from backtest.account.multiple import is_price_distance, read_scale
    from backtest.account.option_feed import OptionFeed, make_option_feed
    from backtest.account.option_holdings import is_walking
    from backtest.account.option_marks import close_options, open_options, price_options
    from backtest.account.option_state import OptionState, OptionTerms
    from backtest.account.option_walk import find_value_with_options, is_far_with_options
    from backtest.account.option_walk import is_moved_by
    from backtest.account.orders import can_order, compute_square_root_impact, compute_target
    from backtest.account.orders import is_outside, size_order
    from backtest.account.payments import pay_funding
    from backtest.account.portfolio_balance import compute_account_equity, compute_balance
    from backtest.account.portfolio_balance import compute_excess, compute_initial_needed
    from backtest.account.portfolio_balance import compute_pool, count_cross, is_pool_short
    from backtest.account.portfolio_balance import is_under_limit, mark_to_ledger, pick_balances
    from backtest.account.portfolio_balance import put_balances, value_at
    from backtest.account.portfolio_bar import set_quotes, simulate_portfolio_bar
    from backtest.account.portfolio_calls import compute_pool_backing, compute_pool_needed
    from backtest.account.portfolio_calls import compute_pool_ratio
    from backtest.account.portfolio_ledger import as_log, clear_ledger, note, stamp, sum_fast_ledger
    from backtest.account.portfolio_ledger import sum_ledger, sum_ledger_terms, total
    from backtest.account.portfolio_margin import write_settings
    from backtest.account.portfolio_payments import charge_portfolio_interest
    from backtest.account.portfolio_records import AccountBar, AccountState, EventLog, MarketBar
    from backtest.account.portfolio_records import MarketFeed, Scratch, Terms, has_exits, has_stops
    from backtest.account.portfolio_records import is_held, is_isolated, is_spot, pick_instrument
    from backtest.account.portfolio_records import pick_margin, pick_position, pick_quote, share
    from backtest.account.position import compute_entry, compute_requirement, find_adverse
    from backtest.account.position import find_side, is_stopped, worsen
    from backtest.account.price_walk import aim_at_leg, choose_turns
    from backtest.account.ruin import find_line
    from backtest.account.steps import has_wealth

open_door(__name__)
