package appkit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Man is the manual page of the program for section 1, in the man macros that
// mandoc and groff share. It says what the help pages say and nothing else, is
// ASCII, and carries no date or version: the same verbs give the same bytes.
func Man(p Program) string {
	app := p.app()
	r := &roff{}
	r.macro("TH", strings.ToUpper(p.Name), "1", "", "azs-courier", "azs-courier")
	r.macro("SH", "NAME")
	r.text(p.Name + " - " + p.Usage)
	r.macro("SH", "SYNOPSIS")
	r.macro("B", p.Name)
	r.text("VERB [flags] [arguments]")
	r.macro("SH", "DESCRIPTION")
	r.paragraphs(p.Description)
	r.macro("SH", "OPTIONS")
	r.text("Of every verb:")
	r.flags(app.Flags)
	r.macro("SH", "VERBS")
	var verb func(path []*cli.Command)
	verb = func(path []*cli.Command) {
		c := path[len(path)-1]
		got := sections(page(app, path))
		r.macro("SS", (&line{path: path}).command(p.Name))
		r.text(c.Usage)
		r.kept(got["USAGE"])
		r.macro("PP")
		r.paragraphs(c.Description)
		r.flags(c.VisibleFlags())
		if got["EXAMPLES"] != "" {
			r.macro("PP")
			r.text("Examples:")
			r.kept(got["EXAMPLES"])
		}
		var codes []string
		for l := range strings.Lines(got["EXIT CODES"]) {
			if w := strings.Fields(l); len(w) > 0 && strings.Trim(w[0], "0123456789") == "" {
				codes = append(codes, w[0])
			}
		}
		if len(codes) > 0 {
			r.macro("PP")
			r.text("Exit codes: " + strings.Join(codes, ", "))
		}
		for _, sub := range c.Subcommands {
			if !sub.Hidden {
				verb(append(slices.Clone(path), sub))
			}
		}
	}
	for _, c := range app.Commands {
		if !c.Hidden {
			verb([]*cli.Command{c})
		}
	}
	r.macro("SH", "EXIT STATUS")
	r.item("0", "done")
	for _, k := range fault.Kinds() {
		r.item(fmt.Sprint(int(k)), Meaning(k))
	}
	return r.String()
}

// roff writes the few man macros that a page of ours needs.
type roff struct{ strings.Builder }

// special are the characters that roff would read or draw as others.
var special = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// escaped spells s so that it is printed as it is, wherever in a line it stands
// but at the beginning.
func escaped(s string) string {
	var b strings.Builder
	for _, c := range special.Replace(s) {
		if c < 0x80 {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, c)
		}
	}
	return b.String()
}

// macro writes a request with its arguments, each in quotes.
func (r *roff) macro(name string, args ...string) {
	r.WriteString("." + name)
	for _, a := range args {
		r.WriteString(` "` + strings.ReplaceAll(escaped(a), `"`, `\(dq`) + `"`)
	}
	r.WriteString("\n")
}

// line writes one escaped line; \& keeps its first character from being a request.
func (r *roff) line(s string) {
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	r.WriteString(s + "\n")
}

func (r *roff) text(s string) {
	for _, l := range fold(escaped(s), columns-2) {
		r.line(l)
	}
}

// paragraphs writes text as wrap sets it: a line that begins with a blank is kept.
func (r *roff) paragraphs(text string) {
	for i, par := range strings.Split(strings.TrimSpace(text), "\n") {
		switch {
		case strings.HasPrefix(par, " "):
			r.kept(par)
		case strings.TrimSpace(par) != "":
			if i > 0 {
				r.macro("PP")
			}
			r.text(par)
		}
	}
}

// kept writes lines unfilled, without the blanks that they begin with.
func (r *roff) kept(text string) {
	r.macro("PP")
	r.macro("nf")
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			r.line(escaped(l))
		}
	}
	r.macro("fi")
}

func (r *roff) item(name, meaning string) {
	r.macro("TP")
	r.macro("B", name)
	r.text(meaning)
}

func (r *roff) flags(flags []cli.Flag) {
	for _, f := range flags {
		name, usage, _ := strings.Cut(f.String(), "\t")
		r.item(name, strings.Replace(usage, " (default: false)", "", 1))
	}
}

func manVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name:  "man",
		Usage: "print the manual page of the program, for man",
		Description: "Prints the manual page in roff, made from the same words as the help pages: every verb with its flags, " +
			"examples and exit codes.",
		Action: Run(func(_ context.Context, env *Env, c *cli.Context) error {
			if _, err := Args(c); err != nil {
				return err
			}
			text := Man(p)
			env.Console.Result("man", struct {
				Section int    `json:"section"`
				Text    string `json:"text"`
			}{1, text}, func(w io.Writer) { _, _ = io.WriteString(w, text) })
			return nil
		}),
	}, Help{Examples: []string{p.Name + " man | man -l -", p.Name + " man > " + p.Name + ".1"}})
}
