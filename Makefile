# make run: run the default experiment on the sample, and write its page.
# make test: check format, lint and types, and run the tests except those marked slow; they use the core compiled
#   into backtest/_built, once for each state of its sources. Rooms that need no core are tested while it compiles.
# make test-all: the same with the slow tests, which compile what they run.
# make docs: draw the pictures, make the reference, build the site of docs/ into build/docs, and check its links; needs
#   no network once .venv is there. Without Chromium, the picture of the README stays as it is.
# make wheel: build the wheel of this platform with its compiled core, and try it in an empty environment.
# All create .venv first, with the versions of constraints.txt. For another interpreter: make PYTHON=...

PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Modules are compiled when they are first imported, and kept: most of those installed never are.
export PYTHONDONTWRITEBYTECODE :=
bin := .venv/bin
cases := not slow
coreless := tests/market tests/measures
compile := $(bin)/backtest compile

.PHONY: run test test-all checks coreless core docs wheel clean

page := build/run.html
open := $(if $(filter Darwin,$(shell uname)),open,xdg-open)

run: .venv/installed
	@mkdir -p $(dir $(page))
	$(bin)/backtest run --report $(page)
	@printf '\nThe page of this run, with charts to zoom and click:\n  %s %s\n' '$(open)' '$(page)'

test: .venv/installed-dev
	+$(MAKE) -j 2 core checks $(if $(coreless),coreless) cases='$(cases)' coreless='$(coreless)'
	$(bin)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations 15 --durations-min 1 -m "$(cases)" $(coreless:%=--ignore=%)

checks:
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy

coreless:
	$(bin)/pytest -m "$(cases)" $(coreless)

core:
	$(compile)

test-all: cases := slow or not slow
test-all: coreless := $(addprefix tests/,market/test_fetch.py market/test_quality.py measures/test_luck.py tune/test_samplers.py)
test-all: test

# a warning is an error; blocks whose text and package did not change are not run again
docs: .venv/installed-docs
	@echo "drawing the pictures, then running the blocks of pages, a line for each page"
	BACKTEST_COMPILE=auto $(bin)/python -m docs.ext.pictures
	$(bin)/python -m sphinx -W --keep-going -q -j auto docs build/docs
	$(bin)/python -m docs.ext.thumbnails
	$(bin)/python -m docs.ext.links build/docs
	@printf '\nCPU seconds of the dearest pages, and of their blocks:\n'
	@$(bin)/python -m docs.ext.block_cache

wheel: .venv/installed
	.ci/wheel

clean:
	rm -rf .venv build backtest/_built *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/pip: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, got " + sys.version.split()[0] + "; use make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(bin)/python -m pip install -q --no-compile -c constraints.txt pip setuptools
	@touch $@

.venv/installed: .venv/pip pyproject.toml
	@echo "installing the package and its dependencies into .venv, in the versions of constraints.txt: once, a few minutes at most, mostly downloads"
	PYTHONWARNINGS=ignore $(bin)/python -m pip install -q --no-compile -c constraints.txt --no-build-isolation -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(bin)/python -m pip install -q --no-compile -c constraints.txt --group dev
	@touch $@

.venv/installed-docs: .venv/installed-dev
	$(bin)/python -m pip install -q --no-compile -c constraints.txt --no-build-isolation -e .[docs]
	@touch $@
