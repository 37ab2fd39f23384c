package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/pgstate/pgtest"
	"github.com/azs-courier/azs-courier/shared/bundle"
)

// postgres starts a PostgreSQL with an empty database and lets AZS_RELAY_STATE
// name it, and AZS_RELAY_STATE_FILE nothing.
func postgres(ts *testscript.TestScript, _ []string) {
	s, err := pgtest.Start("fsync=off")
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Stop()) })
	ts.Setenv("AZS_RELAY_STATE", s.URL("postgres"))
}

// condition is [postgres], [ssh], [age], [bash], [zsh] or [fish]: the program is there,
// or has to be.
func condition(name string) (bool, error) {
	switch name {
	case "postgres":
		return os.Getenv("AZS_REQUIRE_POSTGRES") == "1" || pgtest.Installed(), nil
	case "age":
		return os.Getenv("AZS_AGE") != "", nil
	case "ssh":
		return installed("ssh-agent", "SSH"), nil
	case "bash", "zsh", "fish":
		return installed(name, "SHELLS"), nil
	}
	return false, fmt.Errorf("there is no condition %q", name)
}

// Threat: two operators on two hosts carry the same stick to two relays at once,
// and one of the relays dies. Every stamp is registered once and has one answer.
func TestTwoRelaysShareOneDatabase(t *testing.T) {
	const n = 24
	for _, kill := range []bool{false, true} {
		name := "both finish"
		if kill {
			name = "one is killed in the middle"
		}
		t.Run(name, func(t *testing.T) {
			pg := pgtest.Need(t, "fsync=off")
			pass := filepath.Join(t.TempDir(), "passphrase")
			if err := os.WriteFile(pass, []byte("a passphrase of the tests\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("AZS_RELAY_STATE", pg.NewDatabase(t))
			t.Setenv("AZS_PASSPHRASE_FILE", pass)
			srv := azuretest.NewServer(azuretest.WithSpeed(60))
			defer srv.Close()
			f := newFleet(t, n, srv)
			f.env = append(f.env, "AZS_REHEARSE_SPEED=60")

			// Each host has a stick of its own with the same requests.
			other := *f
			other.home, other.stick = filepath.Join(t.TempDir(), "no-folder"), filepath.Join(t.TempDir(), "stick")
			if err := os.CopyFS(other.stick, os.DirFS(f.stick)); err != nil {
				t.Fatal(err)
			}
			one, two := f.batch(), other.batch()
			outs := []*bytes.Buffer{new(bytes.Buffer), new(bytes.Buffer)}
			for i, c := range []*exec.Cmd{one, two} {
				c.Stdout, c.Stderr = outs[i], new(bytes.Buffer)
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
			}
			if kill {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := srv.Wait(ctx, "PUT", "*/registrations/*", n/3); err != nil {
					t.Fatal(err)
				}
				if err := two.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			for i, c := range []*exec.Cmd{one, two} {
				err := c.Wait()
				var exit *exec.ExitError
				if err != nil && !(kill && i == 1) && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				if err != nil && !kill {
					t.Errorf("relay %d: %v: %s", i+1, err, c.Stderr)
				}
			}
			// What is done stays done: both sticks end with the same answers.
			for _, at := range []*fleetOf{f, &other} {
				c := at.batch()
				c.Stderr = new(bytes.Buffer)
				out, err := c.Output()
				if err != nil {
					t.Fatalf("%v: %s", err, c.Stderr)
				}
				if _, count := readReport(t, out); count["answered"]+count["again"] != n {
					t.Errorf("outcomes %v, want %d answers", count, n)
				}
			}
			_, twice := f.doubles(n)
			if twice != 0 && !kill { // a relay that was killed may not have written down what it had sent
				t.Errorf("%d registrations were put twice", twice)
			}
			answers := sameAnswers(t, f.stick, other.stick)
			t.Logf("%d stamps, %d answers, %d registrations put twice", n, answers, twice)
			if answers != n {
				t.Errorf("%d answers, want %d", answers, n)
			}
			f.must("log")
		})
	}
}

// sameAnswers compares the answers on two sticks and returns how many there are:
// one for each request, each with a sequence number of its own.
func sameAnswers(t *testing.T, one, two string) int {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(one, "azs-answer-*.azc"))
	if err != nil {
		t.Fatal(err)
	}
	numbers, requests := map[uint64]string{}, map[string]string{}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(filepath.Join(two, filepath.Base(path))); err != nil || !bytes.Equal(raw, again) {
			t.Errorf("%s is another answer on the other stick (%v)", filepath.Base(path), err)
		}
		b, err := bundle.Split(raw)
		if err != nil {
			t.Fatal(err)
		}
		m, err := b.Peek()
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := numbers[m.Seq]; ok {
			t.Errorf("the number %d is that of %s and %s", m.Seq, other, path)
		}
		if other, ok := requests[m.Re.String()]; ok {
			t.Errorf("the request %s has the answers %s and %s", m.Re, other, path)
		}
		numbers[m.Seq], requests[m.Re.String()] = path, path
	}
	if more, err := filepath.Glob(filepath.Join(two, "azs-answer-*.azc")); err != nil || len(more) != len(paths) {
		t.Errorf("%d answers on one stick and %d on the other (%v)", len(paths), len(more), err)
	}
	return len(paths)
}
