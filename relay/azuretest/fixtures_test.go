package azuretest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// root is the folder of go.work.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skip("no go.work above the package: the module was taken out of its workspace")
		}
		dir = up
	}
}

// example is one of Microsoft's swagger examples.
type example struct {
	Parameters struct {
		Version string         `json:"api-version"`
		Token   map[string]any `json:"token"`
	} `json:"parameters"`
	Responses map[string]struct {
		Body map[string]any `json:"body"`
	} `json:"responses"`
}

func readExample(t *testing.T, name string) example {
	t.Helper()
	path := filepath.Join(root(t), "../shared/fixtures/azure", name)
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		t.Skipf("Microsoft's swagger examples are not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var e example
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return e
}

// shape gives the names and JSON types of a value, without the values.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			out[name] = shape(inner)
		}
		return out
	case []any:
		if len(v) == 0 {
			return []any{}
		}
		return []any{shape(v[0])}
	case string:
		return "string"
	case bool:
		return "bool"
	case float64:
		return "number"
	}
	return "null"
}

// TestSwaggerExamples makes the call of every published example and compares
// status, names and types of the answer. Names are left out only where an
// example has less than the model: the published GET and list have no cloudId.
func TestSwaggerExamples(t *testing.T) {
	stamp := officialtest.Token(officialtest.Spec{Seed: 1, BillingModel: "Development"})
	put := registrationBody(stamp)
	const list = "/subscriptions/{s}/providers/Microsoft.AzureStack/registrations"
	for _, test := range []struct {
		file, method, path string
		body               string
		exists             bool
		status             string
		tags               map[string]string
		less               []string // properties that the example lacks
	}{
		{"registration-put.json", "PUT", "{r}", put, false, "201", nil, nil},
		{"registration-put.json", "PUT", "{r}", put, true, "200", nil, nil},
		{"registration-patch.json", "PATCH", "{r}", put, true, "200", map[string]string{"key1": "value1"}, nil},
		{"registration-get.json", "GET", "{r}", "", true, "200", nil, []string{"cloudId"}},
		{"registration-list-by-subscription.json", "GET", list, "", true, "200", nil, []string{"cloudId"}},
		{"registration-delete.json", "DELETE", "{r}", "", true, "200", nil, nil},
		{"registration-delete.json", "DELETE", "{r}", "", false, "204", nil, nil},
		{"activation-key-post.json", "POST", "{r}/getactivationkey", "", true, "200", nil, nil},
		{"remote-management-post.json", "POST", "{r}/enableRemoteManagement", "", true, "200", nil, nil},
		{"cloud-manifest-get.json", "GET", "/providers/Microsoft.AzureStack/cloudManifestFiles/latest", "", false, "200", nil, nil},
	} {
		t.Run(test.file+" "+test.status, func(t *testing.T) {
			e := readExample(t, test.file)
			want, ok := e.Responses[test.status]
			if !ok {
				t.Fatalf("the example has no %s", test.status)
			}
			opts := []azuretest.Option{azuretest.WithGroup(azuretest.Group{Name: "azurestack"})}
			if test.exists {
				opts = append(opts, azuretest.WithRegistration(azuretest.Registration{Name: "r1", Token: stamp, Tags: test.tags}))
			}
			c := signIn(t, start(t, opts...))
			a := c.do(test.method, test.path+"?api-version="+e.Parameters.Version, test.body)
			if got := a.header.Get("Content-Type"); a.body != nil && got != "application/json; charset=utf-8" {
				t.Errorf("content type %q", got)
			}
			got := shape(toAny(a.body))
			for _, r := range resources(got) {
				properties, _ := r["properties"].(map[string]any)
				for _, name := range test.less {
					delete(properties, name)
				}
			}
			if diff := cmp.Diff(shape(toAny(want.Body)), got); diff != "" {
				t.Errorf("shape of the answer (-published +got):\n%s", diff)
			}
			if wantStatus := map[string]int{"200": 200, "201": 201, "204": 204}[test.status]; a.status != wantStatus {
				t.Errorf("status %d, want %s", a.status, test.status)
			}
		})
	}
}

func toAny(m map[string]any) any {
	if m == nil {
		return nil
	}
	return m
}

// resources returns the resource of a shape, or those of its list.
func resources(v any) []map[string]any {
	m, _ := v.(map[string]any)
	list, ok := m["value"].([]any)
	if !ok {
		return []map[string]any{m}
	}
	var out []map[string]any
	for _, one := range list {
		out = append(out, one.(map[string]any))
	}
	return out
}

// TestScrambledTokenIsRefused: the token of the published PUT and PATCH has its
// letter case scrambled. It is valid base64 and nothing else.
func TestScrambledTokenIsRefused(t *testing.T) {
	for _, name := range []string{"registration-put.json", "registration-patch.json"} {
		e := readExample(t, name)
		body, err := json.Marshal(e.Parameters.Token)
		if err != nil {
			t.Fatal(err)
		}
		c := signIn(t, start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"})))
		c.expect(400, "InvalidRegistrationToken", c.do("PUT", "{r}?api-version="+e.Parameters.Version, string(body)))
	}
}

// TestExampleKeyHasThePartsOfOurs: the published key cannot be read, but its
// three parts have the lengths that ours have.
func TestExampleKeyHasThePartsOfOurs(t *testing.T) {
	published, _ := readExample(t, "activation-key-post.json").Responses["200"].Body["activationKey"].(string)
	c := signIn(t, start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"})))
	ours := keyOf(c, token(1))
	if a, b := partLengths(published), partLengths(ours); len(a) != 3 || len(b) != 3 || a[0] != b[0] || a[2] != b[2] {
		t.Errorf("parts of the published key have %v characters, ours %v: header and signature differ", a, b)
	}
}

func partLengths(key string) (out []int) {
	from := 0
	for i, r := range key + "." {
		if r == '.' {
			out = append(out, i-from)
			from = i + 1
		}
	}
	return slices.Clip(out)
}
