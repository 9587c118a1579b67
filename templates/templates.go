// Package templates holds the templates that nginx's configuration is made
// from, so that lbctl needs no file beside its binary. docs/templates.md says
// what they are given and how to write one's own.
package templates

import "embed"

// FS has every *.ctmpl of this directory. Each renders to the file of its name
// without the suffix; nginx.conf.ctmpl is the main one. Those in partials render
// to no file: they define blocks that the others use.
//
//go:embed *.ctmpl partials/*.ctmpl
var FS embed.FS
