package scan

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// pdfSide is the longer side of a page in pixels, whatever the page's size: an A4
// page at 360 dpi. A page of a kilometre has no more.
const pdfSide = 4200

// process is a program that writes pictures to its standard output.
type process struct {
	cmd    *exec.Cmd
	out    io.ReadCloser
	said   capped // on its standard error
	cancel context.CancelFunc
	ended  bool
	err    error
}

// capped keeps the first bytes that are written to it.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if room := 2048 - c.Len(); room > 0 {
		c.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// start runs a program without a shell; its arguments are fixed but for one
// absolute path.
func start(ctx context.Context, program string, args ...string) (*process, error) {
	p := &process{}
	ctx, p.cancel = context.WithCancel(ctx)
	p.cmd = exec.CommandContext(ctx, program, args...)
	p.cmd.Stderr = &p.said
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.out = out
		err = p.cmd.Start()
	}
	if err != nil {
		p.cancel()
		return nil, fault.New(fault.Medium, "%s cannot be started: %w", filepath.Base(program), err)
	}
	return p, nil
}

// wait waits for the program's end, of which its output has told, and returns
// what it failed of.
func (p *process) wait() error {
	if !p.ended {
		p.ended = true
		p.err = p.cmd.Wait()
		p.cancel()
	}
	if p.err == nil {
		return nil
	}
	said := strings.TrimSpace(strings.ToValidUTF8(p.said.String(), "?"))
	if said == "" {
		said = p.err.Error()
	}
	return fault.New(fault.Refused, "%s failed: %q", filepath.Base(p.cmd.Path), said)
}

// Close ends the program and waits for it.
func (p *process) Close() error {
	p.cancel()
	p.wait()
	return nil
}

// Helper is a program of the system that opens some sources.
type Helper struct {
	Name, For string
	Path      string // "" where it is not installed
}

// Helpers returns the programs that are called, where the source is one of theirs.
func Helpers() []Helper {
	all := []Helper{{Name: "ffmpeg", For: "videos that are no GIF, MJPEG or Y4M"}, {Name: "pdftoppm", For: "PDF sheets"}}
	for i, h := range all {
		if path, err := exec.LookPath(h.Name); err == nil {
			all[i].Path = path
		}
	}
	return all
}

func openVideo(ctx context.Context, path, demuxer string, lim Limits) (Source, error) {
	name := filepath.Base(path)
	program, err := exec.LookPath("ffmpeg")
	if err != nil {
		return nil, fault.New(fault.Medium, "the video %q needs ffmpeg, which is not installed; GIF, MJPEG and Y4M are read without it", name)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the video %q: %w", name, err)
	}
	p, err := start(ctx, program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-f", demuxer, "-i", "file:"+abs,
		"-map", "0:v:0", "-frames:v", strconv.Itoa(lim.MaxFrames), "-pix_fmt", "gray", "-f", "yuv4mpegpipe", "pipe:1")
	if err != nil {
		return nil, err
	}
	s, err := newY4M(p.out, func() error { return nil }, name, lim)
	if err != nil {
		p.cancel()
		if cause := p.wait(); cause != nil && p.said.Len() > 0 {
			err = cause
		}
		return nil, err
	}
	s.close, s.whole = p.Close, p.wait
	return s, nil
}

// pages is the source of a PDF's pages, as pdftoppm draws them: grey bitmaps
// (PGM, "P5") one after the other.
type pages struct {
	*process
	in   *bufio.Reader
	name string
	lim  Limits
	n    int
	pix  []byte
	over bool
}

func openPDF(ctx context.Context, path string, lim Limits) (Source, error) {
	name := filepath.Base(path)
	program, err := exec.LookPath("pdftoppm")
	if err != nil {
		return nil, fault.New(fault.Medium, "the document %q needs pdftoppm, which is not installed; pages as PNG are read without it", name)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the document %q: %w", name, err)
	}
	p, err := start(ctx, program, "-gray", "-q", "-scale-to", strconv.Itoa(pdfSide), "-l", strconv.Itoa(lim.MaxFrames), abs)
	if err != nil {
		return nil, err
	}
	return &pages{process: p, in: bufio.NewReaderSize(p.out, 256<<10), name: name, lim: lim}, nil
}

func (s *pages) Next(ctx context.Context) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	if s.over {
		return Image{}, io.EOF
	}
	l, err := readPGM(s.in, &s.pix, s.name, s.lim)
	if err != nil {
		s.over = true
		if err == io.EOF {
			if cause := s.wait(); cause != nil {
				err = cause
			}
		}
		s.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Image{}, err
	}
	s.n++
	return Image{Luma: l, Name: fmt.Sprintf("%s#%d", s.name, s.n), Still: true}, nil
}

// readPGM reads one binary grey bitmap with 8 bits a pixel into *pix.
func readPGM(in *bufio.Reader, pix *[]byte, name string, lim Limits) (Luma, error) {
	damaged := func(err error) error {
		return fault.New(fault.Refused, "the picture %q is damaged: %w", name, noEOF(err))
	}
	var magic [2]byte
	if _, err := io.ReadFull(in, magic[:]); err == io.EOF {
		return Luma{}, io.EOF
	} else if err != nil || string(magic[:]) != "P5" {
		return Luma{}, damaged(fmt.Errorf("%q stands where a grey bitmap should start", magic[:]))
	}
	var numbers [3]int
	for i := range numbers {
		digits := 0
		for skipped := 0; ; {
			b, err := in.ReadByte()
			if err != nil {
				return Luma{}, damaged(err)
			}
			if b >= '0' && b <= '9' {
				if digits++; digits > 6 {
					return Luma{}, damaged(fmt.Errorf("a number has more than 6 digits"))
				}
				numbers[i] = numbers[i]*10 + int(b-'0')
				continue
			}
			if digits > 0 {
				break // one white space ends a number, and the last one the header
			}
			if skipped++; skipped > maxHeader || b != ' ' && b != '\n' && b != '\t' && b != '\r' {
				return Luma{}, damaged(fmt.Errorf("%q stands where a number should", b))
			}
		}
	}
	w, h := numbers[0], numbers[1]
	if numbers[2] != 255 {
		return Luma{}, damaged(fmt.Errorf("white is %d, not 255", numbers[2]))
	}
	if err := lim.picture(name, w, h); err != nil {
		return Luma{}, err
	}
	if cap(*pix) < w*h {
		*pix = make([]byte, w*h)
	}
	*pix = (*pix)[:w*h]
	if _, err := io.ReadFull(in, *pix); err != nil {
		return Luma{}, damaged(err)
	}
	return Luma{Pix: *pix, W: w, H: h, Stride: w}, nil
}
