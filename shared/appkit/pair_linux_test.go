package appkit_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/azs-courier/azs-courier/shared/bundle"
)

// atTerminal runs a verb of a side in a process of its own at a pseudo-terminal.
// Whenever the screen ends in "word N: ", the person types what say returns for N.
func (s side) atTerminal(say func(n int) string, args ...string) (screen string, exit int) {
	s.t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.t.Skipf("this system gives no pseudo-terminal: %v", err)
	}
	defer person.Close()
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.t.Skipf("this system gives no pseudo-terminal: %v", err)
	}
	cmd := exec.Command(os.Args[0], append([]string{"--home", s.home, "--color", "never"}, args...)...)
	cmd.Env = append(os.Environ(), "APPKIT_TEST_STATION="+s.role, "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 2}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	program.Close() // the person reads to the end when the last holder is gone
	var seen []byte
	for b := make([]byte, 1); ; {
		if _, err := person.Read(b); err != nil {
			break
		}
		seen = append(seen, b[0])
		line := seen[bytes.LastIndexByte(seen, '\n')+1:]
		if at, ok := bytes.CutPrefix(line, []byte("word ")); ok && bytes.HasSuffix(at, []byte(": ")) {
			n, err := strconv.Atoi(string(at[:len(at)-2]))
			if err != nil {
				s.t.Fatalf("asked for %q", line)
			}
			if _, err := person.WriteString(say(n) + "\n"); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	return string(seen), cmd.ProcessState.ExitCode()
}

// Two operators as docs/CEREMONY.md has it: what one screen hides the other
// shows, and four words typed are enough.
func TestPairAtTheTerminal(t *testing.T) {
	agent, relay := newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1")
	words := strings.Fields(agent.must(0, []string{"words", relay.card()}).Out)
	for _, tt := range []struct {
		side side
		card string
		odd  int
	}{{agent, relay.card(), 1}, {relay, agent.card(), 0}} {
		var asked []int
		screen, exit := tt.side.atTerminal(func(n int) string {
			asked = append(asked, n)
			if len(asked) == 2 {
				return "zebra-" // misheard once
			}
			return strings.ToUpper(words[n-1][:min(4, len(words[n-1]))])
		}, "pair", tt.card)
		if exit != 0 || !strings.Contains(screen, "is pinned") || len(asked) != 5 || asked[1] != asked[2] {
			t.Fatalf("exit code %d, asked for %v:\n%s", exit, asked, screen)
		}
		table, _, _ := strings.Cut(screen, "The other operator")
		for _, n := range asked {
			if n%2 != tt.odd {
				t.Errorf("the %s asks for word %d", tt.side.role, n)
			}
		}
		if strings.Count(table, "____") != 4 {
			t.Errorf("four words are not hidden:\n%s", table)
		}
	}
}

// Threat: the card was exchanged, and the operator types what the true other
// side reads out. After three wrong words nothing is pinned.
func TestWrongWordsAtTheTerminal(t *testing.T) {
	agent, relay, thief := newSide(t, bundle.RoleAgent, "site-a"), newSide(t, bundle.RoleRelay, "relay-1"), newSide(t, bundle.RoleRelay, "relay-1")
	spoken := strings.Fields(relay.must(0, []string{"words", agent.card()}).Out)
	shown := strings.Fields(agent.must(0, []string{"words", thief.card()}).Out)
	typed, wrong := 0, 0
	screen, exit := agent.atTerminal(func(n int) string {
		if typed++; spoken[n-1] != shown[n-1] {
			wrong++
		}
		return spoken[n-1]
	}, "pair", thief.card())
	if exit != 4 || wrong != 3 || strings.Contains(screen, "is pinned") {
		t.Errorf("exit code %d after %d words, %d of them wrong:\n%s", exit, typed, wrong, screen)
	}
	agent.must(0, []string{"pair", "show"}, "no peer is pinned")
}
