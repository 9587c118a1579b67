package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/access"
	"lbctl/internal/kv"
	"lbctl/internal/printable"
)

const accessHelp = `Show who may use which service, by network, and who changed rules and keys. 'lbctl deny',
'lbctl allow' and 'lbctl key' change them.`

type accessOptions struct {
	Out      io.Writer
	Terminal Terminal
	Now      func() time.Time

	Store    *storeAddress
	Output   string
	Services nameList
	Address  netip.Addr
}

func newAccessCmd(f *factory) *cobra.Command {
	return newGroupCmd("access", "Show which networks are denied, and who changed that", accessHelp,
		newAccessListCmd(f), newAccessCheckCmd(f), newAccessHistoryCmd(f))
}

func newAccessListCmd(f *factory) *cobra.Command {
	opts := &accessOptions{Out: f.out, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the rules about networks",
		Args:  atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	define(flags, &opts.Services, "service", "", "NAMES", "only the rules that hold for these services", nil, parseServices())
	flags.completeWith("service", completeServiceList)
	opts.Store = storeFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runAccessList(cmd.Context(), opts) }
	return cmd
}

func newAccessCheckCmd(f *factory) *cobra.Command {
	opts := &accessOptions{Out: f.out, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:   "check ADDRESS",
		Short: "Say whether an address is denied, and by which rule; exit code 3 if it is",
		Long: `Say whether an address is denied, and by which rule. Without --service, the services that
have rules of their own about the address come after all others. The exit code is 3 if one
of the services denies it.`,
		Example: `  lbctl access check 203.0.113.7 --service cart`,
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	define(flags, &opts.Services, "service", "", "NAMES", "for these services", nil, parseServices())
	flags.completeWith("service", completeServiceList)
	opts.Store = storeFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			opts.Address, _ = netip.ParseAddr(args[0])
		}
		if !opts.Address.IsValid() {
			return &usageError{command: cmd.CommandPath(), mistakes: []error{fmt.Errorf("%s takes one IP address, got %s", cmd.CommandPath(), orNothing(quoteAll(args)))}}
		}
		return runAccessCheck(cmd.Context(), opts)
	}
	return cmd
}

// rules returns the rules in Consul. broken is the mistakes in documents that can't be read: the
// result lacks their rules.
func (opts *accessOptions) rules(ctx context.Context) (rules []access.Rule, broken, err error) {
	store, err := opts.Store.open()
	if err != nil {
		return nil, nil, err
	}
	documents, err := store.List(ctx, access.NetworksNames)
	if err != nil {
		return nil, nil, err
	}
	rules, problems := access.ReadRules(documents, opts.Now())
	var all []error
	for _, p := range problems {
		all = append(all, brokenRules(store, p))
	}
	return rules, errors.Join(all...), nil
}

// brokenRules says which key has rules that can't be read, why, and how to mend that.
func brokenRules(store *kv.Store, p access.Problem) error {
	key := store.Key(p.Document)
	return fmt.Errorf("key %q in Consul can't be read: %s: mend it, or delete it with 'consul kv delete %s'", key, p.Message, key)
}

func runAccessList(ctx context.Context, opts *accessOptions) error {
	rules, broken, err := opts.rules(ctx)
	if err != nil {
		return err
	}
	shown := []shownRule{}
	for _, r := range rules {
		if len(opts.Services) == 0 || r.Service == "" || slices.Contains(opts.Services, r.Service) {
			shown = append(shown, showRule(r))
		}
	}
	err = printResult(opts.Out, opts.Output, shown, func() error {
		if len(shown) == 0 && broken == nil {
			_, err := fmt.Fprintln(opts.Out, "No network is denied.")
			return err
		}
		t := &table{header: []string{"NETWORK", "ACCESS", "SERVICE", "UNTIL", "BY", "WHY"}, shrinkFirst: 5}
		for _, r := range shown {
			until, service := "for ever", r.Service
			if !r.Until.IsZero() {
				until = clock(r.Until, opts.Now())
			}
			if service == "" {
				service = "every"
			}
			t.add(text(r.Network), text(r.Access), text(service), text(until), text(printable.Line(r.By)), text(printable.Line(r.Why)))
		}
		return t.write(opts.Out, opts.Terminal)
	})
	return errors.Join(broken, err)
}

// checkedAddress is the document of access check.
type checkedAddress struct {
	Address string     `json:"address"`
	Service string     `json:"service,omitempty"` // absent: those without rules of their own about it
	Denied  bool       `json:"denied"`
	Rule    *shownRule `json:"rule,omitempty"` // the rule that decides; absent if there is none
}

func runAccessCheck(ctx context.Context, opts *accessOptions) error {
	rules, broken, err := opts.rules(ctx)
	if err != nil {
		return err
	}
	services := []string(opts.Services)
	var others []string // with rules of their own
	if len(services) == 0 {
		services = []string{""}
		if _, _, denied := access.Decide(rules, opts.Address, ""); !denied {
			others = access.ServicesAbout(rules, opts.Address)
			services = append(services, others...)
		}
	}
	checked := []checkedAddress{}
	denied := false
	for _, service := range services {
		c := checkedAddress{Address: opts.Address.String(), Service: service}
		r, found, no := access.Decide(rules, opts.Address, service)
		if found {
			shown := showRule(r)
			c.Rule = &shown
		}
		c.Denied = no
		denied = denied || no
		checked = append(checked, c)
	}
	err = printResult(opts.Out, opts.Output, checked, func() error {
		for _, c := range checked {
			if _, err := fmt.Fprintln(opts.Out, printable.Line(c.sentence(opts.Now(), others))); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && denied && broken == nil {
		return errProblemFound
	}
	return errors.Join(broken, err)
}

// sentence says what is checked. others are the services with rules of their own about the
// address, which have sentences of their own.
func (c checkedAddress) sentence(now time.Time, others []string) string {
	whom := " for every service"
	if len(others) > 0 {
		whom += " but " + strings.Join(others, ", ")
	}
	if c.Service != "" {
		whom = " for " + c.Service
	}
	if c.Rule == nil {
		return c.Address + " is let in" + whom + ": no rule is about it."
	}
	word := "let in"
	if c.Denied {
		word = "denied"
	}
	text := fmt.Sprintf("%s is %s%s: %s is %s%s, by %s at %s", c.Address, word, whom, c.Rule.Network, c.Rule.Access, c.Rule.rest(now), c.Rule.By, clock(c.Rule.At, now))
	if c.Rule.Why != "" {
		text += fmt.Sprintf(", %q", c.Rule.Why)
	}
	return text + "."
}
