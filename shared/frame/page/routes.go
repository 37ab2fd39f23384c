package page

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

//go:embed static
var static embed.FS

var index = template.Must(template.ParseFS(static, "static/page.html"))

func (p *Page) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+p.path+"{$}", p.index)
	for name, kind := range map[string]string{"page.js": "text/javascript", "player.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"} {
		mux.HandleFunc("GET "+p.path+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			data, _ := static.ReadFile("static/" + name)
			w.Write(data)
		})
	}
	mux.HandleFunc("POST "+p.path+"close", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		p.end()
	})
	if p.opt.Scanner != nil {
		mux.HandleFunc("GET "+p.path+"view", func(w http.ResponseWriter, r *http.Request) { answer(w, p.opt.Scanner.View(), nil) })
		mux.HandleFunc("POST "+p.path+"picture", p.picture)
		mux.HandleFunc("POST "+p.path+"file", p.file)
		mux.HandleFunc("POST "+p.path+"choose", func(w http.ResponseWriter, r *http.Request) {
			err := p.opt.Scanner.Choose(r.URL.Query().Get("id"))
			answer(w, p.opt.Scanner.View(), err)
		})
	}
	if p.opt.Player != nil {
		mux.HandleFunc("GET "+p.path+"reel", p.reel)
	}
	return mux
}

func (p *Page) index(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// A browser that is gone is no error of ours.
	_ = index.Execute(w, struct {
		Program, Token string
		Scan           bool
	}{p.opt.Program, p.token, p.opt.Scanner != nil})
}

func (p *Page) picture(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPicture))
	if err != nil {
		answer(w, View{}, tooLarge(err, "the camera picture", MaxPicture))
		return
	}
	v, err := p.opt.Scanner.Picture(r.Context(), data)
	answer(w, v, err)
}

// file keeps what was dropped in a temporary file for as long as it is scanned: a
// video does not fit into memory, and ffmpeg and pdftoppm read files.
func (p *Page) file(w http.ResponseWriter, r *http.Request) {
	v, err := func() (View, error) {
		dir, err := os.MkdirTemp("", "azs-page-")
		if err != nil {
			return View{}, fault.New(fault.Medium, "no room for the dropped file: %w", err)
		}
		defer os.RemoveAll(dir)
		name := filepath.Join(dir, "dropped"+extension(r.URL.Query().Get("name")))
		if err := save(name, http.MaxBytesReader(w, r.Body, MaxFile)); err != nil {
			return View{}, tooLarge(err, "the dropped file", MaxFile)
		}
		return p.opt.Scanner.File(r.Context(), name)
	}()
	answer(w, v, err)
}

func save(name string, from io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// extension returns the extension of a foreign name when it is a plain one, because
// the kind of a video is told by it.
func extension(name string) string {
	ext := strings.ToLower(path.Ext(name))
	if len(ext) < 2 || len(ext) > 6 || strings.Trim(ext[1:], "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return ""
	}
	return ext
}

func (p *Page) reel(w http.ResponseWriter, r *http.Request) {
	version := 0
	if v := r.URL.Query().Get("version"); v != "" {
		var err error
		if version, err = strconv.Atoi(v); err != nil || version < 1 || version > 40 {
			answer(w, nil, fault.New(fault.Usage, "%q is no QR version from 1 to 40", v))
			return
		}
	}
	reel, err := p.opt.Player.Codes(r.Context(), version)
	answer(w, reel, err)
}

func tooLarge(err error, what string, limit int) error {
	var m *http.MaxBytesError
	if errors.As(err, &m) {
		return fault.New(fault.Refused, "%s has more than %d MiB", what, limit>>20)
	}
	return fault.New(fault.Medium, "%s did not arrive: %w", what, err)
}

// answer sends v, or the sentence of the error with status 422.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		v = struct {
			Error string `json:"error"`
		}{err.Error()}
	}
	// A browser that is gone is no error of ours.
	_ = json.NewEncoder(w).Encode(v)
}
