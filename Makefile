# Two commands: `make demo` shows socksy at work, `make test` runs everything that CI runs.
# Both make their own virtual environments below .venv/.

PYTHON ?= python3

.PHONY: demo test unit integration lint package bench clean

demo:
	@.ci/venv $(PYTHON) .venv/demo -e .
	@.venv/demo/bin/socksy demo

# On each Python that is found, unless PYTHON= names one.
ONLY = $(if $(filter file default,$(origin PYTHON)),,PYTHON="$(PYTHON)")

test:
	@$(ONLY) .ci/test all

# The pieces of `make test`, for when you work on one of them.
lint unit integration package:
	@$(ONLY) .ci/test $@

# Speed, as ratios: against a plain socket, a client written by hand, PySocks and python-socks.
# `make bench BENCH=--full` takes minutes; see docs/performance.md.
bench:
	@.ci/venv $(PYTHON) .venv/bench -e . -r benchmarks/requirements.txt
	@.venv/bench/bin/python -m benchmarks --json .venv/bench.json $(BENCH)

clean:
	rm -rf .venv build dist *.egg-info .coverage*
