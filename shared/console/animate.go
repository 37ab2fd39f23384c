package console

import (
	"context"
	"errors"
	"time"

	"golang.org/x/term"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Animation is what plays in a terminal that it has for itself. Every answer is
// written at once and unchanged.
type Animation interface {
	Start() []byte                  // takes the terminal over
	Stop() []byte                   // gives it back; right at any time
	Resize(cols, rows int) []byte   // at the beginning, and when the size changed
	Keys([]byte) (b []byte, q bool) // what was typed; q ends it
	Tick() []byte                   // is due every Interval
	Interval() time.Duration        // 0 while nothing moves
}

// lookEvery is how often the size of the terminal is looked at. Windows has no
// signal that tells of a new one, so no system is asked for it.
const lookEvery = 200 * time.Millisecond

// CanAnimate reports whether standard output is a terminal that knows escape
// sequences, or was promised to be one by --color always.
func (c *Console) CanAnimate() bool { return !c.opt.JSON && c.out.terminal }

// Animate plays a on the terminal of the process until a key ends it (nil) or ctx
// does (its error). The keys come one by one and unechoed; the terminal is given
// back in its former mode on every way out, a panic of a included.
func (c *Console) Animate(ctx context.Context, a Animation) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	t, err := openTerminal()
	if err != nil {
		return fault.New(fault.Usage, "there is no terminal to show anything in: %w", err)
	}
	defer t.Close()
	back, err := t.raw()
	if err != nil {
		return fault.New(fault.Unexpected, "the terminal does not hand over its keys: %w", err)
	}
	stop, keys, ended := make(chan struct{}), make(chan []byte), make(chan error, 1)
	go func() { ended <- t.keys(keys, stop) }()
	reading := true
	defer func() {
		close(stop)
		if reading {
			<-ended
		}
		_, _ = t.write(a.Stop())
		if failed := back(); err == nil && failed != nil {
			err = fault.New(fault.Unexpected, "the terminal does not take its keys back: %w", failed)
		}
	}()

	cols, rows, err := t.size()
	if err != nil {
		return fault.New(fault.Unexpected, "the terminal does not tell its size: %w", err)
	}
	if err := t.show(a.Start(), a.Resize(cols, rows)); err != nil {
		return err
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	every := a.Interval()
	tick := time.NewTimer(every)
	defer tick.Stop()
	for {
		var due <-chan time.Time
		if every > 0 {
			due = tick.C
		}
		var out []byte
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			reading = false
			return fault.New(fault.Cancelled, "the terminal has gone: %w", err)
		case typed := <-keys:
			var quit bool
			if out, quit = a.Keys(typed); quit {
				return nil
			}
		case <-look.C:
			w, h, err := t.size()
			if err != nil || w == cols && h == rows {
				continue
			}
			cols, rows = w, h
			out = a.Resize(w, h)
		case <-due:
			out = a.Tick()
			tick.Reset(every)
		}
		if now := a.Interval(); now != every {
			every = now
			tick.Reset(max(every, time.Millisecond))
		}
		if err := t.show(out); err != nil {
			return err
		}
	}
}

// show writes each piece in one write.
func (t *terminal) show(pieces ...[]byte) error {
	for _, p := range pieces {
		if len(p) == 0 {
			continue
		}
		if _, err := t.write(p); err != nil {
			return fault.New(fault.Medium, "the terminal could not be written: %w", err)
		}
	}
	return nil
}

var errTerminalGone = errors.New("its input has ended")

// rawMode makes a descriptor hand over every key, and returns what undoes it.
func rawMode(fd uintptr) (back func() error, err error) {
	old, err := term.MakeRaw(int(fd))
	if err != nil {
		return nil, err
	}
	return func() error { return term.Restore(int(fd), old) }, nil
}
