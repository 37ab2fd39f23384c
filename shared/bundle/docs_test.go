package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// fence returns the fenced blocks of a document that have this info string.
func fence(doc, info string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(doc, -1) {
		if m[1] == info {
			out = append(out, m[2])
		}
	}
	return out
}

// speller is a fields that notes what it is asked for, in the words of
// docs/FORMAT.md.
type speller struct{ rows []string }

func (s *speller) row(name, kind string)          { s.rows = append(s.rows, name+": "+kind) }
func (s *speller) text(name string, _ *string)    { s.row(name, "text") }
func (s *speller) count(name string, _ *int)      { s.row(name, "count") }
func (s *speller) flag(name string, _ **bool)     { s.row(name, "flag") }
func (s *speller) time(name string, _ *time.Time) { s.row(name, "time") }
func (s *speller) digest(name string, _ *Digest)  { s.row(name, "digest") }
func (s *speller) bytes(name string, _ *[]byte)   { s.row(name, "bytes") }
func (s *speller) list(name string, _ *[]string)  { s.row(name, "list") }
func (s *speller) oneOf(name string, _ *string, allowed ...string) {
	s.row(name, "one of `"+strings.Join(allowed, "` `")+"`")
}

// TestFormatDocument compares what docs/FORMAT.md says with what the code does.
func TestFormatDocument(t *testing.T) {
	doc := string(readFile(t, docsDir, "FORMAT.md"))
	blocks := fence(doc, "")
	has := func(what, block string) {
		t.Helper()
		for _, b := range blocks {
			if b == block {
				return
			}
		}
		t.Errorf("docs/FORMAT.md has no block with %s", what)
	}
	has("the dictionary", string(dictionary)+"\n")
	if sum := fmt.Sprintf("%x", sha256.Sum256(dictionary)); !strings.Contains(doc, fmt.Sprintf("is %d bytes", len(dictionary))) || !strings.Contains(doc, sum) {
		t.Errorf("docs/FORMAT.md does not say that the dictionary has %d bytes and SHA-256 %s", len(dictionary), sum)
	}

	for _, k := range []Kind{KindRequest, KindAnswer, KindReceipt, KindPairing, KindRekey} {
		s := &speller{}
		newContent(k).bind(s)
		_, section, ok := strings.Cut(doc, "\n### "+string(k)+"\n")
		if !ok {
			t.Errorf("docs/FORMAT.md has no section %q", k)
			continue
		}
		section, _, _ = strings.Cut(section, "\n#")
		var rows []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(section, -1) {
			rows = append(rows, m[1]+": "+m[2])
		}
		if d := cmp.Diff(s.rows, rows); d != "" {
			t.Errorf("fields of %s differ, code and docs/FORMAT.md: %s", k, d)
		}
	}

	for _, b := range readVectors(t).Bundles {
		if b.Name != "good-request-unregister" {
			continue
		}
		has("the example's manifest", b.Manifest)
		has("the example's body", b.BodyHeader)
		if !strings.Contains(doc, "`"+b.Digest+"`") || !strings.Contains(doc, "`"+base64.StdEncoding.EncodeToString(b.Signatures[0])[:70]+"`") {
			t.Error("docs/FORMAT.md does not have the example's digest and first line of the signature")
		}
	}
	for _, limit := range []int{MaxFile, MaxManifest, MaxHeader, MaxPayload} {
		text := fmt.Sprint(limit)
		for i := len(text) - 3; i > 0; i -= 3 {
			text = text[:i] + "," + text[i:]
		}
		if !strings.Contains(doc, text+" bytes") {
			t.Errorf("docs/FORMAT.md does not name the limit of %s bytes", text)
		}
	}
}

// TestKioskRecipe runs the recipe of docs/KIOSK.md, as it stands there, over the
// golden bundles: the good ones pass, and whatever was bent stops.
func TestKioskRecipe(t *testing.T) {
	for _, tool := range []string{"sh", "ssh-keygen", "sed", "base64", "sha256sum", "mktemp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: the kiosk's recipe is not tried", tool)
		}
	}
	if out, err := exec.Command("base64", "--version").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("GNU")) {
		t.Skip("base64 is not GNU's: the kiosk's recipe is not tried")
	}
	recipes := fence(string(readFile(t, docsDir, "KIOSK.md")), "sh")
	if len(recipes) != 1 {
		t.Fatalf("docs/KIOSK.md has %d recipes, want 1", len(recipes))
	}
	dir := t.TempDir()
	save := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := save("check.sh", []byte(recipes[0]))
	line := func(key string) []byte {
		return append([]byte(key+` namespaces="`+Namespace+`" `), ssh.MarshalAuthorizedKey(testSigner(t, key).PublicKey())...)
	}
	signers := save("allowed_signers", bytes.Join([][]byte{line("agent"), line("relay")}, nil))
	check := func(bundle, signers string) (string, error) {
		cmd := exec.Command("sh", script, bundle, signers)
		cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	good, err := filepath.Glob(filepath.Join(goldenDir, "good-*.azc"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range good {
		t.Run(filepath.Base(path), func(t *testing.T) {
			out, err := check(path, signers)
			if err != nil || !strings.HasSuffix(out, "\nOK\n") {
				t.Errorf("%v: %s", err, out)
			}
			b, err := Split(readFile(t, path))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, string(b.manifest)) {
				t.Errorf("the manifest is not shown: %s", out)
			}
		})
	}

	w := newWorld(t)
	b := seal(t, w.request(), w.agent.signer)
	text := b.Text()
	with := func(sealed []byte) []byte {
		return (&Bundle{manifest: b.manifest, signatures: b.signatures, sealed: sealed}).Text()
	}
	cut := func(n int) []byte { return text[:len(text)-n] }
	manifestOnly := bytes.Clone(b.manifest)
	bad := map[string][]byte{
		"empty":               nil,
		"manifest-edited":     bytes.Replace(text, []byte("\nseq: 18\n"), []byte("\nseq: 19\n"), 1),
		"manifest-line-added": append([]byte("azs-courier/v1 request\n"), text...),
		"manifest-alone":      manifestOnly,
		"age-edited":          with(flipped(b.sealed, len(b.sealed)-1)),
		"age-cut":             with(b.sealed[:len(b.sealed)-1]),
		"age-longer":          with(append(bytes.Clone(b.sealed), 0)),
		"age-missing":         append(append(bytes.Clone(b.manifest), '\n'), armorSignature.encode(b.signatures[0])...),
		"age-twice":           append(bytes.Clone(text), armorAge.encode(b.sealed)...),
		"age-base64-garbage":  bytes.Replace(text, []byte("-----END AGE"), []byte("@@@@\n-----END AGE"), 1),
		"age-base64-joined":   bytes.Replace(text, []byte("-----END AGE"), []byte("QUFB\n-----END AGE"), 1),
		"line-behind":         append(bytes.Clone(text), "x\n"...),
		"empty-line-behind":   append(bytes.Clone(text), '\n'),
		"line-between":        bytes.Replace(text, []byte("-----BEGIN AGE"), []byte("x\n-----BEGIN AGE"), 1),
		"cut-one-byte":        cut(1),
		"cut-in-age":          cut(300),
		"crlf":                bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
		"no-signature":        append(append(bytes.Clone(b.manifest), '\n'), armorAge.encode(b.sealed)...),
		"signature-respelt":   bytes.Replace(text, []byte("\n-----END SSH"), []byte(" \n-----END SSH"), 1),
		"signature-zero-byte": bytes.Replace(text, []byte("BEGIN SSH"), []byte("BEGIN\x00 SSH"), 1),
		"signature-edited":    (&Bundle{manifest: b.manifest, sealed: b.sealed, signatures: [][]byte{flipped(b.signatures[0], len(b.signatures[0])-1)}}).Text(),
		"foreign-signer":      (&Bundle{manifest: b.manifest, sealed: b.sealed}).sign(t, Namespace, w.stranger.signer).Text(),
		"other-known-signer":  (&Bundle{manifest: b.manifest, sealed: b.sealed}).sign(t, Namespace, w.relay.signer).Text(),
		"other-namespace":     (&Bundle{manifest: b.manifest, sealed: b.sealed}).sign(t, "file", w.agent.signer).Text(),
		"approval-only":       (&Bundle{manifest: b.manifest, sealed: b.sealed}).sign(t, NamespaceApproval, w.agent.signer).Text(),
		"approval-edited":     (&Bundle{manifest: b.manifest, sealed: b.sealed, signatures: [][]byte{b.signatures[0], flipped(b.signatures[0], len(b.signatures[0])-1)}}).Text(),
		"nine-signatures":     (&Bundle{manifest: b.manifest, sealed: b.sealed, signatures: bytes.SplitN(bytes.Repeat(append(bytes.Clone(b.signatures[0]), "|SPLIT|"...), 9), []byte("|SPLIT|"), 9)}).Text(),
		"wire":                b.Wire(),
	}
	for name, raw := range bad {
		t.Run(name, func(t *testing.T) {
			if out, err := check(save(name, raw), signers); err == nil || strings.Contains(out, "OK") {
				t.Errorf("passes: %s", out)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		if out, err := check(save("control", text), signers); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	for name, list := range map[string]string{
		"nobody allowed":        save("nobody", nil),
		"only another allowed":  save("another", line("stranger")),
		"allowed for other use": save("other-use", bytes.Replace(line("agent"), []byte(Namespace), []byte("file"), 1)),
		"no list":               filepath.Join(dir, "missing"),
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := check(save("whole", text), list); err == nil || strings.Contains(out, "OK") {
				t.Errorf("passes: %s", out)
			}
		})
	}
	t.Run("no bundle", func(t *testing.T) {
		if out, err := check(filepath.Join(dir, "none"), signers); err == nil || strings.Contains(out, "OK") {
			t.Errorf("passes: %s", out)
		}
	})
}
