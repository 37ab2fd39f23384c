package trust

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// WordCount words of the BIP39 English list spell 132 bits.
const WordCount = 12

// asked is how many words an operator types.
const asked = 4

// Words spells 132 bits that two people can read to each other.
type Words [WordCount]string

// PairWords returns the words of a pair: the same on both sides when, and only
// when, both hold the same two cards.
func PairWords(a, b *Card) (Words, error) {
	sum, err := hashBoth("azs-courier-words/v1\n", a, b)
	return spell(sum), err
}

// CardWords returns the words of one card, by which it is checked before the
// other side has anything of ours.
func CardWords(c *Card) Words {
	d := c.Digest()
	return spell(sha256.Sum256(append([]byte("azs-courier-card-words/v1\n"), d[:]...)))
}

// spell takes the first 132 bits, 11 a word.
func spell(sum bundle.Digest) (w Words) {
	for i := range w {
		bit := i * 11
		chunk := binary.BigEndian.Uint32(sum[bit/8:])
		w[i] = wordlists.English[chunk>>(32-11-bit%8)&0x7ff]
	}
	return w
}

// String returns the words with blanks between.
func (w Words) String() string { return strings.Join(w[:], " ") }

// Expect compares with all twelve words as the other side printed them, in any
// case, with blanks, commas or hyphens between; the first four letters of a word
// are enough. A difference is [fault.NotForUs].
func (w Words) Expect(typed string) error {
	got := strings.FieldsFunc(strings.ToLower(typed), func(r rune) bool { return r == ' ' || r == ',' || r == '-' || r == '\t' || r == '\n' || r == '\r' })
	if len(got) != WordCount {
		return fault.New(fault.Usage, "%d words were given, want %d", len(got), WordCount)
	}
	for i := range w {
		if !fits(w[i], got[i]) {
			return fault.New(fault.NotForUs, "the words differ: this side has %q, the other side has %q; one of the cards is not the one that was sent", w, strings.Join(got, " "))
		}
	}
	return nil
}

// Check compares the word at a position, counted from 1.
func (w Words) Check(position int, typed string) error {
	if !fits(w[position-1], strings.ToLower(strings.TrimSpace(typed))) {
		return fault.New(fault.NotForUs, "word %d is not what the other side's card gives: the cards differ, or the word was misread", position)
	}
	return nil
}

// fits reports whether typed is the word or its first four letters or more,
// which are unique in the list.
func fits(word, typed string) bool {
	return strings.HasPrefix(word, typed) && len(typed) >= min(4, len(word))
}

// Positions draws the positions, counted from 1, whose words the operator of a
// side must type as the other side reads them out. An agent asks only at odd
// positions and a relay only at even ones, so that what one side hides, the other
// shows.
func Positions(rand io.Reader, role string) ([]int, error) {
	var all []int
	for p := 1; p <= WordCount; p++ {
		if (p%2 == 1) == (role == bundle.RoleAgent) {
			all = append(all, p)
		}
	}
	for i := len(all) - 1; i > 0; i-- {
		j, err := below(rand, i+1)
		if err != nil {
			return nil, err
		}
		all[i], all[j] = all[j], all[i]
	}
	return slices.Sorted(slices.Values(all[:asked])), nil
}

// below draws a number in [0, n) without bias, n ≤ 256.
func below(rand io.Reader, n int) (int, error) {
	var b [1]byte
	for {
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			return 0, fmt.Errorf("read randomness: %w", err)
		}
		if int(b[0]) < 256-256%n {
			return int(b[0]) % n, nil
		}
	}
}

// Hide returns the words as text for reading out, with the asked positions blank.
func (w Words) Hide(positions []int) string {
	var b strings.Builder
	for i, word := range w {
		if slices.Contains(positions, i+1) {
			word = "____"
		}
		fmt.Fprintf(&b, "%2d %-10s", i+1, word)
		if i%4 == 3 {
			b.WriteString("\n")
		} else {
			b.WriteString("  ")
		}
	}
	return b.String()
}
