package bundle

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// sealedOf gives a bundle of so many sealed bytes, which nobody signed.
func sealedOf(n int) *Bundle {
	sealed := append([]byte(ageMagic), make([]byte, n)...)[:n]
	return &Bundle{manifest: []byte(manifestMagic + "request\n"), signatures: [][]byte{[]byte("SSHSIG")}, sealed: sealed}
}

// TestLimits tries both sides of each limit of a whole bundle.
func TestLimits(t *testing.T) {
	// the largest sealed section whose text spelling still has room
	largest := 0
	for low, high := 0, MaxFile; low <= high; {
		mid := (low + high) / 2
		if len(sealedOf(mid).Text()) <= MaxFile {
			largest, low = mid, mid+1
		} else {
			high = mid - 1
		}
	}
	within, beyond := sealedOf(largest), sealedOf(largest+3)
	longManifest := func(n int) []byte {
		return append([]byte(manifestMagic), append(bytes.Repeat([]byte("x"), n-len(manifestMagic)-1), '\n')...)
	}
	manifestOf := func(n int) *Bundle {
		b := sealedOf(100)
		b.manifest = longManifest(n)
		return b
	}
	signaturesOf := func(n int) *Bundle {
		b := sealedOf(100)
		b.signatures = [][]byte{make([]byte, n)}
		return b
	}
	tests := []struct {
		name string
		raw  []byte
		want string // part of the error; "" is split
	}{
		1:  {"largest text", within.Text(), ""},
		2:  {"largest wire", within.Wire(), ""},
		3:  {"text beyond", beyond.Text(), "it has more than 2097152 bytes"},
		4:  {"wire whose text is beyond", beyond.Wire(), "its text has more than 2097152 bytes"},
		5:  {"file beyond", append([]byte(wireMagic), make([]byte, MaxFile)...), "it has more than 2097152 bytes"},
		6:  {"manifest of 4096 bytes, text", manifestOf(4096).Text(), ""},
		7:  {"manifest of 4096 bytes, wire", manifestOf(4096).Wire(), ""},
		8:  {"manifest of 4097 bytes, text", manifestOf(4097).Text(), "does not end within 4096 bytes"},
		9:  {"manifest of 4097 bytes, wire", manifestOf(4097).Wire(), "at most 4096"},
		10: {"signature of 1024 bytes, text", signaturesOf(1024).Text(), ""},
		11: {"signature of 1024 bytes, wire", signaturesOf(1024).Wire(), ""},
		12: {"signature of 1025 bytes, text", signaturesOf(1025).Text(), "at most 1024"},
		13: {"signature of 1025 bytes, wire", signaturesOf(1025).Wire(), "at most 1024"},
	}
	for _, tt := range tests[1:] {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Split(tt.raw)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error is %v, want %q in it", err, tt.want)
			case tt.want != "" && fault.KindOf(err) != fault.Refused:
				t.Errorf("kind is %v, want %v", fault.KindOf(err), fault.Refused)
			}
		})
	}
	if _, err := ParseManifest(longManifest(4097)); err == nil || !strings.Contains(err.Error(), "at most 4096") {
		t.Errorf("manifest of 4097 bytes: %v", err)
	}
}

// TestPayloadLimit tries both sides of the limit of a payload, in the worst case
// for the table: short runs between long literals.
func TestPayloadLimit(t *testing.T) {
	unit := strings.Repeat("A", minRun) + strings.Repeat(".", 128)
	payload := []byte(strings.Repeat(unit, MaxPayload/len(unit)+1))[:MaxPayload]
	if n := len(table(segments(payload))); n <= MaxPayload || n > maxTable(MaxPayload) {
		t.Errorf("table has %d bytes, want more than the text's %d and at most %d", n, MaxPayload, maxTable(MaxPayload))
	}
	body, err := newBody(Digest{1}, &Request{Operation: Register}, payload)
	if err != nil {
		t.Fatal(err)
	}
	if body.Encoding != B64Deflate {
		t.Errorf("encoding is %s", body.Encoding)
	}
	if got, err := body.Payload(); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("payload of %d bytes comes back with %d, %v", len(payload), len(got), err)
	}
	if _, err := newBody(Digest{1}, &Request{Operation: Register}, append(payload, 'x')); err == nil {
		t.Error("a payload beyond 1 MiB is taken")
	}
}

// TestSplitKeepsItsOwn holds that bytes changed after the split change nothing.
func TestSplitKeepsItsOwn(t *testing.T) {
	w := newWorld(t)
	good := seal(t, w.request(), w.agent.signer)
	for _, raw := range [][]byte{good.Text(), good.Wire()} {
		b, err := Split(raw)
		if err != nil {
			t.Fatal(err)
		}
		clear(raw)
		if !bytes.Equal(b.Wire(), good.Wire()) {
			t.Error("the bundle changed with the bytes that it was read from")
		}
	}
}

// TestSealRefuses holds that a draft which nobody could open is not sealed.
func TestSealRefuses(t *testing.T) {
	w := newWorld(t)
	tests := map[string]struct {
		bend    func(*Draft)
		signers int
		want    string
	}{
		"no signer":            {func(*Draft) {}, 0, "signed by 1 keys, not 0"},
		"two signers":          {func(*Draft) {}, 2, "signed by 1 keys, not 2"},
		"rekey by one":         {func(d *Draft) { d.Content = &Rekey{Card: []byte("x")} }, 1, "signed by 2 keys, not 1"},
		"no recipient":         {func(d *Draft) { d.Recipients = nil }, 1, "there is no recipient"},
		"passphrase recipient": {func(d *Draft) { d.Recipients = []string{"scrypt"} }, 1, "is not an age recipient"},
		"plugin recipient": {func(d *Draft) {
			d.Recipients = []string{"age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"}
		}, 1, "malformed"},
		"hybrid with X25519": {func(d *Draft) { d.Recipients = append(d.Recipients[:1:1], w.agentNew.recipients[0]) }, 1, "encrypt"},
		"no pair":            {func(d *Draft) { d.Pair = ID{} }, 1, "pair and to must be named"},
		"no id":              {func(d *Draft) { d.Bundle = ID{} }, 1, `bundle: "-" is not an id`},
		"no seq":             {func(d *Draft) { d.Seq = 0 }, 1, "seq is 0"},
		"no operation":       {func(d *Draft) { d.Content = &Request{} }, 1, "is none of register, unregister, renew"},
		"minus one node":     {func(d *Draft) { d.Content = &Request{Operation: Register, Nodes: -1} }, 1, "is not a number"},
		"empty recipient": {func(d *Draft) {
			*d = Draft{Bundle: d.Bundle, Seq: 1, Content: &Card{Role: RoleAgent, Recipients: []string{"x", "", "y"}}}
		}, 1, "a word of the list is empty"},
		"year 10000":       {func(d *Draft) { d.Expires = agentTime.AddDate(9000, 0, 0) }, 1, "is not of the form"},
		"re in a request":  {func(d *Draft) { d.Re = Sum(nil) }, 1, `re must be "-"`},
		"expired at birth": {func(d *Draft) { d.Expires = d.Created.AddDate(0, 0, -1) }, 1, "expires lies before created"},
		"payload too long": {func(d *Draft) { d.Payload = make([]byte, MaxPayload+1) }, 1, "at most 1048576"},
		"card too long":    {func(d *Draft) { d.Content = &Request{Operation: Register, Card: make([]byte, MaxHeader)} }, 1, "header does not end"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := w.request()
			tt.bend(&d)
			signers := []ssh.Signer{w.agent.signer, w.agentNew.signer}[:tt.signers]
			b, err := d.Seal(nil, signers...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q in it", err, tt.want)
			}
			if b != nil {
				t.Error("there is a bundle all the same")
			}
		})
	}
}

// TestOddTexts holds that every text comes back, whatever stands in it.
func TestOddTexts(t *testing.T) {
	for i, s := range []string{"", "-", "--", " ", " a", "a ", "a b", "%", "%41", "100 %", "caf\u00e9", "\x00", "a\nb: c\n\nd", "\xff\xfe", "\x1b[2J", "%2D", "-\n"} {
		b := &Body{Context: Digest{1}, Content: &Request{Label: s, Operation: Register}, Encoding: Identity}
		got, err := parseBody(b.Marshal())
		if err != nil {
			t.Errorf("text %d, %q: %v", i, s, err)
			continue
		}
		if label := got.Content.(*Request).Label; label != s {
			t.Errorf("text %d, %q comes back as %q", i, s, label)
		}
	}
	words := []string{"a b", "-", "%", "x"}
	b := &Body{Context: Digest{1}, Content: &Card{Role: RoleAgent, Recipients: words}, Encoding: Identity}
	got, err := parseBody(b.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if list := got.Content.(*Card).Recipients; strings.Join(list, "|") != strings.Join(words, "|") {
		t.Errorf("list %q comes back as %q", words, list)
	}
}
