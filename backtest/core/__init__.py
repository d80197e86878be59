"""Tools that do not depend on markets: errors, units, declared values, files."""

from backtest.core.atomic_files import *
from backtest.core.black_kernels import *
from backtest.core.checked_calls import *
from backtest.core.code_names import *
from backtest.core.elementary import *
from backtest.core.errors import *
from backtest.core.fields import *
from backtest.core.json_values import *
from backtest.core.moments import *
from backtest.core.number_text import *
from backtest.core.result_parts import *
from backtest.core.saved_result import *
from backtest.core.units import *
from backtest.core.values import *
