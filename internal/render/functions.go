package render

import (
	"fmt"
	"text/template"

	"lbctl/internal/nginx"
	"lbctl/internal/policy"
)

// functions are the functions that templates have beside consul-template's own. They are
// pure: the same catalog and settings give the same text.
func functions(catalog Catalog, settings Settings) template.FuncMap {
	m := template.FuncMap{
		"catalog":  func() Catalog { return catalog },
		"settings": func() Settings { return settings },
		"quote":    quote,

		"quoteHeader": quoteHeader,
		"otherForms":  otherForms,
		"builtin":     policy.Default,
		"nginxAtLeast": func(version string) (bool, error) {
			return nginx.AtLeast(settings.NginxVersion, version)
		},
	}
	for name, why := range refused {
		m[name] = func(...any) (any, error) { return nil, fmt.Errorf("%s can't be used here: %s", name, why) }
	}
	return m
}

// refused has consul-template's functions that would do harm, each with the reason.
var refused = map[string]string{
	"secret":           noVault,
	"secrets":          noVault,
	"pkiCert":          noVault,
	"nomadServices":    noNomad,
	"nomadService":     noNomad,
	"nomadVar":         noNomad,
	"nomadVarList":     noNomad,
	"nomadVarListSafe": noNomad,
	"nomadVarExists":   noNomad,
	"plugin":           "a template runs no commands",
	"writeToFile":      "a template renders to the file of its name only",
	"safeLs":           "it waits for ever for a key that isn't there; use ls",
	"safeTree":         "it waits for ever for a key that isn't there; use tree",
}

const (
	noVault = "lbctl talks to Consul only, not to Vault"
	noNomad = "lbctl talks to Consul only, not to Nomad"
)

// quote writes a value as one word of nginx's configuration.
func quote(value any) (string, error) {
	text, ok := value.(string)
	if !ok {
		text = fmt.Sprint(value)
	}
	return nginx.Quote(text)
}
