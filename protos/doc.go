// Package protos holds the demo's gRPC service, protos.Ping, and the code
// generated from ping.proto. It is checked in, so building needs no protoc;
// after a change to ping.proto, run go generate ./protos.
package protos

//go:generate ./generate.sh
