package psrp

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// GUID is a GUID in the order of its text, as RFC 9562 writes a UUID. PSRP
// carries it in .NET's order, where the first three groups are little-endian;
// see [Message].
type GUID [16]byte

// NewGUID draws a version 4 GUID from random, which is [crypto/rand.Reader]
// outside tests.
func NewGUID(random io.Reader) (GUID, error) {
	var g GUID
	if _, err := io.ReadFull(random, g[:]); err != nil {
		return GUID{}, fmt.Errorf("no random bytes for a GUID: %w", err)
	}
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g, nil
}

// ParseGUID reads the 36-character form in either case.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
		if n, err := hex.Decode(g[:], []byte(digits)); err == nil && n == len(g) {
			return g, nil
		}
	}
	return GUID{}, fmt.Errorf("%.40q is no GUID", s)
}

// String returns the 36-character form in upper case, as WSMan writes it.
func (g GUID) String() string {
	h := strings.ToUpper(hex.EncodeToString(g[:]))
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// IsZero says whether g is the empty GUID, which stands for "none".
func (g GUID) IsZero() bool { return g == GUID{} }

// MarshalText implements [encoding.TextMarshaler].
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (g *GUID) UnmarshalText(text []byte) (err error) {
	*g, err = ParseGUID(string(text))
	return err
}

// wire turns text order into .NET's order, and back.
func (g GUID) wire() GUID {
	g[0], g[1], g[2], g[3] = g[3], g[2], g[1], g[0]
	g[4], g[5] = g[5], g[4]
	g[6], g[7] = g[7], g[6]
	return g
}
