//go:build unix

package console

import (
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the controlling terminal of the process.
type terminal struct{ f *os.File }

func openTerminal() (*terminal, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return &terminal{f}, nil
}

func (t *terminal) Close() error { return t.f.Close() }

// enableEscapes reports that a terminal of this system knows escape sequences.
func enableEscapes(*os.File) bool { return true }

const interrupt = 3 // Ctrl-C

// ask prints the prompt and reads one line, in the terminal's own line editing.
//
// Keys that raise signals are read as characters for the time of the prompt, so
// that neither Ctrl-C nor Ctrl-Z can leave the terminal without its echo, and
// Ctrl-C ends a line (VEOL), so that it is noticed at once. The terminal's mode
// is put back on every way out.
func (t *terminal) ask(prompt string, echo bool, stop <-chan struct{}) (line string, err error) {
	fd := int(t.f.Fd())
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return "", err
	}
	mode := *old
	mode.Iflag |= unix.ICRNL
	mode.Lflag |= unix.ICANON | unix.ECHO
	mode.Lflag &^= unix.ISIG
	mode.Cc[unix.VEOL] = interrupt
	if !echo {
		mode.Lflag &^= unix.ECHO
	}
	if err := unix.IoctlSetTermios(fd, setTermios, &mode); err != nil {
		return "", err
	}
	defer func() {
		if back := unix.IoctlSetTermios(fd, setTermios, old); err == nil {
			err = back
		}
		if !echo || err != nil {
			_, _ = t.f.WriteString("\n")
		}
	}()
	if _, err := t.f.WriteString(prompt); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	for {
		if err := ready(fd, stop); err != nil {
			return "", err
		}
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return "", err
		case n == 0: // Ctrl-D, or the terminal has gone: not an answer
			return "", io.EOF
		}
		line += string(buf[:n])
		switch {
		case strings.ContainsRune(line, interrupt):
			return "", errInterrupted
		case strings.HasSuffix(line, "\n"):
			return line, nil
		}
	}
}

// ready waits until fd has a line to read or stop is closed. It uses select(2),
// because poll(2) does not know terminals on macOS.
func ready(fd int, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return errInterrupted
		default:
		}
		var set unix.FdSet
		set.Set(fd)
		tick := unix.NsecToTimeval(int64(100 * time.Millisecond))
		n, err := unix.Select(fd+1, &set, nil, nil, &tick)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n > 0:
			return nil
		}
	}
}
