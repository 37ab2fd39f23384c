package console

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/windows"
)

// terminal is the console window of the process.
type terminal struct{ in, out *os.File }

func openTerminal() (*terminal, error) {
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		_ = in.Close()
		return nil, err
	}
	return &terminal{in, out}, nil
}

func (t *terminal) Close() error {
	_ = t.out.Close()
	return t.in.Close()
}

// enableEscapes turns on escape sequences of a console window and reports
// whether it knows them.
func enableEscapes(f *os.File) bool {
	h := windows.Handle(f.Fd())
	var mode uint32
	if err := windows.GetConsoleMode(h, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(h, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}

// ask prints the prompt and reads one line, in the console's own line editing.
// Ctrl-C ends the read with nothing (io.EOF), Ctrl-Z likewise. The console's mode
// is put back on every way out. Closing stop does not end a read that waits:
// Windows ends a program that is told to close within seconds.
func (t *terminal) ask(prompt string, echo bool, stop <-chan struct{}) (line string, err error) {
	select {
	case <-stop:
		return "", errInterrupted
	default:
	}
	h := windows.Handle(t.in.Fd())
	var old uint32
	if err := windows.GetConsoleMode(h, &old); err != nil {
		return "", err
	}
	mode := old | windows.ENABLE_LINE_INPUT | windows.ENABLE_PROCESSED_INPUT | windows.ENABLE_ECHO_INPUT
	if !echo {
		mode &^= windows.ENABLE_ECHO_INPUT
	}
	if err := windows.SetConsoleMode(h, mode); err != nil {
		return "", err
	}
	defer func() {
		if back := windows.SetConsoleMode(h, old); err == nil {
			err = back
		}
		if !echo || err != nil {
			_, _ = t.out.WriteString("\r\n")
		}
	}()
	if _, err := t.out.WriteString(prompt); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	for !strings.HasSuffix(line, "\n") {
		n, err := t.in.Read(buf)
		line += string(buf[:n])
		switch {
		case errors.Is(err, windows.ERROR_OPERATION_ABORTED):
			return "", errInterrupted
		case err != nil:
			return "", err
		}
	}
	return line, nil
}
