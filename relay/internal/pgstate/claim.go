package pgstate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// claim is a key that this process holds.
type claim struct {
	token []byte
	end   context.CancelCauseFunc
}

// lockOf is the advisory lock of a key: 64 bits of its digest.
func lockOf(key string) int64 {
	sum := sha256.Sum256([]byte("azs-courier claim " + key))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

const takeLock = `select pg_try_advisory_lock($1)`

// Claim takes the advisory lock of the key, waiting ten seconds for another relay.
// Then the error is [fault.Medium] and says who holds it, since when.
func (d *DB) Claim(ctx context.Context, key string) (context.Context, func(), error) {
	waiting, stop := context.WithTimeout(ctx, d.wait)
	defer stop()
	for {
		held, err := d.take(ctx, key)
		if err != nil {
			return nil, nil, err
		}
		if held != nil {
			return held, func() { d.release(key) }, nil
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, nil, context.Cause(ctx)
			}
			return nil, nil, d.busy(key)
		case <-time.After(pause):
		}
	}
}

// take returns nil when another relay holds the key.
func (d *DB) take(ctx context.Context, key string) (held context.Context, err error) {
	token := mark()
	err = d.do("claim "+key+" in", func(asking context.Context, c *pgx.Conn) error {
		held = nil
		var got bool
		if err := c.QueryRow(asking, takeLock, lockOf(key)).Scan(&got); err != nil || !got {
			return err
		}
		_, err := c.Exec(asking, `insert into azs_courier.claims (key, token, holder) values ($1, $2, $3)
			on conflict (key) do update set token = excluded.token, holder = excluded.holder, since = now()`, key, token, d.holder)
		if err != nil {
			if !c.IsClosed() {
				_, uerr := c.Exec(asking, `select pg_advisory_unlock($1)`, lockOf(key))
				err = errors.Join(err, uerr)
			}
			return err
		}
		var end context.CancelCauseFunc
		held, end = context.WithCancelCause(ctx)
		d.claims[key] = &claim{token, end}
		return nil
	})
	return held, err
}

// retake takes the lock again over a new session, and reports whether the claim
// was nobody else's meanwhile.
func (c *claim) retake(ctx context.Context, conn *pgx.Conn, key string) (mine bool, err error) {
	var got bool
	if err := conn.QueryRow(ctx, takeLock, lockOf(key)).Scan(&got); err != nil || !got {
		return false, err
	}
	err = conn.QueryRow(ctx, `select exists (select from azs_courier.claims where key = $1 and token = $2)`, key, c.token).Scan(&mine)
	if err == nil && !mine {
		_, err = conn.Exec(ctx, `select pg_advisory_unlock($1)`, lockOf(key))
	}
	return mine, err
}

// release gives the key back. If the server cannot be reached, the end of the
// session does it.
func (d *DB) release(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.claims[key]
	if !ok {
		return // lost before
	}
	delete(d.claims, key)
	c.end(context.Canceled)
	if d.conn == nil || d.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	_, err := d.conn.Exec(ctx, `with gone as (delete from azs_courier.claims where key = $1 and token = $2) select pg_advisory_unlock($3)`, key, c.token, lockOf(key))
	if err != nil && !d.conn.IsClosed() {
		_ = d.drop(err) // a lock that could not be given back must not stay
	}
}

func (d *DB) busy(key string) error {
	holder, since := "another relay", ""
	err := d.do("ask for the holder of a claim in", func(ctx context.Context, c *pgx.Conn) error {
		var at time.Time
		err := c.QueryRow(ctx, `select holder, since from azs_courier.claims where key = $1`, key).Scan(&holder, &at)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		since = " since " + clock.Format(at)
		return err
	})
	if err != nil {
		return err
	}
	return fault.New(fault.Medium, "another relay, on %s, works on %s%s", holder, key, since).Hint("azs-relay status   (and the same command again when it is done)")
}

// beat looks at the session while it holds claims, so that a loss is noticed, and
// the claims taken again or given up, in good time.
func (d *DB) beat(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.mu.Lock()
		holds := len(d.claims) > 0
		d.mu.Unlock()
		if holds {
			_ = d.do("look at", func(ctx context.Context, c *pgx.Conn) error { return c.Ping(ctx) }) // what is lost, the contexts of the claims say
		}
	}
}
