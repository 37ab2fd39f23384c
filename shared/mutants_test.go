package shared_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// A mutant is one control of docs/THREATS.md taken out. The files of
// ../testdata/mutants hold them, separated by blank lines:
//
//	# an age file with another digest is decrypted
//	control Bundle.Verify in shared/bundle/bundle.go
//	red TestFlip in shared/bundle/flip_test.go
//	-	if sha256.Sum256(b.age) != m.SHA256 {
//	+	if false {
//
// Lines with - are what the mutant takes out, which stands exactly once in the
// function that is the control, lines with + are put in its place, and there may
// be several such pairs. Each line "red" names one test or script that fails then.
// A control without a mutant says why, in an entry of its own:
//
//	# tried by a script for as long as the machine has no PostgreSQL
//	none DB.Claim in relay/internal/pgstate/claim.go
type mutant struct {
	name    string // what the world is like without the control
	control reference
	red     []reference
	edits   []edit
	none    bool // name is the reason that there is no mutant
	at      string
}

// A reference is a function, test or script: Name in the file, slashed and below
// the top folder. A script has its file alone.
type reference struct{ name, file string }

func (r reference) String() string {
	if r.name == "" {
		return path.Base(r.file)
	}
	return r.name + " in " + r.file
}

// An edit takes out one text and puts another in its place.
type edit struct{ before, after string }

var (
	namedFunction = regexp.MustCompile("`([A-Za-z]+(?:\\.[A-Za-z]+)?)` in `([a-z0-9_/]+\\.go)`")
	namedScript   = regexp.MustCompile("`([a-z0-9-]+\\.txtar)`")
	refersTo      = regexp.MustCompile(`^(?:([A-Za-z]+(?:\.[A-Za-z]+)?) in ([a-z0-9_/]+\.go)|([a-z0-9-]+\.txtar))$`)
)

// scriptFile is where a script stands.
func scriptFile(name string) string { return "testdata/script/" + name }

// mutants reads every mutant.
func mutants(t *testing.T, root string) (all []mutant) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "testdata", "mutants", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("the mutants are not beside this module")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		line := 1
		for _, text := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n\n") {
			m, err := parseMutant(text)
			m.at = fmt.Sprintf("%s:%d", filepath.Base(file), line)
			if err != nil {
				t.Errorf("%s: %v", m.at, err)
			}
			all = append(all, m)
			line += strings.Count(text, "\n") + 2
		}
	}
	return all
}

func parseMutant(text string) (m mutant, err error) {
	last := ""
	for _, line := range strings.Split(text, "\n") {
		word, rest, _ := strings.Cut(line, " ")
		kind := line[:min(1, len(line))]
		switch {
		case kind == "#":
			m.name = strings.TrimSpace(m.name + " " + rest)
		case kind == "-" && last == "-":
			m.edits[len(m.edits)-1].before += "\n" + line[1:]
		case kind == "-":
			m.edits = append(m.edits, edit{before: line[1:]})
		case kind == "+" && last == "-":
			m.edits[len(m.edits)-1].after = line[1:]
		case kind == "+" && last == "+":
			m.edits[len(m.edits)-1].after += "\n" + line[1:]
		case word == "control" || word == "red" || word == "none":
			at := refersTo.FindStringSubmatch(rest)
			if at == nil {
				return m, fmt.Errorf("%q names no function in a file and no script", rest)
			}
			ref := reference{at[1], at[2]}
			if at[3] != "" {
				ref = reference{file: scriptFile(at[3])}
			}
			if word == "red" {
				m.red = append(m.red, ref)
				break
			}
			if m.control.file != "" {
				return m, errors.New("a mutant has one control")
			}
			m.control, m.none = ref, word == "none"
		default:
			return m, fmt.Errorf("%q is no line of a mutant", line)
		}
		last = kind
	}
	switch {
	case m.name == "":
		err = errors.New("a mutant has a name")
	case m.control.name == "":
		err = errors.New("a mutant has a control, which is a function")
	case m.none && (len(m.red) > 0 || len(m.edits) > 0):
		err = errors.New("a reason for no mutant has neither a test nor an edit")
	case !m.none && (len(m.red) == 0 || len(m.edits) == 0):
		err = errors.New("a mutant has a test that goes red, and an edit")
	}
	return m, err
}

// apply returns the file of the control without it.
func (m mutant) apply(root string) ([]byte, error) {
	name := filepath.Join(root, filepath.FromSlash(m.control.file))
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		return nil, err
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || functionName(f) != m.control.name {
			continue
		}
		from, to := fset.Position(f.Pos()).Offset, fset.Position(f.End()).Offset
		body := src[from:to]
		for _, e := range m.edits {
			if n := bytes.Count(body, []byte(e.before)); n != 1 {
				return nil, fmt.Errorf("%s has %d times %q, want it once", m.control, n, e.before)
			}
			body = bytes.Replace(body, []byte(e.before), []byte(e.after), 1)
		}
		out := slices.Concat(src[:from], body, src[to:])
		if _, err := parser.ParseFile(token.NewFileSet(), name, out, 0); err != nil {
			return nil, fmt.Errorf("what it leaves is no Go: %w", err)
		}
		return out, nil
	}
	return nil, fmt.Errorf("there is no %s", m.control)
}

// TestMutantsApply holds the mutants to the code and to docs/THREATS.md: each finds
// what it takes out, its tests are there, and every control of every row has a
// mutant that turns a test of that row red, or a reason why not. make mutants
// (TestMutants) then runs them.
func TestMutantsApply(t *testing.T) {
	root := ".."
	all := mutants(t, root)
	killed := map[reference]map[reference]bool{} // control → the tests that its mutants turn red
	reasons := map[reference]bool{}
	names := map[string]string{}
	for _, m := range all {
		if other := names[m.name]; other != "" && !m.none {
			t.Errorf("%s and %s have one name, %q", other, m.at, m.name)
		}
		names[m.name] = m.at
		if m.none {
			reasons[m.control] = true
			continue
		}
		if _, err := m.apply(root); err != nil {
			t.Errorf("%s: %q: %v", m.at, m.name, err)
		}
		if killed[m.control] == nil {
			killed[m.control] = map[reference]bool{}
		}
		for _, r := range m.red {
			killed[m.control][r] = true
			file := filepath.Join(root, filepath.FromSlash(r.file))
			if r.name == "" {
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s: %v", m.at, err)
				}
			} else if declared, err := functions(file); err != nil || !declared[r.name] {
				t.Errorf("%s: there is no %s: %v", m.at, r, err)
			}
		}
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs", "THREATS.md"))
	if err != nil {
		t.Fatal(err)
	}
	used := map[reference]bool{}
	for n, line := range strings.Split(string(doc), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 {
			continue
		}
		var tests []reference
		for _, at := range namedFunction.FindAllStringSubmatch(cells[2], -1) {
			tests = append(tests, reference{at[1], at[2]})
		}
		for _, at := range namedScript.FindAllStringSubmatch(cells[2], -1) {
			tests = append(tests, reference{file: scriptFile(at[1])})
		}
		for _, at := range namedFunction.FindAllStringSubmatch(cells[1], -1) {
			control := reference{at[1], at[2]}
			used[control] = true
			if !reasons[control] && !slices.ContainsFunc(tests, func(test reference) bool { return killed[control][test] }) {
				t.Errorf("docs/THREATS.md line %d (%s): no mutant of %s turns a test of this row red, and no reason says why", n+1, cells[0], control)
			}
		}
	}
	for control := range reasons {
		if !used[control] {
			t.Errorf("a reason speaks of %s, which docs/THREATS.md does not name", control)
		}
	}
}

// TestMutants takes the controls out one after the other, in an overlay that
// leaves the checkout alone, and runs the tests that the mutant names: each fails.
// A mutant that does not compile, a test that hangs and a test that still passes
// fail this one. It takes minutes and runs where AZS_MUTANTS is 1 (make mutants);
// two at a time, -run 'TestMutants/NAME' for some.
func TestMutants(t *testing.T) {
	if os.Getenv("AZS_MUTANTS") != "1" {
		t.Skip("AZS_MUTANTS is not 1 (make mutants)")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	all := slices.DeleteFunc(mutants(t, root), func(m mutant) bool { return m.none })
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			m.run(t, root)
			if !t.Failed() {
				t.Logf("red in %.0f s: %v", time.Since(start).Seconds(), m.red)
			}
		})
	}
}

// run tries one mutant.
func (m mutant) run(t *testing.T, root string) {
	mutated, err := m.apply(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay, file := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.go")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, filepath.FromSlash(m.control.file)): file}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{overlay: replace, file: mutated} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	built := map[string]string{} // what was built, by its arguments
	build := func(args ...string) string {
		key := strings.Join(args, " ")
		if built[key] == "" {
			out := filepath.Join(dir, fmt.Sprintf("built-%d", len(built)))
			if runtime.GOOS == "windows" {
				out += ".exe"
			}
			cmd := exec.Command("go", slices.Concat(args[:1:1], []string{"-overlay", overlay, "-o", out}, args[1:])...)
			cmd.Args = slices.DeleteFunc(cmd.Args, func(s string) bool { return s == "" })
			cmd.Dir = root
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s does not build (%v): %v\n%s", m.at, args, err, said)
			}
			built[key] = out
		}
		return built[key]
	}
	for _, r := range m.red {
		pkg, name, run, tags := path.Dir(r.file), r.name, "^"+r.name+"$", ""
		// Some tests build the programs themselves.
		env := append(os.Environ(), "AZS_REQUIRE_BIN=1", strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay))
		src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(r.file)))
		if err != nil {
			t.Fatal(err)
		}
		if r.name == "" || bytes.Contains(src, []byte("binaries(t)")) {
			env = append(env, "AZS_BIN="+programs(t, dir, func(p string) string { return build("build", "-trimpath", p) }))
		}
		if r.name == "" {
			script := strings.TrimSuffix(path.Base(r.file), ".txtar")
			pkg, name, run = "relay", "TestScripts/"+script, "^TestScripts$/^"+script+"$"
		} else if bytes.Contains(src, []byte("//go:build faultinject")) {
			tags = "-tags=faultinject"
		}
		test := build("test", "-c", tags, "./"+pkg)
		args := []string{"-test.run", run, "-test.v", "-test.timeout", "5m"}
		if r.name != "" { // what is short of a sweep is enough of it; a script would be left out
			args = append(args, "-test.short")
		}
		cmd := exec.Command(test, args...)
		cmd.Dir, cmd.Env = filepath.Join(root, filepath.FromSlash(pkg)), env
		out, err := cmd.CombinedOutput()
		switch {
		case bytes.Contains(out, []byte("panic: test timed out")):
			t.Errorf("%s: %v does not end", m.at, r)
		case err == nil:
			t.Errorf("%s: %v does not see it, %s\n%s", m.at, r, m.control, tail(out))
		case !bytes.Contains(out, []byte("--- FAIL: "+name)):
			t.Errorf("%s: %v did not fail, the run did: %v\n%s", m.at, r, err, tail(out))
		}
	}
}

// programs returns a folder with the four programs, built by build, once.
func programs(t *testing.T, dir string, build func(pkg string) string) string {
	t.Helper()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); errors.Is(err, fs.ErrExist) {
		return bin
	} else if err != nil {
		t.Fatal(err)
	}
	for name, pkg := range map[string]string{"azs-agent": "./agent", "azs-relay": "./relay", "azuretest": "./relay/cmd/azuretest", "peptest": "./agent/cmd/peptest"} {
		if runtime.GOOS == "windows" {
			name += ".exe"
		}
		if err := os.Rename(build(pkg), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// tail is the end of what a test said.
func tail(out []byte) []byte { return out[max(0, len(out)-3000):] }
