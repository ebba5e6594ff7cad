# Everything on a machine that has make and Python (3.9 to 3.13), nothing else:
#
#   make demo     photographs, a short training, evaluation, a picture of results
#   make test     the tests
#   make bench    times attention, training and inference; PEER=FOLDER adds the PyTorch port; idle machine
#   make test-faults   all fault tests (half an hour); writes the table docs/faults.md
#   make check-gpu   compares this machine's GPU with its CPU, and says which batch size fits
#   make web      the page for completing pictures by hand; needs Python 3.10 or newer
#   make test-web      its tests in a Chromium without a window, which root on Debian gets installed
#   make lint     the style check
#   make setup    only the set-up, which the others do by themselves
#   make clean    removes the environment, the demonstration's photographs and caches; keeps checkpoints/
#
# Choices, e.g. `make demo SET=cpu`:
#
#   SET=gpu|cpu         requirements.txt or requirements-cpu.txt; gpu where nvidia-smi works
#   PYTHON=python3.11   the Python to build the environment with; the first suitable one
#   PADDLE=2.6.2        another Paddle version for the CPU set
#   VENV=.venv          the folder of the environment
#   TESTS="-x tests/models"   what pytest gets from make test, e.g. which tests; TEST_ORDER=1 shuffles them
#   PEER=FOLDER         a checkout of the PyTorch port for make bench
#   PEER_PYTHON=python3 a Python with torch and PyYAML that runs it

SET = $(DETECTED)
PYTHON =
PADDLE =
VENV = .venv
TESTS =
PEER =
PEER_PYTHON = python3

DETECTED := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)

# Paddle 2 was built against NumPy 1, so its CPU builds take the bounds of the GPU set.
# The last Python 3 with wheels: 3.12 for Paddle 2.6, 3.13 for Paddle 3.3. Paddle 2.6 imports setuptools
# without asking for it, which Python 3.12 no longer brings.
ifeq ($(SET),gpu)
  ifneq ($(PADDLE),)
    $(error PADDLE=$(PADDLE) chooses a version of the CPU set: add SET=cpu)
  endif
  REQUIREMENTS := requirements.txt
  NEWEST := 12
else ifeq ($(SET),cpu)
  REQUIREMENTS := $(if $(filter 2.%,$(PADDLE)),requirements.txt,requirements-cpu.txt)
  NEWEST := $(if $(filter 2.%,$(PADDLE)),12,13)
  AS_CHOSEN := -e 's/^paddlepaddle-gpu==/paddlepaddle==/' $(if $(PADDLE),-e 's/^paddlepaddle==.*/paddlepaddle==$(PADDLE)/')
else
  $(error SET=$(SET) must be SET=cpu or SET=gpu)
endif

CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.12 python3.11 python3.13 python3.10 python3.9 python)
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, $(NEWEST)))
MORE := $(if $(filter 12,$(NEWEST)),setuptools)
READY := $(VENV)/ready-$(SET)$(if $(PADDLE),-$(PADDLE))
RUN := $(VENV)/bin/python
WEB := $(READY)-web

.PHONY: demo test bench test-faults check-gpu web test-web lint setup clean

# test.py ends by saying where the picture of results is. A second time, training goes on where it stopped.
demo: setup
	$(RUN) tools/make_demo_data.py
	$(RUN) train.py --config configs/demo.yaml $(if $(wildcard checkpoints/demo/hole_small/checkpoint_*.npz),--resume)
	$(RUN) test.py --config configs/demo.yaml --baselines

test: setup
	$(RUN) -m pytest $(TESTS)

bench: setup
	$(RUN) tools/benchmark.py $(if $(PEER),--peer "$(PEER)" --peer-python "$(PEER_PYTHON)")

test-faults: setup
	FAULTS_TABLE=docs/faults.md $(RUN) -m pytest tests/faults -m ""

check-gpu: setup
	$(RUN) tools/check_device.py --device gpu

web: $(WEB)
	$(RUN) tools/web_demo.py

# Without Chromium the tests are skipped and say so.
test-web: $(WEB)
	@if ! { command -v chromium && command -v chromedriver; } >/dev/null && [ "$$(id -u)" = 0 ] \
	  && command -v apt-get >/dev/null; then \
	  apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	    chromium chromium-driver >/dev/null || true; \
	fi
	$(RUN) -m pytest tests/web -m web

$(WEB): $(READY) requirements-web.txt
	$(RUN) -m pip install --disable-pip-version-check -r $(VENV)/requirements.txt -r requirements-base.txt \
	  -r requirements-web.txt 'selenium>=4.10,<5'
	@touch $@

lint: setup
	$(RUN) -m ruff check .

setup: $(READY)

# A changed set or list of requirements builds the environment anew: the CPU and the GPU build of Paddle
# must not meet in one.
$(READY): $(REQUIREMENTS) requirements-base.txt requirements-test.txt
	@if [ -e "$(VENV)" ] && [ ! -e "$(VENV)/pyvenv.cfg" ]; then \
	  echo "error: VENV=$(VENV) exists and is no virtual environment: name another folder" >&2; exit 2; \
	fi
	@for python in $(CANDIDATES); do \
	  if "$$python" -c '$(SUITABLE)' 2>/dev/null; then \
	    echo "Setting up $(VENV): the $(SET) set with $$("$$python" --version), 1 to 5 minutes"; \
	    rm -rf "$(VENV)"; \
	    exec "$$python" -m venv "$(VENV)"; \
	  fi; \
	done; \
	echo "error: none of these is Python 3.9 to 3.$(NEWEST) with the venv module: $(CANDIDATES)." \
	  "Install one (Debian: python3-venv), or name it: make PYTHON=/path/to/python" >&2; exit 2
	sed $(AS_CHOSEN) -e '/^#/d' -e '/^-r/d' $(REQUIREMENTS) > $(VENV)/requirements.txt
	$(RUN) -m pip install --disable-pip-version-check -r $(VENV)/requirements.txt -r requirements-base.txt \
	  -r requirements-test.txt $(MORE)
	@touch $@

clean:
	rm -rf data_demo .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	@if [ -e "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
