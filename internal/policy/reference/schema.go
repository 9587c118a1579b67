package reference

import (
	"bytes"
	"encoding/json"
	"maps"

	"lbctl/internal/policy"
)

// Schema returns a JSON schema of a document in a file, for editors. lbctl refuses some values
// that it accepts, such as a duration that is too long, and accepts a few other forms, such as a
// number in quotes.
func Schema() []byte {
	fields, perPath := object{}, object{}
	for _, f := range policy.Fields() {
		fields[f.Name] = value(f)
		if f.PerPath {
			perPath[f.Name] = object{"$ref": "#/properties/" + f.Name}
		}
	}
	properties := object{
		"$schema": object{"description": "This schema. lbctl ignores it.", "type": "string"},
		"name": object{
			"description": `Which policy it is: "default", or a service as "cart" or "service/cart".`,
			"type":        "string",
			"pattern":     `^(service/)?[A-Za-z0-9_-]{1,255}$`,
		},
		"paths": object{
			"description":          `Fields for some paths of the service: "/api" for that path and all below it, "=/api" for that path alone, "/package.Service/Method" for a gRPC method.`,
			"type":                 "object",
			"propertyNames":        object{"pattern": "^=?/"},
			"additionalProperties": object{"type": "object", "properties": perPath, "additionalProperties": false},
		},
	}
	maps.Copy(properties, fields)
	schema := object{
		"$schema":              "http://json-schema.org/draft-07/schema#", // the newest that all editors know
		"title":                "A policy of lbctl",
		"description":          "How a service is balanced. Each field is documented by 'lbctl policy explain FIELD'.",
		"type":                 "object",
		"properties":           properties,
		"additionalProperties": false,
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(schema) // it has only texts, numbers and maps of them
	return text.Bytes()
}

type object = map[string]any

func value(f policy.Field) object {
	of := maps.Clone(f.Schema())
	return object{
		"description": f.Doc + " Values: " + f.Want + ". Default: " + Default(f) + ".",
		"anyOf":       []object{of, {"const": policy.BuiltIn}},
	}
}
