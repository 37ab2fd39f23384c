// Package page serves the browser page that scans and shows optical frames: the
// browser has the camera, this process has the reader, and loopback lies between.
//
// Property: nothing but the browser of the operator who was told the address gets
// in, and nothing that the page holds gets out. The server listens on 127.0.0.1
// only. The address holds 128 random bits and works once: who opens it first gets a
// cookie, and without that cookie it answers 404 from then on. Whatever changes
// something needs, besides the cookie, a second random token in a header that only
// the page itself knows, and an Origin that is the server's own; a Host other than
// the server's own is refused before anything else (DNS rebinding). The policy that
// is sent with every answer lets the page load and call its own origin and nothing
// else: no inline script, no frame around it, no referrer, no cache.
//
// Limit: another program of the same user can read this process's memory or the
// browser's, and a root user can listen on loopback. What crosses here is a sealed
// bundle, as it would be on a stick that was left on the desk.
//
// The package knows no QR code. It hands pictures to a [Scanner] and takes codes
// from a [Player]; flow of data: browser → page → Scanner → browser.
package page

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Bounds of what a browser may send.
const (
	MaxPicture = 8 << 20   // bytes of one camera picture
	MaxFile    = 512 << 20 // bytes of one dropped image or video
)

// A Scanner takes what the camera sees and what is dropped on the page. Its methods
// are called by several goroutines.
type Scanner interface {
	// Picture scans one JPEG or PNG picture.
	Picture(ctx context.Context, picture []byte) (View, error)
	// File scans an image, a video or a PDF that lies at path.
	File(ctx context.Context, path string) (View, error)
	// View tells how far the scan is.
	View() View
	// Choose says which of several bundles is meant, by its id.
	Choose(id string) error
}

// A View is how far a scan is, and what was seen in the picture that was asked about.
type View struct {
	Codes   []Code   `json:"codes"`
	Bundles []Bundle `json:"bundles"`
	Rate    float64  `json:"rate"`    // pictures a second
	Decoded float64  `json:"decoded"` // share of pictures with a code, 0…1
	Hint    string   `json:"hint"`    // what may help, or ""
	Cover   string   `json:"cover"`   // the cover sheet of the bundle that arrived, or ""
	Done    bool     `json:"done"`    // the bundle is complete and was taken
}

// A Code is a code in a picture.
type Code struct {
	Corners [4][2]float64 `json:"corners"` // x and y as shares of width and height
	New     bool          `json:"new"`     // a frame that was missing
}

// A Bundle is how much of one bundle is there.
type Bundle struct {
	ID      string `json:"id"` // hex
	Have    int    `json:"have"`
	K       int    `json:"k"`
	Missing []int  `json:"missing"` // systematic frames that are not there
	Done    bool   `json:"done"`
}

// A Player gives the codes of a bundle that the page shows.
type Player interface {
	// Codes returns the animation at the QR version, 0 meaning the one that fits best.
	Codes(ctx context.Context, version int) (Reel, error)
}

// A Reel is an animation.
type Reel struct {
	ID      string  `json:"id"`      // of the bundle, hex
	Title   string  `json:"title"`   // the bundle in the operator's words
	Version int     `json:"version"` // QR version
	Modules int     `json:"modules"` // on a side, without the quiet zone
	K       int     `json:"k"`
	N       int     `json:"n"`
	Codes   []Still `json:"codes"`
}

// A Still is one code: its modules row by row, the most significant bit first, every
// row beginning with a new byte, a set bit black.
type Still struct {
	Index int    `json:"index"`
	Bits  []byte `json:"bits"`
}

// Options says what a page is for. One of Scanner and Player is set.
type Options struct {
	Program string    // "azs-agent"
	Random  io.Reader // of the address and of the token
	Scanner Scanner
	Player  Player
}

// A Page is a page that is being served.
type Page struct {
	opt     Options
	host    string // "127.0.0.1:49152"
	path    string // "/" and 32 hex digits and "/"
	cookie  string
	token   string
	server  *http.Server
	listen  net.Listener
	done    chan struct{}
	finish  sync.Once
	mu      sync.Mutex
	claimed bool // the address was opened
}

// Listen makes a page on a free port of 127.0.0.1. It is served by [Page.Serve].
func Listen(o Options) (*Page, error) {
	p := &Page{opt: o, done: make(chan struct{})}
	var secrets [3]string
	for i := range secrets {
		b := make([]byte, 16)
		if _, err := io.ReadFull(o.Random, b); err != nil {
			return nil, fault.New(fault.Unexpected, "no randomness for the page's address: %w", err)
		}
		secrets[i] = hex.EncodeToString(b)
	}
	p.path, p.cookie, p.token = "/"+secrets[0]+"/", secrets[1], secrets[2]
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fault.New(fault.Unexpected, "the page cannot be served on 127.0.0.1: %w", err)
	}
	p.listen, p.host = l, l.Addr().String()
	p.server = &http.Server{
		Handler:           p.guard(p.routes()),
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	return p, nil
}

// URL returns the address to open. It is good for one browser.
func (p *Page) URL() string { return "http://" + p.host + p.path }

// Serve serves the page until it was finished in the browser, or until the context
// ends. It returns nil in the first case and the context's error in the second.
func (p *Page) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.server.BaseContext = func(net.Listener) context.Context { return ctx }
	failed := make(chan error, 1)
	go func() { failed <- p.server.Serve(p.listen) }()
	var err error
	select {
	case <-p.done:
	case <-ctx.Done():
		err = ctx.Err()
		cancel()
	case err = <-failed:
		return fault.New(fault.Unexpected, "the page ended: %w", err)
	}
	// The last answer goes out, nothing else is waited for.
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer stop()
	if p.server.Shutdown(last) != nil {
		p.server.Close()
	}
	if e := <-failed; err == nil && !errors.Is(e, http.ErrServerClosed) {
		err = fault.New(fault.Unexpected, "the page ended: %w", e)
	}
	return err
}

func (p *Page) end() { p.finish.Do(func() { close(p.done) }) }

const cookieName = "azs"

// guard refuses whoever is not the browser that opened the address.
func (p *Page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
			"img-src 'self' blob:; media-src 'self' blob: mediastream:; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(self), microphone=(), geolocation=()")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if r.Host != p.host {
			refuse(w, http.StatusMisdirectedRequest, "this host is not %s", p.host)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+p.host {
			refuse(w, http.StatusForbidden, "a page of another origin called")
			return
		}
		// A link from another page may open nothing but what a person opens: the page.
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
			refuse(w, http.StatusForbidden, "a page of another origin called")
			return
		}
		if !p.known(w, r) {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if r.Header.Get("Origin") == "" || !same(r.Header.Get("X-Azs-Token"), p.token) {
				refuse(w, http.StatusForbidden, "the call does not come from the page")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// known reports whether the request comes from the browser that opened the address
// first, and makes the browser that asks for it now that one.
func (p *Page) known(w http.ResponseWriter, r *http.Request) bool {
	if len(r.URL.Path) < len(p.path) || !same(r.URL.Path[:len(p.path)], p.path) {
		return false
	}
	if c, err := r.Cookie(cookieName); err == nil && same(c.Value, p.cookie) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claimed || r.Method != http.MethodGet || r.URL.Path != p.path {
		return false
	}
	p.claimed = true
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: p.cookie, Path: p.path, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return true
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func refuse(w http.ResponseWriter, status int, format string, a ...any) {
	http.Error(w, fmt.Sprintf(format, a...), status)
}
