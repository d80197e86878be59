"""The store: list, find, verify, compare, prune and export what was saved in ``results/``."""

from backtest.shelf.choose import Wanted, read_bound, read_kinds, read_moment, sort_entries
from backtest.shelf.entry import KINDS, Entry, read_entry
from backtest.shelf.export import export_result
from backtest.shelf.listing import find_result, list_folders, list_results, read_whole
from backtest.shelf.origin import Origin, find_origin
from backtest.shelf.prune import choose, choose_doomed, count_kinds, delete
from backtest.shelf.together import compare_saved, name_saved
from backtest.shelf.verify import Check, verify_folder

__all__ = [
    "KINDS",
    "Check",
    "Entry",
    "Origin",
    "Wanted",
    "choose",
    "choose_doomed",
    "compare_saved",
    "count_kinds",
    "delete",
    "export_result",
    "find_origin",
    "find_result",
    "list_folders",
    "list_results",
    "name_saved",
    "read_bound",
    "read_entry",
    "read_kinds",
    "read_moment",
    "read_whole",
    "sort_entries",
    "verify_folder",
]
