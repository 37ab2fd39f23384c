package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// keyboard is what each key of a keyboard types without and with Shift; the keys
// stand in the same order in all of them, row by row as on a desk.
type keyboard struct{ plain, shift string }

var keyboards = map[string]keyboard{
	"US": {"`1234567890-=qwertyuiop[]\\asdfghjkl;'zxcvbnm,./", "~!@#$%^&*()_+QWERTYUIOP{}|ASDFGHJKL:\"ZXCVBNM<>?"},
	"DE": {"^1234567890ß´qwertzuiopü+#asdfghjklöäyxcvbnm,.-", "°!\"§$%&/()=?`QWERTZUIOPÜ*'ASDFGHJKLÖÄYXCVBNM;:_"},
	"FR": {"²&é\"'(-è_çà)=azertyuiop^$*qsdfghjklmùwxcvbn,;:!", "²1234567890°+AZERTYUIOP¨£µQSDFGHJKLM%WXCVBN?./§"},
	"IT": {"\\1234567890'ìqwertyuiopè+ùasdfghjklòàzxcvbnm,.-", "|!\"£$%&/()=?^QWERTYUIOPé*§ASDFGHJKLç°ZXCVBNM;:_"},
}

// wedge types text as a handheld scanner that is set to a US keyboard does, into
// a machine with another. With small the scanner types letters without Shift.
// caps is CapsLock of the machine: "" off, "letters" as most systems have it,
// "all" where it moves every key (Windows with a German or French layout).
func wedge(t *testing.T, text, machine, caps string, small bool) string {
	t.Helper()
	us, to := keyboards["US"], keyboards[machine]
	at := func(row string, r rune) int {
		for i, k := range []rune(row) {
			if k == r {
				return i
			}
		}
		return -1
	}
	var out []rune
	for _, r := range text {
		if r == ' ' {
			out = append(out, r)
			continue
		}
		key, shift := at(us.plain, r), false
		if key < 0 {
			key, shift = at(us.shift, r), true
		}
		if key < 0 {
			t.Fatalf("a US keyboard has no %q", r)
		}
		if small && unicode.IsLetter(r) {
			shift = false
		}
		plain, shifted := []rune(to.plain)[key], []rune(to.shift)[key]
		if caps == "all" && plain != '´' || caps == "letters" && unicode.ToUpper(plain) == shifted {
			shift = !shift
		}
		if shift {
			plain = shifted
		}
		out = append(out, plain)
	}
	// The dead keys of the German layout compose.
	var typed strings.Builder
	for i := 0; i < len(out); i++ {
		if out[i] != '`' && out[i] != '´' || machine != "DE" || i+1 == len(out) {
			typed.WriteRune(out[i])
			continue
		}
		next := out[i+1]
		made := strings.NewReplacer("`A", "À", "`E", "È", "`I", "Ì", "`O", "Ò", "`U", "Ù", "´A", "Á", "´E", "É", "´I", "Í", "´O", "Ó", "´U", "Ú", "´Y", "Ý").
			Replace(string([]rune{out[i], unicode.ToUpper(next)}))
		switch {
		case next == ' ':
			typed.WriteRune(out[i])
		case len([]rune(made)) == 1 && unicode.IsUpper(next):
			typed.WriteString(made)
		case len([]rune(made)) == 1:
			typed.WriteString(strings.ToLower(made))
		default:
			typed.WriteRune(out[i])
			typed.WriteRune(next)
		}
		i++
	}
	return typed.String()
}

// What a scanner types reads back whatever keyboard the machine believes in.
// With the German dead key a blank behind it vanishes; one or two a frame are
// put back, and frames with more may be lost, since any others do as well.
func TestEveryKeyboardReadsBack(t *testing.T) {
	s := split(t, sample(2000, 5), 10)
	for machine := range keyboards {
		for _, caps := range []string{"", "letters", "all"} {
			if caps == "all" && machine != "DE" && machine != "FR" {
				continue
			}
			for _, small := range []bool{false, true} {
				lost := 0
				for i := range s.N() {
					text, err := s.Text(i)
					if err != nil {
						t.Fatal(err)
					}
					typed := wedge(t, text, machine, caps, small)
					f, err := ParseTyped("  " + typed + "\r\n")
					if err == nil && f.Text() != text {
						t.Fatalf("%s, CapsLock %q: frame %d reads back as another", machine, caps, i)
					}
					if err != nil {
						lost++
						if machine != "DE" {
							t.Errorf("%s, CapsLock %q, small %t: frame %d: %v\n%s\n%s", machine, caps, small, i, err, text, typed)
						}
					}
				}
				if lost > s.N()/20 {
					t.Errorf("%s, CapsLock %q, small %t: %d of %d frames are lost", machine, caps, small, lost, s.N())
				}
			}
		}
	}
}

func TestTypedLinesThatAreNoFrame(t *testing.T) {
	text := frameAt(t, split(t, sample(300, 5), 5), 1).Text()
	spaced := text
	for i := 0; !strings.Contains(spaced, " "); i++ {
		spaced = frameAt(t, split(t, sample(300, uint64(i)), 5), 1).Text()
	}
	for _, c := range []struct{ name, line, want string }{
		{"nothing", "", "does not begin"},
		{"line end", "\r\n", "does not begin"},
		{"a word", "hello", "does not begin"},
		{"cut", text[:len(text)-3], "checksum"},
		{"digits swapped", text[:20] + text[21:22] + text[20:21] + text[22:], ""},
		{"blank squeezed", strings.ReplaceAll(spaced, " ", ""), ""},
		{"not UTF-8", "AZ1\xff\xfe", "character"},
		{"long", "AZ1" + strings.Repeat("+", 5000), "longer than"},
		{"dead keys only", "AY1" + strings.Repeat("`", 4000), ""},
	} {
		_, err := ParseTyped(c.line)
		if fault.KindOf(err) != fault.Refused || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Linux types a capital ß with CapsLock, where Windows types a question mark.
func TestCapitalSharpS(t *testing.T) {
	s := split(t, sample(2000, 5), 5)
	tried := 0
	for i := range s.N() {
		text := frameAt(t, s, i).Text()
		if !strings.Contains(text, "-") || strings.Contains(text, "+") {
			continue
		}
		typed := strings.ReplaceAll(wedge(t, text, "DE", "letters", false), "ß", "ẞ")
		if f, err := ParseTyped(typed); err != nil || f.Text() != text {
			t.Errorf("frame %d: %v", i, err)
		}
		tried++
	}
	if tried == 0 {
		t.Error("no frame has a minus and no plus")
	}
}

// A mixture of reader and keyboard, in two cases, joins.
func TestTypedAndSeenFramesJoin(t *testing.T) {
	s := split(t, sample(2500, 9), 10)
	r := rand.New(rand.NewPCG(3, 4))
	j := NewJoiner()
	for n, i := range r.Perm(s.N())[:s.K()] {
		f := frameAt(t, s, i)
		if n%2 == 0 {
			var err error
			if f, err = ParseTyped(strings.ToLower(f.Text()) + "\r"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := j.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := j.Join(s.ID()); err != nil || !bytes.Equal(got, s.wire) {
		t.Error(err)
	}
}
