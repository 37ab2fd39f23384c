package medium

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
)

const text = "a bundle of some bytes\n"

func TestPut(t *testing.T) {
	dir := t.TempDir()
	want := Receipt{
		Path:   filepath.Join(dir, name),
		Size:   23,
		SHA256: digest([]byte(text)),
	}
	for i := range 2 {
		want.Already = i > 0
		got, err := Put(dir, name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("receipt differs (-want +got):\n%s", diff)
		}
		wantFolder(t, dir, map[string]string{name: text})
	}
}

func TestPutSizes(t *testing.T) {
	for size, ok := range map[int]bool{0: false, 1: true, MaxSize: true, MaxSize + 1: false} {
		dir := t.TempDir()
		_, err := Put(dir, name, make([]byte, size))
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
		if !ok {
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("%d bytes: kind %v, want usage", size, fault.KindOf(err))
			}
			wantFolder(t, dir, nil)
		}
	}
}

// Another file under the name stays, and the error tells the two apart.
func TestPutReplacesNothing(t *testing.T) {
	for what, held := range map[string]string{
		"other bytes": "something else\n",
		"longer":      text + "x",
		"no prefix":   text[:5] + "x",
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, name), held)
			_, err := Put(dir, name, []byte(text))
			wantFault(t, err, digest([]byte(held)))
			wantFault(t, err, digest([]byte(text)))
			wantFolder(t, dir, map[string]string{name: held})
		})
	}
}

// What an early unplug leaves, the beginning of the file, is finished.
func TestPutFinishesACopyThatWasCutOff(t *testing.T) {
	for _, held := range []string{"", text[:1], text[:len(text)-1]} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, name), held)
		writeFile(t, filepath.Join(dir, "."+name+".tmp"), "left over")
		if r, err := Put(dir, name, []byte(text)); err != nil || r.Already {
			t.Errorf("%q: %+v, %v", held, r, err)
		}
		wantFolder(t, dir, map[string]string{name: text})
	}
}

func TestPutLeavesWhatIsInTheWay(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := Put(dir, name, []byte(text))
		wantFault(t, err, "it is a folder")
		wantFolder(t, dir, map[string]string{name: "d---------"})
	})
	for what, target := range map[string]string{"link inside": "other", "link outside": "../other", "link to nowhere": "nowhere"} {
		t.Run(what, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "stick")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(outer, "other"), text)
			writeFile(t, filepath.Join(dir, "other"), text)
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Skipf("no symbolic links here: %v", err)
			}
			_, err := Put(dir, name, []byte(text))
			wantFault(t, err, "it is a link")
			wantFolder(t, dir, map[string]string{"other": text, name: "L---------"})
		})
	}
}

// A link laid in wait under the temporary name is removed and not written
// through.
func TestPutDoesNotWriteThroughALink(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "stick")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(outer, "precious"), "precious")
	if err := os.Symlink("../precious", filepath.Join(dir, "."+name+".tmp")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if _, err := Put(dir, name, []byte(text)); err != nil {
		t.Fatal(err)
	}
	wantFolder(t, dir, map[string]string{name: text})
	if got := readFile(t, filepath.Join(outer, "precious")); got != "precious" {
		t.Errorf("the file outside became %q", got)
	}
}

// badFolder is a real folder behind a controller with a fault.
type badFolder struct {
	folder
	write     func(f file, p []byte) (int, error)
	syncFile  error // of a file being written
	syncOld   error // of a file that is there
	syncNames error
	rename    func(folder, string, string) error
	remove    error
	opened    func(folder, string) // before a file is opened for reading
}

type badFile struct {
	file
	folder *badFolder
}

func (d *badFolder) Create(name string) (file, error) {
	f, err := d.folder.Create(name)
	if err != nil {
		return nil, err
	}
	return badFile{f, d}, nil
}

func (d *badFolder) Rename(from, to string) error {
	if d.rename != nil {
		return d.rename(d.folder, from, to)
	}
	return d.folder.Rename(from, to)
}

func (d *badFolder) Remove(name string) error {
	if d.remove != nil {
		return d.remove
	}
	return d.folder.Remove(name)
}

func (d *badFolder) Sync(name string) error {
	if d.syncOld != nil {
		return d.syncOld
	}
	return d.folder.Sync(name)
}

func (d *badFolder) SyncNames() error {
	if d.syncNames != nil {
		return d.syncNames
	}
	return d.folder.SyncNames()
}

func (d *badFolder) Open(name string) (file, error) {
	if d.opened != nil {
		d.opened(d.folder, name)
	}
	return d.folder.Open(name)
}

func (f badFile) Write(p []byte) (int, error) {
	if f.folder.write != nil {
		return f.folder.write(f.file, p)
	}
	return f.file.Write(p)
}

func (f badFile) Sync() error {
	if f.folder.syncFile != nil {
		return f.folder.syncFile
	}
	return f.file.Sync()
}

// Each of these sticks says that all is well, or fails at the worst moment. The
// operator learns it before the trip, nothing is left on the stick, and the
// same stick repaired takes the file.
func TestPutOnABadStick(t *testing.T) {
	// Errors of the systems that the test runs on, with the same meaning.
	full, readOnly, broken := fullErrors[0], readOnlyErrors[0], brokenErrors[0]
	tests := []struct {
		name string
		bad  badFolder
		want string
		left map[string]string
	}{
		{
			name: "keeps the first ten bytes and says that it kept all",
			bad: badFolder{write: func(f file, p []byte) (int, error) {
				if info, err := f.Stat(); err == nil && info.Size() == 0 {
					f.Write(p[:10])
				}
				return len(p), nil
			}},
			want: fmt.Sprintf("the medium holds the first 10 of %d bytes", len(text)),
		},
		{
			name: "keeps nothing and says that it kept all",
			bad:  badFolder{write: func(f file, p []byte) (int, error) { return len(p), nil }},
			want: fmt.Sprintf("the medium holds the first 0 of %d bytes", len(text)),
		},
		{
			name: "turns a bit over",
			bad: badFolder{write: func(f file, p []byte) (int, error) {
				q := []byte(string(p))
				q[len(q)-1] ^= 1
				return f.Write(q)
			}},
			want: "not 23 bytes with SHA-256 " + digest([]byte(text)),
		},
		{
			name: "is full half way",
			bad: badFolder{write: func(f file, p []byte) (int, error) {
				f.Write(p[:5])
				return 5, full
			}},
			want: "the medium is full",
		},
		{
			name: "writes short without a reason",
			bad:  badFolder{write: func(f file, p []byte) (int, error) { return f.Write(p[:5]) }},
			want: "short write",
		},
		{
			name: "becomes read-only when it is synced",
			bad:  badFolder{syncFile: readOnly},
			want: "the medium is read-only",
		},
		{
			name: "fails when it is synced",
			bad:  badFolder{syncFile: broken},
			want: "the medium fails or was pulled out",
		},
		{
			name: "does not rename",
			bad:  badFolder{rename: func(folder, string, string) error { return broken }},
			want: "could not be written: the medium fails",
		},
		{
			name: "loses the name",
			bad:  badFolder{rename: func(d folder, from, to string) error { return d.Remove(from) }},
			want: "the medium does not hold it",
		},
		{
			name: "does not sync the folder",
			bad:  badFolder{syncNames: broken},
			want: "not safe to remove",
			left: map[string]string{name: text},
		},
		{
			name: "exchanges the file while it is opened",
			bad: badFolder{opened: func(d folder, name string) {
				d.Rename(name, "moved")
				f, err := d.Create(name)
				if err == nil {
					f.Write([]byte(text))
					f.Close()
				}
			}},
			want: "exchanged",
			left: map[string]string{"moved": text},
		},
		{
			name: "is full and cannot remove either",
			bad: badFolder{remove: fs.ErrNotExist, write: func(f file, p []byte) (int, error) {
				return 0, full
			}},
			want: "the medium is full",
			left: map[string]string{"." + name + ".tmp": ""},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			real, err := openFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer real.Close()
			tt.bad.folder = real
			r, err := put(&tt.bad, name, []byte(text))
			wantFault(t, err, tt.want)
			if r != (Receipt{}) {
				t.Errorf("a receipt with an error: %+v", r)
			}
			wantFolder(t, dir, tt.left)
			if _, err := Put(dir, name, []byte(text)); err != nil {
				t.Errorf("the next run: %v", err)
			}
		})
	}
}

// A file that was there before is synced too, and is not ours to remove. On a
// read-only medium there is nothing left to sync.
func TestPutKeepsWhatWasThere(t *testing.T) {
	tests := []struct {
		name string
		bad  badFolder
		want string
	}{
		{"the folder does not sync", badFolder{syncNames: brokenErrors[0]}, "not safe to remove"},
		{"the file does not sync", badFolder{syncOld: brokenErrors[0]}, "could not be synced"},
		{"read-only", badFolder{syncOld: readOnlyErrors[0]}, ""},
		{"no right to write", badFolder{syncOld: fs.ErrPermission}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, name), text)
			real, err := openFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer real.Close()
			tt.bad.folder = real
			r, err := put(&tt.bad, name, []byte(text))
			if tt.want != "" {
				wantFault(t, err, tt.want)
			} else if err != nil || !r.Already {
				t.Errorf("%+v, %v", r, err)
			}
			wantFolder(t, dir, map[string]string{name: text})
		})
	}
}

// Nor is it removed when the second look at it shows something else.
func TestPutKeepsWhatWasThereAndChanges(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, name), text)
	real, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	opens := 0
	_, err = put(&badFolder{folder: real, opened: func(folder, string) {
		if opens++; opens == 2 {
			writeFile(t, filepath.Join(dir, name), text[:3])
		}
	}}, name, []byte(text))
	wantFault(t, err, fmt.Sprintf("the medium holds the first 3 of %d bytes", len(text)))
	wantFolder(t, dir, map[string]string{name: text[:3]})
}

// A folder without the right to write.
func TestPutWithoutTheRight(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("modes do not stop root; the read-only mount is tested instead")
	}
	if runtime.GOOS == "windows" {
		t.Skip("the mode of a folder means nothing on Windows")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := Put(dir, name, []byte(text))
	wantFault(t, err, "this user has no right to")
	wantFolder(t, dir, nil)
}

// The words for what the system says are chosen by the system's answer, also
// when the os package has wrapped it.
func TestExplain(t *testing.T) {
	for _, list := range [][]error{fullErrors, readOnlyErrors, brokenErrors} {
		for _, e := range list {
			got := explain(&os.PathError{Op: "write", Path: ".secret.tmp", Err: e})
			if !errors.Is(got, e) || !strings.HasPrefix(got.Error(), "the medium ") || strings.Contains(got.Error(), ".secret.tmp") {
				t.Errorf("%v is explained as %q", e, got)
			}
		}
	}
}

// A stick that is pulled after any number of bytes is told of. What it holds when
// it is put in again is no bundle, and the same command finishes.
func TestPutOnAStickThatIsPulledAtEveryByte(t *testing.T) {
	for kept := range len(text) + 1 {
		dir := t.TempDir()
		real, err := openFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		gone := brokenErrors[0]
		bad := &badFolder{folder: real, remove: gone, syncOld: gone, syncNames: gone, syncFile: gone,
			write: func(f file, p []byte) (int, error) {
				n, err := f.Write(p[:min(kept, len(p))])
				return n, errors.Join(err, gone)
			},
			rename: func(folder, string, string) error { return gone },
		}
		_, err = put(bad, name, []byte(text))
		wantFault(t, err, "fails or was pulled out")
		real.Close()

		entries, skipped, err := Take(dir)
		if err != nil || len(entries)+len(skipped) != 0 {
			t.Errorf("pulled after %d bytes it holds %v, %v, %v", kept, entries, skipped, err)
		}
		if r, err := Put(dir, name, []byte(text)); err != nil || r.Already {
			t.Errorf("pulled after %d bytes: %+v, %v", kept, r, err)
		}
		wantFolder(t, dir, map[string]string{name: text})
	}
}
