"""One account through one market: inputs, the bar loop, ``run``, and its ``Result``.

``lookahead/`` checks that policies do not read the future; ``compile/`` compiles the loop.
"""
