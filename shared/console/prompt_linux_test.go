package console_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// TestMain plays the program in a process of its own when a test starts one on a
// terminal; see onTerminal.
func TestMain(m *testing.M) {
	scene := os.Getenv("CONSOLE_TEST_SCENE")
	if scene == "" {
		os.Exit(m.Run())
	}
	stop := make(chan struct{})
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() { <-terminated; close(stop) }()
	c := console.New(os.Stdin, os.Stdout, os.Stderr, console.Options{
		Program: "azs-agent", Command: "azs-agent init", JSON: scene == "json", Stop: stop})
	os.Exit(fault.ExitCode(scenes[scene](c)))
}

// scenes are the programs that TestMain plays. What a prompt returned is printed
// in hexadecimal, so that it cannot be taken for its echo.
var scenes = map[string]func(c *console.Console) error{
	"passphrase": func(c *console.Console) error { return reveal(c)(c.Passphrase("passphrase")) },
	"new":        func(c *console.Console) error { return reveal(c)(c.NewPassphrase("new passphrase")) },
	"json":       func(c *console.Console) error { return reveal(c)(c.Passphrase("passphrase")) },
	"ask": func(c *console.Console) error {
		answer, err := c.Ask("word 3: ", "--expect-words W")
		return reveal(c)(secret.New(answer), err)
	},
	"confirm": func(c *console.Console) error {
		yes, err := c.Confirm("go on?", "--yes")
		c.Data(fmt.Appendf(nil, "%v", yes))
		return err
	},
	"progress": func(c *console.Console) error {
		c.Progress("waiting %d s", 1)
		c.Progress("%s\n%s", strings.Repeat("w", 100), "\x1b[2J")
		c.Say("done")
		c.Warn("odd")
		return nil
	},
}

func reveal(c *console.Console) func(secret.Text, error) error {
	return func(s secret.Text, err error) error {
		if err == nil {
			c.Data(fmt.Appendf(nil, "%x", s.Reveal()))
		}
		return err
	}
}

// pty opens a pseudo-terminal: what a person sees and types, and the program's side.
func pty(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this system gives no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this system gives no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// act is one move of the person at the terminal: wait for the text, then type,
// or send the program a signal.
type act struct {
	wait, typed string
	signal      os.Signal
}

// seen is what a run on a terminal left.
type seen struct {
	Out    string // standard output, which is a pipe
	Screen string // the terminal, with standard error
	Exit   int
}

// onTerminal plays a scene in a process whose controlling terminal and standard
// error are a pseudo-terminal, with standard input and output elsewhere.
func onTerminal(t *testing.T, scene string, acts []act, env ...string) seen {
	t.Helper()
	person, program := pty(t)
	before := mode(t, program)
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 40}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "NO_COLOR=", "TERM=xterm", "CONSOLE_TEST_SCENE="+scene), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("on the pipe\n"), &out, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 2}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	for _, a := range acts {
		screen.WriteString(readUntil(t, person, a.wait))
		if a.signal != nil {
			if err := cmd.Process.Signal(a.signal); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := person.WriteString(a.typed); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	if diff := cmp.Diff(before, mode(t, program)); diff != "" {
		t.Errorf("the terminal was left in another mode (-before +after):\n%s", diff)
	}
	if _, err := program.WriteString("\x04"); err != nil { // the end of what is to be read
		t.Fatal(err)
	}
	screen.WriteString(strings.TrimSuffix(readUntil(t, person, "\x04"), "\x04"))
	return seen{out.String(), screen.String(), cmd.ProcessState.ExitCode()}
}

func mode(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

func readUntil(t *testing.T, r io.Reader, end string) string {
	t.Helper()
	var got []byte
	for b := make([]byte, 1); !bytes.HasSuffix(got, []byte(end)); {
		if _, err := r.Read(b); err != nil {
			t.Fatalf("the terminal showed %q and then %v, want %q", got, err, end)
		}
		got = append(got, b[0])
	}
	return string(got)
}

func TestPrompts(t *testing.T) {
	hex := func(s string) string { return fmt.Sprintf("%x", s) }
	const canary = "correct horse"
	tests := []struct {
		name, scene string
		acts        []act
		want        seen
	}{
		{"passphrase is not shown", "passphrase", []act{{wait: "passphrase: ", typed: canary + "\r"}},
			seen{Out: hex(canary), Screen: "passphrase: \r\n"}},
		{"a blank belongs to a passphrase", "passphrase", []act{{wait: ": ", typed: " x \n"}},
			seen{Out: hex(" x "), Screen: "passphrase: \r\n"}},
		{"keys that correct", "passphrase", []act{{wait: ": ", typed: "wrong\x15rihgt\x7f\x7f\x7fght\r"}},
			seen{Out: hex("right"), Screen: "passphrase: \r\n"}},
		{"Ctrl-C", "passphrase", []act{{wait: ": ", typed: "corr\x03"}},
			seen{Screen: "passphrase: \r\n", Exit: 130}},
		{"Ctrl-C before anything", "passphrase", []act{{wait: ": ", typed: "\x03"}},
			seen{Screen: "passphrase: \r\n", Exit: 130}},
		{"Ctrl-D is not an answer", "passphrase", []act{{wait: ": ", typed: "\x04"}},
			seen{Screen: "passphrase: \r\n", Exit: 130}},
		{"a line that ends in Ctrl-D is not an answer", "passphrase", []act{{wait: ": ", typed: "corr\x04\x04"}},
			seen{Screen: "passphrase: \r\n", Exit: 130}},
		{"told to end", "passphrase", []act{{wait: ": ", signal: syscall.SIGTERM}},
			seen{Screen: "passphrase: \r\n", Exit: 130}},
		{"empty passphrase", "passphrase", []act{{wait: ": ", typed: "\r"}},
			seen{Screen: "passphrase: \r\n", Exit: 8}},
		{"arrow key in a passphrase", "passphrase", []act{{wait: ": ", typed: "corr\x1b[Dect\r"}},
			seen{Screen: "passphrase: \r\n", Exit: 8}},
		{"Ctrl-Z does not leave", "passphrase", []act{{wait: ": ", typed: "corr\x1a\r"}},
			seen{Screen: "passphrase: \r\n", Exit: 8}},
		{"not UTF-8", "passphrase", []act{{wait: ": ", typed: "corr\xe4\r"}},
			seen{Screen: "passphrase: \r\n", Exit: 8}},
		{"new passphrase", "new", []act{{wait: "phrase: ", typed: canary + "\r"}, {wait: "(again): ", typed: canary + "\r"}},
			seen{Out: hex(canary), Screen: "new passphrase: \r\nnew passphrase (again): \r\n"}},
		{"new passphrase typed ahead", "new", []act{{wait: "phrase: ", typed: canary + "\r" + canary + "\r"}},
			seen{Out: hex(canary), Screen: "new passphrase: \r\nnew passphrase (again): \r\n"}},
		{"new passphrases differ", "new", []act{{wait: "phrase: ", typed: canary + "\r"}, {wait: "(again): ", typed: canary + "2\r"}},
			seen{Screen: "new passphrase: \r\nnew passphrase (again): \r\n", Exit: 2}},
		{"new passphrase too short", "new", []act{{wait: "phrase: ", typed: "horse\r"}},
			seen{Screen: "new passphrase: \r\n", Exit: 2}},
		{"question is shown and trimmed", "ask", []act{{wait: "word 3: ", typed: " abandon \r"}},
			seen{Out: hex("abandon"), Screen: "word 3:  abandon \r\n"}},
		{"Ctrl-C at a question", "ask", []act{{wait: "word 3: ", typed: "aba\x03"}},
			seen{Screen: "word 3: aba^C\r\n", Exit: 130}},
		{"confirmed", "confirm", []act{{wait: "[y/N]: ", typed: "Yes\r"}}, seen{Out: "true", Screen: "go on? [y/N]: Yes\r\n"}},
		{"not confirmed", "confirm", []act{{wait: "[y/N]: ", typed: "\r"}}, seen{Out: "false", Screen: "go on? [y/N]: \r\n"}},
		{"not asked with JSON", "json", nil, seen{Exit: 8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, onTerminal(t, tt.scene, tt.acts)); diff != "" {
				t.Errorf("run (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProgressOnATerminal(t *testing.T) {
	long := strings.Repeat("w", 39)
	for _, tt := range []struct{ name, env, want string }{
		{"colour", "NO_COLOR=", "waiting 1 s\r\x1b[K" + long + "\r\x1b[Kdone\r\nazs-agent: \x1b[33mwarning\x1b[m: odd\r\n"},
		{"NO_COLOR", "NO_COLOR=1", "waiting 1 s\r" + strings.Repeat(" ", 39) + "\r" + long + "\r" +
			strings.Repeat(" ", 39) + "\rdone\r\nazs-agent: warning: odd\r\n"},
		{"dumb", "TERM=dumb", "waiting 1 s\r" + strings.Repeat(" ", 39) + "\r" + long + "\r" +
			strings.Repeat(" ", 39) + "\rdone\r\nazs-agent: warning: odd\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(seen{Screen: tt.want}, onTerminal(t, "progress", nil, tt.env)); diff != "" {
				t.Errorf("run (-want +got):\n%s", diff)
			}
		})
	}
}
