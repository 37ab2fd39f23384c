package main_test

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// piece is how many characters of a token or key are recognised in an output.
const piece = 40

// noSecrets is the canary of every script: no piece of 40 characters of
// anything in the folder secret (no whole text, where it is shorter) and no
// hash of a hardware part out of a registration token stands in what the
// programs printed or in a state folder; and no header of a bearer in the
// print.
func noSecrets(t testing.TB, work string, printed *transcript) {
	t.Helper()
	known := map[string]string{} // piece → the file that it is of
	files, err := filepath.Glob(filepath.Join(work, "secret", "*"))
	if err != nil {
		t.Error(err)
	}
	shortest := piece
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		for _, text := range spellings(raw) {
			if len(text) < piece {
				shortest = min(shortest, len(text))
				known[text] = file
			}
			for i := 0; i+piece <= len(text); i++ {
				known[text[i:i+piece]] = file
			}
		}
	}
	search := func(where string, data []byte) {
		for i := range data {
			for n := shortest; n <= piece && i+n <= len(data); n++ {
				if file, ok := known[string(data[i:i+n])]; ok {
					t.Errorf("%s holds %d characters of %s at byte %d", where, n, filepath.Base(file), i)
					return
				}
			}
		}
	}
	search("the output", printed.Bytes())
	if at := regexp.MustCompile(`(?i)bearer\s+[A-Za-z0-9_-]{20}|AGE-SECRET-KEY|PRIVATE KEY-----|eyJ[A-Za-z0-9_-]{10,}\.`).FindIndex(printed.Bytes()); at != nil {
		t.Errorf("the output holds something like an access token at byte %d", at[0])
	}
	homes, err := filepath.Glob(filepath.Join(work, "*", "journal.jsonl"))
	if err != nil {
		t.Error(err)
	}
	for _, journal := range homes {
		err := filepath.WalkDir(filepath.Dir(journal), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			search(path, data)
			return err
		})
		if err != nil {
			t.Error(err)
		}
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
