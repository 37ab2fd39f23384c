package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// file is one file of a package: a path with slashes, permissions, content.
type file struct {
	name string
	mode fs.FileMode
	data []byte
}

// documents returns the README, docs/ and the completions of the shells.
func (r *release) documents() ([]file, error) {
	set := []file{}
	readme, err := os.ReadFile(filepath.Join(r.root, "README.md"))
	if err != nil {
		return nil, err
	}
	set = append(set, file{"README.md", 0o644, readme})
	err = fs.WalkDir(os.DirFS(r.root), "docs", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(name)))
		set = append(set, file{name, 0o644, data})
		return err
	})
	return set, err
}

// archive packs the files into one folder of the name: a zip for Windows, else a
// gzipped tar (ustar).
func (r *release) archive(name string, zipped bool, set []file) error {
	for i := range set {
		set[i].name = path.Join(name, set[i].name)
	}
	if !zipped {
		data, err := r.tarball(set)
		if err != nil {
			return err
		}
		return r.write(name+".tar.gz", data)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	slices.SortFunc(set, byName)
	for _, f := range set {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: r.time}
		h.SetMode(f.mode)
		in, err := w.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := in.Write(f.data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return r.write(name+".zip", out.Bytes())
}

func byName(a, b file) int { return cmp.Compare(a.name, b.name) }

// tarball packs files and their folders, sorted, owned by root, as old as the
// commit.
func (r *release) tarball(set []file) ([]byte, error) {
	folders := map[string]bool{}
	for _, f := range set {
		for dir := path.Dir(f.name); dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	set = slices.Clone(set)
	for dir := range folders {
		set = append(set, file{dir + "/", 0o755, nil})
	}
	slices.SortFunc(set, byName)
	var out bytes.Buffer
	z := gzip.NewWriter(&out) // no name, no time
	w := tar.NewWriter(z)
	for _, f := range set {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: int64(f.mode), Size: int64(len(f.data)), ModTime: r.time, Uname: "root", Gname: "root"}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	err := z.Close()
	return out.Bytes(), err
}

// debian makes the package of one program (deb-format 2.0): each side of the gap
// gets its own half only.
func (r *release) debian(ctx context.Context, name, dir, about string, p platform, program, sbom []byte, notices map[string][]byte) error {
	// 1.2.0-rc.1 is older than 1.2.0, which Debian spells with a tilde.
	version := strings.Replace(strings.TrimPrefix(r.version, "v"), "-", "~", 1)
	doc := "./usr/share/doc/" + name + "/"
	set := []file{{"./usr/bin/" + name, 0o755, program}, {doc + name + ".cdx.json", 0o644, sbom}}
	man, err := os.ReadFile(filepath.Join(r.root, "docs", "man", name+".1"))
	if err != nil {
		return err
	}
	packed, err := gzipped(man)
	if err != nil {
		return err
	}
	set = append(set, file{"./usr/share/man/man1/" + name + ".1.gz", 0o644, packed})
	docs, err := r.documents()
	if err != nil {
		return err
	}
	for _, f := range docs {
		if !strings.HasPrefix(f.name, "docs/man/") {
			set = append(set, file{doc + strings.TrimPrefix(f.name, "docs/"), f.mode, f.data})
		}
	}
	var copyright bytes.Buffer
	for _, n := range slices.Sorted(maps.Keys(notices)) {
		fmt.Fprintf(&copyright, "==== %s ====\n%s\n", n, notices[n])
	}
	set = append(set, file{doc + "copyright", 0o644, copyright.Bytes()})
	// What the program itself prints, which may be of another machine than this.
	for shell, place := range map[string]string{"bash": "bash-completion/completions/" + name, "zsh": "zsh/vendor-completions/_" + name, "fish": "fish/vendor_completions.d/" + name + ".fish"} {
		text, err := output(ctx, r.root, offline, "go", "run", dir, "completion", shell)
		if err != nil {
			return err
		}
		set = append(set, file{"./usr/share/" + place, 0o644, []byte(text)})
	}
	size := 0
	for _, f := range set {
		size += len(f.data)
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: the azs-courier developers\nInstalled-Size: %d\nSection: admin\nPriority: optional\nDescription: %s\n"+
		" A static program without dependencies. The man page tells the verbs.\n", name, version, p.arch, (size+1023)/1024, about)
	controlTar, err := r.tarball([]file{{"./control", 0o644, []byte(control)}})
	if err != nil {
		return err
	}
	dataTar, err := r.tarball(set)
	if err != nil {
		return err
	}
	// ar(5), the common form.
	out := bytes.NewBufferString("!<arch>\n")
	for _, m := range []file{{"debian-binary", 0o644, []byte("2.0\n")}, {"control.tar.gz", 0o644, controlTar}, {"data.tar.gz", 0o644, dataTar}} {
		fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, r.time.Unix(), 0, 0, 0o100000|m.mode, len(m.data))
		out.Write(m.data)
		if len(m.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return r.write(fmt.Sprintf("%s_%s_%s.deb", name, version, p.arch), out.Bytes())
}

func gzipped(data []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	err = z.Close()
	return out.Bytes(), err
}
