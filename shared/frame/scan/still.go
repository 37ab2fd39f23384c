package scan

import (
	"context"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// still is the source of one PNG, BMP or TIFF (its first page).
type still struct {
	file *os.File
	name string
	lim  Limits
	done bool
}

func (s *still) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

func (s *still) Next(ctx context.Context) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	if s.done || s.file == nil {
		return Image{}, io.EOF
	}
	s.done = true
	defer s.Close()
	if info, err := s.file.Stat(); err != nil {
		return Image{}, fault.New(fault.Medium, "the picture %q cannot be read: %w", s.name, err)
	} else if info.Size() > s.lim.MaxBytes {
		return Image{}, fault.New(fault.Refused, "the picture %q has %d bytes, more than %d", s.name, info.Size(), s.lim.MaxBytes)
	}
	// The section ends where the limit does, should the file grow meanwhile.
	l, err := decodeStill(io.NewSectionReader(s.file, 0, s.lim.MaxBytes), s.name, s.lim)
	if err != nil {
		return Image{}, err
	}
	return Image{Luma: l, Name: s.name, Still: true}, nil
}

// decodeStill decodes a PNG, BMP or TIFF after a look at its header.
func decodeStill(r io.ReadSeeker, name string, lim Limits) (Luma, error) {
	var magic [2]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return Luma{}, fault.New(fault.Refused, "the picture %q ends in its header", name)
	}
	header, decode := png.DecodeConfig, png.Decode
	switch string(magic[:]) {
	case "BM":
		header, decode = bmp.DecodeConfig, bmp.Decode
	case "II", "MM":
		header, decode = tiff.DecodeConfig, tiff.Decode
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return Luma{}, fault.New(fault.Medium, "the picture %q cannot be read: %w", name, err)
	}
	c, err := header(r)
	if err != nil {
		return Luma{}, fault.New(fault.Refused, "the picture %q is damaged: %w", name, err)
	}
	switch c.ColorModel {
	case color.RGBA64Model, color.NRGBA64Model:
		lim.MaxPixels /= 2 // eight bytes a pixel
	}
	if err := lim.picture(name, c.Width, c.Height); err != nil {
		return Luma{}, err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return Luma{}, fault.New(fault.Medium, "the picture %q cannot be read: %w", name, err)
	}
	m, err := decode(r)
	if err != nil {
		return Luma{}, fault.New(fault.Refused, "the picture %q is damaged: %w", name, err)
	}
	if b := m.Bounds(); b.Dx() != c.Width || b.Dy() != c.Height {
		return Luma{}, fault.New(fault.Refused, "the picture %q is %d×%d pixels where its header says %d×%d", name, b.Dx(), b.Dy(), c.Width, c.Height)
	}
	return FromImage(m), nil
}

// FromImage returns the brightness of m. The Y plane of a JPEG and a grey
// picture are taken as they are, without a copy; everything else is weighed as
// JPEG does (ITU-T T.871) and, where it is transparent, laid on white.
func FromImage(m image.Image) Luma {
	b := m.Bounds()
	l := Luma{W: b.Dx(), H: b.Dy(), Stride: b.Dx()}
	switch m := m.(type) {
	case *image.YCbCr:
		return Luma{Pix: m.Y, W: l.W, H: l.H, Stride: m.YStride}
	case *image.Gray:
		return Luma{Pix: m.Pix, W: l.W, H: l.H, Stride: m.Stride}
	}
	l.Pix = make([]byte, l.W*l.H)
	switch m := m.(type) {
	case *image.Paletted:
		var grey [256]byte
		for i, c := range m.Palette {
			grey[i] = greyOf(c)
		}
		for y := range l.H {
			row := m.Pix[y*m.Stride : y*m.Stride+l.W]
			for x, i := range row {
				l.Pix[y*l.W+x] = grey[i]
			}
		}
	case *image.RGBA: // premultiplied: the rest of the alpha is white
		for y := range l.H {
			row := m.Pix[y*m.Stride : y*m.Stride+4*l.W]
			for x := range l.W {
				p := row[4*x : 4*x+4]
				l.Pix[y*l.W+x] = byte((19595*uint32(p[0])+38470*uint32(p[1])+7471*uint32(p[2])+1<<15)>>16 + 255 - uint32(p[3]))
			}
		}
	case *image.NRGBA:
		for y := range l.H {
			row := m.Pix[y*m.Stride : y*m.Stride+4*l.W]
			for x := range l.W {
				p := row[4*x : 4*x+4]
				v := (19595*uint32(p[0]) + 38470*uint32(p[1]) + 7471*uint32(p[2]) + 1<<15) >> 16
				l.Pix[y*l.W+x] = byte((v*uint32(p[3]) + 255*(255-uint32(p[3])) + 127) / 255)
			}
		}
	default:
		for y := range l.H {
			for x := range l.W {
				l.Pix[y*l.W+x] = greyOf(m.At(b.Min.X+x, b.Min.Y+y))
			}
		}
	}
	return l
}

// greyOf returns the brightness of a colour on white.
func greyOf(c color.Color) byte {
	r, g, b, a := c.RGBA()
	v := (19595*uint64(r)+38470*uint64(g)+7471*uint64(b)+1<<15)>>16 + 0xffff - uint64(a)
	return byte(min(v, 0xffff) >> 8)
}
