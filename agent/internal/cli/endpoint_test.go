package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"crypto/tls"

	"github.com/azs-courier/azs-courier/agent/peptest"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// site is an agent's state folder, a folder for files and a simulated stamp.
type site struct {
	*peptest.Server
	dir string
}

func newSite(t *testing.T, opts ...peptest.Option) *site {
	t.Helper()
	for _, name := range []string{"AZS_PEP", "AZS_PEP_USER", "AZS_PEP_PASSWORD_FILE"} {
		t.Setenv(name, "")
	}
	s := &site{peptest.NewServer(opts...), t.TempDir()}
	t.Cleanup(s.Server.Close)
	s.file(t, "password", s.Password+"\n")
	s.must(t, "init", "--label", "site-a", "--insecure-no-passphrase")
	return s
}

// file writes a file into the folder and returns its path.
func (s *site) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs azs-agent.
func (s *site) run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Main(append([]string{"--home", filepath.Join(s.dir, "agent")}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// far appends the flags of the endpoint.
func (s *site) far(args ...string) []string {
	return append(args, "--pep", strings.Join(s.Addresses, ","), "--pep-user", s.User, "--pep-password-file", filepath.Join(s.dir, "password"))
}

func (s *site) must(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := s.run(args...)
	if code != 0 {
		t.Fatalf("%q: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// want runs azs-agent and wants an exit code and pieces of its messages.
func (s *site) want(t *testing.T, code int, args []string, texts ...string) {
	t.Helper()
	got, stdout, stderr := s.run(args...)
	if got != code {
		t.Errorf("%q: exit code %d, want %d: %s", args, got, code, stderr)
	}
	for _, text := range texts {
		if !strings.Contains(stdout+stderr, text) {
			t.Errorf("%q: the messages lack %q: %s%s", args, text, stdout, stderr)
		}
	}
	if strings.Contains(stdout+stderr, s.Password) {
		t.Errorf("%q: the messages hold the password", args)
	}
}

// key writes an activation key for the stamp.
func (s *site) key(t *testing.T) string {
	t.Helper()
	claims, err := officialtest.KeyPayload(officialtest.Token(officialtest.Spec{CloudID: s.CloudID}), officialtest.Place{SubscriptionID: "8f3a2c41-5b6d-4e7f-9a0b-1c2d3e4f5a6b", ResourceGroup: "azurestack", RegistrationName: "AzureStack-" + s.CloudID})
	if err != nil {
		t.Fatal(err)
	}
	return s.file(t, "key.txt", officialtest.Key(claims, nil))
}

// What contradicts itself is refused before a password is asked for or anything is
// dialled.
func TestContradictionsOfTheCommandLine(t *testing.T) {
	s := newSite(t)
	key, garbage := s.key(t), s.file(t, "garbage.pem", "no PEM")
	for _, tt := range []struct {
		args []string
		text string
	}{
		{[]string{"info"}, "address of the privileged endpoint is missing"},
		{[]string{"info", "--pep", " , "}, "address of the privileged endpoint is missing"},
		{[]string{"info", "--pep", "a,b,c,d"}, "names 4 addresses"},
		{[]string{"info", "--pep", "127.0.0.1"}, "user of the privileged endpoint is missing"},
		{s.far("info", "--pep-pin", "xyz"), "64 hex digits"},
		{s.far("info", "--pep-tls", "--pep-pin", "abcd"), "64 hex digits"},
		{s.far("info", "--pep-pin", strings.Repeat("ab", 32)), "TLS is not asked for"},
		{s.far("info", "--pep-tls", "--pep-ca-file", garbage), "holds no PEM certificate"},
		{s.far("info", "--pep-basic"), "it needs TLS"},
		{s.far("token", "--token-file", key), "contradict"},
		{s.far("token"), "which one"},
		{s.far("token", "--billing-model", "Capacity"), "needs the number"},
		{s.far("token", "--billing-model", "Capacity", "--agreement-number", "1", "--usage-reporting", "true"), "contradicts"},
		{s.far("token", "--billing-model", "Custom"), "asset tag"},
		{s.far("token", "--billing-model", "Development", "--token-version", "5.0"), "want auto"},
		{s.far("activate"), "one answer, --scan or --key-file"},
		{s.far("activate", key, "--key-file", key), "one answer, --scan or --key-file"},
		{s.far("activate", key, "--key-out", "x"), "contradict"},
		{[]string{"activate", "--key-file", key}, "needs the privileged endpoint"},
		{[]string{"activate", key}, "needs the privileged endpoint or a file"},
		{s.far("activate", "--key-file", key, "--assume", "maybe"), "want applied or failed"},
	} {
		s.want(t, 2, tt.args, tt.text)
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	s.want(t, 8, []string{"info", "--pep", s.Addresses[0], "--pep-user", s.User}, "--pep-password-file")
}

// TLS trusts the roots that are named or the one certificate that is pinned.
func TestEndpointOnTLS(t *testing.T) {
	s := newSite(t, peptest.WithTLS(), peptest.WithBasic())
	ca := s.file(t, "ca.pem", string(s.CAPEM))
	conn, err := tls.Dial("tcp", s.Addresses[0], &tls.Config{InsecureSkipVerify: true}) // the test wants to see the certificate
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw)
	conn.Close()
	pin := hex.EncodeToString(sum[:])
	colons := strings.ToUpper(strings.Join([]string{pin[:2], pin[2:]}, ":"))
	if block, _ := pem.Decode(s.CAPEM); block == nil {
		t.Fatal("no CA")
	}
	for _, args := range [][]string{{"--pep-ca-file", ca}, {"--pep-pin", pin}, {"--pep-pin", colons}, {"--pep-ca-file", ca, "--pep-basic"}} {
		s.want(t, 0, append(s.far("info", "--pep-tls"), args...), s.CloudID)
	}
	before := len(s.Requests())
	s.want(t, 3, s.far("info", "--pep-tls"), "not trusted", "--pep-ca-file")
	s.want(t, 3, s.far("info", "--pep-tls", "--pep-basic"), "not trusted")
	s.want(t, 3, s.far("info", "--pep-tls", "--pep-pin", strings.Repeat("00", 32)), "SHA-256 "+pin)
	if n := len(s.Requests()); n != before {
		t.Errorf("%d requests were sent to an endpoint that is not trusted", n-before)
	}
}

func TestLicense(t *testing.T) {
	s := newSite(t, peptest.WithNodes(2))
	s.want(t, 0, s.far("license", s.file(t, "license.txt", "\ufeff the license\r\n")), `saved on stamp "`+s.CloudID)
	for name, text := range map[string]string{"empty": " \r\n", "binary": "\xff\xfe\x00"} {
		s.want(t, 3, s.far("license", s.file(t, name, text)), "not UTF-8")
	}
	if st := s.Stamp(); st.Licenses != 1 || st.Shells != 0 {
		t.Errorf("stamp %+v", st)
	}
	old := newSite(t, peptest.WithNodes(1))
	s.want(t, 2, old.far("license", filepath.Join(s.dir, "license.txt")), "this one has 1")
}

// info works before init, and remembers nothing then.
func TestInfoBeforeInit(t *testing.T) {
	s := newSite(t)
	if err := os.RemoveAll(filepath.Join(s.dir, "agent")); err != nil {
		t.Fatal(err)
	}
	s.want(t, 0, s.far("info"), s.CloudID, peptest.DefaultVersion)
	if _, err := os.Stat(filepath.Join(s.dir, "agent")); err == nil {
		t.Error("a state folder was made")
	}
}

// A plain key file activates the stamp; Ctrl-C leaves an outcome that is not
// known, the program says so, and the next run does not activate again.
func TestCtrlCInAnActivation(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot interrupt itself on Windows")
	}
	s := newSite(t)
	args := s.far("activate", "--key-file", s.key(t))
	s.Fail(peptest.Fault{Kind: peptest.Hold, Cmdlet: "New-AzureStackActivation", Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		// Receives: three to open, one of the stamp's information, one of progress.
		err := s.Wait(ctx, "Receive", 5)
		if self, perr := os.FindProcess(os.Getpid()); err == nil && perr == nil {
			err = self.Signal(os.Interrupt)
		}
		done <- err
	}()
	s.want(t, 10, args, "it is not known whether the stamp was activated", "the same command again")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := s.Stamp(); st.Shells != 0 || st.Activations != 1 {
		t.Errorf("stamp %+v", st)
	}
	s.want(t, 10, args, "--assume applied or --assume failed")
	s.Release()
	s.want(t, 0, append(args, "--assume", "applied"), "is activated")
	s.want(t, 0, append(args, "--json"), `"keySha256":"`, `"outcome":"applied"`)
	if st := s.Stamp(); st.Activations != 1 {
		t.Errorf("stamp %+v", st)
	}
}

// The environment's proxies are not used, nor is any other address than the one
// that was named.
func TestNoProxy(t *testing.T) {
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	caught := make(chan struct{}, 1)
	go func() {
		if c, err := trap.Accept(); err == nil {
			c.Close()
			caught <- struct{}{}
		}
	}()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "http://"+trap.Addr().String())
	}
	s := newSite(t)
	s.want(t, 0, s.far("info"), s.CloudID)
	s.Fail(peptest.Fault{Kind: peptest.Redirect, Times: 1})
	s.want(t, 3, s.far("info"), "not followed")
	select {
	case <-caught:
		t.Error("somebody called the proxy")
	default:
	}
}
