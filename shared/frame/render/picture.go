package render

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"io"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Frames a second of an animation.
const (
	DefaultRate = 8
	MinRate     = 1
	MaxRate     = 15
)

// DefaultScale is the pixels of a module in a picture of a set.
const DefaultScale = 8

var blackOnWhite = color.Palette{color.White, color.Black}

// picture draws a code with its white around it.
func (c *Code) picture(scale int) *image.Paletted {
	side := (c.side + 2*Quiet) * scale
	img := image.NewPaletted(image.Rect(0, 0, side, side), blackOnWhite)
	for y := range side {
		row := img.Pix[y*img.Stride : (y+1)*img.Stride]
		if y%scale != 0 {
			copy(row, img.Pix[(y-1)*img.Stride:y*img.Stride])
			continue
		}
		for x := range row {
			if c.Black(x/scale-Quiet, y/scale-Quiet) {
				row[x] = 1
			}
		}
	}
	return img
}

// PNG writes a code as a picture of scale pixels a module, one bit a pixel.
func PNG(w io.Writer, c *Code, scale int) error {
	e := png.Encoder{CompressionLevel: png.BestCompression}
	return e.Encode(w, c.picture(scale))
}

// File is a file of a set of pictures.
type File struct {
	Name string
	Data []byte
}

// PNGs returns the pictures of the codes to keep, in the order in which a folder
// lists them: "3f2a91c4-007.png" is the frame with the index 7 of bundle 3f2a91c4.
func (r *Reel) PNGs(scale int) ([]File, error) {
	stills, err := r.Kept()
	if err != nil {
		return nil, err
	}
	var files []File
	for _, s := range stills {
		var b bytes.Buffer
		if err := PNG(&b, s.Code, scale); err != nil {
			return nil, fault.New(fault.Unexpected, "frame %d of bundle %s: %w", s.Index, r.set.ID(), err)
		}
		files = append(files, File{fmt.Sprintf("%s-%03d.png", r.set.ID(), s.Index), b.Bytes()})
	}
	return files, nil
}

// GIF writes all codes as an animation that begins again behind the last one, rate
// codes a second, scale pixels a module. A GIF counts hundredths of a second, so
// that 8 a second are shown as 8.3.
func (r *Reel) GIF(w io.Writer, scale, rate int) error {
	stills, err := r.All()
	if err != nil {
		return err
	}
	side := (Modules(r.set.Version()) + 2*Quiet) * scale
	all := gif.GIF{Config: image.Config{ColorModel: blackOnWhite, Width: side, Height: side}}
	for _, s := range stills {
		all.Image = append(all.Image, s.Code.picture(scale))
		all.Delay = append(all.Delay, 100/rate)
	}
	return gif.EncodeAll(w, &all)
}
