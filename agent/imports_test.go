package main

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/azs-courier/azs-courier/"

// goList runs go list in this module and returns its lines.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go tool here: %v", err)
	}
	out, err := exec.Command(tool, append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// Threat: the half inside the site reaches out. The agent links no client of
// Azure, and nothing of the relay.
func TestTheAgentLinksNoAzure(t *testing.T) {
	own := 0
	for _, p := range goList(t, "-deps", "./...") {
		for _, foreign := range []string{"github.com/Azure/azure-sdk", "github.com/AzureAD/", "github.com/jackc/", module + "relay"} {
			if strings.HasPrefix(p, foreign) {
				t.Errorf("the agent links %s", p)
			}
		}
		if strings.HasPrefix(p, module) {
			own++
		}
	}
	if own < 5 {
		t.Errorf("%d packages of our own were listed", own)
	}
}

// The agent opens no connection but to the privileged endpoint: only the sealed
// transport imports the network, beside the simulated endpoint.
func TestOnlyTheTransportOpensConnections(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		words := strings.Fields(line)
		switch room := strings.TrimPrefix(words[0], module+"agent/"); {
		case strings.HasPrefix(room, "internal/wsman/"), strings.HasPrefix(room, "peptest"), strings.HasPrefix(room, "cmd/peptest"):
			continue
		}
		for _, p := range words[1:] {
			if p == "os/exec" && words[0] == module+"agent/internal/cli" {
				continue // the operator's own credential helper
			}
			if p == "net" || p == "net/http" || p == "crypto/tls" || p == "os/exec" {
				t.Errorf("%s imports %s", words[0], p)
			}
		}
	}
}

// The use cases know no flag, no terminal and no way to the endpoint but their
// interfaces.
func TestTheUseCasesKnowNoTerminal(t *testing.T) {
	for _, p := range goList(t, "-deps", "./internal/flow") {
		if strings.HasPrefix(p, "github.com/urfave/") || strings.HasPrefix(p, module+"agent/internal/cli") || p == module+"shared/console" || p == module+"shared/appkit" {
			t.Errorf("the use cases link %s", p)
		}
	}
}
