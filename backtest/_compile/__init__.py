"""How functions become machine code: the compiler, object files, and kernels of arrays."""

from backtest._compile.kernels import *
from backtest._compile.object_code import COMPILER_LOCK, Caller, Entry, ObjectFile, describe_target
from backtest._compile.object_code import find_cache_folder, find_lasting_folder, hold_signals
from backtest._compile.object_code import load_or_compile
