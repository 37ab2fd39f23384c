package appkit

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// Station is an open state, in a folder or shared: the ledger, the pinned peers,
// and, once it is unlocked, the identity.
type Station struct {
	Env    *Env
	Store  trust.Store
	Ledger *ledger.Ledger
	Card   *trust.Card
	Peers  []trust.Peer
	Policy trust.Approvers
}

// Station opens the state for writing. No other process can open a folder until
// Close; a shared state is written by several.
func (e *Env) Station() (*Station, error) { return e.station(ledger.Open, ledger.OpenOn) }

// Reading opens the state beside a process that may be writing.
func (e *Env) Reading() (*Station, error) { return e.station(ledger.View, ledger.ViewOn) }

func (e *Env) station(
	inFolder func(string, ledger.Role, clock.Clock) (*ledger.Ledger, error),
	shared func(ledger.Store, ledger.Role, clock.Clock) (*ledger.Ledger, error),
) (*Station, error) {
	var l *ledger.Ledger
	store, at, err := e.store(false)
	if err != nil {
		return nil, err
	}
	if at == nil {
		l, err = inFolder(e.Home, ledger.Role(e.Role), e.Clock)
	} else if l, err = shared(at, ledger.Role(e.Role), e.Clock); err != nil {
		at.Close()
	}
	if err != nil {
		return nil, err
	}
	s := &Station{Env: e, Store: store, Ledger: l}
	if s.Card, err = s.Store.Card(); err == nil {
		s.Peers, err = s.Store.Peers()
	}
	if err == nil {
		s.Policy, err = s.Store.Approvers()
	}
	if err != nil {
		l.Close()
		if fault.KindOf(err) == fault.Locked {
			err = fault.New(fault.Locked, "%w", err).Hint("%s init", e.Program)
		}
		return nil, err
	}
	return s, nil
}

// Close gives the state folder back.
func (s *Station) Close() { s.Ledger.Close() }

// Unlock opens the identity, with the passphrase file or by asking.
func (s *Station) Unlock(ctx context.Context) (*trust.Identity, error) {
	return s.Env.attended(ctx, s.Store).Unlock(s.Env.passphrase)
}

// Path returns how an operator names a bundle that is kept.
func (s *Station) Path(file string) string { return s.Env.Path(file) }

// ReadBundle reads a bundle by the path that the operator gave, or by the name
// under which it is kept; or the one that --scan read.
func (e *Env) ReadBundle(arg string) ([]byte, error) {
	if e.scan != nil && arg == e.scan.name {
		return e.scan.text, nil
	}
	raw, err := medium.ReadFile(arg)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(arg) == arg {
		if kept, kerr := e.readKept(arg); kerr == nil {
			return kept, nil
		}
	}
	return raw, err
}

// Out is where a sealed bundle goes: a file, standard output, a stick. With none
// of them it stays in the state folder only.
type Out struct {
	File string // "-" is standard output
	Dir  string
}

// Write writes the bundle to every place that was asked for and returns them in
// the operator's words.
func (e *Env) Write(o Out, kind bundle.Kind, id bundle.ID, text []byte) ([]string, error) {
	var places []string
	switch o.File {
	case "":
	case "-":
		e.Console.Data(text)
		places = append(places, "standard output")
	default:
		if err := medium.Save(o.File, text, false); err != nil {
			return places, err
		}
		places = append(places, o.File)
	}
	if o.Dir != "" {
		r, err := medium.Put(o.Dir, medium.Name(string(kind), id.String()), text)
		if err != nil {
			return places, err
		}
		e.Console.Say("%s is on the medium, %d bytes, read back and equal: safe to remove", r.Path, r.Size)
		places = append(places, r.Path)
	}
	return places, nil
}

// Random is the randomness of ids and word positions.
var Random io.Reader = rand.Reader
