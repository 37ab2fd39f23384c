//go:build unix

package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// canaries has every file of the script searched for its secrets at the end, and
// the command lines of both programs all the while, where they can be read
// (proc(5)). Those of the test's own tools name a bearer themselves.
func canaries(ts *testscript.TestScript, _ []string) {
	out := ts.Value(transcriptKey{}).(*transcript)
	out.everywhere = true
	stop, done := make(chan struct{}), make(chan struct{})
	lines, read := map[string]bool{}, map[string]int{}
	go func() {
		defer close(done)
		for {
			now, _ := os.ReadDir("/proc")
			for _, d := range now {
				if name := d.Name(); name[0] <= '9' && read[name] < 2 { // a second time behind its exec
					read[name]++
					if line, err := os.ReadFile(filepath.Join("/proc", name, "cmdline")); err == nil {
						lines[string(line)] = true
					}
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	ts.Defer(func() {
		close(stop)
		<-done
		own := 0
		for line := range lines {
			program, _, _ := strings.Cut(line, "\x00")
			if !strings.HasPrefix(filepath.Base(program), "azs-") {
				continue
			}
			own++
			out.WriteString(strings.ReplaceAll(line, "\x00", " ") + "\n")
		}
		if _, err := os.Stat("/proc/self/cmdline"); err == nil && own == 0 {
			panic("no command line of ours was seen: this canary is dead")
		}
	})
}

// stampfaults runs a command once for each fault of the simulated endpoint but
// those that only wait. How it ends is no matter here; that it ends, is.
func stampfaults(ts *testscript.TestScript, args []string) {
	need(ts, args, 1, "stampfaults COMMAND…")
	peptest := filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "peptest")
	ctl := func(args ...string) []byte {
		args = append([]string{"ctl", args[0], "--control", ts.Getenv("PEPCONTROL")}, args[1:]...)
		out, err := exec.Command(peptest, args...).CombinedOutput()
		if err != nil {
			ts.Fatalf("%q: %v: %s", args, err, out)
		}
		return out
	}
	help, err := exec.CommandContext(context.Background(), peptest, "ctl", "fail", "--help").Output()
	ts.Check(err)
	_, rest, _ := bytes.Cut(help, []byte("KIND is one of:"))
	kinds, _, ok := bytes.Cut(rest, []byte(". Examples:"))
	if !ok {
		ts.Fatalf("the help page names no kinds of fault: %s", help)
	}
	struck := 0
	for _, kind := range strings.Fields(string(kinds)) {
		switch kind {
		case "black-hole", "hold", "slow-body", "slow-header", "busy", "vanish", "dies", "refused", "chatter", "flood":
			continue // they wait, or say nothing; scripts of their own have them
		}
		ctl("fail", "--times", "1", "--text", "no good", "--code", "2150858793", kind)
		code := run(ts, args...)
		ts.Logf("%s: exit code %d", kind, code)
		ctl("clear")
		struck++
	}
	if struck < 28 {
		ts.Fatalf("only %d kinds of fault were tried", struck)
	}
}
