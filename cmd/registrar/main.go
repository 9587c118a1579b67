// Command registrar keeps a server registered with Consul and takes it out of
// service without losing a request. docs/registrar.md is its manual.
package main

import (
	"os"

	"lbctl/internal/registrarcli"
)

func main() {
	os.Exit(registrarcli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
