package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
)

// Create makes the state folder of a side, with the line "init" that names the
// role, and opens it. A folder that is there already is used as it is; a new
// one gets the mode 0700. If the folder has a journal, the error is of kind
// [fault.Usage] and satisfies errors.Is(err, fs.ErrExist). A Create that was
// killed half way can be repeated.
func Create(dir string, role Role, c clock.Clock) (*Ledger, error) {
	if !role.known() {
		return nil, fault.New(fault.Unexpected, "the role %q is not known", string(role))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Medium, "the state folder %q could not be made: %w", dir, err)
	}
	return locked(dir, lockWait, func(d *folder) (*Ledger, error) {
		if err := makeBundles(dir); err != nil {
			return nil, err
		}
		err := atomicfile.Create(d.path(journalFile), firstLine(role, c).Line(), 0o600)
		if errors.Is(err, fs.ErrExist) {
			return nil, hasJournal(d, role)
		}
		if err != nil {
			return nil, err
		}
		if err := syncFolder(filepath.Dir(filepath.Clean(dir))); err != nil {
			return nil, fault.New(fault.Medium, "the state folder %q could not be made durable: %w", dir, err)
		}
		return d.open(role, c)
	})
}

// Open opens the state folder for writing. It waits up to ten seconds for
// another process to finish, checks every line of the journal and cuts off a
// last line that was written half.
//
// Errors: [fault.Locked] if there is no state yet, [fault.Medium] if the folder
// cannot be read or written or is in use, [fault.NotForUs] if the folder is the
// other side's, [fault.Refused] if the journal is damaged, which leaves the
// folder as it is.
func Open(dir string, role Role, c clock.Clock) (*Ledger, error) {
	return open(dir, role, c, lockWait)
}

func open(dir string, role Role, c clock.Clock, wait time.Duration) (*Ledger, error) {
	d := &folder{dir: dir}
	if _, err := os.Lstat(d.path(journalFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, noState(d, role)
	}
	return locked(dir, wait, func(d *folder) (*Ledger, error) { return d.open(role, c) })
}

// locked makes a ledger of a folder under its lock, which is given back if that
// fails.
func locked(dir string, wait time.Duration, make func(*folder) (*Ledger, error)) (*Ledger, error) {
	lock, err := hold(dir, wait)
	if err != nil {
		return nil, err
	}
	l, err := make(&folder{dir: dir, lock: lock})
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return l, nil
}

// open reads and repairs the journal, and opens it for writing.
func (d *folder) open(role Role, c clock.Clock) (*Ledger, error) {
	f, journal, torn, err := d.read(role)
	if err != nil {
		return nil, err
	}
	if len(torn) > 0 {
		if journal, err = d.repair(f, journal, torn, c.Now()); err != nil {
			return nil, err
		}
	}
	if err := makeBundles(d.dir); err != nil {
		return nil, err
	}
	if err := d.sweep(); err != nil {
		return nil, err
	}
	path := d.path(journalFile)
	if d.file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, fault.New(fault.Medium, "the journal %q could not be opened for writing: %w", path, err)
	}
	d.size, d.role = int64(len(journal)), role
	return &Ledger{store: d, role: role, clock: c, fold: f, writes: true}, nil
}

// View opens the state folder for reading, beside a process that may be writing
// to it. It takes no lock and changes nothing; a last line that is not whole
// yet is passed over. The errors are those of [Open].
func View(dir string, role Role, c clock.Clock) (*Ledger, error) {
	d := &folder{dir: dir}
	f, _, _, err := d.read(role)
	if err != nil {
		return nil, err
	}
	return &Ledger{store: d, role: role, clock: c, fold: f}, nil
}

// Check reads the journal without the lock and reports the first damage instead
// of failing on it. The error is of kind [fault.Locked] if there is no journal
// and [fault.Medium] if it cannot be read; role serves its hint only.
func Check(dir string, role Role) (Report, error) {
	journal, err := (&folder{dir: dir}).journal(role)
	if err != nil {
		return Report{}, err
	}
	return report(journal), nil
}

// folder is the store in a state folder. While it is open for writing it holds
// the folder's lock, so what another process could do meanwhile is nothing.
type folder struct {
	dir  string
	role Role // for hints
	lock *flock.Flock
	file *os.File // the journal; nil: for reading only, or closed
	size int64    // bytes of the journal
}

func (d *folder) String() string { return fmt.Sprintf("state folder %q", d.dir) }

func (d *folder) path(name string) string { return filepath.Join(d.dir, name) }

// read gives the fold over a journal of the role, the bytes of its whole lines,
// and the bytes after them.
func (d *folder) read(role Role) (f *fold, journal, torn []byte, err error) {
	if journal, err = d.journal(role); err != nil {
		return nil, nil, nil, err
	}
	f, torn, err = foldOf(d, fmt.Sprintf("journal %q", d.path(journalFile)), role, journal)
	return f, journal[:len(journal)-len(torn)], torn, err
}

func (d *folder) journal(role Role) ([]byte, error) {
	journal, err := readRegular(d.path(journalFile), maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noState(d, role)
	}
	return journal, err
}

// Lines reads nothing while the lock is held: nobody else can have added a line.
func (d *folder) Lines(n uint64) ([]byte, error) {
	if d.file != nil {
		return nil, nil
	}
	journal, err := readRegular(d.path(journalFile), maxJournal)
	if err != nil {
		return nil, err
	}
	for ; n > 0; n-- {
		journal = journal[bytes.IndexByte(journal, '\n')+1:]
	}
	return journal[:bytes.LastIndexByte(journal, '\n')+1], nil
}

func (d *folder) Append(_ uint64, _ string, line []byte) error {
	info, err := d.file.Stat()
	switch {
	case err != nil:
		return fault.New(fault.Medium, "the journal %q could not be looked at: %w", d.file.Name(), err)
	case info.Size() != d.size:
		return fault.New(fault.Medium, "the journal %q has %d bytes instead of %d: a line before was left torn, or another program wrote to it",
			d.file.Name(), info.Size(), d.size).Hint("%s log", d.role.Program())
	}
	if err := atomicfile.Append(d.file, line); err != nil {
		return err
	}
	d.size += int64(len(line))
	return nil
}

func (d *folder) Keep(name string, data []byte) error {
	path := d.path(filepath.Join(bundlesDir, name))
	err := atomicfile.Create(path, data, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A process that was killed may have left the name without syncing it.
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return fault.New(fault.Medium, "the folder of the kept bundle %q could not be synced: %w", path, atomicfile.Cause(err))
	}
	return err
}

func (d *folder) Kept(name string) ([]byte, error) {
	return readRegular(d.path(filepath.Join(bundlesDir, name)), maxKept)
}

func (d *folder) KeptNames() ([]string, error) {
	entries, err := os.ReadDir(d.path(bundlesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Medium, "the kept bundles of %q could not be listed: %w", d.dir, atomicfile.Cause(err))
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Claim has nobody to hold off: the lock keeps every other process out.
func (d *folder) Claim(ctx context.Context, _ string) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

func (d *folder) Close() error {
	if d.file == nil {
		return nil
	}
	err := errors.Join(d.file.Close(), d.lock.Unlock())
	d.file = nil
	if err != nil {
		return fault.New(fault.Medium, "the state folder %q could not be closed: %w", d.dir, err)
	}
	return nil
}

// repair keeps torn in its side file and replaces the journal by its whole
// lines and the line "repaired". Each step replaces a file at once: killed
// anywhere, the next run finds the journal torn as it was, or repaired.
func (d *folder) repair(f *fold, journal, torn []byte, now time.Time) ([]byte, error) {
	side := d.path(tornFile)
	kept, err := readRegular(side, maxJournal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	piece := append(bytes.Clone(torn), '\n')
	if !bytes.Equal(kept, piece) && !bytes.HasSuffix(kept, append([]byte{'\n'}, piece...)) {
		if err := atomicfile.Write(side, append(kept, piece...), 0o600); err != nil {
			return nil, err
		}
	}
	e, line, err := f.next(now, eventRepaired, "", map[string]string{
		"bytes": strconv.Itoa(len(torn)), "file": tornFile, "sha256": digest(torn),
	})
	if err != nil {
		return nil, err
	}
	journal = append(bytes.Clone(journal), line...)
	if err := atomicfile.Write(d.path(journalFile), journal, 0o600); err != nil {
		return nil, err
	}
	f.add(e, line)
	return journal, nil
}

// sweep removes the temporary files of killed processes that the lock covers:
// those of the journal and of the kept bundles. Others in the state folder may
// be in use by a package that does not hold this lock.
func (d *folder) sweep() error {
	names, err := os.ReadDir(d.dir)
	if err != nil {
		return fault.New(fault.Medium, "the state folder %q could not be listed: %w", d.dir, atomicfile.Cause(err))
	}
	for _, e := range names {
		if atomicfile.IsTemp(e.Name()) && strings.HasPrefix(e.Name(), atomicfile.TempPrefix+"journal.") {
			if err := os.Remove(d.path(e.Name())); err != nil {
				return fault.New(fault.Medium, "the left-over file %q in %q could not be removed: %w", e.Name(), d.dir, atomicfile.Cause(err))
			}
		}
	}
	return atomicfile.Sweep(d.path(bundlesDir))
}

// readRegular reads a regular file of at most max bytes. A missing file
// satisfies errors.Is(err, fs.ErrNotExist).
func readRegular(path string, max int64) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be looked at: %w", path, atomicfile.Cause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Medium, "the file %q is not a regular file but %s", path, info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be opened: %w", path, atomicfile.Cause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, fault.New(fault.Medium, "the file %q could not be read: %w", path, atomicfile.Cause(err))
	}
	if int64(len(data)) > max {
		return nil, fault.New(fault.Medium, "the file %q is longer than %d bytes", path, max)
	}
	return data, nil
}

func makeBundles(dir string) error {
	err := os.Mkdir(filepath.Join(dir, bundlesDir), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		return fault.New(fault.Medium, "the folder %q in %q could not be made: %w", bundlesDir, dir, atomicfile.Cause(err))
	}
	return nil
}

// syncFolder makes the names in dir durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return atomicfile.SyncFolder(f)
}
