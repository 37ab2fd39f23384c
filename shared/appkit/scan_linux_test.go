package appkit_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// A handheld scanner types into a terminal, which keeps 4,096 bytes of a line at
// most, and fewer elsewhere: nothing is echoed, a code of version 40 arrives
// whole, the scan ends by itself when it is complete, by Ctrl-D otherwise, and the
// terminal is as it was.
func TestScanAtATerminal(t *testing.T) {
	_, relay := newSides(t)
	agent, _ := newSides(t)
	set := frames(t, agent.request(t.TempDir(), 1, nil), 40)
	for _, c := range []struct {
		typed string
		want  fault.Kind
		says  string
	}{
		{lines(t, set, set.N()-1, set.N()) + lines(t, set, 0, set.K()-1), fault.NotForUs, "no pinned peer has that key"},
		{"hello\r\x04", fault.NothingYet, "1 lines"},
	} {
		person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Skipf("this system gives no pseudo-terminal: %v", err)
		}
		defer person.Close()
		n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Skipf("this system gives no pseudo-terminal: %v", err)
		}
		defer terminal.Close()
		before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		said := &waiter{text: "handheld scanner", seen: make(chan struct{})}
		ended := make(chan int, 1)
		go func() {
			ended <- appkit.Main(station(relay.role), []string{"--home", relay.home, "scan", "-", "--fresh"}, terminal, &bytes.Buffer{}, said)
		}()
		select { // the echo is off
		case <-said.seen:
		case code := <-ended:
			t.Fatalf("%.8q: exit code %d before anything was typed: %s", c.typed, code, said)
		}
		if _, err := person.WriteString(c.typed); err != nil {
			t.Fatal(err)
		}
		if code := <-ended; code != int(c.want) || !strings.Contains(said.String(), c.says) {
			t.Errorf("%.8q: exit code %d, want %d: %s", c.typed, code, c.want, said)
		}
		after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if *after != *before {
			t.Errorf("%.8q: the terminal's mode is %+v, was %+v", c.typed, *after, *before)
		}
		fd := int(person.Fd()) // once: it makes the file block
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		echoed := make([]byte, 64)
		if n, err := unix.Read(fd, echoed); err != unix.EAGAIN {
			t.Errorf("%.8q: %q was echoed, %v", c.typed, echoed[:max(0, n)], err)
		}
	}
}

// waiter collects what is said and tells when a text was.
type waiter struct {
	talk
	text string
	seen chan struct{}
	once bool
}

func (w *waiter) Write(b []byte) (int, error) {
	n, err := w.talk.Write(b)
	if !w.once && strings.Contains(w.String(), w.text) {
		w.once = true
		close(w.seen)
	}
	return n, err
}
