package ageplugin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// The plugin of age's own tests, whose keys are fixed: it holds both identities.
const (
	tagtest   = "filippo.io/age/tag/internal/age-plugin-tagtest"
	batchpass = "filippo.io/age/cmd/age-plugin-batchpass"
	classic   = "age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h"
)

// build builds a program of the module filippo.io/age, as its proxy gave it.
func build(t *testing.T, program string) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go tool here: %v", err)
	}
	to := filepath.Join(t.TempDir(), filepath.Base(program))
	if runtime.GOOS == "windows" {
		to += ".exe"
	}
	if out, err := exec.Command(tool, "build", "-o", to, program).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return to
}

// script writes a plugin in the language of the shell.
func script(t *testing.T, lines ...string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no shell for the hostile plugins here")
	}
	path := filepath.Join(t.TempDir(), "age-plugin-x")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+strings.Join(lines, "\n")+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

var nobody = UI{Say: func(string) {}, Ask: func(string, bool) (string, error) { return "", errors.New("nobody is here") }}

func seal(t *testing.T, to ...age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "the inside"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t *testing.T, file []byte, path, name string, ui UI) (string, error) {
	t.Helper()
	id, err := New(t.Context(), path, plugin.EncodeIdentity(name, nil), ui)
	if err != nil {
		return "", err
	}
	r, err := age.Decrypt(bytes.NewReader(file), id)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

func TestAPluginOpensItsFiles(t *testing.T) {
	path := build(t, tagtest)
	to, err := tag.ParseRecipient(classic)
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"alone": seal(t, to), "among others": seal(t, other.Recipient(), to)} {
		if got, err := open(t, file, path, "tagtest", nobody); err != nil || got != "the inside" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	var none *age.NoIdentityMatchError
	if _, err := open(t, seal(t, other.Recipient()), path, "tagtest", nobody); !errors.As(err, &none) {
		t.Errorf("a file of somebody else: %v", err)
	}
}

// The second plugin of the module speaks another stanza, and refuses with a
// message when its environment lacks the passphrase.
func TestAPluginThatRefusesSaysWhy(t *testing.T) {
	path := build(t, batchpass)
	to, err := age.NewScryptRecipient("orbit-lantern")
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(10)
	file := seal(t, to)
	t.Setenv("AGE_PASSPHRASE", "orbit-lantern")
	if got, err := open(t, file, path, "batchpass", nobody); err != nil || got != "the inside" {
		t.Errorf("%q, %v", got, err)
	}
	t.Setenv("AGE_PASSPHRASE", "")
	_, err = open(t, file, path, "batchpass", nobody)
	if fault.KindOf(err) != fault.Locked || !strings.Contains(err.Error(), "AGE_PASSPHRASE") {
		t.Errorf("%v, want a locked key and the reason", err)
	}
}

// Threat: a plugin of the right name lies in a folder of PATH.
func TestAHostilePluginInPATHIsNotStarted(t *testing.T) {
	good := build(t, tagtest)
	mark := filepath.Join(t.TempDir(), "was-here")
	bad := script(t, "touch "+mark)
	inPATH := filepath.Join(filepath.Dir(bad), "age-plugin-tagtest")
	if err := os.Rename(bad, inPATH); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(inPATH)+string(os.PathListSeparator)+os.Getenv("PATH"))
	to, err := tag.ParseRecipient(classic)
	if err != nil {
		t.Fatal(err)
	}
	file := seal(t, to)
	if got, err := open(t, file, good, "tagtest", nobody); err != nil || got != "the inside" {
		t.Errorf("%q, %v", got, err)
	}
	for _, path := range []string{"age-plugin-tagtest", "./age-plugin-tagtest", "", filepath.Dir(inPATH) + "/../" + filepath.Base(filepath.Dir(inPATH)) + "/age-plugin-tagtest"} {
		if _, err := open(t, file, path, "tagtest", nobody); fault.KindOf(err) != fault.Usage {
			t.Errorf("path %q: %v", path, err)
		}
	}
	if _, err := open(t, file, filepath.Join(t.TempDir(), "age-plugin-tagtest"), "tagtest", nobody); fault.KindOf(err) != fault.Locked {
		t.Errorf("a path where nothing is: %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the plugin of PATH was started")
	}
	// The control of this test: the mark is made when that plugin is named.
	_, _ = open(t, file, inPATH, "tagtest", nobody)
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the hostile plugin leaves no mark: %v", err)
	}
}

func TestAPluginThatOthersMayWriteIsNotStarted(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "was-here")
	path := script(t, "touch "+mark)
	for mode, text := range map[os.FileMode]string{0o720: "may be changed by others", 0o702: "may be changed by others", 0o600: "may not be run"} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := New(t.Context(), path, plugin.EncodeIdentity("x", nil), nobody)
		if fault.KindOf(err) != fault.Locked || !strings.Contains(err.Error(), text) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	id, err := New(t.Context(), path, plugin.EncodeIdentity("x", nil), nobody)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o722); err != nil { // after the first look
		t.Fatal(err)
	}
	if _, err := id.Unwrap(nil); fault.KindOf(err) != fault.Locked {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it was started")
	}
	if _, err := New(t.Context(), path, "AGE-SECRET-KEY-1", nobody); fault.KindOf(err) != fault.Usage {
		t.Error(err)
	}
}

func TestPluginsThatSpeakOtherwise(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := seal(t, x.Recipient())
	key := "AAAAAAAAAAAAAAAAAAAAAA" // 16 zero bytes
	for name, c := range map[string]struct {
		says []string
		want string
	}{
		"silence":             {nil, "ended before it was done"},
		"noise":               {[]string{"printf 'hello\\n\\n'"}, "another protocol"},
		"a line without end":  {[]string{"head -c 20000 /dev/zero | tr '\\0' a"}, "buffer full"},
		"a body without end":  {[]string{"printf -- '-> msg\\n'; yes " + strings.Repeat("A", 64) + " | head -5000"}, "another protocol"},
		"a long body line":    {[]string{"printf -- '-> msg\\n" + strings.Repeat("A", 65) + "\\n'"}, "another protocol"},
		"no base64":           {[]string{"printf -- '-> msg\\n%%%%\\n'"}, "another protocol"},
		"messages for ever":   {[]string{"while printf -- '-> msg\\n\\n'; do :; done"}, "not done after 1000 answers"},
		"two keys":            {[]string{"printf -- '-> file-key 0\\n" + key + "\\n-> file-key 0\\n" + key + "\\n'; cat"}, "no single file key"},
		"a key of 3 bytes":    {[]string{"printf -- '-> file-key 0\\nAAAA\\n'; cat"}, "no single file key"},
		"key of another file": {[]string{"printf -- '-> file-key 1\\n" + key + "\\n'; cat"}, "no single file key"},
		"a wrong key":         {[]string{"printf -- '-> file-key 0\\n" + key + "\\n-> done\\n\\n'; cat >/dev/null"}, "bad header MAC"},
		"a failure after all": {[]string{"printf -- '-> file-key 0\\n" + key + "\\n-> done\\n\\n'; cat >/dev/null; exit 3"}, "exit status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := open(t, file, script(t, c.says...), "x", nobody)
			if err == nil || got != "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
			if name != "a wrong key" && fault.KindOf(err) != fault.Locked {
				t.Errorf("%v is of kind %v", err, fault.KindOf(err))
			}
		})
	}
}

// What a plugin asks goes to the person, and the answer back; the environment of
// the programs and AGEDEBUG do not go to the plugin.
func TestAPluginAsksForItsPIN(t *testing.T) {
	t.Setenv("AZS_PASSPHRASE_FILE", "/secret")
	t.Setenv("AGEDEBUG", "plugin")
	seen := filepath.Join(t.TempDir(), "seen")
	path := script(t,
		"env | grep -E '^(AZS_|AGEDEBUG)' > "+seen,
		`while read -r line && [ "$line" != "-> done" ]; do :; done; read -r line`,
		`printf -- '-> msg\ndG91Y2ggaXQ\n'; read -r ok; read -r empty`,
		`printf -- '-> request-secret\nUElO\n'; read -r ok; read -r pin; echo "$ok $pin" >> `+seen,
		`printf -- '-> confirm eWVz\nUElO\n'; read -r ok; read -r empty; echo "$ok" >> `+seen,
		`printf -- '-> done\n\n'`)
	var said, asked []string
	id, err := New(t.Context(), path, plugin.EncodeIdentity("x", nil), UI{
		Say: func(s string) { said = append(said, s) },
		Ask: func(s string, secret bool) (string, error) {
			if secret {
				asked = append(asked, s)
			}
			return "1234", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Unwrap(nil); !errors.Is(err, age.ErrIncorrectIdentity) {
		t.Error(err)
	}
	got, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	if want := "-> ok MTIzNA\n-> unsupported\n"; string(got) != want {
		t.Errorf("the plugin saw %q, want %q", got, want)
	}
	if len(said) != 1 || said[0] != "touch it" || len(asked) != 1 || asked[0] != "PIN" {
		t.Errorf("said %q, asked %q", said, asked)
	}
}

// A plugin that waits for a touch ends when the operator stops the program.
func TestAPluginThatHangsIsStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	id, err := New(ctx, script(t, `exec 3<&0; (exec 4>&1; exec cat <&3 >/dev/null) & printf -- '-> msg\n\n'; wait`), plugin.EncodeIdentity("x", nil),
		UI{Say: func(string) { stop() }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Unwrap(nil); fault.KindOf(err) != fault.Cancelled {
		t.Errorf("%v, want a stop", err)
	}
}
