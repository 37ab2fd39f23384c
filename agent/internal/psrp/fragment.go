package psrp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The bounds of fragments and of what is put together from them.
const (
	HeaderLen   = 21       // bytes before a fragment's blob
	MaxFragment = 32 << 10 // bytes of a fragment that is sent, header included, as Windows does
	MaxObject   = 10 << 20 // bytes of one message
	MaxStream   = 50 << 20 // bytes received for one pipeline, or for the pool
)

// Errors of the fragment layer. Each is wrapped with the ids in question.
var (
	ErrTruncated = errors.New("fragment cut short")
	ErrOrder     = errors.New("fragment out of order")
	ErrDuplicate = errors.New("fragment received twice")
	ErrTooLarge  = errors.New("over the size limit")
	ErrMalformed = errors.New("malformed")
)

// Fragment is a piece of one message ([MS-PSRP] 2.2.4): 8 bytes ObjectID and
// 8 bytes ID, big-endian, one byte of flags (1 start, 2 end), 4 bytes length,
// and the blob.
type Fragment struct {
	ObjectID   uint64 // from 1, one more for each message in a direction
	ID         uint64 // from 0 within the message
	Start, End bool
	Blob       []byte
}

// Append writes the fragment behind dst.
func (f Fragment) Append(dst []byte) []byte {
	var flags byte
	if f.Start {
		flags |= 1
	}
	if f.End {
		flags |= 2
	}
	dst = binary.BigEndian.AppendUint64(dst, f.ObjectID)
	dst = binary.BigEndian.AppendUint64(dst, f.ID)
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Blob)))
	return append(dst, f.Blob...)
}

// DecodeFragment reads the fragment at the start of data and returns what
// follows. The blob is a part of data. A fragment that is not all there yields
// [ErrTruncated]; one that no peer may send, [ErrMalformed] or [ErrTooLarge].
func DecodeFragment(data []byte) (f Fragment, rest []byte, err error) {
	f, rest, err = decodeFragment(data)
	if err == ErrTruncated {
		err = fmt.Errorf("%w: there are %d bytes", err, len(data))
	}
	return f, rest, err
}

// decodeFragment returns [ErrTruncated] bare, because a fragment that comes in
// small parts meets it at each.
func decodeFragment(data []byte) (f Fragment, rest []byte, err error) {
	if len(data) < HeaderLen {
		return Fragment{}, data, ErrTruncated
	}
	f.ObjectID = binary.BigEndian.Uint64(data)
	f.ID = binary.BigEndian.Uint64(data[8:])
	flags := data[16]
	f.Start, f.End = flags&1 != 0, flags&2 != 0
	length := binary.BigEndian.Uint32(data[17:])
	switch {
	case flags > 3:
		return Fragment{}, data, fmt.Errorf("fragment %d of object %d: %w: flags %#02x", f.ID, f.ObjectID, ErrMalformed, flags)
	case f.ObjectID == 0:
		return Fragment{}, data, fmt.Errorf("fragment %d: %w: it belongs to object 0", f.ID, ErrMalformed)
	case f.Start != (f.ID == 0):
		return Fragment{}, data, fmt.Errorf("fragment %d of object %d: %w: start flag %t", f.ID, f.ObjectID, ErrMalformed, f.Start)
	case length > MaxObject:
		return Fragment{}, data, fmt.Errorf("fragment %d of object %d: %w: its length is %d bytes, at most %d are taken", f.ID, f.ObjectID, ErrTooLarge, length, MaxObject)
	case length == 0:
		return Fragment{}, data, fmt.Errorf("fragment %d of object %d: %w: it is empty", f.ID, f.ObjectID, ErrMalformed)
	case uint64(len(data)-HeaderLen) < uint64(length):
		return Fragment{}, data, ErrTruncated
	}
	end := HeaderLen + int(length)
	f.Blob = data[HeaderLen:end]
	return f, data[end:], nil
}

// Fragmenter splits messages and numbers them for one direction of one pool.
// The zero value is ready and starts with object 1.
type Fragmenter struct {
	Size int    // of a fragment, header included; 0 means MaxFragment
	Last uint64 // the object id given last
}

// Split returns message as encoded fragments.
func (f *Fragmenter) Split(message []byte) [][]byte {
	size := f.Size
	if size <= HeaderLen {
		size = MaxFragment
	}
	size -= HeaderLen
	f.Last++
	var out [][]byte
	for id := uint64(0); id == 0 || len(message) > 0; id++ {
		n := min(size, len(message))
		out = append(out, Fragment{
			ObjectID: f.Last, ID: id, Start: id == 0, End: n == len(message), Blob: message[:n],
		}.Append(make([]byte, 0, HeaderLen+n)))
		message = message[n:]
	}
	return out
}

// Defragmenter puts the messages of one stream together: those of one
// pipeline, or those of the pool. The zero value is ready. After an error it
// is of no further use and returns the same error again.
//
// Object ids must rise, but may leave gaps, because the numbers are given
// pool-wide and other streams take some. Within an object the fragments must
// come in order and without another object's between them.
type Defragmenter struct {
	tail    []byte // the start of a fragment whose rest has not come
	object  []byte // the message so far
	current uint64 // its object id, 0 between messages
	next    uint64 // the fragment id that must come next
	last    uint64 // the object id of the last complete message
	total   int    // bytes taken so far
	err     error
}

// Write takes the decoded content of one WSMan Stream element and returns the
// messages that it completes. A Stream may hold several fragments, and a
// fragment may go on in the next one.
func (d *Defragmenter) Write(stream []byte) (messages [][]byte, err error) {
	if d.err != nil {
		return nil, d.err
	}
	if messages, d.err = d.write(stream); d.err != nil {
		d.tail, d.object = nil, nil
	}
	return messages, d.err
}

func (d *Defragmenter) write(stream []byte) (messages [][]byte, err error) {
	if d.total += len(stream); d.total > MaxStream {
		return nil, fmt.Errorf("the stream is %w of %d bytes", ErrTooLarge, MaxStream)
	}
	data := stream
	if len(d.tail) > 0 {
		// Appended in place: a fragment that comes in many small parts is copied once.
		d.tail = append(d.tail, stream...)
		data = d.tail
	}
	whole := len(data)
	for len(data) > 0 {
		f, rest, err := decodeFragment(data)
		if err == ErrTruncated {
			break
		}
		if err != nil {
			return messages, err
		}
		data = rest
		message, err := d.add(f)
		if err != nil {
			return messages, err
		}
		if message != nil {
			messages = append(messages, message)
		}
	}
	if len(data) < whole || d.tail == nil {
		d.tail = append([]byte(nil), data...)
	}
	return messages, nil
}

// add takes one fragment and returns the message that it completes, or nil.
func (d *Defragmenter) add(f Fragment) ([]byte, error) {
	wrong := func(err error, format string, args ...any) error {
		return fmt.Errorf("fragment %d of object %d: %w: %s", f.ID, f.ObjectID, err, fmt.Sprintf(format, args...))
	}
	switch {
	case f.ObjectID <= d.last:
		return nil, wrong(ErrDuplicate, "object %d is complete", d.last)
	case d.current == 0 && !f.Start:
		return nil, wrong(ErrOrder, "the object has not started")
	case d.current != 0 && f.ObjectID != d.current:
		return nil, wrong(ErrOrder, "object %d waits for its fragment %d", d.current, d.next)
	case d.current != 0 && f.ID < d.next:
		return nil, wrong(ErrDuplicate, "fragment %d comes next", d.next)
	case d.current != 0 && f.ID > d.next:
		return nil, wrong(ErrOrder, "fragment %d comes next", d.next)
	case len(d.object)+len(f.Blob) > MaxObject:
		return nil, wrong(ErrTooLarge, "an object has at most %d bytes", MaxObject)
	}
	d.current, d.next = f.ObjectID, f.ID+1
	d.object = append(d.object, f.Blob...)
	if !f.End {
		return nil, nil
	}
	message := d.object
	d.object, d.current, d.next, d.last = nil, 0, 0, f.ObjectID
	return message, nil
}

// Close returns [ErrTruncated] if the stream ended within a message.
func (d *Defragmenter) Close() error {
	switch {
	case d.err != nil:
		return d.err
	case len(d.tail) > 0:
		return fmt.Errorf("%w: the stream ends after %d bytes of it", ErrTruncated, len(d.tail))
	case d.current != 0:
		return fmt.Errorf("object %d: %w: the stream ends before its fragment %d", d.current, ErrTruncated, d.next)
	}
	return nil
}
