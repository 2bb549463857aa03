# What every clone can do. Only python3 (3.11 or newer) and make are assumed; a C++20 compiler makes it fast.
#
#   make demo      two organisations, real data, one metered computation
#   make test      the tests, on the native kernels where a compiler works
#   make check     ruff, mypy --strict, import contracts
#   make bench     every layer beside its peers: JSON and plots in benchmarks/results/
#   make docs      the site, strict, in site/
#   make sanitize  the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   make fuzz      every function of the extension on arguments at random, under both
#   make clean     removes everything that was built; keeps benchmarks/results/
#
# Stamps of finished steps lie in .make/, so a second run has nothing to do.

SHELL := /bin/sh
PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?= --peers all
FUZZ_ARGS ?= --seconds 60

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
LIBRARY := src/trustcompute/kernels
NATIVE := $(wildcard src/native src/native/* src/native/*/*)
COMPILER = $$(cat .make/compiler)

# $(call quietly,command,log): its output goes to the log, and is shown when it fails.
quietly = $(1) >$(2) 2>&1 || { tail -n 40 $(2) >&2; echo "Failed; the whole output is in $(2)" >&2; exit 1; }

# Stamps without the environment they speak of would lie.
ifeq ($(wildcard .venv/bin/python),)
$(shell rm -rf .make)
endif

.PHONY: demo test check bench docs notebooks sanitize fuzz clean FORCE
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: .make/demo
	@.venv/bin/trustcompute demo

test: .make/dev
	@if [ "$(COMPILER)" = none ]; then \
	    kernels=reference; \
	    echo "No working C++20 compiler: the tests run on the reference kernels, which is slower."; \
	elif ls $(LIBRARY)/_native*.so >/dev/null 2>&1; then \
	    kernels=native; \
	else \
	    echo "The compiler works and the extension does not build:" >&2; \
	    grep -E 'error:|undefined reference' .make/build.log | head -n 30 >&2; \
	    echo "The whole output is in .make/build.log" >&2; exit 1; \
	fi; \
	TRUSTCOMPUTE_KERNELS=$${TRUSTCOMPUTE_KERNELS:-$$kernels} $(PY) -m pytest -n auto --maxprocesses 4 $(PYTEST_ARGS)

check: .make/dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: .make/dev
	@mkdir -p benchmarks/results
	@status=0; \
	for layer in kernels psi broker dp verification aggregation; do \
	    $(PY) -m benchmarks $$layer $(BENCH_ARGS) --json benchmarks/results/$$layer.json || status=1; \
	    $(PY) -m benchmarks.plot benchmarks/results/$$layer.json || status=1; \
	done; exit $$status

docs: .make/docs
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "The site is in site/index.html"

notebooks: .make/dev
	@$(PY) notebooks/build.py

# The sanitizers need a build of their own, outside the source tree, and their runtimes loaded first.
sanitize: .make/dev
	@if [ "$(COMPILER)" = none ]; then echo "make sanitize needs a C++20 compiler" >&2; exit 1; fi
	@rm -rf .make/sanitize
	@CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
	    CXXFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
	    LDFLAGS="-fsanitize=address,undefined" \
	    $(call quietly,$(PIP) install --verbose --no-deps --target .make/sanitize .,.make/sanitize.log)
	@ls .make/sanitize/trustcompute/kernels/_native*.so >/dev/null
	@cxx=$$(sed 's/ .*//' .make/compiler); \
	LD_PRELOAD="$$($$cxx -print-file-name=libasan.so) $$($$cxx -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    PYTHONPATH=.make/sanitize TRUSTCOMPUTE_KERNELS=native \
	    $(PY) -m pytest -p no:cacheprovider tests/kernels $(PYTEST_ARGS)

fuzz: .make/dev
	@if [ "$(COMPILER)" = none ]; then echo "make fuzz needs a C++20 compiler" >&2; exit 1; fi
	@PYTHON=$(PY) CXX=$$(sed 's/ .*//' .make/compiler) sh tests/kernels/fuzz.sh $(FUZZ_ARGS)

clean:
	rm -rf .venv .make build dist site src/*.egg-info benchmarks/.peers
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f $(LIBRARY)/_native*.so
	find src tests benchmarks notebooks docs -name __pycache__ -type d -prune -exec rm -rf {} +

.make/venv:
	@mkdir -p .make
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on the PATH; pass PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; found = ".".join(map(str, sys.version_info[:3])); sys.exit(0 if sys.version_info >= (3, 11) \
	    else f"trustcompute needs Python 3.11 or newer, $(PYTHON) is {found}; pass PYTHON=/path/to/a/newer/python3")'
	@echo "Setting up .venv"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) cannot make virtual environments; its venv package may be \
	missing (on Debian and Ubuntu: python3-venv)" >&2; exit 1; }
	@$(call quietly,$(PIP) install --upgrade 'pip>=25.1',.make/install.log)
	@touch $@

# Which compiler will build the extension. Written only when the answer changes, so that installing a compiler,
# or naming another one in CXX, rebuilds the extension and nothing else does.
.make/compiler: FORCE | .make/venv
	@$(PY) .ci/compiler.py > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# The library, in place. An extension built from other sources must not outlive them, not even a failed build.
.make/package: pyproject.toml .make/compiler $(NATIVE) | .make/venv
	@rm -f $(LIBRARY)/_native*.so
	@echo "Installing trustcompute (C++ compiler: $(COMPILER))"
	@$(call quietly,$(PIP) install --verbose --editable .,.make/build.log)
	@touch $@

# The extras are looked up in the installed library's own metadata, so these do not build it again.
.make/demo: pyproject.toml | .make/package
	@echo "Installing what the demo needs"
	@$(call quietly,$(PIP) install 'trustcompute[demo]',.make/install.log)
	@touch $@

.make/dev: pyproject.toml | .make/package
	@echo "Installing the extras and the development tools"
	@$(call quietly,$(PIP) install 'trustcompute[all]' --group test --group check,.make/install.log)
	@touch $@ .make/demo

.make/docs: pyproject.toml | .make/package
	@echo "Installing the documentation tools"
	@$(call quietly,$(PIP) install 'trustcompute[cli]' --group docs,.make/install.log)
	@touch $@

FORCE:
