# make help says what there is. The work is done by the scripts in build/.

SHELL         := bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS     += --no-print-directory

export GOFLAGS ?= -buildvcs=false
# LB_* are variables of this checkout. lbctl warns of LBCTL_* that it doesn't know.
export LB_VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export LB_COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)

ldflags := -s -X lbctl/internal/cli.version=$(LB_VERSION) -X lbctl/internal/cli.commit=$(LB_COMMIT)

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  UP=docker or UP=local decides where the cluster runs; without it, Docker when an engine answers."

##@ The cluster

.PHONY: up down scale status logs clean
up: ## Build what is missing, start the cluster, wait until it serves (UP=docker|local, N=servers)
	@build/cluster.sh up $(N)

.PHONY: example
example: ## Start the cluster with an example in containers: make example NAME=routing
	@[ -f "examples/$(NAME)/docker-compose.yaml" ] || { echo "make: no example \"$(NAME)\", want NAME to be one of: $$(cd examples && echo *)" >&2; exit 2; }
	@UP=docker COMPOSE_FILE=docker-compose.yaml:examples/$(NAME)/docker-compose.yaml build/cluster.sh up $(N)

.PHONY: observability
observability: ## Start the cluster with metrics, dashboards, alerts, logs and traces (docs/observability.md)
	@UP=docker COMPOSE_FILE=docker-compose.yaml:docker-compose.observability.yaml build/cluster.sh up $(N)

down: ## Stop the cluster; its data stays
	@build/cluster.sh down

scale: ## Run N servers: make scale N=5
	@build/cluster.sh scale $(N)

status: ## Say what runs and what nginx serves
	@build/cluster.sh status

logs: ## Follow the logs
	@build/cluster.sh logs

clean: ## Stop the cluster; delete its data and the images of this repository, not those of others
	@build/cluster.sh clean

##@ Building

.PHONY: build generate
build: bin/lbctl bin/registrar bin/grpc_server bin/grpc_client ## Build the commands into bin/

# Go knows best whether they are out of date.
.PHONY: bin/lbctl bin/registrar bin/grpc_server bin/grpc_client
bin/lbctl bin/registrar:
	@go build -o $@ -ldflags '$(ldflags)' ./cmd/$(@F)
bin/grpc_server bin/grpc_client:
	@go build -o $@ ./$(@F)

# For images where no registry answers (build/base/observability.sh).
.PHONY: bin/standin
bin/standin:
	@CGO_ENABLED=0 go build -trimpath -ldflags=-s -o $@ ./build/observability/standin

# Programs of others, from their Go modules as build/tools/go.mod pins them. They are
# linked statically, so that they run in any container.
bin/consul: build/tools/go.mod | bin
	@echo "build: Consul from its module, some minutes the first time"
	@CGO_ENABLED=0 build/progress.sh go build -C build/tools -v -trimpath -ldflags='-s -w' -o $(CURDIR)/bin/ github.com/hashicorp/consul
bin/supervisord: build/tools/go.mod | bin
	@echo "build: supervisord from its module"
	@CGO_ENABLED=0 build/progress.sh go build -C build/tools -v -trimpath -ldflags='-s -w' -o $(CURDIR)/bin/ github.com/ochinchina/supervisord
bin/otlp-receiver: build/otlp-receiver/go.mod build/otlp-receiver/main.go | bin
	@echo "build: OpenTelemetry's receiver of traces, for tests, a minute the first time"
	@CGO_ENABLED=0 build/progress.sh go build -C build/otlp-receiver -v -trimpath -ldflags='-s -w' -o $(CURDIR)/bin/ .
bin/victoria-logs: build/observability/tools/go.mod | bin
	@echo "build: VictoriaLogs from its module, a minute or two the first time"
	@CGO_ENABLED=0 build/progress.sh go build -C build/observability/tools -v -trimpath -ldflags='-s -w' -o $(CURDIR)/bin/ github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs
bin/consul-template: go.mod | bin
	@go build -o $@ github.com/hashicorp/consul-template
bin/nginx-1.30: build/nginx-1.30.sh | bin
	@build/nginx-1.30.sh $@
bin:
	@mkdir -p $@

generate: ## Generate the generated code again
	@build/need.sh protoc
	go generate ./...

##@ Testing

.PHONY: test e2e
test: ## Format, vet, staticcheck, tidy, and all tests with the race detector
	@build/test.sh

e2e: ## End-to-end tests: Docker with a real engine, then local processes
	@build/e2e.sh

.PHONY: screenshot
screenshot: ## Make the picture of the status page in docs again
	@build/need.sh chromium >/dev/null
	@go test -tags bench ./internal/statuspage -run TestPictureOfTheManual -count=1 -picture $(CURDIR)/docs/status-page.png

##@ Measuring; RECORD=1 keeps the report in docs/benchmarks, bench/README.md has the sizes

.PHONY: bench-loss bench-convergence bench-throughput bench-scale bench-idle bench-breaker bench-observability bench-everything bench-against
bench-loss: ## Measure what changes cost calls and streams, ours and others
	@build/bench.sh TestLoss

bench-convergence: ## Measure from Consul's acceptance to the first call served, and to the last
	@build/bench.sh TestConvergence

bench-throughput: ## Measure calls a second and processor time a call
	@build/bench.sh TestThroughput

bench-scale: ## Measure 10 to 3,000 services of 10 instances
	@build/bench.sh TestScale

bench-idle: ## Measure what lbctl costs while nothing changes
	@build/bench.sh TestIdle

bench-breaker: ## Measure what the circuit breaker costs a call
	@build/bench.sh TestBreaker

bench-observability: ## Measure what the access log, request ids and trace contexts cost a call, and lbctl
	@build/bench.sh TestObservability

bench-everything: ## Measure what lbctl needs with everything on: idle, with 1,000 services, while instances come and go
	@build/bench.sh TestEverything

bench-against: ## Measure what a call costs beside another commit's lbctl, OLD=PATH
	@build/bench.sh TestAgainst
