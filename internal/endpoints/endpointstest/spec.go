// Package endpointstest helps with tests about services.
package endpointstest

import (
	"fmt"
	"iter"
	"reflect"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
)

// Changes gives, for every field of a Spec, a copy of base that differs in that field
// alone, under the field's name. A field that is a struct gives one copy for each of
// its own fields. It panics on a field that it can't change.
func Changes(base endpoints.Spec) iter.Seq2[string, endpoints.Spec] {
	return func(yield func(string, endpoints.Spec) bool) {
		changes(reflect.ValueOf(base), "", func(field string, index []int, value reflect.Value) bool {
			changed := base
			reflect.ValueOf(&changed).Elem().FieldByIndex(index).Set(value)
			return yield(field, changed)
		})
	}
}

// changes calls yield for every field of the struct v, with another value for it.
func changes(v reflect.Value, prefix string, yield func(field string, index []int, value reflect.Value) bool) bool {
	for n := range v.NumField() {
		name := prefix + v.Type().Field(n).Name
		if v.Field(n).Kind() == reflect.Struct && v.Field(n).Type() != reflect.TypeFor[policy.Settings]() {
			inner := func(field string, index []int, value reflect.Value) bool {
				return yield(field, append([]int{n}, index...), value)
			}
			if !changes(v.Field(n), name+".", inner) {
				return false
			}
			continue
		}
		if !yield(name, []int{n}, other(name, v.Field(n))) {
			return false
		}
	}
	return true
}

// other is a valid value that differs from v.
func other(name string, v reflect.Value) reflect.Value {
	switch old := v.Interface().(type) {
	case endpoints.Protocol:
		if old == endpoints.HTTPS {
			return reflect.ValueOf(endpoints.HTTP)
		}
		return reflect.ValueOf(endpoints.HTTPS)
	case policy.Settings:
		return reflect.ValueOf(policy.Resolve(append(old.Layers(), policytest.Layer(policy.LevelService, "lb/service/other", "check", "http:/other"))...))
	}
	changed := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Bool:
		changed.SetBool(!v.Bool())
	case reflect.String:
		changed.SetString(v.String() + "other")
	case reflect.Int, reflect.Int64:
		changed.SetInt(v.Int() + 1)
	case reflect.Float64:
		changed.SetFloat(v.Float() + 1)
	case reflect.Slice:
		changed.Set(reflect.AppendSlice(changed, v))
		added := reflect.New(v.Type().Elem()).Elem()
		if added.Kind() == reflect.Struct {
			added.Field(0).Set(other(name, added.Field(0)))
		} else {
			added.Set(other(name, added))
		}
		changed.Set(reflect.Append(changed, added))
	case reflect.Map:
		changed.Set(reflect.MakeMap(v.Type()))
		for k, e := range v.Seq2() {
			changed.SetMapIndex(k, e)
		}
		changed.SetMapIndex(other(name, reflect.New(v.Type().Key()).Elem()), reflect.New(v.Type().Elem()).Elem())
	default:
		panic(fmt.Sprintf("field %s is a %s: teach endpointstest how to change it", name, v.Type()))
	}
	return changed
}

// Full is a valid Spec in which no field is zero.
func Full() endpoints.Spec {
	spec := endpoints.Spec{
		Protocol: endpoints.HTTP,
		Routes:   []endpoints.Route{{Host: "example.com", Path: "/api"}},
		Policy:   policytest.Settings("check", "http:/health"),
	}
	full := reflect.ValueOf(&spec).Elem()
	changes(full, "", func(_ string, index []int, value reflect.Value) bool {
		if v := full.FieldByIndex(index); v.IsZero() {
			v.Set(value)
		}
		return true
	})
	return spec
}
