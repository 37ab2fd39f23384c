package appkit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"io"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strings"
	"sync"
	"testing"

	qr "github.com/skip2/go-qrcode"

	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/frame/page"
)

// talk collects standard error and hands over the address of the page.
type talk struct {
	mu      sync.Mutex
	all     bytes.Buffer
	address chan string
}

var address = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+/[0-9a-f]+/`)

func (w *talk) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(b)
	if a := address.FindString(w.all.String()); a != "" {
		select {
		case w.address <- a:
		default:
		}
	}
	return len(b), nil
}

func (w *talk) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// Half of a bundle was typed; the rest is seen by the camera of the page, whose
// calls a client makes here that is no browser.
func TestScanPageFinishesWhatWasTyped(t *testing.T) {
	agent, relay := newSides(t)
	set := frames(t, agent.request(t.TempDir(), 1, nil), 10)
	half := set.K() / 2
	relay.types(12, lines(t, set, 0, half), []string{"scan", "-"})

	var out bytes.Buffer
	said := &talk{address: make(chan string, 1)}
	ended := make(chan int, 1)
	go func() {
		ended <- appkit.Main(station("relay"), []string{"--home", relay.home, "scan", "--page"}, strings.NewReader(""), &out, said)
	}()
	var url string
	select {
	case url = <-said.address:
	case code := <-ended:
		t.Fatalf("it ended with %d before it gave an address: %s", code, said)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	res, err := browser.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	html, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	token := regexp.MustCompile(`name="token" content="([^"]+)"`).FindSubmatch(html)
	if token == nil {
		t.Fatalf("no token in %s", html)
	}
	post := func(path string, body []byte) (v page.View) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, url+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Azs-Token", string(token[1]))
		req.Header.Set("Origin", url[:strings.Index(url[7:], "/")+7])
		res, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode == http.StatusNoContent {
			return v
		}
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s: %s", path, res.Status, raw)
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for i := range set.K() - half {
		text, err := set.Text(set.N() - 1 - i)
		if err != nil {
			t.Fatal(err)
		}
		code, err := qr.New(text, qr.Low)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, code.Image(-5), nil); err != nil {
			t.Fatal(err)
		}
		v := post("picture", b.Bytes())
		if len(v.Bundles) != 1 || v.Bundles[0].Have != half+i+1 || v.Done != (half+i+1 == set.K()) {
			t.Fatalf("picture %d: %+v", i, v)
		}
		if v.Done && !strings.HasPrefix(v.Cover, "request ") {
			t.Errorf("the cover sheet is %q", v.Cover)
		}
	}
	post("close", nil)
	if code := <-ended; code != 0 || !strings.Contains(out.String(), "scanned  request") {
		t.Errorf("it ended with %d: %s%s", code, out.String(), said)
	}
	if got := fmt.Sprint(relay.must(0, []string{"log"})); !strings.Contains(got, "scanned") {
		t.Errorf("the log does not say it: %s", got)
	}
}
