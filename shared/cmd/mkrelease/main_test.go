package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
)

// top is the top of the source.
var top = func() string {
	dir, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		panic(err)
	}
	return dir
}()

// source copies what a release is made of into a new repository with one commit,
// the same every time.
func source(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"git", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"agent", "relay", "shared", "docs"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(top, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"README.md", "go.work", "go.work.sum"} {
		copyFile(t, filepath.Join(top, name), filepath.Join(dir, name))
	}
	for _, k := range []string{"GIT_AUTHOR", "GIT_COMMITTER"} {
		t.Setenv(k+"_NAME", "nobody")
		t.Setenv(k+"_EMAIL", "nobody@example.org")
		t.Setenv(k+"_DATE", "2026-01-02T03:04:05Z")
	}
	command(t, dir, "git", "init", "-q")
	command(t, dir, "git", "add", "-A")
	command(t, dir, "git", "commit", "-q", "-m", "all")
	return dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	out, err := output(t.Context(), dir, nil, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// files returns the files of a folder.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Threat: our own supply chain. Two folders with the same commit make the same bytes;
// the bill of materials is what the program links; the recipe of docs/RELEASE.md
// takes the release, and nothing that was changed.
func TestRelease(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the recipe is for Linux")
	}
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	keys := t.TempDir()
	for _, name := range []string{"release", "other"} {
		command(t, keys, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name)
	}
	platform := "linux/" + runtime.GOARCH
	var made []map[string][]byte
	var dist string
	for range 2 {
		dir := source(t)
		t.Chdir(dir)
		dist = filepath.Join(t.TempDir(), "dist")
		if err := run(t.Context(), []string{"-version", "v9.9.9-rc.1", "-platforms", platform, "-key", filepath.Join(keys, "release"), "-out", dist}); err != nil {
			t.Fatal(err)
		}
		made = append(made, files(t, dist))
	}
	if len(made[0]) != 7 {
		t.Errorf("%d files, want 7", len(made[0]))
	}
	for name, data := range made[0] {
		if !bytes.Equal(data, made[1][name]) {
			t.Errorf("%s: two runs made different bytes", name)
		}
	}

	// The archive holds the program that the bill of materials describes.
	stem := "azs-courier_v9.9.9-rc.1_linux_" + runtime.GOARCH
	inside := untar(t, made[0][stem+".tar.gz"])
	program := inside[stem+"/azs-agent"]
	bill := inside[fmt.Sprintf("%s/azs-agent_v9.9.9-rc.1_linux_%s.cdx.json", stem, runtime.GOARCH)]
	var bom cdx.BOM
	if err := json.Unmarshal(bill, &bom); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	if got := (*bom.Metadata.Component.Hashes)[0].Value; got != hex.EncodeToString(sum[:]) {
		t.Errorf("the bill is for a program with SHA-256 %s, the archive has %x", got, sum)
	}
	parts, err := linked(program)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, p := range parts {
		want = append(want, p.String())
		found := false
		for name := range inside {
			found = found || strings.HasPrefix(name, stem+"/licenses/"+p.String()+"/")
		}
		if !found {
			t.Errorf("the archive has no licence of %s", p)
		}
	}
	for _, c := range *bom.Components {
		got = append(got, c.Name+"@"+c.Version)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("components (-linked +billed):\n%s", diff)
	}
	if !strings.Contains(strings.Join(got, "\n"), "filippo.io/age@") {
		t.Errorf("the bill does not name age: %s", got)
	}
	exe := filepath.Join(t.TempDir(), "azs-agent")
	if err := os.WriteFile(exe, program, 0o700); err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(command(t, "", "git", "rev-parse", "HEAD"))
	if said := command(t, "", exe, "version"); !strings.Contains(said, "v9.9.9-rc.1") || !strings.Contains(said, commit) {
		t.Errorf("version says %q, want v9.9.9-rc.1 and %s", said, commit)
	}
	if _, err := exec.LookPath("dpkg-deb"); err == nil {
		deb, to := filepath.Join(dist, "azs-agent_9.9.9~rc.1_"+runtime.GOARCH+".deb"), t.TempDir()
		if got := strings.TrimSpace(command(t, "", "dpkg-deb", "-f", deb, "Version")); got != "9.9.9~rc.1" {
			t.Errorf("the package is of version %q", got)
		}
		command(t, "", "dpkg-deb", "-x", deb, to)
		if data, err := os.ReadFile(filepath.Join(to, "usr", "bin", "azs-agent")); !bytes.Equal(data, program) {
			t.Errorf("the package has another program, %v", err)
		}
		if _, err := os.Stat(filepath.Join(to, "usr", "bin", "azs-relay")); !errors.Is(err, fs.ErrNotExist) {
			t.Error("the package of the agent holds the relay")
		}
	}
	checkRecipe(t, keys, dist)
}

// checkRecipe follows docs/RELEASE.md, for the release and for changed ones.
func checkRecipe(t *testing.T, keys, dist string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("docs", "RELEASE.md")) // of the copy that it was made of
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```sh\n")
	script, _, _ := strings.Cut(rest, "```")
	recipe := filepath.Join(keys, "check-release.sh")
	if err := os.WriteFile(recipe, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(filepath.Join(keys, "release.pub"))
	if err != nil {
		t.Fatal(err)
	}
	signers := filepath.Join(keys, "release_signers")
	if err := os.WriteFile(signers, fmt.Appendf(nil, "azs-courier-release namespaces=%q %s", namespace, pub), 0o600); err != nil {
		t.Fatal(err)
	}
	sign := func(t *testing.T, dir, key, ns string) {
		if err := os.Remove(filepath.Join(dir, "SHA256SUMS.sig")); err != nil {
			t.Fatal(err)
		}
		command(t, dir, "ssh-keygen", "-q", "-Y", "sign", "-n", ns, "-f", filepath.Join(keys, key), "SHA256SUMS")
	}
	edit := func(t *testing.T, path string, f func([]byte) []byte) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string)
		stop   string
	}{
		{"as it is", func(*testing.T, string) {}, ""},
		{"one file of it", func(t *testing.T, dir string) {
			for name := range files(t, dir) {
				if !strings.HasSuffix(name, ".deb") && !strings.HasPrefix(name, "SHA256SUMS") {
					if err := os.Remove(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, ""},
		{"a changed file", func(t *testing.T, dir string) {
			for name := range files(t, dir) {
				if strings.HasPrefix(name, "azs-agent_9") {
					edit(t, filepath.Join(dir, name), flip)
				}
			}
		}, "not the one that was released"},
		{"changed sums", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "SHA256SUMS"), func(b []byte) []byte { return append(b, '\n') })
		}, "signature does not fit"},
		{"a further file", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "setup.sh"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "setup.sh is no file of the release"},
		{"a hidden file", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, ".profile"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ".profile is no file of the release"},
		{"another key", func(t *testing.T, dir string) { sign(t, dir, "other", namespace) }, "signature does not fit"},
		{"a signature for bundles", func(t *testing.T, dir string) { sign(t, dir, "release", "azs-courier@v1") }, "signature does not fit"},
		{"no signature", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "SHA256SUMS.sig")); err != nil {
				t.Fatal(err)
			}
		}, "no SHA256SUMS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dist")
			if err := os.CopyFS(dir, os.DirFS(dist)); err != nil {
				t.Fatal(err)
			}
			c.change(t, dir)
			out, err := exec.Command("sh", recipe, dir, signers).CombinedOutput()
			if c.stop == "" && (err != nil || !strings.HasSuffix(string(out), "OK\n")) {
				t.Errorf("%v: %s", err, out)
			}
			if c.stop != "" && (err == nil || !strings.Contains(string(out), c.stop) || strings.Contains(string(out), "OK\n")) {
				t.Errorf("want a stop with %q: %v: %s", c.stop, err, out)
			}
		})
	}
}

func untar(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if all[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// What cannot be made again is not made at all.
func TestReleaseRefuses(t *testing.T) {
	dir := source(t)
	t.Chdir(dir)
	out := filepath.Join(t.TempDir(), "dist")
	refuses := func(want string, args ...string) {
		t.Helper()
		if err := run(t.Context(), append(args, "-out", out)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", args, err, want)
		}
	}
	refuses("not one like v1.2.0", "-version", "1.2")
	refuses("not one like v1.2.0", "-version", "v1.2.0 -X main.x=y")
	refuses("not GOOS/GOARCH", "-version", "v1.2.0", "-platforms", "linux")
	refuses("file exists", "-version", "v1.2.0") // a release does not mix with another
	if err := os.WriteFile("README.md", []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses("changes that are in no commit", "-version", "v1.2.0")
}

// A clone that does not build to the same bytes ends the release.
func TestReleaseComparesTwoBuilds(t *testing.T) {
	dir := source(t)
	t.Chdir(dir)
	r, err := newRelease(t.Context(), "v1.2.0", filepath.Join(t.TempDir(), "dist"))
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	p := platform{runtime.GOOS, runtime.GOARCH}
	const small = "./shared/cmd/mkrelease" // as good as any, and quick to build
	to := filepath.Join(work, "first")
	if err := r.build(t.Context(), r.root, p, small, to); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.again(t.Context(), work, p, small, program); err != nil {
		t.Errorf("the same source: %v", err)
	}
	program[len(program)/2] ^= 1
	if err := r.again(t.Context(), work, p, small, program); err == nil || !strings.Contains(err.Error(), "second build has SHA-256") {
		t.Errorf("another program: %v", err)
	}
}
