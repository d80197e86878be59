"""Compile the bar loop: the compiler, and the choice between it and plain Python."""
