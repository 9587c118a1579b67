package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"lbctl/internal/lbtest"
	"lbctl/protos"
)

// TestConsistentHashingByDNS adds an instance to a service with consistent hashing. Callers move
// to it only, without a reload, also those whose calls may be sent twice.
func TestConsistentHashingByDNS(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, meta := range map[string]map[string]string{
		"grpc_pass":  {"lb-balance-algorithm": "hash:header:x-user"},
		"proxy_pass": {"lb-balance-algorithm": "hash:header:x-user", "lb-paths": `{"/protos.Ping/SayHello": {"retry.safe": true}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := alone(t, asking(t))
			add := func(n int) {
				b := lbtest.StartBackend(t, fmt.Sprint("server-", n))
				r := b.Registration(hello)
				// nginx would make 80,000 points for each of them.
				r.Meta, r.Weights = meta, &api.AgentWeights{Passing: 500, Warning: 1}
				require.NoError(t, s.consul.Agent().ServiceRegister(r))
			}
			for n := range 4 {
				add(n)
			}
			s.WaitServing(hello, 4)
			generation := s.settled(t, 1)
			conn, err := grpc.NewClient("passthrough:///"+s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(t, err)
			defer conn.Close()
			const users = 200
			at := func(user int) string {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				ctx = metadata.AppendToOutgoingContext(ctx, "x-user", fmt.Sprint("user-", user))
				answer, err := protos.NewPingClient(conn).SayHello(ctx, &protos.PingMessage{})
				require.NoError(t, err)
				return answer.Greeting
			}
			var before [users]string
			seen := map[string]bool{}
			for user := range users {
				before[user] = at(user)
				seen[before[user]] = true
			}
			require.Len(t, seen, 4)
			for user := range users {
				require.Equal(t, before[user], at(user))
			}

			add(4)
			s.WaitServing(hello, 5)
			s.Eventually("the new instance answers", func() error {
				for user := range users {
					if at(user) == "server-4" {
						return nil
					}
				}
				return fmt.Errorf("none of %d", users)
			})
			moved := 0
			for user := range users {
				if now := at(user); now != before[user] {
					assert.Equal(t, "server-4", now, "user %d was at %s", user, before[user])
					moved++
				}
			}
			assert.Less(t, moved, users*2/5, "a fifth is expected")
			status, err := s.Status()
			require.NoError(t, err)
			assert.Equal(t, generation, status.Nginx.Generation, "without a reload")
		})
	}
}
