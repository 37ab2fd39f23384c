package appkit

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// Shared is a state that lies outside the state folder and that several hosts
// use at once: the journal, the kept bundles, and the files of identity and peers.
type Shared interface {
	ledger.Store
	trust.Files
}

// SharedAddress says where a shared state lies.
type SharedAddress struct {
	URL  string // from the command line or the environment: it holds no password
	File string // a file with the URL, which may hold one
	Make bool   // make what is missing, for init
}

// The keys that the common verbs claim.
const (
	claimIdentity = "identity"
	claimPeers    = "peers"
)

func (p Program) sharedFlags() []cli.Flag {
	if p.Shared == nil {
		return nil
	}
	env := "AZS_" + strings.ToUpper(p.Role) + "_STATE"
	return []cli.Flag{
		&cli.StringFlag{Name: "state", Usage: "`URL` of a state that several hosts share, postgres://…, instead of the state folder; without a password", EnvVars: []string{env}},
		&cli.StringFlag{Name: "state-file", Usage: "read the URL of the shared state, password included, from `FILE`", EnvVars: []string{env + "_FILE"}},
	}
}

// share takes the shared state into the environment, if one was named. It is
// opened by the verbs that need it.
func (e *Env) share(ctx context.Context, p Program, s settings) error {
	a := SharedAddress{URL: s.state, File: s.stateFile}
	switch {
	case a.URL != "" && a.File != "":
		return fault.New(fault.Usage, "--state and --state-file, or their variables, contradict each other: one of them names the shared state")
	case a == SharedAddress{}:
		return nil
	}
	if e.where = a.URL; a.File != "" {
		e.where = "the database named by " + a.File
	}
	e.shared = func(make bool) (Shared, error) {
		a.Make = make
		return p.Shared(ctx, e, a)
	}
	return nil
}

// Where names the state: the folder, or the shared one as the operator named it.
func (e *Env) Where() string {
	if e.shared != nil {
		return e.where
	}
	return e.Home
}

// store returns where identity and peers lie, and the shared state, connected, or
// nil.
func (e *Env) store(make bool) (trust.Store, Shared, error) {
	if e.shared == nil {
		return trust.At(e.Home), nil, nil
	}
	at, err := e.shared(make)
	if err != nil {
		return trust.Store{}, nil, err
	}
	return trust.In(at), at, nil
}

// newLedger makes the ledger, or opens that of an init that was killed before the
// card was written.
func (e *Env) newLedger(at Shared) (*ledger.Ledger, error) {
	role := ledger.Role(e.Role)
	if at == nil {
		l, err := ledger.Create(e.Home, role, e.Clock)
		if errors.Is(err, fs.ErrExist) {
			l, err = ledger.Open(e.Home, role, e.Clock)
		}
		return l, err
	}
	l, err := ledger.CreateOn(at, role, e.Clock)
	if errors.Is(err, fs.ErrExist) {
		l, err = ledger.OpenOn(at, role, e.Clock)
	}
	return l, err
}

// Path returns how an operator names a bundle that is kept: by its path, or in a
// shared state by its name alone.
func (e *Env) Path(file string) string {
	if e.shared != nil {
		return file
	}
	return filepath.Join(e.Home, "bundles", file)
}

func (e *Env) readKept(name string) ([]byte, error) {
	if e.shared == nil {
		return medium.ReadFile(e.Path(name))
	}
	s, err := e.Reading()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Ledger.Kept(name)
}

// claimPeers keeps other hosts from pinning and revoking, and reads the peers as
// they stand now.
func (s *Station) claimPeers(ctx context.Context) (release func(), err error) {
	_, release, err = s.Ledger.Claim(ctx, claimPeers)
	if err != nil {
		return nil, err
	}
	if s.Peers, err = s.Store.Peers(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}
