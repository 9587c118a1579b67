#!/bin/sh
# Makes the .pb.go files of a .proto file, by default protos/ping.proto. Needs protoc (Debian:
# protobuf-compiler); its two plugins are built into bin/, where git ignores them.
set -eu
cd "$(dirname "$0")/.."

command -v protoc >/dev/null || {
	echo "generate.sh: protoc not found on PATH, install it first (Debian: apt-get install protobuf-compiler)" >&2
	exit 1
}

# protoc-gen-go comes with the protobuf runtime: go.mod pins both to one version.
export GOBIN="$PWD/bin"
go install google.golang.org/protobuf/cmd/protoc-gen-go
go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2

protoc \
	--plugin="$GOBIN/protoc-gen-go" --go_out=. --go_opt=paths=source_relative \
	--plugin="$GOBIN/protoc-gen-go-grpc" --go-grpc_out=. --go-grpc_opt=paths=source_relative \
	"${1:-protos/ping.proto}"
