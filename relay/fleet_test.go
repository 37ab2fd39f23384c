package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// fleetOf is a stick with the requests of many stamps, a relay that is pinned to
// their one agent, and a simulated Azure.
type fleetOf struct {
	t     testing.TB
	azure *azuretest.Server
	home  string
	stick string
	file  string // fleet.csv
	flags []string
	env   []string
}

// newFleet seals the requests of n stamps as their agent does, all for the first
// subscription of the server.
func newFleet(t testing.TB, n int, srv *azuretest.Server) *fleetOf {
	t.Helper()
	dir := t.TempDir()
	f := &fleetOf{t: t, azure: srv, home: filepath.Join(dir, "relay"), stick: filepath.Join(dir, "stick"), file: filepath.Join(dir, "fleet.csv"), env: os.Environ()}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	save := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		check(os.WriteFile(path, data, 0o600))
		return path
	}
	check(os.Mkdir(f.stick, 0o700))
	f.flags = []string{"--cloud", "custom", "--arm-endpoint", srv.URL, "--ca-file", save("ca.pem", srv.CAPEM), "--auth", "client-secret",
		"--tenant", srv.Tenant, "--client-id", srv.ClientID, "--client-secret-file", save("client-secret", []byte(srv.ClientSecret))}

	begin := []string{"init", "--label", "relay-1"}
	if os.Getenv("AZS_RELAY_STATE") == "" { // a shared state takes no identity without one
		begin = append(begin, "--insecure-no-passphrase")
	}
	f.must(begin...)
	now := time.Now().UTC().Truncate(time.Second)
	check(os.Mkdir(filepath.Join(dir, "agent"), 0o700))
	store := trust.At(filepath.Join(dir, "agent"))
	_, err := store.Create(bundle.RoleAgent, "site", trust.Protection{Insecure: true}, now, rand.Reader)
	check(err)
	f.must("card", "--out", filepath.Join(dir, "relay.card"))
	raw, err := os.ReadFile(filepath.Join(dir, "relay.card"))
	check(err)
	card, err := trust.ReadCard(raw)
	check(err)
	peer, _, err := store.Pin(card, "words", now, false)
	check(err)
	ours := filepath.Join(dir, "agent", "card.azc")
	raw, err = os.ReadFile(ours)
	check(err)
	own, err := trust.ReadCard(raw)
	check(err)
	words, err := trust.PairWords(own, card)
	check(err)
	f.must("pair", ours, "--expect-words", words.String())
	agent, err := store.Unlock(nil)
	check(err)

	var rows bytes.Buffer
	w := csv.NewWriter(&rows)
	check(w.Write([]string{"cloud-id", "subscription"}))
	for i := range n {
		seed := uint64(i + 1)
		token, err := official.ReadToken([]byte(officialtest.Token(officialtest.Spec{Seed: seed, Nodes: 1})))
		check(err)
		id, err := bundle.NewID(rand.Reader)
		check(err)
		sealed, err := agent.Seal(peer, bundle.Draft{Bundle: id, Seq: seed, Created: now, Expires: now.Add(14 * 24 * time.Hour),
			Content: &bundle.Request{Label: "site", Operation: bundle.Register, CloudID: token.Claims.CloudID, BillingModel: token.Claims.BillingModel,
				AgreementNumber: token.Claims.AgreementNumber, UsageReporting: token.Claims.UsageReporting, TokenSHA256: bundle.Digest(token.Digest)},
			Payload: []byte(token.Text.Reveal())}, rand.Reader)
		check(err)
		check(os.WriteFile(filepath.Join(f.stick, fmt.Sprintf("request-%04d.azc", i)), sealed.Text(), 0o600))
		check(w.Write([]string{token.Claims.CloudID, srv.Subscription}))
	}
	w.Flush()
	save("fleet.csv", rows.Bytes())
	return f
}

func (f *fleetOf) command(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(binaries(f.t), "azs-relay"), append([]string{"--home", f.home}, args...)...)
	c.Env = f.env
	return c
}

func (f *fleetOf) must(args ...string) {
	f.t.Helper()
	if out, err := f.command(args...).CombinedOutput(); err != nil {
		f.t.Fatalf("azs-relay %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// batch is the command line of a run.
func (f *fleetOf) batch(more ...string) *exec.Cmd {
	return f.command(append(append([]string{"--json", "batch", f.stick, "--fleet", f.file}, more...), f.flags...)...)
}

// fleetReport is what a run printed.
type fleetReport struct {
	Bundles []struct {
		Outcome, Error string
		Exit           int
	} `json:"bundles"`
	Calls map[string]int
}

func readReport(t testing.TB, stdout []byte) (r fleetReport, count map[string]int) {
	t.Helper()
	count = map[string]int{}
	for line := range bytes.Lines(stdout) {
		if bytes.Contains(line, []byte(`"type":"batch"`)) {
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, b := range r.Bundles {
		count[b.Outcome]++
	}
	return r, count
}

// doubles compares what stands in Azure and what was put there with the stamps: one
// registration each, and no successful write of one twice.
func (f *fleetOf) doubles(n int) (registrations, putTwice int) {
	f.t.Helper()
	state := f.azure.State()
	stamps := map[string]int{}
	for _, r := range state.Registrations {
		stamps[r.CloudID]++
	}
	puts := map[string]int{}
	for _, r := range f.azure.Requests() {
		if r.Method == http.MethodPut && strings.Contains(r.Path, "/registrations/") && !strings.Contains(r.Path, "/locks/") && r.Status/100 == 2 {
			if puts[r.Path]++; puts[r.Path] > 1 {
				putTwice++
			}
		}
	}
	if len(stamps) != n || len(state.Registrations) != n {
		f.t.Errorf("%d registrations of %d stamps, want %d of each", len(state.Registrations), len(stamps), n)
	}
	answers, err := filepath.Glob(filepath.Join(f.stick, "azs-answer-*.azc"))
	if err != nil || len(answers) != n {
		f.t.Errorf("%d answers on the stick, want %d (%v)", len(answers), n, err)
	}
	return len(state.Registrations), putTwice
}

// Threat: one stamp's failure, or a kill, loses or doubles the work of the others.
func TestFleetGoesOnWhereItStood(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process is killed here as Unix does it")
	}
	const n = 24
	for _, test := range []struct {
		name    string
		options []azuretest.Option
		kill    bool
	}{
		{"calls fail by chance", []azuretest.Option{azuretest.WithTrouble(7, 0.05)}, false},
		{"killed in the middle", nil, true},
		{"both", []azuretest.Option{azuretest.WithTrouble(11, 0.05)}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			// The waits between two tries pass as fast as the simulated clock.
			srv := azuretest.NewServer(append(test.options, azuretest.WithSpeed(60))...)
			defer srv.Close()
			f := newFleet(t, n, srv)
			f.env = append(f.env, "AZS_REHEARSE_SPEED=60")
			if test.kill {
				c := f.batch()
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := srv.Wait(ctx, "PUT", "*/registrations/*", n/3); err != nil {
					t.Fatal(err)
				}
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = c.Wait() // it was killed
			}
			var count map[string]int
			for range 5 { // a stamp whose calls failed too often is left for the next run
				c := f.batch()
				c.Stderr = new(bytes.Buffer)
				out, err := c.Output()
				_, count = readReport(t, out)
				if err == nil {
					break
				}
				if code := c.ProcessState.ExitCode(); code != 13 && code != 10 {
					t.Fatalf("exit code %d: %s", code, c.Stderr)
				}
			}
			if count["answered"]+count["again"] != n || count["failed"] != 0 {
				t.Errorf("outcomes %v, want %d answered", count, n)
			}
			f.doubles(n)
		})
	}
}

// One bad bundle, one stamp that nobody named and one that Azure refuses: the others
// are answered, and the report names the three.
func TestFleetFailuresStayAlone(t *testing.T) {
	srv := azuretest.NewServer(azuretest.WithTakenCloudID(officialtest.CloudID(3)))
	defer srv.Close()
	f := newFleet(t, 6, srv)
	rows, err := os.ReadFile(f.file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(rows, []byte("\n"))
	if err := os.WriteFile(f.file, bytes.Join(append(lines[:1:1], lines[2:]...), nil), 0o600); err != nil { // the first stamp is not named
		t.Fatal(err)
	}
	bad := filepath.Join(f.stick, "request-0001.azc")
	raw, err := os.ReadFile(bad)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(bad, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(t.TempDir(), "report.html")
	c := f.batch("--report", page)
	var talk bytes.Buffer
	c.Stderr = &talk
	out, _ := c.Output()
	r, count := readReport(t, out)
	if code := c.ProcessState.ExitCode(); code != 13 || count["answered"] != 3 || count["failed"] != 3 {
		t.Errorf("exit code %d, outcomes %v, want 13 and three of each: %+v: %s", code, count, r, &talk)
	}
	exits := map[int]int{}
	for _, b := range r.Bundles {
		exits[b.Exit]++
	}
	if exits[3] != 1 || exits[4] != 1 || exits[9] != 1 {
		t.Errorf("exit codes %v, want one of 3, 4 and 9 each", exits)
	}
	calls := map[string]int{}
	for _, q := range srv.Requests() {
		switch {
		case !strings.HasPrefix(q.Path, "/subscriptions"):
		case q.Method == http.MethodGet:
			calls["reads"]++
		default:
			calls["writes"]++
		}
	}
	if diff := cmp.Diff(calls, r.Calls); diff != "" {
		t.Errorf("calls as Azure saw them (-) and as the report counts them (+):\n%s", diff)
	}
	html, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 of 6 bundles done, 3 failed", "is already registered", officialtest.CloudID(4)} {
		if !bytes.Contains(html, []byte(want)) {
			t.Errorf("the report page lacks %q", want)
		}
	}
}
