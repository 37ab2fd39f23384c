// Package pgstate keeps the state of a relay in PostgreSQL, so that several
// operators on several hosts serve one fleet.
//
// The properties, each held by the database and not by a promise of the relays:
//
//   - The journal has the same bytes as in a folder, and the same hash chain. Line
//     n goes in by one statement that also demands line n-1 as it was read; the
//     primary key lets one of all relays put it in, and the others read on and
//     judge their event anew. So a state is entered once, and a sequence number,
//     which is taken together with its line, is given once.
//   - A connection that breaks while a line is on its way leaves it unknown whether
//     the line is there. The same attempt, under the same mark, is then made again
//     over a new connection: it goes in now, or it finds its own mark, or another
//     relay's line. The line is never lost and never there twice.
//   - A claim is an advisory lock of the session. The server frees it when the
//     process ends, kill -9 included. Everything that a process asks goes over that
//     one session, so that a relay which lost its claims cannot go on writing
//     lines unaware of it: it takes its claims again first, and those that were
//     another's meanwhile, or are now, end with the context of their work.
//   - The identity is in the database under its passphrase only.
//
// The limits: a host that drops off the network without a word holds its claims
// until the server misses its keep-alive packets, about half a minute; and until
// it notices itself, at most as long, it may still be sending to Azure what
// another relay has taken over. What both then send is the same, and one of them
// can journal it. A commit that a failover to an asynchronous standby loses is
// lost here too: the chain is whole and shorter, as from an old backup. Who may
// write to the tables can do what who may write into the folder can.
//
// A connection pooler between relay and server would hand the session's locks to
// others; it is noticed and refused.
package pgstate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

const (
	statementTime = 10 * time.Second       // for one statement
	patience      = 20 * time.Second       // for an operation, reconnecting included
	pause         = 200 * time.Millisecond // between two tries
	beat          = 5 * time.Second        // between two looks at a session that holds claims
	claimWait     = 10 * time.Second       // for another relay, as for a folder's lock

	oldestServer = 140000 // pg_terminate_backend with a time limit
	maxFile      = 2 << 20
	maxJournal   = 256 << 20
)

// DB is the state in one database, over one session. It is a [ledger.Store] and
// the files of package trust. Its methods may be called by several goroutines;
// their statements go one after the other.
type DB struct {
	config *pgx.ConnConfig
	name   string
	holder string // host and process, for the message to another relay

	patience, wait time.Duration // the constants, but in tests

	mu      sync.Mutex
	conn    *pgx.Conn // nil: lost
	session session
	claims  map[string]*claim
	closed  bool

	stop  context.CancelFunc // ends the heart beat
	beats sync.WaitGroup
}

// session tells a session from all others of the server.
type session struct {
	pid   uint32
	start time.Time
}

// Open connects. With make it makes the tables that are missing; without it,
// a database without tables is [fault.Locked]. An older schema is brought up to
// date either way, and a newer one is refused.
//
// Errors: [fault.Unreachable] if the server cannot be reached, [fault.Permanent]
// if it refuses.
func Open(ctx context.Context, a Address, make bool) (*DB, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "a host without a name"
	}
	d := &DB{config: a.config, name: a.name, holder: fmt.Sprintf("%s, process %d", host, os.Getpid()), patience: patience, wait: claimWait, claims: map[string]*claim{}}
	if err := d.connect(ctx); err != nil {
		return nil, d.trouble("connect to", err)
	}
	if err := migrate(ctx, d.conn, make); err != nil {
		d.conn.Close(ctx)
		if errors.Is(err, errNotMade) {
			return nil, fault.New(fault.Locked, "the %s has no state of a relay: it was not made yet", d.name).Hint("azs-relay init --state …")
		}
		return nil, d.trouble("make the tables of", err)
	}
	beating, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.beats.Go(func() { d.beat(beating) })
	return d, nil
}

// String names the database: `database "azs" on db.example.org`.
func (d *DB) String() string { return d.name }

// Private is false: the database is for several hosts.
func (d *DB) Private() bool { return false }

// Close gives up the session and with it every claim. It may be called again.
func (d *DB) Close() error {
	d.stop()
	d.beats.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	for key, c := range d.claims {
		c.end(errClosed)
		delete(d.claims, key)
	}
	if d.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	_ = d.conn.Close(ctx) // every line is committed; there is nothing to lose
	d.conn = nil
	return nil
}

var errClosed = errors.New("the shared state was closed")

// connect opens a session and sees that it can carry what is promised.
func (d *DB) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, d.config)
	if err != nil {
		return err
	}
	var version int
	var standby bool
	var commit string
	var s session
	err = conn.QueryRow(ctx, `select pg_backend_pid(), a.backend_start, current_setting('server_version_num')::int, pg_is_in_recovery(),
		case current_setting('synchronous_commit') when 'off' then set_config('synchronous_commit', 'on', false) else '' end
		from pg_stat_activity a where a.pid = pg_backend_pid()`).Scan(&s.pid, &s.start, &version, &standby, &commit)
	switch {
	case err != nil:
	case s.pid != conn.PgConn().PID():
		err = fault.New(fault.Permanent, "a connection pooler stands before the %s: claims need a session of their own", d.name).Hint("give the address of the server itself in --state")
	case version < oldestServer:
		err = fault.New(fault.Permanent, "the %s is of PostgreSQL %d, at least %d is needed", d.name, version/10000, oldestServer/10000)
	case standby:
		err = fault.New(fault.Unreachable, "the %s is a standby and takes no changes", d.name)
	}
	if err != nil {
		conn.Close(ctx)
		return err
	}
	d.conn, d.session = conn, s
	return nil
}

// do runs f over the session, and again over a new one when the session breaks.
// What f does has to be the same when it is done twice.
func (d *DB) do(what string, f func(context.Context, *pgx.Conn) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fault.New(fault.Unexpected, "%s: %w", d.name, errClosed)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.patience)
	defer cancel()
	for tries := 0; ; tries++ {
		err := d.try(ctx, f)
		switch {
		case err == nil:
			return nil
		case !again(err, d.conn):
			return d.trouble(what, err)
		}
		wait := pause
		if tries == 0 {
			wait = 0 // most broken connections are open again at once
		}
		select {
		case <-ctx.Done():
			d.lose(err)
			return d.trouble(what, err)
		case <-time.After(wait):
		}
	}
}

// try is one try of do.
func (d *DB) try(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	if d.conn == nil || d.conn.IsClosed() {
		if err := d.reconnect(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	return f(ctx, d.conn)
}

// again reports whether a failure may pass: the session broke, or the server asks
// for another try.
func again(err error, conn *pgx.Conn) bool {
	if fault.KindOf(err) == fault.Permanent {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch class(pg) {
		case "08", "40", "57":
			return true
		}
		return false
	}
	return conn == nil || conn.IsClosed()
}

func class(e *pgconn.PgError) string { return e.Code[:min(2, len(e.Code))] }

// reconnect opens a new session after the old one broke. The old one is ended at
// the server too, which may not know yet that nobody is there: it would go on
// holding the claims. Then the claims are taken again.
func (d *DB) reconnect(ctx context.Context) error {
	old := d.session
	d.conn = nil
	if err := d.connect(ctx); err != nil {
		return err
	}
	if _, err := d.conn.Exec(ctx, `select pg_terminate_backend(pid, 5000) from pg_stat_activity where pid = $1 and backend_start = $2`, old.pid, old.start); err != nil {
		return d.drop(err)
	}
	for key, c := range d.claims {
		mine, err := c.retake(ctx, d.conn, key)
		if err != nil {
			return d.drop(err)
		}
		if !mine {
			c.end(fault.New(fault.Unreachable, "the claim on %s was lost with the connection to the %s, and is another relay's now", key, d.name).Hint("azs-relay status"))
			delete(d.claims, key)
		}
	}
	return nil
}

// drop gives a session up that is no use.
func (d *DB) drop(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.conn.Close(ctx) // it is given up because it does not answer
	d.conn = nil
	return err
}

// lose ends the work under every claim: nobody can say any more who holds them.
func (d *DB) lose(err error) {
	for key, c := range d.claims {
		c.end(fault.New(fault.Unreachable, "the claim on %s was lost: the %s cannot be reached: %w", key, d.name, err))
		delete(d.claims, key)
	}
}

// trouble says in one sentence what could not be done, and of which kind that is.
func (d *DB) trouble(what string, err error) error {
	if errors.Is(err, ledger.ErrMoved) {
		return err
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	kind, hint := fault.Unreachable, ""
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch {
		case class(pg) == "28": // authentication
			kind, hint = fault.Permanent, "a password file named by PGPASSFILE, or azs-relay --state-file FILE …"
		case class(pg) == "3D" || class(pg) == "3F" || class(pg) == "42": // no database, no schema, no right
			kind = fault.Permanent
		case class(pg) == "53" || class(pg) == "54" || class(pg) == "58": // full disk, input and output
			kind = fault.Medium
		}
	}
	f := fault.New(kind, "could not %s the %s: %w", what, d.name, err)
	if hint != "" {
		return f.Hint("%s", hint)
	}
	return f
}

// mark returns 128 random bits.
func mark() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

// Lines returns the journal behind its first n lines.
func (d *DB) Lines(n uint64) (journal []byte, err error) {
	err = d.do("read the journal in", func(ctx context.Context, c *pgx.Conn) error {
		journal = nil
		rows, err := c.Query(ctx, `select line from azs_courier.lines where n > $1 order by n`, int64(n))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var line []byte
			if err := rows.Scan(&line); err != nil {
				return err
			}
			if len(journal)+len(line) > maxJournal {
				return fault.New(fault.Medium, "the journal in the %s is longer than %d bytes", d.name, maxJournal)
			}
			journal = append(journal, line...)
		}
		return rows.Err()
	})
	return journal, err
}

// Append puts line n in by one statement. The mark is that of this call: what a
// broken connection leaves unknown, the next try finds out by it.
func (d *DB) Append(n uint64, prev string, line []byte) error {
	before, err := hex.DecodeString(prev)
	if err != nil {
		return fault.New(fault.Unexpected, "the digest %q of the line before line %d is not hex", prev, n)
	}
	added := mark()
	return d.do("add a line to the journal in", func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, `insert into azs_courier.lines (n, line, added)
			select $1::bigint, $2::bytea, $3::bytea
			where $1::bigint = 1 or exists (select from azs_courier.lines l where l.n = $1::bigint - 1 and sha256(l.line) = $4::bytea)
			on conflict (n) do nothing`, int64(n), line, added, before)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 1 {
			return nil
		}
		var ours bool
		err = c.QueryRow(ctx, `select added = $2 from azs_courier.lines where n = $1`, int64(n), added).Scan(&ours)
		if err == nil && ours {
			return nil // an earlier try put it in, and its answer was lost
		}
		if err == nil || errors.Is(err, pgx.ErrNoRows) {
			return ledger.ErrMoved
		}
		return err
	})
}

// Keep stores a sealed bundle. A second try after a broken connection may find the
// bundle of the first one; the ledger then compares the bytes.
func (d *DB) Keep(name string, data []byte) error {
	return d.do("keep a bundle in", func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, `insert into azs_courier.bundles (name, data) values ($1, $2) on conflict (name) do nothing`, name, data)
		if err == nil && tag.RowsAffected() == 0 {
			return fault.New(fault.Medium, "the bundle %q is kept in the %s already: %w", name, d.name, fs.ErrExist)
		}
		return err
	})
}

// Kept returns a kept bundle.
func (d *DB) Kept(name string) ([]byte, error) {
	return d.one("bundle", `select data from azs_courier.bundles where name = $1`, name, maxFile)
}

// one reads one value of at most limit bytes.
func (d *DB) one(what, query, name string, limit int64) (data []byte, err error) {
	err = d.do("read a "+what+" in", func(ctx context.Context, c *pgx.Conn) error {
		err := c.QueryRow(ctx, query, name).Scan(&data)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fault.New(fault.Medium, "the %s has no %s %q: %w", d.name, what, name, fs.ErrNotExist)
		case err == nil && int64(len(data)) > limit:
			return fault.New(fault.Medium, "the %s %q in the %s has %d bytes, at most %d are read", what, name, d.name, len(data), limit)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// KeptNames returns the names of the kept bundles, sorted.
func (d *DB) KeptNames() ([]string, error) {
	return d.names("list the kept bundles in", `select name from azs_courier.bundles order by name`)
}

func (d *DB) names(what, query string) (names []string, err error) {
	err = d.do(what, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query)
		if err != nil {
			return err
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return names, err
}
