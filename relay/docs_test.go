package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/cli"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// TestRoleOfTheDocument holds the role of docs/AZURE.md to the code: with exactly
// its actions a first registration in a new subscription succeeds, and without
// any one of them it does not, so that nobody is asked for a right too many.
func TestRoleOfTheDocument(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "AZURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(doc)
	if block == nil {
		t.Fatal("docs/AZURE.md holds no role in JSON")
	}
	var role struct{ Actions []string }
	if err := json.Unmarshal(block[1], &role); err != nil {
		t.Fatal(err)
	}
	if len(role.Actions) == 0 {
		t.Fatal("the role has no actions")
	}
	var printed bytes.Buffer
	if code := cli.Main([]string{"role", "--for", "register"}, strings.NewReader(""), &printed, &printed); code != 0 || printed.String() != string(block[1]) {
		t.Errorf("azs-relay role --for register prints, with exit code %d, another role than the document:\n%s", code, &printed)
	}
	if code, said := registerWith(t, role.Actions); code != 0 {
		t.Errorf("with the whole role the exit code is %d: %s", code, said)
	}
	for i, action := range role.Actions {
		t.Run(strings.ReplaceAll(action, "/", "."), func(t *testing.T) {
			want := 9
			switch action {
			case "Microsoft.Authorization/locks/write":
				want = 13
			case "Microsoft.Authorization/permissions/read": // for preflight only
				if code, said := registerWith(t, slices.Delete(slices.Clone(role.Actions), i, i+1)); code != 0 {
					t.Errorf("exit code %d, want 0: %s", code, said)
				}
				return
			}
			code, said := registerWith(t, slices.Delete(slices.Clone(role.Actions), i, i+1))
			if code != want || !strings.Contains(strings.ToLower(said), strings.ToLower("lacks the action "+action+" ")) {
				t.Errorf("exit code %d, want %d and the action by its name: %s", code, want, said)
			}
		})
	}
}

// registerWith registers a plain token in a new simulated subscription, as an
// application with these actions.
func registerWith(t *testing.T, actions []string) (code int, said string) {
	srv := azuretest.NewServer(
		azuretest.WithSubscription(azuretest.Subscription{Provider: "NotRegistered"}),
		azuretest.WithClient(azuretest.Client{Secret: "a client secret of the simulation", Actions: actions}))
	defer srv.Close()
	var errs bytes.Buffer
	relay := newRelay(t, srv)
	code = cli.Main(relay("register"), strings.NewReader(""), &bytes.Buffer{}, &errs)
	return code, fmt.Sprint(&errs)
}

// newRelay makes a relay's state folder and a plain token file, and returns what
// stands on the command line when a verb uses them and the simulated Azure.
func newRelay(t testing.TB, srv *azuretest.Server) func(verb ...string) []string {
	t.Helper()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	home := filepath.Join(dir, "home")
	var errs bytes.Buffer
	if code := cli.Main([]string{"init", "--label", "relay-1", "--insecure-no-passphrase", "--home", home}, strings.NewReader(""), &bytes.Buffer{}, &errs); code != 0 {
		t.Fatalf("azs-relay init: exit code %d: %s", code, &errs)
	}
	flags := []string{"--home", home,
		"--token-file", file("token.txt", officialtest.Token(officialtest.Spec{Seed: 1, Nodes: 1})), "--key-out", filepath.Join(dir, "key.txt"),
		"--subscription", srv.Subscription, "--cloud", "custom", "--arm-endpoint", srv.URL, "--ca-file", file("ca.pem", string(srv.CAPEM)),
		"--auth", "client-secret", "--tenant", srv.Tenant, "--client-id", srv.ClientID, "--client-secret-file", file("client-secret", srv.ClientSecret)}
	return func(verb ...string) []string { return append(verb, flags...) }
}

// TestFaultsOfTheDocument: every test that the table of known faults names is
// there, and names the fault's number or holds it by its own name.
func TestFaultsOfTheDocument(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "AZURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	var code []byte
	for _, pattern := range []string{"*_test.go", "internal/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			code = append(code, raw...)
		}
	}
	_, table, _ := strings.Cut(string(doc), "## Known faults of the official flow")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile(`(?m)^\| (\d+) \|.*\| ([^|]*) \|$`).FindAllStringSubmatch(table, -1)
	if len(rows) < 20 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1)
		if len(names) == 0 {
			t.Errorf("fault %s names no test", row[1])
		}
		quoted := false
		for _, n := range names {
			if strings.HasPrefix(n[1], "Test") {
				at := bytes.Index(code, []byte("func "+n[1]+"("))
				if at < 0 {
					t.Errorf("fault %s: there is no %s", row[1], n[1])
					continue
				}
				// The comment over a test and the test itself.
				from := bytes.LastIndex(code[:at], []byte("\n}\n"))
				end := bytes.Index(code[at:], []byte("\n}\n"))
				quoted = quoted || quotes(code[max(0, from):at+end], row[1])
				continue
			}
			script, err := os.ReadFile(filepath.Join("..", "testdata", "script", n[1]+".txtar"))
			if err != nil {
				t.Errorf("fault %s: %v", row[1], err)
			}
			quoted = quoted || quotes(script, row[1])
		}
		if !quoted {
			t.Errorf("no test of fault %s quotes its number", row[1])
		}
	}
}

// quotes reports whether a text names a fault: "fault 18", "faults 11 and 40",
// "faults 32, 34 and 39".
func quotes(text []byte, number string) bool {
	plain := regexp.MustCompile(`\s*\n\s*(//|#)?\s*`).ReplaceAll(text, []byte(" "))
	return regexp.MustCompile(`(?i)faults? ((\d+, )*\d+ and |(\d+, )*)`+number+`\b`).Match(plain) ||
		regexp.MustCompile(`(?i)faults? (\d+, )*`+number+`( and \d+)?\b`).Match(plain)
}
