"""The store: list, find, verify, compare, prune and export what was saved in ``results/``."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.store.entry import StoreEntry, describe_note, read_entry
    from backtest.store.export import export_result
    from backtest.store.find import Saved, find_folder, list_folders, load_saved
    from backtest.store.kinds import is_run, list_kinds, name_kind, open_folder
    from backtest.store.listing import Filter, check_measure, list_results
    from backtest.store.listing import read_bound, read_kinds, read_time_or_age, read_usable
    from backtest.store.listing import sort_entries
    from backtest.store.prune import KeptFolder, choose_deletions, count_kinds, delete_chosen
    from backtest.store.verify import FolderCheck, verify_folder, verify_records

open_door(__name__)
