package render

import "lbctl/internal/routing"

// Rewrite returns how the path is replaced for instances, nil if it stays as it is.
func (l Location) Rewrite() *routing.Replaced {
	return l.replaced("path.replace-prefix", l.Policy.Path.ReplacePrefix)
}

// RedirectRewrite returns how a redirect replaces the path, nil if it keeps or names the path.
func (l Location) RedirectRewrite() *routing.Replaced {
	if l.Policy.Redirect.Path != "" {
		return nil
	}
	return l.replaced("redirect.replace-prefix", l.Policy.Redirect.ReplacePrefix)
}

func (l Location) replaced(field, to string) *routing.Replaced {
	return routing.NewReplaced(l.Spec.Policy, field, to, l.routePath, l.policyPath)
}

// forwardedPrefix tells instances which prefix of the path they don't see.
func (l Location) forwardedPrefix() []Header {
	if r := l.Rewrite(); r != nil && r.From != "" {
		return []Header{{Name: "X-Forwarded-Prefix", Values: []string{r.From}}}
	}
	return nil
}
