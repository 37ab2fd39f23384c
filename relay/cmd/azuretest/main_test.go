package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// TestMain lets the test binary be the program, for what only a process can
// show.
func TestMain(m *testing.M) {
	if os.Getenv("AZURETEST_BE_THE_PROGRAM") == "1" {
		main()
	}
	os.Exit(m.Run())
}

// serving runs the program until the test ends, and returns its line and the
// function that stops it and gives the exit code and the rest of stdout.
func serving(t *testing.T, args ...string) (endpoints, func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		defer in.Close()
		code <- run(ctx, append([]string{"azuretest"}, args...), in, &stderr)
	}()
	r := bufio.NewReader(out)
	first, err := r.ReadBytes('\n')
	if err != nil {
		cancel()
		t.Fatalf("no line: %v; exit code %d; %s", err, <-code, stderr.String())
	}
	var line endpoints
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

// program runs the program to its end.
func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"azuretest"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// signIn uses nothing but the line, as a script does.
func signIn(t *testing.T, line endpoints) (*http.Client, string) {
	t.Helper()
	ca, err := os.ReadFile(line.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificate in %q", line.CAFile)
	}
	secret, err := os.ReadFile(line.ClientSecretFile)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	client := &http.Client{Transport: tr}
	res, err := client.PostForm(line.Authority+line.Tenant+"/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"},
		"client_id": {line.ClientID}, "client_secret": {strings.TrimSpace(string(secret))}, "scope": {line.ARM + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil || body.AccessToken == "" {
		t.Fatalf("token: %s, %v", res.Status, err)
	}
	return client, body.AccessToken
}

func get(t *testing.T, client *http.Client, bearer, target string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	line, stop := serving(t, "--dir", dir, "--subscription", "11111111-0000-4000-8000-000000000001", "--group", "azurestack=eastus", "--client-certificate")
	client, bearer := signIn(t, line)
	sub := line.ARM + "/subscriptions/" + line.Subscription
	if line.Subscription != "11111111-0000-4000-8000-000000000001" || get(t, client, bearer, sub+"?api-version=2022-12-01") != 200 {
		t.Errorf("no answer for subscription %s", line.Subscription)
	}

	ctl := func(args ...string) string {
		t.Helper()
		code, out, errs := program(t, append([]string{"ctl", args[0], "--control", line.Control}, args[1:]...)...)
		if code != 0 {
			t.Fatalf("ctl %v: exit code %d: %s", args, code, errs)
		}
		return out
	}
	ctl("fail", "--method", "GET", "--path", "*/resourcegroups/*", "--status", "429", "--code", "SubscriptionRequestsThrottled", "--header", "Retry-After:9", "--skip", "1", "--times", "1")
	for i, want := range []int{200, 429, 200} {
		if got := get(t, client, bearer, sub+"/resourcegroups/azurestack?api-version=2021-04-01"); got != want {
			t.Errorf("call %d: status %d, want %d", i, got, want)
		}
	}
	ctl("wait", "--method", "GET", "--path", "*/resourcegroups/*", "--count", "3")
	if out := ctl("log", "--lines"); !strings.Contains(out, "GET /subscriptions/"+line.Subscription+"/resourcegroups/azurestack 429\n") {
		t.Errorf("log:\n%s", out)
	}
	var log []azuretest.Request
	if err := json.Unmarshal([]byte(ctl("log")), &log); err != nil || len(log) != 5 {
		t.Errorf("log of %d requests (%v), want 5", len(log), err)
	}
	var state azuretest.State
	if err := json.Unmarshal([]byte(ctl("state")), &state); err != nil || len(state.Groups) != 1 || state.Groups[0].Location != "eastus" {
		t.Errorf("state %+v (%v)", state, err)
	}
	if out := ctl("clock", "--advance", "90m"); !strings.Contains(out, `"now":`) {
		t.Errorf("clock: %s", out)
	}
	if got := get(t, client, bearer, sub+"?api-version=2022-12-01"); got != 401 {
		t.Errorf("a bearer of an hour is good after 90 minutes: %d", got)
	}
	ctl("fail", "--hold", "before")
	ctl("clear")
	ctl("release")

	if code, rest := stop(); code != 0 || rest != "" {
		t.Errorf("exit code %d, more on stdout: %q", code, rest)
	}
	if _, err := tls.LoadX509KeyPair(line.ClientCertificateFile, line.ClientCertificateFile); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.pem")); err != nil {
		t.Errorf("a folder that was named is not kept: %v", err)
	}
}

func TestTemporaryFolderIsRemoved(t *testing.T) {
	line, stop := serving(t)
	dir := filepath.Dir(line.CAFile)
	if info, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Fatalf("folder %q: %v, %v", dir, info, err)
	}
	stop()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("folder %q is still there: %v", dir, err)
	}
}

// TestControlFile: ctl takes the file that the line was written to, and nobody
// drives the server without the word in the line.
func TestControlFile(t *testing.T) {
	line, _ := serving(t)
	file := filepath.Join(t.TempDir(), "line.json")
	raw, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := program(t, "ctl", "state", "--control", file); code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	bare := line.Control[:strings.LastIndexByte(line.Control, '/')]
	if code, _, _ := program(t, "ctl", "state", "--control", bare); code != int(fault.Permanent) {
		t.Errorf("without the word: exit code %d, want %d", code, fault.Permanent)
	}
	if code, _, errs := program(t, "ctl", "wait", "--control", file, "--method", "PUT", "--timeout", "1ms"); code != int(fault.NothingYet) {
		t.Errorf("wait for what does not come: exit code %d: %s", code, errs)
	}
}

func TestExitCodes(t *testing.T) {
	line := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(line, []byte(`{"addresses":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "t.txt")
	for _, test := range []struct {
		args string
		kind fault.Kind
		text string
	}{
		{"serve", fault.Usage, `unknown command "serve"`},
		{"--nonsense", fault.Usage, "-nonsense"},
		{"--addr 0.0.0.0:0", fault.Usage, "not on loopback"},
		{"--subscription x=y --group g --page-size 0", fault.Usage, "--page-size 0"},
		{"--subscription mine", fault.Usage, `subscription "mine" is not a GUID`},
		{"--subscription 11111111-0000-4000-8000-000000000001=Gone", fault.Usage, `state "Gone"`},
		{"--provider Perhaps", fault.Usage, `provider state "Perhaps"`},
		{"--key-expires soon", fault.Usage, "--key-expires"},
		{"--speed 0", fault.Usage, "--speed 0"},
		{"--fail-share 1.5", fault.Usage, "share 1.5"},
		{"--move-polls -1", fault.Usage, "polls -1"},
		{"browse --ca-file absent.pem x", fault.Medium, "absent.pem"},
		{"browse --ca-file " + line + " https://127.0.0.1:1/x", fault.Permanent, "browse: "},
		{"--role-file absent.json", fault.Medium, "absent.json"},
		{"--role-file " + line, fault.Refused, "no Actions"},
		{"ctl state --control http://127.0.0.1:1/x", fault.Unreachable, "no azuretest at"},
		{"ctl state --control " + line, fault.Refused, "no line of azuretest"},
		{"ctl state --control absent.json", fault.Medium, "absent.json"},
		{"ctl fail --control http://127.0.0.1:1/x --path *", fault.Usage, "needs a status"},
		{"ctl fail --control http://127.0.0.1:1/x --status 500 --header x", fault.Usage, `--header "x"`},
		{"ctl fail --control http://127.0.0.1:1/x --drop sometimes", fault.Usage, `"sometimes"`},
		{"token --out " + out + " --nodes 0", fault.Usage, "--nodes 0"},
		{"token --out " + out + " --server huge", fault.Usage, `"huge"`},
		{"token --out " + out + " --encoding ebcdic", fault.Usage, `"ebcdic"`},
		{"token --out " + filepath.Join(out, "x"), fault.Medium, "write the token"},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, stdout, errs := program(t, strings.Fields(test.args)...)
			if code != int(test.kind) || !strings.Contains(errs, test.text) || !strings.HasPrefix(errs, "azuretest: error: ") {
				t.Errorf("exit code %d, stderr %q, want %d with %q", code, errs, test.kind, test.text)
			}
			if strings.Contains(stdout, "{") {
				t.Errorf("a line was printed: %q", stdout)
			}
		})
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("a refused token left a file: %v", err)
	}
}

// TestToken reads every encoding back with the reader of the product.
func TestToken(t *testing.T) {
	want := officialtest.Token(officialtest.Spec{Seed: 5, Nodes: 8, Server: officialtest.Large, CloudID: "c", BillingModel: "Development", UsageReporting: true})
	read := map[string]official.Encoding{"utf-16le": official.UTF16LEBOM, "utf-16le-nobom": official.UTF16LE, "utf-16be": official.UTF16BEBOM,
		"utf-16be-nobom": official.UTF16BE, "utf-8": official.UTF8, "utf-8-bom": official.UTF8BOM}
	for _, encoding := range encodings {
		for _, wrap := range []string{"0", "76"} {
			t.Run(encoding+" "+wrap, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "token.txt")
				code, _, errs := program(t, "token", "--out", out, "--seed", "5", "--nodes", "8", "--server", "large", "--cloud-id", "c",
					"--billing-model", "Development", "--usage-reporting", "--encoding", encoding, "--wrap", wrap)
				if code != 0 {
					t.Fatalf("exit code %d: %s", code, errs)
				}
				raw, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				got, err := official.ReadToken(raw)
				if err != nil {
					t.Fatal(err)
				}
				if got.Encoding != read[encoding] {
					t.Errorf("read as %v", got.Encoding)
				}
				if got.Text.Reveal() != want {
					t.Errorf("%d characters came back, want the same %d", got.Text.Len(), len(want))
				}
			})
		}
	}
}

// TestTokenFileIsTheOfficialOne: without --encoding the file begins and ends as
// Out-File of Windows PowerShell 5.1 writes it.
func TestTokenFileIsTheOfficialOne(t *testing.T) {
	code, out, errs := program(t, "token", "--out", "-", "--nodes", "1")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if !strings.HasPrefix(out, "\xff\xfee\x00y\x00") || !strings.HasSuffix(out, "\r\x00\n\x00") {
		t.Errorf("file begins %q and ends %q", out[:6], out[len(out)-4:])
	}
}

// TestSignalEndsTheProgram: the real process prints its line, ends on SIGTERM
// with exit code 0 and leaves no folder.
func TestSignalEndsTheProgram(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM to send")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "AZURETEST_BE_THE_PROGRAM=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stdout)
	first, err := r.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var line endpoints
	if err := json.Unmarshal(first, &line); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	if err := cmd.Wait(); err != nil || len(rest) > 0 {
		t.Errorf("ended with %v, more on stdout: %q", err, rest)
	}
	if _, err := os.Stat(filepath.Dir(line.CAFile)); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}
