"""Compiling the bar loop: what is compiled, when plain Python is sooner, and in the background."""
