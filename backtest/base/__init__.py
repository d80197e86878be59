"""Tools that do not depend on markets: errors, units, declared values, files, compiled code.

Every other wing may import this one. It imports none of them.
"""
