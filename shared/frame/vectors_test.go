package frame

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/vectors/frames.json anew")

const vectorsFile = "../../testdata/vectors/frames.json"

// frameVectors is testdata/vectors/frames.json.
type frameVectors struct {
	Comment string
	Sets    []setVector
	Scan    string // a saved scan, of the first, the middle and the last frame of each set
}

type setVector struct {
	Name    string
	Wire    []byte // base64
	Version int
	ID      string
	K, N    int
	Shard   int      // bytes
	Frames  []string // every text, by index
}

func makeVectors(t *testing.T) frameVectors {
	t.Helper()
	v := frameVectors{Comment: "written by go test ./frame -run TestVectors -update; the wire forms are no bundles, frames carry any bytes"}
	j := NewJoiner()
	for _, c := range []struct {
		name            string
		length, version int
	}{{"one byte", 1, 5}, {"one frame, even", 86, 5}, {"one frame, odd", 85, 5}, {"shards of an odd length, the last filled up", 301, 6}, {"two thousand bytes", 2000, 10}} {
		wire := sample(c.length, 2026)
		s := split(t, wire, c.version)
		sv := setVector{Name: c.name, Wire: wire, Version: c.version, ID: s.ID().String(), K: s.K(), N: s.N(), Shard: s.shape.shard()}
		for i := range s.N() {
			f := frameAt(t, s, i)
			sv.Frames = append(sv.Frames, f.Text())
			if i == 0 || i == s.N()/2 || i == s.N()-1 {
				if _, err := j.Add(f); err != nil {
					t.Fatal(err)
				}
			}
		}
		v.Sets = append(v.Sets, sv)
	}
	v.Scan = string(j.Save())
	return v
}

func TestVectors(t *testing.T) {
	v := makeVectors(t)
	if *update {
		raw, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorsFile, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var stored frameVectors
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(stored, v); d != "" {
		t.Errorf("what is made differs from %s:\n%s", filepath.Base(vectorsFile), d)
	}
	if _, err := Load([]byte(stored.Scan)); err != nil {
		t.Error(err)
	}
}

// The words of docs/FORMAT.md, written down a second time: multiplication in
// GF(2⁸) by shifts, redundancy by Lagrange's formula, base45 by division.

func times(a, b int) int {
	p := 0
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		if a <<= 1; a > 0xff {
			a ^= 0x11d
		}
	}
	return p
}

func inverse(a int) int {
	for b := 1; b < 256; b++ {
		if times(a, b) == 1 {
			return b
		}
	}
	panic("0 has no inverse")
}

// at is the value at x of the polynomial that has values[i] at points[i].
func at(x int, points []int, values []byte) byte {
	sum := 0
	for i, p := range points {
		term := int(values[i])
		for _, q := range points {
			if q != p {
				term = times(term, times(x^q, inverse(p^q)))
			}
		}
		sum ^= term
	}
	return byte(sum)
}

func TestRedundancyIsThePolynomialOfTheDocument(t *testing.T) {
	v := makeVectors(t)
	for _, sv := range v.Sets {
		filled := append(bytes.Clone(sv.Wire), make([]byte, sv.K*sv.Shard-len(sv.Wire))...)
		points := make([]int, sv.K)
		for i := range points {
			points[i] = i
		}
		for i, text := range sv.Frames {
			var b []byte
			for at := 0; at < len(text); at += 3 {
				n := strings.IndexByte(alphabet, text[at]) + 45*strings.IndexByte(alphabet, text[at+1]) + 2025*strings.IndexByte(alphabet, text[at+2])
				b = append(b, byte(n/256), byte(n%256))
			}
			for col := range sv.Shard {
				values := make([]byte, sv.K)
				for j := range values {
					values[j] = filled[j*sv.Shard+col]
				}
				if want := at(i, points, values); b[16+col] != want {
					t.Fatalf("%s, frame %d, byte %d of its shard is %d, the polynomial says %d", sv.Name, i, col, b[16+col], want)
				}
			}
		}
	}
}

func TestFormatDocument(t *testing.T) {
	raw, err := os.ReadFile("../../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "Optical frames\n")
	if !ok {
		t.Fatal("docs/FORMAT.md has no section on optical frames")
	}
	s := split(t, []byte("AZC1 any bytes at all"), 2)
	text, err := s.Text(3)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"`" + alphabet + "`", "`" + Prefix + "`", strings.TrimSpace(stateMagic), fmt.Sprintf("%d", maxK), fmt.Sprintf("%d", maxK*(Capacity(40)-header)),
		text + "\n", fmt.Sprintf("%x", frameAt(t, s, 3).bytes()), fmt.Sprintf("id `%s`, k %d, n %d", s.ID(), s.K(), s.N()),
	} {
		if !strings.Contains(section, want) {
			t.Errorf("docs/FORMAT.md does not say %q in its section on optical frames", want)
		}
	}
}
