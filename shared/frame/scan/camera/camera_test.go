package camera

import (
	"bytes"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTheSameSeedTheSamePicture(t *testing.T) {
	a, b := New().Shoot(3, Hard, 10, 2), New().Shoot(3, Hard, 10, 2)
	if !bytes.Equal(a.JPEG, b.JPEG) || a.Texts != b.Texts {
		t.Error("two pictures of one seed differ")
	}
	if c := New().Shoot(4, Hard, 10, 2); bytes.Equal(a.JPEG, c.JPEG) || a.Texts == c.Texts {
		t.Error("another seed gives the same picture")
	}
	if c := New().Shoot(3, Hard, 10, 3); bytes.Equal(a.JPEG, c.JPEG) {
		t.Error("another number gives the same picture")
	}
}

func TestClasses(t *testing.T) {
	for _, class := range Classes() {
		shot := New().Shoot(1, class, 10, 0)
		m, err := jpeg.Decode(bytes.NewReader(shot.JPEG))
		if err != nil {
			t.Fatalf("%s: %v", class, err)
		}
		if m.Bounds() != image.Rect(0, 0, Width, Height) {
			t.Errorf("%s: %v", class, m.Bounds())
		}
		if _, ok := m.(*image.Gray); !ok {
			t.Errorf("%s: a %T", class, m)
		}
		two := class == Tear || class == Blend
		if len(shot.Texts[0]) != capacity[10]/2*3 || (shot.Texts[1] != "") != two {
			t.Errorf("%s: texts of %d and %d characters", class, len(shot.Texts[0]), len(shot.Texts[1]))
		}
	}
}

// TestTheSymbolIsInThePicture holds that place keeps the symbol in view, however it
// is turned.
func TestTheSymbolIsInThePicture(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		s := newScene(rng, Hard)
		m := s.place(105)
		for _, p := range [][2]float64{{-.46, -.46}, {.46, -.46}, {.46, .46}, {-.46, .46}} {
			if x, y := apply(&m, p[0], p[1]); x < 0 || y < 0 || x > Width || y > Height {
				t.Fatalf("%+v: a corner is at (%.0f, %.0f)", s, x, y)
			}
		}
		inv := invert(m)
		x, y := apply(&m, .3, -.2)
		if u, v := apply(&inv, x, y); max(u-.3, .3-u, v+.2, -.2-v) > 1e-9 {
			t.Fatalf("there and back: (%g, %g)", u, v)
		}
	}
}

func TestTheGridIsAsBrightAsTheScreen(t *testing.T) {
	sum := 0.
	const n = 400
	for i := range n * n {
		sum += float64(grid((float64(i%n)+.5)/n, (float64(i/n)+.5)/n))
	}
	if mean := sum / n / n; mean < .98 || mean > 1.02 {
		t.Errorf("the mean is %.3f", mean)
	}
}

func TestFilmShowsTheTextsInTurn(t *testing.T) {
	if _, err := Film(1, Typical, 5, nil, 8, 1); err == nil {
		t.Error("a film of nothing")
	}
	if _, err := Film(1, Typical, 5, []string{"A"}, 0, 1); err == nil {
		t.Error("a film that stands still")
	}
	film, err := Film(1, Typical, 5, []string{"A", "B"}, 10, 3)
	if err != nil {
		t.Fatal(err)
	}
	pictures := slices.Collect(film)
	if len(pictures) != 3 || bytes.Equal(pictures[0], pictures[1]) {
		t.Errorf("%d pictures", len(pictures))
	}
}
