package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// fragile builds both programs with their write boundaries made visible, once a
// test run.
var fragile = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "azs-fragile-"); err != nil {
		return "", err
	}
	fragileDir = dir
	for program, source := range map[string]string{"azs-agent": "agent", "azs-relay": "relay"} {
		if runtime.GOOS == "windows" {
			program += ".exe"
		}
		cmd := exec.Command("go", "build", "-tags", "faultinject", "-o", filepath.Join(dir, program), filepath.Join("..", source))
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%v: %s", err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(fragileDir) // "" is nothing
	os.Exit(code)
}

// fragileDir is written by fragile and read when every test has ended.
var fragileDir string

// killsweep runs a command again and again on copies of the state folder HOME,
// and kills it by SIGKILL at its first, second, third … write to the disk, until
// it comes through, see [faults.sweep].
func killsweep(ts *testscript.TestScript, args []string) {
	need(ts, args, 5, "killsweep LEAST HOME OUT AGAIN COMMAND…")
	faults{
		set:  func(n int) map[string]string { return map[string]string{"AZS_FAULT_KILL_AT": strconv.Itoa(n)} },
		died: func(code int, _ string) bool { return code == -1 || code == 137 },
		what: "kill",
	}.sweep(ts, args)
}

// disksweep is [killsweep] for a disk that is full, then for one that is read-only,
// then for one that is broken, from the command's first, second, third … change of
// it on. The command must say so and end with code 7, or 13 where it had more to do.
func disksweep(ts *testscript.TestScript, args []string) {
	need(ts, args, 5, "disksweep LEAST HOME OUT AGAIN COMMAND…")
	home, before := ts.MkAbs(args[1]), ts.MkAbs("before-"+filepath.Base(args[1]))
	_, err := os.Stat(home)
	fresh := errors.Is(err, fs.ErrNotExist)
	for i, disk := range []struct{ state, says string }{
		{"full", "no space left on device"}, {"readonly", "read-only file system"}, {"broken", "input/output error"},
	} {
		if i > 0 { // each starts where the first did
			ts.Check(os.RemoveAll(home))
			if !fresh {
				ts.Check(os.CopyFS(home, os.DirFS(before)))
			}
		}
		faults{
			set: func(n int) map[string]string {
				return map[string]string{"AZS_FAULT_FAIL_AT": strconv.Itoa(n), "AZS_FAULT_DISK": disk.state}
			},
			died: func(code int, stderr string) bool {
				return (code == 7 || code == 13) && strings.Contains(stderr, disk.says)
			},
			what: disk.state + " disk",
		}.sweep(ts, args)
	}
}

// faults is a way for a command to fail at the n-th of its changes of the disk.
type faults struct {
	set  func(n int) map[string]string // the variables of the program that is built for it
	died func(code int, stderr string) bool
	what string
}

// sweep runs a command with fault 1, 2, 3 … on copies of the state folder HOME
// (which need not be there before), until no fault comes up. After each the
// journal is whole, the same command on a sound disk must end with code 0, or
// with AGAIN where nothing but the last words was missing, and the one file of the
// pattern OUT (- is none) must be there; an answer that was kept at the fault already must be that
// file. A further run must end with code AGAIN and leave OUT as it is. There are
// at least LEAST faults.
func (f faults) sweep(ts *testscript.TestScript, args []string) {
	least, err := strconv.Atoi(args[0])
	ts.Check(err)
	home, out, again, command := ts.MkAbs(args[1]), args[2], args[3], args[4:]
	read := func() []byte {
		if out == "-" {
			return nil
		}
		all := found(ts, out)
		if len(all) != 1 {
			ts.Fatalf("%d files are of the pattern %s: %q", len(all), out, all)
		}
		data, err := os.ReadFile(all[0])
		ts.Check(err)
		return data
	}
	dir, err := fragile()
	ts.Check(err)
	failing := append([]string{filepath.Join(dir, command[0])}, command[1:]...)

	before := ts.MkAbs("before-" + filepath.Base(home))
	ts.Check(os.RemoveAll(before)) // of an earlier sweep
	made := true
	if _, err := os.Stat(home); err == nil {
		made = false
		ts.Check(os.CopyFS(before, os.DirFS(home)))
	}
	for n := 1; ; n++ {
		ts.Check(os.RemoveAll(home))
		if !made {
			ts.Check(os.CopyFS(home, os.DirFS(before)))
		}
		if out != "-" {
			for _, old := range found(ts, out) {
				ts.Check(os.Remove(old))
			}
		}
		set := f.set(n)
		for name, value := range set {
			ts.Setenv(name, value)
		}
		code, stderr := run(ts, failing...), ts.ReadFile("stderr")
		for name := range set {
			ts.Setenv(name, "")
		}
		if code == 0 {
			ts.Logf("%s: %d faults (%s)", strings.Join(command[:2], " "), n-1, f.what)
			if n <= least {
				ts.Fatalf("it came through after %d faults only", n-1)
			}
			return
		}
		if !f.died(code, stderr) {
			ts.Fatalf("%s %d: exit code %d", f.what, n, code)
		}
		if _, err := os.Stat(filepath.Join(home, "card.azc")); err == nil { // without it nothing was begun
			if code := run(ts, command[0], "--home", home, "log"); code != 0 {
				ts.Fatalf("after %s %d the journal is not whole: exit code %d", f.what, n, code)
			}
		}
		var sealed []byte
		for _, kept := range found(ts, filepath.Join(home, "bundles", "azs-answer-*")) {
			if _, err := os.Lstat(filepath.Join(before, "bundles", filepath.Base(kept))); err == nil {
				continue // of an earlier trip
			}
			sealed, err = os.ReadFile(kept)
			ts.Check(err)
		}
		if code := run(ts, command...); code != 0 && strconv.Itoa(code) != again {
			ts.Fatalf("after %s %d: exit code %d", f.what, n, code)
		}
		first := read()
		if sealed != nil && strings.HasSuffix(out, ".azc") && !bytes.Equal(sealed, first) {
			ts.Fatalf("after %s %d the answer is another one than stood there", f.what, n)
		}
		if code := run(ts, command...); strconv.Itoa(code) != again {
			ts.Fatalf("a second time after %s %d: exit code %d, want %s", f.what, n, code, again)
		}
		if second := read(); !bytes.Equal(first, second) {
			ts.Fatalf("a second time after %s %d: another file", f.what, n)
		}
	}
}
