# Every target does its own set-up; what is set up already is reused. `make demo` and `make test` are the two to know.
# The distribution's Python first: it is optimised by profile, which one that was built by hand seldom is (a fifth of the
# time of what Python does).
PYTHON ?= $(shell for p in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup packages demo test check fmt cov bench bench-micro experiments experiments-setup paper-table targets campaign test-kills faults load histories crash-states fuzz upkeep test-large rebuild-million clean

setup: packages $(INSTALLED)

packages:
	@.ci/packages

# The build tool comes from the same constraints, so nothing is resolved outside them.
$(INSTALLED): pyproject.toml constraints.txt transfer/encodings/gradient_pack.c | packages
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (make PYTHON=/path/to/python3)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[gateway,dev,xen,experiments]'
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt libvirt-python || \
		echo "libvirt-python cannot be compiled here (Debian: libvirt-dev, pkg-config, gcc); its tests are skipped" >&2
	@touch $@

demo: setup
	@$(BIN)/python -m examples.demo $(if $(DATA),--data '$(DATA)')

# FILES=2: two files at a time, since much of the time goes in waiting for disks, clocks and links (14 minutes, not 27); a
# file's tests stay together, since they share what it has set up. With other work beside it, what is timed may fail.
test: check
	$(BIN)/pytest $(if $(FILES),-n $(FILES) --dist loadfile) -m 'not campaign' $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cov: setup
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt coverage
	$(BIN)/coverage run --source agent,experiments,fascicle,gateway,nodes,transfer,xen -m pytest -m 'not campaign' $(ARGS)
	$(BIN)/coverage report --skip-covered

bench: setup
	@$(BIN)/python -m bench.data_path $(ARGS)

# The parts alone; ARGS="--against FILE" compares with a former run's JSON in bench/results.
bench-micro: setup
	@$(BIN)/python -m bench.micro $(ARGS)

# Quick, under 15 minutes: every link, twice, with fewer images than the paper's. ARGS go to `fascicle experiment run`.
experiments: experiments-setup
	@$(BIN)/fascicle experiment run lan tanet adsl wan --runs 2 --nodes 1,5 --objects 40,lan=120,adsl=2 \
		--peers fascicle,ftp,lftp,storescu-4,erlang,orthanc \
		--out experiments-results/$$(date -u +%Y%m%dT%H%M%SZ) $(ARGS)

# The paper's table: 30 runs with 1, 5 and 30 nodes, adsl with a tenth of the images. About 20 hours, 15 of them adsl.
paper-table: experiments-setup
	@$(BIN)/fascicle experiment run lan tanet adsl --runs 30 --nodes 1,5,30 --objects 360,adsl=36 \
		--out experiments-results/paper-$$(date -u +%Y%m%dT%H%M%SZ) $(ARGS)

# What is promised (docs/experiments.md has the table). For each link: raw with 1, 5 and 30 nodes against the floor, and
# everything automatic on real images (DATA=folder) against FTP; then small files, flows, TLS, cut links and urgent studies,
# each with what is wanted and whether it is met. RUNS=5 takes about two and a half hours; TARGETS="lan tls" does some.
RUNS ?= 5
TARGETS ?= lan tanet adsl wan wan-cubic small-tanet small-loop flows tls resume stat
targets:
	@$(MAKE) --no-print-directory -k $(addprefix target-,$(TARGETS))
.PHONY: target-small $(addprefix target-,$(TARGETS))
$(addprefix target-,$(TARGETS)): experiments-setup

RUN = $(BIN)/fascicle experiment run $(1) --runs $(RUNS) --out experiments-results/targets/$@-$$(date -u +%Y%m%dT%H%M%SZ)
MEMORY = --want '$(1) client <= 300 MB' --want '$(1) node <= 150 MB'
RAW = --peers fascicle-raw --nodes 1,5,30 --want 'fascicle-raw <= $(1) x floor' $(call MEMORY,fascicle-raw)
ALIKE = --want 'fascicle-raw <= 1.05 x n5'
NO_DATA = { echo 'not measured: real images against FTP (DATA=folder with some)' >&2; false; }
# The second of two is run whatever becomes of the first, which counts all the same.
unexport failed
FIRST = || failed=1;
LAST = && exit $$failed
REAL = --peers fascicle,ftp --nodes 5 --workload '$(DATA)' --want 'fascicle <= $(1) x ftp' $(call MEMORY,fascicle)
FLOWS = auto,1,2,4,8,16,32
FLOWS_LOSSY = auto,4,8,16,32,64# CUBIC at 1 % loss: fewer are given up after minutes
BEST = --want 'fascicle-raw <= 1.05 x best' --want 'fascicle-raw <= 1 x ftp'
target-lan:
	$(call RUN,lan)/raw --plain $(call RAW,1.04) $(ALIKE) --peers fascicle-raw,ftp --want 'fascicle-raw <= 1 x ftp' $(FIRST) \
	$(if $(DATA),$(call RUN,lan)/real --plain $(call REAL,0.60),$(NO_DATA)) $(LAST)
target-tanet:
	$(call RUN,tanet)/raw $(call RAW,1.05) $(ALIKE) $(FIRST) \
	$(if $(DATA),$(call RUN,tanet)/real $(call REAL,0.15),$(NO_DATA)) $(LAST)
target-adsl:
	$(call RUN,adsl)/raw --objects 12 $(call RAW,1.05) $(FIRST) \
	$(if $(DATA),$(call RUN,adsl)/real --objects 12 $(call REAL,0.24),$(NO_DATA)) $(LAST)
target-wan:
	$(call RUN,wan)/raw --objects 72 $(call RAW,1.8) $(FIRST) \
	$(if $(DATA),$(call RUN,wan)/real --objects 72 $(call REAL,0.05),$(NO_DATA)) $(LAST)
target-wan-cubic:
	$(call RUN,wan)/raw --congestion cubic --objects 72 $(call RAW,4) $(FIRST) \
	$(if $(DATA),$(call RUN,wan)/real --congestion cubic --objects 72 $(call REAL,0.10),$(NO_DATA)) $(LAST)

target-small: target-small-tanet target-small-loop
target-small-tanet:
	$(call RUN,tanet) --workload small --peers fascicle,ftp --nodes 5 --want 'fascicle <= 0.1 x ftp' \
		$(call MEMORY,fascicle)
target-small-loop:
	$(call RUN,loop) --workload small --objects 6000 --peers fascicle --nodes 5 --want 'fascicle >= 1500 objects/s' \
		$(call MEMORY,fascicle)
target-flows:
	$(call RUN,lan tanet adsl wan) --peers fascicle-raw,ftp --nodes 5 --objects adsl=12,wan=72 --flows $(FLOWS) $(BEST) $(FIRST) \
	$(call RUN,wan)-cubic --congestion cubic --peers fascicle-raw,ftp --nodes 5 --objects 72 --flows $(FLOWS_LOSSY) \
		$(BEST) $(LAST)
target-tls:
	$(call RUN,lan) --peers fascicle-raw,fascicle-raw-plain --nodes 5 --want 'fascicle-raw <= 1.15 x fascicle-raw-plain' \
		$(call MEMORY,fascicle-raw)
target-resume:
	$(BIN)/fascicle experiment resume
target-stat:
	$(BIN)/fascicle experiment stat $(FIRST) \
	$(if $(DATA),$(BIN)/fascicle experiment stat --workload '$(DATA)',true) $(LAST)

# A catalogue of a million objects made anew (wanted: within 30 minutes); it writes 8 GB of headers first.
rebuild-million: setup
	@$(BIN)/python -m bench.rebuild --objects 1000000 $(ARGS)

# kill -9 of `fascicle xen apply` at every call, with one node and with thirty; ROUNDS=3 times up and down.
.PHONY: xen-kills
xen-kills: setup
	$(BIN)/python -m tests.xen.kills $(or $(ROUNDS),3)

# 1 -> 5 -> 30 -> 5 real nodes at a XenAPI server while a transfer runs; then replicas must be on different hosts.
.PHONY: xen-cluster
xen-cluster: setup
	$(BIN)/python -m tests.xen.real $(ARGS)
	$(BIN)/python -m tests.xen.real --host-dies 6

experiments-setup: setup
	@.ci/packages experiments

# Everything that tries to break what was acknowledged, at length: hours; short forms are part of `make test`. Totals with
# seed, commit and machine: campaign-results/. Run again it goes on; ARGS="--only kills,cuts --scale 0.1" does less.
campaign: setup
	@$(BIN)/python -m tests.campaign $(ARGS)

# 20 random kills of every party at a time, seeds printed; the short form of it is part of `make test`.
test-kills: setup
	$(BIN)/pytest -m campaign -k kill --timeout 3600 $(ARGS)

# Hostile inputs of every kind, from one seed; what goes wrong is kept in tests/fuzz/corpus. 50 000 are part of `make test`.
# What is done is in faults-results/fuzz.json, and the same command goes on from there.
fuzz: setup
	$(BIN)/python -m tests.fuzz --count $(or $(COUNT),5000000) --seed $(SEED) --results faults-results/fuzz.json $(ARGS)

# Histories of store and spool on a simulated disk (docs/reliability.md); 5 000 of them are part of `make test`.
# `$(BIN)/python -m tests.faults.histories --seed N` replays one and prints its steps.
FIRST ?= 0
histories: setup
	$(BIN)/python -m tests.faults.histories --count $(or $(COUNT),100000) --first $(FIRST) --processes $$(nproc) $(ARGS)

# Power cuts at every system call of the catalogue, its rebuild and the agent's queue, each in COUNT ways, on the same disk.
crash-states: setup
	$(BIN)/python -m tests.faults.histories.crash_states --count $(or $(COUNT),100) --first $(FIRST) $(ARGS)

# Fault campaigns on the real system (docs/reliability.md), short as in `make test`; COUNT=2000 makes so many kills and so
# many power cuts, ten times as many corruptions, and so on. FAULTS="cuts whole" does some; results: faults-results/.
FAULTS ?= sweep kills cuts corruption full whole cluster-kills cluster-cuts rot catalogue partitions upgrades clocks damage
SEED ?= 1
faults: setup
	@failed=0; for name in $(FAULTS); do $(BIN)/python -m tests.faults.real.campaign $$name --seed $(SEED) \
		$(if $(COUNT),--long $(COUNT)) --out faults-results $(ARGS) || failed=1; done; exit $$failed

# Idle crowds, ten times the senders, restarts (docs/reliability.md), half an hour of a machine that has nothing else to do;
# LOADS="restart" does some. Results: faults-results/.
LOADS ?= idle overload restart
load: setup
	@failed=0; for name in $(LOADS); do $(BIN)/python -m tests.load $$name --seed $(SEED) --out faults-results $(ARGS) \
		|| failed=1; done; exit $$failed

# Real clusters: a node is added and another drained while processes are killed; disks that were cloned, or put back; and
# what of upkeep takes too long for `make test`.
upkeep: setup
	$(BIN)/pytest -m campaign tests/upkeep --timeout 900 $(ARGS)

# The node image (docs/node-image.md), by root; ARGS="--again" makes it twice and compares, DEBS="FILE.deb" adds packages.
IMAGE ?= build/node-image
.PHONY: node-image xen-guest
node-image: setup
	@.ci/packages xen
	@$(BIN)/python -m xen.image --out $(IMAGE) $(addprefix --deb ,$(DEBS)) $(ARGS)

# A node in a real guest under software emulation, through libvirt: half an hour. An image that is there is taken as it is.
xen-guest: setup
	@.ci/packages xen
	@test -f $(IMAGE)/node.raw || $(BIN)/python -m xen.image --out $(IMAGE)
	FASCICLE_NODE_IMAGE=$(abspath $(IMAGE))/node.raw $(BIN)/pytest -m campaign -s -x tests/xen/guest $(ARGS)

# 10 000 small files, and one object of 3 GB, under the memory limits.
test-large: setup
	$(BIN)/pytest -m campaign -k large --timeout 3600 $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
