package appkit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// program is a program with verbs of every shape.
func program() appkit.Program {
	show := func(_ context.Context, env *appkit.Env, c *cli.Context) error {
		args, err := appkit.Args(c, "[FILE…]")
		if err != nil {
			return err
		}
		env.Console.Result("seen", map[string]any{
			"verb": c.Command.Name, "args": args, "out": c.String("out"), "pep": c.StringSlice("pep"),
			"force": c.Bool("force"), "n": c.Int("n"), "yes": env.Yes, "home": filepath.Base(env.Home), "pass": env.PassphraseFile,
		}, func(w io.Writer) {
			fmt.Fprintf(w, "%s %q out=%q pep=%q force=%v n=%d yes=%v home=%s\n", c.Command.Name, args, c.String("out"),
				c.StringSlice("pep"), c.Bool("force"), c.Int("n"), env.Yes, filepath.Base(env.Home))
		})
		env.Console.Say("talk of %s", c.Command.Name)
		return nil
	}
	flags := func() []cli.Flag {
		return []cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `F`", EnvVars: []string{"AZS_TEST_OUT"}},
			&cli.StringSliceFlag{Name: "pep", Usage: "ask `HOST`"},
			&cli.BoolFlag{Name: "force", Usage: "go on"},
			&cli.IntFlag{Name: "n", Usage: "`COUNT`"},
		}
	}
	fails := func(f func(ctx context.Context, env *appkit.Env, c *cli.Context) error) *cli.Command {
		return &cli.Command{Name: "fail", Action: appkit.Run(f)}
	}
	failing := fails(func(_ context.Context, env *appkit.Env, c *cli.Context) error {
		switch how := c.Args().First(); how {
		case "panic":
			panic("canary-secret")
		case "index":
			return errors.New(os.Args[len(os.Args)+c.NArg()-1])
		case "context":
			return fmt.Errorf("read: %w", context.Canceled)
		default:
			for _, k := range fault.Kinds() {
				if k.String() == how {
					return fmt.Errorf("bundle: %w", fault.New(k, "it failed").Hint("azs-test next"))
				}
			}
			return errors.New("odd")
		}
	})
	return appkit.Program{
		Name: "azs-test", Usage: "try things", Description: "Tries things.", Role: "test", Version: "v1.2.3",
		Verbs: []*cli.Command{
			appkit.Describe(&cli.Command{Name: "see", Usage: "show what was read", ArgsUsage: "[FILE…]",
				Description: "Shows what was read.", Flags: flags(), Action: appkit.Run(show)},
				appkit.Help{Examples: []string{"azs-test see a --out b"}, Exit: []fault.Kind{fault.Replay}}),
			{Name: "pair", Usage: "pair", Flags: flags(), Action: appkit.Run(show), Subcommands: []*cli.Command{
				{Name: "show", Flags: flags(), Action: appkit.Run(show)},
			}},
			{Name: "group", Subcommands: []*cli.Command{{Name: "one", Action: appkit.Run(show)}}},
			{Name: "must", Flags: []cli.Flag{&cli.StringFlag{Name: "name", Required: true, EnvVars: []string{"AZS_TEST_NAME"}}}, Action: appkit.Run(show)},
			{Name: "two", Action: appkit.Run(func(_ context.Context, _ *appkit.Env, c *cli.Context) error {
				_, err := appkit.Args(c, "BUNDLE", "[DIR]")
				return err
			})},
			{Name: "many", Action: appkit.Run(func(_ context.Context, _ *appkit.Env, c *cli.Context) error {
				_, err := appkit.Args(c, "BUNDLE…")
				return err
			})},
			{Name: "now", Action: appkit.Run(func(_ context.Context, env *appkit.Env, _ *cli.Context) error {
				env.Console.Data([]byte(env.Clock.Now().Format(time.RFC3339)))
				return nil
			})},
			{Name: "ask", Action: appkit.Run(func(_ context.Context, env *appkit.Env, _ *cli.Context) error {
				_, err := env.Console.Passphrase("passphrase")
				return err
			})},
			{Name: "wait", Action: appkit.Run(func(ctx context.Context, env *appkit.Env, _ *cli.Context) error {
				env.Console.Say("waiting")
				<-ctx.Done()
				return fault.New(fault.Unreachable, "the remote: %w", ctx.Err())
			})},
			failing,
		},
	}
}

// ran is what a run of the program left.
type ran struct {
	Out, Err string
	Exit     int
}

func run(args ...string) ran {
	var out, err bytes.Buffer
	code := appkit.Main(program(), args, strings.NewReader(""), &out, &err)
	return ran{out.String(), err.String(), code}
}

// TestMain plays the program in a process of its own for the tests of signals and
// of a terminal.
func TestMain(m *testing.M) {
	if os.Getenv("APPKIT_TEST_PROGRAM") != "" {
		os.Exit(appkit.Main(program(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	if role := os.Getenv("APPKIT_TEST_STATION"); role != "" {
		os.Exit(appkit.Main(station(role), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	for _, name := range []string{"AZS_TEST_HOME", "AZS_JSON", "AZS_QUIET", "AZS_COLOR", "AZS_YES", "AZS_PASSPHRASE_FILE", "AZS_REHEARSE_CLOCK", "AZS_DEBUG"} {
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

func TestCommandLines(t *testing.T) {
	const none = `out="" pep=[] force=false n=0 yes=false home=azs-test`
	tests := []struct{ line, want string }{
		{"see", `see [] ` + none},
		{"see a b", `see ["a" "b"] ` + none},
		{"see -", `see ["-"] ` + none},
		{"see a --out f", `see ["a"] out="f" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see --out f a", `see ["a"] out="f" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see a --out=f b -force", `see ["a" "b"] out="f" pep=[] force=true n=0 yes=false home=azs-test`},
		{"see a -o f", `see ["a"] out="f" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see a -o=f=g", `see ["a"] out="f=g" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see --out - a", `see ["a"] out="-" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see a --out= b", `see ["a" "b"] out="" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see a --out=--force", `see ["a"] out="--force" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see a --n -5", `see ["a"] out="" pep=[] force=false n=-5 yes=false home=azs-test`},
		{"see a --force=false", `see ["a"] ` + none},
		{"see --pep a x --pep b --pep c,d y", `see ["x" "y"] out="" pep=["a" "b" "c" "d"] force=false n=0 yes=false home=azs-test`},
		{"see --out f --out f", `see [] out="f" pep=[] force=false n=0 yes=false home=azs-test`},
		{"see -- --out f", `see ["--out" "f"] ` + none},
		{"see a -- -- b", `see ["a" "--" "b"] ` + none},
		{"see help", `see ["help"] ` + none},
		{"see see show", `see ["see" "show"] ` + none},
		{"--yes see a", `see ["a"] out="" pep=[] force=false n=0 yes=true home=azs-test`},
		{"see a --yes", `see ["a"] out="" pep=[] force=false n=0 yes=true home=azs-test`},
		{"see --yes a --home /x/h", `see ["a"] out="" pep=[] force=false n=0 yes=true home=h`},
		{"--home /x/h see", `see [] out="" pep=[] force=false n=0 yes=false home=h`},
		{"pair card", `pair ["card"] ` + none},
		{"pair show", `show [] ` + none},
		{"pair show x --out f", `show ["x"] out="f" pep=[] force=false n=0 yes=false home=azs-test`},
		{"pair --yes show --force x", `show ["x"] out="" pep=[] force=true n=0 yes=true home=azs-test`},
		{"pair card show", `pair ["card" "show"] ` + none},
		{"group one --json=false a", `one ["a"] ` + none},
		{"must --name x", `must [] ` + none},
	}
	for _, tt := range tests {
		got := run(strings.Fields(tt.line)...)
		verb, _, _ := strings.Cut(tt.want, " ")
		if diff := cmp.Diff(ran{tt.want + "\n", "talk of " + verb + "\n", 0}, got); diff != "" {
			t.Errorf("azs-test %s (-want +got):\n%s", tt.line, diff)
		}
	}
}

func TestBadCommandLines(t *testing.T) {
	tests := []struct{ line, want, hint string }{
		{"sea", `azs-test has no verb "sea", perhaps see`, "azs-test help"},
		{"sea --out f", `azs-test has no verb "sea", perhaps see`, "azs-test help"},
		{"zzzzzz", `azs-test has no verb "zzzzzz"`, "azs-test help"},
		{"vers", `azs-test has no verb "vers", perhaps version`, "azs-test help"},
		{"--yes", `azs-test needs a verb`, "azs-test help"},
		{"group", `azs-test group needs one of: one`, "azs-test help group"},
		{"group two", `azs-test group has no verb "two"`, "azs-test help group"},
		{"group noe", `azs-test group has no verb "noe", perhaps one`, "azs-test help group"},
		{"see --uot f", `azs-test see has no flag "--uot", perhaps --out`, "azs-test help see"},
		{"see -z", `azs-test see has no flag "-z"`, "azs-test help see"},
		{"see --password=canary-secret", `azs-test see has no flag "--password"`, "azs-test help see"},
		{"--out f see", `azs-test has no flag "--out"`, "azs-test help"},
		{"pair show --outt f", `azs-test pair show has no flag "--outt", perhaps --out`, "azs-test help pair show"},
		{"see --out", `--out needs a value; one that begins with a dash is written --out=VALUE`, "azs-test help see"},
		{"see --out --force", `--out needs a value; one that begins with a dash is written --out=VALUE`, "azs-test help see"},
		{"see --out -force", `--out needs a value; one that begins with a dash is written --out=VALUE`, "azs-test help see"},
		{"see --out -- x", `--out needs a value; one that begins with a dash is written --out=VALUE`, "azs-test help see"},
		{"see --out f -o g", `--out is given as "f" and as "g"`, "azs-test help see"},
		{"see --force --force=false", `--force is given as "true" and as "false"`, "azs-test help see"},
		{"see --force=maybe", `--force is "maybe", which is not true or false`, "azs-test help see"},
		{"see --n x", `azs-test see: invalid value "x" for flag -n: parse error`, "azs-test help see"},
		{"see --color pink", `--color is "pink", which is not auto, always or never`, "azs-test help"},
		{"must", `azs-test must needs --name`, "azs-test help must"},
		{"two", `azs-test two needs BUNDLE`, "azs-test help two"},
		{"two a b c", `azs-test two does not know what to do with "c"`, "azs-test help two"},
		{"many", `azs-test many needs BUNDLE`, "azs-test help many"},
		{"version x", `azs-test version does not know what to do with "x"`, "azs-test help version"},
		{"help sea", `azs-test has no verb "sea", perhaps see`, "azs-test help"},
		{"help see a", `azs-test see has no verb "a"`, "azs-test help see"},
	}
	for _, tt := range tests {
		want := ran{"", "azs-test: error: " + tt.want + "\nazs-test: hint: " + tt.hint + "\n", 2}
		if diff := cmp.Diff(want, run(strings.Fields(tt.line)...)); diff != "" {
			t.Errorf("azs-test %s (-want +got):\n%s", tt.line, diff)
		}
	}
}

func TestUsageErrorIsJSONWhereverTheFlagStands(t *testing.T) {
	for _, line := range []string{"--json sea", "sea --json", "see --uot f --json", "sea --uot f --json", "see --color pink --json"} {
		got := run(strings.Fields(line)...)
		var e struct {
			Type, Kind string
			Exit       int
		}
		if err := json.Unmarshal([]byte(got.Out), &e); err != nil || e.Type != "error" || e.Kind != "usage" || e.Exit != 2 || got.Exit != 2 {
			t.Errorf("azs-test %s: %v, %+v, want one envelope of a usage error", line, err, got)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, k := range fault.Kinds() {
		want := ran{"", "azs-test: error: bundle: it failed\nazs-test: hint: azs-test next\n", int(k)}
		if diff := cmp.Diff(want, run("fail", k.String())); diff != "" {
			t.Errorf("%v (-want +got):\n%s", k, diff)
		}
	}
	if diff := cmp.Diff(ran{"", "azs-test: error: odd\n", 1}, run("fail", "odd")); diff != "" {
		t.Error(diff)
	}
	if got := run("fail", "context"); got.Exit != 130 {
		t.Errorf("a cancelled run left %+v, want exit code 130", got)
	}
	if diff := cmp.Diff(ran{"", "azs-test: error: \"passphrase\" cannot be asked: there is no terminal\n" +
		"azs-test: hint: azs-test ask … --passphrase-file F\n", 8}, run("ask")); diff != "" {
		t.Error(diff)
	}
}

// fullDisk is an output that takes no more bytes.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestLostOutputFailsTheRun(t *testing.T) {
	if code := appkit.Main(program(), []string{"version"}, strings.NewReader(""), fullDisk{}, io.Discard); code != int(fault.Medium) {
		t.Errorf("exit code %d, want %d", code, fault.Medium)
	}
}

func TestPanicTellsItsTypeOnly(t *testing.T) {
	for _, debug := range []string{"", "1"} {
		t.Setenv("AZS_DEBUG", debug)
		got := run("fail", "panic")
		if got.Exit != 1 || !strings.Contains(got.Err, "panic of type string") || strings.Contains(got.Err, "canary-secret") {
			t.Errorf("AZS_DEBUG=%q: %+v, want the type of the panic without its value", debug, got)
		}
		if stack := strings.Contains(got.Err, "app_test.go:"); stack != (debug == "1") {
			t.Errorf("AZS_DEBUG=%q: stack printed is %v", debug, stack)
		}
		if got := run("fail", "index"); got.Exit != 1 || !strings.Contains(got.Err, "index out of range") {
			t.Errorf("AZS_DEBUG=%q: %+v, want what Go says of the index", debug, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	set := map[string]string{"AZS_TEST_HOME": filepath.Join(t.TempDir(), "e"), "AZS_JSON": "1", "AZS_QUIET": "true", "AZS_YES": "1",
		"AZS_PASSPHRASE_FILE": "p", "AZS_TEST_OUT": "o", "AZS_TEST_NAME": "n"}
	for k, v := range set {
		t.Setenv(k, v)
	}
	const want = `{"schema":1,"type":"seen","args":["a"],"force":false,"home":"e","n":0,"out":"o","pass":"p","pep":null,"verb":"see","yes":true}` + "\n"
	if diff := cmp.Diff(ran{Out: want}, run("see", "a")); diff != "" {
		t.Error(diff)
	}
	if got := run("must"); got.Exit != 0 {
		t.Errorf("a required flag in the environment: %+v", got)
	}
	// The command line goes before the environment.
	want2 := strings.NewReplacer(`"e"`, `"f"`, `"yes":true`, `"yes":false`, `"p"`, `"q"`, `"out":"o"`, `"out":"x"`).Replace(want)
	if diff := cmp.Diff(ran{Out: want2}, run("see", "a", "--home", "f", "--yes=false", "--passphrase-file=q", "-o", "x")); diff != "" {
		t.Error(diff)
	}
	t.Setenv("AZS_YES", "perhaps")
	if got := run("see"); got.Exit != 2 || !strings.Contains(got.Err, `--yes is "perhaps"`) {
		t.Errorf("AZS_YES=perhaps: %+v", got)
	}
}

func TestRehearsedClock(t *testing.T) {
	at := func(v string) (time.Time, ran) {
		t.Helper()
		t.Setenv("AZS_REHEARSE_CLOCK", v)
		got := run("now", "--quiet")
		now, _ := time.Parse(time.RFC3339, got.Out)
		return now, got
	}
	before := time.Now().Truncate(time.Second)
	if now, got := at(""); now.Before(before) || now.After(time.Now()) || got.Err != "" {
		t.Errorf("machine's clock: %+v", got)
	}
	if now, got := at("-72h"); now.Before(before.Add(-72*time.Hour)) || now.After(time.Now().Add(-72*time.Hour)) ||
		!strings.HasPrefix(got.Err, "azs-test: warning: clock: rehearsed by AZS_REHEARSE_CLOCK=-72h, it reads ") {
		t.Errorf("three days back: %+v", got)
	}
	year := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	if now, got := at("2031-01-01T00:00:00Z"); now.Before(year.Add(-time.Second)) || now.After(year.Add(time.Minute)) || !strings.Contains(got.Err, "rehearsed") {
		t.Errorf("at an instant: %+v", got)
	}
	if _, got := at("tomorrow"); got.Exit != 2 || got.Out != "" {
		t.Errorf("AZS_REHEARSE_CLOCK=tomorrow: %+v, want a usage error", got)
	}
}

func TestVersion(t *testing.T) {
	for _, verb := range []string{"version", "--version"} {
		want := "azs-test v1.2.3 " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
		if got := run(verb); got.Exit != 0 || !strings.HasPrefix(got.Out, want) {
			t.Errorf("%s: %+v, want %q", verb, got, want)
		}
	}
	var v struct{ Type, Version string }
	if err := json.Unmarshal([]byte(run("version", "--json").Out), &v); err != nil || v.Type != "version" || v.Version != "v1.2.3" {
		t.Errorf("version --json: %v, %+v", err, v)
	}
}

func TestSignalCancelsTheVerb(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted by another one on Windows")
	}
	cmd := exec.Command(os.Args[0], "wait")
	cmd.Env = append(os.Environ(), "APPKIT_TEST_PROGRAM=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stderr, make([]byte, len("waiting\n"))); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(stderr)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	const want = "azs-test: error: stopped before it was done: the remote: context canceled\n"
	if diff := cmp.Diff(ran{Err: want, Exit: 130}, ran{Err: string(rest), Exit: cmd.ProcessState.ExitCode()}); diff != "" {
		t.Errorf("after an interrupt (-want +got):\n%s", diff)
	}
}

func TestLoadSecretFile(t *testing.T) {
	dir := t.TempDir()
	const canary = "correct horse"
	tests := []struct {
		name, content string
		mode          os.FileMode
		want, err     string
		warning       string
	}{
		{name: "plain", content: canary, mode: 0o600, want: canary},
		{name: "line end", content: canary + "\n", mode: 0o600, want: canary},
		{name: "line end of Windows", content: canary + "\r\n", mode: 0o600, want: canary},
		{name: "one line end only", content: canary + "\n\n", mode: 0o400, want: canary + "\n"},
		{name: "blanks stay", content: " " + canary + " ", mode: 0o600, want: " " + canary + " "},
		{name: "byte order mark", content: "\ufeff" + canary, mode: 0o600, want: canary},
		{name: "longest", content: strings.Repeat("x", 64<<10), mode: 0o600, want: strings.Repeat("x", 64<<10)},
		{name: "too long", content: strings.Repeat("x", 64<<10+1), mode: 0o600, err: "is longer than 65536 bytes"},
		{name: "longer than the line end helps", content: strings.Repeat("x", 1<<20), mode: 0o600, err: "is longer than 65536 bytes"},
		{name: "empty", content: "\n", mode: 0o600, err: "is empty"},
		{name: "UTF-16", content: "\xff\xfec\x00o\x00", mode: 0o600, err: "is not UTF-8 text"},
		{name: "UTF-16 without mark", content: "c\x00o\x00", mode: 0o600, err: "is not UTF-8 text"},
		{name: "group may read", content: canary, mode: 0o640, want: canary, warning: "(mode 0640)"},
		{name: "all may read", content: canary, mode: 0o604, want: canary, warning: "(mode 0604)"},
	}
	load := func(path string) (got secret.Text, r ran, err error) {
		p := program()
		p.Verbs = []*cli.Command{{Name: "load", Action: appkit.Run(func(_ context.Context, env *appkit.Env, c *cli.Context) error {
			got, err = env.LoadSecretFile(c.Args().First())
			return err
		})}}
		var out, errs bytes.Buffer
		code := appkit.Main(p, []string{"load", path}, strings.NewReader(""), &out, &errs)
		return got, ran{out.String(), errs.String(), code}, err
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
			if err := os.WriteFile(path, []byte(tt.content), tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			got, r, err := load(path)
			if tt.err != "" {
				if fault.KindOf(err) != fault.Medium || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
			} else if err != nil || got.Reveal() != tt.want {
				t.Errorf("got %q, %v, want %q", got.Reveal(), err, tt.want)
			}
			if warned := strings.Contains(r.Err, "warning"); runtime.GOOS != "windows" && (warned != (tt.warning != "") || !strings.Contains(r.Err, tt.warning)) {
				t.Errorf("standard error %q, want warning %q", r.Err, tt.warning)
			}
			if strings.Contains(r.Err+r.Out, canary) {
				t.Errorf("the secret is in the output %+v", r)
			}
		})
	}
	for path, want := range map[string]string{
		dir:                           "is no regular file",
		os.DevNull:                    "is no regular file",
		filepath.Join(dir, "nothing"): "cannot be read",
	} {
		if _, _, err := load(path); fault.KindOf(err) != fault.Medium || !strings.Contains(err.Error(), want) {
			t.Errorf("LoadSecretFile(%q) = %v, want a medium fault that says %q", path, err, want)
		}
	}
}
