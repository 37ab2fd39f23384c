package bundle

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
)

// A reader that was written in Python from docs/FORMAT.md and the vectors alone takes
// every good vector, refuses every bad one, joins the frames, and opens what we seal
// to an X25519 recipient: the document is enough. Python's cryptography has no
// ML-KEM, so the inside of what is sealed to a hybrid recipient is handed to it.
func TestAReaderInPython(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has Debian's cryptography
	if out, err := exec.Command(python, "-c", "import cryptography").CombinedOutput(); err != nil {
		if os.Getenv("AZS_REQUIRE_PYTHON") == "1" {
			t.Fatalf("%v: %s", err, out)
		}
		t.Skipf("python3-cryptography is missing: %v", err)
	}
	w, dir := newWorld(t), t.TempDir()
	paths, err := filepath.Glob(filepath.Join(goldenDir, "bad-*.azc"))
	if err != nil {
		t.Fatal(err)
	}
	insides := 0
	for _, path := range paths {
		b, err := Split(readFile(t, path))
		if err != nil {
			continue
		}
		r, err := age.Decrypt(bytes.NewReader(b.sealed), testIdentity(t, "relay"))
		if err != nil {
			continue
		}
		inside, err := io.ReadAll(r)
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)+".inside"), inside, 0o600); err != nil {
			t.Fatal(err)
		}
		insides++
	}
	if insides < 30 {
		t.Errorf("%d bad bundles were decrypted", insides)
	}

	d := w.request()
	d.Recipients = testRecipients(t, "agent-new") // X25519
	made := seal(t, d, w.agent.signer)
	file := filepath.Join(dir, "x25519.azc")
	if err := os.WriteFile(file, made.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	identity := strings.TrimSpace(string(readFile(t, vectorsDir, "keys", "agent-new.age")))
	identity = identity[strings.LastIndex(identity, "AGE-SECRET-KEY-"):]
	c := exec.Command(python, filepath.Join(goldenDir, "..", "python", "check.py"), filepath.Join(goldenDir, ".."), filepath.Join(docsDir, "FORMAT.md"), dir,
		file, identity, Sum(d.Payload).String())
	c.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// What is left are good bundles to somebody else.
	want := "taken: bad-kind-not-welcome.azc bad-no-identity.azc bad-other-identity.azc bad-pinned-peer-unknown.azc"
	_, got, _ := strings.Cut(strings.TrimSpace(string(out)), ", taken: ")
	if diff := cmp.Diff(want, "taken: "+got); diff != "" {
		t.Errorf("bad bundles that are taken (-want +got):\n%s", diff)
	}
}
