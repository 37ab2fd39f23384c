package scan

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	optical "github.com/azs-courier/azs-courier/shared/frame"
	"github.com/azs-courier/azs-courier/shared/frame/scan/camera"
)

// joinedAfter scans a film of a bundle until it is joined and returns the number
// of pictures that it took, or 0 when they were not enough.
func joinedAfter(tb testing.TB, seed uint64, class camera.Class, version, size int, fps float64, pictures int) int {
	tb.Helper()
	rng := rand.New(rand.NewPCG(seed, uint64(size)))
	wire := make([]byte, size)
	for i := range wire {
		wire[i] = byte(rng.IntN(256))
	}
	set, err := optical.Split(wire, version)
	if err != nil {
		tb.Fatal(err)
	}
	var shown []string
	for i := range set.N() {
		text, err := set.Text(i)
		if err != nil {
			tb.Fatal(err)
		}
		shown = append(shown, text)
	}
	film, err := camera.Film(seed, class, version, shown, fps, pictures)
	if err != nil {
		tb.Fatal(err)
	}
	joiner, r, n := optical.NewJoiner(), NewReader(Live), 0
	for b := range film {
		n++
		l, err := FromJPEG(b, "film", DefaultLimits())
		if err != nil {
			tb.Fatal(err)
		}
		for _, c := range r.Read(l) {
			f, err := optical.Parse(c.Text)
			if err != nil {
				tb.Fatalf("picture %d holds %q: %v", n, c.Text, err)
			}
			if _, err := joiner.Add(f); err != nil {
				tb.Fatal(err)
			}
		}
		if joined, err := joiner.Join(set.ID()); err == nil {
			if string(joined) != string(wire) {
				tb.Fatal("the joined bundle is another one")
			}
			return n
		}
	}
	return 0
}

// TestFilm holds that a bundle crosses by the simulated camera.
func TestFilm(t *testing.T) {
	if testing.Short() {
		t.Skip("a film takes some seconds")
	}
	if joinedAfter(t, 1, camera.Typical, 10, 1000, 8, 60) == 0 {
		t.Error("1,000 bytes at 8 frames a second are not joined in two seconds")
	}
}

// BenchmarkFilm measures the time from the first picture to the joined bundle. All
// sizes and rates take a quarter of an hour; without AZS_CAMERA_N there are few.
func BenchmarkFilm(b *testing.B) {
	sizes, rates := []int{12000}, []float64{8, 10}
	if os.Getenv("AZS_CAMERA_N") != "" {
		sizes, rates = []int{3700, 5703, 8378, 13745}, []float64{5, 8, 10, 12} // requests of 1, 4, 8 and 16 nodes, as they are sealed
	}
	for _, class := range []camera.Class{camera.Typical, camera.Hard} {
		for _, size := range sizes {
			for _, fps := range rates {
				b.Run(fmt.Sprintf("%s-V20-%dB-%gfps", class, size, fps), func(b *testing.B) {
					n := 0
					for range b.N {
						n = joinedAfter(b, 1, class, 20, size, fps, 12*camera.Rate)
					}
					if n == 0 {
						b.Fatal("not joined in 12 s")
					}
					b.ReportMetric(float64(n)/camera.Rate, "s-to-join")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}
