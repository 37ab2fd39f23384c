package scan

import (
	"context"
	"time"
)

// Limits bound a picture before it is decoded.
type Limits struct {
	MaxBytes  int64 // of one file; video is read as a stream and bounded by MaxFrames
	MaxPixels int   // of one picture, width × height
	MaxFrames int   // of one animation, video or document
}

// DefaultLimits returns limits that fit a scanned A3 sheet and ten minutes of
// video: 256 MiB, 64 million pixels, 36,000 frames.
func DefaultLimits() Limits {
	return Limits{MaxBytes: 256 << 20, MaxPixels: 64 << 20, MaxFrames: 36000}
}

// Image is one picture of a source.
type Image struct {
	Luma  Luma   // valid until the next call of Next
	Name  string // the file's base name, with page or frame number when it holds several
	Still bool   // a picture of its own (photograph, page, screenshot): worth the mode [All]
}

// Source gives pictures one after the other.
type Source interface {
	// Next returns the next picture, [io.EOF] after the last one, or the context's
	// error. Another error says what is wrong with this picture; a source of
	// several files can go on with the next one afterwards, and ends with io.EOF
	// when it cannot.
	Next(ctx context.Context) (Image, error)
	// Close lets go of files and processes.
	Close() error
}

// Ticks paces a watched folder: a folder is looked at once for every tick.
type Ticks <-chan time.Time
