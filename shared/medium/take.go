package medium

import (
	"fmt"
	"slices"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Bounds of [Take]: how many names it looks at, and how many bytes it keeps.
const (
	MaxNames = 10_000
	MaxTotal = 256 << 20
)

// Entry is a file that was read from a medium. Its name is foreign text: it is
// for %q, and never becomes a part of a path.
type Entry struct {
	Name string
	Data []byte // 1 to MaxSize bytes
}

// Skipped is a thing on the medium that has the name of a bundle and was not
// read.
type Skipped struct {
	Name   string // foreign text
	Reason error
}

// String returns the quoted name and the reason, fit for a terminal.
func (s Skipped) String() string { return fmt.Sprintf("%q: %v", s.Name, s.Reason) }

// Take reads the bundles in the top folder of dir: regular files whose names
// end in .azc, in any letter case, and do not begin with a dot. Both results
// are sorted by name.
//
// What has such a name and is a link, a FIFO, a device, a folder, empty or
// longer than [MaxSize], or cannot be read, is in the second result; so is what
// comes after [MaxTotal] bytes. Everything else is passed over in silence:
// autorun.inf, *.lnk, System Volume Information, .Trash-1000, ._x.azc. A folder
// with more than [MaxNames] names is refused.
func Take(dir string) ([]Entry, []Skipped, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return take(f, MaxNames, MaxTotal)
}

func take(dir folder, maxNames, maxTotal int) (entries []Entry, skipped []Skipped, err error) {
	names, err := dir.Names(maxNames)
	if err != nil {
		return nil, nil, fault.New(fault.Medium, "the names in the folder %q could not be read: %w", dir.Path(), explain(err))
	}
	if len(names) > maxNames {
		return nil, nil, fault.New(fault.Medium, "the folder %q holds more than %d names: move the bundles into a folder of their own", dir.Path(), maxNames)
	}
	slices.Sort(names)
	total := 0
	for _, name := range names {
		if !named(name) {
			continue
		}
		data, err := read(dir, name)
		switch {
		case err != nil:
		case len(data) == 0:
			err = errEmpty
		case total+len(data) > maxTotal:
			err = fmt.Errorf("the bundles before it fill the %d bytes that are read at once", maxTotal)
		}
		if err != nil {
			skipped = append(skipped, Skipped{name, err})
			continue
		}
		total += len(data)
		entries = append(entries, Entry{name, data})
	}
	return entries, skipped, nil
}

// named reports whether name is that of a bundle, ours or anybody's.
func named(name string) bool {
	return !strings.HasPrefix(name, ".") && strings.HasSuffix(strings.ToLower(name), Suffix)
}
