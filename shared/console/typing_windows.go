package console

import (
	"os"

	"golang.org/x/sys/windows"
)

// quiet turns the echo and the line editing of a console window off and returns
// what puts them back. Ctrl-C still interrupts.
func quiet(f *os.File) (end func(), err error) {
	h := windows.Handle(f.Fd())
	var old uint32
	if err := windows.GetConsoleMode(h, &old); err != nil {
		return nil, err
	}
	if err := windows.SetConsoleMode(h, old&^(windows.ENABLE_ECHO_INPUT|windows.ENABLE_LINE_INPUT)); err != nil {
		return nil, err
	}
	return func() { _ = windows.SetConsoleMode(h, old) }, nil
}
