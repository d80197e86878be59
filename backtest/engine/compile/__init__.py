"""Compile the bar loop: the compiler, the choice of plain Python, and the background process."""
