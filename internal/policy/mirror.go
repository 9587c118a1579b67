package policy

import (
	"regexp"
	"strconv"
	"strings"
)

// Mirror sends copies of requests to another service, and ignores its answers.
type Mirror struct {
	Service string
	Percent Percent // 0: all
}

// Percent is a share of requests.
type Percent float64

// String returns the share as nginx writes it: "0.5".
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) }

var (
	serviceName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)
	percentPattern = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,2})?$`)
)

// percents are shares above 0, in steps of 0.01.
func percents() kind[Percent] {
	return kind[Percent]{
		want: "a percentage from 0.01 to 100, with at most two digits after the point",
		parse: func(text string) (Percent, bool) {
			p, err := strconv.ParseFloat(text, 64)
			return Percent(p), err == nil && percentPattern.MatchString(text) && p > 0 && p <= 100
		},
		text: func(p Percent) string {
			if p == 0 {
				return ""
			}
			return p.String()
		},
		json:   formNumber,
		bounds: []string{"0.01", "100"},
	}
}

var mirrorFields = []Field{
	field("mirror.service", func(p *Policy) *string { return &p.Mirror.Service },
		texts[string]("the name of a service of the same protocol family", func(text string) bool { return serviceName.MatchString(text) && text != BuiltIn }), "cart-next",
		"The service that gets a copy of each request. Clients get the answers of their own service only. nginx reads the whole request first, so a stream of requests never gets an answer: of gRPC, only single unary methods can be mirrored.",
		perPath, suits(func(family string, v Value) string {
			if family == GRPC && strings.Count(string(v.Path), "/") != 2 {
				return `it has no effect on a whole gRPC service: want it in paths, for single unary methods, "/package.Service/Method"`
			}
			return ""
		})),
	field("mirror.percent", func(p *Policy) *Percent { return &p.Mirror.Percent }, percents(), "10",
		"The share of requests that are copied.",
		defaults("100"), unit("percent"), perPath),
}
