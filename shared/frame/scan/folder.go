package scan

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// folder is the source of the files in a folder, by name; what is no picture and
// what is hidden is passed over, folders within it too. With ticks it goes on
// with the files that appear.
type folder struct {
	dir   string
	lim   Limits
	todo  []string
	open  Source
	ticks <-chan time.Time
	seen  map[string]state // of a watched folder
}

// state is what tells that a file was written to.
type state struct {
	size  int64
	at    time.Time
	taken bool
}

// maxFiles bounds a folder.
const maxFiles = 100_000

func openFolder(dir string, lim Limits) (*folder, error) {
	s := &folder{dir: dir, lim: lim}
	entries, err := s.list()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		s.todo = append(s.todo, e.Name())
	}
	return s, nil
}

// Watch returns the source of the files that are in a folder and of those that
// appear in it. The folder is looked at once a tick, and a file is taken when it
// was the same at two looks, so that it is not read half written. It ends when
// ticks is closed or the context is done.
func Watch(dir string, lim Limits, ticks <-chan time.Time) (Source, error) {
	s := &folder{dir: dir, lim: lim, ticks: ticks, seen: map[string]state{}}
	if err := s.look(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *folder) list() ([]os.DirEntry, error) {
	all, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fault.New(fault.Medium, "the folder cannot be read: %w", err)
	}
	if len(all) > maxFiles {
		return nil, fault.New(fault.Refused, "the folder %q holds %d files, more than %d", s.dir, len(all), maxFiles)
	}
	var files []os.DirEntry
	for _, e := range all {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, e)
		}
	}
	return files, nil
}

// look notes what is in the folder and what can be taken.
func (s *folder) look() error {
	entries, err := s.list()
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it went away meanwhile
		}
		now := state{size: info.Size(), at: info.ModTime()}
		before, known := s.seen[e.Name()]
		same := known && before.size == now.size && before.at.Equal(now.at)
		if same && before.taken {
			continue
		}
		if same && now.size > 0 {
			now.taken = true
			s.todo = append(s.todo, e.Name())
		}
		s.seen[e.Name()] = now
	}
	return nil
}

func (s *folder) Next(ctx context.Context) (Image, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Image{}, err
		}
		if s.open != nil {
			img, err := s.open.Next(ctx)
			if err == nil {
				return img, nil
			}
			s.Close()
			if err != io.EOF {
				return Image{}, err
			}
		}
		if len(s.todo) > 0 {
			path := filepath.Join(s.dir, s.todo[0])
			s.todo = s.todo[1:]
			open, err := openFile(ctx, path, s.lim)
			if err != nil && !errors.Is(err, errUnknown) {
				return Image{}, err
			}
			if err == nil {
				s.open = open
			}
			continue
		}
		if s.ticks == nil {
			return Image{}, io.EOF
		}
		select {
		case <-ctx.Done():
			return Image{}, ctx.Err()
		case _, more := <-s.ticks:
			if !more {
				s.ticks = nil
				continue
			}
			if err := s.look(); err != nil {
				return Image{}, err
			}
		}
	}
}

func (s *folder) Close() error {
	if s.open == nil {
		return nil
	}
	err := s.open.Close()
	s.open = nil
	return err
}
