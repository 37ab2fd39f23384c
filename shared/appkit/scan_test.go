package appkit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	qr "github.com/skip2/go-qrcode"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame"
)

// types runs a verb with what a handheld scanner types on standard input.
func (s side) types(code fault.Kind, typed string, args []string, texts ...string) ran {
	s.t.Helper()
	var out, err bytes.Buffer
	exit := appkit.Main(station(s.role), append([]string{"--home", s.home}, args...), strings.NewReader(typed), &out, &err)
	got := ran{out.String(), err.String(), exit}
	if got.Exit != int(code) {
		s.t.Fatalf("azs-%s %q: exit code %d, want %d: %s%s", s.role, args, got.Exit, code, got.Out, got.Err)
	}
	for _, text := range texts {
		if !strings.Contains(got.Out+got.Err, text) {
			s.t.Errorf("azs-%s %q lacks %q: %s%s", s.role, args, text, got.Out, got.Err)
		}
	}
	return got
}

// frames cuts the bundle of a file.
func frames(t *testing.T, file string, version int) *frame.Set {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Split(raw)
	if err != nil {
		t.Fatal(err)
	}
	set, err := frame.Split(b.Wire(), version)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// lines are the texts of frames from, to (without), as lines.
func lines(t *testing.T, set *frame.Set, from, to int) string {
	t.Helper()
	var b strings.Builder
	for i := from; i < to; i++ {
		text, err := set.Text(i)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(text + "\r\n")
	}
	return b.String()
}

// shots writes frames as pictures into a new folder.
func shots(t *testing.T, set *frame.Set, from, to int) string {
	t.Helper()
	dir := t.TempDir()
	for i := from; i < to; i++ {
		text, err := set.Text(i)
		if err != nil {
			t.Fatal(err)
		}
		png, err := qr.Encode(text, qr.Low, -4)
		if err != nil {
			t.Fatal(err)
		}
		write(t, png, dir, fmt.Sprintf("%03d.png", i))
	}
	return dir
}

// Half of a bundle comes by pictures, half by a handheld scanner; in between the
// program ends and says what is missing.
func TestScanChangesMediumHalfWay(t *testing.T) {
	agent, relay := newSides(t)
	request := agent.request(t.TempDir(), 1, nil)
	set := frames(t, request, 10)
	half := set.K() / 2
	got := relay.must(fault.NothingYet, []string{"scan", shots(t, set, 0, half)},
		fmt.Sprintf("%d of %d frames, missing: %d-%d", half, set.K(), half, set.K()-1), "hint: azs-relay scan -")
	if got.Out != "" {
		t.Errorf("an unfinished scan printed %q", got.Out)
	}
	kept := filepath.Join(relay.home, "scan.txt")
	if _, err := os.Stat(kept); err != nil {
		t.Fatal(err)
	}
	// Without anything to read it tells the same.
	relay.must(fault.NothingYet, []string{"scan"}, "taken up: bundle "+set.ID().String(), "missing: ")
	// Redundant frames do as well as the missing ones, whatever noise is between.
	typed := "hello\n" + strings.ToLower(lines(t, set, set.K(), set.K()+set.K()-half))
	relay.types(0, typed, []string{"scan", "-"}, "line 1: ", "does not begin with AZ1", "scanned  request", "next   azs-relay use azs-request-")
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("the half-done scan is still kept: %v", err)
	}
	taken, err := os.ReadFile(filepath.Join(relay.home, "bundles", filepath.Base(request)))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(request); err != nil || !bytes.Equal(taken, want) {
		t.Errorf("the scanned bundle is another, %v", err)
	}
	relay.must(0, []string{"log"}, "scanned")
	relay.must(fault.Usage, []string{"scan"}, "scan needs pictures", "hint: azs-relay scan --page")
}

// A kiosk without keys and without a state folder joins and writes.
func TestScanWithoutAStateFolder(t *testing.T) {
	agent, _ := newSides(t)
	request := agent.request(t.TempDir(), 1, nil)
	set := frames(t, request, 17)
	kiosk := side{t, bundle.RoleRelay, filepath.Join(t.TempDir(), "none")}
	dir := t.TempDir()
	kiosk.types(fault.NothingYet, lines(t, set, 0, 1), []string{"scan", "-"}, "nothing is kept", "--state-file")
	state := filepath.Join(dir, "half.txt")
	kiosk.types(fault.NothingYet, lines(t, set, 0, 1), []string{"scan", "-", "--state-file", state}, "missing")
	kiosk.types(fault.Locked, lines(t, set, 1, set.K()), []string{"scan", "-", "--state-file", state}, "is complete and cannot be taken here", "hint: azs-relay scan --out")
	out := filepath.Join(dir, "out.azc")
	kiosk.must(0, []string{"scan", "--state-file", state, "--out", out, "--json"}, `"type":"scan"`, `"places"`)
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(request); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the scanned bundle is another, %v", err)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the state file is still there: %v", err)
	}
	if _, err := os.Stat(kiosk.home); !os.IsNotExist(err) {
		t.Errorf("scan made a state folder: %v", err)
	}
	// To standard output, and to a stick.
	if got := kiosk.types(0, lines(t, set, 0, set.K()), []string{"scan", "-", "--out", "-"}); !strings.HasPrefix(got.Out, "azs-courier/v1 request\n") {
		t.Errorf("on standard output: %.60q", got.Out)
	}
	kiosk.types(0, lines(t, set, 0, set.K()), []string{"scan", "-", "--put", dir}, "safe to remove")
	if _, err := os.Stat(filepath.Join(dir, filepath.Base(request))); err != nil {
		t.Error(err)
	}
}

// Two bundles in view are kept apart, and --id says which is meant.
func TestScanOfTwoBundles(t *testing.T) {
	agent, relay := newSides(t)
	a, b := frames(t, agent.request(t.TempDir(), 1, nil), 15), frames(t, agent.request(t.TempDir(), 2, nil), 15)
	var mixed string
	for i := range a.K() {
		mixed += lines(t, a, i, i+1) + lines(t, b, i, i+1)
	}
	relay.types(fault.Usage, mixed, []string{"scan", "-"}, "2 bundles are complete: "+a.ID().String()+", "+b.ID().String(), "hint: azs-relay scan --id "+a.ID().String())
	relay.must(0, []string{"scan", "--id", b.ID().String()}, "scanned  request")
	relay.must(0, []string{"scan"}, "scanned  request") // only the other is left
	relay.must(fault.Usage, []string{"scan", "--id", "xyz", "-"}, "8 hexadecimal digits")
	relay.types(fault.NothingYet, lines(t, a, 0, 1), []string{"scan", "-", "--id", b.ID().String()}, "no frame of bundle "+b.ID().String()+" arrived, 1 of other bundles did")

	// One complete and one not: the complete one is taken, the other waits.
	relay.types(0, lines(t, a, 0, a.K())+lines(t, b, 0, 1), []string{"scan", "-"}, "scanned  request")
	got := relay.must(fault.NothingYet, []string{"scan", "--json"}, b.ID().String())
	var v struct {
		Type   string
		Frames []struct {
			ID      string
			Have, K int
			Missing []int
		}
	}
	if err := json.NewDecoder(strings.NewReader(got.Out)).Decode(&v); err != nil || v.Type != "scan" || len(v.Frames) != 1 || v.Frames[0].Have != 1 || len(v.Frames[0].Missing) != b.K()-1 {
		t.Errorf("%+v, %v: %s", v, err, got.Out)
	}
	relay.must(0, []string{"scan", "--fresh"})
	relay.must(fault.Usage, []string{"scan"}, "scan needs pictures")
}

// What the frames join to is judged as a file from a stick is.
func TestScanRefuses(t *testing.T) {
	agent, relay := newSides(t)
	dir := t.TempDir()
	scan := []string{"scan", "-"}

	// Frames of something that is no bundle, and of a bundle with a byte changed.
	set, err := frame.Split([]byte(strings.Repeat("no bundle ", 30)), 10)
	if err != nil {
		t.Fatal(err)
	}
	relay.types(fault.Refused, lines(t, set, 0, set.K()), scan, "what the frames of "+set.ID().String()+" join to is refused")
	raw, err := os.ReadFile(agent.request(dir, 1, nil))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Split(raw)
	if err != nil {
		t.Fatal(err)
	}
	wire := b.Wire()
	wire[len(wire)-1] ^= 1
	if set, err = frame.Split(wire, 20); err != nil {
		t.Fatal(err)
	}
	relay.types(fault.Refused, lines(t, set, 0, set.K()), scan, "is refused")
	relay.must(fault.Usage, []string{"scan"}, "scan needs pictures") // and is forgotten

	// Used before: refused and forgotten. Of a stranger: refused, and kept to be
	// written elsewhere.
	set = frames(t, agent.request(dir, 13, nil), 20)
	relay.types(fault.Replay, lines(t, set, 0, set.K()), scan, "was used")
	relay.must(fault.Usage, []string{"scan"}, "scan needs pictures")
	strangers, _ := newSides(t)
	set = frames(t, strangers.request(dir, 1, nil), 20)
	relay.types(fault.NotForUs, lines(t, set, 0, set.K()), scan, "no pinned peer has that key", "hint: azs-relay scan --out azs-request-")
	relay.must(0, []string{"scan", "--out", filepath.Join(dir, "elsewhere.azc")}, "elsewhere.azc")

	// A card is compared before it is believed.
	set = frames(t, strangers.card(), 20)
	relay.types(fault.NotForUs, lines(t, set, 0, set.K()), scan, "a pairing card", "hint: azs-relay scan --out card.azc")
	relay.must(0, []string{"scan", "--fresh"})

	// A kept scan that was changed, files that are none, a folder that is not there.
	write(t, []byte("azs-courier-scan/v1\n"), relay.home, "scan.txt")
	relay.must(fault.Refused, []string{"scan"}, "scan.txt", "--fresh")
	relay.must(0, []string{"scan", "--fresh"})
	relay.must(fault.Medium, []string{"scan", filepath.Join(dir, "none.png")}, "none.png")
	relay.must(fault.Medium, []string{"scan", "--watch", filepath.Join(dir, "none")})
	relay.types(fault.NothingYet, "", scan, "no frame arrived", "hint: azs-relay scan PICTURES")
}

// The bundle argument of another verb comes from the scanner.
func TestPairByScan(t *testing.T) {
	agent, relay := newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1")
	words := strings.TrimSpace(agent.must(0, []string{"words", relay.card()}).Out)
	set := frames(t, relay.card(), 10)
	agent.types(fault.NothingYet, lines(t, set, 0, 1), []string{"pair", "--scan", "-", "--expect-words", words}, "hint: azs-agent pair --scan -")
	agent.types(0, lines(t, set, 1, set.K()), []string{"pair", "--scan", "-", "--expect-words", words}, `relay "relay-1" is pinned`)
	agent.must(fault.Usage, []string{"pair"}, "pair needs CARD, or --scan")
	agent.must(fault.Usage, []string{"pair", "card.azc", "--scan", "-"}, "contradict")
	agent.must(fault.Usage, []string{"scan"}, "scan needs pictures") // nothing is left over
}

// A million lines that are no frame leave the memory and the talk as they are.
func TestScanOfEndlessLines(t *testing.T) {
	relay := newSide(t, bundle.RoleRelay, "relay-1")
	noise := strings.Repeat("AZ1 this is no frame at all and never was one\n", 1000)
	var typed strings.Builder
	for range 100 {
		typed.WriteString(noise)
	}
	typed.WriteString(strings.Repeat("x", 300_000))
	got := relay.types(fault.NothingYet, typed.String(), []string{"scan", "-"}, "no frame arrived", "10", "more that is no frame is counted, not named")
	if n := strings.Count(got.Err, "\n"); n > 20 {
		t.Errorf("%d lines of talk", n)
	}
}
