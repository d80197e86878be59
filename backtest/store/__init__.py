"""The store: list, find, verify, compare, prune and export what was saved in ``results/``."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.store.folders import Saved, find_folder, is_run, list_folders, list_kinds
    from backtest.store.folders import load_saved, name_fault, name_kind, open_folder
    from backtest.store.listing import Filter, StoreEntry, count_kinds, describe_note, list_results
    from backtest.store.listing import read_bound, read_entry, read_kinds, read_time_or_age
    from backtest.store.listing import read_usable, sort_entries
    from backtest.store.prune import KeptFolder, choose_deletions, delete_chosen
    from backtest.store.verify import FolderCheck, export_result, verify_folder

open_door(__name__)
