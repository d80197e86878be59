"""What fuzzed experiment files and policies are made of: words that fit, and others."""

import random

FITS = {
    "path": ('"small.csv"', '["small.csv"]', '"nothing.csv"', '"sample"'),
    "instrument": ('"BTCUSDT"', '"ETH"', '""'),
    "interval": ('"1h"', '"1d"', '"1 h"'),
    "resample": ('"2h"', '"7m"', '"1d"'),
    "timezone": ('"UTC"', '""', '"Mars"'),
    "from": ("2024-01-02", '"2024-01-01T12:00"', "2030-01-01"),
    "to": ("2024-01-03", '"2024-01-02"'),
    "start": ("2024-01-02", "2024-01-02T03:00:00Z"),
    "end": ("2024-01-03",),
    "name": ('"vol-target"', '"constant"', '"mine.py"', '"cpi"', '"VolTarget(target=0.2)"'),
    "settings": ("{ target = 0.3 }", "{ target = '0.3' }", "{ leverage = 2 }", "{ cap = -1 }"),
    "preset": ('"binance-usdm:BTCUSDT"', '"binance-usdm:ETHUSDT@latest"', '"nowhere:X"', "1"),
    "fees": ("{ taker = 0.0004 }", "{ taker = -1 }", "{ maker = 'x' }"),
    "slippage": ("{ rate = 0.0001 }", "{ rate = inf }"),
    "brackets": ("[]", "[{ max_leverage = 10 }]", "{}"),
    "objective": ('"sharpe"', '["sharpe", "cagr"]', "{ sharpe = 1.0 }", '"sharp"', "{ x = nan }"),
    "constraints": ("{ max_drawdown = '<=0.4' }", "{ sharpe = '1' }", "{ x = '<1' }"),
    "values": ("{ target = '0.1:1:3' }", "{ target = [0.1, 0.2] }", "{ half_life = 'a' }"),
    "space": ("{ target = '0.1:1' }", "{ target = [0.1, 1] }", "{ band = [0, 'x'] }", "{ x = [] }"),
    "fix": ("{ half_life = 10 }", "{ nope = 1 }"),
    "policies": ("{ a = { name = 'constant' } }", "{ a = {} }", "{ '' = { name = 'cppi' } }"),
    "flows": ("{ time = ['2024-01-02'], value = [100.0] }", "{ time = [1], value = [] }"),
    "margin": ('"cross"', '"isolated"', '"none"'),
    "after_liquidation": ('"halt"', '"continue"', '"stop"'),
    "sampling": ('"1h"', '"1d"', '"0d"'),
    "calendar": ('"365"', '"252"', '"0"'),
    "mark_gaps": ('"last"', '"first"'),
    "funding_gaps": ('"zero"', '"one"'),
    "method": ('"sobol"', '"lhs"', '"x"'),
    "metrics": ('"all"', '"core"'),
    "sampler": ('"auto"', '"grid"', '"x"'),
    "holdout": ('"25%"', "0.2", '"0"', "1.5"),
    "signal": ("1", "-0.5", '"volume"', '"x"', "2"),
    "train": ('"10d"', '["5d", "all"]', '"0d"', '["x"]'),
    "test": ('"5d"', '["3d", "7d"]', '"1h"'),
    "gap": ('"0d"', '"1d"', '"-1d"'),
    "groups": ("2", "3", "1"),
    "test_groups": ("1", "2", "0"),
    "embargo": ('"auto"', "4", '"1d"', '"x"'),
    "baseline": ('"never"', '"5d on 10d"', '"a"'),
    "validate": ('"walk-forward"', '"cross-validate"', '"x"'),
    "trials": ("2", "4", "1"),
    "model": ('"gbm"', '"filtered"', '"block"', '"garch"', '"heston"', '"x"'),
    "paths": ("20", "4", "1", "0"),
    "horizon": ('"5h"', '"1d"', '"30x"'),
    "horizons": ('["1h", "5h"]', '["5h"]', "[]", '["90d"]'),
    "bridge": ("1", "4", "0"),
    "correlation": ("0.5", "2"),
    "common_jump": ("1", "-1"),
    "find_leverage": ("0.05", "1.0"),
    "scenarios": ('["2020-03-12"]', '["x"]', "[]"),
    "rules": ('"today"', '"then"', '"now"'),
    "shocks": ("{ price = -0.3 }", "{ price = -2 }", "{ over = '2h' }", "{ x = 1 }"),
    "ladder": ("{ price = '-0.5:0.5:5' }", "{ depth = [0.1, 0.3] }", "{ price = 'a' }"),
    "depth": ("4", "12", "99"),
    "refine": ('"small.csv"', '"nothing"'),
    "factors": ('["fees", "rates"]', '["fee"]', "[]"),
    "transfers": ("[]", "[{ from = 'a' }]", "{}"),
    "every": ('"30d"', '"1h"', '"0d"'),
    "of": ('"wealth"', '"start"', '"x"'),
}
"""Values of keys of an experiment file, most of them right."""
GOOD = ("0.5", "1", "10", "0.05", "0.95", "25", "2", "0", "3", "1000.0", "true", "false")
BAD = (
    *("nan", "inf", "-inf", "-1", "1e308", "9223372036854775807", "-9223372036854775808", "1e-320"),
    *("9" * 30, "[]", "[[]]", "{}", '""', '" "', r'"\u0000"', "1979-05-27T07:32:00Z", "0001-01-01"),
    *("07:32:00", r'"\u001b[2J"', "[1, 'a', {}]", "{ a = { b = { c = 1 } } }", "[{}, {}]"),
    *("[" * 50 + "]" * 50, '"1e400"', "{ time = ['2024-01-01'], value = [1] }", '"9999-12-31"'),
    *('{ "" = 1 }', '"' + "x" * 3_000 + '"', '"nan"', '["a", "b"]', "-0.0", '"é🙂"', "'''x\ny'''"),
)
BROKEN = ("tru", "= 3", "1_", r'"\ud800"', "9" * 4_400, "0x" + "f" * 40, "2024-13-45", "[1", '"x')
"""What is no TOML."""

POLICY_KEYS = {
    "VolTarget": ("target", "half_life", "power", "estimator"),
    "Constant": ("leverage",),
    "Capped": ("cap",),
    "Cppi": ("multiplier", "floor"),
    "Average": (),
    "TrendVol": ("target",),
    "mine.py:Mine": ("size",),
}
ODD_NAMES = (
    *("voltarget", "self", "_0", "print", "__import__", "mine.py:Other", "no.py:Mine", "inf"),
    *("float", "None", "Voltarget", "strategies.VolTarget"),
)
ODD_KEYS = ("self", "cls", "x", "policy", "policies", "targt", "half_life", "__class__", "name")
ODD_VALUES = (
    *("1e999", "9" * 350, "None", "[1]", "inf", "-" * 40 + "1", "lambda: 1", "1+1", "1j", "b'x'"),
    *(
        "...",
        "f'{1}'",
        "True",
        "float('inf')",
        "float('nan')",
        "{}",
        r"'\x1b[2J'",
        "0x" + "f" * 300,
    ),
)
TAILS = (")" * 40, "(" * 300, "a" * 5_000, ".x", "()", "[0]", "#", ";x", ",", "\n")


LATER_FLAGS = {
    "--train": ("10d", "5d", "all", "0d"),
    "--test": ("5d", "3d", "1h"),
    "--gap": ("0d", "1d", "-1d"),
    "--groups": ("2", "3", "1"),
    "--test-groups": ("1", "2"),
    "--embargo": ("auto", "4", "1d"),
    "--baseline": ("never", "5d on 10d"),
    "--validate": ("walk-forward", "cross-validate"),
    "--trials": ("2", "4", "1"),
    "--model": ("gbm", "filtered", "block", "merton", "garch", "regimes", "normal"),
    "--paths": ("20", "4", "1"),
    "--horizon": ("5h", "1d", "30d"),
    "--horizons": ("1h,5h", "5h", "90d", ",", "5h,"),
    "--bridge": ("1", "4", "3"),
    "--method": ("auto", "plain", "tilt", "split"),
    "--find-leverage": ("0.05", "0.5"),
    "--scenario": ("2020-03-12", "2020-03-12,2021-05-19", "2020"),
    "--rules": ("today", "then", "now"),
    "--shock": ("price=-0.3", "price=-0.1,over=2h", "price", "over=1h", "-0.1", "0.2", "price=-2"),
    "--ladder": ("price=-0.5:0.5:5", "depth=0.1,0.3,1", "price=1:0:3", "x=1:2:3"),
    "--depth": ("4", "12", "64"),
    "--refine": ("small.csv", "long.csv", "."),
    "--factors": ("fees", "rates,funding", "fee", ","),
    "--open-interest": ("1e6", "3e9"),
    "--impact": ("sqrt:1", "sqrt:1:0.03", "linear:0.1", "linear", "x:1", "sqrt:nan"),
    "--shares": ("0,0.05", "0.1", "0,2", "a"),
    "--volume": ("1e9", "1e6"),
    "--recovery": ("2h", "never", "0h"),
    "--starts": ("0", "2"),
    "--accounts": ("50", "1"),
    "--long-share": ("0.5", "1.5"),
    "--insurance": ("0", "1e6"),
    "--jump": ("0.1", "-0.5"),
    "--transfer": ("to-target", "losses-only", "none", "x"),
    "--rebalance": ("30d", "1d", "0.05"),
    "--every": ("30d", "1d"),
    "--of": ("wealth", "start", "end"),
    "--weights": ("a=0.5", "0.5", "small.csv"),
    "--allocate": ("equal", "risk", "inverse-volatility", "x"),
    "--overlay": ("vol-target", "constant", "x"),
    "--signal": ("1", "-1", "0.5", "2", "close > sma(20)", "x"),
    "--from-run": ("constant", "results", "."),
    "--book": ("book.toml", "nothing.toml", "small.csv"),
    "--map": ("BTCUSDT,ETHUSDT", "BTCUSDT", "X,Y,Z"),
    "--span": ("0.5", "2"),
    "--picture": ("map.svg", "map.png", "no/map.svg"),
}
"""Values of the flags of paths, risk, validations, crowds and books."""
BOOK = """balance = {balance}
venue = "{venue}"
requirement = {requirement}
collateral = {collateral}
[positions.BTCUSDT]
quantity = {quantity}
price = {price}
entry = 58000
[positions.ETHUSDT]
quantity = -2
price = 3000
"""


def write_book(rng: random.Random) -> str:
    """Return the file of a book, with odd entries."""
    return BOOK.format(
        balance=draw_entry(rng, "capital"),
        venue=rng.choice(("binance-usdm", "binance-usdm:BTCUSDT", "x:y", "")),
        requirement=rng.choice(("'sum'", "{}", "1", "{ kind = 'x' }", draw_entry(rng, "preset"))),
        collateral=rng.choice(("[]", "{}", "[{ asset = 'BTC', quantity = 1 }]", "[1]")),
        quantity=draw_entry(rng, "quantity"),
        price=draw_entry(rng, "price"),
    )


def draw_entry(rng: random.Random, key: str) -> str:
    """Return a value for a key of an experiment file: one that fits, nearly so, or not at all."""
    kind = rng.random()
    if kind < 0.65:
        return rng.choice(FITS.get(key, GOOD))
    if kind < 0.78:
        return rng.choice((*GOOD, *rng.choice(list(FITS.values()))))
    return rng.choice(BAD) if kind < 0.985 else rng.choice(BROKEN)


def write_policy(rng: random.Random, depth: int) -> str:
    """Return a policy as Python would write it, or nearly so."""
    name = rng.choice(list(POLICY_KEYS) if rng.random() < 0.85 else ODD_NAMES)
    parts = []
    if name in ("Capped", "Average") and depth:
        parts += [write_policy(rng, depth - 1) for _ in range(rng.randint(1, 2))]
    for key in POLICY_KEYS.get(name, ()):
        if rng.random() < 0.5:
            parts.append(f"{key}={write_number(rng)}")
    if rng.random() < 0.1:
        parts.append(f"{rng.choice(ODD_KEYS)}={rng.choice(ODD_VALUES)}")
    if rng.random() < 0.05:
        parts.append(rng.choice(("**{}", "*[]", "x for x in y", "target:=1", "", "1 2")))
    return f"{name}({', '.join(parts)})"


def write_number(rng: random.Random) -> str:
    """Return a number as Python would write it, or something else."""
    good = ("0.2", "0.5", "1", "2", "10", "'ewma'", "'0.3'", "-1", "0")
    return rng.choice(good if rng.random() < 0.75 else ODD_VALUES)
