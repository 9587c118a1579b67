package metadata

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

func TestGRPCServicesFitIntoMetadata(t *testing.T) {
	names := func(n, length int) []string {
		var all []string
		for i := range n {
			name := fmt.Sprintf("pkg%03d.", i)
			all = append(all, name+strings.Repeat("S", length-len(name)))
		}
		return all
	}
	for _, c := range []struct {
		name string
		all  []string
		keys int
	}{
		{"none", nil, 0},
		{"one", names(1, 20), 1},
		{"as many as fit into one value", names(4, 127), 1},
		{"one character more", names(4, 128), 2},
		{"as many as lbctl takes", names(64, 40), 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			pairs, err := GRPCServices(c.all)
			require.NoError(t, err)
			assert.Len(t, pairs, c.keys)
			for key, value := range pairs {
				assert.True(t, IsGRPCServicesKey(key), key)
				assert.LessOrEqual(t, len(value), 512)
			}
			e := consultest.Entry("x", "x-1", "10.0.0.1", 80, consultest.Tags("grpc_server"))
			e.Service.Meta = pairs
			s := Parse("x", []*api.ServiceEntry{e}, Reserved{})
			assert.Empty(t, s.Problems)
			assert.Len(t, s.Routes, len(c.all), "lbctl reads all of them")
			assert.True(t, s.Default)
			assert.Equal(t, len(c.all) > 0, s.Yields)
		})
	}
	_, err := GRPCServices(names(65, 20))
	assert.EqualError(t, err, "65 gRPC services, want at most 64")
	_, err = GRPCServices([]string{"bad name"})
	assert.ErrorContains(t, err, `gRPC service "bad name", want full names of gRPC services like "shop.Cart"`)
}

func TestTheDefaultOfASingleInstanceIsFirm(t *testing.T) {
	found := consultest.Entry("x", "a", "10.0.0.1", 80, consultest.Tags("grpc_server"), consultest.Meta("grpc-services", "shop.Cart"))
	plain := consultest.Entry("x", "b", "10.0.0.2", 80, consultest.Tags("grpc_server"))
	s := Parse("x", []*api.ServiceEntry{found, plain}, Reserved{})
	assert.True(t, s.Default)
	assert.False(t, s.Yields, "an instance says nothing of its services, so it asks for all calls")
	assert.Len(t, s.Routes, 1)
}

func TestIsGRPC(t *testing.T) {
	assert.True(t, IsGRPC([]string{"grpc_server"}, nil))
	assert.True(t, IsGRPC(nil, map[string]string{"lb-protocol": "grpcs"}))
	assert.False(t, IsGRPC([]string{"http_server"}, nil))
	assert.False(t, IsGRPC(nil, nil))
	assert.False(t, IsGRPC([]string{"grpc_server", "http_server"}, nil))
}
