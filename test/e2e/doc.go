// Package e2e tests the whole cluster from outside, the way its users start and
// use it: in Docker with docker-compose.yaml, and as local processes. Its tests
// have the build tag e2e; `make e2e` runs them.
package e2e
