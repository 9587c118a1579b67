package render

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	gotemplate "text/template"
	"text/template/parse"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/routing"
)

// rendering is the result of executing all templates.
type rendering struct {
	files map[string][]byte
	// needs has the queries to Consul that the templates made with consul-template's own
	// functions; missing has those without an answer yet. While any is missing, the files
	// were made from empty answers, and must not be used.
	needs   map[string]dependency.Dependency
	missing []string
	// problems has the templates that failed. files has nothing from them.
	problems  []Problem
	hash      string
	delivered delivered
	// unusable has the instances in rotation that have no server, by service.
	unusable  map[string][]endpoints.Unusable
	listeners []routing.Listener
}

func (r *rendering) configuration(entries []endpoints.Entry, problems []Problem) Configuration {
	return Configuration{
		Files:     r.files,
		Hash:      r.hash,
		Upstreams: r.delivered.upstreams,
		ByReload:  r.delivered.byReload,
		Written:   r.delivered.written,
		crowded:   r.delivered.crowded,
		Entries:   entries,
		Listeners: r.listeners,
		Problems:  problems,
	}
}

// execute renders all templates of the set, with the answers in the brain.
func execute(set templateSet, funcs gotemplate.FuncMap, brain *template.Brain) rendering {
	r := rendering{files: make(map[string][]byte, len(set)), needs: map[string]dependency.Dependency{}}
	for _, name := range set.names() {
		joined := set.withPartials(name)
		result, err := executeOne(joined.text, funcs, brain)
		if err != nil {
			r.problems = append(r.problems, Problem{Subject: "template " + name, Message: joined.describe(err)})
			// It may have failed because a query has no answer yet. Note the queries of
			// the template, because the failed execution did not.
			for _, query := range literalQueries(joined.text) {
				if result, err := executeOne(query, funcs, brain); err == nil {
					r.note(result)
				}
			}
			continue
		}
		r.note(result)
		r.files[strings.TrimSuffix(name, suffix)] = bytes.TrimSuffix(result.Output, []byte(joined.between))
	}
	return r
}

func (r *rendering) note(result *template.ExecuteResult) {
	for _, d := range result.Used.List() {
		r.needs[d.String()] = d
	}
	for _, d := range result.Missing.List() {
		r.missing = append(r.missing, d.String())
	}
}

func executeOne(contents string, funcs gotemplate.FuncMap, brain *template.Brain) (result *template.ExecuteResult, err error) {
	if contents == "" { // consul-template returns an error for an empty template
		return &template.ExecuteResult{Used: &dependency.Set{}, Missing: &dependency.Set{}}, nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	t, err := template.NewTemplate(&template.NewTemplateInput{Contents: contents, ExtFuncMap: funcs})
	if err != nil {
		return nil, err
	}
	return t.Execute(&template.ExecuteInput{Brain: brain})
}

var errorPlace = regexp.MustCompile(`(?:^(?:parse|execute): )?template: :(\d+)(?::\d+)?: (?:executing "" )?`)

// describe returns the text of an error of consul-template, with the name and line of the
// template. consul-template itself doesn't know the name.
func (j joined) describe(err error) string {
	text := errorPlace.ReplaceAllStringFunc(err.Error(), func(place string) string {
		line, _ := strconv.Atoi(errorPlace.FindStringSubmatch(place)[1]) // the pattern matches only digits
		return j.place(line) + ": "
	})
	return strings.ReplaceAll(text, "\n", " ")
}

// queryFunctions are consul-template's functions that ask Consul.
var queryFunctions = []string{
	"caLeaf", "caRoots", "connect", "datacenters", "exportedServices", "file", "key", "keyExists",
	"keyOrDefault", "ls", "node", "nodes", "partitions", "peerings", "service", "services", "tree",
}

// literalQueries finds the calls of query functions in a template that have only literal
// arguments, and makes a template from each.
func literalQueries(contents string) []string {
	t := parse.New("")
	t.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := t.Parse(contents, "", "", trees); err != nil {
		return nil // executing it has reported the error
	}
	queries := map[string]bool{}
	var visit func(parse.Node)
	visitPipe := func(p *parse.PipeNode) {
		if p == nil {
			return
		}
		for n, command := range p.Cmds {
			for _, arg := range command.Args {
				visit(arg)
			}
			if n == 0 && isLiteralQuery(command) {
				queries["{{$_ := "+command.String()+"}}"] = true
			}
		}
	}
	visitBranch := func(b parse.BranchNode) {
		visitPipe(b.Pipe)
		visit(b.List)
		visit(b.ElseList)
	}
	visit = func(node parse.Node) {
		switch n := node.(type) {
		case *parse.ListNode:
			if n != nil {
				for _, child := range n.Nodes {
					visit(child)
				}
			}
		case *parse.ActionNode:
			visitPipe(n.Pipe)
		case *parse.PipeNode:
			visitPipe(n)
		case *parse.ChainNode:
			visit(n.Node)
		case *parse.TemplateNode:
			visitPipe(n.Pipe)
		case *parse.IfNode:
			visitBranch(n.BranchNode)
		case *parse.RangeNode:
			visitBranch(n.BranchNode)
		case *parse.WithNode:
			visitBranch(n.BranchNode)
		}
	}
	for _, tree := range trees {
		visit(tree.Root)
	}
	return slices.Sorted(maps.Keys(queries))
}

func isLiteralQuery(command *parse.CommandNode) bool {
	function, ok := command.Args[0].(*parse.IdentifierNode)
	if !ok || !slices.Contains(queryFunctions, function.Ident) {
		return false
	}
	for _, arg := range command.Args[1:] {
		if _, ok := arg.(*parse.StringNode); !ok {
			return false
		}
	}
	return true
}

// checkFiles checks that the rendered files have what every configuration needs.
func checkFiles(files map[string][]byte) error {
	main, ok := files[nginx.MainFile]
	if !ok {
		return errors.New("there is no " + mainTemplate)
	}
	if nginx.IncludesGeneration(main) {
		return nil
	}
	return fmt.Errorf("it renders to a file without \"include %s;\", want that line in http{}: without it lbctl can't check which configuration nginx serves", nginx.GenerationFile)
}

// hash returns a hash over the names and contents of all files.
func hash(files map[string][]byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%d %s %d ", len(name), name, len(files[name]))
		h.Write(files[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}
