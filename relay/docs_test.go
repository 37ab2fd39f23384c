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
