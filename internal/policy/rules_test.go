package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func messages(problems []Problem) (all []string) {
	for _, p := range problems {
		all = append(all, p.Message)
	}
	return all
}

func TestValuesWithoutAnEffectBesideOthers(t *testing.T) {
	const byDefault, byService = "lb/default", "lb/service/web"
	for name, tt := range map[string]struct {
		layers map[string]string
		want   []string
	}{
		"a value without the one that it is for": {
			map[string]string{byService: `{"limit.address.burst": 5, "sticky.ttl": "1h", "mirror.percent": 5}`},
			[]string{
				"lb/service/web: limit.address.burst 5: it has no effect without limit.address.rate",
				"lb/service/web: sticky.ttl 1h: it has no effect without sticky.cookie",
				"lb/service/web: mirror.percent 5: it has no effect without mirror.service",
			},
		},
		"another layer has that one": {map[string]string{byService: `{"limit.address.burst": 5}`, SourceMetadata: `{"limit.address.rate": "5/s"}`}, nil},
		"a path has that one":        {map[string]string{byService: `{"limit.address.burst": 5, "paths": {"/a": {"limit.address.rate": "5/s"}}}`}, nil},
		"only another path has it": {
			map[string]string{byService: `{"paths": {"/a": {"limit.address.burst": 5}, "/b": {"limit.address.rate": "5/s"}}}`},
			[]string{"lb/service/web: limit.address.burst 5 for /a: it has no effect without limit.address.rate"},
		},
		"the operator's default waits for services that set it": {map[string]string{byDefault: `{"limit.address.burst": 5, "compression.min-length": "2k"}`}, nil},
		"switched off": {
			map[string]string{byService: `{"compression.gzip": false, "compression.min-length": "2k"}`, byDefault: `{"compression.gzip": true}`},
			[]string{"lb/service/web: compression.min-length 2k: it has no effect without compression.gzip"},
		},
		"one of several is enough": {map[string]string{byService: `{"redirect.code": 308, "redirect.host": "a"}`}, nil},
		"none of several": {
			map[string]string{byService: `{"redirect.code": 308}`},
			[]string{"lb/service/web: redirect.code 308: it has no effect without redirect.scheme or redirect.host or redirect.path or redirect.replace-prefix"},
		},
		"two layers that can't both hold": {
			map[string]string{SourceMetadata: `{"cors.allow-credentials": true}`, byService: `{"cors.allow-origins": "*"}`},
			[]string{`metadata: cors.allow-credentials on: it has no effect with cors.allow-origins ["*"] of lb/service/web, want the origins by name`},
		},
		"the default and a service that can't both hold": {
			map[string]string{byDefault: `{"redirect.replace-prefix": "/a"}`, SourceMetadata: `{"redirect.path": "/b"}`},
			[]string{"lb/default: redirect.replace-prefix /a: it has no effect with redirect.path /b of metadata, want one of them"},
		},
		"for one path only": {
			map[string]string{SourceMetadata: `{"cors.allow-origins": "https://a", "cors.allow-credentials": true, "paths": {"/a": {"cors.allow-origins": "*"}}}`},
			[]string{`metadata: cors.allow-credentials on: it has no effect with cors.allow-origins ["*"] for /a, want the origins by name`},
		},
		"certificates of instances": {
			map[string]string{byService: `{"tls.verify": true, "tls.certificate": "/a.pem"}`},
			[]string{
				"lb/service/web: tls.verify on: it has no effect without tls.server-name, because Consul has addresses, and certificates are for names",
				"lb/service/web: tls.verify on: it has no effect without tls.ca, the file of the authorities",
				"lb/service/web: tls.certificate /a.pem: it has no effect without tls.certificate-key",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []Layer
			for source, text := range tt.layers {
				layers = append(layers, layer(t, source, text))
			}
			_, problems := Resolve(layers...).For(HTTP, "1.30.6", func(string) bool { return true })
			assert.Equal(t, tt.want, messages(problems))
		})
	}
}

func TestProblemsNameBothLayers(t *testing.T) {
	_, problems := Resolve(layer(t, SourceMetadata, `{"cors.allow-credentials": true}`), layer(t, "lb/default", `{"cors.allow-origins": "*"}`)).
		For(HTTP, "1.30.6", func(string) bool { return true })
	if assert.Len(t, problems, 1) {
		assert.Equal(t, []string{SourceMetadata, "lb/default"}, problems[0].Sources)
	}
}

func TestRulesNameFields(t *testing.T) {
	for _, r := range rules {
		for _, name := range append(r.without, r.field) {
			assert.Contains(t, byName, name)
		}
		if r.beside != "" {
			assert.Contains(t, byName, r.beside)
		}
	}
}
