package render

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/azs-courier/azs-courier/shared/fault"
)

var (
	//go:embed static/show.html
	showHTML string
	//go:embed static/show.css
	showCSS string
	//go:embed static/show.js
	showJS string
)

// film is what the page's script draws.
type film struct {
	ID          string  `json:"id"`
	FPS         int     `json:"fps"`
	Modules     int     `json:"modules"` // on a side, without the white
	Codes       []cut   `json:"codes"`
	Millimetres float64 `json:"millimetres"` // of a printed module
	Sheets      []cut   `json:"sheets"`
}

type cut struct {
	Index   int    `json:"index"`
	Modules int    `json:"modules,omitempty"` // where they are not those of the film
	Bits    []byte `json:"bits"`
}

func cuts(stills []Still, modules int) []cut {
	var out []cut
	for _, s := range stills {
		c := cut{Index: s.Index, Bits: s.Code.Bits()}
		if s.Code.Side() != modules {
			c.Modules = s.Code.Side()
		}
		out = append(out, c)
	}
	return out
}

// HTML writes one page that needs nothing else: on a screen it plays the codes of
// r, with controls; printed, it is the codes to keep of the set of sheets, behind
// the cover and the recipe. The page's own policy lets it load and call nothing,
// and lets no script run but the one that is in it.
func (r *Reel) HTML(w io.Writer, cover Cover, rate int, sheets *Reel) error {
	all, err := r.All()
	if err != nil {
		return err
	}
	kept, err := sheets.Kept()
	if err != nil {
		return err
	}
	set := r.set
	modules := Modules(set.Version())
	data, err := json.Marshal(film{ID: set.ID().String(), FPS: rate, Modules: modules, Codes: cuts(all, modules), Millimetres: Module, Sheets: cuts(kept, modules)})
	if err != nil {
		return fault.New(fault.Unexpected, "the page of bundle %s: %w", set.ID(), err)
	}
	var rows, steps strings.Builder
	for _, row := range cover.Rows {
		fmt.Fprintf(&rows, "<dt>%s</dt><dd>%s</dd>", html.EscapeString(row.Name), html.EscapeString(row.Value))
	}
	steps.WriteString("<ol>")
	for _, s := range recipe(sheets.set.K(), len(kept)) {
		fmt.Fprintf(&steps, "<li>%s<pre>%s</pre></li>", html.EscapeString(s.Text), html.EscapeString(s.Type))
	}
	fmt.Fprintf(&steps, "</ol><p>restore.py:</p><pre>%s</pre>", html.EscapeString(script()))
	lead := fmt.Sprintf("%d bytes, id %s. Any %d of these %d codes are enough, in any order.", set.Length(), set.ID(), set.K(), len(all))
	paper := fmt.Sprintf("azs-courier bundle of %d bytes in wire form, id %s. Any %d of the %d codes on the sheets are enough.", set.Length(), set.ID(), sheets.set.K(), len(kept))
	// What is put in is not looked at again: a title cannot smuggle in a placeholder.
	page := strings.NewReplacer(
		"{{policy}}", fmt.Sprintf("default-src 'none'; script-src %s; style-src %s; base-uri 'none'; form-action 'none'", hashOf(showJS), hashOf(showCSS)),
		"{{title}}", html.EscapeString(cover.Title), "{{lead}}", html.EscapeString(lead), "{{paper}}", html.EscapeString(paper), "{{style}}", showCSS,
		"{{rows}}", rows.String(), "{{recipe}}", steps.String(),
		"{{film}}", string(data), // encoding/json spells < as \u003c
		"{{script}}", showJS,
	).Replace(showHTML)
	_, err = io.WriteString(w, page)
	return err
}

// hashOf is the source expression of an inline script or style (CSP 3, section 2.3.1).
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
