.PHONY: help setup demo test test-slow soak fuzz bench docs man wheel deb rpm lock lint clean

help:
	@echo "make setup      install what is missing (Debian 12, root or sudo), for all that follows"
	@echo "make demo       try it: a small guest, and a link to its serial console"
	@echo "make test       the tests but the slow ones; ARGS='-k name' is passed on to pytest"
	@echo "make test-slow  all tests"
	@echo "make soak       random clients and faults for 30 minutes; MINUTES=5, ARGS='--seed N'"
	@echo "make fuzz       hostile input for a minute a target; SECONDS=600, TARGETS='config names'"
	@echo "make bench      measures everything, nine minutes; ARGS='rtt flood' for some; docs/performance.md"
	@echo "make docs       the documents as a site, in build/site; make man: the man pages, in build/man"
	@echo "make wheel      build/dist/*.whl, with the page, for pip"
	@echo "make deb        build/dist/*.deb, for this Debian; make rpm: the same for rpm"
	@echo "make lint       mypy, ruff and codespell, which 'make test' runs as well"
	@echo "make clean      remove what was built in this directory"

setup:
	@tools/setup test

demo:
	@tools/setup demo
	@exec .venv/bin/serial-console demo

# Most tests wait most of the time, so that four at a time do not compete on two cores.
test: setup
	.venv/bin/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-slow:
	@tools/setup slow
	.venv/bin/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

MINUTES ?= 30
soak: setup
	.venv/bin/python -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

# Guided by coverage, then the services themselves with more inputs than "make test" gives them.
SECONDS ?= 60
fuzz: setup
	.venv/bin/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)
	FUZZ_EXAMPLES=$$(($(SECONDS) * 20)) .venv/bin/python -m pytest --timeout 0 \
	  tests/integration/test_hostile_doors.py tests/integration/test_hostile_http.py
	FUZZ_EXAMPLES=$(SECONDS) .venv/bin/python -m pytest --timeout 0 \
	  tests/integration/test_rest_schema.py

bench:
	@tools/setup bench
	.venv/bin/python -m tests.bench $(ARGS)

SPHINX = flock build/docs.lock .venv/bin/sphinx-build --quiet --fail-on-warning --keep-going -d build/doctrees
docs:
	@tools/setup docs
	$(SPHINX) -b html docs build/site

man:
	@tools/setup docs
	rm -rf build/man
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(SPHINX) -b man docs build/man

wheel:
	@tools/setup demo
	@packaging/build wheel

deb: wheel man
	@tools/setup package
	@packaging/build deb

rpm: wheel man
	@tools/setup package
	@packaging/build rpm

lock:
	packaging/lock

lint: setup
	.venv/bin/mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/codespell

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf serial_console/web/node_modules serial_console/web/vendor
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
