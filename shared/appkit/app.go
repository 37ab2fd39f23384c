// Package appkit is the frame in which both programs run: global flags, the
// command line, help pages, signals and the exit code, on top of urfave/cli.
//
// It keeps three promises to scripts. Every failure leaves the process through
// one place, [Main], which turns its kind into the exit code and prints it once.
// A command line means one thing only: a flag may stand before or behind the
// arguments, but an unknown flag, a value that is missing or two values for one
// flag end the run before anything is done (see args.go). And what help says
// about flags, examples and exit codes is held against the verbs by [CheckHelp].
//
// It does not keep a secret that a verb puts into an error or a flag: no verb
// has a flag that takes a secret, and errors are printed as they are. A panic is
// told by its type, never by its value.
package appkit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Program is one of the two programs. Its verbs are made anew for every run,
// because urfave/cli keeps the values of a run inside its flags.
type Program struct {
	Name        string // as typed: "azs-agent"
	Usage       string // one line
	Description string
	Role        string // "agent" or "relay"
	Verbs       []*cli.Command
	Version     string // empty means the version of the module that was built

	// Shared opens the state that --state or --state-file names. Nil: the program
	// keeps its state in a folder, and has no such flags.
	Shared func(ctx context.Context, e *Env, a SharedAddress) (Shared, error)
}

// Env is what a verb works with.
type Env struct {
	Console        *console.Console
	Home           string // state folder, absolute; it need not exist
	Clock          clock.Clock
	Yes            bool   // --yes
	PassphraseFile string // --passphrase-file, or ""
	Program        string // name of the program, for hints
	Role           string // "agent" or "relay"

	shared func(make bool) (Shared, error) // nil: the state lies in Home
	where  string                          // the shared state as the operator named it

	scan *scannedBundle // what --scan read in this run, or nil

	after func(ctx context.Context) error // runs when the verb is done and has given back what it held
}

// Main runs the verb that args name (the words behind the program's name) and
// returns the exit code of [fault.ExitCode]. Ctrl-C and SIGTERM cancel the
// context of the verb; a second one ends the program at once.
func Main(p Program, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()

	app := p.app()
	l := parse(app, args)
	set := l.settings(app.Flags)
	con := console.New(stdin, stdout, stderr, console.Options{
		Program: p.Name,
		Command: l.command(p.Name),
		JSON:    set.json && !l.forShell(),
		Quiet:   set.quiet,
		Color:   set.color,
		Stop:    ctx.Done(),
	})
	err := guarded(p, con, func() error { return dispatch(ctx, p, app, l, set, con) })
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = fault.New(fault.Cancelled, "stopped before it was done: %w", err)
	}
	return fault.ExitCode(con.End(err))
}

// dispatch prints the help page that was asked for, or runs the verb.
func dispatch(ctx context.Context, p Program, app *cli.App, l *line, set settings, con *console.Console) error {
	switch {
	case l.err != nil:
		return l.err
	case l.help:
		showHelp(con, app, l.path)
		return nil
	case set.err != nil:
		return set.err
	case set.json && l.piped:
		return fault.New(fault.Usage, "--out - and --json both write to standard output").Hint("%s … --out FILE --json", l.command(p.Name))
	}
	app.Metadata[sessionKey] = &session{p, set, con}
	return app.RunContext(ctx, l.argv)
}

// guarded runs f and turns a panic into an error that tells its type; the panic's
// value may hold a secret. The stack is printed when AZS_DEBUG is 1.
func guarded(p Program, con *console.Console, f func() error) (err error) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		what := fmt.Sprintf("panic of type %T", r)
		if e, ok := r.(runtime.Error); ok {
			what = e.Error()
		}
		bad := fault.New(fault.Unexpected, "%s met a state that nobody foresaw: %s", p.Name, what)
		if os.Getenv("AZS_DEBUG") == "1" {
			con.Warn("stack of the panic:\n%s", debug.Stack())
		} else {
			bad = bad.Hint("set AZS_DEBUG=1 and run it again to see where")
		}
		err = bad
	}()
	return f()
}

// app builds the urfave application. Help is ours, and nothing is printed or
// exited behind our back.
func (p Program) app() *cli.App {
	app := &cli.App{
		Name:           p.Name,
		HelpName:       p.Name,
		Usage:          p.Usage,
		Description:    p.Description,
		Flags:          p.globals(),
		Commands:       append(append([]*cli.Command{}, p.Verbs...), versionVerb(p), completionVerb(p), manVerb(p), helpVerb(p), completeVerb(p)),
		HideHelp:       true,
		HideVersion:    true,
		Reader:         strings.NewReader(""),
		Writer:         io.Discard,
		ErrWriter:      io.Discard,
		ExitErrHandler: func(*cli.Context, error) {},
		Metadata:       map[string]any{},
	}
	var prepare func(prefix string, cmds []*cli.Command)
	prepare = func(prefix string, cmds []*cli.Command) {
		for _, c := range cmds {
			name := prefix + " " + c.Name
			c.HideHelp = true // or a bundle called "help" could not be an argument
			c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badUsage(name, err) }
			prepare(name, c.Subcommands)
		}
	}
	prepare(p.Name, app.Commands)
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badUsage(p.Name, err) }
	return app
}

// badUsage wraps an error of urfave/cli about a flag's value.
func badUsage(command string, err error) error {
	return fault.New(fault.Usage, "%s: %w", command, err).Hint("%s", helpCommand(command))
}

// globals are the flags of every verb.
func (p Program) globals() []cli.Flag {
	return append(p.sharedFlags(),
		&cli.StringFlag{Name: "home", Usage: "state folder `DIR`", EnvVars: []string{"AZS_" + strings.ToUpper(p.Role) + "_HOME"},
			DefaultText: p.Name + " in the user's configuration folder"},
		&cli.BoolFlag{Name: "json", Usage: "print one JSON envelope on standard output, and never ask", EnvVars: []string{"AZS_JSON"}},
		&cli.BoolFlag{Name: "quiet", Usage: "print results, warnings and errors only", EnvVars: []string{"AZS_QUIET"}},
		&cli.StringFlag{Name: "color", Usage: "when to use colour, `auto|always|never`; auto heeds NO_COLOR", Value: "auto", EnvVars: []string{"AZS_COLOR"}},
		&cli.BoolFlag{Name: "yes", Usage: "do not ask, where --expect-… flags say what must be found", EnvVars: []string{"AZS_YES"}},
		&cli.StringFlag{Name: "passphrase-file", Usage: "read the passphrase of the keys from `FILE` instead of the terminal", EnvVars: []string{"AZS_PASSPHRASE_FILE"}},
	)
}

// settings are the values of the global flags.
type settings struct {
	home, color, passphraseFile string
	state, stateFile            string
	json, quiet, yes            bool
	err                         error // first value that is none
}

// settings reads the global flags from the command line, then the environment,
// then their defaults. What can be read is read in spite of an error, so that an
// error too is printed as the operator asked.
func (l *line) settings(flags []cli.Flag) settings {
	var s settings
	text := func(name string) string {
		f, ok := find(flags, name).(cli.DocGenerationFlag)
		if !ok {
			return "" // only one of the programs has it
		}
		if given := l.globals[name]; len(given) > 0 {
			return given[len(given)-1]
		}
		for _, env := range f.GetEnvVars() {
			if v := os.Getenv(env); v != "" {
				return v
			}
		}
		return ""
	}
	fail := func(name, value, want string) {
		if s.err == nil {
			s.err = fault.New(fault.Usage, "--%s is %q, which is not %s", name, value, want).Hint("%s help", l.argv[0])
		}
	}
	yes := func(name string) bool {
		v := text(name)
		if v == "" {
			return false
		}
		b, err := strconv.ParseBool(v)
		if err != nil {
			fail(name, v, "true or false")
		}
		return b
	}
	s.home, s.passphraseFile = text("home"), text("passphrase-file")
	s.state, s.stateFile = text("state"), text("state-file")
	s.json, s.quiet, s.yes = yes("json"), yes("quiet"), yes("yes")
	switch s.color = text("color"); s.color {
	case "", "auto", "always", "never":
	default:
		fail("color", s.color, "auto, always or never")
		s.color = ""
	}
	return s
}

// session is what Main leaves for Run.
type session struct {
	program  Program
	settings settings
	console  *console.Console
}

const sessionKey = "appkit.session"

// Run makes the action of a verb: it hands over the run's context, its
// environment and its flags.
func Run(f func(ctx context.Context, env *Env, c *cli.Context) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		s, ok := c.App.Metadata[sessionKey].(*session)
		if !ok {
			return fault.New(fault.Unexpected, "verb %q was not started by appkit.Main", c.Command.Name)
		}
		env, err := s.env(c.Context)
		if err != nil {
			return err
		}
		defer func() {
			if env.scan != nil {
				env.scan.close()
			}
		}()
		if err := f(c.Context, env, c); err != nil || env.after == nil {
			return err
		}
		return env.after(c.Context)
	}
}

// List returns what a result tells of the list: none is [] in JSON, and never null.
func List[T any](list []T) []T { return append([]T{}, list...) }

func (s *session) env(ctx context.Context) (*Env, error) {
	home := s.settings.home
	if home == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, fault.New(fault.Usage, "the user has no configuration folder for the state: %w", err).
				Hint("%s --home DIR …", s.program.Name)
		}
		home = filepath.Join(dir, s.program.Name)
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return nil, fault.New(fault.Medium, "state folder %q: %w", s.settings.home, err)
	}
	now, err := rehearsed(clock.System{}, s.console)
	if err != nil {
		return nil, err
	}
	e := &Env{
		Console: s.console, Home: home, Clock: now, Yes: s.settings.yes,
		PassphraseFile: s.settings.passphraseFile, Program: s.program.Name, Role: s.program.Role,
	}
	return e, e.share(ctx, s.program, s.settings)
}

// rehearsed returns base, or base moved as AZS_REHEARSE_CLOCK says: by a duration
// such as -72h, or so that the run begins at an instant in RFC 3339. A clock that
// was moved is announced by every run.
func rehearsed(base clock.Clock, con *console.Console) (clock.Clock, error) {
	v := os.Getenv("AZS_REHEARSE_CLOCK")
	if v == "" {
		return base, nil
	}
	now := base.Now()
	by, err := time.ParseDuration(v)
	if err != nil {
		at, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return nil, fault.New(fault.Usage, "AZS_REHEARSE_CLOCK is %q, which is neither a duration such as -72h nor a time such as %s", v, clock.Layout)
		}
		by = at.Sub(now)
	}
	moved := clock.Offset{Base: base, By: by}
	con.Warn("clock: rehearsed by AZS_REHEARSE_CLOCK=%s, it reads %s and the machine's %s", v, clock.Format(now.Add(by)), clock.Format(now))
	return moved, nil
}

// Set by the linker in a release, with the version and the commit that it is made of.
var version, commit string

func versionVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name:  "version",
		Usage: "print the version of the program",
		Description: "Prints the version of the module that the program was built from, the commit where it is known, " +
			"the version of Go and the platform. Two programs of the same version read the same bundles.",
		Action: Run(func(_ context.Context, env *Env, c *cli.Context) error {
			if _, err := Args(c); err != nil {
				return err
			}
			v := struct {
				Program  string `json:"program"`
				Version  string `json:"version"`
				Commit   string `json:"commit,omitempty"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{p.Name, cmp.Or(p.Version, version), commit, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				if v.Version == "" {
					v.Version = info.Main.Version
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			if v.Version == "" {
				v.Version = "(devel)" // as Go itself names a build of no version
			}
			env.Console.Result("version", v, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s %s %s\n", v.Program, v.Version, v.Go, v.Platform)
				if v.Commit != "" {
					fmt.Fprintf(w, "commit %s\n", v.Commit)
				}
			})
			return nil
		}),
	}, Help{Examples: []string{p.Name + " version", p.Name + " version --json"}})
}

// maxSecret is the most bytes of a secret file.
const maxSecret = 64 << 10

// LoadSecretFile reads a secret (a passphrase, a client secret) from a regular
// file of UTF-8 text of at most 64 KiB, without a byte order mark and without one
// line end at its end. It warns of a file that others than its owner may read,
// where the system has such modes. No error tells anything of what is inside.
func (e *Env) LoadSecretFile(path string) (secret.Text, error) {
	bad := func(format string, args ...any) (secret.Text, error) {
		return secret.Text{}, fault.New(fault.Medium, "secret file %q "+format, append([]any{path}, args...)...)
	}
	// The name is looked at first, because opening a pipe waits for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return bad("cannot be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return bad("is no regular file (%s)", info.Mode())
	}
	f, err := os.Open(path)
	if err != nil {
		return bad("cannot be read: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return bad("cannot be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return bad("is no regular file (%s)", info.Mode())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return bad("cannot be read: %w", err)
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) > maxSecret:
		return bad("is longer than %d bytes", maxSecret)
	case len(b) == 0:
		return bad("is empty")
	case bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b):
		return bad("is not UTF-8 text; Windows PowerShell writes UTF-16 unless it is told -Encoding ascii")
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o044 != 0 {
		e.Console.Warn("secret file %q may be read by others than its owner (mode %04o)", path, mode)
	}
	return secret.New(string(b)), nil
}
