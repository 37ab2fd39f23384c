package page

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// box is a scanner that keeps what came, as a page without any reader behind it sees it.
type box struct {
	mu       sync.Mutex
	pictures [][]byte
	files    map[string]string // extension → content
	folder   string
	chosen   string
	view     View
}

func (b *box) Picture(_ context.Context, p []byte) (View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pictures = append(b.pictures, p)
	return b.view, nil
}

func (b *box) File(_ context.Context, path string) (View, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return View{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[filepath.Ext(path)] = string(data)
	b.folder = filepath.Dir(path)
	if string(data) == "bad" {
		return View{}, fault.New(fault.Refused, "the image %q is damaged", "x")
	}
	return b.view, nil
}

func (b *box) View() View { return b.view }

func (b *box) Choose(id string) error { b.chosen = id; return nil }

func serve(t *testing.T, o Options) (p *Page, ended func() error) {
	t.Helper()
	o.Program, o.Random = "azs-agent", rand.Reader
	p, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- p.Serve(ctx) }()
	t.Cleanup(cancel)
	return p, func() error { return <-result }
}

// browser is a client with cookies, that has opened the page.
func browser(t *testing.T, p *Page) *http.Client {
	t.Helper()
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar}
	if status, _ := do(t, c, "GET", p.URL(), "", nil); status != 200 {
		t.Fatalf("the page answered %d", status)
	}
	return c
}

func do(t *testing.T, c *http.Client, method, url, body string, header map[string]string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			r.Host = v
		}
		r.Header.Set(k, v)
	}
	a, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	data, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(data)
}

func (p *Page) own() map[string]string {
	return map[string]string{"Origin": "http://" + p.host, "X-Azs-Token": p.token}
}

// Threat: a page of another origin, another program or another user reaches the scan.
func TestOnlyThePageGetsIn(t *testing.T) {
	b := &box{files: map[string]string{}}
	p, _ := serve(t, Options{Scanner: b})
	c := browser(t, p)
	for _, test := range []struct {
		name   string
		client *http.Client
		method string
		path   string
		change map[string]string
		want   int
	}{
		{"the page itself", c, "POST", "picture", nil, 200},
		{"the page again, with its cookie", c, "GET", "", nil, 200},
		{"another browser with the address", http.DefaultClient, "GET", "", map[string]string{"Origin": ""}, 404},
		{"another browser with the token", http.DefaultClient, "POST", "picture", nil, 404},
		{"another origin", c, "POST", "picture", map[string]string{"Origin": "https://evil.example"}, 403},
		{"another port", c, "POST", "picture", map[string]string{"Origin": "http://127.0.0.1:1"}, 403},
		{"an opaque origin", c, "POST", "picture", map[string]string{"Origin": "null"}, 403},
		{"no origin", c, "POST", "picture", map[string]string{"Origin": ""}, 403},
		{"no token", c, "POST", "picture", map[string]string{"X-Azs-Token": ""}, 403},
		{"a wrong token", c, "POST", "close", map[string]string{"X-Azs-Token": strings.Repeat("0", 32)}, 403},
		{"another site's link", c, "GET", "view", map[string]string{"Origin": "", "Sec-Fetch-Site": "cross-site"}, 403},
		{"DNS rebinding", c, "GET", "view", map[string]string{"Origin": "", "Host": "evil.example:80"}, 421},
		{"localhost by name", c, "GET", "view", map[string]string{"Origin": "", "Host": "localhost" + p.host[strings.Index(p.host, ":"):]}, 421},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := p.own()
			for k, v := range test.change {
				header[k] = v
				if v == "" {
					delete(header, k)
				}
			}
			before := len(b.pictures)
			if got, _ := do(t, test.client, test.method, p.URL()+test.path, "x", header); got != test.want {
				t.Errorf("answered %d, want %d", got, test.want)
			}
			if came := len(b.pictures) > before; came != (test.want == 200 && test.path == "picture") {
				t.Errorf("the scanner got a picture: %v", came)
			}
		})
	}
	if got, _ := do(t, c, "GET", "http://"+p.host+"/", "", nil); got != 404 {
		t.Errorf("a guessed path answered %d", got)
	}
}

func TestTheAddressIsGoodForOneBrowser(t *testing.T) {
	p, _ := serve(t, Options{Scanner: &box{}})
	for _, path := range []string{"view", "page.js", ".."} {
		if got, _ := do(t, http.DefaultClient, "GET", p.URL()+path, "", nil); got != 404 {
			t.Errorf("%s answered %d before the page was opened", path, got)
		}
	}
	browser(t, p)
	if got, _ := do(t, http.DefaultClient, "GET", p.URL(), "", nil); got != 404 {
		t.Errorf("a second browser got %d", got)
	}
}

// Threat: the page is made to load or send something elsewhere.
func TestThePageNamesNoOtherOrigin(t *testing.T) {
	p, _ := serve(t, Options{Scanner: &box{}})
	c := browser(t, p)
	for _, name := range []string{"", "page.js", "player.js", "page.css"} {
		r, err := c.Get(p.URL() + name)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != 200 {
			t.Fatalf("%q answered %d", name, r.StatusCode)
		}
		policy := r.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%q: the policy %q lacks %s", name, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%q: the policy %q allows what is unsafe", name, policy)
		}
		for _, bad := range []string{"://", "innerHTML", " style=", "onclick=\""} {
			if strings.Contains(string(body), bad) {
				t.Errorf("%q has %q in it", name, bad)
			}
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	b := &box{files: map[string]string{}}
	p, _ := serve(t, Options{Scanner: b})
	c := browser(t, p)
	status, body := do(t, c, "POST", p.URL()+"picture", strings.Repeat("x", MaxPicture+1), p.own())
	if status != 422 || !strings.Contains(body, "more than 8 MiB") || len(b.pictures) != 0 {
		t.Errorf("answered %d %s, and %d pictures came", status, body, len(b.pictures))
	}
}

func TestADroppedFileIsScannedAndGone(t *testing.T) {
	b := &box{files: map[string]string{}, view: View{Hint: "closer"}}
	p, _ := serve(t, Options{Scanner: b})
	c := browser(t, p)
	for name, ext := range map[string]string{"a.PNG": ".png", "../../b.y4m": ".y4m", "c.sh;rm": "", "d": "", "e.toolongext": "", "x": ""} {
		content := "content of " + name
		status, body := do(t, c, "POST", p.URL()+"file?name="+strings.NewReplacer(";", "%3B", "/", "%2F").Replace(name), content, p.own())
		var v View
		if err := json.Unmarshal([]byte(body), &v); status != 200 || err != nil || v.Hint != "closer" {
			t.Fatalf("%s: %d %s %v", name, status, body, err)
		}
		if b.files[ext] != content {
			t.Errorf("%s came as %v", name, b.files)
		}
		if _, err := os.Stat(b.folder); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the temporary folder stayed: %v", name, err)
		}
	}
	status, body := do(t, c, "POST", p.URL()+"file?name=x.png", "bad", p.own())
	if status != 422 || !strings.Contains(body, "is damaged") {
		t.Errorf("a bad file: %d %s", status, body)
	}
}

func TestTheBrowserEndsThePage(t *testing.T) {
	b := &box{}
	p, ended := serve(t, Options{Scanner: b})
	c := browser(t, p)
	if _, body := do(t, c, "POST", p.URL()+"choose?id=0a0b0c0d", "", p.own()); b.chosen != "0a0b0c0d" {
		t.Errorf("chosen %q: %s", b.chosen, body)
	}
	if got, _ := do(t, c, "POST", p.URL()+"close", "", p.own()); got != 204 {
		t.Fatalf("close answered %d", got)
	}
	if err := ended(); err != nil {
		t.Error(err)
	}
}

func TestTheContextEndsThePage(t *testing.T) {
	p, err := Listen(Options{Program: "azs-relay", Random: rand.Reader, Scanner: &box{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Serve(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

type reel struct{ asked int }

func (r *reel) Codes(_ context.Context, version int) (Reel, error) {
	r.asked = version
	if version == 1 {
		return Reel{}, fault.New(fault.Usage, "version 1 is too small")
	}
	return Reel{ID: "0a0b0c0d", Version: 2, Modules: 25, K: 1, N: 8, Codes: []Still{{Index: 3, Bits: []byte{0x80}}}}, nil
}

func TestThePageShows(t *testing.T) {
	r := &reel{}
	p, _ := serve(t, Options{Player: r})
	c := browser(t, p)
	_, body := do(t, c, "GET", p.URL()+"reel?version=2", "", nil)
	var got Reel
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := Reel{ID: "0a0b0c0d", Version: 2, Modules: 25, K: 1, N: 8, Codes: []Still{{Index: 3, Bits: []byte{0x80}}}}
	if diff := cmp.Diff(want, got); diff != "" || r.asked != 2 {
		t.Error(diff, r.asked)
	}
	for query, sentence := range map[string]string{"?version=1": "too small", "?version=41": "no QR version", "?version=x": "no QR version"} {
		if status, body := do(t, c, "GET", p.URL()+"reel"+query, "", nil); status != 422 || !strings.Contains(body, sentence) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	if status, _ := do(t, c, "POST", p.URL()+"picture", "", p.own()); status != 404 {
		t.Errorf("a page that shows takes pictures: %d", status)
	}
}
