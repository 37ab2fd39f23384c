package appkit_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// What one side shows in files, the other side scans to the same bundle.
func TestShowInFilesAndScan(t *testing.T) {
	agent, relay := newSides(t)
	dir := t.TempDir()
	request := agent.request(dir, 1, nil)
	want, err := os.ReadFile(request)
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	got := agent.must(0, []string{"show", request, "--png", at("pictures"), "--gif", at("a.gif"), "--html", at("a.html"), "--pdf", at("a.pdf"), "--json"})
	var v struct {
		Type, ID  string
		WireBytes int
		Shown     []struct {
			As, Place         string
			Version, K, Codes int
		}
	}
	if err := json.Unmarshal([]byte(got.Out), &v); err != nil || v.Type != "show" || len(v.Shown) != 4 || len(v.ID) != 8 {
		t.Fatalf("%+v, %v: %s", v, err, got.Out)
	}
	for i, as := range []string{"png", "gif", "html", "pdf"} {
		if s := v.Shown[i]; s.As != as || s.K < 1 || s.Codes < s.K+2 {
			t.Errorf("%s: %+v", as, s)
		}
	}
	sources := []string{at("pictures"), at("a.gif")}
	if _, err := exec.LookPath("pdftoppm"); err == nil {
		sources = append(sources, at("a.pdf"))
	} else if os.Getenv("AZS_REQUIRE_POPPLER") == "1" {
		t.Fatal(err)
	}
	for i, source := range sources {
		out := at(string(rune('a'+i)) + ".azc")
		relay.must(0, []string{"scan", source, "--fresh", "--out", out})
		if back, err := os.ReadFile(out); err != nil || !bytes.Equal(back, want) {
			t.Errorf("%s does not come back: %v", source, err)
		}
	}
	// The page tells what the outside says, and asks nothing of any other place.
	page, err := os.ReadFile(at("a.html"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Split(want)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Peek()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{m.Bundle.String(), m.SHA256.String(), m.Pair.String(), string(m.From), "default-src 'none'"} {
		if !bytes.Contains(page, []byte(part)) {
			t.Errorf("the page lacks %q", part)
		}
	}
	for _, part := range []string{"src=", "href=", "@import", "url(", "fetch("} {
		if bytes.Contains(page, []byte(part)) {
			t.Errorf("the page has %q: it may reach out", part)
		}
	}
	// The same again writes the same; another bundle does not replace it.
	agent.must(0, []string{"show", request, "--pdf", at("a.pdf")}, "a.pdf", "are enough")
	other := agent.request(dir, 2, nil)
	agent.must(fault.Usage, []string{"show", other, "--pdf", at("a.pdf")}, "is not replaced")
	// Each time it was shown is in the journal.
	log := agent.must(0, []string{"log"}).Out
	if n := strings.Count(log, "shown"); n != 5 {
		t.Errorf("%d notes of 5:\n%s", n, log)
	}
	// A machine without a state folder may show as well.
	stranger := side{t, bundle.RoleRelay, at("none")}
	stranger.must(0, []string{"show", request, "--pdf", at("b.pdf")})
	if _, err := os.Stat(stranger.home); err == nil {
		t.Error("showing made a state folder")
	}
}

func TestShowRefuses(t *testing.T) {
	agent, _ := newSides(t)
	dir := t.TempDir()
	request := agent.request(dir, 1, nil)
	damaged, err := os.ReadFile(request)
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)/2] ^= 1
	bad := write(t, damaged, dir, "damaged.azc")
	pdf := filepath.Join(dir, "never.pdf")
	for _, tt := range []struct {
		code  fault.Kind
		args  []string
		texts []string
	}{
		{fault.Usage, []string{"show", request}, []string{"no terminal", "--png DIR", "--gif FILE", "--html FILE", "--pdf FILE", "--page", "hint: azs-agent show BUNDLE --pdf bundle.pdf"}},
		{fault.Usage, []string{"show", request, "--json"}, []string{"no terminal"}},
		{fault.Usage, []string{"card", "--qr"}, []string{"no terminal"}},
		{fault.Usage, []string{"show"}, []string{"needs BUNDLE"}},
		{fault.Usage, []string{"show", request, "--pdf", pdf, "--fps", "0"}, []string{"--fps is 0"}},
		{fault.Usage, []string{"show", request, "--pdf", pdf, "--fps", "16"}, []string{"--fps is 16"}},
		{fault.Usage, []string{"show", request, "--pdf", pdf, "--version", "41"}, []string{"--version is 41"}},
		{fault.Usage, []string{"show", request, "--pdf", pdf, "--version", "0"}, []string{"--version is 0"}},
		{fault.Usage, []string{"show", request, "--pdf", pdf, "--version", "1"}, []string{"version 1"}},
		{fault.Medium, []string{"show", filepath.Join(dir, "nothing.azc"), "--pdf", pdf}, []string{"nothing.azc"}},
		{fault.Refused, []string{"show", bad, "--pdf", pdf}, nil},
	} {
		agent.must(tt.code, tt.args, tt.texts...)
	}
	if _, err := os.Stat(pdf); err == nil {
		t.Error("a refused show left a file")
	}
}

func TestCardInFiles(t *testing.T) {
	agent, relay := newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1")
	dir := t.TempDir()
	got := agent.must(0, []string{"card", "--png", filepath.Join(dir, "card")}, "words of the card", "are enough")
	if strings.Contains(got.Out, "BEGIN SSH") {
		t.Errorf("the card is printed too:\n%s", got.Out)
	}
	out := filepath.Join(dir, "card.azc")
	relay.must(0, []string{"scan", filepath.Join(dir, "card"), "--out", out})
	relay.must(0, []string{"words", out})
}
