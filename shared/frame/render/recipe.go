package render

import (
	_ "embed"
	"fmt"
	"strings"
	"time"
)

// Cover is what stands around the codes on a page or a sheet: what the outside of
// the bundle says.
type Cover struct {
	Title string    // kind and number: "request 7Q2MKX4R9D3T0V6PB8W5YHNC1G"
	Rows  []Row     // the fields of the manifest, in its order
	Made  time.Time // date of the document; the bundle's own, so that one bundle gives one document
}

// Row is a named value of a cover.
type Row struct{ Name, Value string }

//go:embed static/restore.py
var restore string

// step is a step of the recipe: a sentence, and what to type.
type step struct{ Text, Type string }

// recipe is how a bundle is restored and checked without this program: by zbar,
// Python 3, OpenSSH and the tools of any Linux. Its commands are run by a test.
func recipe(k, n int) []step {
	return []step{
		{fmt.Sprintf("Scan the sheets at 300 dpi or more, or take the pictures, and read their codes with zbar (where it misses one on a full page, add a scan at another resolution). This recipe needs those with the indexes 0 to %d, in any order; azs-agent and azs-relay (scan) need any %d of the %d.", k-1, k, n),
			"zbarimg -q --raw -Sdisable -Sqrcode.enable *.png >frames.txt"},
		{"Put them together. Each line is base45 (RFC 9285) of: the bytes 0E 1A, an id of 4 bytes, K, N, the index, 3 bytes of length, 4 of CRC-32 over all others, then a piece of the bundle and perhaps a zero byte. Save the script below as restore.py; it writes bundle.azc.",
			"python3 restore.py <frames.txt"},
		{"See who signed it. The file allowed_signers comes from somebody whom you believe (pair export-signers), never with the bundle. NAME is what the first line prints.",
			"sed '/^$/,$d' bundle.azc >manifest\n" +
				"sed -n '/BEGIN SSH/,/END SSH/p;/END SSH/q' bundle.azc >sig\n" +
				"ssh-keygen -Y find-principals -s sig -f allowed_signers\n" +
				"ssh-keygen -Y verify -n azs-courier@v1 -I NAME -s sig -f allowed_signers <manifest"},
		{"See that the sealed part is the one that was signed: both lines print the same digest. docs/KIOSK.md has the whole check, with what it proves and what it does not.",
			"sed -n 's/^sha256: //p' manifest\n" +
				"sed -n '/BEGIN A/,/END A/p' bundle.azc | sed '1d;$d' | base64 -d | sha256sum"},
	}
}

// script is restore.py without its last newline.
func script() string { return strings.TrimSuffix(restore, "\n") }
