package scan

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Limits bound a picture before it is decoded.
type Limits struct {
	MaxBytes  int64 // of one file that is read whole, or of one picture in a video
	MaxPixels int   // of one picture, width × height; half of it with 16 bits a colour, a quarter in a progressive JPEG
	MaxFrames int   // of one animation, video or document
}

// maxSide is the longest side of a picture, whatever the limits say.
const maxSide = 16384

// DefaultLimits returns limits that fit a sheet scanned at 600 dpi and twenty
// minutes of video: 64 MiB, 40 million pixels, 36,000 pictures.
func DefaultLimits() Limits {
	return Limits{MaxBytes: 64 << 20, MaxPixels: 40e6, MaxFrames: 36000}
}

// picture refuses a picture that is larger than the limits allow, from what its
// header says.
func (lim Limits) picture(name string, w, h int) error {
	if w <= 0 || h <= 0 {
		return fault.New(fault.Refused, "the picture %q is %d×%d pixels", name, w, h)
	}
	if w > maxSide || h > maxSide || w > lim.MaxPixels/h {
		return fault.New(fault.Refused, "the picture %q is %d×%d pixels, more than %d in all or %d a side", name, w, h, lim.MaxPixels, maxSide)
	}
	return nil
}

// Image is one picture of a source.
type Image struct {
	Luma  Luma   // valid until the next call of Next
	Name  string // the file's base name, with "#2" for its second picture and so on
	Still bool   // a picture of its own (photograph, page, screenshot): worth the mode [All]
}

// Source gives pictures one after the other.
type Source interface {
	// Next returns the next picture, [io.EOF] after the last one, or the context's
	// error. Another error says what is wrong with the file that is being read: a
	// folder goes on with its next file when Next is called again, a file is over.
	Next(ctx context.Context) (Image, error)
	// Close lets go of files and processes. It may be called more than once.
	Close() error
}

// errUnknown is the cause of a refusal because the format is not known.
var errUnknown = errors.New("neither PNG, JPEG, GIF, TIFF, BMP, MJPEG, Y4M, PDF nor a video container")

// container is a video container that ffmpeg opens: by the bytes at a place near
// the start, and the name of the one demuxer that may have it.
type container struct {
	at      int
	magic   string
	demuxer string
}

// Playlists and other formats that name further files are not among them.
var containers = []container{
	{4, "ftyp", "mov"}, {4, "moov", "mov"}, {4, "mdat", "mov"},
	{0, "\x1aE\xdf\xa3", "matroska"}, {8, "AVI ", "avi"}, {0, "OggS", "ogg"}, {0, "FLV\x01", "flv"},
	{0, "\x00\x00\x01\xba", "mpeg"}, {0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"},
}

// Open opens a picture, an animation, a video, a PDF or a folder of them, by what
// the file holds and not by its name: PNG, JPEG, GIF, TIFF, BMP, MJPEG
// (JPEGs one after the other), Y4M with 8 bits, PDF when pdftoppm is installed and
// the common video containers when ffmpeg is. Processes end with ctx or Close.
// Errors are of the kinds [fault.Medium] and [fault.Refused].
func Open(ctx context.Context, path string, lim Limits) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "pictures cannot be read: %w", err)
	}
	if info.IsDir() {
		return openFolder(path, lim)
	}
	return openFile(ctx, path, lim)
}

func openFile(ctx context.Context, path string, lim Limits) (Source, error) {
	name := filepath.Base(path)
	// A pipe or a device would not end, and opening it may already block.
	if info, err := os.Stat(path); err != nil {
		return nil, fault.New(fault.Medium, "the picture cannot be read: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Medium, "the picture %q is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Medium, "the picture cannot be read: %w", err)
	}
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		f.Close()
		return nil, fault.New(fault.Medium, "the picture %q cannot be read: %w", name, err)
	}
	head = head[:n]
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, fault.New(fault.Medium, "the picture %q cannot be read: %w", name, err)
	}
	is := func(at int, magic string) bool {
		return len(head) >= at && bytes.HasPrefix(head[at:], []byte(magic))
	}
	switch {
	case is(0, "\xff\xd8"):
		return newMJPEG(f, name, lim), nil
	case is(0, "YUV4MPEG2 "):
		return newY4M(f, f.Close, name, lim)
	case is(0, "GIF87a"), is(0, "GIF89a"):
		return newGIF(f, name, lim)
	case is(0, "\x89PNG"), is(0, "BM"), is(0, "II*\x00"), is(0, "MM\x00*"):
		return &still{file: f, name: name, lim: lim}, nil
	}
	f.Close()
	if is(0, "%PDF-") {
		return openPDF(ctx, path, lim)
	}
	for _, c := range containers {
		if is(c.at, c.magic) {
			return openVideo(ctx, path, c.demuxer, lim)
		}
	}
	return nil, fault.New(fault.Refused, "the file %q is %w", name, errUnknown)
}
