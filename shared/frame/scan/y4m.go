package scan

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// y4m is the source of a YUV4MPEG2 stream with 8 bits a sample: 4:2:0 in every
// siting, 4:2:2, 4:1:1, 4:4:4 with or without alpha, and mono. Only the Y plane is
// kept; video range (16 to 235) is left as it is.
type y4m struct {
	in     *bufio.Reader
	close  func() error
	name   string
	lim    Limits
	w, h   int
	rest   int64 // bytes of a frame behind its Y plane
	frames int
	pix    []byte
	over   bool
	// whole, when set, tells why the stream ended: the process behind it may have
	// failed.
	whole func() error
}

// maxHeader bounds the stream header and the frame headers.
const maxHeader = 256

func newY4M(in io.Reader, close func() error, name string, lim Limits) (*y4m, error) {
	s := &y4m{in: bufio.NewReaderSize(in, 256<<10), close: close, name: name, lim: lim}
	if err := s.header(); err != nil {
		close()
		return nil, err
	}
	return s, nil
}

func (s *y4m) line() (string, error) {
	var b []byte
	for len(b) < maxHeader {
		c, err := s.in.ReadByte()
		if err != nil {
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if c == '\n' {
			return string(b), nil
		}
		b = append(b, c)
	}
	return "", fmt.Errorf("a header has more than %d bytes", maxHeader)
}

func (s *y4m) header() error {
	line, err := s.line()
	if err != nil {
		return fault.New(fault.Refused, "the video %q is damaged: %w", s.name, noEOF(err))
	}
	words := strings.Split(line, " ")
	if words[0] != "YUV4MPEG2" {
		return fault.New(fault.Refused, "the video %q is not a YUV4MPEG2 stream", s.name)
	}
	colour := "420"
	for _, w := range words[1:] {
		if w == "" {
			continue
		}
		switch w[0] {
		case 'W':
			s.w, err = strconv.Atoi(w[1:])
		case 'H':
			s.h, err = strconv.Atoi(w[1:])
		case 'C':
			colour = w[1:]
		}
		if err != nil {
			return fault.New(fault.Refused, "the video %q has the header %q", s.name, line)
		}
	}
	if err := s.lim.picture(s.name, s.w, s.h); err != nil {
		return err
	}
	half := func(n int) int64 { return int64(n+1) / 2 }
	switch y := int64(s.w) * int64(s.h); colour {
	case "420", "420jpeg", "420paldv", "420mpeg2":
		s.rest = 2 * half(s.w) * half(s.h)
	case "422":
		s.rest = 2 * half(s.w) * int64(s.h)
	case "411":
		s.rest = 2 * (int64(s.w+3) / 4) * int64(s.h)
	case "444":
		s.rest = 2 * y
	case "444alpha":
		s.rest = 3 * y
	case "mono":
		s.rest = 0
	default:
		return fault.New(fault.Refused, "the video %q has the samples %q; 8-bit 420, 422, 411, 444 and mono are read", s.name, colour)
	}
	s.pix = make([]byte, s.w*s.h)
	return nil
}

func (s *y4m) Close() error {
	if s.close == nil {
		return nil
	}
	err := s.close()
	s.close, s.over = nil, true
	return err
}

func (s *y4m) Next(ctx context.Context) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	if s.over {
		return Image{}, io.EOF
	}
	img, err := s.next()
	if err != nil {
		if err == io.EOF && s.whole != nil {
			if cause := s.whole(); cause != nil {
				err = cause
			}
		}
		s.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	return img, err
}

func (s *y4m) next() (Image, error) {
	line, err := s.line()
	if err == io.EOF {
		return Image{}, io.EOF
	}
	if err == nil && line != "FRAME" && !strings.HasPrefix(line, "FRAME ") {
		err = fmt.Errorf("%q stands where a picture should start", line)
	}
	if err == nil {
		_, err = io.ReadFull(s.in, s.pix)
	}
	if err == nil {
		_, err = io.CopyN(io.Discard, s.in, s.rest)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return Image{}, io.EOF // a recording that was cut off ends with the last whole picture
	}
	if err != nil {
		return Image{}, fault.New(fault.Refused, "the video %q is damaged: %w", s.name, err)
	}
	if s.frames++; s.frames > s.lim.MaxFrames {
		return Image{}, fault.New(fault.Refused, "the video %q has more than %d pictures", s.name, s.lim.MaxFrames)
	}
	return Image{Luma: Luma{Pix: s.pix, W: s.w, H: s.h, Stride: s.w}, Name: fmt.Sprintf("%s#%d", s.name, s.frames)}, nil
}
