package shared_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/azs-courier/azs-courier/"

// goList runs go list in this module and returns its words.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go tool here: %v", err)
	}
	out, err := exec.Command(tool, append([]string{"list"}, args...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// The shared module knows neither program, nor what only one of them talks to.
func TestSharedLinksNeitherSide(t *testing.T) {
	for _, p := range goList(t, "-deps", "./...") {
		for _, foreign := range []string{module + "agent", module + "relay", "github.com/Azure/", "github.com/AzureAD/", "github.com/jackc/", "github.com/masterzen/", "github.com/bodgit/"} {
			if strings.HasPrefix(p, foreign) {
				t.Errorf("the shared module links %s", p)
			}
		}
	}
}

// The format, the signatures, the errors and the frames touch no disk, no network
// and no randomness by themselves, so that vectors reproduce.
func TestPureRooms(t *testing.T) {
	for _, room := range []string{"bundle", "sshsig", "clock", "fault", "frame"} {
		for _, p := range goList(t, "-f", `{{join .Imports "\n"}}`, "./"+room) {
			switch {
			case p == "os", p == "net", p == "io/fs", p == "io/ioutil", p == "crypto/rand", p == "math/rand", p == "math/rand/v2", p == "path/filepath", p == "syscall", p == "log",
				strings.HasPrefix(p, "os/"), strings.HasPrefix(p, "net/"), strings.HasPrefix(p, "log/"):
				t.Errorf("package %s imports %s", room, p)
			}
		}
	}
}

// Imports run from the command line down: what holds a use case, a key or a
// format knows no terminal and no flag.
func TestNothingBelowTheCommandLineKnowsIt(t *testing.T) {
	for _, p := range goList(t, "./...") {
		room := strings.TrimPrefix(p, module+"shared")
		if room == "/appkit" || room == "/console" {
			continue
		}
		for _, dep := range goList(t, "-deps", p) {
			if strings.HasPrefix(dep, "github.com/urfave/") || dep == module+"shared/appkit" || dep == module+"shared/console" {
				t.Errorf("package %s links %s", p, dep)
			}
		}
	}
}

// rule is a use of the standard library that has its few places.
type rule struct {
	what    string
	uses    func(pkg, name string) bool
	allowed func(dir, file, packageName string) bool
}

var rules = []rule{
	{
		"ends the process", func(pkg, name string) bool {
			return pkg == "os" && name == "Exit" || pkg == "log" && strings.HasPrefix(name, "Fatal") || pkg == "syscall" && name == "Exit"
		},
		// boundary_inject.go is the kill of the tests, behind a build tag.
		func(_, file, packageName string) bool {
			return packageName == "main" || file == "shared/internal/atomicfile/boundary_inject.go"
		},
	},
	{
		"writes to the terminal", func(pkg, name string) bool {
			return pkg == "os" && (name == "Stdout" || name == "Stderr" || name == "Stdin") ||
				pkg == "fmt" && (name == "Print" || name == "Println" || name == "Printf" || name == "Scan" || name == "Scanln") ||
				pkg == "log" && name != "New" && name != "Logger" // the standard logger; one of its own goes where it is told
		},
		func(dir, _, packageName string) bool {
			return packageName == "main" || dir == "shared/console" || dir == "shared/appkit"
		},
	},
	{
		"reads the machine's clock", func(pkg, name string) bool {
			return pkg == "time" && (name == "Now" || name == "Since" || name == "Until")
		},
		// The simulated far ends keep their own time, as the real ones do; the sealed
		// transport gives its connections deadlines, which are the machine's.
		func(dir, _, _ string) bool {
			return slices.Contains([]string{"shared/clock", "relay/azuretest", "agent/peptest", "agent/internal/wsman/sealed", "agent/internal/wsman/sealed/sealedtest"}, dir)
		},
	},
}

// TestDoors holds, over the source of all three modules, that only main ends the
// process, only console and appkit meet the terminal, only clock reads the time.
func TestDoors(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	used := make([]int, len(rules))
	for _, m := range []string{"agent", "relay", "shared"} {
		err := filepath.WalkDir(filepath.Join(root, m), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			rel, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			checkDoors(t, file, filepath.ToSlash(rel), used)
			return nil
		})
		if errors.Is(err, fs.ErrNotExist) {
			t.Skipf("the module %s is not beside this one", m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range used {
		if n == 0 {
			t.Errorf("nobody %s: the rule finds nothing", rules[i].what)
		}
	}
}

func checkDoors(t *testing.T, file, rel string, used []int) {
	t.Helper()
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Error(err)
		return
	}
	names := map[string]string{} // by the name in this file: the standard package
	for _, spec := range parsed.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil || !slices.Contains([]string{"os", "fmt", "log", "syscall", "time"}, p) {
			continue
		}
		name := p
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			t.Errorf("%s imports %s into its own names", rel, p)
		}
		names[name] = p
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || names[x.Name] == "" {
			return true
		}
		for i, r := range rules {
			if !r.uses(names[x.Name], sel.Sel.Name) {
				continue
			}
			used[i]++
			if !r.allowed(path.Dir(rel), rel, parsed.Name.Name) {
				t.Errorf("%s: %s.%s %s", fset.Position(sel.Pos()), x.Name, sel.Sel.Name, r.what)
			}
		}
		return true
	})
}
