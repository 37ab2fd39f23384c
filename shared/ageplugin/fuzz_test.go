package ageplugin

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// FuzzStanza holds that what a plugin says has one spelling: a stanza that is read
// is written again as the same bytes, and reading takes no more memory than its
// limits.
func FuzzStanza(f *testing.F) {
	for _, s := range []string{
		"-> done\n\n", "-> file-key 0\nAAAAAAAAAAAAAAAAAAAAAA\n", "-> msg\n" + strings.Repeat("A", 64) + "\n\n",
		"-> \n\n", "->  a\n\n", "-> a\nAB\n", "-> msg\n" + strings.Repeat("A", 65) + "\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		from := bytes.NewReader(raw)
		r := bufio.NewReaderSize(from, maxLine)
		s, err := read(r)
		if err != nil {
			return
		}
		used := len(raw) - from.Len() - r.Buffered()
		var again bytes.Buffer
		write(&again, s.Body, append([]string{s.Type}, s.Args...)...)
		if !bytes.Equal(again.Bytes(), raw[:used]) {
			t.Errorf("%q is written again as %q", raw[:used], again.Bytes())
		}
		if len(s.Body) > maxBody {
			t.Errorf("a body of %d bytes", len(s.Body))
		}
	})
}
