package frame

import (
	"sync"

	"github.com/klauspost/reedsolomon"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// alphanumeric is how many characters each QR version holds at level L
// (ISO/IEC 18004, table 7).
var alphanumeric = [41]int{0,
	25, 47, 77, 114, 154, 195, 224, 279, 335, 395,
	468, 535, 619, 667, 758, 854, 938, 1046, 1153, 1249,
	1352, 1460, 1588, 1704, 1853, 1990, 2132, 2223, 2369, 2520,
	2677, 2840, 3009, 3183, 3351, 3537, 3729, 3927, 4087, 4296}

// Capacity returns the most bytes of a frame, header included, in a code of a
// version at level L; it is even. It is 0 for a version that is not 1 to 40.
func Capacity(version int) int {
	if version < 1 || version > 40 {
		return 0
	}
	return alphanumeric[version] / 3 * 2
}

// SmallestVersion returns the smallest version that carries a bundle of so many
// bytes with N at least twice K, and 0 when none does.
func SmallestVersion(length int) int {
	for v := 1; v <= 40; v++ {
		if length > 0 && length <= maxK*(Capacity(v)-header) {
			return v
		}
	}
	return 0
}

// Set is a bundle cut into frames. Its methods may be called by several
// goroutines.
type Set struct {
	id      ID
	shape   shape
	version int
	wire    []byte

	redundancy sync.Once // the shards behind the K systematic ones are made when the first is asked for
	shards     [][]byte
	err        error
}

// Split cuts a bundle in its wire spelling into frames that each fit into a code
// of the version, level L. K is the fewest frames that hold it, N is 4K+4 and at
// most 255. A version that is too small for N to be at least 2K is a
// [fault.Usage] that names the smallest one that is not. The bytes are not
// copied and must not change.
func Split(wire []byte, version int) (*Set, error) {
	fits := SmallestVersion(len(wire))
	switch payload := Capacity(version) - header; {
	case len(wire) == 0:
		return nil, fault.New(fault.Usage, "a bundle of no bytes has no frames")
	case fits == 0:
		return nil, fault.New(fault.Usage, "the bundle has %d bytes in wire form and the largest codes carry %d: it crosses as a file only", len(wire), maxK*(Capacity(40)-header))
	case Capacity(version) == 0:
		return nil, fault.New(fault.Usage, "there is no QR version %d; 1 to 40 are, and this bundle needs at least %d", version, fits)
	case version < fits:
		return nil, fault.New(fault.Usage, "the bundle has %d bytes in wire form and codes of version %d carry %d; version %d is the smallest that works", len(wire), version, maxK*max(0, payload), fits)
	default:
		k := (len(wire) + payload - 1) / payload
		return &Set{id: IDOf(wire), shape: shape{k, frames(k), len(wire)}, version: version, wire: wire}, nil
	}
}

// K returns how many frames are needed to join the bundle, 1 to 127.
func (s *Set) K() int { return s.shape.k }

// N returns how many frames there are, 2K to 4K+4.
func (s *Set) N() int { return s.shape.n }

// ID returns the id that every frame carries.
func (s *Set) ID() ID { return s.id }

// Version returns the QR version that every frame fits into.
func (s *Set) Version() int { return s.version }

// Length returns the bytes of the bundle.
func (s *Set) Length() int { return s.shape.length }

// Text returns the text of a frame, 0 to N-1, for a QR code at level L. The first
// K carry the bundle itself.
func (s *Set) Text(index int) (string, error) {
	f, err := s.Frame(index)
	if err != nil {
		return "", err
	}
	return f.Text(), nil
}

// Frame returns a frame, 0 to N-1.
func (s *Set) Frame(index int) (Frame, error) {
	f := Frame{ID: s.id, K: s.shape.k, N: s.shape.n, Index: index, Length: s.shape.length}
	size := s.shape.shard()
	switch {
	case index < 0 || index >= f.N:
		return Frame{}, fault.New(fault.Usage, "bundle %s has no frame %d, they are 0 to %d", s.id, index, f.N-1)
	case index < f.K:
		f.shard = piece(s.wire, index, size)
	default:
		s.redundancy.Do(s.encode)
		if s.err != nil {
			return Frame{}, s.err
		}
		f.shard = s.shards[index]
	}
	return f, nil
}

// piece returns one of the systematic shards; the last is filled up with zeros.
func piece(wire []byte, index, size int) []byte {
	p := wire[index*size : min(len(wire), (index+1)*size)]
	if len(p) == size {
		return p
	}
	return append(make([]byte, 0, size), p...)[:size]
}

func (s *Set) encode() {
	code, err := coder(s.shape)
	if err != nil {
		s.err = err
		return
	}
	size := s.shape.shard()
	s.shards = make([][]byte, s.shape.n)
	room := make([]byte, (s.shape.n-s.shape.k)*size)
	for i := range s.shards {
		if i < s.shape.k {
			s.shards[i] = piece(s.wire, i, size)
		} else {
			s.shards[i], room = room[:size:size], room[size:]
		}
	}
	if err := code.Encode(s.shards); err != nil {
		s.err = fault.New(fault.Unexpected, "bundle %s: %w", s.id, err)
	}
}

// coder is the erasure code of a shape. It runs on one core: a bundle is small,
// and what is saved by more is lost to starting them.
func coder(s shape) (reedsolomon.Encoder, error) {
	code, err := reedsolomon.New(s.k, s.n-s.k, reedsolomon.WithMaxGoroutines(1), reedsolomon.WithInversionCache(false))
	if err != nil {
		return nil, fault.New(fault.Unexpected, "the erasure code for k=%d n=%d: %w", s.k, s.n, err)
	}
	return code, nil
}
