package metadata

import (
	"net/netip"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"

	"lbctl/internal/consultest"
)

func TestAddressesThatNoInstanceCanHave(t *testing.T) {
	r := Reserved{Sockets: []netip.AddrPort{
		netip.MustParseAddrPort("0.0.0.0:5000"), netip.MustParseAddrPort("[::]:8080"),
		netip.MustParseAddrPort("127.0.0.1:9153"), netip.MustParseAddrPort("10.9.9.9:9119"),
	}}
	for _, tt := range []struct{ at, want string }{
		{"127.0.0.1:5000", "the balancer itself listens at 0.0.0.0:5000"},
		{"[::1]:8080", "the balancer itself listens at [::]:8080"},
		{"[::ffff:127.0.0.1]:8080", "the balancer itself listens at [::]:8080"},
		{"127.0.0.1:9153", "the balancer itself listens at 127.0.0.1:9153"},
		{"[::ffff:127.0.0.1]:9153", "the balancer itself listens at 127.0.0.1:9153"},
		{"10.9.9.9:9119", "the balancer itself listens at 10.9.9.9:9119"},
		{"0.0.0.0:80", "it is not the address of a machine"},
		{"[::]:80", "it is not the address of a machine"},
		{"[::ffff:0.0.0.0]:80", "it is not the address of a machine"},
		{"169.254.169.254:80", "it is link-local, as metadata services are"},
		{"[fe80::1]:80", "it is link-local, as metadata services are"},
		{"[fd00:ec2::254]:80", "it is a cloud's metadata service"},
		{"[ff02::1]:80", "it is a multicast or broadcast address"},
		{"224.0.0.1:80", "it is a multicast or broadcast address"},

		{"[::169.254.169.254]:80", "it stands for 169.254.169.254, and it is link-local, as metadata services are"},
		{"[64:ff9b::a9fe:a9fe]:80", "it stands for 169.254.169.254, and it is link-local, as metadata services are"},
		{"[64:ff9b::6464:64c8]:80", "it stands for 100.100.100.200, and it is a cloud's metadata service"},
		{"[64:ff9b:1::a9fe:a9fe]:80", "it stands for 169.254.169.254, and it is link-local, as metadata services are"},
		{"[64:ff9b:1:a9fe:a9:fe00::]:80", "it stands for 169.254.169.254, and it is link-local, as metadata services are"},
		{"[64:ff9b:1:a9:fe:a9fe::]:80", "it stands for 169.254.169.254, and it is link-local, as metadata services are"},
		{"[64:ff9b:1:0:a9:fea9:fe00:0]:80", "it stands for 169.254.169.254, and it is link-local, as metadata services are"},
		{"[2002:a9fe:a9fe::]:80", "it stands for 169.254.169.254, and it is link-local, as metadata services are"},
		{"[64:ff9b::]:80", "it stands for 0.0.0.0, and it is not the address of a machine"},
		{"[2002:7f00:1::1]:8080", "it stands for 127.0.0.1, and the balancer itself listens at [::]:8080"},
		{"[64:ff9b::7f00:1]:9153", "it stands for 127.0.0.1, and the balancer itself listens at 127.0.0.1:9153"},
		{"[64:ff9b:1::7f00:1]:9153", "it stands for 127.0.0.1, and the balancer itself listens at 127.0.0.1:9153"},
		{"[::10.9.9.9]:9119", "it stands for 10.9.9.9, and the balancer itself listens at 10.9.9.9:9119"},

		{"127.0.0.2:9153", ""},
		{"[64:ff9b::a01:203]:5000", ""},
		{"[64:ff9b:1::a01:203]:5000", ""},
		{"[64:ff9b:1:a01:2:300::]:5000", ""},
		{"[2002:a01:203::1]:5000", ""},
		{"[::1]:7001", ""},
		{"127.0.0.1:7001", ""},
		{"10.1.2.3:5000", ""},
		{"10.1.2.3:9119", ""},
		{"[fd00:ec2::253]:80", ""},
	} {
		assert.Equal(t, tt.want, r.Refuse(netip.MustParseAddrPort(tt.at)), tt.at)
	}
}

func TestARefusedInstanceHarmsItselfOnly(t *testing.T) {
	reserved := Reserved{Sockets: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8080")}}
	s := Parse("x", []*api.ServiceEntry{
		consultest.Entry("x", "bad", "127.0.0.1", 8080, consultest.Tags("http_server")),
		consultest.Entry("x", "good", "127.0.0.1", 8081, consultest.Tags("http_server")),
	}, reserved)
	assert.True(t, s.OK)
	assert.Len(t, s.Instances, 1)
	assert.Equal(t, []string{`instance "bad": address "127.0.0.1:8080": the balancer itself listens at 0.0.0.0:8080: it gets no traffic`}, s.Problems)
}
