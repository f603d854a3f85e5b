# Two commands do everything: `make demo` and `make test`. Both need only Python and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.demo-ready
# With locked versions of everything, unless you ask for the newest: make test LOCK=
LOCK ?= requirements.lock
CONSTRAINTS := $(if $(LOCK),--constraint $(LOCK))

.PHONY: demo test check tests notebooks bench stress lock clean

demo: $(DEMO_READY)
	$(BIN)/python examples/demo.py

test: check tests notebooks

# Everything that reads the code without running it.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tests: $(READY)
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

notebooks: $(READY)
	$(BIN)/python notebooks/run.py

# Long measurements; results are printed and written to benchmarks/results/.
bench: $(READY)
	$(BIN)/python -m benchmarks

# Long checks that `make test` does in a shorter form: many kills, much data.
stress: $(READY)
	$(BIN)/python -m tests.stress
	$(BIN)/python -m tests.stress pipeline
	$(BIN)/python -m tests.stress cache
	EASYDATA_MACHINE_EXAMPLES=2000 $(BIN)/python -m pytest tests/cache/test_cache_disk_machine.py

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable

$(READY): pyproject.toml $(LOCK)
	@echo "Installing into $(VENV): about 2 GB, some minutes."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[test]'
	touch $@ $(DEMO_READY)

# Much less than the tests need.
$(DEMO_READY): pyproject.toml $(LOCK)
	@echo "Installing into $(VENV): about 1 GB, a minute or two."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[demo]'
	touch $@

# Resolve the newest versions again and write them down.
lock:
	rm -rf $(VENV)
	$(MAKE) $(READY) LOCK=
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock

clean:
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .demo
