package main_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// piece is how many characters of a token or key are recognised in an output.
const piece = 40

// access is what the print must never hold, whatever its text: a bearer, and the
// private keys of a state folder.
var access = regexp.MustCompile(`(?i)bearer\s+[A-Za-z0-9_-]{20}|eyJ[A-Za-z0-9_-]{10,}\.|AGE-SECRET-KEY|PRIVATE KEY-----`)

// leaks is the canary of every script. It returns where a piece of 40 characters
// of anything in the folder secret (or the whole text, where that is shorter), or
// the hash of a hardware part out of a registration token, stands in what the
// programs printed or in a state folder.
func leaks(work string, printed []byte) (found []string, err error) {
	known := map[string]string{} // piece → the file that it is of
	lengths := map[int]bool{piece: true}
	files, err := filepath.Glob(filepath.Join(work, "secret", "*"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, text := range spellings(raw) {
			if len(text) < piece {
				lengths[len(text)] = true
				known[text] = file
			}
			for i := 0; i+piece <= len(text); i++ {
				known[text[i:i+piece]] = file
			}
		}
	}
	search := func(where string, data []byte) {
		for i := range data {
			for n := range lengths {
				if i+n > len(data) {
					continue
				}
				if file, ok := known[string(data[i:i+n])]; ok {
					found = append(found, fmt.Sprintf("%s holds %d characters of %s at byte %d", where, n, filepath.Base(file), i))
					return
				}
			}
		}
	}
	search("the output", printed)
	if at := access.FindIndex(printed); at != nil {
		found = append(found, fmt.Sprintf("the output holds something like an access token or a private key at byte %d", at[0]))
	}
	homes, err := filepath.Glob(filepath.Join(work, "*", "journal.jsonl"))
	if err != nil {
		return nil, err
	}
	for _, journal := range homes {
		err := filepath.WalkDir(filepath.Dir(journal), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			search("the state file "+d.Name(), data)
			search("the state file "+d.Name()+" without zero bytes", bytes.ReplaceAll(data, []byte{0}, nil))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// noSecrets fails the script whose programs gave a secret away.
func noSecrets(t testing.TB, work string, printed *transcript) {
	t.Helper()
	found, err := leaks(work, printed.Bytes())
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
	for _, test := range []struct{ name, printed, journal, want string }{
		{"nothing", "token of 148 characters, SHA-256 00112233445566778899aabb", `{"n":1}`, ""},
		{"39 characters of the token", token[10:49], "", ""},
		{"a piece of the token", "token " + token[10:50] + "…", "", "the output holds 40 characters of token.txt at byte 6"},
		{"a hash of the hardware", "nic 00112233445566778899aabbccddeeff", "", "the output holds 32 characters of token.txt at byte 4"},
		{"the passphrase", "it is: tulip-anchor", "", "the output holds 12 characters of pass at byte 7"},
		{"an access token", "Authorization: Bearer abcdefghijklmnopqrstuvwxyz", "", "the output holds something like an access token or a private key at byte 15"},
		{"the token in the journal", "", `{"token":"` + token + `"}`, "the state file journal.jsonl holds 40 characters of token.txt at byte 10"},
		{"the file as it came in the journal", "", string(wide), "the state file journal.jsonl without zero bytes holds 40 characters of token.txt at byte 2"},
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
			found, err := leaks(work, []byte(test.printed))
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := strings.Cut(strings.Join(found, "\n"), "\n"); got != test.want {
				t.Errorf("found %q, want %q", got, test.want)
			}
		})
	}
}
