package shared_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMap holds the map in doc.go: it names exactly the packages that exist, and
// none imports one that stands below it.
func TestMap(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var drawn []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(\S+)  +\S`).FindAllStringSubmatch(string(doc), -1) {
		drawn = append(drawn, m[1])
	}
	imports := map[string][]string{} // by package: those of this module, without tests
	err = filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		dir := path.Dir(filepath.ToSlash(file))
		if err != nil || d.IsDir() || dir == "." || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if imports[dir] == nil {
			imports[dir] = []string{}
		}
		for _, i := range parsed.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if own, ok := strings.CutPrefix(name, "github.com/azs-courier/azs-courier/"); ok {
				imports[dir] = append(imports[dir], strings.TrimPrefix(own, "shared/"))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for name, uses := range imports {
		there = append(there, name)
		for _, used := range uses {
			if at := slices.Index(drawn, used); at < 0 || at >= slices.Index(drawn, name) {
				t.Errorf("%s imports %s, which does not stand above it in the map", name, used)
			}
		}
	}
	slices.Sort(there)
	if diff := cmp.Diff(there, slices.Sorted(slices.Values(drawn))); diff != "" {
		t.Errorf("the map (-folders +doc.go):\n%s", diff)
	}
}

// TestDecisions holds the list in docs/adr/README.md: every page is in it, in its
// order and under its own title.
func TestDecisions(t *testing.T) {
	dir := filepath.Join("..", "docs", "adr")
	pages, err := filepath.Glob(filepath.Join(dir, "[0-9]*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no decisions in %s: %v", dir, err)
	}
	var want, got []string
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		want = append(want, "- ["+strings.TrimSpace(title)+"]("+filepath.Base(page)+")")
	}
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(index)) {
		if strings.HasPrefix(line, "- [") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the list (-pages +README.md):\n%s", diff)
	}
}
