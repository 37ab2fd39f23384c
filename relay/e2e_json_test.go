package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// outputSchema is docs/schema/output.schema.json, one schema a type of envelope.
var outputSchema = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	const url = "output.schema.json"
	raw, err := os.ReadFile(filepath.Join("..", "docs", "schema", url))
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(url, doc); err != nil {
		return nil, err
	}
	schemas := map[string]*jsonschema.Schema{}
	if schemas[""], err = c.Compile(url); err != nil {
		return nil, err
	}
	for name := range doc.(map[string]any)["$defs"].(map[string]any) {
		if typ, ok := strings.CutPrefix(name, "envelope-"); ok {
			if schemas[typ], err = c.Compile(url + "#/$defs/" + name); err != nil {
				return nil, err
			}
		}
	}
	return schemas, nil
})

// checkEnvelope holds what a program printed with --json against the schema: one
// line with one envelope. With an exit code other than 0 it tells the failure.
func checkEnvelope(ts *testscript.TestScript, args []string, code int) {
	if !strings.HasPrefix(filepath.Base(args[0]), "azs-") || !slices.Contains(args, "--json") {
		return
	}
	schemas, err := outputSchema()
	ts.Check(err)
	out := ts.ReadFile("stdout")
	if strings.Count(out, "\n") != 1 {
		ts.Fatalf("--json printed %d lines, want one envelope", strings.Count(out, "\n"))
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
	ts.Check(err)
	envelope, _ := v.(map[string]any)
	typ, _ := envelope["type"].(string)
	schema := schemas[typ]
	if typ == "" || schema == nil {
		ts.Fatalf("the schema has no envelope of type %q", typ)
	}
	for _, s := range []*jsonschema.Schema{schema, schemas[""]} {
		if err := s.Validate(v); err != nil {
			ts.Fatalf("--json of %s: %v", strings.Join(args, " "), err)
		}
	}
	if typ == "error" {
		envelope = map[string]any{"error": envelope}
	}
	failure, _ := envelope["error"].(map[string]any)
	told, _ := json.Marshal(failure["exit"])
	want, _ := json.Marshal(code)
	if failed := failure != nil; failed != (code != 0) || failed && !bytes.Equal(told, want) {
		ts.Fatalf("exit code %d, and the envelope tells %s", code, told)
	}
}

// The schema has the types that the programs print, and no other.
func TestSchemaHasEveryType(t *testing.T) {
	schemas, err := outputSchema()
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for typ := range schemas {
		if typ != "" {
			described[typ] = true
		}
	}
	printed := map[string]bool{"error": true}
	result := regexp.MustCompile(`\.Result\((?:"([a-z-]+)"|(\w+))`)
	for _, dir := range []string{"../shared/appkit", "../agent/internal/cli", "internal/cli"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range result.FindAllSubmatch(text, -1) {
				if len(m[2]) > 0 { // the verbs that share the outcomes of a request
					continue
				}
				printed[string(m[1])] = true
			}
		}
	}
	for _, verb := range []string{"register", "unregister", "key"} {
		printed[verb] = true
	}
	if diff := cmp.Diff(printed, described); diff != "" {
		t.Errorf("types (-printed +described):\n%s", diff)
	}
}
