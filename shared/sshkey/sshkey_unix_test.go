//go:build !windows

package sshkey

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/sshkey/agenttest"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

const namespace = "azs-courier@v1"

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("AZS_REQUIRE_SSH") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v: apt-get install openssh-client", err)
	}
	return path
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// startAgent starts OpenSSH's agent and names it in SSH_AUTH_SOCK.
func startAgent(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	out := run(t, "ssh-agent", "-s", "-a", socket)
	pid := regexp.MustCompile(`SSH_AGENT_PID=(\d+);`).FindStringSubmatch(out)
	if pid == nil {
		t.Fatalf("ssh-agent said %q", out)
	}
	t.Cleanup(func() { _ = exec.Command("kill", pid[1]).Run() })
	t.Setenv("SSH_AUTH_SOCK", socket)
}

// newKey makes a key file as an operator does.
func newKey(t *testing.T, comment string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "id")
	run(t, "ssh-keygen", append([]string{"-q", "-N", "", "-C", comment, "-f", file}, args...)...)
	return file
}

func wantKind(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if fault.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v of kind %v, want %v with %q", err, fault.KindOf(err), kind, text)
	}
	if kind == fault.Locked && fault.HintOf(err) == "" {
		t.Errorf("no hint behind %v", err)
	}
}

func TestKeysOfARealAgentSign(t *testing.T) {
	startAgent(t)
	for name, args := range map[string][]string{
		"ed25519":  {"-t", "ed25519"},
		"ecdsa256": {"-t", "ecdsa", "-b", "256"},
		"ecdsa384": {"-t", "ecdsa", "-b", "384"},
	} {
		file := newKey(t, name+" of the officer", args...)
		run(t, "ssh-add", "-q", file)
		fingerprint := strings.Fields(run(t, "ssh-keygen", "-l", "-f", file))[1]
		for _, by := range []string{fingerprint, name + " of the officer", file + ".pub"} {
			key, err := Find(t.Context(), by)
			if err != nil {
				t.Fatal(err)
			}
			if got := ssh.FingerprintSHA256(key); got != fingerprint {
				t.Errorf("%q is %s, want %s", by, got, fingerprint)
			}
			blob, err := sshsig.Sign(nil, Signer(t.Context(), key), namespace, []byte("manifest"))
			if err != nil {
				t.Fatal(err)
			}
			sig, err := sshsig.Parse(blob)
			if err != nil {
				t.Fatal(err)
			}
			if err := sig.Verify(namespace, []byte("manifest")); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAKeyThatIsNotThere(t *testing.T) {
	startAgent(t)
	file := newKey(t, "twice", "-t", "ed25519")
	run(t, "ssh-add", "-q", file)
	key, err := Find(t.Context(), "twice")
	if err != nil {
		t.Fatal(err)
	}
	sign := func() error {
		_, err := Signer(t.Context(), key).Sign(nil, []byte("data"))
		return err
	}

	other := newKey(t, "twice", "-t", "ed25519")
	run(t, "ssh-add", "-q", other)
	_, err = Find(t.Context(), "twice")
	wantKind(t, err, fault.Usage, `2 keys in the ssh-agent are called "twice"`)
	_, err = Find(t.Context(), "SHA256:unknown")
	wantKind(t, err, fault.Locked, `holds no key "SHA256:unknown"`)
	rsa := newKey(t, "rsa", "-t", "rsa", "-b", "2048")
	_, err = Find(t.Context(), rsa+".pub")
	wantKind(t, err, fault.Usage, "ssh-rsa")
	_, err = Find(t.Context(), filepath.Join(t.TempDir(), "none.pub"))
	wantKind(t, err, fault.Medium, "none.pub")

	run(t, "ssh-add", "-q", "-d", file)
	wantKind(t, sign(), fault.Locked, "does not hold the signing key "+ssh.FingerprintSHA256(key)+" any more")
	run(t, "ssh-add", "-q", file)
	if err := sign(); err != nil {
		t.Error(err)
	}
	run(t, "ssh-add", "-q", "-D")
	wantKind(t, sign(), fault.Locked, "holds no key, or is locked")

	t.Setenv("SSH_AUTH_SOCK", filepath.Join(t.TempDir(), "nobody"))
	wantKind(t, sign(), fault.Locked, "no ssh-agent listens")
	t.Setenv("SSH_AUTH_SOCK", "")
	wantKind(t, sign(), fault.Locked, "SSH_AUTH_SOCK is not set")
	_, err = Find(t.Context(), "twice")
	wantKind(t, err, fault.Locked, "SSH_AUTH_SOCK is not set")
}

// serve starts our own agent for keys that only hardware has.
func serve(t *testing.T, a *agenttest.Agent) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); a.Serve(l) }()
	t.Cleanup(func() { l.Close(); <-done; os.RemoveAll(dir) })
	t.Setenv("SSH_AUTH_SOCK", l.Addr().String())
}

func newSK(t *testing.T) *agenttest.SK {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &agenttest.SK{Key: key, Application: "ssh:azs-courier"}
}

func TestASecurityKeySigns(t *testing.T) {
	sk := newSK(t)
	serve(t, agenttest.New(map[string]ssh.Signer{"token": sk}))
	if out := run(t, "ssh-add", "-l"); !strings.Contains(out, "ED25519-SK") {
		t.Errorf("OpenSSH sees %q", out)
	}
	key, err := Find(t.Context(), "token")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := sshsig.Sign(nil, Signer(t.Context(), key), namespace, []byte("manifest"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sshsig.Parse(blob)
	if err != nil {
		t.Fatal(err)
	}
	if err := sig.Verify(namespace, []byte("manifest")); err != nil {
		t.Error(err)
	}
	sk.Absent = true
	_, err = sshsig.Sign(nil, Signer(t.Context(), key), namespace, []byte("manifest"))
	wantKind(t, err, fault.Locked, "is no signature of "+ssh.FingerprintSHA256(key))
}

// Threat: an agent that was replaced returns what is no signature of the key.
func TestWhatAnAgentReturnsIsVerified(t *testing.T) {
	a := agenttest.New(map[string]ssh.Signer{"token": newSK(t)})
	serve(t, a)
	key, err := Find(t.Context(), "token")
	if err != nil {
		t.Fatal(err)
	}
	for name, mangle := range map[string]func(*ssh.Signature){
		"another value":   func(s *ssh.Signature) { s.Blob[0] ^= 1 },
		"another counter": func(s *ssh.Signature) { s.Rest[4] ^= 1 },
		"another format":  func(s *ssh.Signature) { s.Format = ssh.KeyAlgoED25519 },
		"nothing":         func(s *ssh.Signature) { s.Blob, s.Rest = nil, nil },
	} {
		a.Mangle = mangle
		sig, err := Signer(t.Context(), key).Sign(nil, []byte("data"))
		if sig != nil {
			t.Errorf("%s: a signature came out", name)
		}
		wantKind(t, err, fault.Locked, "is no signature of")
	}
}

// An agent that hangs is left when the operator stops the program.
func TestAnAgentThatHangsIsLeft(t *testing.T) {
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("SSH_AUTH_SOCK", l.Addr().String())
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1)) // the question came, and no answer does
			stop()
			_, _ = io.Copy(io.Discard, conn) // until the other side hangs up
		}
	}()
	_, err = Find(ctx, "token")
	if fault.KindOf(err) != fault.Cancelled {
		t.Errorf("%v, want a stop", err)
	}
}
