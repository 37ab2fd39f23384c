package psrp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFragmentBytes(t *testing.T) {
	f := Fragment{ObjectID: 1<<56 + 2, ID: 0, Start: true, Blob: []byte("abc")}
	const want = "0100000000000002" + "0000000000000000" + "01" + "00000003" + "616263"
	got := f.Append(nil)
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
	back, rest, err := DecodeFragment(append(got, "rest"...))
	if err != nil || string(rest) != "rest" {
		t.Fatalf("rest %q, error %v", rest, err)
	}
	if diff := cmp.Diff(f, back); diff != "" {
		t.Error(diff)
	}
}

// TestSplit holds the sizes at which Windows splits: 32768 bytes of fragment,
// 32747 of them blob.
func TestSplit(t *testing.T) {
	var f Fragmenter
	for i, tt := range []struct {
		message int
		lengths []int
	}{
		{1, []int{22}},
		{32747, []int{32768}},
		{32748, []int{32768, 22}},
		{2*32747 + 5, []int{32768, 32768, 26}},
	} {
		message := bytes.Repeat([]byte{7}, tt.message)
		parts := f.Split(message)
		var lengths []int
		for _, p := range parts {
			lengths = append(lengths, len(p))
		}
		if diff := cmp.Diff(tt.lengths, lengths); diff != "" {
			t.Errorf("%d bytes: %s", tt.message, diff)
		}
		if f.Last != uint64(i+1) {
			t.Errorf("the object id is %d, want %d", f.Last, i+1)
		}
		var d Defragmenter
		var got []byte
		for _, p := range parts {
			messages, err := d.Write(p)
			if err != nil {
				t.Fatal(err)
			}
			got = bytes.Join(messages, nil)
		}
		if !bytes.Equal(got, message) || d.Close() != nil {
			t.Errorf("%d bytes came back as %d, %v", len(message), len(got), d.Close())
		}
	}
}

func frag(object, id uint64, flags string, blob string) []byte {
	return Fragment{object, id, strings.Contains(flags, "s"), strings.Contains(flags, "e"), []byte(blob)}.Append(nil)
}

func TestDefragmenter(t *testing.T) {
	raw := func(header string) []byte {
		b, err := hex.DecodeString(header)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	long := strings.Repeat("x", MaxObject-3)
	tests := []struct {
		name    string
		streams [][]byte
		want    []string
		err     error // of Write, or else of Close
	}{
		{"one", [][]byte{frag(1, 0, "se", "a")}, []string{"a"}, nil},
		{"several in a stream", [][]byte{append(frag(1, 0, "se", "a"), frag(2, 0, "se", "b")...)}, []string{"a", "b"}, nil},
		{"over streams", [][]byte{frag(1, 0, "s", "a"), frag(1, 1, "", "b"), frag(1, 2, "e", "c")}, []string{"abc"}, nil},
		{"gap between objects", [][]byte{frag(4, 0, "se", "a"), frag(9, 0, "se", "b")}, []string{"a", "b"}, nil},
		{"fragment in two streams", [][]byte{frag(1, 0, "se", "abc")[:7], frag(1, 0, "se", "abc")[7:]}, []string{"abc"}, nil},
		{"empty stream", [][]byte{nil, frag(1, 0, "se", "a"), {}}, []string{"a"}, nil},
		{"largest object", [][]byte{frag(1, 0, "s", long), frag(1, 1, "e", "abc")}, []string{long + "abc"}, nil},

		{"same fragment again", [][]byte{frag(1, 0, "s", "a"), frag(1, 0, "s", "a")}, nil, ErrDuplicate},
		{"earlier fragment again", [][]byte{frag(1, 0, "s", "a"), frag(1, 1, "", "b"), frag(1, 1, "", "b")}, nil, ErrDuplicate},
		{"same object again", [][]byte{frag(1, 0, "se", "a"), frag(1, 0, "se", "a")}, []string{"a"}, ErrDuplicate},
		{"earlier object", [][]byte{frag(2, 0, "se", "a"), frag(1, 0, "se", "b")}, []string{"a"}, ErrDuplicate},
		{"fragment left out", [][]byte{frag(1, 0, "s", "a"), frag(1, 2, "e", "c")}, nil, ErrOrder},
		{"start left out", [][]byte{frag(1, 1, "e", "c")}, nil, ErrOrder},
		{"interleaved", [][]byte{frag(1, 0, "s", "a"), frag(2, 0, "se", "b")}, nil, ErrOrder},
		{"ends in an object", [][]byte{frag(1, 0, "s", "a")}, nil, ErrTruncated},
		{"ends in a header", [][]byte{frag(1, 0, "se", "a")[:20]}, nil, ErrTruncated},
		{"ends in a blob", [][]byte{frag(1, 0, "se", "abc")[:23]}, nil, ErrTruncated},
		{"object 0", [][]byte{frag(0, 0, "se", "a")}, nil, ErrMalformed},
		{"no start flag", [][]byte{frag(1, 0, "e", "a")}, nil, ErrMalformed},
		{"start flag later", [][]byte{frag(1, 0, "s", "a"), frag(1, 1, "se", "b")}, nil, ErrMalformed},
		{"unknown flag", [][]byte{raw("0000000000000001" + "0000000000000000" + "07" + "00000001" + "61")}, nil, ErrMalformed},
		{"empty blob", [][]byte{frag(1, 0, "se", "")}, nil, ErrMalformed},
		{"4 GiB", [][]byte{raw("0000000000000001" + "0000000000000000" + "03" + "ffffffff" + "61")}, nil, ErrTooLarge},
		{"object too large", [][]byte{frag(1, 0, "s", long), frag(1, 1, "e", "abcd")}, nil, ErrTooLarge},
		{"no end", [][]byte{frag(1, 0, "s", "a"), frag(1, 1<<63, "e", "b")}, nil, ErrOrder},
	}
	for _, tt := range tests {
		var d Defragmenter
		var got []string
		var err error
		for _, s := range tt.streams {
			var messages [][]byte
			messages, err = d.Write(s)
			for _, m := range messages {
				got = append(got, string(m))
			}
			if err != nil {
				break
			}
		}
		if again := d.Close(); err == nil {
			err = again
		} else if _, later := d.Write(frag(100, 0, "se", "z")); later == nil || again == nil {
			t.Errorf("%s: the error is forgotten", tt.name)
		}
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %.300s", tt.name, diff)
		}
	}
}

// TestEndlessStream holds that a stream is cut off at its bound and that what
// was taken of it is not kept.
func TestEndlessStream(t *testing.T) {
	var d Defragmenter
	one := frag(1, 0, "se", strings.Repeat("x", 1<<20))
	for i := uint64(1); i < 60; i++ {
		copy(one, Fragment{ObjectID: i, Start: true, End: true, Blob: one[HeaderLen:]}.Append(nil)[:HeaderLen])
		if _, err := d.Write(one); err != nil {
			if !errors.Is(err, ErrTooLarge) || i != 50 {
				t.Errorf("after %d MiB: %v", i, err)
			}
			return
		}
	}
	t.Error("the stream has no end")
}

// TestSmallPieces holds that a fragment that comes byte by byte costs no more
// than a whole one, in order of size: the tail is not copied at each piece.
func TestSmallPieces(t *testing.T) {
	whole := frag(1, 0, "se", strings.Repeat("x", 1<<20))
	var d Defragmenter
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range whole {
		if _, err := d.Write(whole[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("a fragment of %d bytes took %d bytes of memory", len(whole), n)
	}
}

// FuzzFragments holds that nothing breaks the defragmenter, that it never holds
// more than it was given, that the way in which a stream is cut does not
// matter, and that fragments that it takes encode to the same bytes.
func FuzzFragments(f *testing.F) {
	f.Add(frag(1, 0, "se", "a"), 3)
	f.Add(append(frag(1, 0, "s", "a"), frag(1, 1, "e", "b")...), 22)
	f.Add(append(frag(3, 0, "se", "abc"), frag(4, 0, "se", "d")...), 10)
	f.Add(append(frag(3, 0, "se", "abc"), frag(3, 0, "se", "d")...), 40)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		var whole, parts Defragmenter
		want, wantErr := whole.Write(data)
		if cut < 0 || cut > len(data) {
			cut = len(data) / 2
		}
		got, gotErr := parts.Write(data[:cut])
		if gotErr == nil {
			var more [][]byte
			more, gotErr = parts.Write(data[cut:])
			got = append(got, more...)
		}
		if (wantErr == nil) != (gotErr == nil) {
			t.Fatalf("whole: %v, cut at %d: %v", wantErr, cut, gotErr)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("cut at %d (-whole +cut):\n%s", cut, diff)
		}
		if n := len(bytes.Join(got, nil)) + len(parts.tail) + len(parts.object); n > len(data) {
			t.Fatalf("%d bytes became %d", len(data), n)
		}
		for rest := data; ; {
			fragment, after, err := DecodeFragment(rest)
			if err != nil {
				break
			}
			if again := fragment.Append(nil); !bytes.Equal(again, rest[:len(rest)-len(after)]) {
				t.Fatalf("%x encodes to %x", rest[:len(rest)-len(after)], again)
			}
			rest = after
		}
	})
}
