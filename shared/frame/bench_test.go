package frame

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The sizes are bytes of a bundle, the losses percent of frames.
var (
	benchSizes  = []int{2000, 6000, 12000, 30000}
	benchLosses = []int{0, 10, 30, 50}
)

// peer is one line of what testdata/npm/erasure.js prints.
type peer struct {
	Peer       string
	Size, Loss int
	Late       bool
	K          int
	Received   float64 // frames, mean of the runs
}

// BenchmarkFramesReceived counts the frames that a receiver has to see before it
// has the bundle, for ours and for BC-UR, BBQr and qram from npm, with the same
// bytes of random data, the same code (version 20, level L) and the same loss.
// frames/K is relative to each one's own K; "frames" and "K" are absolute, for a
// better code also has the smaller K. A late receiver joins at a random frame.
//
// The peers need node and npm ci in testdata/npm; with AZS_REQUIRE_NPM=1 their
// absence is a failure. AZS_BENCH_SEED chooses other data and other losses.
func BenchmarkFramesReceived(b *testing.B) {
	seed := 1
	if s := os.Getenv("AZS_BENCH_SEED"); s != "" {
		var err error
		if seed, err = strconv.Atoi(s); err != nil {
			b.Fatalf("AZS_BENCH_SEED: %v", err)
		}
	}
	for _, size := range benchSizes {
		for _, loss := range benchLosses {
			for _, late := range []bool{false, true} {
				b.Run(benchName("ours", size, loss, late), func(b *testing.B) { benchOurs(b, uint64(seed), size, loss, late) })
			}
		}
	}
	for _, p := range peers(b, seed) {
		b.Run(benchName(p.Peer, p.Size, p.Loss, p.Late), func(b *testing.B) { report(b, p) })
	}
}

func benchName(who string, size, loss int, late bool) string {
	name := fmt.Sprintf("%s/%dB/loss%d", who, size, loss)
	if late {
		name += "/late"
	}
	return name
}

func report(b *testing.B, p peer) {
	b.ReportMetric(p.Received/float64(p.K), "frames/K")
	b.ReportMetric(p.Received, "frames")
	b.ReportMetric(float64(p.K), "K")
	if p.Peer != "ours" {
		b.ReportMetric(0, "ns/op") // nothing was timed here
	}
}

// benchOurs times, too: cut, spell, parse, join.
func benchOurs(b *testing.B, seed uint64, size, loss int, late bool) {
	total, runs, k := 0, 0, 0
	for b.Loop() {
		r := rand.New(rand.NewPCG(seed, uint64(runs)))
		wire := sample(size, seed)
		s, j := split(b, wire, 20), NewJoiner()
		k = s.K()
		at := 0
		if late {
			at = r.IntN(s.N())
		}
		for done := false; !done; at++ {
			if r.IntN(100) < loss {
				continue
			}
			st, err := j.Add(frameAt(b, s, at%s.N()))
			if err != nil {
				b.Fatal(err)
			}
			total++
			done = st.Done
		}
		if _, err := j.Join(s.ID()); err != nil {
			b.Fatal(err)
		}
		runs++
	}
	report(b, peer{Peer: "ours", K: k, Received: float64(total) / float64(runs)})
}

// peers runs the others.
func peers(b *testing.B, seed int) []peer {
	b.Helper()
	absent := b.Skipf
	if os.Getenv("AZS_REQUIRE_NPM") == "1" {
		absent = b.Fatalf
	}
	node, err := exec.LookPath("node")
	if err != nil {
		absent("no node: %v", err)
	}
	dir := filepath.Join("..", "..", "testdata", "npm")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "qram")); err != nil {
		absent("npm ci in %s makes it: %v", dir, err)
	}
	list := func(n []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(n), " ", ","), "[]") }
	cmd := exec.Command(node, "erasure.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SEED="+strconv.Itoa(seed), "RUNS=20", "SIZES="+list(benchSizes), "LOSSES="+list(benchLosses))
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			b.Fatalf("%v: %s", err, exit.Stderr)
		}
		b.Fatal(err)
	}
	var all []peer
	if err := json.Unmarshal(out, &all); err != nil {
		b.Fatalf("%v in %q", err, out)
	}
	return all
}

// BenchmarkRedundancy is the time to the first frame behind the systematic ones,
// and BenchmarkParse that of one frame that was seen.
func BenchmarkRedundancy(b *testing.B) {
	for _, size := range append(benchSizes, 127*(Capacity(40)-header)) {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			wire := sample(size, 1)
			version := max(20, SmallestVersion(size))
			b.ReportAllocs()
			for b.Loop() {
				s := split(b, wire, version)
				if _, err := s.Text(s.K()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	text := frameAt(b, split(b, sample(12000, 1), 20), 3).Text()
	typed := strings.ToLower(text) + "\r\n"
	for name, f := range map[string]func() (Frame, error){"seen": func() (Frame, error) { return Parse(text) }, "typed": func() (Frame, error) { return ParseTyped(typed) }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
