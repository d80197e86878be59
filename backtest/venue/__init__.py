"""A venue's rules: contract, brackets, fees, margin, liquidation price, and funding formula.

The dated tables of real venues lie in ``presets/``.
"""
