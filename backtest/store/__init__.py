"""The store: list, find, verify and prune what was saved in ``results/``."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.store.care import FolderCheck, KeptFolder, choose_deletions, delete_chosen
    from backtest.store.care import verify_folder
    from backtest.store.listing import Filter, StoreEntry, count_kinds, describe_note, find_folder
    from backtest.store.listing import describe_origin
    from backtest.store.listing import list_folders, list_kinds, list_results, load_saved
    from backtest.store.listing import name_fault, open_folder, read_entry, read_kinds
    from backtest.store.listing import read_time_or_age, read_usable, sort_entries

open_door(__name__)
