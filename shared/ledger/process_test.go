package ledger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// The test binary is also the other process: with AZS_LEDGER_CHILD it does one
// thing in the folder AZS_LEDGER_DIR and prints a line for each step that was
// acknowledged to it.
func TestMain(m *testing.M) {
	verb := os.Getenv("AZS_LEDGER_CHILD")
	if verb == "" {
		os.Exit(m.Run())
	}
	if err := child(verb, os.Getenv("AZS_LEDGER_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(fault.ExitCode(err))
	}
	os.Exit(0)
}

// racing is how many lines each racing process adds.
const racing = 20

// keptBundle is large enough to be written in two halves that differ.
var keptBundle = bytes.Repeat([]byte("sealed "), 100)

func child(verb, dir string) error {
	switch verb {
	case "race":
		for i := range racing {
			l, err := Open(dir, Relay, clock.System{})
			if err != nil {
				return err
			}
			_, err = l.Append("took", "", map[string]string{"name": fmt.Sprintf("%d-%d", os.Getpid(), i)})
			if err := errors.Join(err, l.Close()); err != nil {
				return err
			}
		}
		return nil
	case "busy":
		_, err := open(dir, Relay, clock.System{}, 0)
		return err
	case "trip":
		l, err := Create(dir, Agent, &steps{noon})
		if err != nil {
			return err
		}
		fmt.Println("made")
		return trip(l, os.Stdout)
	case "open":
		l, err := Open(dir, Agent, &steps{noon})
		if err != nil {
			return err
		}
		fmt.Println("opened")
		return l.Close()
	}
	return fmt.Errorf("no such verb %q", verb)
}

// trip goes on with a trip wherever it stands, as a program does that was killed.
func trip(l *Ledger, w io.Writer) error {
	defer l.Close()
	if t, _ := l.Trip("T"); t.State == "" {
		if err := l.Keep("t.azc", keptBundle); err != nil {
			return err
		}
		fmt.Fprintln(w, "kept")
	}
	events := []string{Requested, Exported, Admitted, Opened, Applied, Confirmed}
	t, _ := l.Trip("T")
	for _, event := range events[slices.Index(events, t.State)+1:] {
		if _, err := l.Append(event, "T", map[string]string{"step": event}); err != nil {
			return err
		}
		fmt.Fprintln(w, event)
	}
	return nil
}

func childCommand(t *testing.T, verb, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "AZS_LEDGER_CHILD="+verb, "AZS_LEDGER_DIR="+dir)
	return cmd
}

func TestRacingProcesses(t *testing.T) {
	l, dir := newLedger(t, Relay)
	mustClose(t, l)
	var children []*exec.Cmd
	for range 3 {
		cmd := childCommand(t, "race", dir)
		cmd.Stderr = &bytes.Buffer{}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, cmd)
	}
	for _, cmd := range children {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, cmd.Stderr)
		}
	}
	report, err := Check(dir, Relay)
	if err != nil || report.Damage != nil {
		t.Fatal(err, report.Damage)
	}
	if got, want := len(report.Entries), 1+len(children)*racing; got != want || report.Torn != 0 {
		t.Errorf("%d entries and %d torn bytes, want %d and none", got, report.Torn, want)
	}
}

func TestAFolderInUseByAnotherProcess(t *testing.T) {
	l, dir := newLedger(t, Relay)
	out, err := childCommand(t, "busy", dir).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != int(fault.Medium) {
		t.Fatalf("got %v: %s", err, out)
	}
	want := fmt.Sprintf("the state folder %q is in use by another process, id %d\n", dir, os.Getpid())
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("message differs (-want +got):\n%s", diff)
	}
	mustClose(t, l)
	if out, err := childCommand(t, "busy", dir).CombinedOutput(); err != nil {
		t.Errorf("after the lock was given back: %v: %s", err, out)
	}
}

// killAt runs verb in a process that dies at write boundary n and returns the
// steps acknowledged before, the boundaries passed, and whether it died.
func killAt(t *testing.T, n int, verb, dir string) (acked, passed []string, died bool) {
	t.Helper()
	if !killable {
		t.Skip("built without the tag faultinject: no write boundary can be killed at")
	}
	count := filepath.Join(t.TempDir(), "count")
	cmd := childCommand(t, verb, dir)
	cmd.Env = append(cmd.Env, fmt.Sprintf("AZS_FAULT_KILL_AT=%d", n), "AZS_FAULT_COUNT_FILE="+count)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && stderr.Len() > 0 {
		t.Fatalf("killed at %d: %s failed by itself: %s", n, verb, &stderr)
	}
	acked = strings.Fields(string(out))
	if data, err := os.ReadFile(count); err == nil {
		for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
			passed = append(passed, s.Text())
		}
	}
	return acked, passed, err != nil
}

// Threat: power fails or the process is killed at any moment. What was
// acknowledged is there, at most the step in flight is there too, and the next
// run goes on to the end.
func TestKilledAtEveryBoundaryOfATrip(t *testing.T) {
	all := []string{"made", "kept", Requested, Exported, Admitted, Opened, Applied, Confirmed}
	for n := 1; ; n++ {
		dir := filepath.Join(t.TempDir(), "home")
		acked, passed, died := killAt(t, n, "trip", dir)
		if !died {
			// Two new files of 9 boundaries and six lines of 5.
			if n-1 != 2*9+6*5 || !slices.Equal(acked, all) {
				t.Errorf("%d boundaries, %q acknowledged", n-1, acked)
			}
			t.Logf("killed at %d boundaries", n-1)
			break
		}
		at := passed[len(passed)-1]
		if !slices.Equal(acked, all[:len(acked)]) {
			t.Fatalf("killed at %s: %q acknowledged", at, acked)
		}

		l, err := open(dir, Agent, &steps{noon}, 0)
		if err != nil {
			if fault.KindOf(err) != fault.Locked || len(acked) > 0 {
				t.Fatalf("killed at %s after %q: %v", at, acked, err)
			}
			if l, err = Create(dir, Agent, &steps{noon}); err != nil {
				t.Fatalf("killed at %s: made again: %v", at, err)
			}
		}
		found := []string{"made"}
		if kept, err := l.Kept("t.azc"); err == nil {
			if !bytes.Equal(kept, keptBundle) {
				t.Errorf("killed at %s: the kept bundle has %d bytes of %d", at, len(kept), len(keptBundle))
			}
			found = append(found, "kept")
		}
		entries := l.Entries()
		for _, e := range entries {
			if e.Trip == "T" {
				found = append(found, e.Event)
			}
		}
		if !slices.Equal(found, all[:len(found)]) || len(found) < len(acked) || len(found) > len(acked)+1 {
			t.Errorf("killed at %s: acknowledged %q, found %q", at, acked, found)
		}
		torn := slices.ContainsFunc(entries, func(e Entry) bool { return e.Event == eventRepaired })
		if want := strings.HasSuffix(at, " torn write") && slices.Contains(acked, "kept"); torn != want {
			t.Errorf("killed at %s: repaired is %v, want %v", at, torn, want)
		}

		if err := trip(l, io.Discard); err != nil {
			t.Errorf("killed at %s: the next run: %v", at, err)
		}
		l = mustOpen(t, dir, Agent)
		if end, _ := l.Trip("T"); end.State != Confirmed || len(end.Entries) != 6 {
			t.Errorf("killed at %s: the next run ends in %q with %d entries", at, end.State, len(end.Entries))
		}
		mustClose(t, l)
		for name := range snapshot(t, dir) {
			if strings.HasSuffix(name, ".tmp") {
				t.Errorf("killed at %s: %s is left over", at, name)
			}
		}
	}
}

// The repair itself is killed: the torn piece is kept once, and told once.
func TestKilledAtEveryBoundaryOfARepair(t *testing.T) {
	for n := 1; ; n++ {
		dir, lines := journalOfSix(t)
		torn := lines[5][:50]
		writeJournalFile(t, dir, join(join(lines[:5]...), torn))
		_, passed, died := killAt(t, n, "open", dir)
		if !died {
			if n-1 != 2*9 { // journal.torn and the journal
				t.Errorf("%d boundaries", n-1)
			}
			t.Logf("killed at %d boundaries", n-1)
			break
		}
		at := passed[len(passed)-1]
		l, err := open(dir, Agent, &steps{noon}, 0)
		if err != nil {
			t.Fatalf("killed at %s: %v", at, err)
		}
		entries := l.Entries()
		if len(entries) != 6 || entries[5].Event != eventRepaired || entries[5].Data["sha256"] != digest(torn) {
			t.Errorf("killed at %s: entries %v", at, entries[5:])
		}
		want := map[string]string{
			"/" + journalFile: string(join(append(lines[:5:5], entries[5].Line())...)),
			"/" + tornFile:    string(torn) + "\n",
		}
		if diff := cmp.Diff(want, snapshot(t, dir)); diff != "" {
			t.Errorf("killed at %s: the folder differs (-want +got):\n%s", at, diff)
		}
		mustClose(t, l)
	}
}
