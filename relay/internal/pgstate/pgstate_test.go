package pgstate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/internal/pgstate/pgtest"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/ledger/ledgertest"
	"github.com/azs-courier/azs-courier/shared/trust"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// The tests share one server; each has a database of its own.
var started struct {
	once   sync.Once
	server *pgtest.Server
	err    error
}

func TestMain(m *testing.M) {
	if verb := os.Getenv("AZS_PGSTATE_CHILD"); verb != "" {
		if err := child(verb); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(fault.ExitCode(err))
		}
		os.Exit(0)
	}
	code := m.Run()
	if s := started.server; s != nil {
		if err := s.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func server(tb testing.TB) *pgtest.Server {
	tb.Helper()
	started.once.Do(func() { started.server, started.err = pgtest.Start("fsync=off") })
	if errors.Is(started.err, pgtest.ErrAbsent) && os.Getenv("AZS_REQUIRE_POSTGRES") != "1" {
		tb.Skip(started.err)
	}
	must(tb, started.err)
	return started.server
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind fault.Kind, texts ...string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Fatalf("got %v of kind %v, want %v", err, fault.KindOf(err), kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}

// database is one database as a place of the suite.
type database struct {
	tb  testing.TB
	url string
}

func (p database) connect(make bool) (*DB, error) {
	a, err := ParseURL(p.url)
	if err != nil {
		return nil, err
	}
	return Open(context.Background(), a, make)
}

func (p database) with(make bool, f func(ledger.Store, ledger.Role, clock.Clock) (*ledger.Ledger, error), role ledger.Role, c clock.Clock) (*ledger.Ledger, error) {
	d, err := p.connect(make)
	if err != nil {
		return nil, err
	}
	l, err := f(d, role, c)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return l, nil
}

func (p database) Create(role ledger.Role, c clock.Clock) (*ledger.Ledger, error) {
	return p.with(true, ledger.CreateOn, role, c)
}

func (p database) Open(role ledger.Role, c clock.Clock) (*ledger.Ledger, error) {
	return p.with(false, ledger.OpenOn, role, c)
}

func (p database) View(role ledger.Role, c clock.Clock) (*ledger.Ledger, error) {
	return p.with(false, ledger.ViewOn, role, c)
}

func (p database) Check(role ledger.Role) (ledger.Report, error) {
	d, err := p.connect(false)
	if err != nil {
		return ledger.Report{}, err
	}
	defer d.Close()
	return ledger.CheckOn(d, role)
}

func (p database) Trust() (trust.Store, bool) {
	d := p.open(p.tb)
	return trust.In(d), d.Private()
}

// open is a session that ends with the test.
func (p database) open(tb testing.TB) *DB {
	tb.Helper()
	d, err := p.connect(true)
	must(tb, err)
	tb.Cleanup(func() { d.Close() })
	return d
}

func newDatabase(tb testing.TB) database { return database{tb, server(tb).NewDatabase(tb)} }

// newLedger is a new ledger in a new database, and its store.
func newLedger(tb testing.TB, p database) (*ledger.Ledger, *DB) {
	tb.Helper()
	d := p.open(tb)
	l, err := ledger.CreateOn(d, ledger.Relay, clock.Fixed(noon))
	must(tb, err)
	return l, d
}

func TestTheDatabaseKeepsThePromisesOfAStore(t *testing.T) {
	server(t)
	ledgertest.Run(t, true, func(tb testing.TB) ledgertest.Place { return newDatabase(tb) })
}

// Threat: somebody with a right to the tables edits the journal. The line is
// named, and nothing is added behind it.
func TestAnEditedDatabaseIsRefused(t *testing.T) {
	p := newDatabase(t)
	l, _ := newLedger(t, p)
	for _, event := range []string{ledger.Seen, ledger.Admitted, ledger.Registered} {
		_, err := l.Append(event, "T", nil)
		must(t, err)
	}
	s := server(t)
	conn := s.Connect(t, p.url)
	defer conn.Close(t.Context())
	for _, sql := range []string{
		`update azs_courier.lines set line = line`, `delete from azs_courier.lines where n = 4`, `truncate azs_courier.lines`,
		`update azs_courier.bundles set name = name`, `delete from azs_courier.bundles`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "only added to") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	s.Exec(t, p.url, `drop trigger only_added on azs_courier.lines`)

	// The newest line goes, while a relay is open that has read it.
	s.Exec(t, p.url, `delete from azs_courier.lines where n = 4`)
	_, err := l.Append(ledger.Answered, "T", nil)
	wantKind(t, err, fault.Refused, "not those that were read")

	s.Exec(t, p.url, `update azs_courier.lines set line = convert_to(replace(convert_from(line, 'UTF8'), '"T"', '"U"'), 'UTF8') where n = 2`)
	_, err = p.Open(ledger.Relay, clock.Fixed(noon))
	wantKind(t, err, fault.Refused, "line 3: the chain is broken", "database ")
	if got := fault.HintOf(err); got != "azs-relay log" {
		t.Errorf("hint %q", got)
	}
	r, err := p.Check(ledger.Relay)
	must(t, err)
	if len(r.Entries) != 2 || r.Damage == nil {
		t.Errorf("the report has %d good lines and the damage %v", len(r.Entries), r.Damage)
	}
}

func TestASchemaOfAnotherVersion(t *testing.T) {
	p := newDatabase(t)
	_, err := p.connect(false)
	wantKind(t, err, fault.Locked, "was not made yet")
	newLedger(t, p)
	server(t).Exec(t, p.url, `insert into azs_courier.migrations (version) values (99)`)
	_, err = p.connect(true)
	wantKind(t, err, fault.Permanent, "version 99", "newer azs-relay")
}

// docs/SHARED-STATE.md promises that psql gives the bytes of journal.jsonl.
func TestTheJournalByHand(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skipf("no psql here: %v", err)
	}
	p := newDatabase(t)
	l, _ := newLedger(t, p)
	_, err = l.Append("paired", "", map[string]string{"label": "a<b>&\"ü\\"})
	must(t, err)
	out, err := exec.Command("sh", "-c", psql+` "$0" -At -c "select convert_from(line, 'UTF8') from azs_courier.lines order by n" | grep . | tail -n 1 | sha256sum`, p.url).Output()
	must(t, err)
	if got := strings.TrimSpace(strings.TrimSuffix(string(out), "  -\n")); got != l.Head() {
		t.Errorf("the last line has the digest %q by hand, the head is %s", got, l.Head())
	}
}

// A relay needs no right to make or change tables.
func TestASmallRole(t *testing.T) {
	p := newDatabase(t)
	_, d := newLedger(t, p)
	must(t, d.Close())
	s := server(t)
	role := "small_" + d.config.Database
	s.Exec(t, p.url, fmt.Sprintf(`create role %[1]s login;
		grant usage on schema azs_courier to %[1]s;
		grant select on azs_courier.migrations to %[1]s;
		grant select, insert on azs_courier.lines, azs_courier.bundles to %[1]s;
		grant select, insert, update, delete on azs_courier.files, azs_courier.claims to %[1]s`, role))
	small := database{t, strings.Replace(p.url, "azs@", role+"@", 1)}
	l, err := small.Open(ledger.Relay, clock.Fixed(noon))
	must(t, err)
	defer l.Close()
	_, release, err := l.Claim(t.Context(), "T")
	must(t, err)
	defer release()
	_, err = l.Append(ledger.Seen, "T", nil)
	must(t, err)
	must(t, l.Keep("a.azc", []byte("a")))

	server(t).Exec(t, p.url, `revoke insert on azs_courier.lines from `+role)
	_, err = l.Append(ledger.Admitted, "T", nil)
	wantKind(t, err, fault.Permanent, "permission denied")
}

func TestAServerThatIsNotThere(t *testing.T) {
	a, err := ParseURL("postgres://azs@/azs?host=" + t.TempDir())
	must(t, err)
	_, err = Open(t.Context(), a, false)
	wantKind(t, err, fault.Unreachable, `database "azs" on `)
	_, err = database{t, server(t).URL("no_such_database")}.connect(false)
	wantKind(t, err, fault.Permanent, "no_such_database")
}

// A password is asked for, and comes from a password file.
func TestPasswords(t *testing.T) {
	s := pgtest.Need(t, "fsync=off", "password_encryption=scram-sha-256")
	url := s.NewDatabase(t)
	s.Exec(t, url, `create role relay login password 'hunter2'; grant create on database t1 to relay`)
	must(t, s.Authenticate("local all relay scram-sha-256"))
	url = strings.Replace(url, "azs@", "relay@", 1)
	p := database{t, url}
	_, err := p.connect(true)
	wantKind(t, err, fault.Permanent, `database "t1"`)
	if !strings.Contains(fault.HintOf(err), "PGPASSFILE") {
		t.Errorf("hint %q", fault.HintOf(err))
	}
	file := t.TempDir() + "/pgpass"
	must(t, os.WriteFile(file, []byte("*:*:t1:relay:hunter2\n"), 0o600))
	t.Setenv("PGPASSFILE", file)
	p.open(t)
	t.Setenv("PGPASSFILE", "")
	a, err := ParseSecret(strings.Replace(url, "relay@", "relay:hunter2@", 1) + "\n")
	must(t, err)
	d, err := Open(t.Context(), a, false)
	must(t, err)
	if strings.Contains(d.String(), "hunter2") {
		t.Errorf("the name holds the password: %s", d)
	}
	must(t, d.Close())
}
