package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/access"
	"lbctl/internal/kv"
	"lbctl/internal/printable"
)

const keyHelp = `Create, list and revoke the keys that requests need if the policy of their service
says auth.keys or auth.basic: see docs/access.md.

The commands talk to Consul itself, with the token in CONSUL_HTTP_TOKEN. Consul has only
hashes of the keys, so that nobody can read a key there.`

func newKeyCmd(f *factory) *cobra.Command {
	return newGroupCmd("key", "Create, list and revoke API keys and passwords", keyHelp,
		newKeyCreateCmd(f), newKeyListCmd(f), newKeyRevokeCmd(f))
}

type keyOptions struct {
	Out, Err io.Writer
	In       io.Reader
	Terminal Terminal
	Now      func() time.Time
	Store    *storeAddress
	Wait     *accessWaiter // of the commands that write

	Output   string
	Name     string
	Basic    bool
	Stdin    bool
	Services nameList
	For      time.Duration
	Why      string
}

func newKeyOptions(f *factory) *keyOptions {
	return &keyOptions{Out: f.out, Err: f.err, In: os.Stdin, Terminal: f.terminal, Now: f.now}
}

const keyCreateHelp = `Create a key, and show it. It is shown only now.

A client sends it as "Authorization: Bearer KEY" or "X-API-Key: KEY". With --basic it is
a password for basic authentication, with NAME as the user.`

func newKeyCreateCmd(f *factory) *cobra.Command {
	opts := newKeyOptions(f)
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a key or a password, and show it once",
		Long:  keyCreateHelp,
		Example: `  lbctl key create shop --services cart,web --for 2160h -m "the shop's front end"
  lbctl key create alice --basic
  lbctl key create alice --basic --password-stdin <password.txt`,
		Args: keyName(&opts.Name),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.Flags().BoolVar(&opts.Basic, "basic", false, "a password for basic authentication")
	cmd.Flags().BoolVar(&opts.Stdin, "password-stdin", false, "with --basic: read the password from the standard input (default a random one)")
	define(flags, &opts.Services, "services", "", "NAMES", "services that it is good for, separated by commas (default all)", nil, parseServices())
	flags.completeWith("services", completeServiceList)
	define(flags, &opts.For, "for", "", "DURATION", "how long it is good, 1m or more (default for ever)", 0, parseDuration(time.Minute))
	messageFlag(flags, &opts.Why)
	opts.Store = storeFlags(flags)
	opts.Wait = accessWaitFlags(f, flags, &opts.Output, knowingKeys)
	flags.check(func(mistake func(format string, args ...any)) {
		if opts.Stdin && !opts.Basic {
			mistake("--password-stdin: want it with --basic: an API key is always random")
		}
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runKeyCreate(cmd.Context(), opts) }
	return cmd
}

// keyName checks that a command gets the name of a key.
func keyName(into *string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			*into = args[0]
			err := access.CheckKeyName(args[0])
			if err == nil {
				return nil
			}
			return &usageError{command: cmd.CommandPath(), mistakes: []error{err}}
		}
		return exactly(1, "the name of a key")(cmd, args)
	}
}

// minPassword is how many characters a password of one's own must have.
const minPassword = 8

// secret returns the new key's secret.
func (opts *keyOptions) secret() (string, error) {
	if !opts.Stdin {
		return access.NewSecret(), nil
	}
	line, err := bufio.NewReader(io.LimitReader(opts.In, 1024)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	password := strings.TrimRight(line, "\r\n")
	if n := len([]rune(password)); n < minPassword {
		return "", fmt.Errorf("the password on the standard input has %s, want at least %d", plural(n, "character"), minPassword)
	}
	return password, nil
}

// createdKey is the document of key create.
type createdKey struct {
	shownKey
	Secret string `json:"secret,omitempty"` // absent if it came from the standard input
}

func runKeyCreate(ctx context.Context, opts *keyOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	before, err := store.Read(ctx, access.KeyName(opts.Name))
	if err != nil {
		return err
	}
	if before.Exists() {
		return fmt.Errorf("create key %q: there is one already, see 'lbctl key list'; choose another name, or revoke it first", opts.Name)
	}
	secret, err := opts.secret()
	if err != nil {
		return err
	}
	who, err := store.Who(ctx)
	if err != nil {
		return err
	}
	key := access.Key{Name: opts.Name, Kind: access.APIKey, Services: opts.Services, By: who.String(), At: opts.Now(), Why: opts.Why}
	if opts.Basic {
		key.Kind = access.Basic
	}
	if opts.For > 0 {
		key.Until = opts.Now().Add(opts.For)
	}
	key.SetSecret(secret)
	value, err := key.Document()
	if err != nil {
		return err
	}
	if err := writeKey(ctx, store, "key create", opts.Why, &key, kv.Edit{Before: before, Value: value}); err != nil {
		return err
	}
	opts.Store.warnOfUnknown(ctx, opts.Err, opts.Services, "the key")
	result := createdKey{shownKey: showKey(key), Secret: secret}
	if opts.Stdin {
		result.Secret = ""
	}
	err = printResult(opts.Out, opts.Output, result, func() error {
		text := fmt.Sprintf("Key %s is good for %s%s.\n", key.Name, forServices(key.Services), untilText(key.Until, opts.Now()))
		if result.Secret != "" {
			text += "It is shown only now:\n" + result.Secret + "\n"
		}
		_, err := io.WriteString(opts.Out, text)
		return err
	})
	if err != nil {
		return err
	}
	return opts.Wait.keys(ctx, store)
}

// writeKey writes or deletes a key's document, and records that in the journal. The documents' own
// history would keep the hash of a key that is revoked.
func writeKey(ctx context.Context, store *kv.Store, kind, why string, key *access.Key, edit kv.Edit) error {
	what, err := journalKey(key)
	if err != nil {
		return err
	}
	edit.Unrecorded = true
	return store.Write(ctx, kv.Change{Kind: kind, Why: why, Journal: accessJournal, What: what}, edit)
}

func forServices(services []string) string {
	if len(services) == 0 {
		return "every service"
	}
	return strings.Join(services, ", ")
}

func untilText(until, now time.Time) string {
	if until.IsZero() {
		return ""
	}
	return ", until " + clock(until, now)
}

// shownKey is a key in documents.
type shownKey struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`               // "key" or "basic"
	Services []string  `json:"services,omitempty"` // absent: every service
	Until    time.Time `json:"until,omitzero"`     // absent: for ever
	By       string    `json:"by"`
	At       time.Time `json:"at"`
	Why      string    `json:"why,omitempty"`
}

func showKey(k access.Key) shownKey {
	return shownKey{k.Name, k.Kind, k.Services, k.Until, k.By, k.At, k.Why}
}

func newKeyListCmd(f *factory) *cobra.Command {
	opts := newKeyOptions(f)
	cmd := &cobra.Command{Use: "list", Short: "List the keys, without the secrets", Args: atMost(0, "")}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	opts.Store = storeFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runKeyList(cmd.Context(), opts) }
	return cmd
}

func runKeyList(ctx context.Context, opts *keyOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	documents, err := store.List(ctx, access.KeysNames)
	if err != nil {
		return err
	}
	keys := []shownKey{}
	var broken []error
	for _, d := range documents {
		key, err := access.ReadKey(d)
		if err != nil {
			name := strings.TrimPrefix(d.Name, access.KeysNames)
			broken = append(broken, fmt.Errorf("key %q in Consul can't be read: %w: 'lbctl key revoke %s' deletes it", store.Key(d.Name), err, name))
			continue
		}
		keys = append(keys, showKey(*key))
	}
	err = printResult(opts.Out, opts.Output, keys, func() error {
		if len(keys) == 0 {
			_, err := fmt.Fprintln(opts.Out, "There are no keys.")
			return err
		}
		t := &table{header: []string{"NAME", "KIND", "SERVICES", "UNTIL", "BY", "WHY"}, shrinkFirst: 5}
		for _, k := range keys {
			until := cell{text: "for ever"}
			if !k.Until.IsZero() {
				until.text = clock(k.Until, opts.Now())
				if !k.Until.After(opts.Now()) {
					until.text += ", over"
				}
			}
			t.add(text(k.Name), text(k.Kind), text(forServices(k.Services)), until, text(printable.Line(k.By)), text(printable.Line(k.Why)))
		}
		return t.write(opts.Out, opts.Terminal)
	})
	return errors.Join(append(broken, err)...)
}

func newKeyRevokeCmd(f *factory) *cobra.Command {
	opts := newKeyOptions(f)
	cmd := &cobra.Command{
		Use:     "revoke NAME",
		Short:   "Delete a key: requests with it no longer pass",
		Example: `  lbctl key revoke shop -m "it was in a log"`,
		Args:    keyName(&opts.Name),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	messageFlag(flags, &opts.Why)
	opts.Store = storeFlags(flags)
	opts.Wait = accessWaitFlags(f, flags, &opts.Output, knowingKeys)
	cmd.ValidArgsFunction = completeKeys(opts.Store)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runKeyRevoke(cmd.Context(), opts) }
	return cmd
}

// completeKeys completes the name of a key.
func completeKeys(at *storeAddress) cobra.CompletionFunc {
	return completeStore(at, nil, func(ctx context.Context, store *kv.Store) ([]cobra.Completion, error) {
		documents, err := store.List(ctx, access.KeysNames)
		var names []cobra.Completion
		for _, d := range documents {
			about := "can't be read"
			if key, err := access.ReadKey(d); err == nil {
				if about = "for " + forServices(key.Services); key.Why != "" {
					about += ": " + key.Why
				}
			}
			names = append(names, cobra.CompletionWithDesc(strings.TrimPrefix(d.Name, access.KeysNames), printable.Line(about)))
		}
		return names, err
	})
}

// revokedKey is the document of key revoke.
type revokedKey struct {
	Name string `json:"name"`
}

func runKeyRevoke(ctx context.Context, opts *keyOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	before, err := store.Read(ctx, access.KeyName(opts.Name))
	if err != nil {
		return err
	}
	if !before.Exists() {
		return fmt.Errorf("revoke key %q: there is no such key, see 'lbctl key list'", opts.Name)
	}
	key, err := access.ReadKey(before)
	if err != nil { // a broken document can be removed, too
		key = &access.Key{Name: opts.Name}
	}
	if err := writeKey(ctx, store, "key revoke", opts.Why, key, kv.Edit{Before: before}); err != nil {
		return err
	}
	err = printResult(opts.Out, opts.Output, revokedKey{opts.Name}, func() error {
		_, err := fmt.Fprintf(opts.Out, "Key %s is revoked.\n", opts.Name)
		return err
	})
	if err != nil {
		return err
	}
	return opts.Wait.keys(ctx, store)
}
