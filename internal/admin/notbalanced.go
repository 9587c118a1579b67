package admin

import (
	"fmt"

	"lbctl/internal/metadata"
	"lbctl/internal/spelling"
)

// A Catalog is the API's view of the list of services in Consul.
type Catalog interface {
	// Listed reports whether Consul lists a service, and the tags of its instances.
	// known is false until Consul has answered.
	Listed(service string) (tags []string, listed, known bool)
}

// notBalanced returns an error that says, as far as it is known, why there is no balanced service
// with the name. balanced has the names of the balanced services.
func (s *Server) notBalanced(name string, balanced []string) error {
	var tags []string
	var listed, known bool
	if s.Catalog != nil {
		tags, listed, known = s.Catalog.Listed(name)
	}
	switch tag, meant := metadata.MistypedTag(tags); {
	case listed && !metadata.ValidName(name):
		return fmt.Errorf(`service %q can't be balanced: its name has other characters than letters, digits, "-" and "_", or more than 255`, name)
	case listed && metadata.HasTag(tags):
		return fmt.Errorf("service %q is not balanced, though it has one of the tags %s and %s: 'lbctl status' shows why if its data is wrong; sidecar proxies and gateways are never balanced",
			name, metadata.TagGRPC, metadata.TagHTTP)
	case listed && tag != "":
		return fmt.Errorf("service %q is in Consul, but nothing asks lbctl to balance it. It has the tag %q: did you mean %q?", name, tag, meant)
	case listed:
		return fmt.Errorf("service %q is in Consul, but nothing asks lbctl to balance it: it has neither lb-... metadata nor one of the tags %s and %s",
			name, metadata.TagGRPC, metadata.TagHTTP)
	}
	text := fmt.Sprintf("no balanced service %q", name)
	if known {
		text = fmt.Sprintf("Consul has no service %q", name)
	}
	switch nearest := spelling.Nearest(name, balanced); {
	case len(balanced) == 0:
		return fmt.Errorf("%s, and no service is balanced", text)
	case nearest != "":
		return fmt.Errorf("%s; did you mean %q?", text, nearest)
	}
	return fmt.Errorf("%s; want one of %s", text, firstNames(balanced))
}
