"""The store: list, find, verify, compare, prune and export what was saved in ``results/``."""

from backtest.store.compare_saved import compare_saved, name_saved
from backtest.store.entry import StoreEntry, read_entry
from backtest.store.export import export_result
from backtest.store.find import Saved, find_folder, list_folders, load_saved
from backtest.store.kinds import list_kinds, open_folder
from backtest.store.list_filters import (
    Filter,
    read_bound,
    read_kinds,
    read_time_or_age,
    sort_entries,
)
from backtest.store.listing import list_results, read_usable
from backtest.store.prune import choose_deletions, count_kinds, delete_chosen
from backtest.store.verify import FolderCheck, verify_folder, verify_records

__all__ = [
    "Filter",
    "FolderCheck",
    "Saved",
    "StoreEntry",
    "choose_deletions",
    "compare_saved",
    "count_kinds",
    "delete_chosen",
    "export_result",
    "find_folder",
    "list_folders",
    "list_kinds",
    "list_results",
    "load_saved",
    "name_saved",
    "open_folder",
    "read_bound",
    "read_entry",
    "read_kinds",
    "read_time_or_age",
    "read_usable",
    "sort_entries",
    "verify_folder",
    "verify_records",
]
