package scan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image/jpeg"
	"io"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// mjpeg is the source of JPEGs that stand one after the other, as cameras and
// `ffmpeg -f mjpeg` write them. One JPEG alone is a still.
type mjpeg struct {
	in     *bufio.Reader
	close  io.Closer
	name   string
	lim    Limits
	frames int
	buf    []byte
	over   bool
}

func newMJPEG(f io.ReadCloser, name string, lim Limits) *mjpeg {
	return &mjpeg{in: bufio.NewReaderSize(f, 64<<10), close: f, name: name, lim: lim}
}

func (m *mjpeg) Close() error {
	if m.close == nil {
		return nil
	}
	err := m.close.Close()
	m.close, m.over = nil, true
	return err
}

func (m *mjpeg) Next(ctx context.Context) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	if m.over {
		return Image{}, io.EOF
	}
	img, err := m.next()
	if err != nil {
		m.Close()
	}
	return img, err
}

func (m *mjpeg) next() (Image, error) {
	buf, err := cutJPEG(m.in, m.buf[:0], m.lim.MaxBytes)
	m.buf = buf
	switch {
	case err == io.EOF && m.frames > 0:
		return Image{}, io.EOF
	case err == io.ErrUnexpectedEOF && m.frames > 0:
		return Image{}, io.EOF // a recording that was cut off ends with the last whole picture
	case err != nil:
		return Image{}, fault.New(fault.Refused, "the picture %q is damaged: %w", m.name, err)
	}
	if m.frames++; m.frames > m.lim.MaxFrames {
		return Image{}, fault.New(fault.Refused, "the video %q has more than %d pictures", m.name, m.lim.MaxFrames)
	}
	img := Image{Name: m.name}
	if m.frames > 1 {
		img.Name = fmt.Sprintf("%s#%d", m.name, m.frames)
	} else if next, err := m.in.Peek(2); err != nil || next[0] != 0xff || next[1] != 0xd8 {
		img.Still, m.over = true, true // whatever follows is no further picture
	}
	img.Luma, err = FromJPEG(buf, img.Name, m.lim)
	return img, err
}

// FromJPEG returns the Y plane of a JPEG, after a look at its header. Errors
// call it by name.
func FromJPEG(b []byte, name string, lim Limits) (Luma, error) {
	c, err := jpeg.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return Luma{}, fault.New(fault.Refused, "the picture %q is damaged: %w", name, err)
	}
	if progressive(b) {
		lim.MaxPixels /= 4 // it is decoded by way of coefficients of four bytes each
	}
	if err := lim.picture(name, c.Width, c.Height); err != nil {
		return Luma{}, err
	}
	decoded, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		return Luma{}, fault.New(fault.Refused, "the picture %q is damaged: %w", name, err)
	}
	return FromImage(decoded), nil
}

// progressive says whether a JPEG comes in several scans (SOF2, ITU-T T.81, B.1.1.3).
func progressive(b []byte) bool {
	for at := 2; at+4 <= len(b) && b[at] == 0xff; {
		switch marker := b[at+1]; {
		case marker == 0xff: // filling
			at++
			continue
		case marker == 0xc2:
			return true
		case marker == 0xda:
			return false
		}
		at += 2 + int(binary.BigEndian.Uint16(b[at+2:]))
	}
	return false
}

// cutJPEG reads one JPEG from start to end marker (ITU-T T.81, B.1) and appends
// it to buf. A thumbnail within a segment is skipped with its segment. It
// returns [io.EOF] when nothing but filling follows.
func cutJPEG(in *bufio.Reader, buf []byte, limit int64) ([]byte, error) {
	for { // filling between pictures
		b, err := in.ReadByte()
		if err != nil {
			return buf, err
		}
		if b != 0xff {
			if b == 0 || b == '\r' || b == '\n' {
				continue
			}
			return buf, fmt.Errorf("byte 0x%02x stands where a JPEG should start", b)
		}
		if b, err = in.ReadByte(); err != nil {
			return buf, noEOF(err)
		}
		if b == 0xff {
			in.UnreadByte()
			continue
		}
		if b != 0xd8 {
			return buf, fmt.Errorf("marker 0x%02x stands where a JPEG should start", b)
		}
		break
	}
	buf = append(buf, 0xff, 0xd8)
	for {
		// Up to the next marker: entropy-coded data, or nothing.
		b, err := in.ReadByte()
		if err != nil {
			return buf, noEOF(err)
		}
		buf = append(buf, b)
		if int64(len(buf)) > limit {
			return buf, fmt.Errorf("a JPEG has more than %d bytes", limit)
		}
		if b != 0xff {
			continue
		}
		for b == 0xff {
			if b, err = in.ReadByte(); err != nil {
				return buf, noEOF(err)
			}
		}
		buf = append(buf, b)
		switch {
		case b == 0xd9:
			return buf, nil
		case b == 0 || b == 1 || 0xd0 <= b && b <= 0xd7:
			continue // a stuffed 0xff, or a marker without a segment
		case b == 0xd8:
			return buf, errors.New("a JPEG starts within another")
		}
		var size [2]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return buf, noEOF(err)
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n < 2 {
			return buf, fmt.Errorf("a segment has %d bytes", n)
		}
		buf = append(buf, size[:]...)
		at := len(buf)
		buf = append(buf, make([]byte, n-2)...)
		if _, err := io.ReadFull(in, buf[at:]); err != nil {
			return buf, noEOF(err)
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
