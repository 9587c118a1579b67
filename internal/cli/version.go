package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The build sets them with -ldflags "-X lbctl/internal/cli.version=1.2.3
// -X lbctl/internal/cli.commit=0123abc".
var (
	version = "dev"
	commit  = ""
)

// A versionInfo is the document of lbctl version.
type versionInfo struct {
	Version        string `json:"version"`
	Commit         string `json:"commit,omitempty"`
	Go             string `json:"go"`
	Platform       string `json:"platform"`
	ConsulTemplate string `json:"consul_template,omitempty"`
	ConsulAPI      string `json:"consul_api,omitempty"`
}

type versionOptions struct {
	Out    io.Writer
	Output string
}

func newVersionCmd(f *factory) *cobra.Command {
	opts := &versionOptions{Out: f.out}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this lbctl",
		Args:  atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runVersion(cmd.Context(), opts) }
	return cmd
}

func runVersion(_ context.Context, opts *versionOptions) error {
	info := versionInfo{
		Version:  version,
		Commit:   commit,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range build.Settings {
			if setting.Key == "vcs.revision" && info.Commit == "" {
				info.Commit = setting.Value
			}
		}
		for _, module := range build.Deps {
			switch module.Path {
			case "github.com/hashicorp/consul-template":
				info.ConsulTemplate = module.Version
			case "github.com/hashicorp/consul/api":
				info.ConsulAPI = module.Version
			}
		}
	}
	return printResult(opts.Out, opts.Output, info, func() error {
		commit := ""
		if info.Commit != "" {
			commit = fmt.Sprintf(" (%.12s)", info.Commit)
		}
		_, err := fmt.Fprintf(opts.Out, "lbctl %s%s, %s, %s, consul-template %s\n",
			info.Version, commit, info.Go, info.Platform, orDash(info.ConsulTemplate))
		return err
	})
}
