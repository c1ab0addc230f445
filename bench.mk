# The comparison with other tools. Included by the Makefile.
#   make bench                          all of it, as docs/PERFORMANCE.md has it; takes about half an hour
#   make bench SCALE=0.02 REPEAT=1      a quick look that all works
#   make bench SETS=entropy TOOLS=questdb-backup,restic

SCALE ?= 1.0
REPEAT ?= 3
BENCH_FLAGS := --scale $(SCALE) --repeat $(REPEAT) $(if $(SETS),--sets $(SETS)) $(if $(TOOLS),--tools $(TOOLS)) \
	$(if $(OURS),--ours $(OURS))

.PHONY: bench

bench: setup ## Measure against restic, rustic, tar and rsync (SCALE=1.0 REPEAT=3)
	$(BIN)/python -m compileall -q layers functions
	$(BIN)/python -m benchmarks $(BENCH_FLAGS)
