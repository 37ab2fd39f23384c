package ledger

import (
	"context"
	"slices"
	"sync"
)

// claims are the keys that goroutines of this process hold.
type claims struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the key is free again
}

// take waits until the key is free in this process.
func (c *claims) take(ctx context.Context, key string) error {
	for {
		c.mu.Lock()
		busy, taken := c.held[key]
		if !taken {
			if c.held == nil {
				c.held = map[string]chan struct{}{}
			}
			c.held[key] = make(chan struct{})
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *claims) give(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.held[key])
	delete(c.held, key)
}

// Claim makes the caller the only one at work on what the keys name, a trip or a
// stamp, among the goroutines of this process and every other process that has
// the same state. It waits for another goroutine as long as ctx lasts, and for
// another process as long as the store does. When it returns, every line that
// was added before is in the ledger.
//
// Work is done under the context that it returns: that one ends early, with the
// reason as its cause, when the store can no longer say that the claim is held.
// A claim does not guard the journal, which guards itself, but what is done
// outside between two lines. release gives the keys back; it is called once.
//
// Errors: [fault.Medium] if another process holds a key, [fault.Unreachable] if
// the store cannot be asked.
func (l *Ledger) Claim(ctx context.Context, keys ...string) (held context.Context, release func(), err error) {
	if err := l.writable(); err != nil {
		return nil, nil, err
	}
	// In one order everywhere, so that two that want the same keys cannot each
	// hold one and wait for the other.
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	var undo []func()
	release = func() {
		for _, u := range slices.Backward(undo) {
			u()
		}
	}
	for _, key := range keys {
		if err := l.claims.take(ctx, key); err != nil {
			release()
			return nil, nil, err
		}
		undo = append(undo, func() { l.claims.give(key) })
		h, free, err := l.store.Claim(ctx, key)
		if err != nil {
			release()
			return nil, nil, err
		}
		undo = append(undo, free)
		ctx = h
	}
	if err := l.Refresh(); err != nil {
		release()
		return nil, nil, err
	}
	return ctx, release, nil
}
