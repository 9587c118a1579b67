package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/access"
	"lbctl/internal/kv"
	"lbctl/internal/printable"
)

const denyHelp = `Deny networks the use of every service, or of the services that --service names.

NETWORK is an address, a network such as 203.0.113.0/24 or 2001:db8::/32, or "all",
which needs --service. An HTTP client gets 403, a gRPC client PERMISSION_DENIED, and a
TCP connection is closed. Requests that have begun go on.

lbctl writes the rules to Consul's KV store, with the token in CONSUL_HTTP_TOKEN. Every
lbctl that uses this Consul follows them, usually within a second. They stay in force
while Consul is away. A later rule for the same network replaces this one.`

const allowHelp = `Let networks in again: remove the denials of these networks and of smaller networks
in them. A network in a larger one that stays denied becomes an exception to that denial.

With --only, a service is for these networks alone: all others are denied. 'lbctl allow
all --service NAME' ends that. The denials for every service hold nevertheless.`

type networksOptions struct {
	Out, Err io.Writer
	In       io.Reader
	Now      func() time.Time
	Store    *storeAddress
	Wait     *accessWaiter

	Output   string
	Networks []string
	File     string
	Services nameList
	For      time.Duration
	Why      string
	Deny     bool // the command is deny, and not allow
	Only     bool
}

func newDenyCmd(f *factory) *cobra.Command {
	opts := &networksOptions{Out: f.out, Err: f.err, In: os.Stdin, Now: f.now, Deny: true}
	cmd := &cobra.Command{
		Use:   "deny NETWORK...",
		Short: "Deny networks the use of all services, or of some",
		Long:  denyHelp,
		Example: `  lbctl deny 203.0.113.0/24 --for 1h -m "port scan"
  lbctl deny 2001:db8::/32 --service cart
  lbctl deny -f networks.txt --for 24h`,
	}
	flags := networksFlags(f, cmd, opts)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		networks, err := opts.parse(flags, args)
		if err != nil {
			return err
		}
		return runDeny(cmd.Context(), opts, networks)
	}
	return cmd
}

func newAllowCmd(f *factory) *cobra.Command {
	opts := &networksOptions{Out: f.out, Err: f.err, In: os.Stdin, Now: f.now}
	cmd := &cobra.Command{
		Use:   "allow NETWORK...",
		Short: "Let networks in again, or make a service theirs alone",
		Long:  allowHelp,
		Example: `  lbctl allow 203.0.113.0/24
  lbctl allow 10.0.0.0/8 192.168.0.0/16 --service admin --only
  lbctl allow all --service admin`,
	}
	flags := networksFlags(f, cmd, opts)
	cmd.Flags().BoolVar(&opts.Only, "only", false, "deny everybody else the services of --service")
	cmd.ValidArgsFunction = opts.completeDenied
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		networks, err := opts.parse(flags, args)
		if err != nil {
			return err
		}
		return runAllow(cmd.Context(), opts, networks)
	}
	return cmd
}

// networksFlags defines the flags of deny and allow.
func networksFlags(f *factory, cmd *cobra.Command, opts *networksOptions) *flags {
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	define(flags, &opts.Services, "service", "", "NAMES", "only for these services, separated by commas (default every service)", nil, parseServices())
	flags.completeWith("service", completeServiceList)
	define(flags, &opts.For, "for", "", "DURATION", "how long the rule counts, 1m or more (default for ever)", 0, parseDuration(time.Minute))
	messageFlag(flags, &opts.Why)
	define(flags, &opts.File, "file", "", kindFile, `further networks, one a line; "-" is the standard input`, "", parseText)
	opts.Store = storeFlags(flags)
	opts.Wait = accessWaitFlags(f, flags, &opts.Output, servingRules)
	return flags
}

// parse returns the networks of the arguments and of the file.
func (opts *networksOptions) parse(flags *flags, args []string) ([]netip.Prefix, error) {
	texts := slices.Clone(args)
	if opts.File != "" {
		lines, err := readLines(opts.File, opts.In)
		if err != nil {
			return nil, err
		}
		texts = append(texts, lines...)
	}
	var networks []netip.Prefix
	var mistakes []error
	for _, text := range texts {
		parsed, err := access.ParseNetworks(text)
		if err != nil {
			mistakes = append(mistakes, err)
			continue
		}
		networks = append(networks, parsed...)
	}
	if len(texts) == 0 {
		mistakes = append(mistakes, errors.New("no networks, want at least one, such as 203.0.113.0/24"))
	}
	if opts.Only && len(opts.Services) == 0 {
		mistakes = append(mistakes, errors.New("--only makes a service private: name it with --service"))
	}
	const most = 10 // of a file with thousands of mistakes
	if n := len(mistakes) - most; n > 0 {
		mistakes = append(mistakes[:most], fmt.Errorf("and %d more", n))
	}
	if len(mistakes) > 0 {
		return nil, &usageError{command: flags.command.CommandPath(), mistakes: mistakes}
	}
	return networks, nil
}

// writes returns what the command says, one for each service, or one for all.
func (opts *networksOptions) writes(ctx context.Context, store *kv.Store) ([]access.Write, error) {
	who, err := store.Who(ctx)
	if err != nil {
		return nil, err
	}
	w := access.Write{By: who.String(), At: opts.Now(), Why: opts.Why}
	if opts.For > 0 {
		w.Until = opts.Now().Add(opts.For)
	}
	services := []string(opts.Services)
	if len(services) == 0 {
		services = []string{""}
	}
	writes := make([]access.Write, len(services))
	for n, service := range services {
		writes[n] = w
		writes[n].Service = service
	}
	return writes, nil
}

func runDeny(ctx context.Context, opts *networksOptions, networks []netip.Prefix) error {
	if len(opts.Services) == 0 {
		for _, all := range access.All {
			if slices.Contains(networks, all) {
				return fmt.Errorf("deny %s: this would deny everybody every service: name services with --service", access.NetworkText(all))
			}
		}
	}
	return opts.change(ctx, networks, access.Deny)
}

func runAllow(ctx context.Context, opts *networksOptions, networks []netip.Prefix) error {
	if opts.Only {
		return opts.change(ctx, networks, access.Only)
	}
	return opts.change(ctx, networks, access.Allow)
}

// change changes the rules, and prints those that are new and those that are gone.
func (opts *networksOptions) change(ctx context.Context, networks []netip.Prefix, by func([]access.Rule, []netip.Prefix, access.Write) []access.Rule) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	writes, err := opts.writes(ctx, store)
	if err != nil {
		return err
	}
	before, after, err := changeRules(ctx, store, opts.Err, opts.Now(), kv.Change{Kind: opts.kind(), Why: opts.Why}, func(rules []access.Rule) []access.Rule {
		for _, w := range writes {
			rules = by(rules, networks, w)
		}
		return rules
	})
	if err != nil {
		return err
	}
	result := differences(before, after, opts.Now())
	if len(opts.Services) == 0 {
		for _, r := range access.OfServices(after, networks) {
			result.StillDenied = append(result.StillDenied, showRule(r))
		}
	}
	opts.Store.warnOfUnknown(ctx, opts.Err, result.withoutRules(opts.Services), "the rule")
	err = printResult(opts.Out, opts.Output, result, func() error { return result.print(opts.Out, opts.Now(), networks) })
	if err != nil || len(result.Added)+len(result.Removed) == 0 {
		return err
	}
	return opts.Wait.rules(ctx, store)
}

// kind names the command in the journal.
func (opts *networksOptions) kind() string {
	switch {
	case opts.Deny:
		return "deny"
	case opts.Only:
		return "allow --only"
	default:
		return "allow"
	}
}

// differences returns what a change of the rules adds and removes.
func differences(before, after []access.Rule, now time.Time) changedRules {
	return changedRules{Removed: missing(before, after, now), Added: missing(after, before, now)}
}

// withoutRules returns the services except those that only lost rules: such a service may be
// gone.
func (c changedRules) withoutRules(services []string) (left []string) {
	has := func(rules []shownRule, service string) bool {
		return slices.ContainsFunc(rules, func(r shownRule) bool { return r.Service == service })
	}
	for _, s := range services {
		if has(c.Added, s) || !has(c.Removed, s) {
			left = append(left, s)
		}
	}
	return left
}

// maxConflicts is how often changeRules begins again because others write too.
const maxConflicts = 20

// changeRules writes what change makes of the rules in Consul, and records it as a command in the
// journal. Rules of others that come meanwhile stay: it then begins again. warnings gets the documents
// that can't be read, whose rules it can't change.
func changeRules(ctx context.Context, store *kv.Store, warnings io.Writer, now time.Time, command kv.Change, change func([]access.Rule) []access.Rule) (before, after []access.Rule, err error) {
	command.Journal = accessJournal
	for range maxConflicts {
		documents, err := store.List(ctx, access.NetworksNames)
		if err != nil {
			return nil, nil, err
		}
		rules, broken := access.ReadRules(documents, now)
		if command.Journal != "" { // nothing is written yet, so what others have written is no part of the change
			before = slices.Clone(rules)
		}
		after = change(rules)
		if len(after) > access.MaxRules {
			return nil, nil, fmt.Errorf("there would be %d rules about networks, want at most %d", len(after), access.MaxRules)
		}
		edits, err := access.Edits(documents, after, broken)
		var belongs access.Problem
		if errors.As(err, &belongs) {
			err = brokenRules(store, belongs)
		}
		if err != nil {
			return nil, nil, err
		}
		if command.What, err = journalNetworks(differences(before, after, now)); err != nil {
			return nil, nil, err
		}
		err = writeEdits(ctx, store, &command, edits)
		var conflict *kv.ConflictError
		if !errors.As(err, &conflict) {
			for _, p := range broken {
				fmt.Fprintf(warnings, "warning: its rules stay as they are: %s\n", printable.Line(brokenRules(store, p).Error()))
			}
			return before, after, err
		}
	}
	return nil, nil, fmt.Errorf("others changed the rules %d times meanwhile: try again", maxConflicts)
}

// writeSize is how many bytes one transaction may have, with room for what Consul adds.
const writeSize = 300 << 10

// writeEdits writes documents, as many at once as Consul takes. The journal gets its record with the
// first of them, so that it tells of a command that fails later, too.
func writeEdits(ctx context.Context, store *kv.Store, command *kv.Change, edits []kv.Edit) error {
	for len(edits) > 0 {
		n, size := 0, 0
		for n < len(edits) && n < kv.MaxEdits && (n == 0 || size+len(edits[n].Value) <= writeSize) {
			size += len(edits[n].Value)
			n++
		}
		if err := store.Write(ctx, *command, edits[:n]...); err != nil {
			return err
		}
		command.Journal = ""
		edits = edits[n:]
	}
	return nil
}

// changedRules is the document of deny and allow.
type changedRules struct {
	Added   []shownRule `json:"added"`
	Removed []shownRule `json:"removed"`
	// StillDenied are rules of single services that deny addresses of the networks, after a
	// command about every service.
	StillDenied []shownRule `json:"still_denied,omitempty"`
}

// shownRule is a rule about a network in documents.
type shownRule struct {
	Network string    `json:"network"`
	Access  string    `json:"access"`            // "denied" or "allowed"
	Service string    `json:"service,omitempty"` // absent: every service
	Until   time.Time `json:"until,omitzero"`    // absent: for ever
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Why     string    `json:"why,omitempty"`
}

func showRule(r access.Rule) shownRule {
	s := shownRule{access.NetworkText(r.Network), "denied", r.Service, r.Until, r.By, r.At, r.Why}
	if r.Allow {
		s.Access = "allowed"
	}
	return s
}

// missing returns the rules that are not in others.
func missing(rules, others []access.Rule, now time.Time) []shownRule {
	type place struct {
		network netip.Prefix
		service string
	}
	there := make(map[place]access.Rule, len(others))
	for _, r := range others {
		there[place{r.Network, r.Service}] = r
	}
	all := []shownRule{}
	for _, r := range rules {
		o, ok := there[place{r.Network, r.Service}]
		if (!ok || o.Allow != r.Allow || !o.Until.Equal(r.Until) || !o.At.Equal(r.At)) && !r.Over(now) {
			all = append(all, showRule(r))
		}
	}
	return all
}

// maxShown is how many rules the text for people has.
const maxShown = 20

func (c changedRules) print(w io.Writer, now time.Time, networks []netip.Prefix) error {
	var lines []string
	for _, r := range c.Added {
		lines = append(lines, fmt.Sprintf("%s is %s%s.", r.Network, r.Access, r.rest(now)))
	}
	for _, r := range c.gone() {
		lines = append(lines, fmt.Sprintf("%s is no longer %s%s.", r.Network, r.Access, r.forWhom()))
	}
	if len(lines) == 0 {
		lines = []string{"Nothing changes: the networks are not denied."}
		if len(c.StillDenied) > 0 {
			lines = []string{"Nothing changes: no rule for every service denies the networks."}
		}
	}
	lines = shorten(lines)
	if len(c.StillDenied) > 0 {
		lines = append(lines, c.stillDenied(networks)...)
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// gone returns the removed rules that no added one replaces.
func (c changedRules) gone() []shownRule {
	type place struct{ network, service string }
	added := map[place]bool{}
	for _, r := range c.Added {
		added[place{r.Network, r.Service}] = true
	}
	return slices.DeleteFunc(slices.Clone(c.Removed), func(r shownRule) bool { return added[place{r.Network, r.Service}] })
}

func (r shownRule) forWhom() string {
	if r.Service == "" {
		return " for every service"
	}
	return " for " + r.Service
}

func (r shownRule) rest(now time.Time) string {
	text := r.forWhom()
	if !r.Until.IsZero() {
		text += ", until " + clock(r.Until, now)
	}
	return text
}

func shorten(lines []string) []string {
	if n := len(lines) - maxShown; n > 1 {
		lines = append(lines[:maxShown], fmt.Sprintf("And %d more.", n))
	}
	return lines
}

// stillDenied says which services deny the networks, and how that ends.
func (c changedRules) stillDenied(networks []netip.Prefix) []string {
	var lines, services []string
	for _, r := range c.StillDenied {
		lines = append(lines, fmt.Sprintf("%s is still denied%s.", r.Network, r.forWhom()))
		services = append(services, r.Service)
	}
	slices.Sort(services)
	given := "NETWORK..."
	if len(networks) == 1 {
		given = access.NetworkText(networks[0])
	}
	return append(shorten(lines), fmt.Sprintf("'lbctl allow %s --service %s' lets it in there.", given, strings.Join(slices.Compact(services), ",")))
}
