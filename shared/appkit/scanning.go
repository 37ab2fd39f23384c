package appkit

import (
	"bufio"
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
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame"
	camera "github.com/azs-courier/azs-courier/shared/frame/page"
	"github.com/azs-courier/azs-courier/shared/frame/scan"
	"github.com/azs-courier/azs-courier/shared/internal/atomicfile"
	"github.com/azs-courier/azs-courier/shared/medium"
)

// scanFile holds a scan that is half done, in the state folder.
const scanFile = "scan.txt"

// saveEvery and showEvery are how long new frames may stay unsaved, and the
// status line unchanged.
const (
	saveEvery = 2 * time.Second
	showEvery = 200 * time.Millisecond
)

// maxComplaints is how many texts that are no frame are named one by one.
const maxComplaints = 10

// scanning is a scan that goes on: frames of all media meet here.
type scanning struct {
	env  *Env
	only string // hex id of the one bundle that is wanted, or ""
	file string // where a half-done scan is kept, or ""
	lock *flock.Flock

	mu         sync.Mutex
	joiner     *frame.Joiner
	meter      meter
	touched    map[frame.ID]bool // bundles of which a frame was seen in this run
	complaints map[string]bool
	dirty      bool
	saved      time.Time
	shown      time.Time
	saveErr    error
}

// newScanning takes up the scan that is kept in file, or in the state folder
// where there is one. With fresh it is forgotten. [scanning.Close] gives the file to
// the next scan.
func (e *Env) newScanning(only, file string, fresh bool) (*scanning, error) {
	s := &scanning{env: e, joiner: frame.NewJoiner(), touched: map[frame.ID]bool{}, complaints: map[string]bool{}}
	if only != "" {
		id, err := frame.ParseID(only)
		if err != nil {
			return nil, err
		}
		s.only = id.String()
	}
	if s.file = file; file == "" {
		if info, err := os.Stat(e.Home); err == nil && info.IsDir() {
			s.file = filepath.Join(e.Home, scanFile)
		}
	}
	err := s.hold()
	if err == nil {
		err = s.load(fresh)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// load takes up what an earlier scan kept.
func (s *scanning) load(fresh bool) error {
	if s.file == "" || fresh {
		s.dirty = fresh && s.file != ""
		return nil
	}
	raw, err := medium.ReadText(s.file, frame.MaxState)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if s.joiner, err = frame.Load(raw); err != nil {
		return fault.New(fault.KindOf(err), "%q: %w", s.file, err).Hint("%s scan --fresh -", s.env.Program)
	}
	for _, st := range s.joiner.Bundles() {
		s.env.Console.Say("taken up: %s", progress(st))
	}
	return nil
}

// Close lets the next scan have the file.
func (s *scanning) Close() {
	if s.lock != nil {
		_ = s.lock.Close() // the end of the process does it too
	}
}

// hold keeps two scans from writing over what the other read.
func (s *scanning) hold() error {
	if s.file == "" {
		return nil
	}
	s.lock = flock.New(s.file + ".lock")
	held, err := s.lock.TryLock()
	if err == nil && !held {
		return fault.New(fault.Medium, "another scan is at work and keeps what it reads in %q", s.file).
			Hint("%s scan --state-file OTHER.txt …", s.env.Program)
	}
	if err != nil {
		return fault.New(fault.Medium, "the scan in %q could not be locked: %w", s.file, err)
	}
	return nil
}

// progress tells how far a bundle is.
func progress(st frame.Status) string {
	if st.Done {
		return fmt.Sprintf("bundle %s: all of the %d frames that it needs", st.ID, st.K)
	}
	return fmt.Sprintf("bundle %s: %d of %d frames, missing: %s", st.ID, st.Have, st.K, ranges(st.Missing))
}

// text takes what a code or a line said. It reports whether that was a frame
// that had not arrived before.
func (s *scanning) text(text string, typed bool) bool {
	parse := frame.Parse
	if typed {
		parse = frame.ParseTyped
	}
	f, err := parse(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.env.Clock.Now()
	s.meter.begin(now)
	if err != nil {
		s.meter.other()
		if typed {
			s.complain(fmt.Sprintf("line %d: %v; scan that code again, or any other", s.meter.Lines, err))
		}
		return false
	}
	if s.only != "" && f.ID.String() != s.only {
		s.meter.Foreign++
		return false
	}
	st, err := s.joiner.Add(f)
	if err != nil {
		s.meter.other()
		s.complain(err.Error())
		return false
	}
	s.touched[f.ID] = true
	s.meter.frame(st.New, now)
	if !st.New {
		return false
	}
	s.dirty = true
	if now.Sub(s.saved) >= saveEvery || st.Done {
		s.save(now)
	}
	if st.Done {
		s.env.Console.Say("%s", progress(st))
	}
	return true
}

// complain warns of something once, and of no more than a few things.
func (s *scanning) complain(what string) {
	if s.complaints[what] || len(s.complaints) > maxComplaints {
		return
	}
	s.complaints[what] = true
	if len(s.complaints) > maxComplaints {
		what = "more that is no frame is counted, not named"
	}
	s.env.Console.Warn("%s", what)
}

// save keeps what arrived; s.mu is held. The first failure is remembered.
func (s *scanning) save(now time.Time) {
	if !s.dirty || s.file == "" {
		return
	}
	s.saved = now
	var err error
	if len(s.joiner.Bundles()) == 0 {
		if err = os.Remove(s.file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		err = atomicfile.Write(s.file, s.joiner.Save(), 0o600)
	}
	if err != nil {
		if s.saveErr == nil {
			s.saveErr = fault.New(fault.Medium, "the half-done scan could not be kept in %q: %w", s.file, atomicfile.Cause(err))
		}
		return
	}
	s.dirty = false
}

// keep saves and returns the first failure to do so.
func (s *scanning) keep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.save(s.env.Clock.Now())
	return s.saveErr
}

// drop forgets a bundle that was taken or is worth nothing.
func (s *scanning) drop(id frame.ID) error {
	s.mu.Lock()
	s.joiner.Drop(id)
	s.dirty = true
	s.mu.Unlock()
	return s.keep()
}

// wanted are the bundles in view that --id does not leave out.
func (s *scanning) wanted() []frame.Status {
	var out []frame.Status
	for _, st := range s.joiner.Bundles() {
		if s.only == "" || st.ID.String() == s.only {
			out = append(out, st)
		}
	}
	return out
}

// complete reports whether every bundle of which a frame was seen in this run can
// be joined, and there is one.
func (s *scanning) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := false
	for _, st := range s.wanted() {
		if s.touched[st.ID] && !st.Done {
			return false
		}
		done = done || s.touched[st.ID]
	}
	return done
}

// done are the bundles that can be joined: those of this run, or, when it
// completed none, those of earlier ones.
func (s *scanning) done() []frame.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var now, before []frame.Status
	for _, st := range s.wanted() {
		switch {
		case st.Done && s.touched[st.ID]:
			now = append(now, st)
		case st.Done:
			before = append(before, st)
		}
	}
	if len(now) > 0 {
		return now
	}
	return before
}

// show renews the status line and says what may help when nothing arrives.
func (s *scanning) show() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.env.Clock.Now()
	s.meter.begin(now)
	if hint := s.meter.hint(now); hint != "" {
		s.env.Console.Say("%s", hint)
	}
	if now.Sub(s.shown) < showEvery {
		return
	}
	s.shown = now
	var parts []string
	for _, st := range s.wanted() {
		parts = append(parts, fmt.Sprintf("%s %d/%d %s", st.ID, st.Have, st.K, frameMap(st)))
	}
	if len(parts) == 0 {
		parts = append(parts, "no frame yet")
	}
	if now.Sub(s.meter.first) >= time.Second {
		parts = append(parts, fmt.Sprintf("%.1f frames/s", s.meter.rate(now)))
	}
	if s.meter.Pictures > 0 {
		parts = append(parts, fmt.Sprintf("%.0f %% of %d pictures read", 100*s.meter.decoded(), s.meter.Pictures))
	}
	s.env.Console.Progress("%s", strings.Join(parts, "  "))
}

// frameMap draws the systematic frames in at most 32 places: # is there, . is
// missing, - is a place of several frames of which some are missing.
func frameMap(st frame.Status) string {
	places := min(st.K, 32)
	missing := make([]int, places)
	total := make([]int, places)
	for i := range st.K {
		total[i*places/st.K]++
	}
	for _, i := range st.Missing {
		missing[i*places/st.K]++
	}
	out := make([]byte, places)
	for i := range out {
		switch missing[i] {
		case 0:
			out[i] = '#'
		case total[i]:
			out[i] = '.'
		default:
			out[i] = '-'
		}
	}
	return "[" + string(out) + "]"
}

// stdin reads typed lines from standard input. A terminal is put back on every way
// out.
func (s *scanning) stdin(ctx context.Context) error {
	in, end, interactive, err := s.env.Console.Typing()
	if err != nil {
		return err
	}
	defer end()
	if interactive {
		s.env.Console.Say("scan the codes with the handheld scanner, in any order; Ctrl-D ends it and keeps what arrived")
	}
	return s.typed(ctx, in, interactive)
}

// typed reads lines as a handheld scanner types them, to the end, or, at a
// terminal, until all bundles are complete. CR, LF and Tab end a line, as
// scanners are set to.
func (s *scanning) typed(ctx context.Context, r io.Reader, interactive bool) error {
	lines := make(chan string)
	ended := make(chan error, 1)
	// A read of a terminal cannot be called off: when the context ends the process
	// does, and the goroutine with it.
	go func() {
		in := bufio.NewScanner(r)
		in.Buffer(make([]byte, 4<<10), 64<<10)
		in.Split(splitTyped())
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
		ended <- in.Err()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			if err != nil {
				return fault.New(fault.Medium, "standard input could not be read: %w", err)
			}
			return nil
		case line := <-lines:
			if line == "" { // Ctrl-D behind a line end
				continue
			}
			s.mu.Lock()
			s.meter.Lines++
			s.mu.Unlock()
			s.text(line, true)
			s.show()
			if interactive && s.complete() {
				return nil
			}
		}
	}
}

// splitTyped cuts at line ends, leaves empty lines out, and passes a line that is
// longer than any frame on in pieces, which are none. Ctrl-D and Ctrl-Z, which a
// terminal gives as characters here, end the input.
func splitTyped() bufio.SplitFunc {
	const most = 32 << 10
	return func(data []byte, atEOF bool) (int, []byte, error) {
		start := 0
		for start < len(data) && bytes.IndexByte([]byte("\r\n\t"), data[start]) >= 0 {
			start++
		}
		if end := bytes.IndexAny(data[start:], "\r\n\t\x04\x1a"); end >= 0 {
			if c := data[start+end]; c == 4 || c == 26 {
				return len(data), data[start : start+end], bufio.ErrFinalToken
			}
			return start + end + 1, data[start : start+end], nil
		}
		switch rest := data[start:]; {
		case len(rest) >= most, atEOF && len(rest) > 0:
			return len(data), rest, nil
		}
		return start, nil, nil
	}
}

// pictures reads a source to its end. A moving one is left as soon as every
// bundle in view is complete; photographs and pages are all looked at, because
// each may show another bundle.
func (s *scanning) pictures(ctx context.Context, src scan.Source, untilComplete bool) error {
	moving, still := scan.NewReader(scan.Live), scan.NewReader(scan.All)
	for {
		img, err := src.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			s.mu.Lock()
			s.complain(err.Error())
			s.mu.Unlock()
			continue
		}
		r := moving
		if img.Still {
			r = still
			r.Reset()
		}
		s.codes(r.Read(img.Luma))
		s.show()
		if (untilComplete || !img.Still) && s.complete() {
			return nil
		}
	}
}

// codes takes what a picture held and returns which of them were new.
func (s *scanning) codes(codes []scan.Code) []bool {
	s.mu.Lock()
	s.meter.begin(s.env.Clock.Now())
	s.meter.picture(len(codes))
	s.mu.Unlock()
	fresh := make([]bool, len(codes))
	for i, c := range codes {
		fresh[i] = s.text(c.Text, false)
	}
	return fresh
}

// open reads one path: a file or a folder.
func (s *scanning) open(ctx context.Context, path string) error {
	src, err := scan.Open(ctx, path, scan.DefaultLimits())
	if err != nil {
		return err
	}
	defer src.Close()
	return s.pictures(ctx, src, false)
}

// watch reads a folder until every bundle in view is complete.
func (s *scanning) watch(ctx context.Context, dir string) error {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	// The status is renewed while no picture comes, too.
	ticks := make(chan time.Time)
	ctx, stop := context.WithCancel(ctx)
	var ended sync.WaitGroup
	defer ended.Wait()
	defer stop()
	ended.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case t := <-ticker.C:
				s.show()
				select {
				case ticks <- t:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	src, err := scan.Watch(dir, scan.DefaultLimits(), ticks)
	if err != nil {
		return err
	}
	defer src.Close()
	s.env.Console.Say("watching %q for pictures; Ctrl-C ends it and keeps what arrived", dir)
	return s.pictures(ctx, src, true)
}

// browse serves the page that has the camera, until it is done or closed.
func (s *scanning) browse(ctx context.Context) error {
	p, err := camera.Listen(camera.Options{Program: s.env.Program, Random: Random, Scanner: &pageScanner{s: s, reader: scan.NewReader(scan.Live)}})
	if err != nil {
		return err
	}
	s.env.Console.Call("open this address in a browser of this machine; it works once:\n%s", p.URL())
	return p.Serve(ctx)
}

// pageScanner is the scan as the page sees it.
type pageScanner struct {
	s      *scanning
	mu     sync.Mutex // the reader belongs to one picture at a time
	reader *scan.Reader
}

// Picture scans one picture of the camera.
func (p *pageScanner) Picture(_ context.Context, picture []byte) (camera.View, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := scan.FromJPEG(picture, "camera", scan.DefaultLimits())
	if err != nil {
		return camera.View{}, err
	}
	codes := p.reader.Read(l)
	fresh := p.s.codes(codes)
	v := p.View()
	for i, c := range codes {
		code := camera.Code{New: fresh[i]}
		for n, at := range c.Corners {
			code.Corners[n] = [2]float64{at.X / float64(l.W), at.Y / float64(l.H)}
		}
		v.Codes = append(v.Codes, code)
	}
	return v, nil
}

// File scans what was dropped on the camera.
func (p *pageScanner) File(ctx context.Context, path string) (camera.View, error) {
	if err := p.s.open(ctx, path); err != nil {
		return camera.View{}, err
	}
	return p.View(), nil
}

// View tells how far the scan is.
func (p *pageScanner) View() camera.View {
	complete := p.s.complete()
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	now := p.s.env.Clock.Now()
	v := camera.View{Codes: []camera.Code{}, Bundles: []camera.Bundle{}, Decoded: p.s.meter.decoded(), Done: complete}
	if d := now.Sub(p.s.meter.first).Seconds(); d > 0 && !p.s.meter.first.IsZero() {
		v.Rate = float64(p.s.meter.Pictures) / d
	}
	if !p.s.meter.first.IsZero() && now.Sub(p.s.meter.last) >= stuck {
		v.Hint = p.s.meter.advice()
	}
	done := 0
	for _, st := range p.s.wanted() {
		if st.Done && !p.s.touched[st.ID] {
			continue // of an earlier run, and not meant now
		}
		missing := st.Missing
		if missing == nil {
			missing = []int{}
		}
		v.Bundles = append(v.Bundles, camera.Bundle{ID: st.ID.String(), Have: st.Have, K: st.K, Missing: missing, Done: st.Done})
		if st.Done {
			done++
			v.Cover = p.s.cover(st.ID)
		}
	}
	v.Done = complete && done == 1
	return v
}

// Choose leaves one bundle in view.
func (p *pageScanner) Choose(id string) error {
	f, err := frame.ParseID(id)
	if err != nil {
		return err
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.only = f.String()
	return nil
}

// pick says which of the complete bundles is meant: the only one, or the one
// that the operator chooses.
func (s *scanning) pick(again string) (frame.ID, error) {
	done := s.done()
	switch {
	case len(done) == 0:
		return frame.ID{}, s.nothingYet(again)
	case len(done) == 1:
		return done[0].ID, nil
	}
	var ids []string
	for i, st := range done {
		ids = append(ids, st.ID.String())
		s.mu.Lock()
		cover := s.cover(st.ID)
		s.mu.Unlock()
		s.env.Console.Say("%d  %s\n%s", i+1, st.ID, cover)
	}
	if !s.env.Console.CanAsk() {
		return frame.ID{}, fault.New(fault.Usage, "%d bundles are complete: %s", len(done), strings.Join(ids, ", ")).Hint("%s scan --id %s", s.env.Program, ids[0])
	}
	for {
		answer, err := s.env.Console.Ask(fmt.Sprintf("which bundle is meant, 1 to %d: ", len(done)), "--id HEX")
		if err != nil {
			return frame.ID{}, err
		}
		if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= len(done) {
			return done[n-1].ID, nil
		}
		s.env.Console.Say("%q is not 1 to %d", answer, len(done))
	}
}

// nothingYet says what is missing and how to go on.
func (s *scanning) nothingYet(again string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var have []string
	for _, st := range s.wanted() {
		have = append(have, progress(st))
	}
	switch {
	case len(have) == 0 && s.meter.Foreign > 0:
		return fault.New(fault.NothingYet, "no frame of bundle %s arrived, %d of other bundles did", s.only, s.meter.Foreign).Hint("%s -", again)
	case len(have) == 0:
		return fault.New(fault.NothingYet, "no frame arrived: %d pictures, %d of them with a code, %d lines, %d texts that are no frame", s.meter.Pictures, s.meter.Read, s.meter.Lines, s.meter.Others).
			Hint("%s PICTURES", again)
	case s.file == "":
		return fault.New(fault.NothingYet, "no bundle is complete; %s; nothing is kept, because there is no state folder", strings.Join(have, "; ")).
			Hint("%s scan --state-file scan.txt PICTURES", s.env.Program)
	}
	return fault.New(fault.NothingYet, "no bundle is complete; %s (any other frames do as well)", strings.Join(have, "; ")).Hint("%s -", again)
}

// cover is the cover sheet of a bundle that is complete; s.mu is held.
func (s *scanning) cover(id frame.ID) string {
	wire, err := s.joiner.Join(id)
	if err != nil {
		return err.Error()
	}
	b, err := bundle.Split(wire)
	if err != nil {
		return err.Error()
	}
	_, sheet, err := coverOf(b)
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	sheet.print(&out)
	return out.String()
}

// join returns the bundle that is meant, checked as far as anybody can who is not
// its receiver. What joins to no bundle of a sender is forgotten.
func (s *scanning) join(id frame.ID) (*bundle.Bundle, *bundle.Verified, error) {
	s.mu.Lock()
	wire, err := s.joiner.Join(id)
	s.mu.Unlock()
	var b *bundle.Bundle
	if err == nil {
		b, err = bundle.Split(wire)
	}
	var v *bundle.Verified
	if err == nil {
		v, err = outside(b)
	}
	if err != nil {
		if dropped := s.drop(id); dropped != nil {
			return nil, nil, dropped
		}
		return nil, nil, fault.New(fault.KindOf(err), "what the frames of %s join to is refused: %w", id, err)
	}
	return b, v, nil
}
