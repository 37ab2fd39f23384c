package sealed

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed/sealedtest"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// gss starts testdata/gss_endpoint.py and returns its address. The acceptor is the
// C library gss-ntlmssp (Debian: gss-ntlmssp, python3-gssapi); without it the test
// is skipped, or fails with AZS_REQUIRE_GSS=1.
func gss(t *testing.T, arguments ...string) string {
	t.Helper()
	python := ""
	for _, candidate := range []string{"/usr/bin/python3", "python3"} {
		check := exec.CommandContext(t.Context(), candidate, "-c", `import gssapi; gssapi.Credentials(usage="accept", mechs=[gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")])`)
		check.Env = append(os.Environ(), "NTLM_USER_FILE="+os.DevNull)
		if check.Run() == nil {
			python = candidate
			break
		}
	}
	if python == "" {
		const absent = "no python3 with gssapi and gss-ntlmssp: apt-get install gss-ntlmssp python3-gssapi"
		if os.Getenv("AZS_REQUIRE_GSS") == "1" {
			t.Fatal(absent)
		}
		t.Skip(absent)
	}
	accounts := filepath.Join(t.TempDir(), "accounts")
	line := fmt.Sprintf("%s:%s:%s\n", sealedtest.Domain, sealedtest.User, sealedtest.Password)
	if err := os.WriteFile(accounts, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(python, append([]string{"testdata/gss_endpoint.py"}, arguments...)...)
	server.Env = append(os.Environ(), "NTLM_USER_FILE="+accounts)
	server.Stderr = t.Output()
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = server.Wait() })
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the endpoint names no port: %v", err)
	}
	return "127.0.0.1:" + strings.TrimSpace(port)
}

// An acceptor that nobody here wrote understands what the client seals, and the
// client what it seals.
func TestEndpointOfGSSNTLMSSP(t *testing.T) {
	o := Options{Address: gss(t), User: user, Password: secret.New(sealedtest.Password)}
	c := dial(t, o)
	for i := range 9 {
		envelope := canary + strings.Repeat("é", i*i*4000) // up to 512,000 bytes, as much as is asked for
		want := 200
		if i == 4 {
			envelope, want = envelope+"fault", 500
		}
		reply, status, err := c.PostContext(within(t), []byte(envelope))
		if err != nil || status != want || string(reply) != "re: "+envelope {
			t.Fatalf("message %d: %d %v", i, status, err)
		}
	}
	o.Password = secret.New("wrong")
	if _, _, err := dial(t, o).PostContext(within(t), []byte(canary)); fault.KindOf(err) != fault.Permanent {
		t.Errorf("wrong password: %v", err)
	}
}

func TestEndpointOfGSSNTLMSSPOnTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secretKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: secretKey}} {
		if err := os.WriteFile(files[i], pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pin := sha256.Sum256(der)
	c := dial(t, Options{Address: gss(t, files...), User: user, Password: secret.New(sealedtest.Password), TLS: true, Pin: pin[:]})
	for range 3 {
		reply, status, err := c.PostContext(within(t), []byte(canary))
		if err != nil || status != 200 || string(reply) != "re: "+canary {
			t.Fatalf("%q %d %v", reply, status, err)
		}
	}
}
