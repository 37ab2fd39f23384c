package scan

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/frame/scan/camera"
)

// flat draws a random full code of a version, px pixels a module.
func flat(rng *rand.Rand, version, px int) (Luma, string) {
	s, text := camera.Random(rng, version)
	return FromImage(s.Flat(px)), text
}

// turned returns l with its pixels moved: (x, y) of the result is from(x, y).
func turned(l Luma, w, h int, from func(x, y int) (int, int)) Luma {
	out := Luma{Pix: make([]byte, w*h), W: w, H: h, Stride: w}
	for y := range h {
		for x := range w {
			u, v := from(x, y)
			out.Pix[y*w+x] = l.Pix[v*l.Stride+u]
		}
	}
	return out
}

func TestFlatCodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	r := NewReader(Thorough)
	for _, version := range []int{5, 10, 13, 20, 30, 40} {
		for _, px := range []int{2, 3, 4, 8} {
			l, text := flat(rng, version, px)
			n := l.W
			for name, m := range map[string]Luma{
				"upright":  l,
				"inverted": turned(l, n, n, func(x, y int) (int, int) { return x, y }),
				"right":    turned(l, n, n, func(x, y int) (int, int) { return y, n - 1 - x }),
				"mirrored": turned(l, n, n, func(x, y int) (int, int) { return n - 1 - x, y }),
			} {
				if name == "inverted" {
					for i := range m.Pix {
						m.Pix[i] = 255 - m.Pix[i]
					}
				}
				r.Reset()
				codes := r.Read(m)
				if len(codes) != 1 || codes[0].Text != text {
					t.Errorf("version %d, %d pixels a module, %s: %d codes, text equal %v", version, px, name, len(codes), len(codes) == 1 && codes[0].Text == text)
					continue
				}
				if name != "upright" {
					continue
				}
				if codes[0].Version != version {
					t.Errorf("version %d read as %d", version, codes[0].Version)
				}
				lo, hi := float64(4*px), float64(n-4*px)
				for i, want := range [4]Point{{lo, lo}, {hi, lo}, {hi, hi}, {lo, hi}} {
					if got := codes[0].Corners[i]; max(got.X-want.X, want.X-got.X, got.Y-want.Y, want.Y-got.Y) > float64(px) {
						t.Errorf("version %d, %d pixels a module: corner %d is at %v, not %v", version, px, i, got, want)
					}
				}
			}
		}
	}
}

// TestBlindSpot holds that codes which stock gozxing cannot read even flat, since
// their data look like finders, are read.
func TestBlindSpot(t *testing.T) {
	if testing.Short() {
		t.Skip("the codes have to be looked for")
	}
	rng := rand.New(rand.NewPCG(7, 1))
	blind := 0
	one := NewReader(OnePass)
	for i := range 60 {
		s, text := camera.Random(rng, []int{20, 30}[i%2])
		for _, px := range []int{4, 8} {
			l := FromImage(s.Flat(px))
			if c, ok := stock(l); ok && c.Text == text {
				continue
			}
			blind++
			one.Reset()
			if codes := one.Read(l); len(codes) != 1 || codes[0].Text != text {
				t.Errorf("code %d, %d pixels a module, is not read", i, px)
			}
		}
	}
	if blind == 0 {
		t.Error("no code in 60 is in stock gozxing's blind spot: the test shows nothing")
	}
	t.Logf("%d pictures that stock gozxing cannot read", blind)
}

func TestEveryCodeOfASheet(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	const columns, rows, px = 3, 4, 6
	var want []string
	var sheet *image.Gray
	side := 0
	for i := range columns * rows {
		s, text := camera.Random(rng, 10)
		want = append(want, text)
		m := s.Flat(px)
		if sheet == nil {
			side = m.Rect.Dx() + 20
			sheet = image.NewGray(image.Rect(0, 0, columns*side, rows*side))
			for i := range sheet.Pix {
				sheet.Pix[i] = 255
			}
		}
		for y := range m.Rect.Dy() {
			copy(sheet.Pix[(i/columns*side+y+10)*sheet.Stride+i%columns*side+10:], m.Pix[y*m.Stride:y*m.Stride+m.Rect.Dx()])
		}
	}
	got := texts(NewReader(All).Read(FromImage(sheet)))
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%d of %d codes read (-there +read):\n%.2000s", len(got), len(want), diff)
	}
}

// TestQrencode reads what another program made, at all levels.
func TestQrencode(t *testing.T) {
	program, err := exec.LookPath("qrencode")
	if err != nil {
		if os.Getenv("AZS_REQUIRE_QRENCODE") != "" {
			t.Fatal(err)
		}
		t.Skip("qrencode is not installed")
	}
	r := NewReader(Thorough)
	for _, level := range []string{"L", "M", "Q", "H"} {
		for _, version := range []int{3, 7, 10, 16, 25, 33, 40} {
			for _, px := range []int{2, 5, 12} {
				text := fmt.Sprintf("AZS %s-%d-%d 0123456789ABCDEFGHIJ", level, version, px)
				out, err := exec.Command(program, "-o", "-", "-t", "PNG", "-s", fmt.Sprint(px), "-l", level, "-v", fmt.Sprint(version), text).Output()
				if err != nil {
					t.Fatal(err)
				}
				m, err := png.Decode(bytes.NewReader(out))
				if err != nil {
					t.Fatal(err)
				}
				r.Reset()
				codes := r.Read(FromImage(m))
				if len(codes) != 1 || codes[0].Text != text || codes[0].Version != version {
					t.Errorf("level %s, version %d, %d pixels a module: %+v", level, version, px, codes)
				}
			}
		}
	}
}

// frontPass is everything of a look but the decoding.
func (r *Reader) frontPass(l Luma) bool {
	f := &r.front
	f.begin(l)
	f.t.set(first.radius)
	f.findFinders(first.step)
	f.findTriples(10)
	if len(f.triples) == 0 || !f.frame(f.triples[0]) || !f.suppose(f.versions(0, false)[0]) || f.timing() < alternating {
		return false
	}
	f.align()
	f.read()
	f.modules.even(surroundings[0], f.light)
	f.modules.learn()
	return true
}

func TestTheFrontAllocatesNothing(t *testing.T) {
	shot := camera.New().Shoot(1, camera.Typical, 20, 0)
	l, err := FromJPEG(shot.JPEG, "shot", DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(OnePass)
	if !r.frontPass(l) {
		t.Fatal("the picture is not read as far as its modules")
	}
	if n := testing.AllocsPerRun(20, func() { r.frontPass(l) }); n != 0 {
		t.Errorf("%g allocations a picture", n)
	}
}

func TestPicturesThatDoNotFit(t *testing.T) {
	r := NewReader(All)
	for _, l := range []Luma{
		{}, {Pix: make([]byte, 100), W: 100, H: 100, Stride: 100}, {Pix: make([]byte, 100), W: 10, H: 10, Stride: 5},
		{Pix: make([]byte, 100), W: -1, H: 10, Stride: 10}, {Pix: make([]byte, 1<<10), W: 1 << 40, H: 1 << 40, Stride: 1 << 40},
		{Pix: make([]byte, 20*20), W: 20, H: 20, Stride: 20}, {Pix: make([]byte, 1000), W: 1000, H: 1, Stride: 1000},
	} {
		if codes := r.Read(l); len(codes) != 0 {
			t.Errorf("%d×%d: %+v", l.W, l.H, codes)
		}
	}
}

func TestNothingInNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := NewReader(All)
	for i := range 6 {
		l := Luma{Pix: make([]byte, 640*480), W: 640, H: 480, Stride: 640}
		cell := 1 + i
		for y := range l.H {
			for x := range l.W {
				if y%cell > 0 {
					l.Pix[y*l.W+x] = l.Pix[(y-1)*l.W+x]
				} else if x%cell > 0 {
					l.Pix[y*l.W+x] = l.Pix[y*l.W+x-1]
				} else {
					l.Pix[y*l.W+x] = byte(rng.IntN(256))
				}
			}
		}
		if codes := r.Read(l); len(codes) != 0 {
			t.Errorf("cells of %d: %+v", cell, codes)
		}
	}
}

func TestRestore(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for range 400 {
		checks := []int{10, 18, 22, 26, 28, 30}[rng.IntN(6)]
		n := checks + 20 + rng.IntN(110)
		block := make([]byte, n)
		for i := range n - checks {
			block[i] = byte(rng.IntN(256))
		}
		// The check bytes: what erasing all of them would restore, by division.
		rest := append([]byte(nil), block...)
		g := []byte{1}
		for i := range checks {
			next := append(g, 0)
			for j := len(g); j > 0; j-- {
				next[j] ^= gfMul(g[j-1], gfExp[i])
			}
			g = next
		}
		for i := range n - checks {
			for j, k := 1, rest[i]; j <= checks; j++ {
				rest[i+j] ^= gfMul(g[j], k)
			}
		}
		copy(block[n-checks:], rest[n-checks:])
		whole := append([]byte(nil), block...)

		erasures := rng.IntN(checks - spare + 1)
		places := rng.Perm(n)
		errors := rng.IntN((checks-spare-erasures)/2 + 1)
		for _, p := range places[:erasures] {
			block[p] = byte(rng.IntN(256)) // which may be what it was
		}
		for _, p := range places[erasures : erasures+errors] {
			block[p] ^= byte(1 + rng.IntN(255))
		}
		if !restore(block, checks, places[:erasures]) || !bytes.Equal(block, whole) {
			t.Fatalf("%d checks, %d erasures, %d errors: not restored", checks, erasures, errors)
		}
		// Far beyond what it can do it must say so rather than guess.
		for _, p := range places[:min(n, 2*checks)] {
			block[p] ^= byte(1 + rng.IntN(255))
		}
		if restore(block, checks, places[:checks-blindness]) {
			t.Fatalf("%d checks: %d errors pass for restored", checks, 2*checks)
		}
	}
}

// FuzzRead reads small pictures of any content: it ends, and does not panic.
func FuzzRead(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 5))
	l, _ := flat(rng, 5, 2)
	f.Add(l.Pix, l.W)
	broken := append([]byte(nil), l.Pix...)
	for range 600 {
		broken[rng.IntN(len(broken))] ^= 0xff
	}
	f.Add(broken, l.W)
	f.Add(bytes.Repeat([]byte{0, 255}, 2000), 63)
	r := NewReader(All)
	f.Fuzz(func(t *testing.T, pix []byte, w int) {
		if w < 1 || w > 400 || len(pix) > 160_000 {
			return
		}
		r.Read(Luma{Pix: pix, W: w, H: len(pix) / w, Stride: w})
	})
}

// TestFindersAllOver holds that a picture which is nothing but finders, with timing
// patterns between them, costs a bounded number of tries.
func TestFindersAllOver(t *testing.T) {
	const px, pitch, n = 3, 20, 24
	side := pitch * n * px
	l := Luma{Pix: bytes.Repeat([]byte{255}, side*side), W: side, H: side, Stride: side}
	for y := range side {
		for x := range side {
			i, j := x/px%pitch, y/px%pitch
			ring := max(i-3, 3-i, j-3, 3-j)
			if ring <= 1 || ring == 3 || i > 7 && j == 6 && i&1 == 0 || j > 7 && i == 6 && j&1 == 0 {
				l.Pix[y*side+x] = 0
			}
		}
	}
	r := NewReader(All)
	if r.look(l, first) {
		t.Errorf("%+v", r.codes)
	}
	if len(r.front.triples) < maxMeasured {
		t.Fatalf("%d threes: the picture does not try the bound", len(r.front.triples))
	}
	if r.grids <= maxRead || r.grids > maxRead+3 { // a three may be of several versions
		t.Errorf("%d grids were read, where the bound is %d", r.grids, maxRead)
	}
}
