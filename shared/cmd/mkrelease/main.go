// Mkrelease makes what is published of a version, for each platform: static
// programs, their bill of materials, the licences of everything linked, an archive
// with the documents, Debian packages, and SHA256SUMS over all of it, signed.
//
// The property: the same commit, version and Go give the same bytes, on any
// machine and in any folder. With -twice it is shown: a clone in another folder
// is built with an empty cache and compared, program by program. Nothing is
// fetched: the go tool runs with GOPROXY=off, on modules that `go mod download` and
// go.sum brought here.
//
// The limits: who can change the compiler changes both builds alike. The licences are
// those at the top of each module. The signature says who released, not that the code
// is good.
//
//	mkrelease -version v1.2.0 [-twice] [-platforms linux/amd64,…] [-key KEYFILE] [-out dist]
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// namespace is that of a release's signature (SSHSIG).
const namespace = "azs-courier-release@v1"

// all are the platforms of a release.
const all = "linux/amd64,linux/arm64,windows/amd64,windows/arm64,darwin/amd64,darwin/arm64"

// programs are the programs of a release, and where they lie in the tree.
var programs = []struct{ name, dir, about string }{
	{"azs-agent", "./agent", "the inside half of the courier for disconnected Azure Stack Hub registrations"},
	{"azs-relay", "./relay", "the internet half of the courier for disconnected Azure Stack Hub registrations"},
}

// release is one version that is made.
type release struct {
	root    string    // top of the source
	out     string    // where the files go
	version string    // vMAJOR.MINOR.PATCH, with a suffix or not
	commit  string    // of the source, in hex
	time    time.Time // of the commit
}

// platform is a GOOS and a GOARCH.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "_" + p.arch }

// file returns the name of a program on the platform.
func (p platform) file(program string) string {
	if p.os == "windows" {
		return program + ".exe"
	}
	return program
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "mkrelease: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mkrelease", flag.ExitOnError)
	version := flags.String("version", "", "version, as v1.2.0")
	platforms := flags.String("platforms", all, "comma-separated GOOS/GOARCH")
	key := flags.String("key", "", "sign SHA256SUMS with the SSH key in FILE, or with the ssh-agent's where FILE is a public key")
	out := flags.String("out", "dist", "folder that is made")
	twice := flags.Bool("twice", false, "build a clone again with an empty cache, and compare")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`).MatchString(*version) {
		return fmt.Errorf("the version is %q, not one like v1.2.0", *version)
	}
	r, err := newRelease(ctx, *version, *out)
	if err != nil {
		return err
	}
	for _, name := range strings.Split(*platforms, ",") {
		goos, arch, ok := strings.Cut(name, "/")
		if !ok {
			return fmt.Errorf("the platform %q is not GOOS/GOARCH", name)
		}
		if err := r.platform(ctx, platform{goos, arch}, *twice); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := r.sums(); err != nil {
		return err
	}
	if *key == "" {
		fmt.Printf("not signed; ssh-keygen -Y sign -n %s -f KEYFILE %s\n", namespace, filepath.Join(*out, "SHA256SUMS"))
		return nil
	}
	sign := exec.CommandContext(ctx, "ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", *key, filepath.Join(r.out, "SHA256SUMS"))
	sign.Stdin, sign.Stdout, sign.Stderr = os.Stdin, os.Stdout, os.Stderr
	return sign.Run()
}

// newRelease looks at the source and makes the folder out, which must not exist.
func newRelease(ctx context.Context, version, out string) (*release, error) {
	r := &release{version: version}
	top, err := output(ctx, "", nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	r.root = strings.TrimSpace(top)
	dirty, err := output(ctx, r.root, nil, "git", "status", "--porcelain", "--untracked-files=no")
	if err == nil && dirty != "" {
		err = fmt.Errorf("the source has changes that are in no commit:\n%s", dirty)
	}
	if err != nil {
		return nil, err
	}
	head, err := output(ctx, r.root, nil, "git", "log", "-1", "--format=%H %ct")
	if err != nil {
		return nil, err
	}
	commit, at, _ := strings.Cut(strings.TrimSpace(head), " ")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("the time of the commit: %w", err)
	}
	r.commit, r.time = commit, time.Unix(seconds, 0).UTC()
	if r.out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	return r, os.Mkdir(r.out, 0o777)
}

// offline keeps the go tool from fetching anything.
var offline = []string{"GOPROXY=off", "GOTOOLCHAIN=local", "GOFLAGS="}

// build builds a program from the tree at root.
func (r *release) build(ctx context.Context, root string, p platform, dir, to string, env ...string) error {
	const appkit = "github.com/azs-courier/azs-courier/shared/appkit."
	env = append(slices.Concat(offline, []string{"CGO_ENABLED=0", "GOOS=" + p.os, "GOARCH=" + p.arch}), env...)
	_, err := output(ctx, root, env, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -buildid= -X "+appkit+"version="+r.version+" -X "+appkit+"commit="+r.commit, "-o", to, dir)
	return err
}

// platform makes all that is for one platform.
func (r *release) platform(ctx context.Context, p platform, twice bool) error {
	work, err := os.MkdirTemp("", "mkrelease-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var set []file // of the archive
	notices := map[string][]byte{}
	for _, prog := range programs {
		built := filepath.Join(work, p.file(prog.name))
		if err := r.build(ctx, r.root, p, prog.dir, built); err != nil {
			return err
		}
		data, err := os.ReadFile(built)
		if err != nil {
			return err
		}
		if twice {
			if err := r.again(ctx, work, p, prog.dir, data); err != nil {
				return fmt.Errorf("%s: %w", prog.name, err)
			}
		}
		parts, err := linked(data)
		if err != nil {
			return err
		}
		own, err := r.licences(ctx, p, prog.dir, parts)
		if err != nil {
			return err
		}
		for name, text := range own {
			notices[name] = text
		}
		sbom, err := r.materials(prog.name, p, data, parts)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s_%s_%s.cdx.json", prog.name, r.version, p)
		if err := r.write(name, sbom); err != nil {
			return err
		}
		set = append(set, file{p.file(prog.name), 0o755, data}, file{name, 0o644, sbom})
		if p.os == "linux" {
			if err := r.debian(ctx, prog.name, prog.dir, prog.about, p, data, sbom, own); err != nil {
				return err
			}
		}
	}
	docs, err := r.documents()
	if err != nil {
		return err
	}
	set = append(set, docs...)
	for name, text := range notices {
		set = append(set, file{"licenses/" + name, 0o644, text})
	}
	return r.archive(fmt.Sprintf("azs-courier_%s_%s", r.version, p), p.os == "windows", set)
}

// again builds a clone in another folder, with a cache of its own, and compares.
func (r *release) again(ctx context.Context, work string, p platform, dir string, want []byte) error {
	clone := filepath.Join(work, "clone")
	if _, err := os.Stat(clone); err != nil {
		if _, err := output(ctx, "", nil, "git", "clone", "-q", "--no-hardlinks", r.root, clone); err != nil {
			return err
		}
	}
	to := filepath.Join(work, "again")
	if err := r.build(ctx, clone, p, dir, to, "GOCACHE="+filepath.Join(work, "cache")); err != nil {
		return err
	}
	got, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("the second build has SHA-256 %x, the first %x", sha256.Sum256(got), sha256.Sum256(want))
	}
	return nil
}

// write writes a file of the release.
func (r *release) write(name string, data []byte) error {
	fmt.Printf("%9d  %s\n", len(data), name)
	return os.WriteFile(filepath.Join(r.out, name), data, 0o666)
}

// sums writes SHA256SUMS over all files of the release, as sha256sum does.
func (r *release) sums() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	return r.write("SHA256SUMS", text.Bytes())
}

// output runs a program and returns what it prints.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &said)
	}
	return string(out), nil
}
