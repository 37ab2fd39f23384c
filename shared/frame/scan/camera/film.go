package camera

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
)

// Rate is how many pictures a second the camera makes.
const Rate = 30

// readout is the time from a picture's first row to its last, and exposure how
// long a row sees the screen, in seconds: a webcam indoors.
const (
	readout  = .025
	exposure = .012
)

// Film returns the pictures of a camera, as JPEG, that looks at a screen which
// shows texts in turn, fps a second, over and over. The camera starts at a
// random moment, its hand shakes, its rows are read one after the other, so that
// one picture may show the end of one code and the start of the next. The class
// gives the scene: Typical and Hard are of use. It ends after the given number of
// pictures.
func Film(seed uint64, class Class, version int, texts []string, fps float64, pictures int) (iter.Seq[[]byte], error) {
	screens := make([]*Screen, len(texts))
	for i, t := range texts {
		var err error
		if screens[i], err = NewScreen(t, version); err != nil {
			return nil, fmt.Errorf("frame %d: %w", i, err)
		}
	}
	if len(texts) == 0 || fps <= 0 {
		return nil, fmt.Errorf("a film of %d frames, %g a second", len(texts), fps)
	}
	return func(yield func([]byte) bool) {
		rng := rand.New(rand.NewPCG(seed, uint64(class)<<40|uint64(version)<<32))
		c, base := New(), newScene(rng, class)
		start, phase := rng.Float64()/fps, rng.Float64()*2*math.Pi
		for n := range pictures {
			t := start + float64(n)/Rate
			s := base
			s.dx += 6*math.Sin(2*math.Pi*.7*t+phase) + 1.5*math.Sin(2*math.Pi*3.1*t)
			s.dy += 5*math.Sin(2*math.Pi*.9*t+2*phase) + 1.5*math.Sin(2*math.Pi*2.7*t)
			s.roll += .01 * math.Sin(2*math.Pi*.5*t+phase)
			// The codes that the picture's rows see: two at most, while a code is shown
			// longer than readout and exposure take.
			shown := int(t * fps)
			turn := float64(shown+1) / fps // when the next one comes
			share := func(y int) float64 {
				from := t + readout*float64(y)/Height
				return max(0, min(1, (turn-from)/exposure))
			}
			first, second := screens[shown%len(screens)], screens[(shown+1)%len(screens)]
			if !yield(c.expose(s, first, second, share, rng)) {
				return
			}
		}
	}, nil
}
