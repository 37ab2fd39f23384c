package appkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/frame"
	camera "github.com/azs-courier/azs-courier/shared/frame/page"
	"github.com/azs-courier/azs-courier/shared/frame/render"
	"github.com/azs-courier/azs-courier/shared/medium"
)

func showVerb(p Program) *cli.Command {
	return Describe(&cli.Command{
		Name: "show", Usage: "show a bundle as QR codes: in the terminal, as pictures, on a page, on paper", ArgsUsage: "BUNDLE",
		Description: "Without a flag the codes play in the terminal, as large as fits: - and + change the speed, space pauses, n steps, d and s make the codes denser or sparser, q ends it. " +
			"A terminal of 80 by 24 carries up to 10 kB, one of 120 by 40 up to 50 kB; a larger one is quicker. " +
			"Any of the codes are enough, as soon as there are as many as the bundle needs; every code was read back before it is shown. " +
			"--pdf makes A4 sheets with a cover and a recipe that restores the bundle without this program; --html makes one page that plays without a network and prints as such sheets.",
		Flags:  append(showFlags(), showTuning()...),
		Action: Run(runShow),
	}, Help{
		Examples: []string{p.Name + " show request.azc", p.Name + " show request.azc --page", p.Name + " show request.azc --pdf request.pdf --html request.html", p.Name + " show request.azc --png pictures --gif request.gif --fps 5"},
		Exit:     []fault.Kind{fault.Usage, fault.Refused, fault.Medium},
	})
}

// showFlags say where codes go instead of the terminal.
func showFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "png", Usage: "write the codes as pictures into the folder `DIR`"},
		&cli.StringFlag{Name: "gif", Usage: "write an animation to `FILE`"},
		&cli.StringFlag{Name: "html", Usage: "write a page with an animation that also prints as sheets to `FILE`"},
		&cli.StringFlag{Name: "pdf", Usage: "write sheets to print to `FILE`"},
		&cli.BoolFlag{Name: "page", Usage: "serve the animation on 127.0.0.1 and print its address"},
	}
}

func showTuning() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "version", Usage: "QR version `N`, 1 to 40, of the codes (default: 10 in print, up to 20 in files and pages, what fits in the terminal)", DefaultText: "by the medium"},
		&cli.IntFlag{Name: "fps", Usage: "`N` codes a second, 1 to 15", Value: render.DefaultRate},
	}
}

// ShowFlag is the flag of a verb that makes a bundle and may show it at once.
func ShowFlag() cli.Flag {
	return &cli.BoolFlag{Name: "show", Usage: "play the codes of the bundle in the terminal"}
}

// screenVersion is the densest version of codes that are shown by a file or a
// page: a webcam of 720 lines sees five pixels of each module.
const screenVersion = 20

// gifScale is the pixels of a module in an animation.
const gifScale = 6

// showing is where the codes of a bundle go and how.
type showing struct {
	png, gif, html, pdf string
	page, terminal      bool
	version, rate       int
}

func readShowing(c *cli.Context) (showing, error) {
	o := showing{png: c.String("png"), gif: c.String("gif"), html: c.String("html"), pdf: c.String("pdf"), page: c.Bool("page"), terminal: c.Bool("qr"), version: c.Int("version"), rate: c.Int("fps")}
	if o.rate == 0 && !c.IsSet("fps") { // a verb without that flag
		o.rate = render.DefaultRate
	}
	switch {
	case c.IsSet("version") && (o.version < 1 || o.version > 40):
		return o, fault.New(fault.Usage, "--version is %d, QR codes have the versions 1 to 40", o.version)
	case o.rate < render.MinRate || o.rate > render.MaxRate:
		return o, fault.New(fault.Usage, "--fps is %d, want %d to %d", o.rate, render.MinRate, render.MaxRate)
	}
	return o, nil
}

// elsewhere reports whether anything but the terminal was asked for.
func (o showing) elsewhere() bool {
	return o.png != "" || o.gif != "" || o.html != "" || o.pdf != "" || o.page
}

// CheckShow refuses, before anything is made, to show codes where there is no
// terminal to show them in.
func (e *Env) CheckShow() error {
	if e.Console.CanAnimate() {
		return nil
	}
	return fault.New(fault.Usage, "standard output is no terminal, in which codes could play; files take them: --png DIR, --gif FILE, --html FILE, --pdf FILE, and a browser: --page").
		Hint("%s show BUNDLE --pdf bundle.pdf", e.Program)
}

func runShow(ctx context.Context, e *Env, c *cli.Context) error {
	args, err := Args(c, "BUNDLE")
	if err != nil {
		return err
	}
	o, err := readShowing(c)
	if err != nil {
		return err
	}
	if !o.elsewhere() {
		if err := e.CheckShow(); err != nil {
			return err
		}
	}
	raw, err := e.ReadBundle(args[0])
	if err != nil {
		return err
	}
	b, err := bundle.Split(raw)
	if err != nil {
		return err
	}
	return e.show(ctx, b, args[0], o)
}

// ShowLater plays a bundle in the terminal when the verb has ended well and has
// given back its state folder and its connections. Path names the bundle in the
// commands that are offered to the operator. The verb has called [Env.CheckShow].
func (e *Env) ShowLater(b *bundle.Bundle, path string) {
	e.after = func(ctx context.Context) error { return e.show(ctx, b, path, showing{rate: render.DefaultRate}) }
}

// shown is one thing that shows a bundle.
type shown struct {
	As      string `json:"as"` // png, gif, html, pdf, page, terminal
	Place   string `json:"place"`
	Version int    `json:"version,omitempty"` // of the codes; 0 where it changes
	K       int    `json:"k,omitempty"`
	Codes   int    `json:"codes,omitempty"`
}

// show checks the bundle, shows it everywhere that was asked for, journals it and
// reports it.
func (e *Env) show(ctx context.Context, b *bundle.Bundle, path string, o showing) error {
	v, sheet, err := sheetOf(b)
	if err != nil {
		return err
	}
	wire := b.Wire()
	if frame.SmallestVersion(len(wire)) == 0 {
		_, err := frame.Split(wire, 40) // says why
		return err
	}
	cover := render.Cover{Title: fmt.Sprintf("%s %s", sheet.Kind, sheet.Bundle), Made: v.Manifest.Created}
	for _, f := range sheet.rows() {
		cover.Rows = append(cover.Rows, render.Row(f))
	}
	places, err := e.showFiles(wire, cover, o)
	if err == nil && o.page {
		err = e.showPage(ctx, wire, cover.Title)
		places = append(places, shown{As: "page", Place: "a page on this machine"})
	}
	if err == nil && (o.terminal || !o.elsewhere()) {
		player := render.NewTerminal(render.Showing{Wire: wire, Version: o.version, Rate: o.rate, Instead: []string{
			e.Program + " show " + path + " --page", e.Program + " show " + path + " --html FILE", e.Program + " show " + path + " --png DIR", e.Program + " show " + path + " --pdf FILE",
		}})
		if err = e.Console.Animate(ctx, player); player.Shown() { // however it ended
			places = append(places, shown{As: "terminal", Place: "the terminal"})
		}
	}
	for _, p := range places {
		if failed := e.noteExport("shown", v.Manifest, b, p.Place); failed != nil {
			return errors.Join(err, failed)
		}
	}
	if err != nil {
		return err
	}
	e.Console.Result("show", map[string]any{"bundle": sheet.Bundle, "kind": sheet.Kind, "id": frame.IDOf(wire).String(), "wireBytes": len(wire), "shown": places}, func(w io.Writer) {
		for _, p := range places {
			if p.Codes > 0 {
				fmt.Fprintf(w, "%s  %d codes of version %d, any %d are enough\n", p.Place, p.Codes, p.Version, p.K)
			}
		}
	})
	return nil
}

// reel cuts a bundle into codes of the version that was asked for, or else of the
// one that suits.
func reel(wire []byte, asked, suits int) (*render.Reel, error) {
	if asked == 0 {
		asked = max(suits, frame.SmallestVersion(len(wire)))
	}
	set, err := frame.Split(wire, asked)
	if err != nil {
		return nil, err
	}
	return render.NewReel(set), nil
}

// showFiles writes every file that was asked for and returns those that were
// written before an error.
func (e *Env) showFiles(wire []byte, cover render.Cover, o showing) ([]shown, error) {
	var places []shown
	wrote := func(as, place string, r *render.Reel, codes []render.Still) {
		places = append(places, shown{as, place, r.Set().Version(), r.Set().K(), len(codes)})
	}
	screen, err := reel(wire, o.version, render.Fit(len(wire), screenVersion))
	if err != nil {
		return nil, err
	}
	paper, err := reel(wire, o.version, render.PrintFit(len(wire)))
	if err != nil {
		return nil, err
	}
	if o.png != "" {
		files, err := screen.PNGs(render.DefaultScale)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(o.png, 0o755); err != nil {
			return nil, fault.New(fault.Medium, "folder %q could not be made: %w", o.png, err)
		}
		for _, f := range files {
			if err := medium.Save(filepath.Join(o.png, f.Name), f.Data, false); err != nil {
				return nil, err
			}
		}
		kept, _ := screen.Kept()
		wrote("png", o.png, screen, kept)
	}
	for _, f := range []struct {
		as, path string
		reel     *render.Reel
		write    func(w io.Writer) error
		codes    func() ([]render.Still, error)
	}{
		{"gif", o.gif, screen, func(w io.Writer) error { return screen.GIF(w, gifScale, o.rate) }, screen.All},
		{"html", o.html, screen, func(w io.Writer) error { return screen.HTML(w, cover, o.rate, paper) }, screen.All},
		{"pdf", o.pdf, paper, func(w io.Writer) error { return paper.PDF(w, cover) }, paper.Kept},
	} {
		if f.path == "" {
			continue
		}
		var b bytes.Buffer
		if err := f.write(&b); err != nil {
			return places, err
		}
		if err := medium.Save(f.path, b.Bytes(), false); err != nil {
			return places, err
		}
		codes, err := f.codes()
		if err != nil {
			return places, err
		}
		wrote(f.as, f.path, f.reel, codes)
	}
	return places, nil
}

// showPage serves the animation until the operator ends it.
func (e *Env) showPage(ctx context.Context, wire []byte, title string) error {
	p, err := camera.Listen(camera.Options{Program: e.Program, Random: Random, Player: pagePlayer{wire, title}})
	if err != nil {
		return err
	}
	e.Console.Call("open this address in a browser of this machine; it works once:\n%s", p.URL())
	return p.Serve(ctx)
}

// pagePlayer gives a page its codes.
type pagePlayer struct {
	wire  []byte
	title string
}

// Codes returns the codes of the version, or of the one that suits a screen.
func (p pagePlayer) Codes(_ context.Context, version int) (camera.Reel, error) {
	r, err := reel(p.wire, version, render.Fit(len(p.wire), screenVersion))
	if err != nil {
		return camera.Reel{}, err
	}
	stills, err := r.All()
	if err != nil {
		return camera.Reel{}, err
	}
	set := r.Set()
	out := camera.Reel{ID: set.ID().String(), Title: p.title, Version: set.Version(), Modules: render.Modules(set.Version()), K: set.K(), N: set.N()}
	for _, s := range stills {
		out.Codes = append(out.Codes, camera.Still{Index: s.Index, Bits: s.Code.Bits()})
	}
	return out, nil
}

// rows are what the outside of a bundle says, for the cover and for the sheets.
func (c *cover) rows() []field {
	rows := []field{
		{"from", string(c.From)}, {"to", string(c.To)}, {"pair", c.Pair}, {"number", fmt.Sprint(c.Seq)}, {"answers", c.Re},
		{"created", c.Created + "  (by the sender's clock)"}, {"expires", c.Expires + "  (by the requesting side's clock)"},
		{"sealed", fmt.Sprintf("%d bytes, SHA-256 %s", c.Size, c.SHA256)}, {"digest", c.Digest},
		{"spellings", fmt.Sprintf("%d bytes as text, %d in wire form", c.Text, c.Wire)},
	}
	for _, s := range c.Signers {
		rows = append(rows, field{"signed by", s})
	}
	rows = append(rows, field{"approved by", strings.Join(c.Approved, ", ")})
	var said []field
	for _, r := range rows {
		if strings.TrimSpace(r.Value) != "" {
			said = append(said, r)
		}
	}
	return said
}
