package appkit

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// What may stand at a place of the command line is decided here, by the same
// verbs and flags that a run has; the scripts of the four shells only carry words
// in and candidates out, through the verb "complete" that no help page lists.
// Completion opens nothing but the state folder, asks nothing and tells no error:
// a shell that completes is no place for either.

// candidate is a word that may stand at the cursor, and what it means.
type candidate struct{ word, meaning string }

// The last line of an answer says which files may stand there beside the words.
const (
	noFiles  = ":none"
	anyFiles = ":files"
	folders  = ":folders"
)

// complete returns what may replace the last of words, which may be empty; the
// others stand before it. The kinds of argument are those of ArgsUsage and of the
// placeholders in the usage of flags: FILE, DIR, or the choices a|b|c themselves.
func complete(app *cli.App, words []string, live func(l *line, kind string) []candidate) (found []candidate, files string) {
	before, word := words[:len(words)-1], words[len(words)-1]
	l := parse(app, before)
	levels := []*level{{flags: app.Flags}}
	for _, c := range l.path {
		levels = append(levels, &level{flags: c.VisibleFlags()})
	}
	fit := func(prefix string, all []candidate) (fits []candidate) {
		for _, c := range all {
			if c.word = prefix + c.word; strings.HasPrefix(c.word, word) {
				fits = append(fits, c)
			}
		}
		return fits
	}
	value := func(prefix string, f cli.Flag) ([]candidate, string) {
		all, files := ofKind(placeholder(f))
		return fit(prefix, all), files
	}
	plain := slices.Contains(before, "--")
	if name, ok := strings.CutPrefix(word, "-"); ok && !plain {
		name, _, hasValue := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		if !hasValue {
			return fit("", flagCandidates(levels)), noFiles
		}
		if _, f := lookup(levels, name); f != nil && takesValue(f) {
			return value(word[:strings.Index(word, "=")+1], f)
		}
		return nil, noFiles
	}
	if n := len(before); n > 0 && !plain {
		last := before[n-1]
		if name := strings.TrimLeft(last, "-"); name != last && !strings.Contains(last, "=") {
			if _, f := lookup(levels, name); f != nil && takesValue(f) {
				return value("", f)
			}
		}
	}
	below, usage := app.Commands, ""
	if n := len(l.path); n > 0 {
		below, usage = l.path[n-1].Subcommands, l.path[n-1].ArgsUsage
	}
	if l.lost {
		return nil, noFiles
	}
	if len(l.args) == 0 {
		for _, c := range below {
			if !c.Hidden {
				found = append(found, candidate{c.Name, c.Usage})
			}
		}
	}
	kind := argument(usage, len(l.args))
	all, files := ofKind(kind)
	if kind == "VERB" {
		for _, c := range parse(app, l.args).path {
			app = &cli.App{Commands: c.Subcommands}
		}
		for _, c := range app.Commands {
			if !c.Hidden {
				all = append(all, candidate{c.Name, c.Usage})
			}
		}
	}
	if files == noFiles && live != nil {
		all = append(all, live(l, kind)...)
	}
	return fit("", append(found, all...)), files
}

// argument returns the kind of the n-th argument, as the usage spells it.
func argument(usage string, n int) string {
	kinds := strings.Fields(usage)
	if len(kinds) == 0 {
		return ""
	}
	kind := kinds[min(n, len(kinds)-1)]
	if n >= len(kinds) && !strings.Contains(kind, "…") {
		return ""
	}
	return strings.Trim(kind, "[]…")
}

// ofKind returns the words that a kind of value or argument allows by itself.
func ofKind(kind string) (all []candidate, files string) {
	switch {
	case strings.Contains(kind, "|"):
		for w := range strings.SplitSeq(kind, "|") {
			all = append(all, candidate{w, ""})
		}
		return all, noFiles
	case slices.Contains([]string{"FILE", "F", "FILE.html", "PATH", "BUNDLE", "CARD", "KEY"}, kind):
		return nil, anyFiles
	case kind == "DIR":
		return nil, folders
	}
	return nil, noFiles
}

// placeholder is the name of a flag's value, between the backquotes of its usage.
func placeholder(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	if p := strings.Split(d.GetUsage(), "`"); len(p) == 3 {
		return p[1]
	}
	return ""
}

func flagCandidates(levels []*level) (all []candidate) {
	for _, v := range slices.Backward(levels) {
		for _, f := range v.flags {
			usage := ""
			if d, ok := f.(cli.DocGenerationFlag); ok {
				usage = strings.ReplaceAll(d.GetUsage(), "`", "")
			}
			all = append(all, candidate{spelt(f.Names()[0]), usage})
		}
	}
	return append(all, candidate{"--help", "print the help page of the verb"})
}

// live returns the labels and trips that stand in the state folder. A shared state
// is not asked: its database may be slow, or want a password.
func (s *session) live(ctx context.Context, l *line, kind string) (all []candidate) {
	s.settings = l.settings(s.program.globals())
	if len(l.path) == 0 || s.settings.state != "" || s.settings.stateFile != "" || !slices.Contains([]string{"LABEL", "TRIP", "ID"}, kind) {
		return nil
	}
	e, err := s.env(ctx)
	if err != nil {
		return nil
	}
	at, err := e.Reading()
	if err != nil {
		return nil
	}
	switch {
	case kind != "LABEL":
		for _, t := range at.Ledger.Trips() {
			all = append(all, candidate{t.ID, t.State + " " + t.Data["cloud-id"]})
		}
	case l.path[0].Name == "approvers":
		for _, a := range at.Policy.All {
			all = append(all, candidate{a.Label, "approver"})
		}
	default:
		for _, p := range at.Peers {
			all = append(all, candidate{p.Label(), "pinned " + p.Card.Role})
		}
	}
	return all
}

// completeVerb is what the scripts run. It is told the words of the command line
// up to the cursor, and prints a candidate a line, its meaning behind a tab.
func completeVerb(p Program) *cli.Command {
	return &cli.Command{
		Name: "complete", Hidden: true,
		Action: func(c *cli.Context) error {
			s, ok := c.App.Metadata[sessionKey].(*session)
			if !ok {
				return fault.New(fault.Unexpected, "verb %q was not started by appkit.Main", c.Command.Name)
			}
			words := c.Args().Slice()
			if n := len(words); n == 0 || words[n-1] == `""` { // Windows PowerShell drops an empty word
				words = append(words[:max(n-1, 0)], "")
			}
			inner := *s
			found, files := complete(p.app(), words, func(l *line, kind string) []candidate { return inner.live(c.Context, l, kind) })
			var b strings.Builder
			for _, f := range found {
				fmt.Fprintf(&b, "%s\t%s\n", f.word, strings.Join(strings.Fields(f.meaning), " "))
			}
			s.console.Data([]byte(b.String() + files + "\n"))
			return nil
		},
	}
}

//go:embed completion.bash
var bashScript string

//go:embed completion.zsh
var zshScript string

//go:embed completion.fish
var fishScript string

//go:embed completion.ps1
var powershellScript string

func completionVerb(p Program) *cli.Command {
	shell := func(name, script, install string) *cli.Command {
		return Describe(&cli.Command{
			Name: name, Usage: "print the script for " + name,
			Description: "The script completes verbs, flags and their values, and the labels and trips of the state folder, by asking the program itself.",
			Action: Run(func(_ context.Context, env *Env, c *cli.Context) error {
				if _, err := Args(c); err != nil {
					return err
				}
				text := strings.NewReplacer("PROGRAM", p.Name, "FUNCTION", "_"+strings.ReplaceAll(p.Name, "-", "_")).Replace(script)
				env.Console.Result("completion", struct {
					Shell string `json:"shell"`
					Text  string `json:"text"`
				}{name, text}, func(w io.Writer) { _, _ = io.WriteString(w, text) })
				return nil
			}),
		}, Help{Examples: []string{fmt.Sprintf(install, p.Name, p.Name)}})
	}
	return Describe(&cli.Command{
		Name: "completion", Usage: "print a script that completes command lines in a shell",
		Description: "Prints the script for one shell; the shell reads it at its start. The PowerShell script is not tried by the tests of the project, the others are.",
		Subcommands: []*cli.Command{
			shell("bash", bashScript, "%s completion bash > ~/.local/share/bash-completion/completions/%s"),
			shell("zsh", zshScript, "%s completion zsh > ~/.zfunc/_%s   # where fpath holds ~/.zfunc"),
			shell("fish", fishScript, "%s completion fish > ~/.config/fish/completions/%s.fish"),
			shell("powershell", powershellScript, "%s completion powershell >> $PROFILE   # %s completes from the next session on"),
		},
	}, Help{Examples: []string{"# for this session of bash\nsource <(" + p.Name + " completion bash)", p.Name + " completion zsh"}})
}
