package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/certificates"
)

const certificateCreateHelp = `Make a certificate for TLS that signs itself, and its key. It is for trying things out,
and for clients of your own: tell them to trust NAME.crt.

lbctl needs no restart: 'lbctl run --certificates DIR' finds the files within a second.`

type certificateOptions struct {
	Out io.Writer

	Output   string
	Own      certificates.Own
	Days     int
	Replace  bool
	IfNeeded bool
}

// A createdCertificate is the JSON of lbctl certificate create.
type createdCertificate struct {
	certificates.Certificate
	CertificateFile string `json:"certificate_file"`
	KeyFile         string `json:"key_file"`
	Created         bool   `json:"created"` // false: there was one
}

func newCertificateCmd(f *factory) *cobra.Command {
	return newGroupCmd("certificate", "Make a certificate for TLS", "", newCertificateCreateCmd(f))
}

func newCertificateCreateCmd(f *factory) *cobra.Command {
	opts := &certificateOptions{Out: f.out}
	cmd := &cobra.Command{
		Use:   "create HOST...",
		Short: "Make a certificate that signs itself, for host names and addresses",
		Long:  certificateCreateHelp,
		Example: `  lbctl certificate create localhost 127.0.0.1
  lbctl certificate create --out /etc/lbctl/certificates '*.lb.test'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return nil
			}
			return &usageError{command: cmd.CommandPath(), mistakes: []error{errors.New("want one or more host names or IP addresses")}}
		},
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	define(flags, &opts.Own.Dir, "out", "", kindDir, "write the files to this directory, and create it if needed", ".", parseText)
	define(flags, &opts.Own.Name, "name", "", "NAME", "name of the files NAME.crt and NAME.key (default the first host)", "", parseText)
	define(flags, &opts.Days, "days", "", "N", "days until the certificate expires", 365, parseNumber(1, 3650))
	cmd.Flags().BoolVar(&opts.Replace, "replace", false, "replace files that exist")
	cmd.Flags().BoolVar(&opts.IfNeeded, "if-needed", false, "do nothing if the files have the hosts and are valid for two weeks or more")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		opts.Own.Hosts = args
		return runCertificateCreate(opts)
	}
	return cmd
}

func runCertificateCreate(opts *certificateOptions) error {
	if opts.Own.Name == "" {
		opts.Own.Name = opts.Own.Hosts[0]
	}
	opts.Own.Valid = time.Duration(opts.Days) * 24 * time.Hour
	result := createdCertificate{CertificateFile: opts.Own.CertificateFile(), KeyFile: opts.Own.KeyFile()}
	if current, ok := opts.Own.Current(); ok && opts.IfNeeded {
		result.Certificate = current
	} else {
		made, err := opts.Own.Create(opts.Replace || opts.IfNeeded)
		if errors.Is(err, certificates.ErrExists) {
			return fmt.Errorf("%w; --replace replaces it", err)
		}
		if err != nil {
			return err
		}
		result.Certificate, result.Created = made, true
	}
	return printResult(opts.Out, opts.Output, result, func() error {
		what := "written"
		if !result.Created {
			what = "still valid"
		}
		_, err := fmt.Fprintf(opts.Out, "%s and %s: %s, for %s until %s\n", result.CertificateFile, result.KeyFile, what,
			strings.Join(opts.Own.Hosts, ", "), result.NotAfter.Format(time.DateOnly))
		return err
	})
}
