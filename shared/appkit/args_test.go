package appkit_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzCommandLine holds that no command line is anything but done or refused as
// usage, and that words behind "--" reach the verb as they are.
func FuzzCommandLine(f *testing.F) {
	for _, line := range []string{"", "a --out f", "--out --force", "-- --out f", "-", "--=", "---", "-=x", "--out=", "--pep a,b --pep c",
		"--help", "--json --json=false", "--home", "--n=x", "\xff --\xff", "--generate-bash-completion", "-- help", "a -- -- b"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, " ")
		if got := run(append([]string{"see"}, words...)...); got.Exit != 0 && got.Exit != 2 {
			t.Errorf("see %q: %+v", words, got)
		}
		got := run(append([]string{"see", "--json", "--"}, words...)...)
		var v struct{ Args []string }
		if err := json.Unmarshal([]byte(got.Out), &v); err != nil {
			t.Fatalf("see --json -- %q: %v, %+v", words, err, got)
		}
		// JSON spells broken bytes as replacement characters, one or several.
		same := func(words []string) string {
			return strings.ReplaceAll(strings.ToValidUTF8(strings.Join(words, "\x00"), ""), "\ufffd", "")
		}
		if same(v.Args) != same(words) {
			t.Errorf("see -- %q reached the verb as %q", words, v.Args)
		}
	})
}
