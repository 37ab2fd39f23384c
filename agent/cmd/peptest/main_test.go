package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// serving runs the program until the test ends and returns its line.
func serving(t *testing.T, args ...string) (endpoint, func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		n := run(ctx, append([]string{"peptest"}, args...), in, &stderr)
		in.Close()
		code <- n
	}()
	r := bufio.NewReader(out)
	first, err := r.ReadBytes('\n')
	if err != nil {
		cancel()
		t.Fatalf("no line: %v; exit code %d; %s", err, <-code, stderr.String())
	}
	var line endpoint
	if err := json.Unmarshal(first, &line); err != nil {
		t.Fatalf("line %q: %v", first, err)
	}
	stopped := false
	stop := func() (int, string) {
		stopped = true
		cancel()
		rest, _ := io.ReadAll(r)
		return <-code, string(rest)
	}
	t.Cleanup(func() {
		if !stopped {
			stop()
		}
	})
	return line, stop
}

func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"peptest"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestServesOneLineAndStops(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	line, stop := serving(t, "--dir", dir, "--addresses", "3", "--nodes", "8", "--cloud-id", "11111111-2222-4333-8444-555555555555", "--tls")
	password, err := os.ReadFile(line.PasswordFile)
	if err != nil || len(password) < 20 || filepath.Dir(line.PasswordFile) != dir {
		t.Errorf("password file %q: %d bytes, %v", line.PasswordFile, len(password), err)
	}
	if pem, err := os.ReadFile(line.CAFile); err != nil || !bytes.Contains(pem, []byte("BEGIN CERTIFICATE")) {
		t.Errorf("CA file %q: %v", line.CAFile, err)
	}
	if len(line.Addresses) != 3 || line.User != peptest.DefaultUser {
		t.Errorf("%+v", line)
	}
	code, out, stderr := program(t, "ctl", "state", "--control", line.Control)
	var st peptest.Stamp
	if err := json.Unmarshal([]byte(out), &st); code != 0 || err != nil || st.Nodes != 8 || st.CloudID != line.CloudID {
		t.Errorf("%d, %q, %q, %v", code, out, stderr, err)
	}
	if code, rest := stop(); code != 0 || rest != "" {
		t.Errorf("exit code %d, then %q", code, rest)
	}
}

func TestControl(t *testing.T) {
	line, _ := serving(t)
	file := filepath.Join(t.TempDir(), "line")
	raw, _ := json.Marshal(line)
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) string {
		t.Helper()
		code, out, stderr := program(t, append([]string{"ctl", args[0], "--control", file}, args[1:]...)...)
		if code != 0 {
			t.Fatalf("%v: exit code %d, %s", args, code, stderr)
		}
		return out
	}
	must("fail", "--times", "1", "html")
	status := func() int {
		res, err := http.Post("http://"+line.Addresses[0]+"/wsman", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := []int{status(), status()}; got[0] != 503 || got[1] != 401 {
		t.Errorf("statuses %v", got)
	}
	must("wait", "--action", "Probe", "--count", "2")
	var log []peptest.Request
	if err := json.Unmarshal([]byte(must("log")), &log); err != nil || len(log) != 2 || log[0].Fault != peptest.HTML {
		t.Errorf("%+v, %v", log, err)
	}
	if out := must("release"); !strings.Contains(out, `"released":0`) {
		t.Error(out)
	}
	must("fail", "refused")
	if conn, err := net.Dial("tcp", line.Addresses[0]); err == nil {
		conn.Close()
		t.Error("the refused address takes a connection")
	}
	must("clear")
	if got := status(); got != 401 {
		t.Errorf("status %d", got)
	}
}

// Every kind of fault is in the help, and one may be there from the start.
func TestFaultsOfTheCommandLine(t *testing.T) {
	code, out, _ := program(t, "ctl", "fail", "--help")
	for _, kind := range peptest.Kinds() {
		if code != 0 || !strings.Contains(out, string(kind)) {
			t.Errorf("the help lacks %s", kind)
		}
	}
	line, _ := serving(t, "--fail", "html", "--fail", "no-128", "--streams", "split", "--timed-out-200", "--spaced-boundary", "--own-shell-ids", "--require-mic",
		"--deployment-id", "ABCDEF01-2345-4789-8BCD-EF0123456789")
	res, err := http.Post("http://"+line.Addresses[0]+"/wsman", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 503 {
		t.Errorf("status %d", res.StatusCode)
	}
	if _, out, _ := program(t, "ctl", "state", "--control", line.Control); !strings.Contains(out, "ABCDEF01") {
		t.Errorf("state %s", out)
	}
	if code, out, stderr := program(t, "ctl", "finish", "--control", line.Control); code != 0 || !strings.Contains(out, `"running":false`) {
		t.Errorf("%d %s %s", code, out, stderr)
	}
}

func TestWrongUse(t *testing.T) {
	for _, c := range []struct {
		args string
		want fault.Kind
	}{
		{"--addr 192.0.2.1:0", fault.Usage},
		{"--nodes 0", fault.Usage},
		{"--addresses 4", fault.Usage},
		{"--cloud-id x", fault.Usage},
		{"--stamp-version 1.2", fault.Usage},
		{"--basic", fault.Usage},
		{"--streams x", fault.Usage},
		{"--deployment-id x", fault.Usage},
		{"--fail nonsense", fault.Usage},
		{"--fail terminating", fault.Usage},
		{"nonsense", fault.Usage},
		{"--nonsense", fault.Usage},
		{"ctl fail --control http://127.0.0.1:1 nonsense", fault.Usage},
		{"ctl fail --control http://127.0.0.1:1", fault.Usage},
		{"ctl state --control http://127.0.0.1:1", fault.Unreachable},
		{"ctl state --control /nonexistent", fault.Medium},
	} {
		code, out, stderr := program(t, strings.Fields(c.args)...)
		if want := fault.ExitCode(fault.New(c.want, "x")); code != want || out != "" && !strings.Contains(out, "USAGE") || !strings.Contains(stderr, "peptest: error:") {
			t.Errorf("%s: exit code %d, want %d; %q, %q", c.args, code, want, out, stderr)
		}
	}
}
