package cli

import (
	"fmt"
	"path/filepath"

	"lbctl/internal/admin"
	"lbctl/internal/daemon"
)

// A daemonAddress says at which addresses a command looks for the daemon.
type daemonAddress struct {
	flags    *flags
	output   *string
	addr     string
	stateDir string
	runDir   string
}

// daemonFlags defines the flags of a command that queries the daemon. output is the
// format in which the command prints the answer.
func daemonFlags(flags *flags, output *string) *daemonAddress {
	at := &daemonAddress{flags: flags, output: output}
	define(flags, &at.addr, "addr", "LBCTL_ADDR", "URL",
		"address of the daemon: http://HOST:PORT or unix:///PATH (default its socket, then http://127.0.0.1:9119)",
		"", parseText)
	directoryFlags(flags, &at.stateDir, &at.runDir)
	return at
}

// directoryFlags defines the flags that tell the daemon where to put its socket, and
// the other commands where to find it.
func directoryFlags(flags *flags, stateDir, runDir *string) {
	define(flags, stateDir, "state-dir", "LBCTL_STATE_DIR", kindDir,
		"directory for generations and history", daemon.DefaultStateDir, parseDirectory)
	define(flags, runDir, "run-dir", "LBCTL_RUN_DIR", kindDir,
		"directory for sockets (default STATE-DIR/run)", "", parseDirectory)
}

// client returns a client for the first of these addresses that accepts a connection:
// --addr alone if it is given; else the socket in the directory of --state-dir or
// --run-dir, then LBCTL_ADDR; with none of them the default socket, then the default
// HTTP address. The socket comes before HTTP because HTTP is read-only.
func (at *daemonAddress) client() (*admin.Client, error) {
	socket := "unix://" + daemon.SocketPath(daemon.RunDir(at.stateDir, at.runDir))
	named := at.flags.given("state-dir") || at.flags.given("run-dir")
	var addresses []string
	switch {
	case at.addr != "" && (at.flags.source("addr") == "--addr" || !named):
		addresses = []string{at.addr}
	case at.addr != "":
		addresses = []string{socket, at.addr}
	case named:
		addresses = []string{socket}
	default:
		addresses = []string{socket, "http://" + admin.DefaultAddress}
	}
	client, err := admin.NewClient(addresses...)
	if err != nil {
		return nil, &usageError{
			command:  at.flags.command.CommandPath(),
			mistakes: []error{fmt.Errorf("%s: %w", at.flags.source("addr"), err)},
		}
	}
	if forPrograms(*at.output) {
		return client, nil // programs need the exact text
	}
	return client.Printable(), nil
}

// parseDirectory makes a path absolute: nginx and the shell that started lbctl may
// have different working directories.
func parseDirectory(given string) (string, error) {
	path, err := filepath.Abs(given)
	if err != nil || given == "" {
		return "", fmt.Errorf("want the path of a directory")
	}
	return path, nil
}
