package appkit

import (
	"bytes"
	"context"
	"fmt"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	qr "github.com/skip2/go-qrcode"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame"
	"github.com/azs-courier/azs-courier/shared/frame/scan"
)

// testScan is a scan of a program without a state folder, and what it says.
func testScan(t *testing.T) (*scanning, *bytes.Buffer) {
	t.Helper()
	var said bytes.Buffer
	e := &Env{Console: console.New(strings.NewReader(""), &bytes.Buffer{}, &said, console.Options{Program: "azs-agent"}),
		Home: filepath.Join(t.TempDir(), "none"), Clock: clock.System{}, Program: "azs-agent", Role: "agent"}
	s, err := e.newScanning("", "", false)
	if err != nil {
		t.Fatal(err)
	}
	return s, &said
}

func testSet(t *testing.T, text string) *frame.Set {
	t.Helper()
	set, err := frame.Split([]byte(strings.Repeat(text, 60)), 10)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func code(t *testing.T, set *frame.Set, index int) *qr.QRCode {
	t.Helper()
	text, err := set.Text(index)
	if err != nil {
		t.Fatal(err)
	}
	q, err := qr.New(text, qr.Low)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// The page hands in camera pictures and sees how far the scan is.
func TestPageSeesTheScan(t *testing.T) {
	s, _ := testScan(t)
	p := &pageScanner{s: s, reader: scan.NewReader(scan.Live)}
	set, other := testSet(t, "what is in the bundle "), testSet(t, "another bundle ")
	show := func(set *frame.Set, index int) (picture []byte) {
		var b bytes.Buffer
		if err := jpeg.Encode(&b, code(t, set, index).Image(-5), nil); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for i := range set.K() {
		v, err := p.Picture(t.Context(), show(set, i))
		if err != nil {
			t.Fatal(err)
		}
		if len(v.Codes) != 1 || !v.Codes[0].New || len(v.Bundles) != 1 || v.Bundles[0].Have != i+1 || v.Done != (i+1 == set.K()) {
			t.Fatalf("frame %d: %+v", i, v)
		}
		for _, c := range v.Codes[0].Corners {
			if c[0] < 0 || c[0] > 1 || c[1] < 0 || c[1] > 1 {
				t.Errorf("frame %d: corner %v is outside of the picture", i, c)
			}
		}
	}
	if v, err := p.Picture(t.Context(), show(set, 0)); err != nil || v.Codes[0].New || !v.Done || !strings.Contains(v.Cover, "no bundle") && v.Cover == "" {
		t.Errorf("again: %+v, %v", v, err)
	}
	if _, err := p.Picture(t.Context(), []byte("no picture")); err == nil {
		t.Error("what is no picture was taken")
	}
	// With a second bundle in view it is not done before one is chosen.
	dropped := filepath.Join(t.TempDir(), "dropped.png")
	if err := code(t, other, 0).WriteFile(-4, dropped); err != nil {
		t.Fatal(err)
	}
	v, err := p.File(t.Context(), dropped)
	if err != nil || v.Done || len(v.Bundles) != 2 {
		t.Errorf("two bundles: %+v, %v", v, err)
	}
	if err := p.Choose("zz"); err == nil {
		t.Error("an id that is none was chosen")
	}
	if err := p.Choose(set.ID().String()); err != nil {
		t.Fatal(err)
	}
	if v := p.View(); !v.Done || len(v.Bundles) != 1 {
		t.Errorf("chosen: %+v", v)
	}
}

// A watched folder gets its pictures one by one; the scan ends when it is complete.
func TestWatchEndsWhenComplete(t *testing.T) {
	s, said := testScan(t)
	set := testSet(t, "what is in the bundle ")
	dir := t.TempDir()
	done := make(chan error, 1)
	go func() { done <- s.watch(t.Context(), dir) }()
	for i := range set.K() {
		if err := code(t, set, set.N()-1-i).WriteFile(-4, filepath.Join(dir, fmt.Sprintf("%d.png", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, err := s.joiner.Join(set.ID()); err != nil || !strings.HasPrefix(string(got), "what is in") {
		t.Errorf("%q, %v: %s", got, err, said)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s, _ = testScan(t)
	if err := s.watch(ctx, dir); err != context.Canceled {
		t.Errorf("called off: %v", err)
	}
}

// Damage in one of many pictures is named and the others are read.
func TestOneBadPictureAmongGoodOnes(t *testing.T) {
	s, said := testScan(t)
	set := testSet(t, "what is in the bundle ")
	dir := t.TempDir()
	for i := range set.K() {
		if err := code(t, set, i).WriteFile(-4, filepath.Join(dir, fmt.Sprintf("%d.png", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "00.png"), []byte("\x89PNG\r\n\x1a\nand no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if !s.complete() || !strings.Contains(said.String(), "00.png") {
		t.Errorf("complete %t: %s", s.complete(), said)
	}
}

func TestFrameMap(t *testing.T) {
	few, many := frame.Status{K: 5, Missing: []int{1, 4}}, frame.Status{K: 64, Missing: []int{0, 2, 3, 63}}
	want := []string{"[#.##.]", "[-." + strings.Repeat("#", 29) + "-]"}
	if d := cmp.Diff(want, []string{frameMap(few), frameMap(many)}); d != "" {
		t.Error(d)
	}
}

// Scanners end a line with CR, LF, both or a tab; a line that is longer than any
// frame does not stop the reading.
func TestTypedLineEnds(t *testing.T) {
	set := testSet(t, "what is in the bundle ")
	var typed strings.Builder
	for i, end := range []string{"\r", "\n", "\r\n", "\t", "\r\r\n\n"} {
		text, err := set.Text(i)
		if err != nil {
			t.Fatal(err)
		}
		typed.WriteString(text + end)
	}
	typed.WriteString(strings.Repeat("Z", 200_000))
	last, err := set.Text(5)
	if err != nil {
		t.Fatal(err)
	}
	typed.WriteString("\n" + last) // no end at all
	s, said := testScan(t)
	if err := s.typed(t.Context(), strings.NewReader(typed.String()), false); err != nil {
		t.Fatal(err)
	}
	read := s.meter.Lines
	if err := s.typed(t.Context(), strings.NewReader("\n\x04"+last), false); err != nil || s.meter.Lines != read {
		t.Errorf("behind Ctrl-D %d lines were read, %v", s.meter.Lines-read, err)
	}
	if st := s.joiner.Bundles(); len(st) != 1 || st[0].Have != min(6, set.K()) {
		t.Errorf("%+v: %s", st, said)
	}
}

// Threat: two scans in one state folder write over what the other one read.
func TestTwoScansDoNotShareAFile(t *testing.T) {
	s, _ := testScan(t)
	e := s.env
	file := filepath.Join(t.TempDir(), "scan.txt")
	first, err := e.newScanning("", file, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.newScanning("", file, false); fault.KindOf(err) != fault.Medium || !strings.Contains(err.Error(), "another scan is at work") {
		t.Errorf("a second scan: %v", err)
	}
	if _, err := e.newScanning("", file, true); fault.KindOf(err) != fault.Medium {
		t.Errorf("a second scan that forgets: %v", err)
	}
	if _, err := e.newScanning("", file+".other", false); err != nil {
		t.Errorf("another file: %v", err)
	}
	first.Close()
	if _, err := e.newScanning("", file, false); err != nil {
		t.Errorf("after the first: %v", err)
	}
}
