package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/cli"
)

// TestRoleOfEachVerb: what `role --for VERB` prints is enough for the verb, and
// without any one of its actions the verb says which is missing. Only the right
// to read rights can be spared.
func TestRoleOfEachVerb(t *testing.T) {
	run := func(t *testing.T, verb string, actions []string) (int, string) {
		srv := azuretest.NewServer(azuretest.WithClient(azuretest.Client{Secret: "a client secret of the simulation", Actions: actions}),
			azuretest.WithGroup(azuretest.Group{Name: "target"}),
			azuretest.WithMoves(azuretest.Moves{RetryAfter: 1}),
			azuretest.WithRegistration(azuretest.Registration{Name: "stamp", CloudID: "c1", LockLevel: "CanNotDelete"}))
		defer srv.Close()
		dir := t.TempDir()
		file := func(name string, content []byte) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		home := filepath.Join(dir, "home")
		var said bytes.Buffer
		if code := cli.Main([]string{"init", "--label", "relay-1", "--insecure-no-passphrase", "--home", home}, strings.NewReader(""), &bytes.Buffer{}, &said); code != 0 {
			t.Fatalf("init: %d, %s", code, &said)
		}
		args := append([]string{verb}, map[string][]string{
			"unregister": {"--name", "stamp", "--group", "azurestack", "--force", "--yes"},
			"move":       {"--name", "stamp", "--group", "azurestack", "--to-group", "target", "--yes"},
			"key":        {"--name", "stamp", "--group", "azurestack", "--key-out", filepath.Join(dir, "key.txt")},
		}[verb]...)
		args = append(args, "--home", home, "--subscription", srv.Subscription, "--cloud", "custom", "--arm-endpoint", srv.URL, "--ca-file", file("ca.pem", srv.CAPEM),
			"--auth", "client-secret", "--tenant", srv.Tenant, "--client-id", srv.ClientID, "--client-secret-file", file("client-secret", []byte(srv.ClientSecret)))
		code := cli.Main(args, strings.NewReader(""), &said, &said)
		return code, said.String()
	}
	for _, verb := range []string{"unregister", "move", "key", "list"} {
		var printed bytes.Buffer
		if code := cli.Main([]string{"role", "--for", verb}, strings.NewReader(""), &printed, &printed); code != 0 {
			t.Fatalf("role --for %s: exit code %d: %s", verb, code, &printed)
		}
		var role struct{ Actions []string }
		if err := json.Unmarshal(printed.Bytes(), &role); err != nil {
			t.Fatal(err)
		}
		t.Run(verb, func(t *testing.T) {
			if code, said := run(t, verb, role.Actions); code != 0 {
				t.Errorf("with the whole role the exit code is %d: %s", code, said)
			}
			for i, action := range role.Actions {
				if len(role.Actions) == 1 {
					break // no action at all is every action in the simulation
				}
				code, said := run(t, verb, slices.Delete(slices.Clone(role.Actions), i, i+1))
				spare := action == "Microsoft.Authorization/permissions/read"
				if spare != (code == 0) || !spare && !strings.Contains(strings.ToLower(said), strings.ToLower(action)) {
					t.Errorf("without %s the exit code is %d: %s", action, code, said)
				}
			}
		})
	}
}
