package bundle

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// seeds reads every golden file that ends so.
func seeds(f *testing.F, ext string) [][]byte {
	f.Helper()
	names, err := filepath.Glob(filepath.Join(goldenDir, "*"+ext))
	if err != nil {
		f.Fatal(err)
	}
	var out [][]byte
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

// bodies opens every golden bundle that one of the test identities can open.
func bodies(f *testing.F) []*Body {
	f.Helper()
	var out []*Body
	for _, raw := range seeds(f, ".azc") {
		b, err := Split(raw)
		if err != nil {
			continue
		}
		m, err := b.Peek()
		if err != nil {
			continue
		}
		v := &Verified{Manifest: m, bundle: b}
		if body, err := v.Decrypt(testIdentity(f, "relay"), testIdentity(f, "agent")); err == nil {
			out = append(out, body)
		}
	}
	if len(out) == 0 {
		f.Fatal("no golden bundle opens")
	}
	return out
}

// FuzzManifest: what is accepted, marshals to the same bytes, is small, and
// stays what it is when only the sealed part changes.
func FuzzManifest(f *testing.F) {
	for _, raw := range seeds(f, ".azc") {
		if b, err := Split(raw); err == nil {
			f.Add(b.manifest)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseManifest(raw)
		if err != nil {
			return
		}
		if again := m.Marshal(); !bytes.Equal(again, raw) {
			t.Fatalf("accepted %q, marshals to %q", raw, again)
		}
		context := m.Context()
		m.Size++
		m.SHA256[0]++
		if m.Context() != context {
			t.Fatal("the context depends on the sealed part")
		}
	})
}

// FuzzBody: what is accepted, marshals to the same bytes.
func FuzzBody(f *testing.F) {
	for _, b := range bodies(f) {
		f.Add(b.Marshal())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBody(raw)
		if err != nil {
			return
		}
		if again := b.Marshal(); !bytes.Equal(again, raw) {
			t.Fatalf("accepted %q, marshals to %q", raw, again)
		}
		if payload, err := b.Payload(); err == nil && len(payload) != b.Length {
			t.Fatalf("payload has %d bytes, the body states %d", len(payload), b.Length)
		}
	})
}

// FuzzText: what is accepted as text, is spelt so again, also by way of the wire.
func FuzzText(f *testing.F) {
	for _, raw := range seeds(f, ".azc") {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !bytes.HasPrefix(raw, []byte(manifestMagic)) {
			return
		}
		b, err := Split(raw)
		if err != nil {
			return
		}
		if again := b.Text(); !bytes.Equal(again, raw) {
			t.Fatalf("accepted %q, spelt again %q", raw, again)
		}
		twin, err := Split(b.Wire())
		if err != nil {
			t.Fatalf("text is accepted, its wire spelling is refused: %v", err)
		}
		if !bytes.Equal(twin.Text(), raw) {
			t.Fatalf("by way of the wire %q becomes %q", raw, twin.Text())
		}
	})
}

// FuzzWire: what is accepted as wire, is spelt so again, also by way of the text.
func FuzzWire(f *testing.F) {
	for _, raw := range seeds(f, ".azcw") {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !bytes.HasPrefix(raw, []byte(wireMagic)) {
			return
		}
		b, err := Split(raw)
		if err != nil {
			return
		}
		if again := b.Wire(); !bytes.Equal(again, raw) {
			t.Fatalf("accepted %q, spelt again %q", raw, again)
		}
		twin, err := Split(b.Text())
		if err != nil {
			t.Fatalf("wire is accepted, its text spelling is refused: %v", err)
		}
		if !bytes.Equal(twin.Wire(), raw) {
			t.Fatalf("by way of the text %q becomes %q", raw, twin.Wire())
		}
	})
}

// FuzzPayload: any text comes back; any accepted table is the one of its text.
func FuzzPayload(f *testing.F) {
	for _, b := range bodies(f) {
		payload, err := b.Payload()
		if err != nil {
			continue
		}
		f.Add(payload, len(payload))
		f.Add(b.Encoded, b.Length)
		f.Add(table(segments(payload)), len(payload))
	}
	for _, text := range segmentTexts {
		f.Add([]byte(text), len(text))
		f.Add(table(segments([]byte(text))), len(text))
	}
	f.Fuzz(func(t *testing.T, data []byte, length int) {
		if len(data) <= MaxPayload {
			tab := table(segments(data))
			if len(tab) > maxTable(len(data)) {
				t.Fatalf("table of %q has %d bytes, more than %d", data, len(tab), maxTable(len(data)))
			}
			if got, err := rebuild(tab, len(data)); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%q is rebuilt as %q, %v", data, got, err)
			}
			enc, packed := encodePayload(data)
			if got, err := decodePayload(enc, packed, len(data)); err != nil || !bytes.Equal(got, data) || len(packed) > len(data) {
				t.Fatalf("%q comes back as %q, %v from %d bytes", data, got, err, len(packed))
			}
		}
		for _, packed := range [][]byte{data, deflate(data)} {
			text, err := decodePayload(B64Deflate, packed, length)
			if err != nil {
				continue
			}
			inflated, err := inflate(packed, maxTable(length))
			if err != nil || !bytes.Equal(inflated, table(segments(text))) || len(text) != length {
				t.Fatalf("accepted %x for %d bytes, its text %q has another table", inflated, length, text)
			}
		}
	})
}

// allocated returns the bytes that f allocates, all told.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBombs holds a ceiling over what hostile input can make the reader allocate
// in all, garbage included.
func TestBombs(t *testing.T) {
	// segments of no bytes, as many as a table can name
	empty := append([]byte{0x80, 0x80, 0x20}, make([]byte, MaxPayload)...) // 524,288 segments
	runs := bytes.Repeat([]byte("AAAAAAAAAAAAAAAA."), MaxPayload/17)
	damaged := bytes.Repeat([]byte("AAAAAAAAAAAAAAAAA."), MaxPayload/18) // rows that are no base64
	tests := []struct {
		name    string
		data    []byte
		length  int
		ceiling uint64
	}{
		{"64 MiB of zeros for 100 bytes", deflate(make([]byte, 64<<20)), 100, 256 << 10},
		{"64 MiB of zeros for 1 MiB", deflate(make([]byte, 64<<20)), MaxPayload, 16 << 20},
		{"empty segments", deflate(empty), MaxPayload, 48 << 20},
		{"segments that are not there", deflate(binary.AppendUvarint(nil, MaxPayload)), MaxPayload, 16 << 20},
		{"61,680 runs", deflate(table(segments(runs))), len(runs), 48 << 20},
		{"58,254 damaged runs", deflate(table(segments(damaged))), len(damaged), 48 << 20},
		{"length is negative", nil, -1, 64 << 10},
		{"length is huge", nil, 1 << 40, 64 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := allocated(func() { _, _ = decodePayload(B64Deflate, tt.data, tt.length) })
			t.Logf("%d KiB", got>>10)
			if got > tt.ceiling {
				t.Errorf("decoding allocates %d bytes, want at most %d", got, tt.ceiling)
			}
		})
	}
	request := officialtest.Token(officialtest.Spec{Seed: 7})
	whole := map[string][]byte{
		"longer than a bundle": make([]byte, MaxFile+1),
		"manifest without end": append([]byte(manifestMagic), bytes.Repeat([]byte("x"), MaxFile-100)...),
		"signature without end": append([]byte(manifestMagic+"request\n\n-----BEGIN SSH SIGNATURE-----\n"),
			bytes.Repeat([]byte("A"), MaxFile-100)...),
		"one long signature": append(append([]byte(manifestMagic+"request\n\n"), armorSignature.encode(make([]byte, 1<<20))...), request...),
		"many signatures":    append([]byte(manifestMagic+"request\n\n"), bytes.Repeat(armorSignature.encode(make([]byte, 300)), 4000)...),
	}
	for name, raw := range whole {
		t.Run(name, func(t *testing.T) {
			got := allocated(func() { _, _ = Split(raw) })
			t.Logf("%d KiB", got>>10)
			if got > 12<<20 {
				t.Errorf("splitting allocates %d bytes, want at most 12 MiB", got)
			}
		})
	}
}
