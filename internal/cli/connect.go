package cli

import (
	"fmt"
	"path/filepath"

	"lbctl/internal/admin"
	"lbctl/internal/daemon"
)

// A daemonAt says where the daemon is that a command asks.
type daemonAt struct {
	flags    *flags
	output   *string
	addr     string
	stateDir string
	runDir   string
}

// daemonFlags are the flags of a command that asks the daemon, and prints its answer
// as output says.
func daemonFlags(flags *flags, output *string) *daemonAt {
	at := &daemonAt{flags: flags, output: output}
	define(flags, &at.addr, "addr", "LBCTL_ADDR", "URL",
		"ask the daemon at http://HOST:PORT or unix:///PATH (default its socket, else http://127.0.0.1:9119)",
		"", parseText)
	directoryFlags(flags, &at.stateDir, &at.runDir)
	return at
}

// directoryFlags are the ones that the daemon and the commands that look for
// its socket share.
func directoryFlags(flags *flags, stateDir, runDir *string) {
	define(flags, stateDir, "state-dir", "LBCTL_STATE_DIR", "DIR",
		"where the daemon keeps generations and history", daemon.DefaultStateDir, parseDirectory)
	define(flags, runDir, "run-dir", "LBCTL_RUN_DIR", "DIR",
		"where its sockets are (default STATE-DIR/run)", "", parseDirectory)
}

// client asks where it was told to: at --addr, or at the socket in a directory
// that was named, or else at LBCTL_ADDR. Told nothing it tries the socket of a
// daemon on this machine, then the HTTP address, which other users and the host
// of a container can use. Where both are possible the socket comes first, since
// everything can be done over it.
func (at *daemonAt) client() (*admin.Client, error) {
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
	if *at.output == outputJSON {
		return client, nil // programs get the exact text
	}
	return client.Printable(), nil
}

// parseDirectory makes a path absolute: nginx and the shell that started lbctl
// need not have the same working directory.
func parseDirectory(given string) (string, error) {
	path, err := filepath.Abs(given)
	if err != nil || given == "" {
		return "", fmt.Errorf("want a directory")
	}
	return path, nil
}
