package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// sample is a bundle of n bytes that compress to nothing, the same at every run.
func sample(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func split(t testing.TB, wire []byte, version int) *Set {
	t.Helper()
	s, err := Split(wire, version)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func frameAt(t testing.TB, s *Set, index int) Frame {
	t.Helper()
	text, err := s.Text(index)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse(text)
	if err != nil {
		t.Fatalf("frame %d: %v", index, err)
	}
	return f
}

// Any K distinct frames join, and no fewer do.
func TestAnyKOfNJoin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ length, version, subsets int }{
		{1, 5, 8}, {2, 5, 8}, {85, 5, 8}, {86, 5, 8}, {87, 5, 20}, {999, 5, 40}, {2000, 10, 100}, {2001, 20, 100}, {6000, 17, 60},
		{12000, 20, 60}, {30000, 25, 40}, {30001, 10, 20}, {86 * 127, 5, 10}, {361696, 40, 3},
	} {
		wire := sample(c.length, 7)
		s := split(t, wire, c.version)
		if s.N() < 2*s.K() || s.K() > 127 || s.N() > 255 {
			t.Fatalf("%d bytes at version %d: k=%d n=%d", c.length, c.version, s.K(), s.N())
		}
		for range c.subsets {
			j := NewJoiner()
			order := r.Perm(s.N())
			for i, index := range order[:s.K()] {
				if _, err := j.Join(s.ID()); fault.KindOf(err) != fault.NothingYet {
					t.Fatalf("%d of %d frames: %v", i, s.K(), err)
				}
				st, err := j.Add(frameAt(t, s, index))
				if err != nil {
					t.Fatal(err)
				}
				if st.Have != i+1 || !st.New || st.Done != (i+1 == s.K()) {
					t.Fatalf("after frame %d of %d: %+v", i+1, s.K(), st)
				}
			}
			got, err := j.Join(s.ID())
			if err != nil {
				t.Fatalf("%d bytes at version %d, frames %v: %v", c.length, c.version, order[:s.K()], err)
			}
			if !bytes.Equal(got, wire) {
				t.Fatalf("%d bytes at version %d, frames %v join to something else", c.length, c.version, order[:s.K()])
			}
		}
	}
}

// Every text fits into its version, begins with the prefix, ends in a digit or
// letter, and reads back as itself.
func TestTextsAreWhatQRCodesAndScannersNeed(t *testing.T) {
	for version := 2; version <= 40; version++ {
		most := 127 * (Capacity(version) - header)
		for _, length := range []int{1, Capacity(version) - header, 500, most - 1, most} {
			if length < 1 || length > most {
				continue
			}
			s := split(t, sample(length, 3), version)
			for _, i := range []int{0, s.K() - 1, s.K(), s.N() - 1} {
				text, err := s.Text(i)
				if err != nil {
					t.Fatal(err)
				}
				if len(text) > alphanumeric[version] || len(text)%3 != 0 || !strings.HasPrefix(text, Prefix) || strings.Trim(text, " $%*+-./:") != text {
					t.Fatalf("version %d, %d bytes, frame %d is %q", version, length, i, text)
				}
				f, err := Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				if f.Text() != text {
					t.Fatalf("version %d, %d bytes, frame %d is spelt differently again", version, length, i)
				}
			}
		}
	}
}

// The capacities of the design, which the even length rounds down to even.
func TestCapacity(t *testing.T) {
	for version, want := range map[int]int{-1: 0, 0: 0, 41: 0, 1: 16, 5: 102, 10: 262, 13: 412, 15: 504, 17: 624, 20: 832, 23: 1058, 25: 1234, 30: 1680, 40: 2864} {
		if got := Capacity(version); got != want {
			t.Errorf("version %d carries %d bytes, want %d", version, got, want)
		}
	}
}

func TestSplitNamesTheVersionThatWorks(t *testing.T) {
	for _, c := range []struct {
		length, version int
		want            string
	}{
		{0, 20, "no bytes"},
		{86*127 + 1, 5, "version 6 is the smallest that works"},
		{30000, 5, "version 10 is the smallest that works"},
		{30000, 1, "version 10 is the smallest that works"},
		{30000, 41, "there is no QR version 41; 1 to 40 are, and this bundle needs at least 10"},
		{127*2848 + 1, 40, "it crosses as a file only"},
	} {
		_, err := Split(make([]byte, c.length), c.version)
		if fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d bytes at version %d: %v, want %q", c.length, c.version, err, c.want)
		}
	}
	for _, length := range []int{1, 1000, 30000, 127 * 2848} {
		v := SmallestVersion(length)
		split(t, make([]byte, length), v)
		if _, err := Split(make([]byte, length), v-1); err == nil {
			t.Errorf("%d bytes fit into version %d too, below the smallest, %d", length, v-1, v)
		}
	}
}

// Each of these is refused for its own reason.
func TestParseRefuses(t *testing.T) {
	s := split(t, sample(301, 1), 5) // k=4, shards of 76, the last padded by 3
	good := frameAt(t, s, 0).bytes()
	// change spells a frame with other bytes and a checksum that fits.
	change := func(f func(b []byte) []byte) string {
		b := f(bytes.Clone(good))
		if len(b) >= header {
			sum := checksum(b)
			b[12], b[13], b[14], b[15] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
		}
		return encode45(b)
	}
	set := func(at int, v byte) string {
		return change(func(b []byte) []byte { b[at] = v; return b })
	}
	odd := frameAt(t, split(t, sample(77, 1), 5), 0).bytes()
	odd[len(odd)-1] = 1
	sum := checksum(odd)
	odd[12], odd[13], odd[14], odd[15] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	flipped := bytes.Clone(good)
	flipped[40] ^= 4

	text := encode45(good)
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "does not begin with AZ1"},
		{"other code", "HTTPS://EXAMPLE.COM", "does not begin with AZ1"},
		{"next version", set(1, 0x1a+0x2d), "does not begin with AZ1"},
		{"small letters", strings.ToLower(text), "does not begin with AZ1"},
		{"blank before", " " + text, "does not begin with AZ1"},
		{"line end behind", text + "\n", "not a multiple of 3"},
		{"three blanks behind", text + "   ", "are no two bytes"},
		{"three too many", text + "000", "checksum"},
		{"foreign character", text[:30] + "_" + text[31:], "not of base45"},
		{"cut by one", text[:len(text)-1], "not a multiple of 3"},
		{"cut by three", text[:len(text)-3], "checksum"},
		{"header alone", text[:24], "has 16 bytes"},
		{"mark alone", text[:3], "has 2 bytes"},
		{"flipped bit", encode45(flipped), "its checksum is"},
		{"too long", text + strings.Repeat("0", 4300), "at most 4296 fit"},
		{"k=0", set(6, 0), "needs k=0"},
		{"k=128", set(6, 128), "needs k=128"},
		{"k=255", set(6, 255), "needs k=255"},
		{"n other", set(7, 21), "says n=21 for k=4, which has n=20"},
		{"index n", set(8, 20), "number 20 of 20"},
		{"length 0", change(func(b []byte) []byte { b[10], b[11] = 0, 0; return b }), "does not fit to a bundle of 0 bytes"},
		{"length 5 in 4 shards of 2", change(func(b []byte) []byte { b[10], b[11] = 0, 5; return b[:18] }), "does not fit"},
		{"length longer", set(9, 1), "there are"},
		{"shard longer", change(func(b []byte) []byte { return append(b, 0, 0) }), "there are 92"},
		{"padding", encode45(odd), "padding is not zero"},
	} {
		_, err := Parse(c.text)
		if fault.KindOf(err) != fault.Refused || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Parse(change(func(b []byte) []byte { return b })); err != nil {
		t.Errorf("the frame that the others are made of: %v", err)
	}
}

func TestJoinerKeepsBundlesApart(t *testing.T) {
	a, b := split(t, sample(500, 1), 5), split(t, sample(900, 2), 5)
	j := NewJoiner()
	for i := range max(a.K(), b.K()) {
		for _, s := range []*Set{b, a} {
			if _, err := j.Add(frameAt(t, s, s.N()-1-i)); err != nil {
				t.Fatal(err)
			}
			again, err := j.Add(frameAt(t, s, s.N()-1-i))
			if err != nil || again.New {
				t.Fatalf("again: %+v, %v", again, err)
			}
		}
	}
	want := []Status{
		{ID: b.ID(), Have: b.K(), K: b.K(), N: b.N(), Length: 900, Missing: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, Done: true},
		{ID: a.ID(), Have: a.K(), K: a.K(), N: a.N(), Length: 500, Missing: []int{0, 1, 2, 3, 4, 5}, Done: true},
	}
	if d := cmp.Diff(want, j.Bundles()); d != "" {
		t.Error(d)
	}
	for _, s := range []*Set{a, b} {
		if got, err := j.Join(s.ID()); err != nil || !bytes.Equal(got, s.wire) {
			t.Errorf("bundle %s: %v", s.ID(), err)
		}
	}
	j.Drop(b.ID())
	if d := cmp.Diff(want[1:], j.Bundles()); d != "" {
		t.Error(d)
	}
	if _, err := j.Join(b.ID()); fault.KindOf(err) != fault.NothingYet {
		t.Errorf("a bundle that was dropped: %v", err)
	}
}

func TestJoinerRefusesContradictions(t *testing.T) {
	s := split(t, sample(500, 1), 5)
	first := frameAt(t, s, 0)
	other := frameAt(t, split(t, sample(501, 1), 10), 1)
	other.ID = s.ID()
	forged := frameAt(t, split(t, sample(500, 2), 5), 0)
	forged.ID = s.ID()

	j := NewJoiner()
	if _, err := j.Add(Frame{}); fault.KindOf(err) != fault.Unexpected {
		t.Errorf("the zero frame: %v", err)
	}
	if _, err := j.Add(first); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    Frame
		want string
	}{{other, "its first frame said k=6"}, {forged, "two different contents"}} {
		st, err := j.Add(c.f)
		if fault.KindOf(err) != fault.Refused || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if st.Have != 1 || st.New {
			t.Errorf("after a refusal: %+v", st)
		}
	}
}

// A forged frame that arrives first makes the join fail, and that says so: by the
// filling behind the bundle's end, and by the digest where there is no filling.
func TestForgedFramesJoinToNothing(t *testing.T) {
	for length, want := range map[int]string{500: "have more than its 500 bytes", 516: "some were forged"} {
		s := split(t, sample(length, 1), 5)
		forged := frameAt(t, split(t, sample(length, 2), 5), 7)
		forged.ID = s.ID()
		j := NewJoiner()
		for _, f := range []Frame{forged, frameAt(t, s, 0), frameAt(t, s, 1), frameAt(t, s, 2), frameAt(t, s, 3), frameAt(t, s, 4)} {
			if _, err := j.Add(f); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := j.Join(s.ID()); fault.KindOf(err) != fault.Refused || !strings.Contains(err.Error(), want) {
			t.Errorf("a join of %d bytes with a forged frame: %v, want %q", length, err, want)
		}
	}
}

// A million frames, each of another bundle or of one, hold what 16 bundles need.
func TestEndlessFramesAreBounded(t *testing.T) {
	j := NewJoiner()
	refused := 0
	for i := range 40000 {
		s := split(t, sample(60+i%3, uint64(i)), 5)
		if _, err := j.Add(frameAt(t, s, i%s.N())); err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Fatal(err)
			}
			refused++
		}
	}
	if len(j.Bundles()) != MaxBundles || refused != 40000-MaxBundles {
		t.Errorf("%d bundles are held, %d frames were refused", len(j.Bundles()), refused)
	}
	// Of one bundle no more than K shards are held, whatever arrives.
	s := split(t, sample(86*127, 1), 5)
	j = NewJoiner()
	for range 20 {
		for i := range s.N() {
			if _, err := j.Add(frameAt(t, s, s.N()-1-i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	held := 0
	for _, shard := range j.bundles[0].shards {
		if shard != nil {
			held++
		}
	}
	if held != s.K() {
		t.Errorf("%d shards are held of a bundle of k=%d", held, s.K())
	}
}

// A scan that is half done is taken up later, by another medium.
func TestSaveAndLoad(t *testing.T) {
	a, b := split(t, sample(2000, 1), 10), split(t, sample(700, 2), 5)
	j := NewJoiner()
	for _, f := range []Frame{frameAt(t, a, 5), frameAt(t, b, 33), frameAt(t, a, 1), frameAt(t, a, 30)} {
		if _, err := j.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	saved := j.Save()
	again, err := Load(saved)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(j.Bundles(), again.Bundles()); d != "" {
		t.Error(d)
	}
	for i := range a.N() {
		if _, err := again.Add(frameAt(t, a, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := again.Join(a.ID()); err != nil || !bytes.Equal(got, a.wire) {
		t.Errorf("the bundle of two sittings: %v", err)
	}
	if _, err := Load(NewJoiner().Save()); err != nil {
		t.Errorf("a scan that has seen nothing: %v", err)
	}

	lines := strings.SplitAfter(string(saved), "\n")
	signed := func(body string) string { return string(seal([]byte(body))) }
	for _, c := range []struct{ name, saved, want string }{
		{"empty", "", "does not begin"},
		{"cut", string(saved[:len(saved)-2]), "digest"},
		{"cut before the digest", strings.Join(lines[:3], ""), "was cut"},
		{"bit", strings.Replace(string(saved), "AZ1", "AZ2", 1), "cut or changed"},
		{"behind", string(saved) + "\n", "cut or changed"},
		{"other order", signed(lines[0] + lines[2] + lines[1] + lines[3] + lines[4]), "another order"},
		{"frame twice", signed(lines[0] + lines[1] + lines[1]), "a frame too many in line 3"},
		{"no frame", signed(lines[0] + "HELLO\n"), "line 2"},
		{"no line end", signed(lines[0] + lines[1] + "\n"), "line 3"},
		{"too long", strings.Repeat("x", MaxState+1), "at most"},
	} {
		_, err := Load([]byte(c.saved))
		if fault.KindOf(err) != fault.Refused || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
