// Package frame cuts a bundle into QR frames and joins what a reader saw of
// them. It opens nothing and knows neither picture nor clock: texts in, texts
// and bytes out.
//
// The property: any K of the N frames of a bundle give its bytes back, whichever
// arrive, in whatever order, by whatever mixture of camera, printed sheet,
// picture and handheld scanner. Every frame says all that is needed to join it
// (the bundle's id, K, N, its index, the total length) and carries a checksum of
// its own, so that frames of several bundles in one view sort themselves.
//
// The limit: nothing here is secret or signed. Whoever can show a frame can
// make one. A checksum and the four bytes of the id catch accidents and mixed
// bundles; that the joined bytes are a peer's bundle is decided by the signature
// inside of them, as for a file from a stick. What hostile frames can do is
// bounded: a joiner holds at most [MaxBundles] bundles and never more than K
// shards of each, and a bundle whose frames contradict each other is refused,
// not guessed.
//
// The erasure code is the systematic Reed–Solomon code of klauspost/reedsolomon
// (Vandermonde, GF(2⁸), polynomial 0x11D); the text is base45 (RFC 9285), which
// a QR code holds as one alphanumeric segment and a keyboard scanner can type.
// docs/FORMAT.md, section "Optical frames", has every byte.
package frame

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"

	"github.com/azs-courier/azs-courier/shared/fault"
)

const (
	// Prefix begins the text of every frame: its first two bytes, 0E 1A, are fixed,
	// and base45 spells two bytes as three characters. The digit is the version.
	Prefix = "AZ1"

	header    = 16   // bytes before the shard: mark 2, id 4, k, n, index 1 each, length 3, CRC-32 4
	crcAt     = 12   // the checksum covers the frame without itself
	maxShards = 255  // of one bundle; above 256 the library computes in another field
	maxK      = 127  // so that N is at least 2K
	maxText   = 4296 // characters of version 40, level L
	maxLength = 1<<24 - 1
)

var mark = [2]byte{0x0e, 0x1a}

// ID names a bundle in its frames: the first 4 bytes of the SHA-256 of its wire
// spelling.
type ID [4]byte

// IDOf returns the id of a bundle in its wire spelling.
func IDOf(wire []byte) ID {
	sum := sha256.Sum256(wire)
	return ID(sum[:4])
}

// String returns 8 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what [ID.String] writes, in either case.
func ParseID(s string) (ID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(ID{}) {
		return ID{}, fault.New(fault.Usage, "%q is not the id of a bundle's frames, which is 8 hexadecimal digits", s)
	}
	return ID(b), nil
}

// Frame is one frame that was read. It is immutable.
type Frame struct {
	ID     ID
	K      int // frames that are needed, 1 to 127
	N      int // frames that there are, at least 2K
	Index  int // 0 to N-1; below K the frame is systematic: its shard is a piece of the bundle itself
	Length int // bytes of the bundle
	shard  []byte
}

// shape is what all frames of one bundle have in common.
type shape struct{ k, n, length int }

func (f Frame) shape() shape { return shape{f.K, f.N, f.Length} }

// shard is the bytes of each shard: the bundle in k equal pieces, rounded up.
func (s shape) shard() int { return (s.length + s.k - 1) / s.k }

// check refuses what no sender makes. There is one shape for a length and a
// size of shard.
func (s shape) check() error {
	switch {
	case s.k < 1 || s.k > maxK:
		return refused("it needs k=%d frames, 1 to %d are allowed", s.k, maxK)
	case s.n != frames(s.k):
		return refused("it says n=%d for k=%d, which has n=%d", s.n, s.k, frames(s.k))
	case s.length < s.k || (s.length+s.shard()-1)/s.shard() != s.k:
		return refused("k=%d does not fit to a bundle of %d bytes", s.k, s.length)
	}
	return nil
}

// frames is N for K.
func frames(k int) int { return min(maxShards, 4*k+4) }

func refused(format string, args ...any) error {
	return fault.New(fault.Refused, "this is no frame of azs-courier: "+format, args...)
}

// bytes spells the frame: header, shard, and a zero byte when the length would
// be odd.
func (f Frame) bytes() []byte {
	b := make([]byte, header, header+len(f.shard)+1)
	copy(b, mark[:])
	copy(b[2:], f.ID[:])
	b[6], b[7], b[8] = byte(f.K), byte(f.N), byte(f.Index)
	b[9], b[10], b[11] = byte(f.Length>>16), byte(f.Length>>8), byte(f.Length)
	b = append(b, f.shard...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b[crcAt:], checksum(b))
	return b
}

// checksum is the CRC-32 (IEEE 802.3) of a frame without its checksum.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(b[:crcAt]), crc32.IEEETable, b[header:])
}

// Text spells the frame as it stands in the QR code: base45 in upper case,
// a multiple of three characters, beginning with [Prefix] and ending in a digit
// or letter. [Parse] reads it back.
func (f Frame) Text() string { return encode45(f.bytes()) }

// Parse reads the text of a frame as a QR reader gives it: exactly what
// [Frame.Text] spells, with nothing around it. Everything else is a
// [fault.Refused].
func Parse(text string) (Frame, error) {
	if len(text) > maxText {
		return Frame{}, refused("it has %d characters, at most %d fit into a code", len(text), maxText)
	}
	if len(text) < len(Prefix) || text[:len(Prefix)] != Prefix {
		return Frame{}, refused("it does not begin with %s", Prefix)
	}
	b, err := decode45(text)
	if err != nil {
		return Frame{}, err
	}
	return parse(b)
}

func parse(b []byte) (Frame, error) {
	if len(b) <= header {
		return Frame{}, refused("it has %d bytes, a frame has more than %d", len(b), header)
	}
	if got, want := checksum(b), binary.BigEndian.Uint32(b[crcAt:]); got != want {
		return Frame{}, refused("its checksum is %08x and its bytes have %08x", want, got)
	}
	f := Frame{ID: ID(b[2:6]), K: int(b[6]), N: int(b[7]), Index: int(b[8]), Length: int(b[9])<<16 | int(b[10])<<8 | int(b[11])}
	s := f.shape()
	if err := s.check(); err != nil {
		return Frame{}, err
	}
	if f.Index >= f.N {
		return Frame{}, refused("it is number %d of %d, counted from 0", f.Index, f.N)
	}
	end := header + s.shard()
	if want := end + end%2; len(b) != want {
		return Frame{}, refused("it has %d bytes, with k=%d of %d bytes there are %d", len(b), f.K, f.Length, want)
	}
	if len(b) > end && b[end] != 0 {
		return Frame{}, refused("its padding is not zero")
	}
	f.shard = b[header:end:end]
	return f, nil
}
