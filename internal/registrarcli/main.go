// Package registrarcli is the command line of the registrar: flags, help, signals and exit
// codes. Package registration does the work with Consul.
package registrarcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/metadata"
	"lbctl/internal/printable"
	"lbctl/internal/registration"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

// Main runs the registrar with args until it ends, handles the signals that the process
// gets, and returns the exit code. If errOut fails or blocks, output is lost, but the work
// goes on without delay.
func Main(args []string, out, errOut io.Writer) int {
	if registration.IsWatchdog() {
		return registration.Watchdog()
	}
	surviveClosedOutput()
	lines := newOutput(errOut)
	defer lines.flush()
	return execute(args, out, lines)
}

func execute(args []string, out, errOut io.Writer) int {
	code := 0
	cmd := newCommand(&code)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errOut)
	if err := cmd.Execute(); err != nil {
		if code == 0 {
			code = exitUsage // cobra's own errors are about usage
		}
		report(errOut, err, code)
	}
	return code
}

// report prints an error, with one line for each mistake in the configuration. An error can
// contain answers of Consul or a server, so it is made printable.
func report(w io.Writer, err error, code int) {
	mistakes := strings.Split(err.Error(), "\n")
	if code != exitUsage || len(mistakes) == 1 {
		fmt.Fprintf(w, "registrar: %s\n", printable.Line(err.Error()))
		return
	}
	fmt.Fprintf(w, "registrar: %d mistakes in the configuration:\n", len(mistakes))
	for _, mistake := range mistakes {
		fmt.Fprintf(w, "  %s\n", printable.Line(mistake))
	}
}

// newCommand makes the command. A run that fails leaves its exit code in code.
func newCommand(code *int) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "registrar",
		Args:              cobra.NoArgs,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			*code, err = start(cmd, func(ctx context.Context, r *registration.Registrar) (int, error) {
				if err := r.Run(ctx); err != nil {
					return exitFailure, err
				}
				return 0, nil
			})
			return err
		},
	}
	registration.AddFlags(cmd.PersistentFlags())
	cmd.SetHelpCommand(&cobra.Command{Hidden: true})

	exec := &cobra.Command{
		Use:  "exec [flags] -- command [argument...]",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, command []string) (err error) {
			if len(command) == 0 {
				return errors.New("exec: no command given, want one, for example: registrar exec -- grpc_server -listen=:7777")
			}
			*code, err = start(cmd, func(ctx context.Context, r *registration.Registrar) (int, error) {
				return r.Exec(ctx, command)
			})
			return err
		},
	}
	exec.Flags().SetInterspersed(false) // flags after the command belong to the command
	cmd.AddCommand(exec)
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), help(cmd == exec)) })
	return cmd
}

func start(cmd *cobra.Command, run func(context.Context, *registration.Registrar) (int, error)) (int, error) {
	cfg, err := registration.Parse(cmd.Flags(), os.Getenv)
	if err != nil {
		return exitUsage, err
	}
	logger := slog.New(slog.NewTextHandler(printable.Writer(cmd.ErrOrStderr()), nil))
	warn(logger, cfg)
	listener, err := listenMetrics(&cfg)
	if err != nil {
		return exitFailure, err
	}
	registrar, err := registration.New(cfg, logger)
	if err != nil {
		return exitUsage, err
	}
	if listener != nil {
		defer listener.Close()
		go serveMetrics(listener, cfg.Name, registrar.Figures, logger)
	}
	ctx, stop := watchSignals(registrar, logger)
	defer stop()
	return run(ctx, registrar)
}

// warn logs the parts of the registration that lbctl will ignore. They are registered
// nevertheless: lbctl may be newer, or they are for another program.
func warn(logger *slog.Logger, cfg registration.Config) {
	for _, mistake := range metadata.Mistakes(cfg.Tags, cfg.Meta) {
		logger.Warn("lbctl refuses the metadata, unless it is newer than this registrar", "problem", mistake)
	}
	if metadata.HasTag(cfg.Tags) || cfg.Meta[metadata.KeyProtocol] != "" || cfg.Meta[metadata.KeyGRPC] != "" || cfg.Meta[metadata.KeyPort] != "" {
		return // they say the protocol
	}
	if tag, meant := metadata.MistypedTag(cfg.Tags); tag != "" {
		logger.Warn("lbctl does not know the tag, so it will not balance the service", "tag", tag, "meant", meant, "check", cfg.Check.Type)
	}
}
