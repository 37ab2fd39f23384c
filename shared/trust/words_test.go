package trust

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func fixedWords(t testing.TB) Words {
	t.Helper()
	w, err := PairWords(fixedCard(t, bundle.RoleAgent, "agent", "site-a"), fixedCard(t, bundle.RoleRelay, "relay", "relay-1"))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// The words of two cards made of the published keys of testdata/vectors. Another
// implementation must get the same.
func TestWordsVector(t *testing.T) {
	agent, relay := fixedCard(t, bundle.RoleAgent, "agent", "site-a"), fixedCard(t, bundle.RoleRelay, "relay", "relay-1")
	id, err := PairID(agent, relay)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"pair": fixedWords(t).String(), "agent": CardWords(agent).String(), "relay": CardWords(relay).String(), "id": id.String()}
	want := map[string]string{
		"pair":  "detail floor between claim spell million true scheme exchange movie borrow buzz",
		"agent": "matrix foil syrup advice orbit release music seminar mom peasant ensure soft",
		"relay": "sing inquiry develop state fall supreme monitor any urban unit taste fruit",
		"id":    "CDBC124SC20SCQSPRVK6S0V0SW",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("words differ (-want +got):\n%s", diff)
	}
}

// Eleven bits a word, the most significant first, over the ends of bytes.
func TestSpell(t *testing.T) {
	for _, tt := range []struct {
		name string
		sum  bundle.Digest
		want string
	}{
		{"zero", bundle.Digest{}, strings.TrimSpace(strings.Repeat("abandon ", 12))},
		{"ones", bundle.Digest(slices.Repeat([]byte{0xff}, 32)), strings.TrimSpace(strings.Repeat("zoo ", 12))},
		{"last bit of the first word", bundle.Digest{1: 0x20}, "ability" + strings.Repeat(" abandon", 11)},
		{"first bit of the second word", bundle.Digest{1: 0x10}, "abandon " + wordlists.English[1024] + strings.Repeat(" abandon", 10)},
		{"last bit of the last word", bundle.Digest{16: 0x10}, strings.Repeat("abandon ", 11) + "ability"},
		{"behind the last word", bundle.Digest{16: 0x0f, 17: 0xff}, strings.TrimSpace(strings.Repeat("abandon ", 12))},
	} {
		if got := spell(tt.sum).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestTheListIsFitForReadingOut(t *testing.T) {
	seen := map[string]string{}
	for _, word := range wordlists.English {
		if other, ok := seen[word[:min(4, len(word))]]; ok {
			t.Errorf("%q and %q begin alike", word, other)
		}
		seen[word[:min(4, len(word))]] = word
	}
	if len(wordlists.English) != 2048 || !slices.IsSorted(wordlists.English) {
		t.Errorf("the list has %d words", len(wordlists.English))
	}
	// What fits one word fits no other.
	for _, a := range []string{"act", "acti", "action", "actor", "actr", "actress", "add", "addi", "art", "arti"} {
		fit := 0
		for _, word := range wordlists.English {
			if fits(word, a) {
				fit++
			}
		}
		if fit > 1 {
			t.Errorf("%q fits %d words", a, fit)
		}
	}
}

func TestExpect(t *testing.T) {
	w := fixedWords(t)
	short := make([]string, WordCount)
	for i, word := range w {
		short[i] = word[:min(4, len(word))]
	}
	for name, typed := range map[string]string{
		"as printed":         w.String(),
		"capitals":           strings.ToUpper(w.String()),
		"commas":             strings.Join(w[:], ", "),
		"hyphens":            strings.Join(w[:], "-"),
		"lines":              "\n" + strings.Join(w[:], "\r\n") + "\t ",
		"four letters":       strings.Join(short, " "),
		"blanks all over":    "  " + strings.Join(w[:], "   ") + "  ",
		"first letter large": strings.ToUpper(w[0][:1]) + w.String()[1:],
	} {
		if err := w.Expect(typed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range w {
		other := w
		if other[i] = "zoo"; w[i] == "zoo" {
			other[i] = "abandon"
		}
		wantKind(t, w.Expect(other.String()), fault.NotForUs, "the words differ", other.String())
		cut := slices.Clone(w[:])
		if cut[i] = cut[i][:3]; len(w[i]) > 3 {
			wantKind(t, w.Expect(strings.Join(cut, " ")), fault.NotForUs)
		}
		wantKind(t, w.Expect(strings.Join(slices.Delete(slices.Clone(w[:]), i, i+1), " ")), fault.Usage, "11 words were given, want 12")
	}
	wantKind(t, w.Expect(""), fault.Usage)
	wantKind(t, w.Expect(w.String()+" zoo"), fault.Usage, "13 words")
	swapped := w
	swapped[0], swapped[1] = w[1], w[0]
	wantKind(t, w.Expect(swapped.String()), fault.NotForUs)
	wantKind(t, w.Expect(w.String()[:len(w.String())-1]+"\x1b"), fault.NotForUs, `\x1b`)
}

func TestCheck(t *testing.T) {
	w := fixedWords(t)
	for i, word := range w {
		for _, ok := range []string{word, strings.ToUpper(word), " " + word + "\n", word[:min(4, len(word))]} {
			if err := w.Check(i+1, ok); err != nil {
				t.Errorf("word %d as %q: %v", i+1, ok, err)
			}
		}
		for _, bad := range []string{"", " ", word + "x", word[:1], "zebra crossing"} {
			wantKind(t, w.Check(i+1, bad), fault.NotForUs)
		}
		// The answer must not stand in the refusal.
		if err := w.Check(i+1, "zzzz"); strings.Contains(err.Error(), word) {
			t.Errorf("the refusal tells the word: %v", err)
		}
	}
}

// Each side asks for four words of those that the other side shows.
func TestPositions(t *testing.T) {
	const draws = 3000
	counts := map[int]int{}
	for range draws {
		for _, role := range []string{bundle.RoleAgent, bundle.RoleRelay} {
			ps, err := Positions(rand.Reader, role)
			if err != nil {
				t.Fatal(err)
			}
			if len(ps) != 4 || !slices.IsSorted(ps) || len(slices.Compact(slices.Clone(ps))) != 4 {
				t.Fatalf("positions %v", ps)
			}
			for _, p := range ps {
				if p < 1 || p > WordCount || (p%2 == 1) != (role == bundle.RoleAgent) {
					t.Fatalf("a %s asks for word %d", role, p)
				}
				counts[p]++
			}
		}
	}
	// Each of twelve is drawn with chance 2/3: 2000 of 3000, standard deviation 26.
	for p := 1; p <= WordCount; p++ {
		if n := counts[p]; n < 1800 || n > 2200 {
			t.Errorf("position %d was drawn %d times of %d", p, n, draws)
		}
	}
	broken := errors.New("no randomness")
	if _, err := Positions(iotest.ErrReader(broken), bundle.RoleAgent); !errors.Is(err, broken) {
		t.Errorf("without randomness: %v", err)
	}
}

func TestHideBlanksExactlyTheAsked(t *testing.T) {
	w := Words{"alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima"}
	for range 200 {
		ps, err := Positions(rand.Reader, bundle.RoleAgent)
		if err != nil {
			t.Fatal(err)
		}
		text := w.Hide(ps)
		if strings.Count(text, "____") != len(ps) || strings.Count(text, "\n") != 3 {
			t.Fatalf("hidden %v:\n%s", ps, text)
		}
		for i, word := range w {
			if slices.Contains(ps, i+1) == strings.Contains(text, word) {
				t.Errorf("hidden %v, word %d %q:\n%s", ps, i+1, word, text)
			}
		}
	}
	if text := w.Hide(nil); strings.Contains(text, "_") {
		t.Errorf("nothing to hide:\n%s", text)
	}
}
