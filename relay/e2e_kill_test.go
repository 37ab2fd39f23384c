package main_test

import (
	"bytes"
	"fmt"
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
// it comes through. After each kill the same command must end with code 0, or
// with AGAIN where nothing but the last words was missing, and the file OUT must
// be there; an answer that was kept at the kill already must be that file. A
// further run must end with code AGAIN and leave OUT as it is.
func killsweep(ts *testscript.TestScript, args []string) {
	need(ts, args, 4, "killsweep HOME OUT AGAIN COMMAND…")
	home, out, again, command := ts.MkAbs(args[0]), ts.MkAbs(args[1]), args[2], args[3:]
	dir, err := fragile()
	ts.Check(err)
	dying := append([]string{filepath.Join(dir, command[0])}, command[1:]...)

	before := ts.MkAbs("before-" + filepath.Base(home))
	ts.Check(os.RemoveAll(before)) // of an earlier sweep
	ts.Check(os.CopyFS(before, os.DirFS(home)))
	for n := 1; ; n++ {
		ts.Check(os.RemoveAll(home))
		ts.Check(os.CopyFS(home, os.DirFS(before)))
		if err := os.Remove(out); err != nil && !os.IsNotExist(err) {
			ts.Fatalf("%v", err)
		}
		ts.Setenv("AZS_FAULT_KILL_AT", strconv.Itoa(n))
		code := run(ts, dying...)
		ts.Setenv("AZS_FAULT_KILL_AT", "")
		if code == 0 {
			ts.Logf("%s writes %d times", strings.Join(command[:2], " "), n-1)
			if n < 20 {
				ts.Fatalf("it came through after %d kills only", n-1)
			}
			return
		}
		if code != -1 && code != 137 {
			ts.Fatalf("kill %d: exit code %d", n, code)
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
			ts.Fatalf("after kill %d: exit code %d", n, code)
		}
		first, err := os.ReadFile(out)
		ts.Check(err)
		if sealed != nil && strings.HasSuffix(out, ".azc") && !bytes.Equal(sealed, first) {
			ts.Fatalf("after kill %d the answer is another one than stood there", n)
		}
		if code := run(ts, command...); strconv.Itoa(code) != again {
			ts.Fatalf("a second time after kill %d: exit code %d, want %s", n, code, again)
		}
		if second, err := os.ReadFile(out); err != nil || !bytes.Equal(first, second) {
			ts.Fatalf("a second time after kill %d: another file (%v)", n, err)
		}
	}
}
