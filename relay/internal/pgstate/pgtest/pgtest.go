// Package pgtest runs Debian's own PostgreSQL for tests: a new cluster in a
// temporary folder, reachable by a Unix socket in that folder only, and gone with
// the test. It runs as the user postgres or nobody when the test runs as root,
// because the server refuses to run as root.
//
// Where PostgreSQL is not installed, tests are skipped with the reason, or fail
// when AZS_REQUIRE_POSTGRES=1 says that it has to be there. AZS_POSTGRES_BIN names
// a folder with initdb and postgres other than those below /usr/lib/postgresql.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running PostgreSQL.
type Server struct {
	Socket string // folder of the socket
	dir    string
	bin    string
	extra  []string
	cmd    *exec.Cmd
	said   *bytes.Buffer
	ended  chan error
	count  int
	mu     sync.Mutex
}

// Need starts a server and stops it when the test ends. Settings are of the form
// name=value.
func Need(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	s, err := Start(settings...)
	if errors.Is(err, ErrAbsent) && os.Getenv("AZS_REQUIRE_POSTGRES") != "1" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// ErrAbsent says that PostgreSQL is not installed.
var ErrAbsent = errors.New("no PostgreSQL here: install the Debian package postgresql")

// Start makes a cluster and runs it. Settings are of the form name=value.
func Start(settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "azs-pg-") // short: a socket's path has 107 bytes at most
	if err != nil {
		return nil, err
	}
	s := &Server{Socket: dir, dir: dir, bin: bin, extra: settings}
	if err = s.make(account); err == nil {
		err = s.run(account)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func binaries() (string, error) {
	if dir := os.Getenv("AZS_POSTGRES_BIN"); dir != "" {
		return dir, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", ErrAbsent
	}
	return filepath.Dir(found[len(found)-1]), nil
}

func (s *Server) make(account *syscall.SysProcAttr) error {
	if err := give(s.dir, account); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.bin, "initdb"), "-D", filepath.Join(s.dir, "data"), "-U", "azs", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	cmd.Dir, cmd.SysProcAttr = s.dir, account
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// run starts the server and waits until it answers.
func (s *Server) run(account *syscall.SysProcAttr) error {
	args := []string{"-D", filepath.Join(s.dir, "data"), "-k", s.Socket, "-c", "listen_addresses=", "-c", "max_connections=200"}
	for _, setting := range s.extra {
		args = append(args, "-c", setting)
	}
	s.said = &bytes.Buffer{}
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), args...)
	s.cmd.Dir, s.cmd.SysProcAttr, s.cmd.Stdout, s.cmd.Stderr = s.dir, account, s.said, s.said
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(s.cmd, s.ended)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			err = conn.Close(ctx)
			cancel()
			return err
		}
		cancel()
		select {
		case err := <-s.ended:
			return fmt.Errorf("postgres ended: %v: %s", err, s.said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Restart ends every session, as a restart of the server by its keeper does.
func (s *Server) Restart() error {
	if err := s.end(syscall.SIGINT); err != nil {
		return err
	}
	account, err := serverAccount()
	if err != nil {
		return err
	}
	return s.run(account)
}

// Stop ends the server and removes its folder.
func (s *Server) Stop() error { return errors.Join(s.end(syscall.SIGQUIT), os.RemoveAll(s.dir)) }

func (s *Server) end(how syscall.Signal) error {
	if err := s.cmd.Process.Signal(how); err != nil {
		return err
	}
	<-s.ended // what a server that was told to end exits with does not matter
	return nil
}

// URL names a database, without a password.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://azs@/%s?host=%s", database, s.Socket)
}

// NewDatabase makes an empty database and returns its URL.
func (s *Server) NewDatabase(tb testing.TB) string {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	name := fmt.Sprintf("t%d", s.count)
	s.Exec(tb, "postgres", "create database "+name+" template template0")
	return s.URL(name)
}

// Exec runs a statement in a database, given by its name or URL.
func (s *Server) Exec(tb testing.TB, database, sql string) {
	tb.Helper()
	ctx := context.Background()
	conn := s.Connect(tb, database)
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		tb.Fatal(err)
	}
}

// Connect opens a session of the test's own.
func (s *Server) Connect(tb testing.TB, database string) *pgx.Conn {
	tb.Helper()
	if filepath.Base(database) == database {
		database = s.URL(database)
	}
	conn, err := pgx.Connect(context.Background(), database)
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

// Authenticate puts a rule of pg_hba.conf before the others, and restarts.
func (s *Server) Authenticate(rule string) error {
	path := filepath.Join(s.dir, "data", "pg_hba.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append([]byte(rule+"\n"), old...), 0o600); err != nil {
		return err
	}
	return s.Restart()
}

// Installed reports whether there is a PostgreSQL to start.
func Installed() bool {
	_, err := binaries()
	return err == nil
}
