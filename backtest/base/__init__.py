"""Tools that do not depend on markets: errors, units, declared values, files, compiled code.

All names of its modules, but those of the compiler, which loads numba.
"""

from backtest.base.atomic_files import *
from backtest.base.black_kernels import *
from backtest.base.checked_calls import *
from backtest.base.code_names import *
from backtest.base.elementary import *
from backtest.base.errors import *
from backtest.base.fields import *
from backtest.base.json_values import *
from backtest.base.kernels import *
from backtest.base.moments import *
from backtest.base.number_text import *
from backtest.base.object_code import COMPILER_LOCK, Caller, Entry, ObjectFile, describe_target
from backtest.base.object_code import find_cache_folder, find_lasting_folder, hold_signals
from backtest.base.object_code import load_or_compile
from backtest.base.result_parts import *
from backtest.base.saved_result import *
from backtest.base.units import *
from backtest.base.values import *
