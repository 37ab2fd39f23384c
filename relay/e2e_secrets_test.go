package main_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf16"
)

// piece is how many characters of a token or key are recognised in an output.
const piece = 40

// access is what the print must never hold, whatever its text: a bearer, and the
// private keys of a state folder.
var access = regexp.MustCompile(`(?i)bearer\s+[A-Za-z0-9_-]{20}|eyJ[A-Za-z0-9_-]{10,}\.|AGE-SECRET-KEY|PRIVATE KEY-----`)

// leaks is the canary of every script. It returns where a piece of 40 characters
// of anything in the folder secret (or the whole text, where that is shorter), or
// the hash of a hardware part out of a registration token, stands in what the
// programs printed or in a state folder; everywhere: in any file of the script,
// its sticks, outputs and temporary files, but for those of the simulated far ends.
// Each secret is looked for as it is and as base64, hex, UTF-16 and URL encoding
// would have it.
func leaks(work string, printed []byte, everywhere bool) (found []string, err error) {
	pieces := map[string]string{} // 40 bytes → the file that they are of
	whole := map[string]string{}  // shorter than that
	files, err := filepath.Glob(filepath.Join(work, "secret", "*"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, plain := range spellings(raw) {
			for _, text := range encodings(plain) {
				if len(text) < piece {
					whole[text] = file
				}
				for i := 0; i+piece <= len(text); i++ {
					pieces[text[i:i+piece]] = file
				}
			}
		}
	}
	search := func(where string, data []byte) {
		for text, file := range whole {
			if i := bytes.Index(data, []byte(text)); i >= 0 {
				found = append(found, fmt.Sprintf("%s holds %d characters of %s at byte %d", where, len(text), filepath.Base(file), i))
			}
		}
		for i := 0; i+piece <= len(data); i++ {
			if file, ok := pieces[string(data[i:i+piece])]; ok {
				found = append(found, fmt.Sprintf("%s holds %d characters of %s at byte %d", where, piece, filepath.Base(file), i))
				return
			}
		}
	}
	key := func(where string, data []byte) {
		if at := access.FindIndex(data); at != nil {
			found = append(found, fmt.Sprintf("%s holds something like an access token or a private key at byte %d", where, at[0]))
		}
	}
	search("the output", printed)
	key("the output", printed)
	var roots []string
	if everywhere {
		roots = []string{work}
	} else {
		homes, err := filepath.Glob(filepath.Join(work, "*", "journal.jsonl"))
		if err != nil {
			return nil, err
		}
		for _, journal := range homes {
			roots = append(roots, filepath.Dir(journal))
		}
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			name, _, _ := strings.Cut(filepath.ToSlash(strings.TrimPrefix(path, work+string(filepath.Separator))), "/")
			if everywhere && d != nil && d.IsDir() && (name == "secret" || name == "azure" || strings.HasPrefix(name, "stamp-")) {
				return fs.SkipDir // where a secret is at home
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			where := "the state file " + d.Name()
			if everywhere {
				where = "the file " + strings.TrimPrefix(path, work)
				key(where, data)
			}
			search(where, data)
			search(where+" without zero bytes", bytes.ReplaceAll(data, []byte{0}, nil))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// encodings returns a secret in the spellings that could carry it off unseen; of
// base64 those of its three positions in a longer text.
func encodings(text string) []string {
	var low, high []byte // UTF-16, either way round
	for _, u := range utf16.Encode([]rune(text)) {
		low = append(low, byte(u), byte(u>>8))
		high = append(high, byte(u>>8), byte(u))
	}
	out := []string{text, hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text))), url.QueryEscape(text), url.PathEscape(text)}
	for _, raw := range []string{text, string(low)} {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			for before := range 3 {
				whole := enc.EncodeToString([]byte(strings.Repeat("\x00", before) + raw))
				// Characters at either end hold bits of what stands beside it.
				from, to := (before*8+5)/6, len(whole)
				if (before+len(raw))%3 != 0 {
					to--
				}
				if to-from >= 8 {
					out = append(out, whole[from:to])
				}
			}
		}
	}
	return append(out, string(low), string(high))
}

// noSecrets fails the script whose programs gave a secret away.
func noSecrets(t testing.TB, work string, printed *transcript) {
	t.Helper()
	found, err := leaks(work, printed.Bytes(), printed.everywhere)
	if err != nil {
		t.Error(err)
	}
	for _, leak := range found {
		t.Error(leak)
	}
}

var partHash = regexp.MustCompile(`"[0-9A-Fa-f]{32}"`)

// spellings returns a secret file as one line without what an encoding puts in
// between, and the hashes of hardware parts where the line is base64 of JSON.
func spellings(raw []byte) []string {
	for _, mark := range []string{"\xff\xfe", "\xfe\xff", "\xef\xbb\xbf", "\x00", "\r", "\n"} {
		raw = bytes.ReplaceAll(raw, []byte(mark), nil)
	}
	text := strings.Trim(string(raw), "\"' \u00a0")
	if text == "" {
		return nil
	}
	out := []string{text}
	if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
		for _, hash := range partHash.FindAllString(string(decoded), -1) {
			out = append(out, strings.Trim(hash, `"`))
		}
	}
	return out
}

// TestLeaks gives something away in every way, for a canary that never sings is
// none.
func TestLeaks(t *testing.T) {
	token := base64.StdEncoding.EncodeToString([]byte(`{"cloudId":"5b4f0e5e-0f1c-4a2f-9f52-77d26a7c3a01","hardwareInfo":[{"nic":["00112233445566778899aabbccddeeff"]}]}`))
	wide := []byte("\xff\xfe")
	for _, c := range []byte(token + "\r\n") {
		wide = append(wide, c, 0)
	}
	pass := "tulip-anchor"
	utf16 := strings.Join(strings.Split(pass, ""), "\x00") + "\x00"
	for _, test := range []struct{ name, printed, journal, want string }{
		{"nothing", "token of 148 characters, SHA-256 00112233445566778899aabb", `{"n":1}`, ""},
		{"39 characters of the token", token[10:49], "", ""},
		{"a piece of the token", "token " + token[10:50] + "…", "", "the output holds 40 characters of token.txt at byte 6"},
		{"a hash of the hardware", "nic 00112233445566778899aabbccddeeff", "", "the output holds 32 characters of token.txt at byte 4"},
		{"the passphrase", "it is: tulip-anchor", "", "the output holds 12 characters of pass at byte 7"},
		{"an access token", "Authorization: Bearer abcdefghijklmnopqrstuvwxyz", "", "the output holds something like an access token or a private key at byte 15"},
		{"the token in the journal", "", `{"token":"` + token + `"}`, "the state file journal.jsonl holds 40 characters of token.txt at byte 10"},
		{"the file as it came in the journal", "", string(wide), "the state file journal.jsonl holds 40 characters of token.txt at byte 2"},
		{"the passphrase in hex", "0a" + hex.EncodeToString([]byte(pass)), "", "the output holds 24 characters of pass at byte 2"},
		{"in base64, in the middle", base64.StdEncoding.EncodeToString([]byte("pw=" + pass + "!")), "", "the output holds 16 characters of pass at byte 4"},
		{"in base64, behind a byte", base64.StdEncoding.EncodeToString([]byte(":" + pass)), "", "the output holds 15 characters of pass at byte 2"},
		{"in base64 of UTF-16", "-EncodedCommand " + base64.StdEncoding.EncodeToString([]byte(utf16)), "", "the output holds 32 characters of pass at byte 16"},
		{"in UTF-16", utf16, "", "the output holds 24 characters of pass at byte 0"},
		{"a piece of the token in hex", hex.EncodeToString([]byte(token[20:40])), "", "the output holds 40 characters of token.txt at byte 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			work := t.TempDir()
			for name, data := range map[string][]byte{"secret/token.txt": wide, "secret/pass": []byte("tulip-anchor\n"), "home/journal.jsonl": []byte(test.journal)} {
				path := filepath.Join(work, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			found, err := leaks(work, []byte(test.printed), false)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := strings.Cut(strings.Join(found, "\n"), "\n"); got != test.want {
				t.Errorf("found %q, want %q", got, test.want)
			}
			// In a file beside the state it is found only where everything is searched.
			if err := os.WriteFile(filepath.Join(work, "report.html"), []byte(test.printed), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, everywhere := range []bool{false, true} {
				found, err := leaks(work, nil, everywhere)
				if err != nil {
					t.Fatal(err)
				}
				want := everywhere && test.printed != "" && test.want != ""
				if got := strings.Contains(strings.Join(found, "\n"), "report.html"); got != want {
					t.Errorf("everywhere %t: found %q", everywhere, found)
				}
			}
		})
	}
}
