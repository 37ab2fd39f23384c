//go:build faultinject

package atomicfile

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
	verb, path, ok := strings.Cut(os.Getenv("AZS_ATOMICFILE_CHILD"), ":")
	if !ok {
		os.Exit(m.Run())
	}
	if err := child(verb, path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const oldText, newText = "the old text\n", "the new text, a longer one\n"

func child(verb, path string) error {
	switch verb {
	case "write":
		return Write(path, []byte(newText), 0o600)
	case "create":
		return Create(path, []byte(newText), 0o600)
	case "append":
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return Append(f, []byte(newText))
	}
	return fmt.Errorf("no such verb %q", verb)
}

// killedAt runs verb in a process that dies at boundary n (0: never) and
// reports whether it died. It returns the names of the boundaries passed.
func killedAt(t *testing.T, n int, verb, path string) (died bool, passed []string) {
	t.Helper()
	count := filepath.Join(t.TempDir(), "count")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "AZS_ATOMICFILE_CHILD="+verb+":"+path,
		fmt.Sprintf("AZS_FAULT_KILL_AT=%d", n), "AZS_FAULT_COUNT_FILE="+count)
	out, err := cmd.CombinedOutput()
	passed = strings.Split(strings.TrimSpace(readFile(t, count)), "\n")
	switch {
	case err == nil:
		return false, passed
	case cmd.ProcessState.ExitCode() == 1:
		t.Fatalf("%s failed by itself: %s", verb, out)
	}
	return true, passed
}

// A process killed at any boundary leaves the old file or the new one, and the
// next run finishes.
func TestKilledAtEveryBoundary(t *testing.T) {
	tests := []struct {
		verb       string
		old        bool // the file exists before
		boundaries int
		allowed    func(text string, exists bool) bool
		end        string
	}{
		{"write", true, 9, func(s string, exists bool) bool { return exists && (s == oldText || s == newText) }, newText},
		{"create", false, 9, func(s string, exists bool) bool { return !exists || s == newText }, newText},
		{"append", true, 5, func(s string, exists bool) bool {
			return exists && strings.HasPrefix(oldText+newText, s) && strings.HasPrefix(s, oldText)
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.verb, func(t *testing.T) {
			for n := 1; ; n++ {
				dir := t.TempDir()
				path := filepath.Join(dir, "file")
				if tt.old {
					writeFile(t, path, oldText)
				}
				died, passed := killedAt(t, n, tt.verb, path)
				if !died {
					if len(passed) != tt.boundaries || n != tt.boundaries+1 {
						t.Errorf("boundaries passed: %q, want %d", passed, tt.boundaries)
					}
					break
				}
				at := passed[len(passed)-1]
				data, err := os.ReadFile(path)
				if !tt.allowed(string(data), err == nil) {
					t.Errorf("killed at %s: file is %q, %v", at, data, err)
				}
				if tt.end == "" { // what to do about half a line is the journal's to say
					continue
				}
				if err == nil && string(data) == newText && tt.verb == "create" {
					continue // a second create refuses, as it should
				}
				if died, _ := killedAt(t, 0, tt.verb, path); died {
					t.Errorf("killed at %s: the next run died", at)
				}
				if err := Sweep(dir); err != nil {
					t.Error(err)
				}
				wantFolder(t, dir, map[string]string{"file": tt.end})
			}
		})
	}
}
