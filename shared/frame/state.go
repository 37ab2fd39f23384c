package frame

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// A saved joiner is text, one frame a line, so that it can be read, and even
// typed into another machine's scan:
//
//	azs-courier-scan/v1
//	AZ1…
//	sha256: <of all lines above, LF included>

const (
	stateMagic  = "azs-courier-scan/v1\n"
	stateDigest = "sha256: "
)

// MaxState is the most bytes of a saved [Joiner].
const MaxState = 10 << 20

// Save spells what arrived: the bundles in the order in which they came into
// view, of each its frames by index.
func (j *Joiner) Save() []byte {
	var b bytes.Buffer
	b.WriteString(stateMagic)
	for _, c := range j.bundles {
		for i, shard := range c.shards {
			if shard != nil {
				f := Frame{ID: c.id, K: c.shape.k, N: c.shape.n, Index: i, Length: c.shape.length, shard: shard}
				b.WriteString(f.Text())
				b.WriteByte('\n')
			}
		}
	}
	return seal(b.Bytes())
}

// seal adds the line with the digest of what stands above it.
func seal(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(body, stateDigest+hex.EncodeToString(sum[:])+"\n"...)
}

// Load reads what [Joiner.Save] wrote and nothing else: it would save the same
// bytes. A file that was cut or changed is a [fault.Refused].
func Load(saved []byte) (*Joiner, error) {
	bad := func(format string, args ...any) (*Joiner, error) {
		return nil, fault.New(fault.Refused, "the saved scan "+format, args...)
	}
	if len(saved) > MaxState {
		return bad("has %d bytes, at most %d are allowed", len(saved), MaxState)
	}
	text := string(saved)
	if !strings.HasPrefix(text, stateMagic) {
		return bad("does not begin with the line %q", strings.TrimSpace(stateMagic))
	}
	at := strings.LastIndex(text, "\n"+stateDigest) + 1
	if at == 0 {
		return bad("does not end with its digest: it was cut")
	}
	if !bytes.Equal(seal(saved[:at:at]), saved) {
		return bad("does not have the digest that stands at its end: it was cut or changed")
	}
	j := NewJoiner()
	for n, rest := 2, text[len(stateMagic):at]; rest != ""; n++ {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		f, err := Parse(line)
		if err != nil {
			return bad("has line %d: %w", n, err)
		}
		s, err := j.Add(f)
		if err != nil {
			return bad("has line %d: %w", n, err)
		}
		if !s.New {
			return bad("has a frame too many in line %d", n)
		}
	}
	if !bytes.Equal(j.Save(), saved) {
		return bad("has its frames in another order than it was written in")
	}
	return j, nil
}
