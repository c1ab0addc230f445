# The deployed bundle: checks and build. Included by the Makefile.

BIN ?= .venv/bin
STATE_MACHINES := statemachine/backup.asl.json statemachine/restore.asl.json

# cfn-lint and sam want a region, which nothing here depends on.
export AWS_DEFAULT_REGION ?= us-east-1
export SAM_CLI_TELEMETRY := 0

.PHONY: validate validate-template validate-statemachines build

validate: validate-template validate-statemachines ## Check the template and the state machines

validate-template: $(VENV)/.installed
	$(BIN)/sam validate --lint
	$(BIN)/cfn-lint --append-rules cfn_lint_serverless.rules --template template.yaml

ifneq ($(shell command -v npm 2>/dev/null),)
validate-statemachines: node_modules/.package-lock.json
	npx --no-install asl-validator $(foreach file,$(STATE_MACHINES),--json-path $(file))
else
validate-statemachines:
	@echo "*** SKIPPED: asl-validator needs npm (Node.js), which is not installed; the transitions of the state machines were not checked ***" >&2
endif

node_modules/.package-lock.json: package-lock.json
	npm ci --silent
	touch $@

build: $(VENV)/.installed ## Build functions and layers for Lambda into .aws-sam
	PYTHON=$(abspath $(BIN))/python $(BIN)/sam build
