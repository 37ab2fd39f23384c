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

// The relay has no way into a stamp: it links no remote management, and nothing
// of the agent.
func TestTheRelayLinksNoRemoteManagement(t *testing.T) {
	own := 0
	for _, p := range goList(t, "-deps", "./...") {
		for _, foreign := range []string{"github.com/masterzen/", "github.com/bodgit/", "github.com/Azure/go-ntlmssp", module + "agent"} {
			if strings.HasPrefix(p, foreign) {
				t.Errorf("the relay links %s", p)
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

// Only the client of Azure opens connections, beside the simulated Azure.
func TestOnlyTheClientOpensConnections(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		words := strings.Fields(line)
		switch room := strings.TrimPrefix(words[0], module+"relay/"); room {
		case "internal/azure", "azuretest", "cmd/azuretest", "internal/pgstate/pgtest": // the last one runs a server for tests
			continue
		}
		for _, p := range words[1:] {
			if p == "net" || p == "net/http" || p == "crypto/tls" || p == "os/exec" {
				t.Errorf("%s imports %s", words[0], p)
			}
		}
	}
}

// The use cases know no flag and no terminal.
func TestTheUseCasesKnowNoTerminal(t *testing.T) {
	for _, p := range goList(t, "-deps", "./internal/flow") {
		if strings.HasPrefix(p, "github.com/urfave/") || strings.HasPrefix(p, module+"relay/internal/cli") || p == module+"shared/console" || p == module+"shared/appkit" {
			t.Errorf("the use cases link %s", p)
		}
	}
}

// The database is behind the ledger's interface: one room knows it, and the use
// cases do not.
func TestOneRoomKnowsTheDatabase(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		words := strings.Fields(line)
		room := strings.TrimPrefix(words[0], module+"relay/")
		for _, p := range words[1:] {
			if strings.HasPrefix(p, "github.com/jackc/") && room != "internal/pgstate" && room != "internal/pgstate/pgtest" {
				t.Errorf("%s imports %s", words[0], p)
			}
			if p == module+"relay/internal/pgstate/pgtest" {
				t.Errorf("%s links the server that is for tests", words[0])
			}
		}
	}
	for _, p := range goList(t, "-deps", "./internal/flow") {
		if strings.HasPrefix(p, "github.com/jackc/") || strings.HasPrefix(p, module+"relay/internal/pgstate") {
			t.Errorf("the use cases link %s", p)
		}
	}
}
