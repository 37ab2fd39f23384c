//go:build faultinject

package medium

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("AZS_MEDIUM_CHILD")
	if dir == "" {
		os.Exit(m.Run())
	}
	if _, err := Put(dir, name, []byte(text)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// killedAt puts in a process that dies at boundary n (0: never) and reports
// whether it died, and the names of the boundaries passed.
func killedAt(t *testing.T, n int, dir string) (died bool, passed []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	count := filepath.Join(t.TempDir(), "count")
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "AZS_MEDIUM_CHILD="+dir,
		fmt.Sprintf("AZS_FAULT_KILL_AT=%d", n), "AZS_FAULT_COUNT_FILE="+count)
	out, err := cmd.CombinedOutput()
	passed = strings.Split(strings.TrimSpace(readFile(t, count)), "\n")
	if err != nil && cmd.ProcessState.ExitCode() == 1 {
		t.Fatalf("put failed by itself: %s", out)
	}
	return err != nil, passed
}

// Killed at any boundary, the stick holds the whole file or none under its
// name, take sees nothing else, and the next put finishes and tidies up. So it
// is when the stick held the beginning of the file before.
func TestKilledAtEveryBoundary(t *testing.T) {
	const boundaries = 10
	for what, before := range map[string]string{"empty stick": "", "cut-off copy": text[:7]} {
		t.Run(what, func(t *testing.T) {
			for n := 1; ; n++ {
				dir := t.TempDir()
				if before != "" {
					writeFile(t, filepath.Join(dir, name), before)
				}
				died, passed := killedAt(t, n, dir)
				if !died {
					if n != boundaries+1 || len(passed) != boundaries {
						t.Errorf("boundaries passed: %q, want %d", passed, boundaries)
					}
					break
				}
				at := passed[len(passed)-1]
				entries, skipped, err := Take(dir)
				if err != nil || len(skipped) != 0 || len(entries) > 1 {
					t.Errorf("killed at %s: take: %v, %v, %v", at, entries, skipped, err)
				}
				if len(entries) == 1 && string(entries[0].Data) != text && string(entries[0].Data) != before {
					t.Errorf("killed at %s: the file is %q", at, entries[0].Data)
				}
				if died, _ := killedAt(t, 0, dir); died {
					t.Errorf("killed at %s: the next run died", at)
				}
				wantFolder(t, dir, map[string]string{name: text})
			}
		})
	}
}
