"""The account: what the trader brings, the eight steps of a bar, the ledger, and ruin."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.account.account import Account, ByInstrument, Multiple, check_setting, find_factor
    from backtest.account.account import is_fixed_distance, is_price_distance, list_shared_settings
    from backtest.account.account import find_pause_ends, measure_stop, read_scale
    from backtest.account.account import without_flows_before
    from backtest.account.records import AccountBar, AccountState, Balances, EventLog
    from backtest.account.records import InstrumentRules, MarketBar, MarketFeed, OptionFeed
    from backtest.account.records import Position, Quote, Scratch, Terms, TradedDays, has_stops
    from backtest.account.records import is_held, is_isolated, is_spot, log_costs, log_event
    from backtest.account.records import make_option_feed
    from backtest.account.records import no_options, pick_instrument, pick_margin, pick_position
    from backtest.account.records import by_reference, read_traded
    from backtest.account.balance import compute_account_equity, compute_balance, compute_excess
    from backtest.account.balance import compute_needed, compute_pool, count_cross, is_under_limit
    from backtest.account.balance import mark_to_ledger, pick_balances, put_balances, value_at
    from backtest.account.bar import open_bar, process_bar, set_quotes
    from backtest.account.money import clear_ledger
    from backtest.account.options import must_value_options, price_options, value_options_at_close
    from backtest.account.orders import compute_square_root_impact, compute_target, fill, is_outside
    from backtest.account.orders import move_margin
    from backtest.account.margin_calls import compute_pool_backing, compute_pool_needed
    from backtest.account.margin_calls import compute_pool_ratio
    from backtest.account.margin_moves import write_settings
    from backtest.account.payments import charge_interest
    from backtest.account.causes import measure_shares, write_parts
    from backtest.account.option_pool import find_segment, find_value_with_options
    from backtest.account.option_pool import is_moved_by, probe_near_segments
    from backtest.account.quiet import FILLED, LEFT, MORE_DUE, OPEN_DUE, PAID, QUIET, WHOLE
    from backtest.account.quiet import InitialBracket, One, Prices, begin_ledger, close_quietly
    from backtest.account.quiet import compute_equity_of_one, compute_in_bracket
    from backtest.account.quiet import count_quiet_decisions, fill_at_open, find_due
    from backtest.account.quiet import find_initial_bracket, find_quiet_end, finish_at_close
    from backtest.account.quiet import follow_bracket, follow_initial_bracket, is_one_plain
    from backtest.account.quiet import is_quiet_alone, is_sound_with, may_be_quiet, open_quietly
    from backtest.account.quiet import pay_at_open, pick_prices, pick_unpaid, plan_open
    from backtest.account.quiet import put_back, take_together, value_one
    from backtest.account.position import charge, compute_entry, compute_root, find_line
    from backtest.account.position import follow_prices
    from backtest.account.exits import find_stop, stop_position
    from backtest.account.price_walk import aim_at_leg, choose_turns, note_extremes
else:
    __getattr__ = find_lazily(__name__, {
        "account.account": (
            "Account ByInstrument Multiple check_setting find_factor find_pause_ends "
            "is_fixed_distance is_price_distance list_shared_settings measure_stop read_scale "
            "without_flows_before"
        ),
        "account.balance": (
            "compute_account_equity compute_balance compute_excess compute_needed compute_pool "
            "count_cross is_under_limit mark_to_ledger pick_balances put_balances value_at"
        ),
        "account.bar": "open_bar process_bar set_quotes",
        "account.causes": "measure_shares write_parts",
        "account.money": "clear_ledger",
        "account.options": "must_value_options price_options value_options_at_close",
        "account.orders": "compute_square_root_impact compute_target fill is_outside move_margin",
        "account.margin_calls": "compute_pool_backing compute_pool_needed compute_pool_ratio",
        "account.margin_moves": "write_settings",
        "account.payments": "charge_interest",
        "account.option_pool": (
            "find_segment find_value_with_options is_moved_by probe_near_segments"
        ),
        "account.position": "charge compute_entry compute_root find_line follow_prices",
        "account.exits": "find_stop stop_position",
        "account.price_walk": "aim_at_leg choose_turns note_extremes",
        "account.quiet": (
            "FILLED LEFT MORE_DUE OPEN_DUE PAID QUIET WHOLE InitialBracket One Prices begin_ledger "
            "close_quietly compute_equity_of_one compute_in_bracket count_quiet_decisions "
            "fill_at_open find_due find_initial_bracket find_quiet_end finish_at_close "
            "follow_bracket follow_initial_bracket is_one_plain is_quiet_alone is_sound_with "
            "may_be_quiet open_quietly pay_at_open pick_prices pick_unpaid plan_open put_back "
            "take_together value_one"
        ),
        "account.records": (
            "AccountBar AccountState Balances EventLog InstrumentRules MarketBar MarketFeed "
            "OptionFeed Position Quote Scratch Terms TradedDays has_stops is_held is_isolated "
            "is_spot log_costs log_event make_option_feed no_options pick_instrument pick_margin "
            "pick_position by_reference read_traded"
        ),
    })  # fmt: skip
