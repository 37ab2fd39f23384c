package appkit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// TestExitCodesDocument holds docs/EXIT-CODES.md, on which scripts depend, to the
// code: exactly the kinds that exist, in their order, with the names that --json
// prints and the meanings of the help pages, and a section for each.
func TestExitCodesDocument(t *testing.T) {
	doc, rows := exitCodesDocument(t)
	want := []string{"0||done"}
	for _, k := range fault.Kinds() {
		if appkit.Meaning(k) == "" {
			t.Errorf("exit code %d (%s) has no meaning", k, k)
		}
		want = append(want, fmt.Sprintf("%d|%s|%s", k, k, appkit.Meaning(k)))
	}
	var got []string
	for _, r := range rows {
		got = append(got, strings.Join(r[:3], "|"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table (-code +document):\n%s", diff)
	}
	var heads, sections []string
	for _, k := range fault.Kinds() {
		heads = append(heads, fmt.Sprintf("%d · %s", k, k))
	}
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(doc, -1) {
		sections = append(sections, m[1])
	}
	if diff := cmp.Diff(heads, sections); diff != "" {
		t.Errorf("the sections (-code +document):\n%s", diff)
	}
}

// TestExitCodesOfCommands compares the commands that the document names for each
// code with the help pages of both real programs.
func TestExitCodesOfCommands(t *testing.T) {
	_, rows := exitCodesDocument(t)
	for column, program := range []string{"azs-agent", "azs-relay"} {
		t.Run(program, func(t *testing.T) {
			text := helpOf(t, program)
			verbs := map[string][]string{} // by exit code
			for _, verb := range firstWords(text("help"), "VERBS") {
				for _, code := range firstWords(text("help", verb), "EXIT CODES") {
					verbs[code] = append(verbs[code], verb)
				}
			}
			all := verbs["0"]
			for _, r := range rows {
				var want string
				switch given := verbs[r[0]]; {
				case len(given) == 0:
					want = "none"
				case slices.Equal(given, all):
					want = "every command"
				default:
					want = "`" + strings.Join(given, "` `") + "`"
				}
				if diff := cmp.Diff(want, r[3+column]); diff != "" {
					t.Errorf("code %s (-help +document):\n%s", r[0], diff)
				}
				delete(verbs, r[0])
			}
			if len(verbs) > 0 {
				t.Errorf("the help names codes that the document lacks: %v", slices.Sorted(maps.Keys(verbs)))
			}
		})
	}
}

// exitCodesDocument returns docs/EXIT-CODES.md and the rows of its first table,
// each with five cells.
func exitCodesDocument(t *testing.T) (doc string, rows [][]string) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "EXIT-CODES.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if _, err := strconv.Atoi(cells[0]); err == nil && len(cells) == 5 {
			rows = append(rows, cells)
		}
	}
	return string(b), rows
}

// helpOf returns the reader of a program's help pages, or skips when it was not
// built.
func helpOf(t *testing.T, program string) func(args ...string) string {
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	dir := os.Getenv("AZS_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "bin")
	}
	path, err := filepath.Abs(filepath.Join(dir, program))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("AZS_REQUIRE_BIN") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v: make build makes it", err)
	}
	return func(args ...string) string {
		out, err := exec.Command(path, append(args, "--json")...).Output()
		if err != nil {
			t.Fatalf("%s %v: %v", program, args, err)
		}
		var page struct{ Text string }
		if err := json.NewDecoder(bytes.NewReader(out)).Decode(&page); err != nil {
			t.Fatalf("%s %v: %v in %q", program, args, err, out)
		}
		return page.Text
	}
}

// firstWords returns the left column of a section of a help page.
func firstWords(page, section string) []string {
	_, rest, _ := strings.Cut(page, section+":\n")
	rest, _, _ = strings.Cut(rest, "\n\n")
	var words []string
	for _, m := range regexp.MustCompile(`(?m)^ {3}(\S+)`).FindAllStringSubmatch(rest, -1) {
		words = append(words, m[1])
	}
	return words
}
