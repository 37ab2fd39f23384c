package appkit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// Help is what a help page says beside what the command itself knows.
type Help struct {
	Examples []string     // command lines to paste; lines that begin with # explain
	Exit     []fault.Kind // the failures that are the verb's own
}

// always are the failures that every verb can meet.
var always = []fault.Kind{fault.Unexpected, fault.Usage, fault.Cancelled}

// meanings are the exit codes in words, as docs/EXIT-CODES.md has them.
var meanings = map[fault.Kind]string{
	fault.Unexpected:  "unexpected",
	fault.Usage:       "usage: the command line, or two values on it, contradict each other",
	fault.Refused:     "refused: signature, format or digest",
	fault.NotForUs:    "refused: not for us, or not what was expected",
	fault.Replay:      "refused: already used, or out of order",
	fault.Expired:     "expired, or the clock went back",
	fault.Medium:      "a stick, a folder or a file could not be read or written",
	fault.Locked:      "key locked, missing, or wrong passphrase",
	fault.Permanent:   "the remote said no, permanently",
	fault.Unreachable: "the remote cannot be reached now; try again",
	fault.Approval:    "an approval is missing",
	fault.NothingYet:  "nothing to do yet",
	fault.Partial:     "done in part",
	fault.Cancelled:   "cancelled",
}

// Meaning returns what an exit code means, in words.
func Meaning(k fault.Kind) string { return meanings[k] }

// Describe attaches h to the command and returns the command. The end of its help
// page is kept in CustomHelpTemplate, which urfave/cli leaves to us.
func Describe(c *cli.Command, h Help) *cli.Command {
	var b strings.Builder
	if len(h.Examples) > 0 {
		b.WriteString("\nEXAMPLES:\n")
		for _, e := range h.Examples {
			b.WriteString(indent(e))
		}
	}
	b.WriteString("\nEXIT CODES:\n")
	b.WriteString(exitCodes(append(slices.Clone(h.Exit), always...)))
	c.CustomHelpTemplate = b.String()
	return c
}

func exitCodes(kinds []fault.Kind) string {
	slices.Sort(kinds)
	rows := [][2]string{{"0", "done"}}
	for _, k := range slices.Compact(kinds) {
		rows = append(rows, [2]string{fmt.Sprint(int(k)), Meaning(k)})
	}
	return table(rows)
}

// page is the help page of a verb, or of the program when path is empty.
func page(app *cli.App, path []*cli.Command) string {
	var b strings.Builder
	section := func(name, text string) {
		if text != "" {
			if b.Len() > 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(&b, "%s:\n%s", name, text)
		}
	}
	if len(path) == 0 {
		section("NAME", indent(app.Name+" - "+app.Usage))
		section("USAGE", indent(app.Name+" VERB [flags] [arguments]"))
		section("DESCRIPTION", wrap(app.Description))
		section("VERBS", verbs(app.Commands))
		section("FLAGS", flagTable(app.Flags))
		section("EXIT CODES", exitCodes(fault.Kinds()))
		return b.String()
	}
	name := (&line{path: path}).command(app.Name)
	c := path[len(path)-1]
	usage := name
	if len(c.VisibleFlags()) > 0 {
		usage += " [flags]"
	}
	if c.ArgsUsage != "" {
		usage += " " + c.ArgsUsage
	}
	if c.UsageText != "" {
		usage = c.UsageText
	}
	for _, sub := range c.Subcommands {
		if !sub.Hidden {
			usage += "\n" + strings.TrimSpace(name+" "+sub.Name+" "+sub.ArgsUsage)
		}
	}
	var globals []string
	for _, f := range app.Flags {
		globals = append(globals, "--"+f.Names()[0])
	}
	section("NAME", indent(name+" - "+c.Usage))
	section("USAGE", indent(usage))
	section("DESCRIPTION", wrap(c.Description))
	section("VERBS", verbs(c.Subcommands))
	section("FLAGS", flagTable(c.VisibleFlags())+wrap("of every verb: "+strings.Join(globals, " ")))
	b.WriteString(c.CustomHelpTemplate)
	return b.String()
}

func verbs(cmds []*cli.Command) string {
	var rows [][2]string
	for _, c := range cmds {
		if !c.Hidden {
			rows = append(rows, [2]string{c.Name, c.Usage})
		}
	}
	return table(rows)
}

// flagTable lists flags with their values, defaults and environment names as
// urfave/cli spells them, without the default of a switch.
func flagTable(flags []cli.Flag) string {
	var rows [][2]string
	for _, f := range flags {
		name, usage, _ := strings.Cut(f.String(), "\t")
		rows = append(rows, [2]string{name, strings.Replace(usage, " (default: false)", "", 1)})
	}
	return table(rows)
}

const (
	columns = 80 // width of a help page
	margin  = 3
)

// table sets rows of a name and its meaning in two columns.
func table(rows [][2]string) string {
	left := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r[0]); n <= 26 {
			left = max(left, n)
		}
	}
	var b strings.Builder
	for _, r := range rows {
		pad := left - utf8.RuneCountInString(r[0])
		if pad < 0 {
			fmt.Fprintf(&b, "%*s%s\n%*s", margin, "", r[0], margin+left+2, "")
		} else {
			fmt.Fprintf(&b, "%*s%s%*s", margin, "", r[0], pad+2, "")
		}
		b.WriteString(strings.Join(fold(r[1], columns-margin-left-2), "\n"+strings.Repeat(" ", margin+left+2)) + "\n")
	}
	return b.String()
}

// wrap folds paragraphs to the page's width. A line that begins with a blank is
// kept as it is.
func wrap(text string) string {
	var b strings.Builder
	for par := range strings.Lines(strings.TrimSpace(text)) {
		par = strings.TrimRight(par, "\n")
		if strings.HasPrefix(par, " ") {
			b.WriteString(indent(par))
			continue
		}
		b.WriteString(indent(strings.Join(fold(par, columns-margin), "\n")))
	}
	return b.String()
}

func indent(text string) string {
	var b strings.Builder
	for l := range strings.Lines(text) {
		l = strings.TrimRight(l, "\n")
		if l != "" {
			l = strings.Repeat(" ", margin) + l
		}
		b.WriteString(l + "\n")
	}
	return b.String()
}

// fold breaks text between words into lines of at most width characters.
func fold(text string, width int) []string {
	lines := []string{""}
	for _, w := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = w
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(w) <= width:
			*last += " " + w
		default:
			lines = append(lines, w)
		}
	}
	return lines
}

// showHelp prints a help page on standard output, because it was asked for.
func showHelp(con *console.Console, app *cli.App, path []*cli.Command) {
	text := page(app, path)
	con.Result("help", struct {
		Command string `json:"command"`
		Text    string `json:"text"`
	}{(&line{path: path}).command(app.Name), text}, func(w io.Writer) { _, _ = io.WriteString(w, text) })
}

func helpVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name:      "help",
		Usage:     "print the help page of a verb, or of the program",
		ArgsUsage: "[VERB…]",
		Description: "Prints what a verb does, its flags with their environment names, examples to paste and its exit codes. " +
			"--help behind a verb prints the same page.",
		Action: Run(func(_ context.Context, env *Env, c *cli.Context) error {
			l := parse(c.App, append(c.Args().Slice(), "--help"))
			if l.err == nil && len(l.args) > 0 {
				command := l.command(p.Name)
				l.err = fault.New(fault.Usage, "%s has no verb %q", command, l.args[0]).Hint("%s", helpCommand(command))
			}
			if l.err != nil {
				return l.err
			}
			showHelp(env.Console, c.App, l.path)
			return nil
		}),
	}, Help{Examples: []string{p.Name + " help", p.Name + " help version"}})
}

// CheckHelp lists what the help of a program lacks. Every verb needs its name
// with a line of usage, a description, a meaning for each flag, exit codes, and
// examples: at least one begins with the program's name, and every one that does
// is a command line that the verb accepts. A test of each program calls it.
func CheckHelp(p Program) []string {
	var thin []string
	app := p.app()
	root := sections(page(app, nil))
	for _, name := range []string{"NAME", "USAGE", "DESCRIPTION", "VERBS", "FLAGS", "EXIT CODES"} {
		if root[name] == "" {
			thin = append(thin, fmt.Sprintf("%s: no section %s", p.Name, name))
		}
	}
	var check func(path []*cli.Command)
	check = func(path []*cli.Command) {
		c := path[len(path)-1]
		command := (&line{path: path}).command(p.Name)
		note := func(format string, args ...any) {
			thin = append(thin, command+": "+fmt.Sprintf(format, args...))
		}
		got := sections(page(app, path))
		for _, name := range []string{"USAGE", "DESCRIPTION", "EXAMPLES", "EXIT CODES"} {
			if got[name] == "" {
				note("no section %s", name)
			}
		}
		if c.Usage == "" {
			note("no usage line")
		}
		for _, f := range c.VisibleFlags() {
			if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" {
				note("flag %s has no meaning", spelt(f.Names()[0]))
			}
		}
		own := 0
		for example := range strings.Lines(got["EXAMPLES"]) {
			w := shellWords(example)
			if len(w) == 0 || w[0] != p.Name {
				continue
			}
			l := parse(app, w[1:])
			if l.err != nil {
				note("example %q: %v", strings.TrimSpace(example), l.err)
			}
			if len(l.path) >= len(path) && l.path[len(path)-1] == c {
				own++
			}
		}
		if own == 0 {
			note("no example begins with it")
		}
		for _, sub := range c.Subcommands {
			check(append(slices.Clone(path), sub))
		}
	}
	for _, c := range app.Commands {
		if !c.Hidden {
			check([]*cli.Command{c})
		}
	}
	return thin
}

// sections takes a help page apart into what stands below each heading.
func sections(page string) map[string]string {
	got := map[string]string{}
	var name string
	for l := range strings.Lines(page) {
		if head, ok := strings.CutSuffix(l, ":\n"); ok && !strings.HasPrefix(l, " ") {
			name = head
			continue
		}
		if strings.TrimSpace(l) != "" {
			got[name] += l
		}
	}
	return got
}

// shellWords takes the first command of an example apart: words between blanks,
// quotes of both kinds kept together, up to a pipe, a redirection or a comment.
func shellWords(example string) (words []string) {
	var word strings.Builder
	var quote rune
	begun := false
	end := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, r := range example {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, begun = r, true
		case r == ' ' || r == '\n' || r == '\t':
			end()
		case !begun && strings.ContainsRune("|<>&;#", r):
			return words
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	return words
}
