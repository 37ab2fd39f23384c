package shared_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestThreatsDocument walks docs/THREATS.md: every function, test and script that
// it names exists, and every row of the tables of what is built names at least one
// test.
func TestThreatsDocument(t *testing.T) {
	root := ".."
	doc, err := os.ReadFile(filepath.Join(root, "docs", "THREATS.md"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the documents are not beside this module")
	}
	if err != nil {
		t.Fatal(err)
	}
	named, script := namedFunction, namedScript
	files := map[string]map[string]bool{}
	declared := func(file string) map[string]bool {
		if files[file] == nil {
			names, err := functions(filepath.Join(root, filepath.FromSlash(file)))
			if err != nil {
				t.Error(err)
				names = map[string]bool{}
			}
			files[file] = names
		}
		return files[file]
	}
	built, rows := true, 0
	for n, line := range strings.Split(string(doc), "\n") {
		if strings.HasPrefix(line, "## ") {
			built = line != "## Not built yet" && line != "## Limits that are known"
		}
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			if !declared(m[2])[m[1]] {
				t.Errorf("line %d: %s has no %s", n+1, m[2], m[1])
			}
		}
		for _, m := range script.FindAllStringSubmatch(line, -1) {
			if _, err := os.Stat(filepath.Join(root, "testdata", "script", m[1])); err != nil {
				t.Errorf("line %d: %v", n+1, err)
			}
		}
		if !built || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| threat |") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 3 {
			t.Errorf("line %d: %d cells, want threat, control and test", n+1, len(cells))
			continue
		}
		tests := len(script.FindAllString(cells[2], -1))
		for _, m := range named.FindAllStringSubmatch(cells[2], -1) {
			if !strings.HasPrefix(m[1], "Test") || !strings.HasSuffix(m[2], "_test.go") {
				t.Errorf("line %d: %s in %s is no test", n+1, m[1], m[2])
			}
			tests++
		}
		if tests == 0 {
			t.Errorf("line %d: no test for %q", n+1, cells[0])
		}
	}
	if rows < 30 {
		t.Errorf("%d rows were found", rows)
	}
}

// functions returns the functions of a file, methods as Type.Method.
func functions(file string) (map[string]bool, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		names[functionName(f)] = true
	}
	return names, nil
}

// functionName is a function's name, a method's Type.Method.
func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if id, ok := of.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}
