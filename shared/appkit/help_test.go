package appkit_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

const seePage = `NAME:
   azs-test see - show what was read

USAGE:
   azs-test see [flags] [FILE…]

DESCRIPTION:
   Shows what was read.

FLAGS:
   --out F, -o F              write to F [$AZS_TEST_OUT]
   --pep HOST [ --pep HOST ]  ask HOST
   --force                    go on
   -n COUNT                   COUNT (default: 0)
   of every verb: --home --json --quiet --color --yes --passphrase-file

EXAMPLES:
   azs-test see a --out b

EXIT CODES:
   0    done
   1    unexpected
   2    usage: the command line, or two values on it, contradict each other
   5    refused: already used, or out of order
   130  cancelled
`

func TestHelpPage(t *testing.T) {
	for _, line := range []string{"help see", "see --help", "see -h", "see a --out f --help", "--help see", "see --help --color pink"} {
		if diff := cmp.Diff(ran{Out: seePage}, run(strings.Fields(line)...)); diff != "" {
			t.Errorf("azs-test %s (-want +got):\n%s", line, diff)
		}
	}
	// A required flag is not missed on the way to the help page.
	if got := run("must", "--help"); got.Exit != 0 || !strings.Contains(got.Out, "azs-test must") {
		t.Errorf("must --help: %+v", got)
	}
	if got := run("help", "pair", "show"); !strings.HasPrefix(got.Out, "NAME:\n   azs-test pair show - ") {
		t.Errorf("help pair show: %+v", got)
	}
	var v struct{ Type, Command, Text string }
	if err := json.Unmarshal([]byte(run("see", "--help", "--json").Out), &v); err != nil || v.Type != "help" || v.Command != "azs-test see" || v.Text != seePage {
		t.Errorf("see --help --json: %v, %+v", err, v)
	}
}

func TestProgramPage(t *testing.T) {
	want := run("help").Out
	for _, args := range [][]string{{}, {"--help"}, {"-h"}, {"help", "--quiet"}} {
		if diff := cmp.Diff(ran{Out: want}, run(args...)); diff != "" {
			t.Errorf("azs-test %q (-want +got):\n%s", args, diff)
		}
	}
	for _, part := range []string{"AZS_TEST_HOME", "AZS_JSON", "AZS_QUIET", "AZS_COLOR", "AZS_YES", "AZS_PASSPHRASE_FILE", "   see ", "   version "} {
		if !strings.Contains(want, part) {
			t.Errorf("the page of the program lacks %q:\n%s", part, want)
		}
	}
	for _, k := range fault.Kinds() {
		if appkit.Meaning(k) == "" || !strings.Contains(want, appkit.Meaning(k)) {
			t.Errorf("the page of the program lacks exit code %d (%v)", k, k)
		}
	}
	for line := range strings.Lines(want) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
			t.Errorf("line of %d columns: %q", n, line)
		}
	}
}

func TestCheckHelp(t *testing.T) {
	nothing := appkit.Run(func(context.Context, *appkit.Env, *cli.Context) error { return nil })
	good := func() (*cli.Command, appkit.Help) {
		return &cli.Command{Name: "put", Usage: "write", Description: "Writes.", Action: nothing,
				Flags: []cli.Flag{&cli.StringFlag{Name: "dir", Usage: "`DIR` to write to"}}},
			appkit.Help{Examples: []string{"# to a stick\nazs-test put x --dir '/media/a b' | wc -c", "gzip x"}, Exit: []fault.Kind{fault.Medium}}
	}
	tests := []struct {
		name string
		harm func(c *cli.Command, h *appkit.Help)
		want []string
	}{
		{"whole", func(*cli.Command, *appkit.Help) {}, nil},
		{"no usage", func(c *cli.Command, _ *appkit.Help) { c.Usage = "" }, []string{"azs-test put: no usage line"}},
		{"no description", func(c *cli.Command, _ *appkit.Help) { c.Description = "" }, []string{"azs-test put: no section DESCRIPTION"}},
		{"flag", func(c *cli.Command, _ *appkit.Help) { c.Flags = append(c.Flags, &cli.BoolFlag{Name: "x"}) }, []string{"azs-test put: flag -x has no meaning"}},
		{"no examples", func(_ *cli.Command, h *appkit.Help) { h.Examples = nil },
			[]string{"azs-test put: no section EXAMPLES", "azs-test put: no example begins with it"}},
		{"examples of something else", func(_ *cli.Command, h *appkit.Help) { h.Examples = []string{"azs-other put x", "azs-test version"} },
			[]string{"azs-test put: no example begins with it"}},
		{"example that is refused", func(_ *cli.Command, h *appkit.Help) { h.Examples = []string{"azs-test put --dri x"} },
			[]string{`azs-test put: example "azs-test put --dri x": azs-test put has no flag "--dri", perhaps --dir`}},
		{"verb below without help", func(c *cli.Command, _ *appkit.Help) {
			c.Subcommands = []*cli.Command{{Name: "show", Action: nothing}}
		}, []string{"azs-test put show: no section DESCRIPTION", "azs-test put show: no section EXAMPLES", "azs-test put show: no section EXIT CODES",
			"azs-test put show: no usage line", "azs-test put show: no example begins with it"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, h := good()
			tt.harm(c, &h)
			p := appkit.Program{Name: "azs-test", Usage: "try", Description: "Tries.", Role: "test", Verbs: []*cli.Command{appkit.Describe(c, h)}}
			if diff := cmp.Diff(tt.want, appkit.CheckHelp(p)); diff != "" {
				t.Errorf("CheckHelp (-want +got):\n%s", diff)
			}
		})
	}
}
