package render

import (
	"bytes"
	"image/gif"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame"
)

func TestDraw(t *testing.T) {
	c, err := Draw("AZ1", 5)
	if err != nil {
		t.Fatal(err)
	}
	if c.Side() != 37 || Modules(5) != 37 {
		t.Fatalf("a code of version 5 has %d modules", c.Side())
	}
	// A finder pattern at three corners, white around everything.
	for _, at := range [][2]int{{0, 0}, {30, 0}, {0, 30}} {
		for i := range 7 {
			if !c.Black(at[0]+i, at[1]) || !c.Black(at[0], at[1]+i) || !c.Black(at[0]+3, at[1]+3) {
				t.Errorf("no finder pattern at %v", at)
			}
		}
	}
	for i := -Quiet; i < 37+Quiet; i++ {
		if c.Black(i, -1) || c.Black(-1, i) || c.Black(i, 37) || c.Black(37, i) {
			t.Errorf("black beside the code at %d", i)
		}
	}
	if _, err := Draw(strings.Repeat("A", 155), 5); fault.KindOf(err) != fault.Usage {
		t.Errorf("a text of 155 characters at version 5, which holds 154: %v", err)
	}
	if _, err := Draw("A", 41); fault.KindOf(err) != fault.Usage {
		t.Errorf("version 41: %v", err)
	}
	if !c.Reads("AZ1") || c.Reads("AZ2") {
		t.Error("the code of AZ1 must read as AZ1 and as nothing else")
	}
}

// The codes that a plain reader misses are left out: each that is left was read,
// each that is not here was not.
func TestWhatCannotBeReadIsLeftOut(t *testing.T) {
	r := reelOf(t, 12000, 30)
	stills, err := r.All()
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for i := range r.Set().N() {
		text, err := r.Set().Text(i)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Draw(text, 30)
		if err != nil {
			t.Fatal(err)
		}
		here := next < len(stills) && stills[next].Index == i
		if here {
			next++
		}
		if c.Reads(text) != here {
			t.Errorf("frame %d is among the codes: %v, it can be read: %v", i, here, !here)
		}
	}
	if next != len(stills) || len(stills) == r.Set().N() || len(stills) < r.Set().N()*3/4 {
		t.Errorf("%d of %d codes are left; some of version 30 are not readable, most are", len(stills), r.Set().N())
	}
}

func TestReelGoesRound(t *testing.T) {
	r := reelOf(t, 300, 5)
	for place := range 2 * r.Set().N() {
		got, err := r.At(place)
		if err != nil {
			t.Fatal(err)
		}
		again, err := reelOf(t, 300, 5).At(place)
		if err != nil {
			t.Fatal(err)
		}
		if got.Index != again.Index || !bytes.Equal(got.Code.Bits(), again.Code.Bits()) {
			t.Fatalf("place %d is frame %d and, asked for at once, frame %d", place, got.Index, again.Index)
		}
	}
	kept, err := r.Kept()
	if err != nil || len(kept) != r.Set().K()+2 {
		t.Errorf("%d codes are kept of K=%d: %v", len(kept), r.Set().K(), err)
	}
}

func TestFit(t *testing.T) {
	for _, tt := range []struct{ length, most, want int }{
		{2000, 20, 18}, // 3 codes of version 20 and of version 18
		{300, 25, 12},
		{12000, 5, 0},
		{12000, 0, 0},
		{400000, 40, 0},
	} {
		if got := Fit(tt.length, tt.most); got != tt.want {
			t.Errorf("Fit(%d, %d) = %d, want %d", tt.length, tt.most, got, tt.want)
		}
	}
	for length := 1; length < 30000; length += 997 {
		v := Fit(length, 25)
		if v == 0 {
			continue
		}
		at, _ := frame.Split(bytesOf(length), v)
		most, _ := frame.Split(bytesOf(length), 25)
		if at.K() != most.K() {
			t.Errorf("%d bytes: K is %d at version %d and %d at 25", length, at.K(), v, most.K())
		}
	}
}

// sizes are the lengths and versions that every independent reader is given.
var sizes = []struct{ length, version int }{{300, 5}, {2000, 10}, {2000, 13}, {3300, 15}, {5321, 20}, {3300, 25}, {3300, 30}, {5321, 40}}

func TestZbarReadsEveryPicture(t *testing.T) {
	tool(t, "ZBAR", "zbarimg")
	read := 0
	for _, tt := range sizes {
		r := reelOf(t, tt.length, tt.version)
		files, err := r.PNGs(DefaultScale)
		if err != nil {
			t.Fatal(err)
		}
		stills, err := r.Kept()
		if err != nil {
			t.Fatal(err)
		}
		got := zbar(t, save(t, t.TempDir(), files)...)
		if diff := cmp.Diff(textsOf(t, r, stills), got); diff != "" {
			t.Errorf("%d bytes at version %d (-shown +read):\n%s", tt.length, tt.version, diff)
			continue
		}
		if !bytes.Equal(join(t, got), bytesOf(tt.length)) {
			t.Errorf("%d bytes at version %d do not come back", tt.length, tt.version)
		}
		read += len(got)
	}
	t.Logf("zbarimg read %d codes", read)
}

func TestZbarReadsTheAnimation(t *testing.T) {
	r := reelOf(t, 5321, 20)
	var b bytes.Buffer
	if err := r.GIF(&b, 4, DefaultRate); err != nil {
		t.Fatal(err)
	}
	all, err := gif.DecodeAll(&b)
	if err != nil {
		t.Fatal(err)
	}
	stills, err := r.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all.Image) != len(stills) || all.LoopCount != 0 || all.Delay[0] != 12 {
		t.Fatalf("%d pictures for %d codes, loop count %d, delay %d", len(all.Image), len(stills), all.LoopCount, all.Delay[0])
	}
	dir := t.TempDir()
	var paths []string
	for i, img := range all.Image {
		paths = append(paths, savePicture(t, filepath.Join(dir, string(rune('a'+i/26))+string(rune('a'+i%26))+".png"), img))
	}
	if diff := cmp.Diff(textsOf(t, r, stills), zbar(t, paths...)); diff != "" {
		t.Errorf("the animation (-shown +read):\n%s", diff)
	}
}
