package frame

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// seeds are frames of several shapes.
func seeds(f *testing.F) []string {
	var out []string
	for _, c := range []struct{ length, version int }{{1, 5}, {77, 5}, {300, 5}, {2000, 10}, {86 * 127, 5}} {
		s := split(f, sample(c.length, 1), c.version)
		for _, i := range []int{0, s.K() - 1, s.N() - 1} {
			out = append(out, frameAt(f, s, i).Text())
		}
	}
	return out
}

// What parses is spelt again as the same text.
func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fr, err := Parse(text)
		if err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Fatal(err)
			}
			return
		}
		if fr.Text() != text {
			t.Fatalf("%q is spelt again as %q", text, fr.Text())
		}
	})
}

// The same behind the checksum, which a fuzzer does not find.
func FuzzFrameBytes(f *testing.F) {
	for _, s := range seeds(f) {
		b, err := decode45(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) <= header || len(b)%2 != 0 {
			return
		}
		copy(b, mark[:])
		sum := checksum(b)
		b[12], b[13], b[14], b[15] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
		fr, err := parse(b)
		if err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(fr.bytes(), b) {
			t.Fatalf("%x is spelt again as %x", b, fr.bytes())
		}
		j := NewJoiner()
		st, err := j.Add(fr)
		if err != nil || st.Have != 1 || st.Done != (fr.K == 1) {
			t.Fatalf("%+v, %v", st, err)
		}
	})
}

// A typed line either is refused or is a frame that the exact spelling gives too.
func FuzzParseTyped(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
		f.Add(strings.ToLower(s) + "\r\n")
	}
	f.Add("ay1`à´")
	f.Fuzz(func(t *testing.T, line string) {
		fr, err := ParseTyped(line)
		if err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Fatal(err)
			}
			return
		}
		if _, err := Parse(fr.Text()); err != nil {
			t.Fatalf("%q gives a frame that is none: %v", line, err)
		}
	})
}

// The joiner meets frames of three bundles of one id each, mixed, repeated and
// forged, in an order that the input chooses: it never joins to anything but a
// bundle of that id, and saves and loads at any moment.
func FuzzJoiner(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8}, uint64(1))
	f.Add([]byte{0, 64, 128, 192, 1, 65, 129, 193, 255}, uint64(2))
	f.Add(bytes.Repeat([]byte{200, 3, 77}, 40), uint64(3))
	wires := [][]byte{sample(300, 1), sample(900, 2), sample(301, 3)}
	var sets []*Set
	for _, w := range wires {
		sets = append(sets, split(f, w, 5))
	}
	forger := split(f, sample(300, 4), 5)
	f.Fuzz(func(t *testing.T, script []byte, seed uint64) {
		if len(script) > 400 {
			script = script[:400]
		}
		r := rand.New(rand.NewPCG(seed, 1))
		j := NewJoiner()
		for _, b := range script {
			s := sets[int(b)%3]
			fr := frameAt(t, s, r.IntN(s.N()))
			if b >= 250 { // a forged frame of the first bundle
				fr = frameAt(t, forger, r.IntN(forger.N()))
				fr.ID = sets[0].ID()
			}
			before, err := j.Add(fr)
			if err != nil && fault.KindOf(err) != fault.Refused {
				t.Fatal(err)
			}
			if before.Have > before.K || before.Done != (before.Have == before.K) {
				t.Fatalf("%+v", before)
			}
		}
		again, err := Load(j.Save())
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range again.Bundles() {
			got, err := again.Join(st.ID)
			switch {
			case err == nil && IDOf(got) != st.ID:
				t.Fatalf("bundle %s joined to %s", st.ID, IDOf(got))
			case err == nil && !st.Done:
				t.Fatalf("bundle %s joined of %d of %d", st.ID, st.Have, st.K)
			case st.Done && err != nil && (fault.KindOf(err) != fault.Refused || st.ID != sets[0].ID()):
				t.Fatalf("bundle %s: %v", st.ID, err)
			}
		}
	})
}

// A saved scan loads only as what it was.
func FuzzLoad(f *testing.F) {
	j := NewJoiner()
	f.Add(string(j.Save()), true)
	for _, s := range seeds(f) {
		fr, err := Parse(s)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := j.Add(fr); err != nil {
			f.Fatal(err)
		}
		f.Add(string(j.Save()), false)
		f.Add(string(j.Save()), true)
	}
	f.Fuzz(func(t *testing.T, saved string, resign bool) {
		if at := strings.LastIndex(saved, "\n"+stateDigest) + 1; resign && at > 0 {
			saved = string(seal([]byte(saved[:at])))
		}
		j, err := Load([]byte(saved))
		if err != nil {
			if fault.KindOf(err) != fault.Refused {
				t.Fatal(err)
			}
			return
		}
		if string(j.Save()) != saved {
			t.Fatal("a saved scan that loads is saved otherwise")
		}
	})
}
