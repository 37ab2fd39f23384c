package scan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/gif"
	"io"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// animation is the source of a GIF. The standard library decodes a GIF whole,
// every picture at once; here one picture at a time is cut out of the stream,
// decoded as a GIF of its own and laid on the canvas, so that memory does not
// grow with their number.
type animation struct {
	file    io.Closer
	in      *bufio.Reader
	name    string
	lim     Limits
	head    []byte // header, logical screen descriptor and global colours
	control []byte // the graphic control extension for the next picture
	frames  int
	w, h    int
	canvas  []byte
	saved   []byte // the canvas before the last picture, for disposal 3
	undo    func()
	out     []byte
	err     error
}

func newGIF(f io.ReadCloser, name string, lim Limits) (*animation, error) {
	a := &animation{file: f, in: bufio.NewReaderSize(f, 64<<10), name: name, lim: lim}
	a.head = make([]byte, 13)
	if _, err := io.ReadFull(a.in, a.head); err != nil {
		f.Close()
		return nil, a.damaged(err)
	}
	a.w, a.h = int(binary.LittleEndian.Uint16(a.head[6:])), int(binary.LittleEndian.Uint16(a.head[8:]))
	if err := lim.picture(name, a.w, a.h); err != nil {
		f.Close()
		return nil, err
	}
	if a.head[10]&0x80 != 0 {
		colours := make([]byte, 3<<(a.head[10]&7+1))
		if _, err := io.ReadFull(a.in, colours); err != nil {
			f.Close()
			return nil, a.damaged(err)
		}
		a.head = append(a.head, colours...)
	}
	a.canvas = bytes.Repeat([]byte{255}, a.w*a.h)
	return a, nil
}

func (a *animation) damaged(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fault.New(fault.Refused, "the animation %q is damaged: %w", a.name, err)
}

func (a *animation) Close() error {
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}

func (a *animation) Next(ctx context.Context) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	if a.err != nil {
		return Image{}, a.err
	}
	if err := a.advance(); err != nil {
		a.err = io.EOF
		a.Close()
		return Image{}, err
	}
	a.out = append(a.out[:0], a.canvas...)
	m := Image{Luma: Luma{Pix: a.out, W: a.w, H: a.h, Stride: a.w}, Name: fmt.Sprintf("%s#%d", a.name, a.frames)}
	if a.frames == 1 {
		m.Name = a.name
		end, err := a.in.Peek(1)
		m.Still = err != nil || end[0] == 0x3b
	}
	return m, nil
}

// advance lays the next picture on the canvas.
func (a *animation) advance() error {
	for {
		kind, err := a.in.ReadByte()
		switch {
		case err == io.EOF && a.frames > 0:
			return io.EOF // the trailer is missing, as often
		case err != nil:
			return a.damaged(err)
		case kind == 0x3b:
			return io.EOF
		case kind == 0x21:
			label, err := a.in.ReadByte()
			if err != nil {
				return a.damaged(err)
			}
			block, err := a.blocks(nil, label == 0xf9)
			if err != nil {
				return err
			}
			if label == 0xf9 && len(block) == 6 {
				a.control = append([]byte{0x21, 0xf9}, block...)
			}
		case kind == 0x2c:
			return a.picture()
		default:
			return a.damaged(fmt.Errorf("block 0x%02x is unknown", kind))
		}
	}
}

// blocks reads data sub-blocks up to the empty one and returns them, with their
// lengths, behind to; without keep it only counts them.
func (a *animation) blocks(to []byte, keep bool) ([]byte, error) {
	var sub [256]byte
	total := int64(0)
	for {
		n, err := a.in.ReadByte()
		if err != nil {
			return nil, a.damaged(err)
		}
		sub[0] = n
		if _, err := io.ReadFull(a.in, sub[1:1+int(n)]); err != nil {
			return nil, a.damaged(err)
		}
		if keep {
			to = append(to, sub[:1+int(n)]...)
		}
		if total += 1 + int64(n); total > a.lim.MaxBytes {
			return nil, fault.New(fault.Refused, "the animation %q has a block of more than %d bytes", a.name, a.lim.MaxBytes)
		}
		if n == 0 {
			return to, nil
		}
	}
}

func (a *animation) picture() error {
	if a.frames++; a.frames > a.lim.MaxFrames {
		return fault.New(fault.Refused, "the animation %q has more than %d pictures", a.name, a.lim.MaxFrames)
	}
	one := append([]byte(nil), a.head...)
	one = append(one, a.control...)
	one = append(one, 0x2c)
	at := len(one)
	one = append(one, make([]byte, 9)...)
	if _, err := io.ReadFull(a.in, one[at:]); err != nil {
		return a.damaged(err)
	}
	if local := one[at+8]; local&0x80 != 0 {
		colours := make([]byte, 3<<(local&7+1))
		if _, err := io.ReadFull(a.in, colours); err != nil {
			return a.damaged(err)
		}
		one = append(one, colours...)
	}
	width, err := a.in.ReadByte() // of the LZW codes
	if err != nil {
		return a.damaged(err)
	}
	one, err = a.blocks(append(one, width), true)
	if err != nil {
		return err
	}
	control := a.control
	a.control = nil
	m, err := gif.Decode(bytes.NewReader(append(one, 0x3b)))
	if err != nil {
		return a.damaged(err)
	}
	p, ok := m.(*image.Paletted)
	if !ok || !p.Rect.In(image.Rect(0, 0, a.w, a.h)) {
		return a.damaged(fmt.Errorf("picture %d is %v on a canvas of %d×%d", a.frames, m.Bounds(), a.w, a.h))
	}
	a.lay(p, control)
	return nil
}

// lay disposes of the last picture as that one asked for and draws p.
func (a *animation) lay(p *image.Paletted, control []byte) {
	if a.undo != nil {
		a.undo()
		a.undo = nil
	}
	disposal := byte(0)
	if len(control) > 3 {
		disposal = control[3] >> 2 & 7
	}
	switch r := p.Rect; disposal {
	case 2: // to the background, which every program takes for transparent
		a.undo = func() {
			for y := r.Min.Y; y < r.Max.Y; y++ {
				row := a.canvas[y*a.w+r.Min.X : y*a.w+r.Max.X]
				for x := range row {
					row[x] = 255
				}
			}
		}
	case 3: // to what was there before
		a.saved = append(a.saved[:0], a.canvas...)
		a.undo = func() { copy(a.canvas, a.saved) }
	}
	var grey [256]byte
	var clear [256]bool
	for i, c := range p.Palette {
		_, _, _, alpha := c.RGBA()
		grey[i], clear[i] = greyOf(c), alpha == 0
	}
	for y := range p.Rect.Dy() {
		row := p.Pix[y*p.Stride : y*p.Stride+p.Rect.Dx()]
		to := a.canvas[(p.Rect.Min.Y+y)*a.w+p.Rect.Min.X:]
		for x, i := range row {
			if !clear[i] {
				to[x] = grey[i]
			}
		}
	}
}
