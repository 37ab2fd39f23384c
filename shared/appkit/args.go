package appkit

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// urfave/cli v2 stops reading flags at the first argument, and takes whatever
// stands behind a flag for its value. Here the command line is read first, by
// rules that leave nothing to guess, and is handed on in the one order that
// urfave/cli reads as meant: globals, verb, flags, "--", arguments.
//
//   - The first word that is no flag is the verb, the next one may be a verb
//     below it ("pair show"), the others are arguments. "-" is a word.
//   - A flag of the verb stands anywhere behind the verb, a global one anywhere.
//     One dash is as good as two. Behind "--" everything is a word.
//   - A flag takes its value behind "=" or as the next word; a next word that
//     looks like a flag is not taken, so that a forgotten value never swallows
//     the flag behind it: --note=--urgent says it.
//   - A flag of one value may be repeated with the same value only. A flag of
//     many values keeps all of them in order.

// line is a command line that was read.
type line struct {
	path    []*cli.Command      // the verb and the verb below it
	args    []string            // the arguments
	argv    []string            // for urfave/cli, with the program's name
	globals map[string][]string // values of the global flags that were given
	help    bool                // a help page was asked for
	lost    bool                // an unknown verb was met: what stands behind it is unknown too
	piped   bool                // --out names standard output
	err     error               // first thing that is wrong
}

// level is a verb, or the program itself, with the flags that were given to it.
type level struct {
	name  string
	flags []cli.Flag
	given map[string][]string
	out   []string
}

// parse reads args by the rules above. It reads on behind an error, so that
// --json is known even then.
func parse(app *cli.App, args []string) *line {
	l := &line{}
	levels := []*level{{name: app.Name, flags: app.Flags, given: map[string][]string{}}}
	names := func() string {
		var s []string
		for _, v := range levels {
			s = append(s, v.name)
		}
		return strings.Join(s, " ")
	}
	fail := func(format string, a ...any) {
		if l.err == nil {
			l.err = fault.New(fault.Usage, format, a...).Hint("%s", helpCommand(names()))
		}
	}
	word := func(w string) {
		below, needed := app.Commands, true
		if n := len(l.path); n > 0 {
			below, needed = l.path[n-1].Subcommands, l.path[n-1].Action == nil
		}
		if len(below) == 0 || len(l.args) > 0 || l.lost {
			l.args = append(l.args, w)
			return
		}
		for _, c := range below {
			if c.HasName(w) {
				l.path = append(l.path, c)
				levels = append(levels, &level{name: c.Name, flags: c.Flags, given: map[string][]string{}})
				return
			}
		}
		if !needed {
			l.args = append(l.args, w)
			return
		}
		l.lost = true
		fail("%s has no verb %q%s", names(), w, suggest("", w, verbNames(below)))
	}

	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			for _, w := range args[i+1:] {
				word(w)
			}
			break
		}
		if a == "-" || !strings.HasPrefix(a, "-") {
			word(a)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-"), "=")
		at, f := lookup(levels, name)
		switch {
		case f == nil && (name == "help" || name == "h"):
			l.help = true
			continue
		case f == nil && name == "version" && len(levels) == 1:
			word("version")
			continue
		case f == nil:
			if !l.lost {
				fail("%s has no flag %q%s", names(), spelt(name), suggest("--", name, flagNames(levels)))
			}
			continue
		}
		name = f.Names()[0]
		switch takes := takesValue(f); {
		case !takes && !hasValue:
			value = "true"
		case !takes:
			if _, err := strconv.ParseBool(value); err != nil {
				fail("%s is %q, which is not true or false", spelt(name), value)
				continue
			}
		case !hasValue:
			if i+1 == len(args) || isFlag(levels, args[i+1]) {
				fail("%s needs a value; one that begins with a dash is written %s=VALUE", spelt(name), spelt(name))
				continue
			}
			i++
			value = args[i]
		}
		if before := at.given[name]; len(before) > 0 && before[0] != value && !isSlice(f) {
			fail("%s is given as %q and as %q", spelt(name), before[0], value)
		}
		at.given[name] = append(at.given[name], value)
		at.out = append(at.out, "--"+name+"="+value)
	}

	l.globals = levels[0].given
	l.piped = slices.ContainsFunc(levels, func(v *level) bool { return slices.Contains(v.given["out"], "-") })
	for i, v := range levels {
		l.argv = append(append(l.argv, v.name), v.out...)
		if i > 0 && !l.help {
			for _, name := range missing(v) {
				fail("%s needs %s", names(), spelt(name))
			}
		}
	}
	l.argv = append(append(l.argv, "--"), l.args...)
	switch n := len(l.path); {
	case len(args) == 0:
		l.help = true
	case n == 0 && !l.help:
		fail("%s needs a verb", app.Name)
	case n > 0 && l.path[n-1].Action == nil && !l.help:
		fail("%s needs one of: %s", names(), strings.Join(verbNames(l.path[n-1].Subcommands), ", "))
	}
	return l
}

// forShell reports whether a script of a shell runs the program, which then speaks
// to nobody else.
func (l *line) forShell() bool { return len(l.path) > 0 && l.path[0].Hidden }

// command spells the program and the verb, without flags and arguments.
func (l *line) command(program string) string {
	s := program
	for _, c := range l.path {
		s += " " + c.Name
	}
	return s
}

// helpCommand turns "azs-agent pair show" into "azs-agent help pair show".
func helpCommand(command string) string {
	program, verb, ok := strings.Cut(command, " ")
	if !ok {
		return program + " help"
	}
	return program + " help " + verb
}

// lookup finds a flag by its name, at the innermost level that has it.
func lookup(levels []*level, name string) (*level, cli.Flag) {
	for _, v := range slices.Backward(levels) {
		if f := find(v.flags, name); f != nil {
			return v, f
		}
	}
	return nil, nil
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// isFlag reports whether a word that may be a value looks like a flag: it begins
// with two dashes, or with one dash and the name of a flag.
func isFlag(levels []*level, word string) bool {
	if strings.HasPrefix(word, "--") {
		return true
	}
	rest, ok := strings.CutPrefix(word, "-")
	name, _, _ := strings.Cut(rest, "=")
	_, f := lookup(levels, name)
	return ok && (f != nil || name == "h" || name == "help")
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return !ok || d.TakesValue()
}

func isSlice(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationSliceFlag)
	return ok && d.IsSliceFlag()
}

// missing names the required flags that are neither given nor in the
// environment.
func missing(v *level) (names []string) {
	for _, f := range v.flags {
		name := f.Names()[0]
		if r, ok := f.(cli.RequiredFlag); !ok || !r.IsRequired() || len(v.given[name]) > 0 {
			continue
		}
		d, ok := f.(cli.DocGenerationFlag)
		if ok && slices.ContainsFunc(d.GetEnvVars(), func(env string) bool { return os.Getenv(env) != "" }) {
			continue
		}
		names = append(names, name)
	}
	return names
}

func spelt(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func verbNames(cmds []*cli.Command) (names []string) {
	for _, c := range cmds {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func flagNames(levels []*level) (names []string) {
	for _, v := range levels {
		for _, f := range v.flags {
			names = append(names, f.Names()[0])
		}
	}
	return names
}

// suggest returns ", perhaps …" with the name that is nearest to what was typed,
// or "" when none is near.
func suggest(dashes, typed string, names []string) string {
	best, at := "", (len(typed)+1)/3
	for _, name := range names {
		d := distance(typed, name)
		if strings.HasPrefix(name, typed) && len(typed) > 1 {
			d = 0
		}
		if d <= at && (d < at || best == "") {
			best, at = name, d
		}
	}
	if best == "" {
		return ""
	}
	return ", perhaps " + dashes + best
}

// distance counts the bytes to insert, delete, replace or swap with their
// neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// Args returns the arguments of a verb, whose names are given as its help spells
// them: "CARD" must be there, "[FILE]" may be missing, and "BUNDLE…" as the last
// one stands for one or more, "[FILE…]" for any number. Too few or too many are
// a [fault.Usage] that names the argument.
func Args(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	path := c.App.Name
	for _, parent := range slices.Backward(c.Lineage()) {
		if cmd := parent.Command; cmd != nil && cmd.Name != "" && cmd.Name != c.App.Name {
			path += " " + cmd.Name
		}
	}
	bad := func(format string, a ...any) ([]string, error) {
		return nil, fault.New(fault.Usage, path+" "+format, a...).Hint("%s", helpCommand(path))
	}
	for i, name := range names {
		optional := strings.HasPrefix(name, "[")
		many := strings.HasSuffix(strings.TrimSuffix(name, "]"), "…")
		if i >= len(args) && !optional {
			return bad("needs %s", strings.TrimSuffix(name, "…"))
		}
		if many {
			return args, nil
		}
	}
	if n := len(names); len(args) > n {
		return bad("does not know what to do with %q", args[n])
	}
	return args, nil
}
