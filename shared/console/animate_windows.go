package console

import (
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/term"
)

// raw makes the console hand over every key, arrow keys as escape sequences, and
// understand escape sequences itself.
func (t *terminal) raw() (back func() error, err error) {
	h := windows.Handle(t.out.Fd())
	var old uint32
	if err := windows.GetConsoleMode(h, &old); err != nil {
		return nil, err
	}
	if err := windows.SetConsoleMode(h, old|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING); err != nil {
		return nil, err
	}
	in, err := rawMode(t.in.Fd())
	if err != nil {
		_ = windows.SetConsoleMode(h, old)
		return nil, err
	}
	return func() error {
		err := in()
		if out := windows.SetConsoleMode(h, old); err == nil {
			err = out
		}
		return err
	}, nil
}

func (t *terminal) size() (cols, rows int, err error) { return term.GetSize(int(t.out.Fd())) }

func (t *terminal) write(b []byte) (int, error) { return t.out.Write(b) }

var readConsoleInput = windows.NewLazySystemDLL("kernel32.dll").NewProc("ReadConsoleInputW")

// event is INPUT_RECORD with a KEY_EVENT_RECORD in it (wincon.h).
type event struct {
	kind   uint16
	_      uint16
	down   int32
	repeat uint16
	key    uint16
	scan   uint16
	char   uint16
	state  uint32
}

const keyEvent = 1

// keys hands over what is typed until stop is closed (nil) or nothing more can be.
// It takes the console's events one by one, because a read of characters would
// wait on after an event that is no key.
func (t *terminal) keys(out chan<- []byte, stop <-chan struct{}) error {
	h := windows.Handle(t.in.Fd())
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		switch got, err := windows.WaitForSingleObject(h, 100); {
		case err != nil:
			return err
		case got != windows.WAIT_OBJECT_0:
			continue
		}
		var e event
		var n uint32
		if ok, _, err := readConsoleInput.Call(uintptr(h), uintptr(unsafe.Pointer(&e)), 1, uintptr(unsafe.Pointer(&n))); ok == 0 {
			return err
		}
		if n == 0 || e.kind != keyEvent || e.down == 0 || e.char == 0 || utf16.IsSurrogate(rune(e.char)) {
			continue
		}
		select {
		case out <- utf8.AppendRune(nil, rune(e.char)):
		case <-stop:
			return nil
		}
	}
}
