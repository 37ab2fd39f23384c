package appkit

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame"
	"github.com/azs-courier/azs-courier/shared/medium"
)

func scanVerb(p Program, side Side) *cli.Command {
	return Describe(&cli.Command{
		Name: "scan", Usage: "read a bundle from QR codes: camera, pictures, videos, printed sheets, typed lines", ArgsUsage: "[FILE…]",
		Description: "Joins a bundle from any mixture of pictures (PNG, JPEG, GIF, TIFF, BMP), folders of them, videos (MJPEG, Y4M; others through ffmpeg), " +
			"PDF sheets (through pdftoppm), lines that a handheld scanner types (-), a watched folder of screenshots and the browser's camera (--page), in any order. " +
			"Enough different codes are enough, whichever they are. What arrived is kept in the state folder and taken up by the next run, from another medium too. " +
			"A complete bundle is checked and kept as take does it; with --out or --put it is only written there, and a machine without keys can do it. " +
			"Without anything to read, it tells what is missing.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write the bundle to `FILE`, or to standard output with -, and do not take it"},
			&cli.StringFlag{Name: "put", Usage: "write the bundle to the stick or folder `DIR`, and do not take it"},
		}, scanFlags()...),
		Action: Run(func(ctx context.Context, e *Env, c *cli.Context) error { return runScan(ctx, e, c, side) }),
	}, Help{
		Examples: []string{p.Name + " scan --page", p.Name + " scan photos/ sheet.pdf", p.Name + " scan - --out request.azc", p.Name + " scan --watch screenshots"},
		Exit:     []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Replay, fault.Medium, fault.Locked, fault.NothingYet},
	})
}

func scanFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "page", Usage: "serve a page with the camera on 127.0.0.1 and print its address"},
		&cli.StringFlag{Name: "watch", Usage: "read the pictures that appear in the folder `DIR`"},
		&cli.StringFlag{Name: "id", Usage: "read only the bundle whose frames have the id `HEX`"},
		&cli.StringFlag{Name: "state-file", Usage: "keep a half-done scan in `FILE` instead of the state folder"},
		&cli.BoolFlag{Name: "fresh", Usage: "forget a scan that is half done"},
	}
}

// scanned is the outcome of a scan for people and JSON.
type scanned struct {
	Bundle   *cover       `json:"bundle,omitempty"`
	Frames   []scannedSet `json:"frames"`
	Places   []string     `json:"places,omitempty"`
	Path     string       `json:"path,omitempty"`
	Next     string       `json:"next,omitempty"`
	Pictures int          `json:"pictures"`
	Decoded  float64      `json:"decoded"` // share of pictures with a code
	Lines    int          `json:"lines"`
	Others   int          `json:"otherCodes"`
	Rate     float64      `json:"framesPerSecond"`
}

type scannedSet struct {
	ID      string `json:"id"`
	Have    int    `json:"have"`
	K       int    `json:"k"`
	N       int    `json:"n"`
	Missing []int  `json:"missing"` // systematic ones; any others do as well
}

// result is what the scan has seen so far.
func (s *scanning) result() *scanned {
	s.mu.Lock()
	defer s.mu.Unlock()
	two := func(f float64) float64 { return math.Round(100*f) / 100 }
	r := &scanned{Frames: []scannedSet{}, Pictures: s.meter.Pictures, Decoded: two(s.meter.decoded()), Lines: s.meter.Lines, Others: s.meter.Others, Rate: two(s.meter.rate(s.env.Clock.Now()))}
	for _, st := range s.wanted() {
		set := scannedSet{ID: st.ID.String(), Have: st.Have, K: st.K, N: st.N, Missing: []int{}}
		if !st.Done {
			set.Missing = append(set.Missing, st.Missing...)
		}
		r.Frames = append(r.Frames, set)
	}
	return r
}

// read reads every source in its order, and keeps what arrived whatever ends it.
func (s *scanning) read(ctx context.Context, sources []string, watch string, browse bool) (err error) {
	defer func() {
		if kept := s.keep(); err == nil {
			err = kept
		}
	}()
	for _, from := range sources {
		if from == "-" {
			err = s.stdin(ctx)
		} else {
			err = s.open(ctx, from)
		}
		if err != nil {
			return err
		}
	}
	if watch != "" && !s.complete() {
		if err := s.watch(ctx, watch); err != nil {
			return err
		}
	}
	if browse && !s.complete() {
		return s.browse(ctx)
	}
	return nil
}

func runScan(ctx context.Context, e *Env, c *cli.Context, side Side) error {
	args, err := Args(c, "[FILE…]")
	if err != nil {
		return err
	}
	s, err := e.newScanning(c.String("id"), c.String("state-file"), c.Bool("fresh"))
	if err != nil {
		return err
	}
	defer s.Close()
	if len(args) == 0 && c.String("watch") == "" && !c.Bool("page") && len(s.joiner.Bundles()) == 0 {
		if c.Bool("fresh") {
			return s.keep()
		}
		return fault.New(fault.Usage, "scan needs pictures, - for typed lines, --watch or --page").Hint("%s scan --page", e.Program)
	}
	if err := s.read(ctx, args, c.String("watch"), c.Bool("page")); err != nil {
		return err
	}
	again := e.Program + " scan"
	if f := c.String("state-file"); f != "" {
		again += " --state-file " + f
	}
	r := s.result()
	id, err := s.pick(again)
	if err != nil {
		if e.Console.JSON() {
			e.Console.Result("scan", r, nil)
		}
		return err
	}
	b, v, err := s.join(id)
	if err != nil {
		return err
	}
	if _, r.Bundle, err = coverOf(b); err != nil {
		return err
	}
	out := Out{File: c.String("out"), Dir: c.String("put")}
	if out != (Out{}) {
		r.Places, err = e.Write(out, v.Manifest.Kind, v.Manifest.Bundle, b.Text())
	} else {
		r.Bundle.Standing, r.Path, r.Next, err = s.take(ctx, id, b, v, side)
	}
	if err != nil {
		return err
	}
	if err := s.drop(id); err != nil {
		return err
	}
	if out.File == "-" {
		return nil // standard output is the bundle
	}
	e.Console.Result("scan", r, func(w io.Writer) {
		fmt.Fprintf(w, "scanned  %s %s\n", r.Bundle.Kind, r.Bundle.Bundle)
		for _, p := range append(r.Places, r.Path) {
			if p != "" {
				fmt.Fprintf(w, "  in     %s\n", p)
			}
		}
		if r.Next != "" {
			fmt.Fprintf(w, "  next   %s\n", r.Next)
		}
	})
	return nil
}

// take keeps the bundle as the verb take does. One that was used is forgotten,
// one that is not for this side stays with the scan, to be written elsewhere.
func (s *scanning) take(ctx context.Context, id frame.ID, b *bundle.Bundle, v *bundle.Verified, side Side) (standing, path, next string, err error) {
	e := s.env
	if v.Manifest.Kind == bundle.KindPairing {
		return "", "", "", fault.New(fault.NotForUs, "the codes are a pairing card, which is not taken before its words were compared").Hint("%s scan --out card.azc", e.Program)
	}
	station, err := e.Station()
	if err != nil {
		return "", "", "", fault.New(fault.KindOf(err), "the bundle is complete and cannot be taken here: %w", err).Hint("%s scan --out bundle.azc", e.Program)
	}
	defer station.Close()
	t, err := station.take(ctx, medium.Entry{Name: "scan of " + id.String(), Data: b.Text()}, side, "scanned")
	switch fault.KindOf(err) {
	case 0:
		return "taken", t.Path, t.Next, nil
	case fault.Replay, fault.Refused:
		if dropped := s.drop(id); dropped != nil {
			return "", "", "", dropped
		}
	case fault.NotForUs:
		err = fault.New(fault.NotForUs, "%w", err).Hint("%s scan --out %s", e.Program, medium.Name(string(v.Manifest.Kind), v.Manifest.Bundle.String()))
	}
	return "", "", "", err
}

// ScanFlag is the flag of verbs that take a bundle: instead of a file, the bundle
// comes from QR codes. [Env.Scanned] reads it.
func ScanFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "scan", Usage: "read the bundle from QR codes in `WHERE` instead of a file: page, - for typed lines, a picture, video, PDF or folder; repeatable"}
}

// Scanned returns args as they are, or, with --scan, the name of the bundle that
// was scanned; [Env.ReadBundle] reads it under that name in this run. The frames
// stay kept until [Env.ScanUsed].
func (e *Env) Scanned(ctx context.Context, c *cli.Context, args []string) (_ []string, err error) {
	where := c.StringSlice("scan")
	switch {
	case len(where) == 0:
		return args, nil
	case len(args) > 0:
		return nil, fault.New(fault.Usage, "the bundle %q and --scan contradict each other", args[0])
	}
	s, err := e.newScanning("", "", false)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	var sources []string
	browse := false
	for _, w := range where {
		if w == "page" {
			browse = true
		} else {
			sources = append(sources, w)
		}
	}
	if done := s.done(); len(done) > 0 { // scanned for a run that did not end well
		e.Console.Say("nothing is scanned now: bundle %s is complete; %s scan --fresh forgets it", done[0].ID, e.Program)
	} else if err := s.read(ctx, sources, "", browse); err != nil {
		return nil, err
	}
	id, err := s.pick(e.Program + " " + c.Command.Name + " --scan")
	if err != nil {
		return nil, err
	}
	b, v, err := s.join(id)
	if err != nil {
		return nil, err
	}
	name := medium.Name(string(v.Manifest.Kind), v.Manifest.Bundle.String())
	e.scan = &scannedBundle{name: name, kind: v.Manifest.Kind, text: b.Text(), used: func() error { return s.drop(id) }, close: s.Close}
	return []string{name}, nil
}

// ScanUsed forgets the frames of the bundle that [Env.Scanned] read, if any, when
// the verb is done or will never accept it; else they are there for the next run.
// It returns the verb's own err, or what went wrong here.
func (e *Env) ScanUsed(err error) error {
	if e.scan == nil || err != nil && fault.KindOf(err) != fault.Refused && fault.KindOf(err) != fault.Replay {
		return err
	}
	if dropped := e.scan.used(); err == nil {
		err = dropped
	}
	return err
}

// scannedBundle is what --scan read.
type scannedBundle struct {
	name  string
	kind  bundle.Kind
	text  []byte
	used  func() error
	close func() // when the verb has ended
}
