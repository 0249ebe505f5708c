# Two commands: `make demo` shows socksy at work, `make test` runs everything that CI runs.
# Both make their own virtual environments below .venv/.

PYTHON ?= python3

.PHONY: demo test unit integration lint clean

demo:
	@.ci/venv $(PYTHON) .venv/demo -e .
	@.venv/demo/bin/socksy demo

test:
	@.ci/test all

# The pieces of `make test`, for when you work on one of them.
lint unit integration package:
	@.ci/test $@

clean:
	rm -rf .venv build dist *.egg-info .coverage*
