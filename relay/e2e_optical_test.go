package main_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/frame"
	"github.com/azs-courier/azs-courier/shared/frame/render"
)

// cut is the command "cut BUNDLE VERSION": it sets K, N, HALF (of K, at least 1),
// REST (as many frames behind K as are missing then), TWICE (2K+1) and ID of the
// bundle's frames in codes of the version.
func cut(ts *testscript.TestScript, args []string) {
	need(ts, args, 2, "cut BUNDLE VERSION")
	s := frames(ts, args[0], args[1])
	ts.Setenv("K", strconv.Itoa(s.K()))
	ts.Setenv("N", strconv.Itoa(s.N()))
	ts.Setenv("HALF", strconv.Itoa(max(1, s.K()/2)))
	ts.Setenv("REST", strconv.Itoa(2*s.K()-max(1, s.K()/2)))
	ts.Setenv("TWICE", strconv.Itoa(2*s.K()+1))
	ts.Setenv("ID", s.ID().String())
}

func frames(ts *testscript.TestScript, file, version string) *frame.Set {
	raw, err := os.ReadFile(ts.MkAbs(file))
	ts.Check(err)
	b, err := bundle.Split(raw)
	ts.Check(err)
	v, err := strconv.Atoi(version)
	ts.Check(err)
	s, err := frame.Split(b.Wire(), v)
	ts.Check(err)
	return s
}

// texts are the frames from FROM to TO, without the last.
func texts(ts *testscript.TestScript, s *frame.Set, from, to string) (out []string) {
	a, err := strconv.Atoi(from)
	ts.Check(err)
	b, err := strconv.Atoi(to)
	ts.Check(err)
	for i := a; i < b; i++ {
		text, err := s.Text(i)
		ts.Check(err)
		out = append(out, text)
	}
	return out
}

// german is how a German keyboard spells what a scanner types for a US one,
// apart from its dead key, which composes.
var german = strings.NewReplacer("Y", "z", "Z", "y", "*", "(", "-", "ß", "/", "-", ":", "ö")

// wedge is the command "wedge BUNDLE VERSION FROM TO FILE": the lines that a
// handheld scanner types for frames, on a German keyboard with CapsLock where
// that composes nothing, else on a US one.
func wedge(ts *testscript.TestScript, args []string) {
	need(ts, args, 5, "wedge BUNDLE VERSION FROM TO FILE")
	var b strings.Builder
	for _, text := range texts(ts, frames(ts, args[0], args[1]), args[2], args[3]) {
		if !strings.Contains(text, "+") {
			text = german.Replace(text)
		}
		b.WriteString(strings.ToLower(text) + "\r\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[4]), []byte(b.String()), 0o600))
}

// pictures is the command "pictures BUNDLE VERSION FROM TO DIR": one PNG a frame,
// in a folder that is made.
func pictures(ts *testscript.TestScript, args []string) {
	need(ts, args, 5, "pictures BUNDLE VERSION FROM TO DIR")
	dir := ts.MkAbs(args[4])
	ts.Check(os.MkdirAll(dir, 0o700))
	version, err := strconv.Atoi(args[1])
	ts.Check(err)
	for i, text := range texts(ts, frames(ts, args[0], args[1]), args[2], args[3]) {
		code, err := render.Draw(text, version)
		ts.Check(err)
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)+".png"))
		ts.Check(err)
		ts.Check(render.PNG(f, code, 4))
		ts.Check(f.Close())
	}
}
