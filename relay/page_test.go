package main_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/frame"
	"github.com/azs-courier/azs-courier/shared/frame/render"
)

// The pages are held here in the browser that operators have. What plays in front
// of its camera is a clip of our own codes.

// newBrowser starts Chromium. With a clip it has a camera that sees the clip.
func newBrowser(t testing.TB, clip string) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("AZS_REQUIRE_CHROMIUM") == "1" {
			t.Fatal(err)
		}
		t.Skipf("chromium is missing: %v", err)
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.Flag("headless", "new"), chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.WindowSize(1280, 900), chromedp.Flag("hide-scrollbars", true), chromedp.WSURLReadTimeout(2 * time.Minute)}
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	if clip != "" {
		options = append(options, chromedp.Flag("use-fake-device-for-media-stream", true), chromedp.Flag("use-fake-ui-for-media-stream", true),
			chromedp.Flag("use-file-for-fake-video-capture", clip))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // a browser that hangs
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// traffic is what a tab asked for and complained of.
type traffic struct {
	mu         sync.Mutex
	asked      []string // addresses
	answered   map[string][]int64
	complaints []string
}

// listen starts the browser's tab.
func listen(t testing.TB, tab context.Context) *traffic {
	t.Helper()
	n := &traffic{answered: map[string][]int64{}}
	err := chromedp.Listen(tab, func(ev any) {
		n.mu.Lock()
		defer n.mu.Unlock()
		switch ev := ev.(type) {
		case *network.EventRequestWillBeSent:
			n.asked = append(n.asked, ev.Request.URL)
		case *network.EventResponseReceived:
			n.answered[ev.Response.URL] = append(n.answered[ev.Response.URL], int64(ev.Response.Status))
		case *log.EventEntryAdded: // the policy's violations, too
			n.complaints = append(n.complaints, fmt.Sprintf("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		case *cdpruntime.EventConsoleAPICalled:
			n.complaints = append(n.complaints, fmt.Sprintf("console: %v", ev.Type))
		case *cdpruntime.EventExceptionThrown:
			n.complaints = append(n.complaints, fmt.Sprintf("exception: %+v", ev.ExceptionDetails))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// check holds a tab to its origin and to silence.
func (n *traffic) check(t *testing.T, origin string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	own := 0
	for _, u := range n.asked {
		switch {
		case strings.HasPrefix(u, origin):
			own++
		case !strings.HasPrefix(u, "blob:") && !strings.HasPrefix(u, "data:"):
			t.Errorf("the page asked for %s, its origin is %s", u, origin)
		}
	}
	if own < 3 {
		t.Errorf("%d requests of the page to its origin were seen: the test is blind", own)
	}
	for _, c := range n.complaints {
		t.Errorf("the browser complains: %s", c)
	}
}

// served is a program that serves a page.
type served struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string
	stderr bytes.Buffer
	ended  chan error
}

// openPage starts the program and waits until it says its address.
func openPage(t testing.TB, cmd *exec.Cmd) *served {
	t.Helper()
	s := &served{t: t, cmd: cmd, ended: make(chan error, 1)}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(&s.stderr, lines.Text())
			if strings.HasPrefix(lines.Text(), "http://127.0.0.1:") {
				address <- lines.Text()
			}
		}
		io.Copy(&s.stderr, stderr)
		close(address)
		s.ended <- cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		for range s.ended { // until it is gone, and its standard error read
		}
	})
	if s.url = <-address; s.url == "" {
		t.Fatalf("no address was said: %v: %s", <-s.ended, &s.stderr)
	}
	return s
}

// wait waits for the program to end well.
func (s *served) wait() {
	s.t.Helper()
	if err := <-s.ended; err != nil {
		s.t.Fatalf("%v: %v: %s", s.cmd.Args[1:], err, &s.stderr)
	}
}

// origin is "http://127.0.0.1:PORT/".
func (s *served) origin() string { return s.url[:strings.Index(s.url[7:], "/")+8] }

func do(t testing.TB, tab context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab, steps...); err != nil {
		t.Fatal(err)
	}
}

// ask evaluates an expression in the tab; a promise is waited for.
func ask[T any](t testing.TB, tab context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to hold.
func until(t testing.TB, tab context.Context, expression string) {
	t.Helper()
	if _, err := chromedp.Run(tab, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(2*time.Minute), chromedp.WithPollingInterval(50*time.Millisecond))); err != nil {
		shot(t, tab, filepath.Join(t.ArtifactDir(), "failed.png"))
		t.Fatalf("%s: %v; the page says %q", expression, err, ask[string](t, tab, `document.body.innerText`))
	}
}

// shot keeps a picture of the window.
func shot(t testing.TB, tab context.Context, file string) {
	t.Helper()
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, png, 0o600); err != nil {
		t.Fatal(err)
	}
}

func prefer(t testing.TB, tab context.Context, scheme string) {
	t.Helper()
	_, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	if err != nil {
		t.Fatal(err)
	}
}

// fits fails when the page is wider than its window.
func fits(t testing.TB, tab context.Context) {
	t.Helper()
	if w := ask[[]int](t, tab, `[document.documentElement.scrollWidth, innerWidth]`); w[0] > w[1] {
		t.Errorf("the page is %d pixels wide in a window of %d", w[0], w[1])
	}
}

// clip films n codes of a wire form at version 20: 1280 by 720, 30 pictures a
// second of which each code lasts hold, a grey room around it, a little out of focus.
func clip(t testing.TB, wire []byte, hold int) (path string, k int) {
	t.Helper()
	set, err := frame.Split(wire, 20)
	if err != nil {
		t.Fatal(err)
	}
	const width, height, scale = 1280, 720, 6
	stills, err := render.NewReel(set).First(2 * set.K())
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "clip.y4m")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	fmt.Fprintf(out, "YUV4MPEG2 W%d H%d F30:1 Ip A1:1 C420jpeg\n", width, height)
	colour := bytes.Repeat([]byte{128}, width*height/2)
	for _, still := range stills {
		side := still.Code.Side() + 2*render.Quiet
		left, top := (width-side*scale)/2, (height-side*scale)/2
		sharp := bytes.Repeat([]byte{110}, width*height)
		for y := range side * scale {
			for x := range side * scale {
				luma := byte(225)
				if still.Code.Black(x/scale-render.Quiet, y/scale-render.Quiet) {
					luma = 30
				}
				sharp[(top+y)*width+left+x] = luma
			}
		}
		soft := bytes.Clone(sharp)
		for y := 1; y < height-1; y++ {
			for i := y*width + 1; i < (y+1)*width-1; i++ {
				soft[i] = byte((4*int(sharp[i]) + int(sharp[i-1]) + int(sharp[i+1]) + int(sharp[i-width]) + int(sharp[i+width])) / 8)
			}
		}
		for range hold {
			out.WriteString("FRAME\n")
			out.Write(soft)
			out.Write(colour)
		}
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path, set.K()
}

// bundleOf reads a bundle's text and its wire form.
func bundleOf(t testing.TB, file string) (text, wire []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Split(text)
	if err != nil {
		t.Fatal(err)
	}
	return text, b.Wire()
}

// sameFile fails unless the file holds want.
func sameFile(t testing.TB, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s holds %d bytes, want the %d of the bundle:\n%s", filepath.Base(file), len(got), len(want), got)
	}
}

// Threat: what a camera brings in is not what was sealed, or the page that holds the
// camera talks to anybody but the program.
func TestARequestCrossesByCamera(t *testing.T) {
	srv := azuretest.NewServer()
	defer srv.Close()
	f := newFleet(t, 1, srv)
	text, wire := bundleOf(t, filepath.Join(f.stick, "request-0000.azc"))
	film, k := clip(t, wire, 4)
	tab := newBrowser(t, film)
	seen := listen(t, tab)

	in := filepath.Join(t.TempDir(), "request.azc")
	s := openPage(t, f.command("scan", "--page", "--out", in))
	pictures := t.ArtifactDir()
	do(t, tab, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(s.url))
	until(t, tab, `document.getElementById('hint').textContent !== ''`)
	shot(t, tab, filepath.Join(pictures, "scan-begin.png"))
	// The first Tab stop, and the order of those that follow, is the order of the page.
	var order []string
	for range 4 {
		do(t, tab, chromedp.KeyEvent(kb.Tab))
		order = append(order, ask[string](t, tab, `document.activeElement.id`))
	}
	if got, want := strings.Join(order, " "), "close camera files "; got != want {
		t.Errorf("Tab goes to %q, want %q", got, want)
	}
	do(t, tab, chromedp.Click(chromedp.CSS("#camera")))
	until(t, tab, `!document.getElementById('arrived').hidden`)
	cover := ask[string](t, tab, `document.getElementById('cover').innerText`)
	if !strings.Contains(cover, "request") || ask[float64](t, tab, `document.getElementById('cover').getBoundingClientRect().height`) < 50 {
		t.Errorf("the cover sheet in the page reads %q", cover)
	}
	if ring := ask[string](t, tab, `document.querySelector('svg text').textContent`); ring != fmt.Sprintf("%d/%d", k, k) {
		t.Errorf("the ring says %q, want all of %d", ring, k)
	}
	s.wait()
	for _, view := range []struct {
		name, scheme string
		width        int64
	}{{"scan-done", "light", 1280}, {"scan-done-dark", "dark", 1280}, {"scan-done-narrow", "light", 380}} {
		prefer(t, tab, view.scheme)
		do(t, tab, chromedp.EmulateViewport(view.width, 900))
		fits(t, tab)
		shot(t, tab, filepath.Join(pictures, view.name+".png"))
	}
	seen.check(t, s.origin())
	sameFile(t, in, text)
	f.must(append([]string{"register", in, "--subscription", srv.Subscription, "--put", f.stick}, f.flags...)...)
	f.doubles(1)
}

// Threat: the answer that a page shows cannot be read back from its pictures.
func TestAnAnswerIsShownAndScannedBack(t *testing.T) {
	srv := azuretest.NewServer()
	defer srv.Close()
	f := newFleet(t, 1, srv)
	dir := t.TempDir()
	answer := filepath.Join(dir, "answer.azc")
	f.must(append([]string{"register", filepath.Join(f.stick, "request-0000.azc"), "--out", answer, "--subscription", srv.Subscription}, f.flags...)...)
	text, wire := bundleOf(t, answer)

	tab := newBrowser(t, "")
	seen := listen(t, tab)
	s := openPage(t, f.command("show", answer, "--page"))
	do(t, tab, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(s.url))
	until(t, tab, `document.getElementById('where').textContent.startsWith('code')`)
	do(t, tab, chromedp.KeyEvent(" "))
	until(t, tab, `document.getElementById('where').textContent.includes('paused')`)
	pictures := t.ArtifactDir()
	for _, view := range []struct {
		name, scheme string
		width        int64
	}{{"show-dark", "dark", 1280}, {"show-narrow", "light", 380}, {"show", "light", 1280}} {
		prefer(t, tab, view.scheme)
		do(t, tab, chromedp.EmulateViewport(view.width, 900))
		fits(t, tab)
		shot(t, tab, filepath.Join(pictures, view.name+".png"))
	}
	// The keys do what their buttons say.
	where := func() string { return ask[string](t, tab, `document.getElementById('where').textContent`) }
	for _, key := range []struct{ press, want string }{
		{"+", " 9 a second"}, {"-", " 8 a second"}, {"-", " 7 a second"}, {"=", " 8 a second"},
	} {
		if do(t, tab, chromedp.KeyEvent(key.press)); !strings.Contains(where(), key.want) {
			t.Errorf("after the key %q the page says %q, want %q", key.press, where(), key.want)
		}
	}
	version := func() int {
		return ask[int](t, tab, `+/version (\d+)/.exec(document.getElementById('where').textContent)[1]`)
	}
	before := version()
	do(t, tab, chromedp.KeyEvent("d"))
	until(t, tab, fmt.Sprintf(`!document.getElementById('where').textContent.includes('version %d ')`, before))
	if v := version(); v <= before {
		t.Errorf("denser went from version %d to %d", before, v)
	}
	denser := version()
	do(t, tab, chromedp.KeyEvent("s"))
	until(t, tab, fmt.Sprintf(`!document.getElementById('where').textContent.includes('version %d ')`, denser))
	if v := version(); v >= denser {
		t.Errorf("sparser went from version %d to %d", denser, v)
	}

	set, err := frame.Split(wire, version())
	if err != nil {
		t.Fatal(err)
	}
	series := filepath.Join(dir, "series")
	if err := os.Mkdir(series, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range set.K() {
		shot(t, tab, filepath.Join(series, fmt.Sprintf("%03d.png", i)))
		was := where()
		do(t, tab, chromedp.KeyEvent(kb.ArrowRight))
		if where() == was {
			t.Errorf("after → the page still says %q", was)
		}
	}
	back := filepath.Join(dir, "back.azc")
	scan := exec.Command(filepath.Join(binaries(t), "azs-agent"), "--home", filepath.Join(dir, "no-agent"), "scan", series, "--out", back)
	if out, err := scan.CombinedOutput(); err != nil {
		t.Fatalf("azs-agent scan: %v: %s", err, out)
	}
	sameFile(t, back, text)
	do(t, tab, chromedp.Click(chromedp.CSS("#close")))
	s.wait()
	seen.check(t, s.origin())
}

// Threat: a page of another origin, or a second browser, reaches the scan; and files
// cannot be given to a machine without a camera.
func TestOnlyTheFirstTabReachesTheScan(t *testing.T) {
	srv := azuretest.NewServer()
	defer srv.Close()
	f := newFleet(t, 1, srv)
	text, wire := bundleOf(t, filepath.Join(f.stick, "request-0000.azc"))
	tab := newBrowser(t, "")
	seen := listen(t, tab)
	in := filepath.Join(t.TempDir(), "request.azc")
	s := openPage(t, f.command("scan", "--page", "--out", in))

	// The worst case: the other page knows the address.
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		u := html.EscapeString(s.url)
		fmt.Fprintf(w, `<!doctype html><title>other</title><img src="%[1]s"><iframe src="%[1]s"></iframe><iframe name="f"></iframe><form method="post" target="f" action="%[1]sclose"></form>`, u)
	}))
	defer foreign.Close()
	attack := fmt.Sprintf(`(async u => {
		const got = []
		const go = async (path, o) => { try { const r = await fetch(u + path, o); if (r.type !== 'opaque') got.push(path + ' ' + r.status + ' ' + await r.text()) } catch (e) {} }
		for (const credentials of ['include', 'omit']) {
			await go('', { credentials })
			await go('', { credentials, mode: 'no-cors' })
			await go('view', { credentials, mode: 'no-cors' })
			await go('close', { credentials, mode: 'no-cors', method: 'POST' })
			await go('close', { credentials, method: 'POST', headers: { 'X-Azs-Token': 'x' } })
		}
		document.forms[0].submit()
		await new Promise(r => document.querySelector('[name=f]').onload = r)
		return got.join()
	})(%q)`, s.url)
	other, cancel := chromedp.NewContext(tab)
	defer cancel()
	heard := listen(t, other)
	from := func(when string) {
		t.Helper()
		do(t, other, chromedp.Navigate(foreign.URL))
		if got := ask[string](t, other, attack); got != "" {
			t.Errorf("%s the page another page got %q", when, got)
		}
	}
	from("before somebody opened")
	do(t, tab, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(s.url))
	until(t, tab, `document.getElementById('hint').textContent !== ''`)
	from("after somebody opened")
	heard.mu.Lock()
	refused := 0
	for u, answers := range heard.answered {
		for _, status := range answers {
			if !strings.HasPrefix(u, s.origin()) {
				continue
			}
			if refused++; status < 400 {
				t.Errorf("another page was answered %d by %s", status, u)
			}
		}
	}
	heard.mu.Unlock()
	if refused < 8 {
		t.Errorf("%d answers to the other page were seen: the test is blind", refused)
	}

	second, cancel := chromedp.NewContext(tab, chromedp.WithNewBrowserContext())
	defer cancel()
	answer, err := chromedp.Run(second, chromedp.NavigateResponse(s.url))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusNotFound {
		t.Errorf("the address opened a second time gives %v, want 404", answer.Status)
	}

	set, err := frame.Split(wire, 20)
	if err != nil {
		t.Fatal(err)
	}
	files, err := render.NewReel(set).PNGs(render.DefaultScale)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	dir := t.TempDir()
	for _, file := range files[:set.K()] {
		path := filepath.Join(dir, file.Name)
		if err := os.WriteFile(path, file.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	pictures := t.ArtifactDir()
	// A picture without a code, and all but one of the frames.
	no := filepath.Join(dir, "no.txt")
	if err := os.WriteFile(no, []byte("no picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	do(t, tab, chromedp.SetUploadFiles(chromedp.CSS("#files"), append([]string{no}, paths[1:]...)))
	until(t, tab, fmt.Sprintf(`document.querySelector('svg text')?.textContent === '%d/%d'`, set.K()-1, set.K()))
	if said := ask[string](t, tab, `document.getElementById('error').innerText`); !strings.Contains(said, "no.txt") {
		t.Errorf("of a file that is no picture the page says %q", said)
	}
	for _, view := range []struct {
		name, scheme string
		width        int64
	}{{"scan-half", "light", 1280}, {"scan-half-dark", "dark", 1280}, {"scan-half-narrow", "light", 380}} {
		prefer(t, tab, view.scheme)
		do(t, tab, chromedp.EmulateViewport(view.width, 900))
		fits(t, tab)
		shot(t, tab, filepath.Join(pictures, view.name+".png"))
	}
	do(t, tab, chromedp.SetUploadFiles(chromedp.CSS("#files"), paths[:1]))
	until(t, tab, `!document.getElementById('arrived').hidden`)
	s.wait()
	sameFile(t, in, text)
	if runtime.GOOS != "windows" { // a refused file is a line in the log: 422
		var rest []string
		for _, c := range seen.complaints {
			if !strings.Contains(c, "422") {
				rest = append(rest, c)
			}
		}
		seen.complaints = rest
	}
	seen.check(t, s.origin())
}

// BenchmarkPage is a bundle of 12 kB that plays 10 codes a second in front of the
// browser's camera: from the click on "Start camera" to the cover sheet.
func BenchmarkPage(b *testing.B) {
	srv := azuretest.NewServer()
	defer srv.Close()
	f := newFleet(b, 1, srv)
	_, wire := bundleOf(b, filepath.Join(f.stick, "request-0000.azc"))
	film, k := clip(b, wire, 3)
	tab := newBrowser(b, film)
	listen(b, tab)
	for b.Loop() {
		b.StopTimer()
		s := openPage(b, f.command("scan", "--page", "--fresh", "--out", filepath.Join(b.TempDir(), "request.azc")))
		do(b, tab, chromedp.Navigate(s.url))
		until(b, tab, `document.getElementById('hint').textContent !== ''`)
		b.StartTimer()
		do(b, tab, chromedp.Click(chromedp.CSS("#camera")))
		until(b, tab, `!document.getElementById('arrived').hidden`)
		b.StopTimer()
		s.wait()
		b.StartTimer()
	}
	b.ReportMetric(float64(k), "codes")
}
