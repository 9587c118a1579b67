// Package shoppb is the protocol of the shop of examples/routing: generated from shop.proto, and
// checked in, so that building needs no protoc.
package shoppb

//go:generate sh ../../../../protos/generate.sh examples/routing/shop/shoppb/shop.proto
