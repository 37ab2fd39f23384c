package pep

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is a stamp version of four parts, such as 1.2309.0.4. The gates of the
// official module compare it part by part as numbers.
type Version [4]int

// ParseVersion reads two to four numbers with dots, as System.Version does; parts
// that are missing count as 0.
func ParseVersion(s string) (Version, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) < 2 || len(parts) > 4 {
		return Version{}, fmt.Errorf("stamp version %q is not of the form 1.2309.0.4", s)
	}
	var v Version
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return Version{}, fmt.Errorf("stamp version %q is not of the form 1.2309.0.4", s)
		}
		v[i] = int(n)
	}
	return v, nil
}

// String spells the four parts.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d.%d", v[0], v[1], v[2], v[3]) }

// Newer reports whether v is newer than w; equal versions are not.
func (v Version) Newer(w Version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] > w[i]
		}
	}
	return false
}

// AtLeast reports whether v is w or newer.
func (v Version) AtLeast(w Version) bool { return !w.Newer(v) }

// The gates of RegisterWithAzure.psm1, branch az. "after" is strict: 1.2309.0.4
// itself still gets token version 4.0.
var (
	sinceMsAssetTag   = Version{1, 1912, 0, 19}
	sinceTokenVersion = Version{1, 2008, 0, 49}
	afterToken6       = Version{1, 2309, 0, 4}
	afterKeyPair      = Version{1, 2209, 0, 23} // and only with more than one node; the gate of Save-HCILicense too
)
