package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/kv"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/printable"
	"lbctl/internal/render"
)

// servingPolicies is the condition of --wait.
const servingPolicies = "nginx serves the policies"

// wait waits until nginx serves the policies of edits that are written, and tells what the daemon
// says about them. It is a problem if their services are quarantined then, or if the policy
// "default" is refused: nginx does not have the newest policies. Services in before already were in
// quarantine, for another reason than a change of the policy "default".
func (w *policyWriter) wait(ctx context.Context, store *kv.Store, edits []policyEdit, before map[string]bool) error {
	index, err := newestIndex(ctx, store, edits)
	if err != nil {
		return err
	}
	client, err := w.Client()
	if err != nil {
		return err
	}
	status, err := w.Wait.until(ctx, client, servingPolicies, func(status controller.Status) (bool, error) {
		if err := samePrefix(status.Policies, store.Key("")); err != nil {
			return false, err
		}
		if status.State == controller.Frozen && status.Policies.ServedIndex < index {
			return false, problemFound("the policies are written, but a generation is pinned: 'lbctl resume' follows Consul again")
		}
		return status.Policies.ServedIndex >= index, nil
	})
	if err != nil {
		return err
	}
	var refused []string
	served := false
	for _, e := range edits {
		key := store.Key(e.Before.Name)
		kept := render.PolicyKept(status.Problems, key)
		if kept != "" {
			refused = append(refused, key+": "+kept)
		}
		for _, problem := range render.PolicyProblems(status.Problems, key) {
			if problem != kept {
				fmt.Fprintln(w.Err, printable.Line(key+": "+problem))
			}
		}
		service := policyfile.Service(e.Before.Name)
		if service == "" {
			refused = append(refused, w.refusedOfAll(ctx, client, before)...)
			served = true
			continue
		}
		found, err := client.Service(ctx, service)
		var unknown *admin.Error
		if errors.As(err, &unknown) && unknown.Status == http.StatusNotFound {
			fmt.Fprintln(w.Err, printable.Line(fmt.Sprintf("no service %q is balanced now: its policy has no effect until it comes", service)))
			continue
		}
		if err != nil {
			return err
		}
		served = true
		if found.State == endpoints.Quarantined {
			refused = append(refused, found.Name+": "+found.Reason)
		}
	}
	if len(refused) > 0 {
		return problemFound("nginx does not have the newest policy of %s", printable.Lines(strings.Join(refused, "\n")))
	}
	if served {
		fmt.Fprintln(w.Err, "done: "+servingPolicies)
	}
	return nil
}

// samePrefix returns an error if the daemon follows other documents than those that were written.
func samePrefix(followed controller.Documents, written string) error {
	if followed.Prefix == "" || followed.Prefix == written { // an older daemon does not say
		return nil
	}
	return problemFound("it is written below %q in Consul, but the daemon follows what is below %q: want the same --kv-prefix for both", written, followed.Prefix)
}

// refusedOfAll returns the services that are quarantined, except those that were before.
func (w *policyWriter) refusedOfAll(ctx context.Context, client *admin.Client, before map[string]bool) (refused []string) {
	services, err := client.Services(ctx)
	if err != nil {
		return nil // the daemon has just answered, and the policies are served
	}
	for _, s := range services {
		if s.State == endpoints.Quarantined && !before[s.Name] {
			refused = append(refused, s.Name+": "+s.Reason)
		}
	}
	return refused
}

// quarantined returns the services that are quarantined; none if no daemon answers.
func (w *policyWriter) quarantined(ctx context.Context) map[string]bool {
	client, err := w.Client()
	if err != nil {
		return nil
	}
	services, err := client.Services(ctx)
	if err != nil {
		return nil
	}
	all := map[string]bool{}
	for _, s := range services {
		if s.State == endpoints.Quarantined {
			all[s.Name] = true
		}
	}
	return all
}

// newestIndex returns the highest index of Consul at which one of the policies was written.
func newestIndex(ctx context.Context, store *kv.Store, edits []policyEdit) (uint64, error) {
	var newest uint64
	documents := make([]kv.Document, len(edits))
	for n, e := range edits {
		documents[n] = e.Before
		newest = max(newest, e.Before.Index)
	}
	entries, err := store.Latest(ctx, documents)
	for _, e := range entries {
		newest = max(newest, e.Index)
	}
	return newest, err
}
