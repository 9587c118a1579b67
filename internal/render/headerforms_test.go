package render

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	grpcmetadata "google.golang.org/grpc/metadata"

	"lbctl/internal/nginxtest"
)

func TestOtherForms(t *testing.T) {
	assert.Empty(t, otherForms("Simple"))
	assert.Equal(t, []string{"A_B"}, otherForms("A-B"))
	assert.ElementsMatch(t, []string{"A-B-C", "A-B_C", "A_B_C"}, otherForms("A_B-C"))
	assert.Len(t, otherForms("A-B-C-D"), 7)
	assert.Equal(t, []string{"A-B-C-D-E", "A_B_C_D_E"}, otherForms("A-B_C-D-E"))
	assert.Equal(t, []Header{{Name: "A-B"}, {Name: "A_B", Values: []string{"1"}}, {Name: "C-D", Keep: true}},
		withOtherForms([]Header{{Name: "A-B"}, {Name: "A_B", Keep: true, Values: []string{"1"}}, {Name: "C-D", Keep: true}}))
}

// Some servers take "_" for "-", so that a client could set what it must not.
func TestNoFormOfAHeaderPasses(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		var got grpcmetadata.MD
		b := startBalancer(t, binary, nil,
			one("calls", grpcEcho(t, &got), tags("grpc_server"), meta("lb-paths", `{"/any.Service/Policy": {"headers.request.set": {"X-Team": "set", "X-Both": "1", "X_Both": "2"}, "headers.request.remove": "X-Internal-User, A_B", "headers.request.add": {"X-More": "added"}}, "/any.Service/Safe": {"retry.safe": true}}`)),
		)
		conn := b.dial(t, "localhost")
		lbctls := []string{"x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-client-cert-subject", "x-lb-user"}
		forms := otherForms(append(lbctls, "x-team", "x-both", "x-internal-user", "a-b")...)
		for _, method := range []string{"Plain", "Policy", "Safe"} {
			ctx := grpcmetadata.AppendToOutgoingContext(t.Context(), "x-real-ip", "forged", "x-lb-user", "forged", "x_more", "kept")
			for _, form := range forms {
				ctx = grpcmetadata.AppendToOutgoingContext(ctx, form, "forged")
			}
			_, err := callIn(ctx, conn, "/any.Service/"+method)
			require.NoError(t, err)
			forbidden := append(otherForms(lbctls...), "x-real-ip", "x-lb-user")
			if method == "Policy" {
				forbidden = append(forbidden, otherForms("x-team", "x-internal-user", "a_b", "a-b")...)
				assert.Equal(t, []string{"set"}, got.Get("x-team"))
				assert.Equal(t, []string{"1", "2"}, append(got.Get("x-both"), got.Get("x_both")...), "the policy has both")
			} else {
				assert.Equal(t, []string{"forged"}, got.Get("x_team"), "nobody minds")
			}
			for _, form := range forbidden {
				assert.Empty(t, got.Get(form), "%s %s", method, form)
			}
			assert.Equal(t, []string{"kept"}, got.Get("x_more"))
			assert.Equal(t, []string{"127.0.0.1"}, got.Get("x-forwarded-for"))
		}
	})
}
