package scan

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/shared/frame/scan/camera"
)

// suiteSeed is the seed of the figures in docs/adr/0020-optical-reader.md.
const suiteSeed = 1

// perCell is how many pictures of each class and version a run looks at: 40 are
// the whole suite of 2,000.
func perCell(tb testing.TB, otherwise int) int {
	s := os.Getenv("AZS_CAMERA_N")
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 40 {
		tb.Fatalf("AZS_CAMERA_N is %q, not a number from 1 to 40", s)
	}
	return n
}

// tally is what one reader made of the suite.
type tally struct {
	read  map[camera.Class]map[int]int
	total int
	wrong int
	spent time.Duration
	none  string // why there are no figures
}

// count notes what a reader returned for a shot.
func (t *tally) count(shot *camera.Shot, texts []string) {
	if len(texts) == 0 {
		return
	}
	for _, text := range texts {
		if text == "" || text != shot.Texts[0] && text != shot.Texts[1] {
			t.wrong++
			return
		}
	}
	if t.read == nil {
		t.read = map[camera.Class]map[int]int{}
	}
	if t.read[shot.Class] == nil {
		t.read[shot.Class] = map[int]int{}
	}
	t.read[shot.Class][shot.Version]++
	t.total++
}

// ours measures a reader of ours; every picture comes unannounced.
func ours(tb testing.TB, mode Mode, shots []camera.Shot) tally {
	r := NewReader(mode)
	return inside(tb, shots, func(l Luma) []string {
		r.Reset()
		return texts(r.Read(l))
	})
}

func inside(tb testing.TB, shots []camera.Shot, read func(Luma) []string) (t tally) {
	for i := range shots {
		l, err := FromJPEG(shots[i].JPEG, "shot", DefaultLimits())
		if err != nil {
			tb.Fatal(err)
		}
		start := processorTime()
		got := read(l)
		t.spent += processorTime() - start
		t.count(&shots[i], got)
	}
	return t
}

func texts(codes []Code) []string {
	var all []string
	for _, c := range codes {
		all = append(all, c.Text)
	}
	return all
}

// bitmaps writes the suite as grey bitmaps for the programs that are measured, and
// returns the files.
func bitmaps(tb testing.TB, shots []camera.Shot) []string {
	dir := tb.TempDir()
	var files []string
	for i := range shots {
		l, err := FromJPEG(shots[i].JPEG, "shot", DefaultLimits())
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, writePGM(tb, filepath.Join(dir, fmt.Sprintf("%d.pgm", i)), l))
	}
	return files
}

func writePGM(tb testing.TB, file string, l Luma) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "P5\n%d %d\n255\n", l.W, l.H)
	for y := range l.H {
		b.Write(l.Pix[y*l.Stride : y*l.Stride+l.W])
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// zbar measures zbarimg, all pictures in one process; its time has the reading of
// the bitmaps in it.
func zbar(tb testing.TB, shots []camera.Shot, files []string) (t tally) {
	program, err := exec.LookPath("zbarimg")
	if err != nil {
		if os.Getenv("AZS_REQUIRE_ZBAR") != "" {
			tb.Fatal(err)
		}
		return tally{none: "zbarimg is not installed (zbar-tools)"}
	}
	got := map[string][]string{}
	for start := 0; start < len(files); start += 500 { // an argument list has its limit
		cmd := exec.Command(program, append([]string{"-q", "--xml", "--nodbus", "-Sdisable", "-Sqrcode.enable"}, files[start:min(len(files), start+500)]...)...)
		out, err := cmd.Output()
		if _, found := err.(*exec.ExitError); err != nil && !found {
			tb.Fatal(err) // it exits with 4 when there is nothing in some picture
		}
		t.spent += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		var doc struct {
			Sources []struct {
				Href  string   `xml:"href,attr"`
				Texts []string `xml:"index>symbol>data"`
			} `xml:"source"`
		}
		if err := xml.Unmarshal(out, &doc); err != nil {
			tb.Fatal(err)
		}
		for _, s := range doc.Sources {
			got[s.Href] = s.Texts
		}
	}
	for i, f := range files {
		t.count(&shots[i], got[f])
	}
	return t
}

// zxingWASM measures zxing-wasm in node.
func zxingWASM(tb testing.TB, shots []camera.Shot, files []string) (t tally) {
	node, err := exec.LookPath("node")
	script := filepath.Join("..", "..", "..", "testdata", "npm", "zxing.js")
	if err == nil {
		_, err = os.Stat(filepath.Join(filepath.Dir(script), "node_modules", "zxing-wasm"))
	}
	if err != nil {
		if os.Getenv("AZS_REQUIRE_NPM") != "" {
			tb.Fatal(err)
		}
		return tally{none: "zxing-wasm is not installed (npm ci --prefix testdata/npm)"}
	}
	cmd := exec.Command(node, script)
	cmd.Stdin = strings.NewReader(strings.Join(files, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatal(err)
	}
	lines := json.NewDecoder(bytes.NewReader(out))
	for i, f := range files {
		var one struct {
			File  string
			Ms    float64
			Texts []string
		}
		if err := lines.Decode(&one); err != nil || one.File != f {
			tb.Fatalf("zxing.js answered %q for %q: %v", one.File, f, err)
		}
		t.spent += time.Duration(one.Ms * float64(time.Millisecond))
		t.count(&shots[i], one.Texts)
	}
	return t
}

// BenchmarkCamera measures ours and the peers on the same pictures, in the
// processor's time, and prints the share that each read. AZS_CAMERA_N is the number
// of pictures of each class and version; the suite has 40.
func BenchmarkCamera(b *testing.B) {
	var shots []camera.Shot
	for shot := range camera.Suite(suiteSeed, perCell(b, 4)) {
		shots = append(shots, shot)
	}
	files := bitmaps(b, shots)
	stocked := func(l Luma) []string {
		if c, ok := stock(l); ok {
			return []string{c.Text}
		}
		return nil
	}
	for _, peer := range []struct {
		name    string
		measure func() tally
	}{
		{"ours-one-pass", func() tally { return ours(b, OnePass, shots) }},
		{"ours-thorough", func() tally { return ours(b, Thorough, shots) }},
		{"gozxing", func() tally { return inside(b, shots, stocked) }},
		{"zbar", func() tally { return zbar(b, shots, files) }},
		{"zxing-wasm", func() tally { return zxingWASM(b, shots, files) }},
	} {
		var t tally
		b.Run(peer.name, func(b *testing.B) {
			for range b.N {
				t = peer.measure()
			}
			if t.none != "" {
				b.Skip(t.none)
			}
			n := float64(len(shots))
			b.ReportMetric(100*float64(t.total)/n, "%read")
			b.ReportMetric(t.spent.Seconds()*1000/n, "ms/frame")
			b.ReportMetric(float64(t.wrong), "wrong")
			b.ReportMetric(0, "ns/op")
			b.Log(report(t, shots))
		})
	}
}

// report is a table of the pictures that were read, by class and version.
func report(t tally, shots []camera.Shot) string {
	var w strings.Builder
	of := map[camera.Class]int{}
	for i := range shots {
		of[shots[i].Class]++
	}
	for _, class := range camera.Classes() {
		sum := 0
		var cells []string
		for _, v := range camera.Versions() {
			sum += t.read[class][v]
			cells = append(cells, fmt.Sprintf("V%d %3d", v, t.read[class][v]))
		}
		fmt.Fprintf(&w, "%-8s %5.1f %%   %s\n", class, 100*float64(sum)/float64(of[class]), strings.Join(cells, "  "))
	}
	return w.String()
}

// TestCameraSuite holds, on the first picture of every class and version, what the
// benchmark measures on all of them: no wrong text, and a share that a change for
// the worse does not reach.
func TestCameraSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("50 pictures take some seconds")
	}
	var shots []camera.Shot
	for shot := range camera.Suite(suiteSeed, perCell(t, 1)) {
		shots = append(shots, shot)
	}
	for _, test := range []struct {
		mode  Mode
		least float64
	}{{OnePass, .70}, {Thorough, .82}} {
		got := ours(t, test.mode, shots)
		if got.wrong > 0 {
			t.Errorf("mode %d: %d wrong texts", test.mode, got.wrong)
		}
		if share := float64(got.total) / float64(len(shots)); share < test.least {
			t.Errorf("mode %d read %.0f %%, less than %.0f %%", test.mode, 100*share, 100*test.least)
		}
	}
}
