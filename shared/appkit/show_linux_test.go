package appkit_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// watch runs a verb at a pseudo-terminal of that size and types the keys, one after
// each picture that was drawn. It returns what was drawn, the exit code, and
// whether the terminal is in the mode in which it was.
func (s side) watch(cols, rows uint16, keys []string, args ...string) (drawn string, exit int, same bool) {
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
	if err == nil {
		err = unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.t.Skipf("this system gives no pseudo-terminal: %v", err)
	}
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	held, err := unix.Dup(int(program.Fd()))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], append([]string{"--home", s.home}, args...)...)
	cmd.Env = append(os.Environ(), "APPKIT_TEST_STATION="+s.role, "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 2}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	program.Close()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		if after, err := unix.IoctlGetTermios(held, unix.TCGETS); err == nil {
			same = *after == *before
		}
		unix.Close(held) // the person reads to the end
		close(ended)
	}()
	var seen []byte
	for b := make([]byte, 4096); ; {
		n, err := person.Read(b)
		if err != nil {
			break
		}
		seen = append(seen, b[:n]...)
		if len(keys) > 0 && bytes.Contains(seen[max(0, len(seen)-n-16):], []byte("\x1b[?2026l")) {
			if keys[0] == "SIGTERM" {
				_ = cmd.Process.Signal(syscall.SIGTERM)
			} else if _, err := person.WriteString(keys[0]); err != nil {
				s.t.Fatal(err)
			}
			keys = keys[1:]
		}
	}
	<-ended
	return string(seen), cmd.ProcessState.ExitCode(), same
}

// Whatever ends the animation, the terminal is given back as it was.
func TestShowInTheTerminal(t *testing.T) {
	agent, _ := newSides(t)
	request := agent.request(t.TempDir(), 1, nil)
	for _, tt := range []struct {
		name string
		keys []string
		exit int
	}{
		{"q", []string{"+", "n", "d", "s", "\x1b[A", " ", "q"}, 0},
		{"Ctrl-C", []string{"n", "\x03"}, 0},
		{"SIGTERM", []string{"n", "SIGTERM"}, 130},
	} {
		drawn, exit, same := agent.watch(120, 40, tt.keys, "show", request)
		if exit != tt.exit || !same {
			t.Errorf("%s: exit code %d, the terminal's mode is as it was: %v", tt.name, exit, same)
		}
		first, last := strings.Index(drawn, "\x1b[?1049h"), strings.LastIndex(drawn, "\x1b[?1049l")
		if first < 0 || last < first || !strings.Contains(drawn[first:last], "▄") || !strings.Contains(drawn[first:last], "any ") || strings.Contains(drawn[last:], "▄") {
			t.Errorf("%s: %d bytes were drawn, the other screen is entered at %d and left at %d", tt.name, len(drawn), first, last)
		}
	}
	if log := agent.must(0, []string{"log"}).Out; strings.Count(log, "shown") != 3 || !strings.Contains(log, "the terminal") {
		t.Errorf("the journal:\n%s", log)
	}
	drawn, exit, same := agent.watch(40, 12, []string{"q"}, "show", request)
	if exit != 0 || !same || strings.Contains(drawn, "▄") || !strings.Contains(drawn, "40 columns and 12") || !strings.Contains(drawn, "--html FILE") {
		t.Errorf("a small terminal: exit code %d, mode kept: %v, drawn %q", exit, same, drawn)
	}
	if log := agent.must(0, []string{"log"}).Out; strings.Count(log, "shown") != 3 {
		t.Errorf("what no terminal showed is in the journal:\n%s", log)
	}
	drawn, exit, same = agent.watch(80, 30, []string{"q"}, "card", "--qr")
	if exit != 0 || !same || !strings.Contains(drawn, "▄") || !strings.Contains(drawn, "words of the card") {
		t.Errorf("a card: exit code %d, mode kept: %v", exit, same)
	}
	if _, err := os.Stat(filepath.Join(agent.home, "card.azc")); err != nil {
		t.Error(err)
	}
}
