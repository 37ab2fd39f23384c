package pgstate

import (
	"testing"

	"github.com/azs-courier/azs-courier/relay/internal/pgstate/pgtest"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

func TestSmoke(t *testing.T) {
	s := pgtest.Need(t)
	a, err := ParseURL(s.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), a, false); err == nil {
		t.Fatal("opened")
	}
	d, err := Open(t.Context(), a, true)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.CreateOn(d, ledger.Relay, clock.System{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(ledger.Seen, "T", nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
