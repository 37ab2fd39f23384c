package frame

import (
	"bytes"
	"slices"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// MaxBundles is how many bundles a [Joiner] keeps apart at a time. With the
// largest bundle that frames can carry (361,696 bytes) it holds less than 6 MiB.
const MaxBundles = 16

// Status is how far a bundle is.
type Status struct {
	ID      ID
	Have    int   // distinct frames that arrived, at most K
	K       int   // frames that are needed
	N       int   // frames that there are
	Length  int   // bytes of the bundle
	Missing []int // systematic frames that did not arrive; any others do as well
	New     bool  // the frame that was just added was not here before
	Done    bool  // Have is K: the bundle can be joined
}

// Joiner collects frames of any number of media, in any order, with repetitions,
// and keeps the bundles in view apart. Make it with [NewJoiner]; it is for one
// goroutine at a time.
type Joiner struct {
	bundles []*collected // in the order in which they came into view
}

type collected struct {
	id     ID
	shape  shape
	have   int
	shards [][]byte // by index, nil where nothing arrived
}

// NewJoiner returns a joiner that has seen nothing.
func NewJoiner() *Joiner { return &Joiner{} }

func (j *Joiner) find(id ID) *collected {
	for _, c := range j.bundles {
		if c.id == id {
			return c
		}
	}
	return nil
}

// Add takes a frame and says how far its bundle is. A frame that is there
// already changes nothing, as one more than K does. A frame that contradicts an
// earlier one of the same id, and one of a bundle too many, is a
// [fault.Refused] and changes nothing either.
func (j *Joiner) Add(f Frame) (Status, error) {
	if f.shard == nil {
		return Status{}, fault.New(fault.Unexpected, "a frame that nobody parsed was added")
	}
	c := j.find(f.ID)
	switch {
	case c == nil && len(j.bundles) == MaxBundles:
		return Status{}, fault.New(fault.Refused, "frames of %d bundles are in view, those of bundle %s are too many", MaxBundles, f.ID)
	case c == nil:
		c = &collected{id: f.ID, shape: f.shape(), shards: make([][]byte, f.N)}
		j.bundles = append(j.bundles, c)
	case c.shape != f.shape():
		return c.status(), fault.New(fault.Refused, "frame %d of bundle %s says k=%d n=%d length=%d, its first frame said k=%d n=%d length=%d",
			f.Index, f.ID, f.K, f.N, f.Length, c.shape.k, c.shape.n, c.shape.length)
	}
	if old := c.shards[f.Index]; old != nil {
		if !bytes.Equal(old, f.shard) {
			return c.status(), fault.New(fault.Refused, "frame %d of bundle %s arrived with two different contents", f.Index, f.ID)
		}
		return c.status(), nil
	}
	if c.have == c.shape.k {
		return c.status(), nil
	}
	c.shards[f.Index] = bytes.Clone(f.shard)
	c.have++
	s := c.status()
	s.New = true
	return s, nil
}

func (c *collected) status() Status {
	s := Status{ID: c.id, Have: c.have, K: c.shape.k, N: c.shape.n, Length: c.shape.length, Done: c.have == c.shape.k}
	for i := range c.shape.k {
		if c.shards[i] == nil {
			s.Missing = append(s.Missing, i)
		}
	}
	return s
}

// Bundles returns how far each bundle in view is, in the order in which they
// came into view.
func (j *Joiner) Bundles() []Status {
	var out []Status
	for _, c := range j.bundles {
		out = append(out, c.status())
	}
	return out
}

// Drop forgets a bundle, done or not.
func (j *Joiner) Drop(id ID) {
	j.bundles = slices.DeleteFunc(j.bundles, func(c *collected) bool { return c.id == id })
}

// Join returns the bytes of a bundle of which K frames are here. Too few frames
// are a [fault.NothingYet]. Bytes that do not have the id's digest are a
// [fault.Refused]: somebody's frames were not all of that bundle, and only
// [Joiner.Drop] and a new scan help.
func (j *Joiner) Join(id ID) ([]byte, error) {
	c := j.find(id)
	if c == nil {
		return nil, fault.New(fault.NothingYet, "no frame of bundle %s arrived yet", id)
	}
	if c.have < c.shape.k {
		return nil, fault.New(fault.NothingYet, "%d of %d frames of bundle %s arrived", c.have, c.shape.k, id)
	}
	shards := slices.Clone(c.shards)
	if slices.ContainsFunc(shards[:c.shape.k], func(s []byte) bool { return s == nil }) {
		code, err := coder(c.shape)
		if err != nil {
			return nil, err
		}
		if err := code.ReconstructData(shards); err != nil {
			return nil, fault.New(fault.Unexpected, "bundle %s: %w", id, err)
		}
	}
	wire := bytes.Join(shards[:c.shape.k], nil)
	for _, b := range wire[c.shape.length:] {
		if b != 0 {
			return nil, fault.New(fault.Refused, "the frames of bundle %s have more than its %d bytes", id, c.shape.length)
		}
	}
	wire = wire[:c.shape.length:c.shape.length]
	if got := IDOf(wire); got != id {
		return nil, fault.New(fault.Refused, "the frames of bundle %s join to another one, %s: some were forged", id, got)
	}
	return wire, nil
}
