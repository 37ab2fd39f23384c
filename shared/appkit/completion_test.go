package appkit_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The shells themselves are driven by shells-complete-command-lines.txtar; this is
// what they are told. The words are parted by blanks, so that the last one is empty
// behind a blank.
func TestComplete(t *testing.T) {
	tests := []struct{ line, want string }{
		{"se", "see :none"},
		{"wa", "wait :none"},
		{"compl", "completion :none"}, // and not complete, which is the shells'
		{"completion ", "bash zsh fish powershell :none"},
		{"pair ", "show :none"},
		{"pair show s", ":none"},
		{"see ", ":files"},
		{"see a b ", ":files"},
		{"two a b ", ":none"},
		{"see --o", "--out :none"},
		{"see --out ", ":files"},
		{"see --out=x", ":files"},
		{"see --out x ", ":files"},
		{"see --force ", ":files"},
		{"see --force=t", ":none"},
		{"see --pep h", ":none"},
		{"see -- --o", ":files"},
		{"--col", "--color :none"},
		{"--color a", "auto always :none"},
		{"see --color=a", "--color=auto --color=always :none"},
		{"--color never se", "see :none"},
		{"see --h", "--home --help :none"},
		{"help ", "see pair group must two many now ask wait fail version completion man help :none"},
		{"help pair ", "show :none"},
		{"no-such-verb ", ":none"},
		{"see --no-such-flag ", ":files"},
		{"--json se", "see :none"},
		{`pair ""`, "show :none"}, // as Windows PowerShell says an empty word
	}
	for _, tt := range tests {
		got := run(append([]string{"complete", "--"}, strings.Split(tt.line, " ")...)...)
		var words []string
		for l := range strings.Lines(got.Out) {
			word, _, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
			words = append(words, word)
		}
		if diff := cmp.Diff(tt.want, strings.Join(words, " ")); diff != "" || got.Exit != 0 || got.Err != "" {
			t.Errorf("complete %q: exit %d, %q (-want +got):\n%s", tt.line, got.Exit, got.Err, diff)
		}
	}
	if got := run("complete", "--", "see", "--f"); got.Out != "--force\tgo on\n:none\n" {
		t.Errorf("the meaning of a flag: %q", got.Out)
	}
}
