//go:build unix

package console

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func (t *terminal) raw() (back func() error, err error) { return rawMode(t.f.Fd()) }

func (t *terminal) size() (cols, rows int, err error) { return term.GetSize(int(t.f.Fd())) }

func (t *terminal) write(b []byte) (int, error) { return t.f.Write(b) }

// keys hands over what is typed until stop is closed (nil) or nothing more can be.
func (t *terminal) keys(out chan<- []byte, stop <-chan struct{}) error {
	fd := int(t.f.Fd())
	buf := make([]byte, 256)
	for {
		if err := ready(fd, stop); errors.Is(err, errInterrupted) {
			return nil
		} else if err != nil {
			return err
		}
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errTerminalGone
		}
		select {
		case out <- bytes.Clone(buf[:n]):
		case <-stop:
			return nil
		}
	}
}
