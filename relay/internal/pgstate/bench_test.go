package pgstate

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/azs-courier/azs-courier/relay/internal/pgstate/pgtest"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/ledger"
)

// BenchmarkAppend is one line of the journal, durable, in a folder and in a
// database on the same disk, both with fsync; and with other relays that add
// lines all the time.
func BenchmarkAppend(b *testing.B) {
	line := func(b *testing.B, l *ledger.Ledger) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.AppendNext("put", "", "P", map[string]string{"to": "/media/stick/azs-answer-7q2mkx4r9d.azc"}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("folder", func(b *testing.B) {
		l, err := ledger.Create(filepath.Join(b.TempDir(), "home"), ledger.Relay, clock.System{})
		must(b, err)
		defer l.Close()
		line(b, l)
	})
	s := pgtest.Need(b)
	for _, others := range []int{0, 1, 3} {
		b.Run(fmt.Sprintf("postgresql, %d other relays", others), func(b *testing.B) {
			p := database{b, s.NewDatabase(b)}
			l, _ := newLedger(b, p)
			stop, ended := make(chan struct{}), make(chan error)
			for range others {
				o, err := p.Open(ledger.Relay, clock.System{})
				must(b, err)
				go func() {
					for {
						select {
						case <-stop:
							ended <- o.Close()
							return
						default:
						}
						if _, err := o.AppendNext("put", "", "P", nil); err != nil {
							ended <- err
							return
						}
					}
				}()
			}
			line(b, l)
			close(stop)
			for range others {
				must(b, <-ended)
			}
		})
	}
}

// BenchmarkClaim is a claim of trip and stamp, and its release.
func BenchmarkClaim(b *testing.B) {
	l, _ := newLedger(b, newDatabase(b))
	for b.Loop() {
		_, release, err := l.Claim(b.Context(), "trip T", "stamp S")
		must(b, err)
		release()
	}
}

// BenchmarkOpen is what a relay does first: connect, and read ten thousand lines.
func BenchmarkOpen10000(b *testing.B) {
	p := newDatabase(b)
	l, _ := newLedger(b, p)
	for n := range 10_000 {
		_, err := l.Append("put", "", map[string]string{"label": fmt.Sprintf("stamp %d", n)})
		must(b, err)
	}
	for b.Loop() {
		o, err := p.Open(ledger.Relay, clock.System{})
		must(b, err)
		must(b, o.Close())
	}
}
