# Needs Python 3.11 or newer with venv and pip, and make; nothing else. `make` alone lists the targets.
#
#   make serve ARGS="--port 8080"        further words for `acclimate serve`
#   make test ARGS="tests/test_layers.py -x"
#   make serve TORCH_INDEX=<url>         takes torch's CPU build from another package index, on machines
#                                        where plain pip would fetch the CUDA build
#   make PYTHON=/path/to/python3.11 …    another interpreter

PYTHON ?= $(shell for p in python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
TORCH_INDEX ?=
ARGS ?=
ACCLIMATE_DATA_DIR ?= var
N ?= 20
JOBS ?= auto
MINUTES ?= 30
EXAMPLES ?= 15
IMAGE ?= acclimate
CONTAINER ?= $(shell command -v docker || command -v podman)

.DEFAULT_GOAL := help
.PHONY: help serve test check demo docs reference pictures models benchmark tabular sinusoid omniglot switching detection recurring virtual-drift metatrain-speed engine-rate http-rate upload-rate workers many-streams latency overload audit fairness hostile soak crash model-test damage openapi loadtest bench image image-test clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r t d; do printf '%-15s %s\n' "$$t" "$$d"; done

# The stamps make a second run start at once; a change of either file installs anew.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "acclimate needs Python 3.11 or newer: neither python3.11 nor python3 is; install it or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "could not create $(VENV): $(PYTHON) lacks venv or ensurepip (Debian: the package python3-venv)" >&2; exit 1; }
	@echo "installing acclimate and what it needs into $(VENV) (torch is large: this takes minutes)"
	@test -z "$(TORCH_INDEX)" || $(PIP) --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -c constraints.txt -e '.[train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the development tools into $(VENV)"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

serve: $(VENV)/.installed ## start the server with the shipped models on 127.0.0.1:8000, data in ./var
	@ACCLIMATE_DATA_DIR="$(ACCLIMATE_DATA_DIR)" exec $(VENV)/bin/acclimate serve $(ARGS)

test: $(VENV)/.installed-dev ## run the tests, JOBS at a time
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/.installed-dev ## lint, format, types, direction of imports
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy --strict
	@$(PY) -m pytest tests/test_layers.py

demo: $(VENV)/.installed ## adaptation to drift, end to end, in a minute
	@$(PY) -m service.demo $(ARGS)

reference: $(VENV)/.installed ## write the pages of docs/reference anew, from the code
	@$(PY) -m docs.generate $(ARGS)

docs: $(VENV)/.installed ## build the site of the documentation into build/site
	@$(PIP) -c constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet $(ARGS)
	@echo "build/site/index.html"

pictures: $(VENV)/.installed ## draw the pictures of docs/concepts.md anew
	@for each in docs/pictures/[a-z]*.py; do $(PY) -m docs.pictures.$$(basename $$each .py) || exit 1; done

# DATA is a folder with all twelve stations (beijing_pm25.csv.gz); only the five of the demo ship with the project.
models: $(VENV)/.installed ## train the shipped models anew; DATA=folder with beijing_pm25.csv.gz
	@test -n "$(DATA)" || { echo "make models needs DATA=DIR, a folder with beijing_pm25.csv.gz" >&2; exit 2; }
	@$(VENV)/bin/acclimate train --tasks sinusoid --budget 30 --out models/shipped/sinusoid.safetensors
	@$(VENV)/bin/acclimate train --data $(DATA)/beijing_pm25.csv.gz --target label --stream-column stream --time-column t \
		--streams data/training_stations.txt --budget 30 --out models/shipped/beijing-pm25.safetensors

benchmark: $(VENV)/.installed ## train with defaults and evaluate on real streams; DATA=folder with the files
	@$(PY) -m loadtest.realdata --data "$(DATA)" $(ARGS)

tabular: $(VENV)/.installed ## the network for tables against boosting, offline; DATA=folder as for benchmark
	@test -n "$(DATA)" || { echo "make tabular needs DATA=DIR, the folder of make benchmark" >&2; exit 2; }
	@$(PY) -m loadtest.tabular --data "$(DATA)" $(ARGS)

sinusoid: $(VENV)/.installed ## the sinusoid benchmark
	@$(PY) -m loadtest.sinusoid $(ARGS)

omniglot: $(VENV)/.installed ## few-shot characters; DATA=folder with Omniglot's two small background sets
	@test -n "$(DATA)" || { echo "make omniglot needs DATA=DIR, a folder with images_background_small1.zip and …small2.zip" >&2; exit 2; }
	@$(PY) -m loadtest.omniglot --data "$(DATA)" $(ARGS)

switching: $(VENV)/.installed ## streams that switch: how far behind an oracle
	@$(PY) -m loadtest.switching $(ARGS)

recurring: $(VENV)/.installed ## regimes that return: rows to recover, remembered or fresh
	@$(PY) -m loadtest.recurring $(ARGS)

detection: $(VENV)/.installed ## detectors: delay, missed changes, false alarms
	@$(PY) -m loadtest.detection $(ARGS)

virtual-drift: $(VENV)/.installed ## inputs that move without labels: delay, false warnings
	@$(PY) -m loadtest.virtual_drift $(ARGS)

metatrain-speed: $(VENV)/.installed ## meta-training, batched over tasks, against per-task loops
	@$(PY) -m loadtest.metatrain_speed $(ARGS)

engine-rate: $(VENV)/.installed ## adapting and learning without HTTP, against matrix products and autograd
	@$(PY) -m loadtest.engine_rate $(ARGS)

http-rate: $(VENV)/.installed ## requests per second against a bare FastAPI route, side by side
	@$(PY) -m loadtest.http_rate $(ARGS)

upload-rate: $(VENV)/.installed-dev ## uploads against River's models in process; DATA=folder with elec2.csv.gz
	@test -n "$(DATA)" || { echo "make upload-rate needs DATA=DIR, a folder with elec2.csv.gz" >&2; exit 2; }
	@$(PY) -m loadtest.upload_rate --data "$(DATA)" $(ARGS)

workers: $(VENV)/.installed ## rows per CPU-second with one worker process and with several
	@$(PY) -m loadtest.workers $(ARGS)

many-streams: $(VENV)/.installed ## a million streams, a hundred thousand in memory; some 10 GB of disk and memory
	@$(PY) -m loadtest.many_streams $(ARGS)

latency: $(VENV)/.installed ## predictions at half the rate that is kept, beside a bare route, open loop
	@$(PY) -m loadtest.latency $(ARGS)

overload: $(VENV)/.installed ## three times the feedback that can be taken: what is learned, refused, and how health answers
	@$(PY) -m loadtest.overload $(ARGS)

fairness: $(VENV)/.installed ## what one tenant waits while another sends all that its key allows, and more
	@$(PY) -m loadtest.fairness $(ARGS)

hostile: $(VENV)/.installed ## slow, endless, flooding and idle clients beside one that predicts
	@$(PY) -m loadtest.hostile $(ARGS)

soak: $(VENV)/.installed ## mixed traffic for MINUTES=30: memory, descriptors and threads have to stay flat
	@$(PY) -m loadtest.soak --minutes $(MINUTES) $(ARGS)

crash: $(VENV)/.installed ## kill -9 under load, restart, compare; N=20 cycles
	@$(PY) -m loadtest.crash --cycles $(N) $(ARGS)

model-test: $(VENV)/.installed-dev ## requests, faults and crashes in any order against a reference; N=20 schedules a store
	@SCHEDULES=$(N) $(PY) -m pytest tests/service/test_state_machine.py $(ARGS)

damage: $(VENV)/.installed-dev ## damage each block of a store, fail each write: nothing wrong is served, nothing is lost
	@BLOCKS_EVERY=1 $(PY) -m pytest tests/service/test_damage.py tests/service/test_power.py $(ARGS)

openapi: $(VENV)/.installed-dev ## requests made out of the description, alone and in walks; EXAMPLES=15 of each
	@EXAMPLES=$(EXAMPLES) $(PY) -m pytest tests/e2e/test_openapi.py $(ARGS)

loadtest: $(VENV)/.installed ## open-loop load on a server of its own: latency percentiles, achieved rate
	@$(PY) -m loadtest $(ARGS)

bench: $(VENV)/.installed ## all load scenarios in turns, a report, a picture, and what moved since the last run
	@$(PY) -m loadtest.bench $(ARGS)

audit: $(VENV)/.installed-dev ## known vulnerabilities of what is pinned, and licences; asks the package index
	@test -x build/audit/bin/pip-audit || { "$(PYTHON)" -m venv build/audit && build/audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit pip-licenses; }
	@build/audit/bin/pip-licenses --python=$(PY) --format=markdown
	@build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --vulnerability-service pypi

image: ## build the container image with docker or podman
	@test -n "$(CONTAINER)" || { echo "make image needs docker or podman (on Debian without either, as root: make image-test)" >&2; exit 1; }
	$(CONTAINER) build $(if $(TORCH_INDEX),--build-arg TORCH_INDEX="$(TORCH_INDEX)") -t $(IMAGE) $(ARGS) .

# RUNNER=chroot has no run line that could carry a variable, so there it goes into the test image. Never together with
# BUILD_ARGS=--layers: buildah would keep the variable in cached layers, and later images would be open too.
image-test: ## build the image without an engine or a hub, run it, ask its health (Debian, root)
	@RUN_ARGS="-e ACCLIMATE_ALLOW_ANONYMOUS=1 $(RUN_ARGS)" \
		BUILD_ARGS="$(if $(filter chroot,$(RUNNER)),--env ACCLIMATE_ALLOW_ANONYMOUS=1 )$(BUILD_ARGS)" \
		deploy/build_image.sh . localhost/acclimate:test

clean: ## remove the environment, caches and builds; never the data in ./var
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
